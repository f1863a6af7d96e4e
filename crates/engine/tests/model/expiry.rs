//! Expiry: what waits for it, and a wall clock that is set meanwhile. A step is no time that has passed.

use durable_streams_engine::store::{AnyStore, Store};
use std::sync::Arc;

use bytes::Bytes;
use durable_streams_engine::{Clock, Engine, EngineLimits, ManualClock};
use durable_streams_protocol::{ContentType, Create, Expiry, Rejection, StreamPath, Timestamp};

use crate::stores::{StoreKind, engine};

const DAY: i64 = 86_400_000;
const HOUR: i64 = 3_600_000;
const START: u64 = 1_800_000_000_000;

fn path(name: &str) -> StreamPath {
    StreamPath::new(name).unwrap()
}

async fn create(engine: &Engine, name: &str, expiry: Expiry) {
    let create = Create { expiry, ..Create::default() };
    engine.create(&path(name), &create, Bytes::new()).await.unwrap();
}

/// Sweeps until the store has nothing due, as housekeeping does. Returns how many streams were removed.
async fn sweep(engine: &Engine) -> usize {
    let mut removed = 0;
    for _ in 0..2_000 {
        removed += engine.sweep_due().await;
        if engine.store().due(engine.now(), 10).await.unwrap().is_empty() {
            return removed;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("the sweeper leaves what is due");
}

/// However many there are: one look at the store finds 256.
#[tokio::test]
async fn everything_that_is_due_is_removed_at_once() {
    let (engine, clock, _keep) = engine(StoreKind::ALL[0], 64);
    for n in 0..600 {
        create(&engine, &format!("{n}"), Expiry::Ttl(60)).await;
    }
    create(&engine, "later", Expiry::Ttl(120)).await;
    let began = (engine.now().millis(), engine.steady_now().millis());
    clock.advance_millis(59_999);
    assert_eq!(engine.sweep_due().await, 0);
    clock.advance_millis(1);
    let now = (engine.now().millis(), engine.steady_now().millis());
    assert_eq!((now.0 - began.0, now.1 - began.1), (60_000, 60_000));
    assert_eq!(engine.sweep_due().await, 600);
    assert_eq!((engine.sweep_due().await, engine.stats().store.streams), (0, 1));
    engine.close().await;
}

#[tokio::test]
async fn a_step_forward_expires_no_ttl() {
    for kind in StoreKind::ALL {
        let (engine, clock, _keep) = engine(*kind, 64);
        create(&engine, "read", Expiry::Ttl(60)).await;
        create(&engine, "swept", Expiry::Ttl(60)).await;
        create(&engine, "absolute", Expiry::At(Timestamp::from_millis(START + HOUR as u64))).await;
        clock.advance_millis(50_000);
        clock.step_wall_millis(DAY);
        // Whichever comes first, a request or the sweeper, finds the step.
        engine.head(&path("read")).await.unwrap();
        assert_eq!(engine.head(&path("absolute")).await.unwrap_err(), Rejection::NotFound);
        assert_eq!(sweep(&engine).await, 1, "the absolute deadline");
        engine.head(&path("swept")).await.unwrap();
        clock.advance_millis(9_000);
        assert_eq!(sweep(&engine).await, 0);
        engine.head(&path("read")).await.unwrap();
        clock.advance_millis(1_001);
        for name in ["read", "swept"] {
            assert_eq!(engine.head(&path(name)).await.unwrap_err(), Rejection::NotFound, "{name}");
        }
        assert_eq!(sweep(&engine).await, 2);
        engine.close().await;
    }
}

#[tokio::test]
async fn after_a_step_back_a_ttl_runs_for_its_own_length_at_most() {
    for kind in StoreKind::ALL {
        let (engine, clock, _keep) = engine(*kind, 64);
        create(&engine, "used", Expiry::Ttl(60)).await;
        create(&engine, "seen", Expiry::Ttl(60)).await;
        clock.step_wall_millis(-HOUR);
        engine.open(&path("used")).await.unwrap();
        engine.head(&path("seen")).await.unwrap();
        clock.advance_millis(59_000);
        assert_eq!(sweep(&engine).await, 0);
        engine.head(&path("used")).await.unwrap();
        clock.advance_millis(1_001);
        for name in ["used", "seen"] {
            assert_eq!(engine.head(&path(name)).await.unwrap_err(), Rejection::NotFound, "{name}");
        }
        engine.close().await;
    }
}

#[tokio::test]
async fn what_a_clock_in_the_future_stored_counts_from_now() {
    // The store outlives the engine, whose clock was a day ahead.
    let dir = tempfile::tempdir().unwrap();
    let at = |millis: u64| {
        let options = durable_streams_engine::store::FileStoreOptions::new(dir.path());
        let store = durable_streams_engine::store::FileStore::open(options).unwrap();
        let clock = ManualClock::at(Timestamp::from_millis(millis));
        let store = AnyStore::File(store);
        (Engine::new(store, Clock::Manual(clock.clone()), EngineLimits::default()), clock)
    };
    let (engine, _) = at(START + DAY as u64);
    create(&engine, "a", Expiry::Ttl(60)).await;
    engine.close().await;
    drop(engine);
    let (engine, clock) = at(START);
    engine.head(&path("a")).await.unwrap();
    clock.advance_millis(60_001);
    assert_eq!(engine.head(&path("a")).await.unwrap_err(), Rejection::NotFound);
    engine.close().await;
}

/// Completes the search for last uses in the future.
async fn search(engine: &Engine) {
    for _ in 0..100 {
        if !engine.sweep_future_uses().await {
            return;
        }
    }
    panic!("the search does not end");
}

/// Sweeps until `streams` were removed. The file store finds a stream by the deadline that its index has: when that is from
/// before a step back, it finds the stream after the next checkpoint, 10 s later at most.
async fn sweep_all(engine: &Engine, streams: usize) {
    let mut removed = 0;
    for _ in 0..30_000 {
        removed += engine.sweep_due().await;
        if removed >= streams {
            return assert_eq!(removed, streams);
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("{removed} of {streams} were removed");
}

#[tokio::test]
async fn after_a_step_back_idle_streams_expire_too() {
    // More than the search examines at a time.
    const STREAMS: usize = 600;
    for kind in StoreKind::ALL {
        let (engine, clock, _keep) = engine(*kind, 64);
        for n in 0..STREAMS {
            create(&engine, &format!("ttl/{n}"), Expiry::Ttl(60 + n as u64 % 7)).await;
        }
        let at = Expiry::At(Timestamp::from_millis(START + 30_000));
        create(&engine, "absolute", at).await;
        search(&engine).await;
        assert_eq!(engine.sweep_due().await, 0);
        clock.step_wall_millis(-HOUR);
        search(&engine).await;
        clock.advance_millis(59_000);
        assert_eq!(engine.sweep_due().await, 0);
        clock.advance_millis(8_000);
        sweep_all(&engine, STREAMS).await;
        engine.head(&path("absolute")).await.unwrap();
        engine.close().await;
    }
}

#[tokio::test]
async fn a_clock_that_went_back_while_the_server_was_stopped_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let open = |millis: u64| {
        let options = durable_streams_engine::store::FileStoreOptions::new(dir.path());
        let store = durable_streams_engine::store::FileStore::open(options).unwrap();
        let clock = ManualClock::at(Timestamp::from_millis(millis));
        let store = AnyStore::File(store);
        (Engine::new(store, Clock::Manual(clock.clone()), EngineLimits::default()), clock)
    };
    let (engine, _) = open(START + DAY as u64);
    create(&engine, "a", Expiry::Ttl(60)).await;
    engine.close().await;
    drop(engine);
    let (engine, _) = open(START);
    search(&engine).await;
    engine.close().await;
    drop(engine);
    // The corrected last use is durable: this start is 50 seconds later.
    let (engine, clock) = open(START + 50_000);
    search(&engine).await;
    assert_eq!(engine.sweep_due().await, 0);
    clock.advance_millis(10_001);
    assert_eq!(engine.sweep_due().await, 1);
    engine.close().await;
}

fn checkpoint_of(engine: &Engine) {
    if let AnyStore::File(store) = engine.store() {
        store.checkpoint().unwrap();
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 48, ..Default::default() })]

    /// Steps in both directions while a stream is idle: it stays for its TTL, and for no more than that from the last step
    /// back on, whichever of its deadlines the index has.
    #[test]
    fn an_idle_stream_lives_for_its_ttl_whatever_the_clock_does(
        steps in proptest::collection::vec((0u64..12_000, -DAY..DAY, proptest::bool::ANY), 0..8),
        files in proptest::bool::ANY,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let kind = if files { StoreKind::File } else { StoreKind::Memory };
            let (engine, clock, _keep) = engine(kind, 64);
            create(&engine, "idle", Expiry::Ttl(60)).await;
            let mut elapsed = 0;
            for (advance, step, checkpoint) in steps {
                clock.advance_millis(advance);
                clock.step_wall_millis(step);
                elapsed += advance;
                search(&engine).await;
                if checkpoint {
                    checkpoint_of(&engine);
                }
                let removed = engine.sweep_due().await;
                assert!(removed == 0 || elapsed >= 60_000, "removed after {elapsed} ms");
                if removed > 0 {
                    return engine.close().await;
                }
            }
            clock.advance_millis(60_001);
            checkpoint_of(&engine);
            sweep_all(&engine, 1).await;
            engine.close().await;
        });
    }
}

