//! Moves sealed segments to the object store, and deletes objects that no stream needs any more.
//!
//! Invariants
//! - Every byte of a segment is compared with its checksums before it is sent. The local file goes only after the object
//!   was read back whole and the index has noted it.
//! - An object is deleted only once the durable index names it no more, and no name is used again: a deletion that takes
//!   effect late deletes what was to be deleted.
//! - Once this server has seen that another one has claimed the prefix, it uploads and deletes nothing. It looks for
//!   such a claim each minute, and just before it deletes.
//! - Whatever is lost on the way is found again: the index names what is to be uploaded, a list what is to be deleted.

use std::collections::{BTreeSet, HashMap};
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

use super::object_cold_store::LARGEST;
use super::recall::RecalledSegments;
use super::segment_owner::SegmentOwner;
use super::upload_backlog::WaitingSegment;
use super::upload_error::UploadError;
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
    /// Since when it knows the segments that are not objects.
    known: HashMap<u64, Instant>,
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

impl SegmentUploader {
    /// For a tier, and the store whose segments go there.
    pub fn new(tier: Tier, owner: Arc<dyn SegmentOwner>) -> Self {
        SegmentUploader {
            tier,
            owner,
            doomed: BTreeSet::new(),
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
    /// The first thing that failed, which kept none of the others from being done; the next round goes on there.
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
        let deleted = self.delete_doomed().await;
        let uploaded = self.upload_due(due).await;
        let made_room = self.make_room().await;
        let recalled = self.recall().await;
        let searched = self.search_when_due().await;
        deleted.and(uploaded).and(made_room).and(recalled).and(searched)
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
            // A backup copies an index that may name it.
            if self.owner.file_store().is_none_or(FileStore::holds_segments) {
                return Ok(());
            }
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
        self.doomed.extend(doomed);
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
        let parts = match self.blocking(move |store| store.segment_file(number)).await {
            Ok(Some(Some(parts))) => parts,
            Ok(_) => {
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
            self.check_claim(CLAIM).await?;
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

    async fn search_when_due(&mut self) -> Result<(), UploadError> {
        if Instant::now() < self.next_search {
            return Ok(());
        }
        self.next_search = Instant::now() + FIRST_SEARCH;
        self.search().await?;
        self.next_search = Instant::now() + SEARCH;
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
