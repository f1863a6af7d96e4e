//! The list of streams for operators: complete, in order, and without leaving anything in memory.

use std::collections::BTreeSet;
use std::ops::Bound;

use bytes::Bytes;
use durable_streams_engine::store::{AnyStore, Store};
use durable_streams_engine::{Clock, Engine, EngineLimits, InheritedRange};
use durable_streams_protocol::{Create, Expiry, Fork, Offset, Rejection, StreamPath};

use crate::stores::{StoreKind, engine};

fn path(name: &str) -> StreamPath {
    StreamPath::new(name).unwrap()
}

async fn create(engine: &Engine, name: &str, expiry: Expiry) {
    let create = Create { expiry, ..Create::default() };
    engine.create(&path(name), &create, Bytes::from_static(b"12345")).await.unwrap();
}

async fn walk(engine: &Engine, prefix: &str, max: usize) -> Vec<String> {
    let start = StreamPath::new(prefix).ok();
    let mut from = start.map_or(Bound::Unbounded, Bound::Included);
    let mut seen = Vec::new();
    loop {
        let page = engine.list_streams(from.as_ref(), prefix, max).await.unwrap();
        assert!(page.streams.len() <= max);
        seen.extend(page.streams.iter().map(|one| one.path.to_string()));
        match page.next {
            Some(next) => from = Bound::Excluded(next),
            None => return seen,
        }
    }
}

#[tokio::test]
async fn pages_are_whole_whatever_lies_in_the_log_and_in_the_index() {
    for kind in StoreKind::ALL {
        let opened = crate::support::StoreKind::open_with(*kind, |options| {
            options.checkpoint_interval = std::time::Duration::from_millis(50);
        });
        let (store, _keep) = opened.into_parts();
        let engine = Engine::new(store, Clock::System, EngineLimits::default());
        let long = format!("b/{}", "long/".repeat(180));
        let mut expected = BTreeSet::new();
        for round in 0..6 {
            for n in 0..20 {
                let name = format!("b/{:03}", n * 10 + round);
                create(&engine, &name, Expiry::Never).await;
                expected.insert(name);
            }
            let name = format!("{long}{round}");
            create(&engine, &name, Expiry::Never).await;
            expected.insert(name);
            create(&engine, &format!("a{round}"), Expiry::Never).await;
            create(&engine, &format!("c{round}"), Expiry::Never).await;
            let gone = format!("b/{:03}", round * 10);
            engine.delete(&path(&gone)).await.unwrap();
            expected.remove(&gone);
            if round % 2 == 0 {
                // The same path, another stream.
                create(&engine, &gone, Expiry::Never).await;
                expected.insert(gone);
            }
            for max in [1, 7, 1_000] {
                let seen = walk(&engine, "b/", max).await;
                assert_eq!(seen, expected.iter().cloned().collect::<Vec<_>>(), "{kind:?} {max}");
            }
            tokio::time::sleep(std::time::Duration::from_millis(60)).await;
        }
        let all = walk(&engine, "", 50).await;
        assert!(all.is_sorted() && all.len() == expected.len() + 12, "{kind:?}");
        if let AnyStore::File(_) = engine.store() {
            let disk = engine.store().disk_stats().unwrap();
            assert!(disk.files.checkpoints > 1, "both places were listed");
        }
        engine.close().await;
    }
}

#[tokio::test]
async fn a_listed_stream_leaves_no_cell() {
    for kind in StoreKind::ALL {
        let (first, _clock, _keep) = engine(*kind, 64);
        for n in 0..50 {
            create(&first, &format!("s{n}"), Expiry::Never).await;
        }
        let before = first.stats().cells;
        assert_eq!(walk(&first, "", 10).await.len(), 50);
        assert_eq!(walk(&first, "absent", 10).await.len(), 0);
        assert_eq!(first.stats().cells, before, "{kind:?}");
        first.close().await;
    }
}

#[tokio::test]
async fn what_has_expired_is_not_listed_and_a_step_of_the_clock_hides_nothing() {
    for kind in StoreKind::ALL {
        let (engine, clock, _keep) = engine(*kind, 64);
        create(&engine, "stays", Expiry::Never).await;
        create(&engine, "ttl", Expiry::Ttl(60)).await;
        clock.step_wall_millis(86_400_000);
        assert_eq!(walk(&engine, "", 10).await, ["stays", "ttl"], "{kind:?}");
        clock.advance_millis(61_000);
        assert_eq!(walk(&engine, "", 10).await, ["stays"], "{kind:?}");
        engine.close().await;
    }
}

#[tokio::test]
async fn an_inspected_stream_shows_its_readers_its_forks_and_what_it_inherits() {
    for kind in StoreKind::ALL {
        let (engine, _clock, _keep) = engine(*kind, 64);
        create(&engine, "a", Expiry::Never).await;
        let fork = async |name: &str, source: &str, at: u64, sub_offset: u64| {
            let offset = engine.head(&path(source)).await.unwrap().core.offset_at(at);
            let fork = Fork { source: path(source), offset: Some(offset), sub_offset };
            let create = Create { fork: Some(fork), ..Create::default() };
            engine.create(&path(name), &create, Bytes::from_static(b"678")).await.unwrap();
        };
        fork("b", "a", 0, 4).await;
        fork("c", "b", 4, 2).await;
        let inherited = async |name: &str| {
            let found = engine.inspect(&path(name), 9).await.unwrap().location.inherited;
            let show = |range: &InheritedRange| {
                (range.path.as_ref().map(ToString::to_string), range.from, range.to)
            };
            found.iter().map(show).collect::<Vec<_>>()
        };
        assert_eq!(inherited("a").await, [], "{kind:?}");
        assert_eq!(inherited("b").await, [(Some("a".into()), 0, 4)], "{kind:?}");
        let both = [(Some("a".into()), 0, 4), (Some("b".into()), 4, 6)];
        assert_eq!(inherited("c").await, both, "{kind:?}");
        let a = engine.inspect(&path("a"), 9).await.unwrap();
        assert_eq!(a.forks, [(path("b"), Offset::new(4))], "{kind:?}");
        // Others begin with its path.
        create(&engine, "a/b", Expiry::Never).await;
        assert_eq!(engine.inspect(&path("a/"), 9).await.unwrap_err(), Rejection::NotFound);
        assert_eq!(engine.inspect(&path("absent"), 9).await.unwrap_err(), Rejection::NotFound);
        let readers = async || engine.inspect(&path("a"), 0).await.unwrap().summary.live_readers;
        assert_eq!(readers().await, 0, "{kind:?}");
        let first = engine.open_live(&path("a")).await.unwrap();
        let second = engine.open_live(&path("a")).await.unwrap();
        assert_eq!(readers().await, 2, "{kind:?}");
        drop(first);
        assert_eq!(readers().await, 1, "{kind:?}");
        drop(second);
        assert_eq!(readers().await, 0, "{kind:?}");
        engine.close().await;
    }
}
