//! Making a copy of the index in the object store.
//!
//! Invariants
//! - The manifest is created last: when every segment that the copy references was uploaded and verified, and every part
//!   of it. A crash before that leaves the earlier copies as they are, and parts that the next start deletes. Segments whose
//!   local files are damaged have no objects; the manifest counts them, and a restore says which bytes they have.
//! - A server that has lost its claim creates no manifest and deletes no copy.
//! - In memory are one part, what is read back of it, the segments that are uploaded at once, and some 80 bytes for each
//!   segment that is no object yet. The index itself is copied into a file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use durable_streams_engine::store::file::disk::File;
use durable_streams_engine::store::file::segments::cold::ColdError;
use durable_streams_engine::store::file::{FORMAT, IndexCopy};
use durable_streams_protocol::Timestamp;
use futures_util::{StreamExt as _, stream};
use ring::digest;
use tokio::time::Instant;

use super::manifest::{CopyName, IndexManifest, PART, hex};
use crate::tier::object_cold_store::CreatedObject;
use crate::tier::upload_error::UploadError;
use crate::tier::uploader::{SegmentUploader, Uploaded};
use crate::tier::{Tier, files};

/// The longest wait for the first copy after a start, and the shortest for the next try after a failure.
const SOON: Duration = Duration::from_secs(60);

/// When the next copy is made.
pub(in crate::tier) struct CopySchedule {
    next: Instant,
    /// An event that the last copy has.
    copied: Option<u64>,
    /// Bytes of a part.
    part: u64,
}

impl CopySchedule {
    pub(in crate::tier) fn new(interval: Duration) -> Self {
        CopySchedule { next: Instant::now() + interval.min(SOON), copied: None, part: PART }
    }
}

/// Ends the copying of a file once nothing awaits it: the server stops.
struct EndWithTask(Arc<AtomicBool>);

impl Drop for EndWithTask {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl SegmentUploader {
    /// Makes a copy of the index when one is due. Without copies, deletes those that are there.
    ///
    /// # Errors
    /// Why there is none; it is tried again later.
    pub async fn copy_index_if_due(&mut self, now: Timestamp) -> Result<(), UploadError> {
        let interval = self.tier.options().index_interval;
        if interval.is_zero() {
            self.look_at_copies().await?;
            return Ok(self.copies.delete_old(self.tier.objects(), true).await?);
        }
        let began = Instant::now();
        if began < self.schedule.next {
            return Ok(());
        }
        let copied = self.copy_index(now).await;
        let pause = match copied {
            Ok(()) => {
                self.tier.counters().index_age.note(began);
                interval
            }
            // Each try copies all of the index on the disk.
            Err(_) => interval.min(SOON.max(began.elapsed())),
        };
        self.schedule.next = Instant::now() + pause;
        copied
    }

    /// Makes a copy now, whatever the time is.
    ///
    /// # Errors
    /// See [`copy_index_if_due`](Self::copy_index_if_due).
    #[cfg(test)]
    pub(in crate::tier) async fn copy_index_now(&mut self) -> Result<(), UploadError> {
        self.schedule.copied = None;
        self.copy_index_unless_idle().await
    }

    /// Does now what is done when the time has come.
    ///
    /// # Errors
    /// See [`copy_index_if_due`](Self::copy_index_if_due).
    #[cfg(test)]
    pub(in crate::tier) async fn copy_index_unless_idle(&mut self) -> Result<(), UploadError> {
        self.schedule.next = Instant::now();
        self.copy_index_if_due(Timestamp::from_millis(1_800_000_000_000)).await
    }

    /// Makes parts of so many bytes from now on.
    #[cfg(test)]
    pub(in crate::tier) fn copy_in_parts_of(&mut self, bytes: u64) {
        self.schedule.part = bytes;
    }

    /// Finds out which copies there are, before anything is deleted.
    pub(in crate::tier) async fn look_at_copies(&mut self) -> Result<(), UploadError> {
        let identity = &self.tier.claim().identity;
        Ok(self.copies.look(self.tier.objects(), identity).await?)
    }

    /// Makes a copy of the index, unless the last one has all that happened and no object waits for another one.
    async fn copy_index(&mut self, now: Timestamp) -> Result<(), UploadError> {
        let event = self.blocking(|store| Ok(store.last_event())).await?;
        if event == self.schedule.copied && self.copies.doomed() == 0 && self.is_there().await? {
            return Ok(());
        }
        if !self.tier.holds_claim().await? {
            return Err(UploadError::Superseded);
        }
        self.look_at_copies().await?;
        let number = self.copies.begin();
        let name = CopyName { epoch: self.tier.claim().epoch, number };
        let copied = self.write_copy(name, now).await;
        match &copied {
            Ok(event) => {
                self.copies.publish(name);
                self.schedule.copied = Some(*event);
                self.tier.counters().index_copies.add(1);
            }
            Err(_) => {
                self.copies.gave_up(name);
                self.tier.counters().index_copy_failures.add(1);
            }
        }
        copied?;
        Ok(self.copies.delete_old(self.tier.objects(), false).await?)
    }

    /// Whether the last copy is there: a rule of the bucket may have deleted it.
    async fn is_there(&self) -> Result<bool, UploadError> {
        let Some(newest) = self.copies.newest() else { return Ok(false) };
        Ok(self.tier.objects().small(&newest.manifest()).await?.is_some())
    }

    /// Returns an event that the copy has.
    async fn write_copy(&self, name: CopyName, now: Timestamp) -> Result<u64, UploadError> {
        let wanted = Arc::new(AtomicBool::new(true));
        let _end = EndWithTask(wanted.clone());
        let copied = self.blocking(move |store| {
            store.copy_index_for_objects(&|| wanted.load(Ordering::Relaxed))
        });
        let Some(copy) = copied.await? else { return Ok(0) };
        let identity = self.tier.claim().identity.clone();
        let mut manifest = IndexManifest::new(name, identity, now.millis());
        manifest.part_bytes = self.schedule.part;
        manifest.damaged = self.upload_segments_of(&copy).await?;
        manifest.format = FORMAT;
        manifest.event = copy.event;
        manifest.bytes = copy.bytes;
        manifest.segments = copy.segments;
        manifest.segment_bytes = copy.segment_bytes;
        manifest.sha256 = upload_parts(&self.tier, &manifest, copy.file).await?;
        if !self.tier.holds_claim().await? {
            return Err(UploadError::Superseded);
        }
        let bytes = manifest.encode().into();
        match self.tier.objects().try_create(&name.manifest(), bytes).await? {
            CreatedObject::Created => Ok(manifest.event),
            CreatedObject::Existed(_) => {
                let what = "another copy of the index has this name";
                Err(ColdError::Damaged(what.into()).into())
            }
        }
    }

    /// Uploads the segments of a copy that are no objects yet, however young they are. Returns how many are damaged.
    async fn upload_segments_of(&self, copy: &IndexCopy) -> Result<u64, UploadError> {
        let uploads = copy.local.iter().copied().map(|segment| self.upload_held(segment));
        let mut uploads = stream::iter(uploads).buffer_unordered(self.tier.options().uploads);
        let mut damaged = 0;
        while let Some(uploaded) = uploads.next().await {
            // One that was freed meanwhile waits for its deletion with the others.
            damaged += u64::from(matches!(uploaded?, Uploaded::Damaged(_)));
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
