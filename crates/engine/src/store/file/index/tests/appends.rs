//! Where appends end, against a plain list of them.

use super::*;
use crate::store::file::append_ends::{AppendLens, EndsAround, put_len};

fn encoded(lens: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    lens.iter().for_each(|len| put_len(&mut out, *len));
    out
}

struct Model {
    index: TestIndex,
    /// Where each append ends; the first is where they begin.
    ends: Vec<u64>,
}

impl Model {
    fn new(first: usize) -> Self {
        let mut index = TestIndex::new();
        index.fold([(ONE, created("/a", bytes(0, first)))]);
        // Another stream's records lie behind.
        index.fold([(TWO, created("/b", bytes(0, 10)))]);
        Model { index, ends: if first > 0 { vec![0, first as u64] } else { vec![0] } }
    }

    fn append(&mut self, lens: &[usize]) {
        let mut end = *self.ends.last().unwrap();
        let events: Vec<_> = lens
            .iter()
            .map(|len| {
                let event = appended(bytes(end, *len));
                end += *len as u64;
                self.ends.push(end);
                (ONE, event)
            })
            .collect();
        self.index.fold(events);
    }

    fn lens(&self) -> Vec<u64> {
        self.ends.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    fn check(&self, limits: impl Iterator<Item = u64>) {
        let reading = self.index.index.read().unwrap();
        let tail = *self.ends.last().unwrap();
        for limit in limits {
            let found = reading.ends_around(ONE, Offset::new(limit)).unwrap();
            let after = self.ends.partition_point(|end| *end <= limit);
            // Where the last record begins is not always an append's end, but what precedes its first one.
            let expected = (limit < tail).then(|| (self.ends[after - 1], self.ends[after]));
            assert_eq!(
                found.map(|EndsAround { last, next }| (last, next.unwrap())),
                expected,
                "{limit}"
            );
        }
        let state = reading.state(ONE).unwrap().unwrap();
        assert_eq!(reading.append_lens(&state).unwrap(), encoded(&self.lens()));
    }
}

#[test]
fn every_end_is_found_whether_it_is_in_the_state_or_in_records_of_its_own() {
    let mut model = Model::new(3);
    for (round, count) in
        [1, 5, 119, 1, 1, 2, 300, 1, 700, 900, 2500, 128, 129].into_iter().enumerate()
    {
        let lens: Vec<usize> = (0..count).map(|n| 1 + (n + round) % 5).collect();
        model.append(&lens);
        let tail = *model.ends.last().unwrap();
        model.check((0..=tail).step_by(1 + tail as usize / 300));
    }
    let tail = *model.ends.last().unwrap();
    model.check(0..=tail);
}

#[test]
fn the_lengths_of_a_range_are_told_where_it_holds_whole_appends() {
    let mut model = Model::new(4);
    for count in [100, 200, 1500, 20] {
        model.append(&(0..count).map(|n| 1 + n % 3).collect::<Vec<_>>());
    }
    let reading = model.index.index.read().unwrap();
    let between = |from, to| reading.lens_between(ONE, from, to).unwrap();
    let (ends, lens) = (&model.ends, model.lens());
    let places =
        [0, 1, 2, 100, 101, 102, 300, 301, 1000, 1799, 1800, 1801, 1810, 1820, ends.len() - 1];
    for (at, from) in places.iter().enumerate() {
        for to in &places[at + 1..] {
            let expected = encoded(&lens[*from..*to]);
            assert_eq!(between(ends[*from], ends[*to]), expected, "{from} to {to}");
        }
    }
    assert!(between(1, ends[4]).is_empty(), "it begins inside an append");
    assert!(between(0, ends[1] - 1).is_empty(), "it ends inside one");
    assert!(between(0, ends[ends.len() - 1] + 1).is_empty(), "there are no more");
    assert!(reading.lens_between(StreamId(9), 0, 4).unwrap().is_empty());
}

/// Each record of them is full with 1,024 bytes, and extended while it has less than half.
#[test]
fn records_of_lengths_are_filled_one_after_the_other() {
    let mut model = Model::new(0);
    model.append(&[1; 128]);
    assert_eq!(model.index.records("appends", ONE), [], "as many as are in the state");
    model.append(&[1]);
    assert_eq!(model.index.records("appends", ONE), [(0, 129)]);
    model.append(&[1; 129]);
    assert_eq!(model.index.records("appends", ONE), [(0, 258)], "it is extended");
    model.append(&[1; 249]);
    assert_eq!(model.index.records("appends", ONE), [(0, 507)]);
    model.append(&[1; 129]);
    assert_eq!(model.index.records("appends", ONE), [(0, 636)]);
    model.append(&[1; 129]);
    assert_eq!(model.index.records("appends", ONE), [(0, 636), (636, 129)]);
    model.append(&[1; 1024 - 129 + 1024]);
    assert_eq!(model.index.records("appends", ONE), [(0, 636), (636, 1024), (1660, 1024)]);
    model.append(&[1; 1024 + 129]);
    let expected = [(0, 636), (636, 1024), (1660, 1024), (2684, 1024), (3708, 129)];
    assert_eq!(model.index.records("appends", ONE), expected);
    model.check(0..=3837);

    let mut model = Model::new(0);
    model.append(&[1; 508]);
    model.append(&[1; 129]);
    assert_eq!(
        model.index.records("appends", ONE),
        [(0, 508), (508, 129)],
        "with its checksum 512"
    );
}

#[test]
fn lengths_before_a_trim_are_left_out() {
    let mut model = Model::new(0);
    for count in [200, 200, 50] {
        model.append(&(0..count).map(|n| 1 + n % 3).collect::<Vec<_>>());
    }
    for kept in [1, 150, 200, 201, 400, 401, 449] {
        model.index.fold([(ONE, trimmed(model.ends[kept]))]);
        let reading = model.index.index.read().unwrap();
        let state = reading.state(ONE).unwrap().unwrap();
        let lens = reading.append_lens(&state).unwrap();
        assert_eq!(AppendLens(&lens).collect::<Vec<_>>(), model.lens()[kept..], "from {kept} on");
        let before = reading.ends_around(ONE, Offset::new(model.ends[kept] - 1)).unwrap();
        assert_eq!(before, None, "it was trimmed");
        let found = reading.ends_around(ONE, Offset::new(model.ends[kept])).unwrap();
        assert_eq!(found.and_then(|found| found.next), model.ends.get(kept + 1).copied());
    }
}

#[test]
fn nothing_is_noted_of_messages_that_delimit_themselves() {
    let mut index = TestIndex::new();
    let events = (0..200).map(|n| (ONE, appended(bytes(n, 1))));
    let folded = index.fold([(ONE, json("/a"))].into_iter().chain(events));
    assert_eq!(folded.json, [ONE]);
    assert_eq!(index.records("appends", ONE), []);
    let reading = index.index.read().unwrap();
    assert_eq!(reading.ends_around(ONE, Offset::new(5)).unwrap(), None);
    assert!(reading.lens_between(ONE, 0, 5).unwrap().is_empty());
    let state = reading.state(ONE).unwrap().unwrap();
    assert_eq!(reading.ends_around(TWO, Offset::new(5)).unwrap(), None, "there is no such stream");
    assert_eq!(state.tail, Offset::new(200));
}

/// A damaged record is said to be one, and the stream's next appends are noted behind it.
#[test]
fn damaged_lengths_are_refused_and_appends_go_on() {
    for whole in [true, false] {
        let mut model = Model::new(0);
        model.append(&[2; 200]);
        model
            .index
            .index
            .write(&|| Ok(()), |index, txn| {
                let key = keys::chunk(ONE, Offset::ZERO);
                let mut value = Vec::new();
                // One append less, or no record at all.
                keys::seal(&key, &encoded(&[2; 199]), &mut value);
                value[0] ^= u8::from(!whole);
                Ok(index.appends.put(txn, &key, &value)?)
            })
            .unwrap();
        let read = |model: &Model| {
            let reading = model.index.index.read().unwrap();
            let state = reading.state(ONE).unwrap().unwrap();
            let lens = reading.append_lens(&state).map(|_| ());
            (lens, reading.ends_around(ONE, Offset::new(399)).map(|_| ()))
        };
        for found in [read(&model).0, read(&model).1] {
            let Err(StoreError::Corrupt { found, .. }) = found else { panic!("{found:?}") };
            assert_eq!(&*found, "the record of the ends of appends of stream 1 is damaged");
        }
        model.append(&[2; 129]);
        assert!(read(&model).0.is_err());
        let reading = model.index.index.read().unwrap();
        let found = reading.ends_around(ONE, Offset::new(500)).unwrap();
        assert_eq!(found, Some(EndsAround { last: 500, next: Some(502) }));
    }
}