#[tokio::test]
async fn eviction_goes_by_elapsed_time() {
    let (engine, clock, _keep) = engine(StoreKind::Memory, 64);
    create(&engine, "a", Expiry::Never).await;
    clock.step_wall_millis(-HOUR);
    tokio::time::pause();
    let housekeeping = tokio::spawn(Engine::housekeeping(Arc::downgrade(&engine)));
    clock.advance_millis(11_000);
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    housekeeping.abort();
    assert_eq!(engine.stats().cells, 0);
}

#[tokio::test]
async fn a_refused_creation_waits_for_the_removal_that_it_was_judged_on() {
    // Synced to disk, so that a removal takes a while to become durable.
    let (store, _keep) = StoreKind::File.open().into_parts();
    let clock = ManualClock::at(Timestamp::from_millis(START));
    let engine = Engine::new(store, Clock::Manual(clock.clone()), EngineLimits::default());
    let json = Some(ContentType::parse("application/json").unwrap());
    for at in 0..20 {
        let name = format!("s/{at}");
        create(&engine, &name, Expiry::At(Timestamp::from_millis(START + 1_000 + at))).await;
        let (_, mut watch) = engine.open_live(&path(&name)).await.unwrap();
        clock.advance_millis(if at == 0 { 1_000 } else { 1 });
        let invalid = Create { content_type: json.clone(), ..Create::default() };
        let refused = engine.create(&path(&name), &invalid, "{".into()).await;
        assert_eq!(refused.unwrap_err().code(), "invalid-json");
        assert!(watch.tail().gone, "the removal is durable when the refusal is returned");
    }
    engine.close().await;
}
