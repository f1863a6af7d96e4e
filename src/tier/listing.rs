//! Names of objects in pages, in byte order, whatever the store's own order is.

use std::collections::BinaryHeap;

use futures_util::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectMeta, Result};

use super::connect::ObjectClient;

/// The first `most` objects whose names begin with `prefix` and come after `after`.
pub(super) async fn page(
    client: &ObjectClient,
    prefix: &str,
    after: Option<&str>,
    most: usize,
) -> Result<Vec<(String, u64)>> {
    // The crate lists folders; the rest of the prefix is compared here.
    let folder = prefix.rsplit_once('/').map(|(folder, _)| Path::from(folder));
    let mut found = match after {
        Some(after) => client.store.list_with_offset(folder.as_ref(), &Path::from(after)),
        None => client.store.list(folder.as_ref()),
    };
    let mut page = BinaryHeap::new();
    while let Some(ObjectMeta { location, size, .. }) = found.try_next().await? {
        let name = location.to_string();
        // Not every store starts where it was asked to.
        if !name.starts_with(prefix) || after.is_some_and(|after| name.as_str() <= after) {
            continue;
        }
        page.push((name, size));
        if page.len() > most {
            page.pop();
        }
        if client.sorted && page.len() == most {
            break;
        }
    }
    Ok(page.into_sorted_vec())
}
