//! Live readers: what they keep in memory, what wakes them, and the frames that they share.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use durable_streams_engine::{Engine, LiveFrame, TailWatch};
use durable_streams_protocol::{
    Append, ContentType, ControlEvent, Create, Expiry, Fork, Offset, Rejection, StreamPath,
};

use crate::stores::{StoreKind, engine};

fn path(text: &str) -> StreamPath {
    StreamPath::new(text).unwrap()
}

async fn create(engine: &Engine, name: &str) {
    create_with(engine, name, Expiry::Never).await;
}

async fn create_with(engine: &Engine, name: &str, expiry: Expiry) {
    let create = Create { expiry, ..Create::default() };
    engine.create(&path(name), &create, Bytes::from_static(b"12345")).await.unwrap();
}

async fn append(engine: &Engine, name: &str) {
    let append = Append { content_type: Some(Ok(ContentType::default())), ..Append::default() };
    engine.append(&path(name), &append, Bytes::from_static(b"67")).await.unwrap();
}

async fn heard(watch: &mut TailWatch) -> bool {
    tokio::time::timeout(Duration::from_secs(5), watch.changed()).await.is_ok()
}

/// Tokio's time passes at once; that of the engine is moved by hand.
#[tokio::test(start_paused = true)]
async fn cells_leave_memory_ten_seconds_after_their_last_use_but_not_under_a_reader() {
    let (engine, clock, _keep) = engine(StoreKind::Memory, 64);
    for n in 0..50 {
        // The last use of those with a TTL is stored before they go.
        let expiry = if n % 2 == 0 { Expiry::Ttl(86_400) } else { Expiry::Never };
        create_with(&engine, &format!("s{n}"), expiry).await;
    }
    clock.advance_millis(500);
    for n in 0..50 {
        engine.open(&path(&format!("s{n}"))).await.unwrap();
    }
    let (view, mut watch) = engine.open_live(&path("s7")).await.unwrap();
    assert_eq!(watch.tail().offset, view.tail.offset);
    tokio::spawn(Engine::housekeeping(Arc::downgrade(&engine)));
    // Every shard has its turn within four seconds; a cell with a last use to store leaves in the next one.
    let round = Duration::from_secs(9);
    clock.advance_millis(9_000);
    tokio::time::sleep(round).await;
    assert_eq!((engine.stats().cells, engine.stats().evicted), (50, 0));
    append(&engine, "s8").await;
    clock.advance_millis(2_000);
    tokio::time::sleep(round).await;
    assert_eq!((engine.stats().cells, engine.stats().evicted), (2, 48), "watched, and used");
    clock.advance_millis(20_000);
    tokio::time::sleep(round).await;
    assert_eq!(engine.stats().cells, 1);
    append(&engine, "s7").await;
    assert!(heard(&mut watch).await);
    assert_eq!(watch.tail().offset, Offset::new(7));
    drop(watch);
    clock.advance_millis(11_000);
    tokio::time::sleep(round).await;
    assert_eq!(engine.stats().cells, 0, "nobody reads it any more");
}

#[tokio::test]
async fn a_frame_is_taken_by_readers_of_the_same_bytes_only() {
    for kind in StoreKind::ALL {
        let (engine, _clock, _keep) = engine(*kind, 64);
        create(&engine, "a").await;
        let (view, one) = engine.open_live(&path("a")).await.unwrap();
        let (_, other) = engine.open_live(&path("a")).await.unwrap();
        let (from, tail) = (Offset::new(2), view.tail);
        assert!(other.frame(from, tail).is_none());
        let control = ControlEvent {
            next_offset: tail.offset,
            cursor: None,
            up_to_date: true,
            closed: false,
        };
        let bytes = Bytes::from_static(b"a frame");
        let (id, end) = (one.id(), tail.offset);
        let frame = LiveFrame { id, from, tail, end, held: false, control, bytes: bytes.clone() };
        one.leave_frame(frame.clone());
        assert_eq!(other.frame(from, tail).unwrap().bytes, bytes, "{kind:?}");
        assert!(other.frame(Offset::new(3), tail).is_none(), "{kind:?}: from elsewhere");
        append(&engine, "a").await;
        let later = engine.head(&path("a")).await.unwrap().tail;
        assert!(other.frame(from, later).is_none(), "{kind:?}: for another tail");
        // A stream that takes the path of another has the same cell, and its readers the same place for a frame.
        engine.delete(&path("a")).await.unwrap();
        create(&engine, "a").await;
        let (view, new) = engine.open_live(&path("a")).await.unwrap();
        new.leave_frame(LiveFrame { tail: view.tail, ..frame });
        assert!(new.frame(from, view.tail).is_none(), "{kind:?}: of another stream");
        engine.close().await;
    }
}

#[tokio::test]
async fn every_reader_hears_of_every_append_also_those_that_come_and_go() {
    for kind in StoreKind::ALL {
        let (engine, _clock, _keep) = engine(*kind, 64);
        create(&engine, "a").await;
        let mut readers = Vec::new();
        for round in 0..6 {
            // More than are woken at a time.
            for _ in 0..20 {
                let (_, mut watch) = engine.open_live(&path("a")).await.unwrap();
                watch.tail();
                readers.push(watch);
            }
            append(&engine, "a").await;
            let tail = Offset::new(5 + 2 * (round + 1));
            for watch in &mut readers {
                assert!(heard(watch).await, "{kind:?}");
                assert_eq!(watch.tail().offset, tail, "{kind:?}");
            }
            readers.drain(..10);
        }
        engine.close().await;
    }
}

/// PROTOCOL.md §5.1.
#[tokio::test]
async fn a_ttl_does_not_run_out_under_a_reader_and_begins_again_when_the_last_one_leaves() {
    for kind in StoreKind::ALL {
        let (engine, clock, _keep) = engine(*kind, 64);
        create_with(&engine, "a", Expiry::Ttl(60)).await;
        let (_, one) = engine.open_live(&path("a")).await.unwrap();
        let (_, other) = engine.open_live(&path("a")).await.unwrap();
        for left in [None, Some(one)] {
            drop(left);
            clock.advance_millis(100_000);
            assert_eq!(engine.sweep_due().await, 0, "{kind:?}");
            engine.head(&path("a")).await.unwrap();
        }
        clock.advance_millis(100_000);
        drop(other);
        clock.advance_millis(59_000);
        assert_eq!(engine.sweep_due().await, 0, "{kind:?}");
        engine.head(&path("a")).await.unwrap();
        clock.advance_millis(1_001);
        assert_eq!(engine.head(&path("a")).await.unwrap_err(), Rejection::NotFound, "{kind:?}");
        engine.close().await;
    }
}

#[tokio::test]
async fn a_reader_hears_of_a_deletion_also_where_a_fork_keeps_the_bytes() {
    for store in [StoreKind::Memory, StoreKind::File] {
        for forked in [false, true] {
            let (engine, _clock, _keep) = engine(store, 64);
            create(&engine, "s").await;
            if forked {
                let fork = Some(Fork { source: path("s"), offset: None, sub_offset: 0 });
                let create = Create { fork, ..Create::default() };
                engine.create(&path("fork"), &create, Bytes::new()).await.unwrap();
            }
            let (_, mut watch) = engine.open_live(&path("s")).await.unwrap();
            assert!(!watch.tail().gone);
            engine.delete(&path("s")).await.unwrap();
            assert!(watch.tail().gone || heard(&mut watch).await);
            let tail = watch.tail();
            assert!(tail.gone, "{store:?}, a fork: {forked}: {tail:?}");
            engine.close().await;
        }
    }
}
