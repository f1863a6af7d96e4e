//! The list of all segments: how large each one is, where, since when, and which streams have bytes in it.
//!
//! The index names the segment of each extent, not the extents of a segment. So the streams of the segments on a page are
//! found by a walk over the extents of all streams, in read transactions of `STEP` records, which no writer waits for.
//!
//! Bounds: a page has [`SegmentQuery::max`] segments, with [`SegmentQuery::shares`] streams each; to fill it, `MAX_LOOKS`
//! records of segments are looked at, and [`SegmentQuery::extents`] extents.

use std::collections::HashMap;

use durable_streams_protocol::{StreamId, StreamPath};

use super::objects::{SegmentInfo, SegmentPlace};
use crate::store::{StoreError, file::index::handle::IndexHandle};

/// Records that are read in one transaction.
const STEP: usize = 4096;
/// Records of segments that are looked at for one page.
const MAX_LOOKS: usize = 65_536;

/// Which segments a page has, and what of them.
#[derive(Clone, Copy, Debug)]
pub struct SegmentQuery {
    /// Only segments with a higher number.
    pub after: Option<u64>,
    /// Only those at this place.
    pub place: Option<SegmentPlace>,
    /// Segments on the page at most.
    pub max: usize,
    /// Streams that are named of each segment, those with the most bytes in it; with 0 none is looked for.
    pub shares: usize,
    /// Extents that are looked at for them at most.
    pub extents: u64,
}

/// A page of segments, in the order of their numbers.
#[derive(Clone, Debug, Default)]
pub struct SegmentPage {
    /// The segments. Those whose record is damaged are left out; `verify` names them.
    pub segments: Vec<ListedSegment>,
    /// The number behind which the next page begins; `None` at the end.
    pub next: Option<u64>,
    /// Whether not all extents were looked at, so that segments may have more streams than the page says.
    pub partial: bool,
}

/// A segment on a page.
#[derive(Clone, Debug)]
pub struct ListedSegment {
    /// The segment.
    pub info: SegmentInfo,
    /// Streams with bytes in it; `None` where none was looked for.
    pub streams: Option<u64>,
    /// Those with the most bytes in it, largest first.
    pub shares: Vec<SegmentShare>,
}

/// What of a segment is of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentShare {
    /// The stream.
    pub stream: StreamId,
    /// Its path; `None` for a stream that was deleted, whose extents have not left the index yet, and for one whose state is
    /// damaged.
    pub path: Option<StreamPath>,
    /// Its bytes in the segment.
    pub bytes: u64,
}

/// The streams of one segment, while extents are walked in the order of their streams.
#[derive(Default)]
struct ShareCount {
    streams: u64,
    current: Option<(StreamId, u64)>,
    largest: Vec<(u64, StreamId)>,
}

impl ShareCount {
    fn add(&mut self, stream: StreamId, bytes: u64, max: usize) {
        match &mut self.current {
            Some((current, so_far)) if *current == stream => *so_far += bytes,
            _ => {
                self.end_stream(max);
                self.current = Some((stream, bytes));
            }
        }
    }

    fn end_stream(&mut self, max: usize) {
        let Some((stream, bytes)) = self.current.take() else { return };
        self.streams += 1;
        if self.largest.len() < max {
            self.largest.push((bytes, stream));
        } else if let Some(least) = self.largest.iter_mut().min_by_key(|(bytes, _)| *bytes)
            && least.0 < bytes
        {
            *least = (bytes, stream);
        }
    }
}

impl SegmentPage {
    /// Reads a page. Holds no transaction but for a step.
    ///
    /// # Errors
    /// When the index cannot be read.
    pub(in crate::store::file) fn read(
        index: &IndexHandle,
        query: &SegmentQuery,
    ) -> Result<Self, StoreError> {
        let mut page = SegmentPage::default();
        let (mut after, mut looks) = (query.after, 0);
        'page: while looks < MAX_LOOKS {
            let step = index.segments_after(after, STEP)?;
            if step.is_empty() {
                after = None;
                break;
            }
            for (number, record) in step {
                if page.segments.len() >= query.max {
                    break 'page;
                }
                (after, looks) = (Some(number), looks + 1);
                let Ok(record) = record else { continue };
                if query.place.is_none_or(|place| place == record.place) {
                    let info = SegmentInfo::new(number, &record);
                    page.segments.push(ListedSegment { info, streams: None, shares: Vec::new() });
                }
            }
        }
        page.next = after;
        if query.shares > 0 && !page.segments.is_empty() {
            page.add_shares(index, query)?;
        }
        Ok(page)
    }

    fn add_shares(&mut self, index: &IndexHandle, query: &SegmentQuery) -> Result<(), StoreError> {
        let numbers = self.segments.iter().map(|one| (one.info.number, ShareCount::default()));
        let mut counts: HashMap<u64, ShareCount> = numbers.collect();
        let (mut after, mut left) = (None::<Vec<u8>>, query.extents);
        loop {
            let step = left.min(STEP as u64);
            let found = index.read()?.extents_after(after.as_deref(), step as usize)?;
            left -= step;
            for (stream, extent) in found.extents {
                if let Some(count) = counts.get_mut(&extent.file) {
                    count.add(stream, extent.len(), query.shares);
                }
            }
            if found.last.is_none() {
                break;
            }
            if left == 0 {
                self.partial = true;
                break;
            }
            after = found.last;
        }
        for segment in &mut self.segments {
            let Some(mut count) = counts.remove(&segment.info.number) else { continue };
            count.end_stream(query.shares);
            segment.streams = Some(count.streams);
            count.largest.sort_unstable_by(|one, other| other.cmp(one));
            let reading = index.read()?;
            for (bytes, stream) in count.largest {
                let path = match reading.state(stream) {
                    Err(StoreError::Corrupt { .. }) => None,
                    state => state?.map(|state| state.core.path.clone()),
                };
                segment.shares.push(SegmentShare { stream, path, bytes });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_shares_of_a_segment_are_those_of_whole_streams() {
        let mut count = ShareCount::default();
        // Extents come in the order of their streams.
        for (stream, bytes) in [(1, 5), (1, 6), (2, 7), (3, 1), (3, 1), (3, 9), (4, 7), (5, 12)] {
            count.add(StreamId(stream), bytes, 2);
        }
        count.end_stream(2);
        count.end_stream(2);
        assert_eq!(count.streams, 5);
        count.largest.sort_unstable();
        assert_eq!(count.largest, [(11, StreamId(3)), (12, StreamId(5))]);
        // Of two with as many bytes the first one stays.
        let mut equal = ShareCount::default();
        [1, 2].into_iter().for_each(|stream| equal.add(StreamId(stream), 4, 1));
        equal.end_stream(1);
        assert_eq!((equal.streams, equal.largest), (2, vec![(4, StreamId(1))]));
        let mut none = ShareCount::default();
        none.add(StreamId(1), 4, 0);
        none.end_stream(0);
        assert_eq!((none.streams, none.largest), (1, vec![]));
    }
}
