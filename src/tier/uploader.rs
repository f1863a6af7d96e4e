//! Moves sealed segments to the object store, and deletes objects that no stream needs any more.
//!
//! Invariants
//! - Every byte of a segment is compared with its checksums before it is sent. The local file goes only after the object
//!   was read back whole and the index has noted it, and is still there.
//! - An object is deleted only once the durable index names it no more, and no name is used again: a deletion that takes
//!   effect late deletes what was to be deleted.
//! - Once this server has seen that another one has claimed the prefix, it uploads and deletes nothing. It looks for
//!   such a claim each minute, and just before it deletes.
//! - An object goes only once no copy of the index that is kept may reference it.
//! - Whatever is lost on the way is found again: the index names what is to be uploaded, a list what is to be deleted.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use durable_streams_engine::Clock;
use durable_streams_engine::store::StoreError;
use durable_streams_engine::store::file::FileStore;
use durable_streams_engine::store::file::segments::cold::ColdError;
use durable_streams_engine::store::file::segments::objects::{SegmentInfo, SegmentPlace};
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::index_copies::{CopySchedule, KeptCopies};
use super::object_cold_store::LARGEST;
use super::recall::RecalledSegments;
use super::search::{FIRST_SEARCH, MOST_DOOMED};
use super::segment_owner::SegmentOwner;
use super::upload_backlog::WaitingSegment;
use super::upload_error::UploadError;
use super::{Tier, files};

/// How long a claim that was looked at is relied on for uploads, which replace nothing.
const CLAIM: Duration = Duration::from_secs(60);

/// Segments that are looked at in one read of the index.
pub(super) const STEP: usize = 256;

/// Segments that are uploaded before local files go and objects are deleted again.
const ROUND: usize = 64;

/// Uploads that fail one after the other before the rest of a round is put off: the object store is down.
const FAILURES: usize = 4;

/// The background work of a tier.
pub struct SegmentUploader {
    pub(super) tier: Tier,
    pub(super) owner: Arc<dyn SegmentOwner>,
    /// Copies of the index, and segments whose objects are to be deleted.
    pub(super) copies: KeptCopies,
    pub(super) schedule: CopySchedule,
    /// What the last search found without a segment.
    pub(super) strays: BTreeSet<u64>,
    /// Segments whose files are not whole, which are not uploaded.
    damaged: BTreeSet<u64>,
    /// Since when it knows the segments that are not objects.
    known: HashMap<u64, Instant>,
    /// The last round had more to upload than it was to.
    has_more: bool,
    pub(super) recalled: RecalledSegments,
    looked_at_claim: Mutex<Option<Instant>>,
    pub(super) next_search: Instant,
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

impl SegmentUploader {
    /// For a tier, and the store whose segments go there.
    pub fn new(tier: Tier, owner: Arc<dyn SegmentOwner>) -> Self {
        SegmentUploader {
            schedule: CopySchedule::new(tier.options().index_interval),
            tier,
            owner,
            copies: KeptCopies::default(),
            strays: BTreeSet::new(),
            damaged: BTreeSet::new(),
            known: HashMap::new(),
            has_more: false,
            recalled: RecalledSegments::none(),
            looked_at_claim: Mutex::new(None),
            next_search: Instant::now() + FIRST_SEARCH,
        }
    }

