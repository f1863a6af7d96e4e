//! Whether the object store does what segments need, found out by doing it, before anything depends on it.

use std::time::Duration;

use bytes::Bytes;
use durable_streams_engine::store::file::segments::cold::{ColdError, ColdStore as _};
use durable_streams_protocol::Timestamp;
use tokio::time::Instant;

use super::object_cold_store::{CreatedObject, ObjectColdStore};

/// Folder of the objects that a probe makes and deletes.
pub(super) const FOLDER: &str = "probe/";

/// Bytes of the probe's object.
const SIZE: usize = 4096;

/// How late a new object may be in the list.
const LATE: Duration = Duration::from_secs(10);

/// How old what an interrupted probe has left is before another one deletes it, milliseconds.
const OLD: u64 = 24 * 60 * 60 * 1000;

/// The object store cannot be used: what was tried, what came of it, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It did not answer, or refused.
    #[error("cannot {tried}: {error}; {}", advice(.error))]
    Failed {
        /// What was tried.
        tried: &'static str,
        /// What came of it.
        error: ColdError,
    },
    /// It answered, but did something else.
    #[error("it {0}")]
    Unsuitable(&'static str),
}

fn advice(error: &ColdError) -> &'static str {
    match error {
        ColdError::Refused(_) => {
            "check the bucket's name, the credentials and that they may get, put, list and delete below the prefix"
        }
        ColdError::Unavailable { .. } => "check tier.endpoint, the region and the network",
        _ => "use another object store",
    }
}

const IGNORES_CONDITION: &str = "replaces an object that was to be created only (If-None-Match: *), so two servers \
     could overwrite each other's segments; use a store that supports conditional writes";

/// Creates an object, tries to create it again, reads, lists and deletes it.
pub(super) async fn probe(store: &ObjectColdStore, now: Timestamp) -> Result<(), ProbeError> {
    let failed = |tried| move |error| ProbeError::Failed { tried, error };
    let unsuitable = |what| Err(ProbeError::Unsuitable(what));
    let name = format!("{FOLDER}{:020}-{:016x}", now.millis(), fastrand::u64(..));
    let [first, second] = [0, 1].map(|_| Bytes::from_iter((0..SIZE).map(|_| fastrand::u8(..))));

    let created = store.try_create(&name, first.clone()).await;
    if created.map_err(failed("create an object"))? != CreatedObject::Created {
        return unsuitable("returns other bytes than were written");
    }
    let again = store.try_create(&name, second).await;
    match again.map_err(failed("create an object that is there"))? {
        CreatedObject::Existed(bytes) if bytes == first => {}
        CreatedObject::Created => return unsuitable(IGNORES_CONDITION),
        CreatedObject::Existed(_) => return unsuitable("returns other bytes than were written"),
    }
    for range in [0..1, 17..1000, SIZE - 1..SIZE, 0..SIZE] {
        let wanted = range.start as u64..range.end as u64;
        let read = store.get(&name, wanted).await.map_err(failed("read a range of an object"))?;
        if read != first[range] {
            return unsuitable("returns another range than was asked for");
        }
    }
    listed(store, &name).await?;
    store.delete(&name).await.map_err(failed("delete an object"))?;
    match store.small(&name).await.map_err(failed("look for a deleted object"))? {
        None => {}
        Some(_) => return unsuitable("returns an object that was deleted"),
    }
    clean(store, now).await;
    Ok(())
}

async fn listed(store: &ObjectColdStore, name: &str) -> Result<(), ProbeError> {
    let began = Instant::now();
    loop {
        let page = store.list(name, None).await;
        let page = page.map_err(|error| ProbeError::Failed { tried: "list objects", error })?;
        match page.as_slice() {
            [(found, size)] if found == name && *size == SIZE as u64 => return Ok(()),
            [] if began.elapsed() < LATE => tokio::time::sleep(Duration::from_millis(200)).await,
            _ => return Err(ProbeError::Unsuitable("does not list an object that was created")),
        }
    }
}

/// Deletes what interrupted probes have left. What cannot be deleted now is there for the next one.
async fn clean(store: &ObjectColdStore, now: Timestamp) {
    let Ok(page) = store.list(FOLDER, None).await else { return };
    for (name, _) in page {
        let made = name.strip_prefix(FOLDER).and_then(|rest| rest.get(..20)?.parse::<u64>().ok());
        if made.is_some_and(|made| made.saturating_add(OLD) < now.millis()) {
            let _ = store.delete(&name).await;
        }
    }
}
