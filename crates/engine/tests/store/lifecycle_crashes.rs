//! Power cuts and kills at every operation of the disk, with lifecycle events on: the lifecycle stream tells exactly what
//! became of the streams that are found then, each event once.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use durable_streams_engine::{
    Clock, Engine, EngineLimits, Judged, ManualClock,
    store::{AnyStore, FileStore, FileStoreOptions},
};
use durable_streams_protocol::{
    Append, Create, Expiry, Fork, LIFECYCLE_PATH, MESSAGE_END, Rejection, StreamPath,
};
use serde_json::Value;

use crate::{
    fault_disk::{FaultDisk, Faults},
    harness::{at, options, path, tempdir},
    workload::Rng,
};

struct LifecycleRun {
    dir: tempfile::TempDir,
    disk: FaultDisk,
    clock: ManualClock,
}

fn file(engine: &Engine) -> &FileStore {
    let AnyStore::File(file) = engine.store() else { panic!("a file store") };
    file
}

/// Polls a future to its end, and writes what it queues.
fn drive<T>(engine: &Engine, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..10_000 {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
        file(engine).step();
    }
    panic!("it waits for ever");
}

impl LifecycleRun {
    fn new() -> Self {
        let clock = ManualClock::at(at(1_000_000));
        LifecycleRun { dir: tempdir(), disk: FaultDisk::default(), clock }
    }

    fn open(&self) -> Engine {
        let options = FileStoreOptions { wal_segment: 4096, ..options(self.dir.path()) };
        let store = FileStore::open_on(Arc::new(self.disk.clone()), options).unwrap();
        let limits = EngineLimits { lifecycle: Some(1 << 16), ..EngineLimits::default() };
        let engine = Engine::new(AnyStore::File(store), Clock::Manual(self.clock.clone()), limits);
        drive(&engine, engine.keep_lifecycle());
        engine
    }

    /// Every kind of event; several of them in one batch. Ends at the first failure.
    fn work(&self, engine: &Engine) -> Result<(), Rejection> {
        let text = || Bytes::from_static(b"some bytes");
        let plain = Create::default();
        let mut batch = Vec::new();
        for name in ["a", "b", "c", "d"] {
            let created = drive(engine, engine.judge_create(&path(name), &plain, text()));
            batch.push(created.map(drop));
        }
        finish(engine, batch)?;
        let close = Append { close: true, ..Append::default() };
        let short = Create { expiry: Expiry::Ttl(1), ..Create::default() };
        let source = Some(Fork { source: path("d"), offset: None, sub_offset: 0 });
        let fork = Create { fork: source, ..Create::default() };
        let tail = drive(engine, engine.head(&path("c")))?.tail.offset;
        let batch = vec![
            drive(engine, engine.judge_append(&path("a"), &close, Bytes::new())).map(drop),
            drive(engine, engine.judge_delete(&path("b"))),
            drive(engine, engine.judge_trim(&path("c"), tail)).map(drop),
            drive(engine, engine.judge_create(&path("f"), &fork, Bytes::new())).map(drop),
            drive(engine, engine.judge_delete(&path("d"))),
            drive(engine, engine.judge_create(&path("e"), &short, text())).map(drop),
            drive(engine, engine.judge_create(&path("b"), &plain, text())).map(drop),
        ];
        finish(engine, batch)?;
        self.clock.advance_millis(2_000);
        drive(engine, engine.sweep_due());
        drive(engine, engine.create(&path("e"), &plain, text()))?;
        drive(engine, engine.delete(&path("f")))
    }

    /// Whether the events and the streams say the same.
    fn check(&self, engine: &Engine, what: &str) {
        // What has expired is gone for readers, and its event comes with its removal.
        drive(engine, engine.sweep_due());
        let mut told = BTreeMap::new();
        let messages = messages(engine);
        for (at, message) in messages.iter().enumerate() {
            assert_eq!(message["seq"], at as u64 + 1, "{what}: {messages:#?}");
            let name = message["path"].as_str().unwrap().to_owned();
            let before = told.get(&name).copied();
            let known = |event: &str| before.unwrap_or_else(|| panic!("{what}: {event}"));
            match message["event"].as_str().unwrap() {
                "created" => {
                    assert_eq!(before, None, "{what}: {messages:#?}");
                    told.insert(name, (false, false));
                }
                event @ "closed" => {
                    let (closed, trimmed) = known(event);
                    assert!(!closed, "{what}: {messages:#?}");
                    told.insert(name, (true, trimmed));
                }
                event @ "trimmed" => {
                    told.insert(name, (known(event).0, true));
                }
                event @ ("deleted" | "expired") => {
                    known(event);
                    told.remove(&name);
                }
                other => panic!("{what}: {other}"),
            }
        }
        let mut there = BTreeMap::new();
        for stream in drive(engine, engine.list(None, 100)).unwrap() {
            if stream.as_str() == LIFECYCLE_PATH {
                continue;
            }
            match drive(engine, engine.head(&stream)) {
                Ok(view) => {
                    let trimmed = view.tail.earliest.position() > 0;
                    there.insert(stream.as_str().to_owned(), (view.tail.closed, trimmed));
                }
                Err(Rejection::Gone | Rejection::NotFound) => {}
                Err(error) => panic!("{what}: {stream}: {error}"),
            }
        }
        assert_eq!(told, there, "{what}: {messages:#?}");
    }
}

