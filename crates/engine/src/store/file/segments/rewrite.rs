//! Moving what is live of a segment file to a new one.

use durable_streams_protocol::StreamId;

use super::{check::open_checked, draft::SegmentDraft, files::SegmentFiles};
use crate::store::{
    MessageForm, StoreError,
    file::{
        index::{extents::NewSegment, handle::IndexHandle},
        segments::files::SegmentReadError,
    },
};

/// Bytes that are read at a time.
const PIECE: u64 = 1 << 20;

/// Why there is no new file.
pub(in crate::store::file) enum RewriteStop {
    /// `pace` returned false.
    Stopped,
    Failed(StoreError),
}

impl From<StoreError> for RewriteStop {
    fn from(error: StoreError) -> Self {
        RewriteStop::Failed(error)
    }
}

/// Writes a file with what is live of segment `number`, whose footer has this checksum. It is durable, and nothing references it
/// yet; `None` when nothing is live. `pace` is called after each piece with its bytes.
///
/// # Errors
/// No file is left then.
pub(in crate::store::file) fn rewrite(
    index: &IndexHandle,
    files: &SegmentFiles,
    (number, footer_crc): (u64, u32),
    pace: &dyn Fn(usize) -> bool,
) -> Result<Option<NewSegment>, RewriteStop> {
    let (_, footer) = open_checked(files.disk(), &files.path(number), number)?;
    let mut draft = SegmentDraft::begin(files)?;
    for sealed in &footer.extents {
        let (id, end) = (StreamId(sealed.stream), sealed.start + sealed.len);
        let extents = index.read()?.extents_between(id, sealed.start, end)?;
        for extent in extents.into_iter().filter(|extent| extent.file == number) {
            // An extent that was cut has lost some of its appends.
            let whole = (extent.start, extent.len()) == (sealed.start, sealed.len);
            let lens = if whole { sealed.append_lens.clone() } else { Vec::new() };
            let form = match footer.has_commas(extent.offset..extent.offset + extent.len()) {
                true => MessageForm::Array,
                false => MessageForm::Stored,
            };
            draft.begin_extent(id, extent.start, lens, form, Some(extent));
            let mut at = extent.start;
            while at < extent.end {
                let len = (extent.end - at).min(PIECE) as usize;
                let bytes = files.read(&extent, footer_crc, at, len);
                draft.write(&bytes.map_err(SegmentReadError::into_error)?)?;
                at += len as u64;
                if !pace(len) {
                    return Err(RewriteStop::Stopped);
                }
            }
        }
    }
    if draft.len() == 0 {
        return Ok(None);
    }
    Ok(Some(draft.finish()?))
}
