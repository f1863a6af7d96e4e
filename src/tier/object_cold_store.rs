//! Segments as objects: created once, read in ranges, deleted. Knows nothing of what is in them.

use std::future::Future;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use durable_streams_engine::store::file::segments::cold::{ColdError, ColdStore};
use futures_util::future::BoxFuture;
use object_store::path::Path;
use object_store::{
    Error, GetOptions, GetRange, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::connect::ObjectClient;
use super::counters::{TierCounters, TierOperation};
use super::failure::{classify, unavailable};
use super::outage::ReadOutage;
use super::payload::{collect, has_at, path};
use super::retry::retrying;
use super::{TierOptions, files, listing};

/// Largest object that is uploaded, bytes: it is in memory as long, and one request carries it.
pub(super) const LARGEST: u64 = 4 << 30;

/// Bytes of an uploaded object that are read back at once.
const READ_BACK: u64 = TierOptions::READ_BACK;

/// Slowest upload that is waited for, bytes a second.
const SLOWEST: u64 = 1 << 20;

/// Most bytes of an object that is read whole.
const MOST_SMALL: u64 = 64 << 10;

/// Names of a page.
const PAGE: usize = 1000;

/// What became of an object that was to be created only where there is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CreatedObject {
    /// It is there, with these bytes.
    Created,
    /// Another one was there before; its bytes.
    Existed(Bytes),
}

/// The object store behind the [`ColdStore`] that the engine knows.
#[derive(Debug)]
pub struct ObjectColdStore {
    client: ObjectClient,
    options: TierOptions,
    requests: Semaphore,
    uploads: Semaphore,
    counters: Arc<TierCounters>,
    /// An object that is always there.
    expected: OnceLock<String>,
    outage: ReadOutage,
}

impl ObjectColdStore {
    pub(super) fn new(
        client: ObjectClient,
        options: TierOptions,
        counters: Arc<TierCounters>,
    ) -> Self {
        ObjectColdStore {
            client,
            requests: Semaphore::new(options.concurrency),
            uploads: Semaphore::new(options.uploads),
            options,
            counters,
            expected: OnceLock::new(),
            outage: ReadOutage::default(),
        }
    }

    /// Names an object that is always there. While it is not, no other object is taken for lost: a directory may not be
    /// mounted, a bucket may be another one.
    pub(super) fn expect(&self, name: String) {
        let _ = self.expected.set(name);
    }

    async fn missing(&self) -> ColdError {
        let Some(expected) = self.expected.get() else { return ColdError::NotFound };
        match self.small(expected).await {
            Ok(Some(_)) => ColdError::NotFound,
            Ok(None) => unavailable("nothing is where the objects were"),
            Err(error) => error,
        }
    }

    pub(super) fn counters(&self) -> &Arc<TierCounters> {
        &self.counters
    }

    /// Whether the last read has failed.
    pub(super) fn reads_fail(&self) -> bool {
        self.outage.is_on()
    }

    /// Whether half of the requests that may be under way are.
    pub(super) fn is_busy(&self) -> bool {
        self.requests.available_permits() <= self.options.concurrency / 2
    }

    pub(super) fn options(&self) -> &TierOptions {
        &self.options
    }

    /// Creates an object from bytes in memory, one of as many as may be uploaded at once.
    pub(super) async fn put_parts(&self, name: &str, parts: Vec<Bytes>) -> Result<(), ColdError> {
        let _permit = self.uploads.acquire().await.map_err(|_| unavailable("stopped"))?;
        self.create(name, parts).await
    }

    /// Creates an object, and reads it back. Succeeds also when the object is there with the same bytes: the answer of an
    /// earlier attempt may be lost.
    pub(super) async fn create(&self, name: &str, bytes: Vec<Bytes>) -> Result<(), ColdError> {
        let size = bytes.iter().map(Bytes::len).sum::<usize>() as u64;
        if let Err(error) = self.create_part(name, bytes).await {
            self.counters.upload_failures.add(1);
            return Err(error);
        }
        self.counters.uploads.add(1);
        self.counters.uploaded_bytes.add(size);
        Ok(())
    }

