//! An object store that fails as real ones do, by the numbers of a seed.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use tokio::sync::watch;

/// How often of a thousand times each fault happens.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FaultRates {
    /// The store does what it was asked, and its answer is lost.
    pub(super) lost: u32,
    /// It answers 500 or 503, and does nothing.
    pub(super) failed: u32,
    /// It answers 403.
    pub(super) forbidden: u32,
    /// It never answers.
    pub(super) silent: u32,
    /// The body ends early.
    pub(super) short: u32,
    /// The body has another byte.
    pub(super) wrong: u32,
    /// It stores something else than it was sent.
    pub(super) stored_wrong: u32,
    /// A list lacks names that it should have.
    pub(super) late_list: u32,
    /// A creation is not answered, and happens up to a minute later.
    pub(super) late_put: u32,
    /// The same of a deletion.
    pub(super) late_delete: u32,
}

impl FaultRates {
    /// Everything that a later attempt may mend.
    pub(super) const PASSING: Self = FaultRates {
        lost: 60,
        failed: 80,
        forbidden: 0,
        silent: 20,
        short: 60,
        wrong: 60,
        stored_wrong: 0,
        late_list: 200,
        late_put: 0,
        late_delete: 0,
    };
}

/// What a store does always, against the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Habit {
    #[default]
    None,
    /// Takes `If-None-Match: *` for nothing.
    Overwrites,
    /// Returns the first bytes of the object, whatever range was asked for.
    IgnoresRanges,
    /// Lists nothing.
    ListsNothing,
    /// Deletes nothing.
    KeepsDeleted,
    /// Refuses everything.
    Forbids,
}

/// The crate's store in memory, with faults.
pub(super) struct FaultyStore {
    inner: Arc<InMemory>,
    state: Mutex<FaultState>,
    /// Parts of copies of the index wait as long as it is true.
    parts_held: watch::Sender<bool>,
    habit: Habit,
}

struct FaultState {
    rates: FaultRates,
    random: fastrand::Rng,
    gets: usize,
    delay: Duration,
    /// Changes that it makes until it is down; `None` for no end.
    changes: Option<u32>,
    /// Bytes of the largest part of a copy of the index that it was sent.
    largest_part: usize,
}

