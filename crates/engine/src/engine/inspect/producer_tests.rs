//! More producers than a cell keeps in memory, against a model that has them all: through eviction, checkpoints, restarts
//! and ends of the process. A cell of a test has two tables of four.

use std::collections::BTreeMap;

use bytes::Bytes;
use durable_streams_protocol::{
    Append, AppendOutcome, ContentType, Create, Producer, ProducerAdmission, Timestamp,
};
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    Clock, EngineLimits, ManualClock,
    store::{AnyStore, FileStore, FileStoreOptions, MemoryStore, file::Durability},
};

const PRODUCERS: u8 = 14;

#[derive(Clone, Debug)]
enum Step {
    /// The next append of each producer, all under way at once.
    Next(Vec<u8>),
    /// Any headers.
    Any(u8, u64, u64),
    /// Without a producer.
    Plain,
    /// The cell leaves memory.
    Evict,
    Checkpoint,
    /// Without a last checkpoint, as after `kill -9`, or with one.
    Restart {
        closed: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let producer = || 0..PRODUCERS;
    let step = prop_oneof![
        8 => vec(producer(), 1..8).prop_map(Step::Next),
        6 => (producer(), 0u64..3, 0u64..4).prop_map(|(id, epoch, seq)| Step::Any(id, epoch, seq)),
        1 => Just(Step::Plain),
        2 => Just(Step::Evict),
        2 => Just(Step::Checkpoint),
        1 => any::<bool>().prop_map(|closed| Step::Restart { closed }),
    ];
    vec(step, 1..50)
}

/// An engine beside what its stream must remember.
struct Pair {
    dir: Option<tempfile::TempDir>,
    engine: Engine,
    clock: ManualClock,
    known: BTreeMap<ProducerId, ProducerState>,
    bytes: u64,
}

fn path() -> StreamPath {
    StreamPath::new("s").unwrap()
}

fn id(n: u8) -> ProducerId {
    ProducerId::new(&format!("producer-{n}")).unwrap()
}

fn open(dir: Option<&tempfile::TempDir>, clock: &ManualClock) -> Engine {
    let store = match dir {
        None => AnyStore::Memory(MemoryStore::default()),
        Some(dir) => {
            let options = FileStoreOptions {
                durability: Durability::Os,
                map_size: 1 << 24,
                wal_segment: 1 << 16,
                ..FileStoreOptions::new(dir.path())
            };
            AnyStore::File(FileStore::open(options).unwrap())
        }
    };
    Engine::new(store, Clock::Manual(clock.clone()), EngineLimits::default())
}

impl Pair {
    async fn new(files: bool) -> Self {
        let dir = files.then(|| tempfile::tempdir().unwrap());
        let clock = ManualClock::at(Timestamp::from_millis(1_000_000));
        let engine = open(dir.as_ref(), &clock);
        engine.create(&path(), &Create::default(), Bytes::new()).await.unwrap();
        Pair { dir, engine, clock, known: BTreeMap::new(), bytes: 0 }
    }

    async fn append(&self, producer: Option<Producer>) -> Result<AppendOutcome, Rejection> {
        let content_type = Some(Ok(ContentType::default()));
        let append = Append { content_type, producer, ..Append::default() };
        self.engine.append(&path(), &append, Bytes::from_static(b"x")).await
    }

    fn expect(&mut self, producer: Producer, outcome: Result<AppendOutcome, Rejection>) {
        let expected = producer.admit(self.known.get(&producer.id).copied());
        let found = match &outcome {
            Ok(done) if done.added => ProducerAdmission::Accept,
            Ok(done) => ProducerAdmission::Duplicate(done.producer.unwrap()),
            Err(Rejection::StaleEpoch { current, .. }) => {
                ProducerAdmission::StaleEpoch { current: *current }
            }
            Err(Rejection::EpochMustStartAtZero) => ProducerAdmission::EpochMustStartAtZero,
            Err(Rejection::SequenceGap { expected, .. }) => {
                ProducerAdmission::Gap { expected: *expected }
            }
            Err(other) => panic!("{producer:?}: {other}"),
        };
        assert_eq!(found, expected, "{producer:?}");
        if found == ProducerAdmission::Accept {
            self.known.insert(producer.id.clone(), producer.accepted());
            self.bytes += 1;
        }
    }

    fn next(&self, n: u8) -> Producer {
        let known = self.known.get(&id(n)).copied();
        let (epoch, seq) = known.map_or((0, 0), |known| (known.epoch, known.last_seq + 1));
        Producer { id: id(n), epoch, seq }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Next(mut producers) => {
                producers.sort_unstable();
                producers.dedup();
                let next: Vec<_> = producers.iter().map(|n| self.next(*n)).collect();
                let appends = next.iter().map(|producer| self.append(Some(producer.clone())));
                let outcomes = futures_util::future::join_all(appends).await;
                next.into_iter().zip(outcomes).for_each(|(next, done)| self.expect(next, done));
            }
            Step::Any(n, epoch, seq) => {
                let producer = Producer { id: id(n), epoch, seq };
                let outcome = self.append(Some(producer.clone())).await;
                self.expect(producer, outcome);
            }
            Step::Plain => {
                assert!(self.append(None).await.unwrap().added);
                self.bytes += 1;
            }
            Step::Evict => {
                self.clock.advance_millis(1_000_000);
                let steady = self.engine.clock.steady_now();
                // The writer thread may still hold the cell for a moment.
                while self.engine.stats().cells > 0 {
                    (0..64).for_each(|turn| {
                        self.engine.registry.evict_idle(turn, steady, 1);
                    });
                }
            }
            Step::Checkpoint => {
                if let AnyStore::File(files) = self.engine.store() {
                    files.checkpoint().unwrap();
                }
            }
            Step::Restart { closed } => {
                if closed && self.dir.is_some() {
                    self.engine.close().await;
                }
                if self.dir.is_some() {
                    self.engine = Engine::in_memory();
                    self.engine = open(self.dir.as_ref(), &self.clock);
                }
            }
        }
        let cell = self.engine.registry.cell(&path());
        let state = cell.state.lock();
        let most = 2 * 4 + 8;
        assert!(state.producers_in_memory() <= most, "{} in memory", state.producers_in_memory());
        if state.loaded {
            assert_eq!(state.producers(), self.known.len() as u64);
        }
    }

    async fn finish(self) {
        let mut listed = BTreeMap::new();
        let mut after = None;
        loop {
            let after_text = after.as_ref().map(ProducerId::as_str);
            let page = self.engine.producers(&path(), after_text, 3).await.unwrap();
            let Some((last, _)) = page.producers.last() else { break };
            assert!(page.producers.len() <= 3 && after < Some(last.clone()));
            after = Some(last.clone());
            listed.extend(page.producers);
            if !page.more {
                break;
            }
        }
        assert_eq!(listed, self.known);
        let view = self.engine.head(&path()).await.unwrap();
        assert_eq!(view.tail.offset, view.core.offset_at(self.bytes));
        self.engine.close().await;
    }
}

fn run(files: bool, steps: Vec<Step>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut pair = Pair::new(files).await;
        for step in steps {
            pair.step(step).await;
        }
        pair.finish().await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn producers_out_of_memory_are_remembered_by_files(steps in steps()) {
        run(true, steps);
    }

    #[test]
    fn producers_out_of_memory_are_remembered_in_memory(steps in steps()) {
        run(false, steps);
    }
}
