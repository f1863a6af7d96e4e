//! What readers see of a stream while its removal, or an access to it, is on its way to the disk.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
};

use bytes::Bytes;
use durable_streams_engine::store::{AnyStore, FileStore};
use durable_streams_engine::{Clock, Engine, EngineLimits, ManualClock};
use durable_streams_protocol::{Create, Expiry, Rejection};

use crate::{fault_disk::FaultDisk, harness::*};

/// An engine whose events become durable when `step` is called, with one stream that lives 10 seconds.
fn engine(dir: &tempfile::TempDir, disk: &FaultDisk, clock: &ManualClock) -> Engine {
    let store = FileStore::open_on(Arc::new(disk.clone()), options(dir.path())).unwrap();
    Engine::new(AnyStore::File(store), Clock::Manual(clock.clone()), EngineLimits::default())
}

fn step(engine: &Engine) -> bool {
    let AnyStore::File(file) = engine.store() else { panic!("a file store") };
    file.step()
}

/// Polls once; gives the output if there is one.
fn poll<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

fn with_ttl(engine: &Engine) {
    let create = Create { expiry: Expiry::Ttl(10), ..Create::default() };
    let path = path("s");
    let mut created = pin!(engine.create(&path, &create, Bytes::new()));
    let mut context = Context::from_waker(Waker::noop());
    assert!(created.as_mut().poll(&mut context).is_pending());
    assert!(step(engine));
    assert!(created.as_mut().poll(&mut context).is_ready());
}

#[test]
fn an_expired_stream_is_gone_while_its_removal_is_on_its_way() {
    let (dir, disk, clock) = (tempdir(), FaultDisk::default(), ManualClock::at(at(1_000)));
    let engine = engine(&dir, &disk, &clock);
    with_ttl(&engine);
    assert!(wait(engine.head(&path("s"))).is_ok());
    clock.advance_millis(10_000);
    assert_eq!(wait(engine.head(&path("s"))).unwrap_err(), Rejection::NotFound);
    assert!(poll(engine.sweep_due()).is_none(), "its removal waits for the disk");
    assert_eq!(wait(engine.head(&path("s"))).unwrap_err(), Rejection::NotFound);
    assert_eq!(wait(engine.open(&path("s"))).unwrap_err(), Rejection::NotFound);
    assert!(step(&engine));
    assert_eq!(wait(engine.head(&path("s"))).unwrap_err(), Rejection::NotFound);
}

#[test]
fn a_stream_that_is_deleted_is_there_until_that_is_durable() {
    let (dir, disk, clock) = (tempdir(), FaultDisk::default(), ManualClock::at(at(1_000)));
    let engine = engine(&dir, &disk, &clock);
    with_ttl(&engine);
    assert!(poll(engine.delete(&path("s"))).is_none(), "it waits for the disk");
    assert!(wait(engine.head(&path("s"))).is_ok());
    assert!(step(&engine));
    assert_eq!(wait(engine.head(&path("s"))).unwrap_err(), Rejection::NotFound);
}

#[test]
fn a_read_that_pushes_an_expiry_back_survives_the_crash_after_its_answer() {
    let (dir, disk, clock) = (tempdir(), FaultDisk::default(), ManualClock::at(at(1_000)));
    {
        let engine = engine(&dir, &disk, &clock);
        with_ttl(&engine);
        clock.advance_millis(9_000);
        let path = path("s");
        let mut read = pin!(engine.open(&path));
        let mut context = Context::from_waker(Waker::noop());
        assert!(read.as_mut().poll(&mut context).is_pending(), "answered before it is stored");
        assert!(step(&engine));
        assert!(read.as_mut().poll(&mut context).is_ready());
        // Another one soon after costs nothing.
        clock.advance_millis(900);
        assert!(poll(engine.open(&path)).is_some_and(|read| read.is_ok()));
        assert!(!step(&engine));
    }
    let disk = disk.after_power_cut(&mut crate::workload::Rng(1));
    let engine = engine(&dir, &disk, &clock);
    clock.advance_millis(9_000);
    assert!(wait(engine.head(&path("s"))).is_ok(), "the access before the crash counts");
    clock.advance_millis(1_000);
    assert_eq!(wait(engine.head(&path("s"))).unwrap_err(), Rejection::NotFound);
}