    /// Works until another server has taken the prefix over. Failures are logged and tried again.
    pub async fn run(mut self, clock: Clock) {
        let (mut failed, mut not_copied) = (false, false);
        loop {
            let mut done = self.round().await;
            match self.copy_index_if_due(clock.now()).await {
                Ok(()) => not_copied = false,
                Err(error @ UploadError::Superseded) => done = Err(error),
                // Once for each outage, which the round has told of.
                Err(error) if done.is_ok() && !not_copied => {
                    not_copied = true;
                    tracing::warn!(%error, "cannot copy the index to the object store; it will be tried again");
                }
                Err(_) => {}
            }
            match done {
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
    /// The first thing that failed, which kept none of the others from being done; the next round goes on there.
    pub async fn round(&mut self) -> Result<(), UploadError> {
        // Also while the object store is down.
        let due = self.due().await?;
        self.check_claim(CLAIM).await?;
        let owner = self.owner.clone();
        let Some(store) = owner.file_store() else { return Ok(()) };
        // The claim may have been made since the start.
        store.number_segments_from(self.tier.claim().first_segment());
        for freed in store.freed_segments() {
            self.copies.doom(freed, MOST_DOOMED);
        }
        let deleted = self.delete_doomed().await;
        let uploaded = self.upload_due(due).await;
        let made_room = self.make_room().await;
        let recalled = self.recall().await;
        let searched = self.search_when_due().await;
        deleted.and(uploaded).and(made_room).and(recalled).and(searched)
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

    /// The segments that are old enough to be uploaded: by their files' times or, since the clock may have been set back, by
    /// the time for which this process has known them.
    async fn due(&mut self) -> Result<Vec<WaitingSegment>, StoreError> {
        let local = self.segments(|segment| segment.place == SegmentPlace::Local).await?;
        let (now, before) = (Instant::now(), std::mem::take(&mut self.known));
        let since = |number: u64| (number, before.get(&number).copied().unwrap_or(now));
        self.known = local.iter().map(|segment| since(segment.number)).collect();
        let (known, after) = (self.known.clone(), self.tier.options().after);
        let due = self.blocking(move |store| {
            let due = local.iter().filter_map(|segment| {
                let number = segment.number;
                let known = known.get(&number).map_or(Duration::ZERO, |since| now - *since);
                let age = files::age(&store.segment_path(number)).unwrap_or_default();
                let waited = age.max(known).checked_sub(after)?;
                Some(WaitingSegment { number, bytes: segment.file_len, waited })
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
        let uploads = due.into_iter().map(|segment| this.upload(segment));
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
        doomed.into_iter().for_each(|number| self.copies.doom(number, MOST_DOOMED));
        self.damaged.extend(damaged);
        failed.map_or(Ok(()), Err)
    }

    /// Uploads a segment that is old enough.
    async fn upload(&self, segment: WaitingSegment) -> Result<Uploaded, UploadError> {
        let number = segment.number;
        if segment.bytes > LARGEST {
            let what = format!("segment {number} is larger than 4 GiB");
            return Err(ColdError::Refused(what).into());
        }
        self.check_claim(CLAIM).await?;
        let read = self.blocking(move |store| store.segment_file(number)).await;
        self.upload_file(number, read.map(Option::flatten)).await
    }

    /// Uploads a segment that a copy of the index references, also when it was freed since.
    pub(super) async fn upload_held(&self, segment: SegmentInfo) -> Result<Uploaded, UploadError> {
        let number = segment.number;
        if segment.file_len > LARGEST {
            return Ok(Uploaded::Damaged(number));
        }
        self.check_claim(CLAIM).await?;
        let read = self.blocking(move |store| store.held_segment_file(&segment)).await;
        self.upload_file(number, read).await
    }

    /// Uploads the bytes of a segment's file, if there is one.
    async fn upload_file(
        &self,
        number: u64,
        read: Result<Option<Vec<Bytes>>, StoreError>,
    ) -> Result<Uploaded, UploadError> {
        let parts = match read {
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

    /// Removes local files whose objects are there, the oldest first, until the others take no more than the budget. Looks
    /// for each object: a directory that was restored from a backup may know objects that were deleted since.
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
            self.check_claim(CLAIM).await?;
            let number = segment.number;
            if !self.tier.has_object(segment).await? {
                tracing::warn!(
                    segment = number,
                    "the object of a segment is not there any more; it is uploaded again"
                );
                self.blocking(move |store| store.note_lost_object(number)).await?;
                continue;
            }
            if self.blocking(move |store| store.drop_local(number)).await? == Some(true) {
                bytes -= segment.file_len;
            }
        }
        Ok(())
    }
}
