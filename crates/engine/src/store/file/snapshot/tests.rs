//! A read between the index's commit and the eviction of what it has.

use ::bytes::Bytes;
use durable_streams_protocol::{Appended, StreamEvent};

use super::{bytes::FoundPiece, *};
use crate::store::{EventPlace, file::index::checkpoint::LoggedChange};
use crate::test_events;

fn events(path: &StreamPath) -> Vec<(StreamId, EventPlace, StreamEvent)> {
    let created =
        test_events::creation(Timestamp::default(), path.clone(), Bytes::from_static(b"one"));
    let appended = Appended {
        at: Timestamp::default(),
        data: Bytes::from_static(b"two"),
        terminators: 0,
        producer: None,
        stream_seq: None,
        close: false,
    };
    let appended = StreamEvent::Appended(appended);
    let created = StreamEvent::Created(Box::new(created));
    let place = |events, position| EventPlace { events, position };
    let events = [created, appended.clone(), appended];
    let places = [place(0, 0), place(1, 3), place(2, 6)];
    places.into_iter().zip(events).map(|(place, event)| (StreamId(7), place, event)).collect()
}

/// Between the index's commit and the eviction both have the same events.
#[test]
fn events_that_the_index_has_are_not_folded_again() {
    let dir = tempfile::tempdir().unwrap();
    let index = IndexHandle::open(dir.path(), 1 << 20).unwrap();
    let disk = std::sync::Arc::new(crate::store::file::disk::RealDisk);
    let segments = SegmentFiles::new(disk, dir.path(), 1);
    let memtable = Memtable::new(0, 1, 0, 0, 0);
    let path = StreamPath::new("s").unwrap();
    let events = events(&path);
    for upto in 0..=events.len() {
        let events_of = |_| {
            let indexed = (1..).zip(&events).take(upto);
            let change = |(lsn, (_, place, event)): (Lsn, &(StreamId, EventPlace, StreamEvent))| {
                LoggedChange { lsn, from: place.position, event: event.clone() }
            };
            indexed.map(change).collect()
        };
        let lsn = upto as Lsn;
        index.checkpoint(&|| Ok(()), lsn, (&[StreamId(7)], &events_of), &[]).unwrap();
        if upto == 0 {
            memtable.publish(1, events.clone().into_iter());
        }
        let reads = SnapshotReads { index: &index, segments: &segments, memtable: &memtable };
        let state = reads.load(&path, LoadFor::State).unwrap().unwrap().state;
        assert_eq!(state.tail, Offset::new(9), "{upto} of 3 events are in the index");
        let pieces = reads.read(StreamId(7), Offset::ZERO, state.tail, 100).unwrap();
        let bytes = pieces.into_iter().flat_map(|piece| match piece {
            FoundPiece::Bytes(bytes) => bytes,
            FoundPiece::Object { .. } => panic!("nothing is in an object"),
        });
        let bytes: Vec<u8> = bytes.collect();
        assert_eq!(bytes, b"onetwotwo", "{upto} of 3 events are in the index");
    }
}