impl FaultyStore {
    pub(super) fn new(seed: u64, rates: FaultRates) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let state = FaultState {
            rates,
            random,
            gets: 0,
            delay: Duration::ZERO,
            changes: None,
            largest_part: 0,
        };
        FaultyStore {
            inner: Arc::new(InMemory::new()),
            state: Mutex::new(state),
            parts_held: watch::Sender::new(false),
            habit: Habit::None,
        }
    }

    /// Has parts of copies of the index wait from now on, or go on.
    pub(super) fn hold_parts(&self, held: bool) {
        self.parts_held.send_replace(held);
    }

    /// Whether a part of a copy of the index waits.
    pub(super) fn holds_part(&self) -> bool {
        self.parts_held.receiver_count() > 0
    }

    pub(super) fn with_habit(habit: Habit) -> Self {
        FaultyStore { habit, ..Self::new(0, FaultRates::default()) }
    }

    pub(super) fn set_rates(&self, rates: FaultRates) {
        self.state.lock().rates = rates;
    }

    /// How long each read takes.
    pub(super) fn set_delay(&self, delay: Duration) {
        self.state.lock().delay = delay;
    }

    /// Goes down after so many more objects were created or deleted; `None` is up again.
    pub(super) fn down_after(&self, changes: Option<u32>) {
        self.state.lock().changes = changes;
    }

    /// Bytes of the largest part of a copy of the index that it was sent so far.
    pub(super) fn largest_part(&self) -> usize {
        self.state.lock().largest_part
    }

    /// What happens to a change.
    fn change(&self) -> Result<()> {
        let mut state = self.state.lock();
        match &mut state.changes {
            None => Ok(()),
            Some(0) => Err(answered("503 SlowDown")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    /// Replaces an object, against the rules.
    pub(super) async fn replace(&self, name: &str, bytes: Bytes) {
        self.inner.put(&Path::from(name), bytes.into()).await.unwrap();
    }

    /// Requests for ranges so far.
    pub(super) fn gets(&self) -> usize {
        self.state.lock().gets
    }

    /// The bytes that it has.
    pub(super) async fn whole(&self, name: &str) -> Option<Bytes> {
        self.inner.get(&Path::from(name)).await.ok()?.bytes().await.ok()
    }

    /// The names of all objects that begin so, without faults.
    pub(super) async fn names(&self, prefix: &str) -> Vec<String> {
        let all: Vec<ObjectMeta> = self.inner.list(None).try_collect().await.unwrap();
        let names = all.into_iter().map(|object| object.location.to_string());
        names.filter(|name| name.starts_with(prefix)).collect()
    }

    /// Within a minute, by the clock of the runtime.
    fn later(&self) -> Duration {
        Duration::from_millis(self.below(60_000) as u64)
    }

    fn happens(&self, rate: impl Fn(&FaultRates) -> u32) -> bool {
        let mut state = self.state.lock();
        let rate = rate(&state.rates);
        state.random.u32(0..1000) < rate
    }

    fn below(&self, bound: usize) -> usize {
        self.state.lock().random.usize(0..bound)
    }

    /// What may happen to any request before the store does anything.
    async fn before(&self) -> Result<()> {
        if self.habit == Habit::Forbids || self.happens(|rates| rates.forbidden) {
            return Err(Error::PermissionDenied {
                path: "x".into(),
                source: "403 AccessDenied".into(),
            });
        }
        if self.happens(|rates| rates.silent) {
            std::future::pending::<()>().await;
        }
        if self.happens(|rates| rates.failed) {
            return Err(answered(if self.below(2) == 0 {
                "500 Internal Server Error"
            } else {
                "503 SlowDown"
            }));
        }
        Ok(())
    }

    fn after<T>(&self, done: T) -> Result<T> {
        if self.happens(|rates| rates.lost) { Err(answered("connection reset")) } else { Ok(done) }
    }

    fn spoil(&self, bytes: Bytes) -> Bytes {
        let mut bytes = bytes.to_vec();
        if !bytes.is_empty() {
            let at = self.below(bytes.len());
            bytes[at] ^= 1 << self.below(8);
        }
        bytes.into()
    }
}

fn answered(what: &str) -> Error {
    let text = format!("Server returned non-2xx status code: {what}");
    let text = if what.contains("reset") { what.to_owned() } else { text };
    Error::Generic { store: "faulty", source: text.into() }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        mut options: PutOptions,
    ) -> Result<PutResult> {
        self.before().await?;
        self.change()?;
        if path.as_ref().ends_with(".mdb") {
            let _ = self.parts_held.subscribe().wait_for(|held| !held).await;
            let mut state = self.state.lock();
            state.largest_part = state.largest_part.max(payload.content_length());
        }
        if self.habit == Habit::Overwrites {
            options.mode = PutMode::Overwrite;
        }
        let payload = if self.happens(|rates| rates.stored_wrong) {
            self.spoil(payload.into()).into()
        } else {
            payload
        };
        if self.happens(|rates| rates.late_put) {
            let (inner, path, later) = (self.inner.clone(), path.clone(), self.later());
            tokio::spawn(async move {
                tokio::time::sleep(later).await;
                let _ = inner.put_opts(&path, payload, options).await;
            });
            return Err(answered("connection reset"));
        }
        let put = self.inner.put_opts(path, payload, options).await?;
        self.after(put)
    }

    async fn get_opts(&self, path: &Path, mut options: GetOptions) -> Result<GetResult> {
        let delay = {
            let mut state = self.state.lock();
            state.gets += 1;
            state.delay
        };
        tokio::time::sleep(delay).await;
        self.before().await?;
        if let (Habit::IgnoresRanges, Some(range)) = (self.habit, &mut options.range) {
            let wanted = range.as_range(u64::MAX).unwrap();
            *range = (0..wanted.end - wanted.start).into();
        }
        let head = options.head;
        let found = self.after(self.inner.get_opts(path, options).await?)?;
        if head {
            return Ok(found);
        }
        let (meta, range) = (found.meta.clone(), found.range.clone());
        let (attributes, extensions) = (found.attributes.clone(), found.extensions.clone());
        let mut bytes = found.bytes().await?;
        if self.happens(|rates| rates.wrong) {
            bytes = self.spoil(bytes);
        }
        if self.happens(|rates| rates.short) && !bytes.is_empty() {
            bytes.truncate(self.below(bytes.len()));
        }
        let half = bytes.split_off(bytes.len() / 2);
        let payload = GetResultPayload::Stream(stream::iter([Ok(bytes), Ok(half)]).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        if self.habit == Habit::KeepsDeleted {
            return paths;
        }
        if let Err(down) = self.change() {
            return stream::iter([Err(down)]).boxed();
        }
        if self.habit == Habit::Forbids || self.happens(|rates| rates.failed) {
            return stream::iter([Err(answered("503 SlowDown"))]).boxed();
        }
        if self.happens(|rates| rates.late_delete) {
            let (deleted, later) = (self.inner.delete_stream(paths), self.later());
            tokio::spawn(async move {
                tokio::time::sleep(later).await;
                let _ = deleted.collect::<Vec<_>>().await;
            });
            return stream::iter([Err(answered("connection reset"))]).boxed();
        }
        let lost = self.happens(|rates| rates.lost);
        let deleted = self.inner.delete_stream(paths);
        if !lost {
            return deleted;
        }
        deleted.and_then(|_| async { Err(answered("connection reset")) }).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.happens(|rates| rates.failed) {
            return stream::iter([Err(answered("503 SlowDown"))]).boxed();
        }
        if self.habit == Habit::ListsNothing {
            return stream::empty().boxed();
        }
        let hidden = if self.happens(|rates| rates.late_list) { self.below(3) + 1 } else { 0 };
        let all = self.inner.list(prefix);
        // The newest names are the last ones of a list.
        let late = stream::once(all.collect::<Vec<_>>()).flat_map(move |mut names| {
            names.truncate(names.len().saturating_sub(hidden));
            stream::iter(names)
        });
        late.boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyStore")
    }
}
