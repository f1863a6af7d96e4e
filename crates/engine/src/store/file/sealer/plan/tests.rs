use std::time::Duration;

use durable_streams_protocol::StreamEvent;

use super::*;
use crate::store::file::index::{
    extents::{ExtentRecord, NewExtent, NewSegment, SegmentPlace, SegmentRecord},
    tests::{ONE, TWO, TestIndex, appended, at, bytes, created, json},
};

const OPTIONS: SegmentOptions = SegmentOptions {
    min: 1000,
    keep: 100,
    size: 2000,
    idle: Duration::from_secs(60),
    arrays_from: 1000,
    ..SegmentOptions::DEFAULT
};

/// Appends are made at second 2.
const BUSY: Timestamp = at(61_999);
const IDLE: Timestamp = at(62_000);

fn plan(index: &TestIndex, id: StreamId, now: Timestamp) -> Option<(u64, u64, bool)> {
    plan_with(index, &OPTIONS, id, now)
}

fn plan_with(
    index: &TestIndex,
    options: &SegmentOptions,
    id: StreamId,
    now: Timestamp,
) -> Option<(u64, u64, bool)> {
    let plan = index.index.read().unwrap().seal_plan(id, options, now).unwrap();
    plan.map(|plan| (plan.start, plan.end, plan.shares))
}

/// A stream with appends of these sizes.
fn appends(sizes: &[usize]) -> TestIndex {
    let mut index = TestIndex::new();
    let events = sizes.iter().map(|size| (ONE, appended(bytes(0, *size))));
    index.fold([(ONE, created("a", bytes(0, 0)))].into_iter().chain(events));
    index
}

/// A JSON stream with messages of these sizes, terminators counted.
fn messages(sizes: &[usize]) -> TestIndex {
    let mut index = TestIndex::new();
    let message = |size: &usize| {
        let mut message = vec![b'1'; *size];
        message[size - 1] = MESSAGE_END;
        (ONE, appended(message.into()))
    };
    index.fold([(ONE, json("a"))].into_iter().chain(sizes.iter().map(message)));
    index
}

/// Seals a range of the first stream.
fn seal(index: &TestIndex, start: u64, end: u64) {
    let extent = ExtentRecord { start, end, file: 3, offset: 32, crc: None };
    let record = SegmentRecord {
        file_len: 9000,
        data: end - start,
        live: 0,
        footer_crc: 1,
        place: SegmentPlace::Local,
        sealed_at: None,
    };
    let extents = vec![NewExtent { id: ONE, extent, replaces: None }];
    let segment = NewSegment { number: 3, record, extents };
    assert!(index.index.hand_over(&|| Ok(()), &segment).unwrap().live > 0);
}

#[test]
fn a_busy_stream_is_sealed_once_much_of_it_is_old() {
    for (sizes, expected) in [
        (&[0][..], None),
        (&[999], None),
        (&[1000], None),
        // A file of its own is worth at least 1,000 bytes besides the newest 100.
        (&[100; 10], None),
        (&[50; 21], None),
        (&[100; 11], Some((0, 1000, false))),
        (&[150; 8], Some((0, 1050, false))),
        // It ends with a whole append, the first one behind the bound if need be.
        (&[5000], Some((0, 5000, false))),
        (&[10, 5000, 10], Some((0, 10, false))),
        (&[1500, 5000, 10], Some((0, 1500, false))),
        (&[100; 90], Some((0, 2000, false))),
        (&[150; 90], Some((0, 1950, false))),
    ] {
        for index in [appends(sizes), messages(sizes.strip_prefix(&[0]).unwrap_or(sizes))] {
            assert_eq!(plan(&index, ONE, BUSY), expected, "{sizes:?}");
        }
    }
    assert_eq!(plan(&appends(&[100]), TWO, BUSY), None, "there is no such stream");
}

#[test]
fn an_idle_stream_shares_a_file_as_a_whole() {
    for (sizes, expected) in [
        (&[0][..], None),
        (&[1], Some((0, 1, true))),
        (&[999], Some((0, 999, true))),
        (&[50; 21], Some((0, 1050, true))),
        (&[100; 11], Some((0, 1000, false))),
    ] {
        assert_eq!(plan(&appends(sizes), ONE, IDLE), expected, "{sizes:?}");
        let busy = expected.filter(|(_, _, shares)| !shares);
        assert_eq!(plan(&appends(sizes), ONE, BUSY), busy, "{sizes:?}");
    }
}