    /// The same for a part of a copy of the index, which is counted elsewhere.
    pub(super) async fn create_part(&self, name: &str, bytes: Vec<Bytes>) -> Result<(), ColdError> {
        let (path, payload) = (path(name)?, bytes.into_iter().collect::<PutPayload>());
        let time = Duration::from_secs(payload.content_length() as u64 / SLOWEST);
        let attempt = || async {
            match self.create_once(&path, &payload).await {
                // Not visible yet, while another attempt at it is under way.
                Ok(()) => self.verify(&path, &payload).await,
                Err(error) => Err(error),
            }
        };
        // Writing it and reading it back.
        let attempt_timeout = self.options.retry.attempt_timeout + 2 * time;
        retrying(&self.options.retry, attempt_timeout, None, attempt).await
    }

    /// Sends the object once. It may be there already.
    async fn create_once(&self, path: &Path, payload: &PutPayload) -> Result<(), ColdError> {
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = async {
            match self.client.store.put_opts(path, payload.clone(), create).await {
                Ok(_) | Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(()),
                Err(error) => Err(classify(&error)),
            }
        };
        self.counted(TierOperation::Put, put).await
    }

    /// Compares an object with what it should be.
    async fn verify(&self, path: &Path, payload: &PutPayload) -> Result<(), ColdError> {
        let total = payload.content_length() as u64;
        let size = match self.size_once(path).await {
            // Another attempt is under way, or was refused for this one.
            Err(ColdError::NotFound) => {
                return Err(unavailable("the uploaded object is not there"));
            }
            size => size?,
        };
        let other = || ColdError::Damaged("an object of this name has other bytes".into());
        if size != total {
            return Err(other());
        }
        for from in (0..total).step_by(READ_BACK as usize) {
            let range = from..(from + READ_BACK).min(total);
            // What has changed on the way is another time the same.
            if !has_at(payload, from, &self.get_once(path, range.clone()).await?)
                && !has_at(payload, from, &self.get_once(path, range).await?)
            {
                return Err(other());
            }
        }
        Ok(())
    }

    /// Creates a small object, unless there is one of this name: then that one stays, and is returned. An object with the
    /// same bytes is taken for the one that was created, so the bytes must hold something random.
    pub(super) async fn try_create(
        &self,
        name: &str,
        bytes: Bytes,
    ) -> Result<CreatedObject, ColdError> {
        let (path, payload) = (path(name)?, PutPayload::from(bytes.clone()));
        let attempt = || async {
            self.create_once(&path, &payload).await?;
            let found = match self.get_whole(&path).await {
                Err(ColdError::NotFound) => {
                    return Err(unavailable("the created object is not there"));
                }
                found => found?,
            };
            Ok(if found == bytes { CreatedObject::Created } else { CreatedObject::Existed(found) })
        };
        self.repeat(None, attempt).await
    }

