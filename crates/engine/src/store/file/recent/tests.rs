use durable_streams_protocol::{Appended, Timestamp};

use super::*;

fn append(recent: &Recent, streams: u64, bytes: usize) {
    let events = (1..=streams).map(|id| {
        let appended = Appended {
            at: Timestamp::default(),
            data: vec![b'x'; bytes].into(),
            producer: None,
            stream_seq: None,
            close: false,
        };
        (StreamId(id), StreamEvent::Appended(appended))
    });
    recent.publish(recent.lsn() + 1, events);
}

#[test]
fn a_checkpoint_waits_for_a_quarter_and_for_more_when_many_streams_changed() {
    const MOST: usize = 1 << 20;
    let few = Recent::new(0, 1, 0, 0, 0);
    append(&few, 2, MOST / 8);
    assert!(!few.is_due(MOST));
    append(&few, 2, WORTH_A_STATE);
    assert!(few.is_due(MOST));
    let mark = few.mark();
    few.settle(&mark.dirty, mark.lsn, 0);
    assert!(!few.is_due(MOST));

    let many = Recent::new(0, 1, 0, 0, 0);
    append(&many, 128, MOST / 256);
    assert!(!many.is_due(MOST), "half of it, in 128 streams");
    append(&many, 128, MOST / 256);
    assert!(many.is_due(MOST), "all of it");
    // A failed checkpoint's streams are dirty still.
    let mark = many.mark();
    many.unmark(mark.dirty);
    assert_eq!(many.dirty.load(Ordering::Relaxed), 128);
}
