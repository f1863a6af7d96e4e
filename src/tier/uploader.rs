//! Moves sealed segments to the object store, and deletes objects that no stream needs any more.
//!
//! Invariants
//! - A local file goes only after the object was read back whole and the index has noted it, and while it is still there.
//! - An object is deleted only once the durable index names it no more, and no name is used again: a deletion that takes
//!   effect late deletes what was to be deleted.
//! - Once this server has seen that another one has claimed the prefix, it uploads and deletes nothing. It looks for
//!   such a claim each minute, and just before it deletes.
//! - An object goes only once no copy of the index that is kept, or is being made, may reference it. Copies are made
//!   beside the rounds, and [`KeptCopies`](super::index_copies::KeptCopies) says what that rests on.
//! - Whatever is lost on the way is found again: the index names what is to be uploaded, a list what is to be deleted.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use durable_streams_engine::Clock;
use durable_streams_engine::store::StoreError;
use durable_streams_engine::store::file::segments::objects::SegmentPlace;
use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;

use super::index_copies::IndexCopier;
use super::recall::RecalledSegments;
use super::search::{FIRST_SEARCH, MOST_DOOMED};
use super::segment_owner::SegmentOwner;
use super::upload_backlog::WaitingSegment;
use super::upload_context::{CLAIM, UploadContext, Uploaded};
use super::upload_error::UploadError;
use super::{Tier, files};

/// Segments that are uploaded before local files go and objects are deleted again.
const ROUND: usize = 64;

/// Uploads that fail one after the other before the rest of a round is put off: the object store is down.
const FAILURES: usize = 4;

/// The background work of a tier.
pub struct SegmentUploader {
    pub(super) context: Arc<UploadContext>,
    /// What the last search found without a segment.
    pub(super) strays: BTreeSet<u64>,
    /// Segments whose files are not whole, which are not uploaded.
    damaged: BTreeSet<u64>,
    /// Since when it knows the segments that are not objects.
    known: HashMap<u64, Instant>,
    /// The last round had more to upload than it was to.
    has_more: bool,
    pub(super) recalled: RecalledSegments,
    pub(super) next_search: Instant,
}

impl SegmentUploader {
    /// For a tier, and the store whose segments go there.
    pub fn new(tier: Tier, owner: Arc<dyn SegmentOwner>) -> Self {
        SegmentUploader {
            context: Arc::new(UploadContext::new(tier, owner)),
            strays: BTreeSet::new(),
            damaged: BTreeSet::new(),
            known: HashMap::new(),
            has_more: false,
            recalled: RecalledSegments::none(),
            next_search: Instant::now() + FIRST_SEARCH,
        }
    }

    /// What makes copies of the index beside the rounds.
    pub(super) fn copier(&self) -> IndexCopier {
        IndexCopier::new(self.context.clone())
    }

    /// Uploads, deletes, and copies the index meanwhile, until another server has taken the prefix over. Failures are logged
    /// and tried again.
    pub async fn run(mut self, clock: Clock) {
        let (mut copier, context) = (self.copier(), self.context.clone());
        // What the other one is at ends with it, like at the stop of a server.
        let error = tokio::select! {
            error = self.run_rounds() => error,
            error = copier.run(&clock) => error,
        };
        context.tier.counters().superseded.add(1);
        tracing::error!(%error, "the claim on the object store is lost");
    }

    /// Returns only when the claim is lost.
    async fn run_rounds(&mut self) -> UploadError {
        let mut failed = false;
        loop {
            match self.round().await {
                Ok(()) => failed = false,
                Err(error @ UploadError::Superseded) => return error,
                // Once for each outage.
                Err(error) if !failed => {
                    failed = true;
                    tracing::warn!(%error, "cannot move segments to the object store; they stay on the disk, and it will be tried again");
                }
                Err(_) => {}
            }
            self.context.note_rounds(failed);
            if failed || !self.has_more {
                tokio::time::sleep(self.context.tier.options().interval).await;
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
        self.context.check_claim(CLAIM).await?;
        let owner = self.context.owner.clone();
        let Some(store) = owner.file_store() else { return Ok(()) };
        // The claim may have been made since the start.
        store.number_segments_from(self.context.tier.claim().first_segment());
        for freed in store.freed_segments() {
            self.context.copies.lock().doom(freed, MOST_DOOMED);
        }
        let deleted = self.delete_doomed().await;
        let uploaded = self.upload_due(due).await;
        let made_room = self.make_room().await;
        let recalled = self.recall().await;
        let searched = self.search_when_due().await;
        deleted.and(uploaded).and(made_room).and(recalled).and(searched)
    }

    /// The segments that are old enough to be uploaded: by their files' times or, since the clock may have been set back, by
    /// the time for which this process has known them.
    async fn due(&mut self) -> Result<Vec<WaitingSegment>, StoreError> {
        let local = self.context.segments(|segment| segment.place == SegmentPlace::Local).await?;
        let (now, before) = (Instant::now(), std::mem::take(&mut self.known));
        let since = |number: u64| (number, before.get(&number).copied().unwrap_or(now));
        self.known = local.iter().map(|segment| since(segment.number)).collect();
        let (known, after) = (self.known.clone(), self.context.tier.options().after);
        let due = self.context.blocking(move |store| {
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
        self.context.tier.counters().backlog.note(&due);
        Ok(due)
    }

    async fn upload_due(&mut self, mut due: Vec<WaitingSegment>) -> Result<(), UploadError> {
        due.retain(|segment| !self.damaged.contains(&segment.number));
        self.has_more = due.len() > ROUND;
        due.truncate(ROUND);
        let at_once = self.context.tier.options().uploads;
        let context = &*self.context;
        let uploads = due.into_iter().map(|segment| context.upload(segment));
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
        let mut copies = self.context.copies.lock();
        doomed.into_iter().for_each(|number| copies.doom(number, MOST_DOOMED));
        drop(copies);
        self.damaged.extend(damaged);
        failed.map_or(Ok(()), Err)
    }

    /// Removes local files whose objects are there, the oldest first, until the others take no more than the budget. Looks
    /// for each object: a directory that was restored from a backup may know objects that were deleted since.
    async fn make_room(&self) -> Result<(), UploadError> {
        let Some(most) = self.context.tier.options().local else { return Ok(()) };
        let local = self.context.segments(|segment| segment.place.is_local()).await?;
        let mut bytes: u64 = local.iter().map(|segment| segment.file_len).sum();
        for segment in local.iter().filter(|segment| segment.place == SegmentPlace::Both) {
            if bytes <= most {
                break;
            }
            if self.recalled.knows(segment.number) {
                continue;
            }
            self.context.check_claim(CLAIM).await?;
            let number = segment.number;
            if !self.context.tier.has_object(segment).await? {
                tracing::warn!(
                    segment = number,
                    "the object of a segment is not there any more; it is uploaded again"
                );
                self.context.blocking(move |store| store.note_lost_object(number)).await?;
                self.context.copies.lock().note_lost_object();
                continue;
            }
            if self.context.blocking(move |store| store.drop_local(number)).await? == Some(true) {
                bytes -= segment.file_len;
            }
        }
        Ok(())
    }
}