#[test]
fn what_is_left_of_a_sealed_stream_is_sealed_when_it_is_worth_it() {
    let index = appends(&[100; 22]);
    seal(&index, 0, 2000);
    assert_eq!(plan(&index, ONE, IDLE), None, "200 bytes more");
    let index = appends(&[100; 29]);
    seal(&index, 0, 2000);
    assert_eq!(plan(&index, ONE, IDLE), None, "900 bytes more");
    let index = appends(&[100; 30]);
    seal(&index, 0, 2000);
    assert_eq!(plan(&index, ONE, IDLE), Some((2000, 3000, true)));
    assert_eq!(plan(&index, ONE, BUSY), None);
    let index = appends(&[100; 31]);
    seal(&index, 0, 2000);
    assert_eq!(plan(&index, ONE, BUSY), Some((2000, 3000, false)));
}

#[test]
fn all_of_a_stream_is_sealed_where_nothing_is_kept() {
    let options = SegmentOptions { keep: 0, ..OPTIONS };
    for (sizes, expected) in [
        (&[999][..], None),
        (&[1000], Some((0, 1000, false))),
        (&[100; 12], Some((0, 1200, false))),
        (&[500; 5], Some((0, 2000, false))),
    ] {
        for index in [appends(sizes), messages(sizes)] {
            assert_eq!(plan_with(&index, &options, ONE, BUSY), expected, "{sizes:?}");
        }
    }
}

#[test]
fn a_stream_that_has_what_is_kept_and_no_more_is_left_alone() {
    let options = SegmentOptions { min: 0, ..OPTIONS };
    for (sizes, expected) in
        [(&[0][..], None), (&[50], None), (&[50, 50], None), (&[50, 60], Some((0, 50, false)))]
    {
        for index in [appends(sizes), messages(sizes.strip_prefix(&[0]).unwrap_or(sizes))] {
            assert_eq!(plan_with(&index, &options, ONE, BUSY), expected, "{sizes:?}");
        }
    }
}

#[test]
fn messages_have_commas_where_they_are_many() {
    let form = |index: &TestIndex, now| {
        let plan = index.index.read().unwrap().seal_plan(ONE, &OPTIONS, now).unwrap();
        plan.map(|plan| plan.form)
    };
    assert_eq!(form(&messages(&[100; 11]), BUSY), Some(MessageForm::Array));
    assert_eq!(form(&messages(&[50; 21]), IDLE), Some(MessageForm::Array));
    assert_eq!(form(&messages(&[999]), IDLE), Some(MessageForm::Stored));
    assert_eq!(form(&messages(&[1000]), IDLE), Some(MessageForm::Array));
    assert_eq!(form(&appends(&[100; 11]), BUSY), Some(MessageForm::Stored));
    // Behind what was sealed before, 500 bytes are due.
    let index = messages(&[100; 26]);
    seal(&index, 0, 2000);
    let options = SegmentOptions { min: 500, ..OPTIONS };
    let plan = index.index.read().unwrap().seal_plan(ONE, &options, IDLE).unwrap().unwrap();
    assert_eq!((plan.start, plan.end, plan.form), (2000, 2500, MessageForm::Stored));
}

#[test]
fn a_walk_looks_at_some_streams_at_a_time() {
    let mut index = TestIndex::new();
    let name = |id: u64| format!("/{id}");
    index.fold((1..=5).map(|id| (StreamId(id), created(&name(id), bytes(0, 0)))));
    let append = |id| (StreamId(id), StreamEvent::clone(&appended(bytes(0, 1200))));
    index.fold([1, 3, 5].into_iter().flat_map(|id| [append(id), append(id)]));
    let step = |from, max| {
        let step = index.index.read().unwrap().seal_plans(from, max, &OPTIONS, BUSY).unwrap();
        (step.plans.iter().map(|plan| plan.id.0).collect::<Vec<_>>(), step.next)
    };
    assert_eq!(step(0, 9), (vec![1, 3, 5], None));
    assert_eq!(step(0, 2), (vec![1], Some(3)));
    assert_eq!(step(3, 2), (vec![3], Some(5)));
    assert_eq!(step(4, 1), (vec![], Some(5)));
}
