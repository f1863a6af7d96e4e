//! What is kept in memory of segments that are objects.

use std::sync::Arc;

use bytes::Bytes;
use durable_streams_engine::store::file::segments::cold::SealedFile;
use durable_streams_engine::store::file::segments::format::SegmentFooter;

use super::block_cache::CachedValue;

/// The object of a segment: its name, and what the index knows of it, so that no cached part is taken for one of another
/// object that had this name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SegmentObject {
    pub(super) name: Arc<str>,
    pub(super) file: SealedFile,
}

/// A part of an object: a block by its number, or the footer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct BlockKey {
    object: SegmentObject,
    block: Option<u64>,
}

#[derive(Clone)]
pub(super) enum CachedPart {
    Block(Bytes),
    Footer(Arc<SegmentFooter>),
}

impl CachedValue for CachedPart {
    fn size(&self) -> usize {
        match self {
            Self::Block(bytes) => bytes.len(),
            Self::Footer(footer) => footer.size() + size_of::<SegmentFooter>(),
        }
    }
}

impl BlockKey {
    pub(super) fn new(object: &SegmentObject, block: Option<u64>) -> Self {
        BlockKey { object: object.clone(), block }
    }

    pub(super) fn of(object: &SegmentObject, block: u64) -> Self {
        Self::new(object, Some(block))
    }

    pub(super) fn of_footer(object: &SegmentObject) -> Self {
        Self::new(object, None)
    }
}