fn finish(engine: &Engine, batch: Vec<Judged<()>>) -> Result<(), Rejection> {
    let mut results = Vec::new();
    for judged in batch {
        results.push(drive(engine, judged.when_durable()));
    }
    results.into_iter().collect()
}

fn messages(engine: &Engine) -> Vec<Value> {
    let stream = StreamPath::system(LIFECYCLE_PATH).unwrap();
    let view = drive(engine, engine.head(&stream)).unwrap();
    let (from, tail) = (view.tail.earliest, view.tail.offset);
    let slice = drive(engine, engine.read(&view.core, from, tail, 1 << 20)).unwrap();
    let bytes = slice.chunks.concat();
    let parts = bytes.split(|byte| *byte == MESSAGE_END).filter(|part| !part.is_empty());
    parts.map(|part| serde_json::from_slice(part).unwrap()).collect()
}

#[test]
fn after_a_crash_at_any_operation_events_and_streams_agree() {
    for stop in 1.. {
        let mut whole = true;
        for cut in 0..6 {
            let mut run = LifecycleRun::new();
            let engine = run.open();
            run.disk.set_faults(Faults { stop_at: stop, ..Faults::default() });
            let worked = run.work(&engine);
            whole &= !run.disk.is_stopped();
            if !run.disk.is_stopped() {
                worked.unwrap();
                run.check(&engine, "without a crash");
                let events: Vec<_> = messages(&engine)
                    .iter()
                    .map(|message| message["event"].as_str().unwrap().to_owned())
                    .collect();
                assert_eq!(
                    events.join(" "),
                    "created created created created closed deleted trimmed created deleted created \
                     created expired created deleted"
                );
            }
            drop(engine);
            let mut rng = Rng(stop * 31 + cut);
            run.disk = match cut {
                0..3 => run.disk.after_kill(&mut rng),
                3 => run.disk.without_unsynced(),
                _ => run.disk.after_power_cut(&mut rng),
            };
            let what = format!("stopped at {stop}, {cut}");
            let engine = run.open();
            run.check(&engine, &what);
            // Events go on from there, and over another start.
            drive(&engine, engine.create(&path("z"), &Create::default(), Bytes::new())).unwrap();
            run.check(&engine, &what);
            drop(engine);
            run.check(&run.open(), &what);
        }
        if whole {
            assert!(stop > 10, "the crashes were during the work: {stop}");
            return;
        }
    }
}

#[test]
fn after_a_failure_of_any_operation_events_and_streams_agree() {
    for fails in 1.. {
        let mut failed = None;
        for (full, killed) in [(false, true), (true, false)] {
            let mut run = LifecycleRun::new();
            let engine = run.open();
            run.disk.set_faults(Faults { operation: fails, full, ..Faults::default() });
            let _ = run.work(&engine);
            failed = run.disk.failed();
            let what = format!("operation {fails} failed ({failed:?})");
            run.disk.set_faults(Faults::default());
            // A store that takes no more writes cannot remove what has expired.
            if engine.writable().is_ok() {
                run.check(&engine, &what);
            }
            drop(engine);
            let mut rng = Rng(fails);
            run.disk = match killed {
                true => run.disk.after_kill(&mut rng),
                false => run.disk.after_power_cut(&mut rng),
            };
            run.check(&run.open(), &what);
        }
        if failed.is_none() {
            assert!(fails > 5, "the failures were during the work: {fails}");
            return;
        }
    }
}

/// Deletes are accepted on a full disk, and so are their events.
#[test]
fn a_full_disk_takes_deletes_with_their_events() {
    let run = LifecycleRun::new();
    let engine = run.open();
    for name in ["a", "b"] {
        let create = Create::default();
        drive(&engine, engine.create(&path(name), &create, Bytes::new())).unwrap();
    }
    file(&engine).maintain();
    run.disk.set_capacity(6 * 4096);
    let append = Append {
        content_type: Some(Ok(Create::default().content_type.unwrap_or_default())),
        ..Append::default()
    };
    let refused = (0..1_000).find_map(|_| {
        drive(&engine, engine.append(&path("a"), &append, vec![b'x'; 1_000].into())).err()
    });
    assert_eq!(refused, Some(Rejection::StorageFull));
    let large = vec![b'x'; 4_000].into();
    let more = drive(&engine, engine.create(&path("c"), &Create::default(), large));
    assert_eq!(more.err(), Some(Rejection::StorageFull));
    let deleted = [0, 1].map(|_| drive(&engine, engine.delete(&path("a"))));
    assert!(deleted.contains(&Ok(())), "the second finds the reserve in use: {deleted:?}");
    run.check(&engine, "on a full disk");
    assert_eq!(messages(&engine).last().unwrap()["event"], "deleted");
}
