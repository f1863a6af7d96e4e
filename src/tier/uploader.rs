//! Moves sealed segments to the object store, and deletes objects that no stream needs any more.
//!
//! Invariants
//! - A segment is uploaded only if its file is whole, and its local file goes only after its object was read back whole
//!   and the index has noted it.
//! - Once this server has seen that another one has claimed the prefix, it uploads and deletes nothing. It looks for
//!   such a claim each minute, and just before it deletes.
//! - Whatever is lost on the way is found again: the index names what is to be uploaded, a list what is to be deleted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use durable_streams_engine::store::StoreError;
use durable_streams_engine::store::file::FileStore;
use durable_streams_engine::store::file::segments::cold::{ColdError, ColdStore as _};
use durable_streams_engine::store::file::segments::format::number_of;
use durable_streams_engine::store::file::segments::objects::{SegmentInfo, SegmentPlace};
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::recall::RecalledSegments;
use super::segment_owner::SegmentOwner;
use super::upload_backlog::WaitingSegment;
use super::{Tier, files};

/// How long a claim that was looked at is relied on for uploads, which replace nothing.
const CLAIM: Duration = Duration::from_secs(60);

/// When the first search for objects that no segment has begins, after the start.
const FIRST_SEARCH: Duration = Duration::from_secs(10 * 60);

/// The pause between two searches. What two of them find is deleted.
const SEARCH: Duration = Duration::from_secs(6 * 60 * 60);

/// Segments that are looked at in one read of the index.
const STEP: usize = 256;

/// Segments that are uploaded before local files go and objects are deleted again.
const ROUND: usize = 64;

/// Uploads that fail one after the other before the rest of a round is put off: the object store is down.
const FAILURES: usize = 4;

/// Most objects that are remembered for deletion; a search finds the others.
const MOST_DOOMED: usize = 65_536;

/// The background work of a tier.
pub struct SegmentUploader {
    tier: Tier,
    owner: Arc<dyn SegmentOwner>,
    /// Segments whose objects are to be deleted.
    doomed: BTreeSet<u64>,
    /// What the last search found without a segment.
    strays: BTreeSet<u64>,
    /// Segments whose files are not whole, which are not uploaded.
    damaged: BTreeSet<u64>,
    /// The last round had more to upload than it was to.
    has_more: bool,
    recalled: RecalledSegments,
    looked_at_claim: Mutex<Option<Instant>>,
    next_search: Instant,
}

/// What came of a segment that was to be uploaded.
enum Uploaded {
    /// The index has noted its object.
    Whole,
    /// It was removed.
    Gone,
    /// It was removed meanwhile: its object, if there is one, may go.
    OfNoUse(u64),
    /// Its file is not whole.
    Damaged(u64),
}

