//! Objects that no segment has: searching the object store for them, and deleting them once no copy of the index needs them.

use std::collections::BTreeSet;
use std::time::Duration;

use durable_streams_engine::store::StoreError;
use durable_streams_engine::store::file::FileStore;
use durable_streams_engine::store::file::segments::cold::ColdStore as _;
use durable_streams_engine::store::file::segments::format::number_of;
use tokio::time::Instant;

use super::upload_error::UploadError;
use super::uploader::SegmentUploader;

/// When the first search begins, after the start.
pub(super) const FIRST_SEARCH: Duration = Duration::from_secs(10 * 60);

/// The pause between two searches. What two of them find is deleted.
const SEARCH: Duration = Duration::from_secs(6 * 60 * 60);

/// Most objects that are remembered for deletion; a search finds the others.
pub(super) const MOST_DOOMED: usize = 65_536;

impl SegmentUploader {
    pub(super) async fn delete_doomed(&mut self) -> Result<(), UploadError> {
        let context = &*self.context;
        let waiting = || context.copies.lock().doomed();
        if waiting() > 0 {
            context.look_at_copies().await?;
        }
        let copies = !context.tier.options().index_interval.is_zero();
        loop {
            context.tier.counters().note_waiting_deletes(waiting());
            let next = context.copies.lock().next_doomed(copies);
            let Some(number) = next else { return Ok(()) };
            // A backup copies an index that may name it.
            if context.owner.file_store().is_none_or(FileStore::holds_segments) {
                return Ok(());
            }
            context.check_claim(Duration::ZERO).await?;
            if context.blocking(move |store| store.has_segment(number)).await? == Some(false) {
                context.tier.cold_store().delete(&context.tier.segment_name(number)).await?;
            }
            context.copies.lock().deleted(number);
        }
    }

    pub(super) async fn search_when_due(&mut self) -> Result<(), UploadError> {
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
        let prefix = self.context.tier.segment_prefix();
        let (mut found, mut after) = (BTreeSet::new(), None::<String>);
        loop {
            let page = self.context.tier.cold_store().list(&prefix, after.as_deref()).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            let numbers =
                page.iter().filter_map(|(name, _)| number_of(name.strip_prefix(&prefix)?));
            found.extend(numbers);
        }
        let named = match self.context.blocking(FileStore::segments_named).await {
            Err(error @ StoreError::Corrupt { .. }) => {
                tracing::error!(%error, "objects that no segment needs stay: what is damaged may need them");
                return Ok(());
            }
            named => named?.unwrap_or_default(),
        };
        let strays = found.difference(&named).copied().take(MOST_DOOMED).collect();
        let before = std::mem::replace(&mut self.strays, strays);
        {
            let mut copies = self.context.copies.lock();
            self.strays.intersection(&before).for_each(|stray| copies.doom(*stray, MOST_DOOMED));
        }
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