    /// A small object; `None` where there is none.
    pub(super) async fn small(&self, name: &str) -> Result<Option<Bytes>, ColdError> {
        let path = path(name)?;
        match self.repeat(None, || self.get_whole(&path)).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(ColdError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn get_whole(&self, path: &Path) -> Result<Bytes, ColdError> {
        let get = async {
            let found = self.client.store.get(path).await.map_err(|error| classify(&error))?;
            let size = found.meta.size;
            if size > MOST_SMALL {
                return Err(ColdError::Damaged("the object is far too large".into()));
            }
            let bytes = collect(found, size).await?;
            self.counters.received_bytes.add(bytes.len() as u64);
            if bytes.len() as u64 == size {
                return Ok(bytes);
            }
            Err(unavailable(format!("{} of {size} bytes arrived", bytes.len())))
        };
        self.counted(TierOperation::Get, get).await
    }

    async fn size_once(&self, path: &Path) -> Result<u64, ColdError> {
        let head = async {
            let head = self.client.store.head(path).await;
            head.map(|meta| meta.size).map_err(|error| classify(&error))
        };
        self.counted(TierOperation::Head, head).await
    }

    /// The size of an object, bytes.
    pub(super) async fn size(&self, name: &str, deadline: Instant) -> Result<u64, ColdError> {
        let path = path(name)?;
        let found = match self.permit(deadline).await {
            Ok(_permit) => self.repeat(Some(deadline), || self.size_once(&path)).await,
            Err(error) => Err(error),
        };
        let found = match found {
            Err(ColdError::NotFound) => Err(self.missing().await),
            found => found,
        };
        self.outage.note(found.as_ref().err());
        found
    }

    /// Bytes of an object: exactly `range`, or an error.
    pub(super) async fn range(
        &self,
        name: &str,
        range: Range<u64>,
        deadline: Instant,
    ) -> Result<Bytes, ColdError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let path = path(name)?;
        let permit = self.permit(deadline).await;
        let read = match permit {
            Ok(_permit) => {
                self.repeat(Some(deadline), || self.get_once(&path, range.clone())).await
            }
            Err(error) => Err(error),
        };
        let read = match read {
            Err(ColdError::NotFound) => Err(self.missing().await),
            read => read,
        };
        self.outage.note(read.as_ref().err());
        read
    }

    async fn get_once(&self, path: &Path, range: Range<u64>) -> Result<Bytes, ColdError> {
        let options =
            GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let get = async {
            let found = self.client.store.get_opts(path, options).await;
            let found = found.map_err(|error| classify(&error))?;
            if found.meta.size < range.end {
                return Err(ColdError::Damaged("the object is shorter than the range".into()));
            }
            let wanted = range.end - range.start;
            let bytes = collect(found, wanted).await?;
            self.counters.received_bytes.add(bytes.len() as u64);
            if bytes.len() as u64 == wanted {
                return Ok(bytes);
            }
            // Cut off on the way.
            Err(unavailable(format!("{} of {wanted} bytes arrived", bytes.len())))
        };
        self.counted(TierOperation::Get, get).await
    }

    async fn remove(&self, name: &str) -> Result<(), ColdError> {
        let path = path(name)?;
        let _permit = self.requests.acquire().await.map_err(|_| unavailable("stopped"))?;
        let attempt = || async {
            match self.client.store.delete(&path).await {
                // The answer of an earlier attempt may be lost.
                Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(classify(&error)),
            }
        };
        self.repeat(None, || self.counted(TierOperation::Delete, attempt())).await?;
        self.counters.deletes.add(1);
        Ok(())
    }

    async fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Vec<(String, u64)>, ColdError> {
        let _permit = self.requests.acquire().await.map_err(|_| unavailable("stopped"))?;
        let attempt = || async {
            let names = listing::page(&self.client, prefix, after, PAGE);
            names.await.map_err(|error| classify(&error))
        };
        self.repeat(None, || self.counted(TierOperation::List, attempt())).await
    }

    async fn permit(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, ColdError> {
        let permit = timeout_at(deadline, self.requests.acquire()).await;
        permit
            .map_err(|_| unavailable("too many requests are under way"))?
            .map_err(|_| unavailable("stopped"))
    }

    async fn repeat<T, A>(
        &self,
        deadline: Option<Instant>,
        attempt: impl FnMut() -> A,
    ) -> Result<T, ColdError>
    where
        A: Future<Output = Result<T, ColdError>>,
    {
        let retry = &self.options.retry;
        retrying(retry, retry.attempt_timeout, deadline, attempt).await
    }

    /// Counts a request under how it ends. One that ends with its attempt's time counts as abandoned.
    async fn counted<T>(
        &self,
        operation: TierOperation,
        request: impl Future<Output = Result<T, ColdError>>,
    ) -> Result<T, ColdError> {
        let counted = self.counters.request(operation);
        let done = request.await;
        counted.end(&done);
        done
    }
}

impl ColdStore for ObjectColdStore {
    fn put(&self, name: &str, file: PathBuf) -> BoxFuture<'_, Result<(), ColdError>> {
        let name = name.to_owned();
        Box::pin(async move {
            let _permit = self.uploads.acquire().await.map_err(|_| unavailable("stopped"))?;
            let read = tokio::task::spawn_blocking(move || files::read_parts(&file, LARGEST)).await;
            let refuse =
                |error: String| ColdError::Refused(format!("cannot read the segment: {error}"));
            let read = read.map_err(|error| refuse(error.to_string()))?;
            let Some(parts) = read.map_err(|error| refuse(error.to_string()))? else {
                return Err(refuse("it is larger than 4 GiB".into()));
            };
            self.create(&name, parts).await
        })
    }

    fn get(&self, name: &str, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ColdError>> {
        let name = name.to_owned();
        let deadline = Instant::now() + self.options.read_timeout;
        Box::pin(async move { self.range(&name, range, deadline).await })
    }

    fn delete(&self, name: &str) -> BoxFuture<'_, Result<(), ColdError>> {
        let name = name.to_owned();
        Box::pin(async move { self.remove(&name).await })
    }

    fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> BoxFuture<'_, Result<Vec<(String, u64)>, ColdError>> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        Box::pin(async move { self.page(&prefix, after.as_deref()).await })
    }
}
