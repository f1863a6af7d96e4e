//! What rounds of uploads and copies of the index share: they run at the same time.
//!
//! Invariants
//! - Every byte of a segment is compared with its checksums before it is sent. The index notes an object only after that
//!   was read back whole.
//! - A round and a copy may upload the same segment at once. Both send the bytes of one file, which both have checked, and
//!   an object is created only: whichever comes second finds the object right.
//! - When a round or a copy finds that another server has claimed the prefix, both end.
//! - `tier.uploads` segments are in memory at most, those of rounds and of copies together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use durable_streams_engine::store::StoreError;
use durable_streams_engine::store::file::FileStore;
use durable_streams_engine::store::file::segments::cold::ColdError;
use durable_streams_engine::store::file::segments::objects::SegmentInfo;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::Tier;
use super::failure::unavailable;
use super::index_copies::{self, KeptCopies};
use super::object_cold_store::LARGEST;
use super::segment_owner::SegmentOwner;
use super::upload_backlog::WaitingSegment;
use super::upload_error::UploadError;

/// How long a claim that was looked at is relied on for uploads, which replace nothing.
pub(super) const CLAIM: Duration = Duration::from_secs(60);

/// Segments that are looked at in one read of the index.
pub(super) const STEP: usize = 256;

/// The tier, its store, and what is known of both.
pub(super) struct UploadContext {
    pub(super) tier: Tier,
    pub(super) owner: Arc<dyn SegmentOwner>,
    /// Copies of the index, and segments whose objects are to be deleted.
    pub(super) copies: Mutex<KeptCopies>,
    /// For segments that are in memory for their uploads.
    slots: Semaphore,
    looked_at_claim: Mutex<Option<Instant>>,
    /// The last round has failed, which it has told.
    rounds_fail: AtomicBool,
}

/// What came of a segment that was to be uploaded.
pub(super) enum Uploaded {
    /// The index has noted its object.
    Whole,
    /// It was removed.
    Gone,
    /// It was removed meanwhile: its object, if there is one, may go.
    OfNoUse(u64),
    /// Its file is not whole.
    Damaged(u64),
}

impl UploadContext {
    pub(super) fn new(tier: Tier, owner: Arc<dyn SegmentOwner>) -> Self {
        UploadContext {
            slots: Semaphore::new(tier.options().uploads),
            tier,
            owner,
            copies: Mutex::default(),
            looked_at_claim: Mutex::new(None),
            rounds_fail: AtomicBool::new(false),
        }
    }

    /// Notes whether rounds fail now.
    pub(super) fn note_rounds(&self, fail: bool) {
        self.rounds_fail.store(fail, Ordering::Relaxed);
    }

    pub(super) fn rounds_fail(&self) -> bool {
        self.rounds_fail.load(Ordering::Relaxed)
    }

    /// Looks for a newer claim, unless that was done not longer than `relied_on` ago.
    pub(super) async fn check_claim(&self, relied_on: Duration) -> Result<(), UploadError> {
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

    /// Runs `act` where it may wait for the disk.
    pub(super) async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&FileStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Option<T>, StoreError> {
        let owner = self.owner.clone();
        let done = tokio::task::spawn_blocking(move || owner.file_store().map(act).transpose());
        done.await.unwrap_or(Err(StoreError::Closed))
    }

    /// The segments of which `keep` is true.
    pub(super) async fn segments(
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

    /// Uploads a segment that is old enough.
    pub(super) async fn upload(&self, segment: WaitingSegment) -> Result<Uploaded, UploadError> {
        let number = segment.number;
        if segment.bytes > LARGEST {
            let what = format!("segment {number} is larger than 4 GiB");
            return Err(ColdError::Refused(what).into());
        }
        self.upload_file(number, move |store| store.segment_file(number)).await
    }

    /// Uploads a segment that a copy of the index references, also when it was freed since.
    pub(super) async fn upload_held(&self, segment: SegmentInfo) -> Result<Uploaded, UploadError> {
        let number = segment.number;
        if segment.file_len > LARGEST {
            return Ok(Uploaded::Damaged(number));
        }
        self.upload_file(number, move |store| store.held_segment_file(&segment).map(Some)).await
    }

    /// Uploads the bytes of a segment's file, if there is one.
    async fn upload_file(
        &self,
        number: u64,
        read: impl FnOnce(&FileStore) -> Result<Option<Vec<Bytes>>, StoreError> + Send + 'static,
    ) -> Result<Uploaded, UploadError> {
        let _slot = self.slot().await?;
        self.check_claim(CLAIM).await?;
        // Between a round and a copy of the index, the other one may have uploaded it meanwhile.
        if let Ok(Some(true)) = self.blocking(move |store| store.is_object(number)).await {
            self.tier.counters().backlog.done(number);
            return Ok(Uploaded::Whole);
        }
        let parts = match self.blocking(read).await.map(Option::flatten) {
            Ok(Some(parts)) => parts,
            Ok(None) => {
                self.tier.counters().backlog.done(number);
                return Ok(Uploaded::Gone);
            }
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(%error, segment = number, "a segment is damaged, and is not uploaded");
                return Ok(Uploaded::Damaged(number));
            }
            Err(error) => return Err(error.into()),
        };
        match self.tier.cold_store().create_segment(&self.tier.segment_name(number), parts).await {
            Ok(()) => {}
            Err(ColdError::Damaged(what)) => {
                // A copy of this data directory may have taken the prefix over, and have a segment of this number.
                self.check_claim(Duration::ZERO).await?;
                // The index has not noted it, so no reader knows of it. The next round uploads it under another name.
                tracing::warn!(
                    segment = number,
                    what,
                    "an upload left other bytes; the segment gets another number, and the object is deleted"
                );
                self.blocking(move |store| store.renew_segment(number)).await?;
                return Err(ColdError::Damaged(what).into());
            }
            Err(error) => return Err(error.into()),
        }
        let noted = self.blocking(move |store| store.note_object(number)).await?;
        self.tier.counters().backlog.done(number);
        Ok(if noted == Some(false) { Uploaded::OfNoUse(number) } else { Uploaded::Whole })
    }

    async fn slot(&self) -> Result<SemaphorePermit<'_>, ColdError> {
        self.slots.acquire().await.map_err(|_| unavailable("stopped"))
    }

    /// Finds out which copies of the index there are, before anything is deleted.
    pub(super) async fn look_at_copies(&self) -> Result<(), UploadError> {
        if !self.copies.lock().has_looked() {
            let identity = &self.tier.claim().identity;
            let found = index_copies::look(self.tier.objects(), identity).await?;
            self.copies.lock().note_found(found);
        }
        Ok(())
    }
}
