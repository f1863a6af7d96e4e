//! One flipped bit in a key or a value of the index: whatever needs it is refused, and nothing else is returned.
//!
//! `STORE_FLIP_SEEDS=1000` flips that many bits.

use std::{fs, ops::Range};

use durable_streams_engine::store::{AnyStore, LoadFor, Store, StoreError, file::offline};
use durable_streams_protocol::{Offset, ProducerId, StreamEvent, StreamState};

use crate::{harness::*, workload::Rng};

const STREAMS: usize = 200;

/// Long enough for keys on branch pages, some too long for one key.
pub fn name(n: usize) -> String {
    format!("stream/{n:03}/{}", "x".repeat(n * 7 % 700))
}

pub fn producer_id(n: usize) -> ProducerId {
    ProducerId::new(&format!("producer-{n:03}")).unwrap()
}

pub fn payload(n: usize) -> String {
    format!("payload of stream {n:03}; ").repeat(1 + n % 9)
}

pub fn write(store: &AnyStore) -> Vec<StreamState> {
    for n in 0..STREAMS {
        let id = create(store, created(&name(n), &payload(n)));
        let mut event = appended(b"more");
        event.producer = Some(producer(&format!("producer-{n:03}"), 1, 0));
        commit(store, id, StreamEvent::Appended(event)).unwrap();
    }
    (0..STREAMS).map(|n| load(store, &name(n)).unwrap().state).collect()
}

/// Bytes of the file that are keys or values, with the checksums in front of the values.
pub fn records(file: &[u8]) -> Vec<Range<usize>> {
    let mut records = Vec::new();
    let mut find = |text: &str, before: usize, after: usize| {
        let mut from = 0;
        while let Some(at) = memchr::memmem::find(&file[from..], text.as_bytes()) {
            let at = from + at;
            records.push(at - before..at + text.len() + after);
            from = at + text.len();
        }
    };
    for n in 0..STREAMS {
        find(&name(n)[..name(n).len().min(400)], 8, 0);
        find(&payload(n), 20, 0);
        find(&format!("producer-{n:03}"), 8, 20);
    }
    records
}

/// Returns how many streams were refused.
fn check(store: &AnyStore, expected: &[StreamState], what: &str) -> usize {
    let mut refused = 0;
    for (n, state) in expected.iter().enumerate() {
        let found = wait(store.load(&path(&name(n)), LoadFor::Bytes));
        let found = match found {
            Ok(Some(mut found)) => match wait(store.producer(found.state.core.id, &producer_id(n)))
            {
                Ok(known) => {
                    found.state.producers.extend(known.map(|known| (producer_id(n), known)));
                    found.state
                }
                Err(error) => {
                    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
                    refused += 1;
                    continue;
                }
            },
            Ok(None) => panic!("{what}: stream {n} is gone without a word"),
            Err(error) => {
                assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
                refused += 1;
                continue;
            }
        };
        assert_eq!(&found, state, "{what}: stream {n}");
        let all = [payload(n).as_bytes(), b"more"].concat();
        match wait(store.read(state.core.id, state.core.own_start(), state.tail, 1 << 20)) {
            Ok(pieces) => assert_eq!(pieces.concat(), all, "{what}: stream {n}"),
            Err(StoreError::Corrupt { .. }) => refused += 1,
            Err(error) => panic!("{what}: {error}"),
        }
    }
    refused
}

#[test]
fn a_damaged_chunk_stops_neither_its_stream_nor_others() {
    let dir = tempdir();
    let store = file(dir.path());
    let damaged = create(&store, created("damaged", "damaged bytes of a stream"));
    let other = create(&store, created("other", "other bytes"));
    wait(store.close());
    drop(store);
    let index = dir.path().join("store/data.mdb");
    let mut bytes = fs::read(&index).unwrap();
    let mut flipped = 0;
    while let Some(at) = memchr::memmem::find(&bytes, b"damaged bytes") {
        bytes[at] ^= 1;
        flipped += 1;
    }
    assert!(flipped > 0);
    fs::write(&index, &bytes).unwrap();

    let mut store = file(dir.path());
    for round in 0..3 {
        append(&store, damaged, b"more");
        append(&store, other, b"more");
        checkpoint(&store);
        rest(&store);
        rest(&store);
        let state = load(&store, "other").unwrap().state;
        assert_eq!(read_all(&store, &state, 100).len(), 11 + 4 * (round + 1), "{round}");
        let tail = load(&store, "damaged").unwrap().state.tail;
        let read = |from| wait(store.read(damaged, Offset::new(from), tail, 100));
        assert!(matches!(read(3), Err(StoreError::Corrupt { .. })), "{round}");
        assert_eq!(read(25).unwrap().concat(), b"more".repeat(round + 1), "{round}");
        if round == 1 {
            wait(store.close());
            drop(store);
            store = file(dir.path());
        }
    }
    commit(&store, damaged, StreamEvent::Deleted { at: at(9) }).unwrap();
    checkpoint(&store);
    let AnyStore::File(files) = &store else { panic!("a file store") };
    files.maintain();
    wait(store.close());
    drop(store);
    let report = offline::verify(&options(dir.path()), &mut |_| {}).unwrap();
    assert_eq!(report.count, 0, "{:?}", report.problems);
}

#[test]
fn a_flipped_bit_is_never_served() {
    let dir = tempdir();
    let store = file(dir.path());
    let expected = write(&store);
    wait(store.close());
    drop(store);
    let index = dir.path().join("store/data.mdb");
    let whole = fs::read(&index).unwrap();
    let records = records(&whole);
    assert!(records.len() > 3 * STREAMS, "{} records", records.len());
    let (mut refused, seeds) = (0, seeds("STORE_FLIP_SEEDS", 120));
    for seed in seeds.clone() {
        let mut rng = Rng(seed);
        let record = &records[rng.below(records.len() as u64) as usize];
        let at = record.start + rng.below(record.len() as u64) as usize;
        let bit = rng.below(8);
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << bit;
        fs::write(&index, &flipped).unwrap();
        let what = format!("seed {seed}, bit {bit} of byte {at}");
        let store = file(dir.path());
        refused += usize::from(check(&store, &expected, &what) > 0);
        drop(store);
    }
    let flips = seeds.count();
    println!(
        "{flips} flips: {refused} were refused by a read, {} changed nothing that is read",
        flips - refused
    );
    // The file has pages of earlier transactions, too, where a flip changes nothing.
    assert!(refused * 5 > flips, "only {refused} were noticed");
}
