//! Making a copy of the index in the object store.
//!
//! Invariants
//! - The manifest is created last: when every segment that the copy references was uploaded and verified, and every part
//!   of it. A crash before that leaves the earlier copies as they are, and parts that the next start deletes. Segments whose
//!   local files are damaged have no objects; the manifest counts them, and a restore says which bytes they have.
//! - A server that has lost its claim creates no manifest and deletes no copy.
//! - Rounds of uploads and deletions go on beside it. What the copy takes for an object stays one, since nothing that was
//!   freed after the copy was begun is deleted before two later ones are whole. What was no object then, the copy uploads
//!   itself or finds noted, and holds the local file until then. Should a round find an object missing that the index has
//!   named, the copy is given up, as it may name that object, too.
//! - In memory are one part, what is read back of it, the segments that are uploaded at once, and some 120 bytes for each
//!   segment that is no object yet. The index itself is copied into a file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use durable_streams_engine::Clock;
use durable_streams_engine::store::file::disk::File;
use durable_streams_engine::store::file::segments::cold::ColdError;
use durable_streams_engine::store::file::{FORMAT, IndexCopy};
use durable_streams_protocol::Timestamp;
use futures_util::{StreamExt as _, stream};
use ring::digest;
use tokio::time::Instant;

use super::kept::delete;
use super::manifest::{CopyName, IndexManifest, PART, hex};
use crate::tier::object_cold_store::CreatedObject;
use crate::tier::upload_context::{CLAIM, UploadContext, Uploaded};
use crate::tier::upload_error::UploadError;
use crate::tier::{Tier, files};

/// The longest wait for the first copy after a start, and the shortest for the next try after a failure.
const SOON: Duration = Duration::from_secs(60);

/// What makes the copies, one after the other, beside the rounds of uploads.
pub(in crate::tier) struct IndexCopier {
    context: Arc<UploadContext>,
    /// When the next copy is made.
    next: Instant,
    /// An event that the last copy has.
    copied: Option<u64>,
    /// Bytes of a part.
    part: u64,
}

/// Ends the copying of a file once nothing awaits it: the server stops.
struct EndWithTask(Arc<AtomicBool>);

impl Drop for EndWithTask {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl IndexCopier {
    pub(in crate::tier) fn new(context: Arc<UploadContext>) -> Self {
        let next = Instant::now() + context.tier.options().index_interval.min(SOON);
        IndexCopier { context, next, copied: None, part: PART }
    }

    /// Makes copies when they are due, or deletes those that are there. Returns only when the claim is lost.
    pub(in crate::tier) async fn run(&mut self, clock: &Clock) -> UploadError {
        let mut failed = false;
        loop {
            if self.is_due() {
                match self.copy_if_due(clock.now()).await {
                    Ok(()) => failed = false,
                    Err(error @ UploadError::Superseded) => return error,
                    // Once for each outage, of which the rounds may have told.
                    Err(error) if !failed && !self.context.rounds_fail() => {
                        failed = true;
                        tracing::warn!(%error, "cannot copy the index to the object store; it will be tried again");
                    }
                    Err(_) => {}
                }
            }
            tokio::time::sleep(self.context.tier.options().interval).await;
        }
    }

    fn is_due(&self) -> bool {
        self.context.tier.options().index_interval.is_zero() || Instant::now() >= self.next
    }

    /// Makes a copy of the index when one is due. Without copies, deletes those that are there.
    ///
    /// # Errors
    /// Why there is none; it is tried again later.
    pub(in crate::tier) async fn copy_if_due(&mut self, now: Timestamp) -> Result<(), UploadError> {
        if !self.is_due() {
            return Ok(());
        }
        let interval = self.context.tier.options().index_interval;
        if interval.is_zero() {
            self.context.check_claim(CLAIM).await?;
            self.context.look_at_copies().await?;
            return self.delete_old(true).await;
        }
        let began = Instant::now();
        let copied = self.copy_index(now).await;
        let pause = match copied {
            Ok(()) => {
                self.context.tier.counters().index_age.note(began);
                interval
            }
            // Each try copies all of the index on the disk.
            Err(_) => interval.min(SOON.max(began.elapsed())),
        };
        self.next = Instant::now() + pause;
        copied
    }

    /// Makes a copy now, whatever the time is.
    ///
    /// # Errors
    /// See [`copy_if_due`](Self::copy_if_due).
    #[cfg(test)]
    pub(in crate::tier) async fn copy_now(&mut self) -> Result<(), UploadError> {
        self.copied = None;
        self.copy_unless_idle().await
    }

    /// Does now what is done when the time has come.
    ///
    /// # Errors
    /// See [`copy_if_due`](Self::copy_if_due).
    #[cfg(test)]
    pub(in crate::tier) async fn copy_unless_idle(&mut self) -> Result<(), UploadError> {
        self.next = Instant::now();
        self.copy_if_due(Timestamp::from_millis(1_800_000_000_000)).await
    }

    /// How many copies were begun since the start.
    #[cfg(test)]
    pub(in crate::tier) fn begun(&self) -> u64 {
        self.context.copies.lock().begun()
    }

    /// Makes parts of so many bytes from now on.
    #[cfg(test)]
    pub(in crate::tier) fn copy_in_parts_of(&mut self, bytes: u64) {
        self.part = bytes;
    }

