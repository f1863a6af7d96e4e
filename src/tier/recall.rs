//! Brings segments back that are objects only and mostly of no use, so that the store rewrites what is live of them.

use std::collections::BTreeSet;
use std::time::Duration;

use durable_streams_engine::store::file::segments::objects::{SegmentInfo, SegmentPlace};
use tokio::time::Instant;

use super::upload_context::STEP;
use super::upload_error::UploadError;
use super::uploader::SegmentUploader;

/// The pause between two looks for such segments.
const PAUSE: Duration = Duration::from_secs(60);

/// The pause after which one that could not be brought back is tried again.
const AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Segments that are on the disk for this at a time.
const AT_ONCE: usize = 4;

/// Which segments were brought back and are not rewritten yet.
#[derive(Debug)]
pub(super) struct RecalledSegments {
    there: BTreeSet<u64>,
    failed: BTreeSet<u64>,
    next: Instant,
    forget: Instant,
}

impl RecalledSegments {
    pub(super) fn none() -> Self {
        let (there, failed) = (BTreeSet::new(), BTreeSet::new());
        RecalledSegments { there, failed, next: Instant::now(), forget: Instant::now() + AGAIN }
    }

    /// Whether it is time for a look.
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.next
    }

    /// How many may be brought back now; `both` are the segments that have a local file and an object.
    pub(super) fn room(&mut self, both: &BTreeSet<u64>) -> usize {
        let now = Instant::now();
        self.next = now + PAUSE;
        if now >= self.forget {
            self.failed.clear();
            self.forget = now + AGAIN;
        }
        self.there.retain(|number| both.contains(number));
        AT_ONCE.saturating_sub(self.there.len())
    }

    /// Whether the local file of a segment is to stay, and no other attempt is to be made at it.
    pub(super) fn knows(&self, number: u64) -> bool {
        self.there.contains(&number) || self.failed.contains(&number)
    }

    pub(super) fn brought_back(&mut self, number: u64) {
        self.there.insert(number);
    }

    pub(super) fn failed(&mut self, number: u64) {
        self.failed.insert(number);
    }
}

impl SegmentUploader {
    /// Brings back some segments that are objects only and are to be rewritten, which the sealer does when it next walks.
    pub(super) async fn recall(&mut self) -> Result<(), UploadError> {
        if !self.recalled.is_due() {
            return Ok(());
        }
        let both = self.context.segments(|segment| segment.place == SegmentPlace::Both).await?;
        let mut room = self.recalled.room(&both.iter().map(|segment| segment.number).collect());
        let sparse =
            self.context.blocking(|store| store.sparse_objects(STEP)).await?.unwrap_or_default();
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
        let parts = self.context.tier.whole_object(number, len).await?;
        let back = self.context.blocking(move |store| store.bring_back(number, &parts)).await?;
        if back == Some(true) {
            self.recalled.brought_back(number);
        }
        Ok(())
    }
}
