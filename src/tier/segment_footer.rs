//! Reads the footer of a segment that is an object.

use durable_streams_engine::store::file::segments::cold::{ColdError, SealedFile};
use durable_streams_engine::store::file::segments::format::{
    HEADER, SegmentDamage, SegmentFooter, SegmentTrailer, TRAILER,
};
use tokio::time::Instant;

use super::cached_part::SegmentObject;
use super::object_cold_store::ObjectColdStore;

/// Where the data of a segment ends, if the index knows: see [`search_footer`].
pub(super) fn data_end(file: &SealedFile) -> Option<u64> {
    let end = (HEADER as u64).saturating_add(file.data);
    file.len.checked_sub(TRAILER as u64).filter(|trailer_at| *trailer_at >= end).map(|_| end)
}

/// The footer of a segment, without its extents, which the index has. Fails when it is not the one that the index knows.
pub(super) async fn read_footer(
    store: &ObjectColdStore,
    object: &SegmentObject,
    deadline: Instant,
) -> Result<Result<SegmentFooter, SegmentDamage>, ColdError> {
    let SealedFile { number, len, footer_crc, .. } = object.file;
    let Some(footer_at) = data_end(&object.file) else {
        return search_footer(store, object, deadline).await;
    };
    let trailer_at = len - TRAILER as u64;
    let found = store.range(&object.name, footer_at..len, deadline).await?;
    let (footer, trailer) = found.split_at((trailer_at - footer_at) as usize);
    let trailer = match SegmentTrailer::parse(trailer, number, len) {
        Ok(trailer) => trailer,
        Err(damage) => return Ok(Err(damage)),
    };
    if (trailer.footer_offset, trailer.footer_crc) != (footer_at, footer_crc) {
        let what = "it is another segment than the one that the index has";
        return Ok(Err(SegmentDamage { offset: trailer_at, what }));
    }
    Ok(SegmentFooter::parse(trailer, footer).map(without_extents))
}

/// The footer of a segment whose record `repair` has written again without a look at the object: the index knows neither
/// its size nor its checksum, and says so by a size that has no room for a footer.
async fn search_footer(
    store: &ObjectColdStore,
    object: &SegmentObject,
    deadline: Instant,
) -> Result<Result<SegmentFooter, SegmentDamage>, ColdError> {
    let size = store.size(&object.name, deadline).await?;
    let Some(at) = size.checked_sub(TRAILER as u64) else {
        return Err(ColdError::Damaged("the object is shorter than a segment".into()));
    };
    let found = store.range(&object.name, at..size, deadline).await?;
    let trailer = match SegmentTrailer::parse(&found, object.file.number, size) {
        Ok(trailer) => trailer,
        Err(damage) => return Ok(Err(damage)),
    };
    let range = trailer.footer_offset..trailer.footer_offset + trailer.footer_len;
    let found = store.range(&object.name, range, deadline).await?;
    Ok(SegmentFooter::parse(trailer, &found).map(without_extents))
}

/// The index has the extents.
fn without_extents(mut footer: SegmentFooter) -> SegmentFooter {
    footer.extents = Vec::new();
    footer
}