    /// Makes a copy of the index, unless the last one has all that happened and no object waits for another one.
    async fn copy_index(&mut self, now: Timestamp) -> Result<(), UploadError> {
        let context = self.context.clone();
        let event = context.blocking(|store| Ok(store.last_event())).await?;
        let waiting = context.copies.lock().doomed();
        if event == self.copied && waiting == 0 && self.is_there().await? {
            return Ok(());
        }
        if !context.tier.holds_claim().await? {
            return Err(UploadError::Superseded);
        }
        context.look_at_copies().await?;
        let name = context.copies.lock().begin(context.tier.claim().epoch);
        let copied = self.write_copy(name, now).await;
        match &copied {
            Ok(event) => {
                context.copies.lock().publish(name);
                self.copied = Some(*event);
                context.tier.counters().index_copies.add(1);
            }
            Err(_) => {
                context.copies.lock().gave_up(name);
                context.tier.counters().index_copy_failures.add(1);
            }
        }
        copied?;
        self.delete_old(false).await
    }

    /// Deletes copies beyond those that are kept, or all, and what interrupted ones have left.
    async fn delete_old(&self, all: bool) -> Result<(), UploadError> {
        loop {
            let next = self.context.copies.lock().next_old(all);
            let Some(old) = next else { return Ok(()) };
            delete(self.context.tier.objects(), old).await?;
            self.context.copies.lock().deleted_copy(old);
        }
    }

    /// Whether the last copy is there: a rule of the bucket may have deleted it.
    async fn is_there(&self) -> Result<bool, UploadError> {
        let newest = self.context.copies.lock().newest();
        let Some(newest) = newest else { return Ok(false) };
        Ok(self.context.tier.objects().small(&newest.manifest()).await?.is_some())
    }

    /// Returns an event that the copy has.
    async fn write_copy(&self, name: CopyName, now: Timestamp) -> Result<u64, UploadError> {
        let wanted = Arc::new(AtomicBool::new(true));
        let _end = EndWithTask(wanted.clone());
        let copied = self.context.blocking(move |store| {
            store.copy_index_for_objects(&|| wanted.load(Ordering::Relaxed))
        });
        let Some(mut copy) = copied.await? else { return Ok(0) };
        let identity = self.context.tier.claim().identity.clone();
        let mut manifest = IndexManifest::new(name, identity, now.millis());
        manifest.part_bytes = self.part;
        manifest.damaged = self.upload_segments_of(&mut copy).await?;
        manifest.format = FORMAT;
        manifest.event = copy.event;
        manifest.bytes = copy.bytes;
        manifest.segments = copy.segments;
        manifest.segment_bytes = copy.segment_bytes;
        manifest.sha256 = upload_parts(&self.context.tier, &manifest, copy.file).await?;
        if !self.context.tier.holds_claim().await? {
            return Err(UploadError::Superseded);
        }
        if self.context.copies.lock().has_lost_object() {
            return Err(UploadError::LostObject);
        }
        let bytes = manifest.encode().into();
        match self.context.tier.objects().try_create(&name.manifest(), bytes).await? {
            CreatedObject::Created => Ok(manifest.event),
            CreatedObject::Existed(_) => {
                let what = "another copy of the index has this name";
                Err(ColdError::Damaged(what.into()).into())
            }
        }
    }

    /// Uploads the segments of a copy that are no objects yet, however young they are. Returns how many are damaged.
    async fn upload_segments_of(&self, copy: &mut IndexCopy) -> Result<u64, UploadError> {
        let context = &*self.context;
        let local = std::mem::take(&mut copy.local);
        let uploads = local.into_iter().map(async |segment| {
            let uploaded = context.upload_held(segment).await;
            uploaded.map(|uploaded| (segment.number, uploaded))
        });
        let mut uploads = stream::iter(uploads).buffer_unordered(context.tier.options().uploads);
        let mut damaged = 0;
        while let Some(uploaded) = uploads.next().await {
            // One that was freed meanwhile waits for its deletion with the others.
            let (number, uploaded) = uploaded?;
            damaged += u64::from(matches!(uploaded, Uploaded::Damaged(_)));
            copy.release(number);
        }
        Ok(damaged)
    }
}

/// Uploads the parts of a copy; returns the SHA-256 of all of them.
async fn upload_parts(
    tier: &Tier,
    manifest: &IndexManifest,
    file: File,
) -> Result<String, UploadError> {
    let (name, len, part_bytes) = (manifest.name(), manifest.bytes, manifest.part_bytes);
    let file = Arc::new(file);
    let mut digest = digest::Context::new(&digest::SHA256);
    for (part, from) in (0..len).step_by(part_bytes as usize).enumerate() {
        let (reading, size) = (file.clone(), part_bytes.min(len - from));
        let read = tokio::task::spawn_blocking(move || files::read_range(&reading, from, size));
        let parts: Vec<Bytes> = read.await.map_err(std::io::Error::other).flatten()?;
        parts.iter().for_each(|bytes| digest.update(bytes));
        tier.objects().create_part(&name.part(part as u64), parts).await?;
        tier.counters().index_copy_bytes.add(size);
    }
    Ok(hex(&digest.finish()))
}