/// Why a round ended early.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// Another server has the prefix. Nothing is uploaded or deleted any more.
    #[error(
        "another server has taken the prefix over: nothing is uploaded or deleted any more; stop this server"
    )]
    Superseded,
    /// The object store failed. What is local stays.
    #[error("the object store: {0}")]
    Cold(#[from] ColdError),
    /// The index failed.
    #[error("the index: {0}")]
    Store(#[from] StoreError),
}

impl SegmentUploader {
    /// For a tier, and the store whose segments go there.
    pub fn new(tier: Tier, owner: Arc<dyn SegmentOwner>) -> Self {
        SegmentUploader {
            tier,
            owner,
            doomed: BTreeSet::new(),
            strays: BTreeSet::new(),
            damaged: BTreeSet::new(),
            has_more: false,
            recalled: RecalledSegments::none(),
            looked_at_claim: Mutex::new(None),
            next_search: Instant::now() + FIRST_SEARCH,
        }
    }

    /// Works until another server has taken the prefix over. Failures are logged and tried again.
    pub async fn run(mut self) {
        let mut failed = false;
        loop {
            match self.round().await {
                Ok(()) => failed = false,
                Err(error @ UploadError::Superseded) => {
                    self.tier.counters().superseded.add(1);
                    tracing::error!(%error, "the claim on the object store is lost");
                    return;
                }
                // Once for each outage.
                Err(error) if !failed => {
                    failed = true;
                    tracing::warn!(%error, "cannot move segments to the object store; they stay on the disk, and it will be tried again");
                }
                Err(_) => {}
            }
            if failed || !self.has_more {
                tokio::time::sleep(self.tier.options().interval).await;
            }
        }
    }

    /// Uploads what is due, makes room on the local disk, deletes what is not needed.
    ///
    /// # Errors
    /// The first thing that failed; the next round goes on there.
    pub async fn round(&mut self) -> Result<(), UploadError> {
        // Also while the object store is down.
        let due = self.due().await?;
        self.check_claim(CLAIM).await?;
        let owner = self.owner.clone();
        let Some(store) = owner.file_store() else { return Ok(()) };
        for freed in store.freed_segments() {
            if self.doomed.len() < MOST_DOOMED {
                self.doomed.insert(freed);
            }
        }
        self.delete_doomed().await?;
        let uploaded = self.upload_due(due).await;
        self.make_room().await?;
        uploaded?;
        self.recall().await?;
        if Instant::now() >= self.next_search {
            self.next_search = Instant::now() + FIRST_SEARCH;
            self.search().await?;
            self.next_search = Instant::now() + SEARCH;
        }
        Ok(())
    }

    /// Looks for a newer claim, unless that was done not longer than `relied_on` ago.
    async fn check_claim(&self, relied_on: Duration) -> Result<(), UploadError> {
        if self.looked_at_claim.lock().is_some_and(|at| at.elapsed() < relied_on) {
            return Ok(());
        }
        let now = Instant::now();
        if !self.tier.holds_claim().await? {
            return Err(UploadError::Superseded);
        }
        *self.looked_at_claim.lock() = Some(now);
        Ok(())
    }

    async fn delete_doomed(&mut self) -> Result<(), UploadError> {
        while let Some(number) = self.doomed.first().copied() {
            self.tier.counters().note_waiting_deletes(self.doomed.len());
            self.check_claim(Duration::ZERO).await?;
            if self.blocking(move |store| store.has_segment(number)).await? == Some(false) {
                self.tier.cold_store().delete(&self.tier.segment_name(number)).await?;
            }
            self.doomed.remove(&number);
        }
        self.tier.counters().note_waiting_deletes(0);
        Ok(())
    }

    /// Runs `act` where it may wait for the disk.
    async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&FileStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Option<T>, StoreError> {
        let owner = self.owner.clone();
        let done = tokio::task::spawn_blocking(move || owner.file_store().map(act).transpose());
        done.await.unwrap_or(Err(StoreError::Closed))
    }

    /// The segments of which `keep` is true.
    async fn segments(
        &self,
        keep: impl Fn(&SegmentInfo) -> bool + Copy + Send + 'static,
    ) -> Result<Vec<SegmentInfo>, StoreError> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let step = self.blocking(move |store| store.segments_after(after, STEP)).await?;
            let step = step.unwrap_or_default();
            let Some(last) = step.last() else { return Ok(all) };
            after = Some(last.number);
            all.extend(step.into_iter().filter(keep));
        }
    }

    /// The segments that are old enough to be uploaded. A clock that was set back makes none younger than it is.
    async fn due(&self) -> Result<Vec<WaitingSegment>, StoreError> {
        let local = self.segments(|segment| segment.place == SegmentPlace::Local).await?;
        let after = self.tier.options().after;
        let due = self.blocking(move |store| {
            let due = local.iter().filter_map(|segment| {
                // One that was removed since has no age.
                let waited = files::age(&store.segment_path(segment.number))?.checked_sub(after)?;
                Some(WaitingSegment { number: segment.number, bytes: segment.file_len, waited })
            });
            Ok(due.collect::<Vec<_>>())
        });
        let due = due.await?.unwrap_or_default();
        self.tier.counters().backlog.note(&due);
        Ok(due)
    }

    async fn upload_due(&mut self, mut due: Vec<WaitingSegment>) -> Result<(), UploadError> {
        due.retain(|segment| !self.damaged.contains(&segment.number));
        self.has_more = due.len() > ROUND;
        due.truncate(ROUND);
        let at_once = self.tier.options().uploads;
        let this = &*self;
        let uploads = due.into_iter().map(|segment| this.upload(segment.number));
        let mut uploads = stream::iter(uploads).buffer_unordered(at_once);
        let (mut failed, mut in_a_row, mut uploaded) = (None, 0, 0);
        let (mut doomed, mut damaged) = (Vec::new(), Vec::new());
        while let Some(done) = uploads.next().await {
            match done {
                Ok(Uploaded::Whole) => (in_a_row, uploaded) = (0, uploaded + 1),
                Ok(Uploaded::OfNoUse(number)) => doomed.push(number),
                Ok(Uploaded::Damaged(number)) => damaged.push(number),
                Ok(Uploaded::Gone) => {}
                Err(error @ UploadError::Superseded) => return Err(error),
                // Another one may have better luck.
                Err(error) => {
                    failed = failed.or(Some(error));
                    in_a_row += 1;
                    if in_a_row == FAILURES {
                        break;
                    }
                }
            }
        }
        drop(uploads);
        // Those that come first may fail each time.
        self.has_more &= uploaded > 0;
        self.doomed.extend(doomed);
        self.damaged.extend(damaged);
        failed.map_or(Ok(()), Err)
    }

    /// Uploads a segment that is old enough.
    async fn upload(&self, number: u64) -> Result<Uploaded, UploadError> {
        self.check_claim(CLAIM).await?;
        let Some(path) = self.owner.file_store().map(|store| store.segment_path(number)) else {
            return Ok(Uploaded::Gone);
        };
        match self.blocking(move |store| store.check_segment(number)).await {
            Ok(Some(true)) => {}
            Ok(_) => {
                self.tier.counters().backlog.done(number);
                return Ok(Uploaded::Gone);
            }
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(%error, segment = number, "a segment is damaged, and is not uploaded");
                return Ok(Uploaded::Damaged(number));
            }
            Err(error) => return Err(error.into()),
        }
        let name = self.tier.segment_name(number);
        match self.tier.cold_store().put(&name, path.clone()).await {
            Ok(()) => {}
            Err(ColdError::Damaged(what)) => {
                // A copy of this data directory may have taken the prefix over, and have a segment of this number.
                self.check_claim(Duration::ZERO).await?;
                // No reader knows of it, since the index has not noted it: the next round begins it again.
                tracing::warn!(
                    segment = number,
                    what,
                    "an upload left other bytes; it is deleted and done again"
                );
                self.tier.cold_store().delete(&name).await?;
                return Err(ColdError::Damaged(what).into());
            }
            // Removed while it was to be read.
            Err(_) if !files::is_there(&path).await => {
                self.tier.counters().backlog.done(number);
                return Ok(Uploaded::Gone);
            }
            Err(error) => return Err(error.into()),
        }
        let noted = self.blocking(move |store| store.note_object(number)).await?;
        self.tier.counters().backlog.done(number);
        Ok(if noted == Some(false) { Uploaded::OfNoUse(number) } else { Uploaded::Whole })
    }

    /// Removes local files whose objects are there, the oldest first, until the others take no more than the budget.
    async fn make_room(&self) -> Result<(), UploadError> {
        let Some(most) = self.tier.options().local else { return Ok(()) };
        let local = self.segments(|segment| segment.place.is_local()).await?;
        let mut bytes: u64 = local.iter().map(|segment| segment.file_len).sum();
        for segment in local.iter().filter(|segment| segment.place == SegmentPlace::Both) {
            if bytes <= most {
                break;
            }
            if self.recalled.knows(segment.number) {
                continue;
            }
            let number = segment.number;
            if self.blocking(move |store| store.drop_local(number)).await? == Some(true) {
                bytes -= segment.file_len;
            }
        }
        Ok(())
    }

    /// Brings back some segments that are objects only and are to be rewritten, which the sealer does when it next walks.
    async fn recall(&mut self) -> Result<(), UploadError> {
        if !self.recalled.is_due() {
            return Ok(());
        }
        let both = self.segments(|segment| segment.place == SegmentPlace::Both).await?;
        let mut room = self.recalled.room(&both.iter().map(|segment| segment.number).collect());
        let sparse = self.blocking(|store| store.sparse_objects(STEP)).await?.unwrap_or_default();
        for SegmentInfo { number, file_len, .. } in sparse {
            if room == 0 {
                break;
            }
            if self.recalled.knows(number) {
                continue;
            }
            room -= 1;
            if let Err(error) = self.bring_back(number, file_len).await {
                tracing::warn!(segment = number, %error, "cannot fetch a segment, to free what no stream needs of it; it will be tried again in a day");
                self.recalled.failed(number);
            }
        }
        Ok(())
    }

    async fn bring_back(&mut self, number: u64, len: u64) -> Result<(), UploadError> {
        let parts = self.tier.whole_object(number, len).await?;
        let back = self.blocking(move |store| store.bring_back(number, &parts)).await?;
        if back == Some(true) {
            self.recalled.brought_back(number);
        }
        Ok(())
    }

    /// Deletes the objects that no segment has, now and at the last search: those that a crash has left.
    async fn search(&mut self) -> Result<(), UploadError> {
        let prefix = self.tier.segment_prefix();
        let (mut found, mut after) = (BTreeSet::new(), None::<String>);
        loop {
            let page = self.tier.cold_store().list(&prefix, after.as_deref()).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            let numbers =
                page.iter().filter_map(|(name, _)| number_of(name.strip_prefix(&prefix)?));
            found.extend(numbers);
        }
        let named = match self.blocking(FileStore::segments_named).await {
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(%error, "objects that no segment needs stay: what is damaged may need them");
                return Ok(());
            }
            named => named?.unwrap_or_default(),
        };
        let strays = found.difference(&named).copied().take(MOST_DOOMED).collect();
        let before = std::mem::replace(&mut self.strays, strays);
        self.doomed.extend(self.strays.intersection(&before));
        self.delete_doomed().await
    }

    /// Searches now, whatever the time is.
    ///
    /// # Errors
    /// See [`round`](Self::round).
    #[cfg(test)]
    pub(super) async fn search_now(&mut self) -> Result<(), UploadError> {
        self.search().await
    }
}
