//! A stream of many producers: an append loads the record of its own producer, and no other.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use durable_streams_engine::store::{
    AnyStore, Commit, EventPlace, FileStore, Store, file::disk::RealDisk,
};
use durable_streams_engine::{Clock, Engine, EngineLimits};
use durable_streams_protocol::{Append, AppendOutcome, ContentType, Rejection, StreamEvent};

use crate::harness::*;

/// Counts the bytes that each thread holds.
struct CountingAllocator;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends may allocate after its thread-local values are gone.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

#[expect(unsafe_code, reason = "an allocator is an unsafe trait")]
// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const PRODUCERS: usize = 10_000;

fn name(n: usize) -> String {
    format!("5c0f8d2e-9a41-4a52-b9a5-{n:012}")
}

/// A store without threads, whose index has a stream of many producers.
fn store(dir: &tempfile::TempDir) -> AnyStore {
    let store = FileStore::open_on(Arc::new(RealDisk), options(dir.path())).unwrap();
    let (id, sink) = (store.next_id(), Arc::new(Sink::default()));
    let mut place = EventPlace::default();
    for n in 0..=PRODUCERS {
        let event = if n == 0 {
            StreamEvent::Created(Box::new(created("s", "")))
        } else {
            let mut event = appended(b"x");
            event.producer = Some(producer(&name(n), 4, 0));
            StreamEvent::Appended(event)
        };
        let next = place.after(&event);
        let (epoch, version) = (store.epoch(), n as u64);
        store.commit(Commit { id, event, place, epoch, version, sink: sink.clone() }).unwrap();
        place = next;
    }
    while store.step() {}
    sink.wait_for(PRODUCERS as u64).unwrap();
    store.checkpoint().unwrap();
    AnyStore::File(store)
}

fn append(engine: &Engine, n: usize, epoch: u64, seq: u64) -> Result<AppendOutcome, Rejection> {
    let append = Append {
        content_type: Some(Ok(ContentType::default())),
        producer: Some(producer(&name(n), epoch, seq)),
        ..Append::default()
    };
    let path = path("s");
    let mut appended = pin!(engine.append(&path, &append, Bytes::from_static(b"y")));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..64 {
        if let Poll::Ready(done) = appended.as_mut().poll(&mut context) {
            return done;
        }
        let AnyStore::File(file) = engine.store() else { panic!("a file store") };
        file.step();
    }
    panic!("the append does not end");
}

#[test]
fn an_append_loads_its_own_producer_only() {
    let dir = tempdir();
    let engine = Engine::new(store(&dir), Clock::System, EngineLimits::default());
    let before = HELD.get();
    MOST.set(before);
    assert!(append(&engine, 17, 4, 1).unwrap().added);
    assert!(!append(&engine, 17, 4, 1).unwrap().added, "a retry");
    let (held, most) = (HELD.get() - before, MOST.get() - before);
    println!("one of {PRODUCERS} producers: {held} bytes, at most {most} meanwhile");
    assert!(held < 16 << 10 && most < 64 << 10, "{held} bytes, {most} meanwhile");

    assert!(!append(&engine, 18, 4, 0).unwrap().added, "in the index");
    assert_eq!(append(&engine, 19, 3, 0).unwrap_err().code(), "stale-epoch");
    assert_eq!(append(&engine, PRODUCERS + 1, 0, 100).unwrap_err().code(), "sequence-gap");
    assert!(append(&engine, PRODUCERS + 1, 0, 0).unwrap().added, "a new one");
    for n in 1..=PRODUCERS {
        assert_eq!(append(&engine, n, 4, 0).map(|done| done.added), Ok(false), "{n}");
    }
    let held = HELD.get() - before;
    println!("after appends of all: {held} bytes");
    assert!(held < 512 << 10, "{held} bytes");
    let listed = wait(engine.producers(&path("s"), None, usize::MAX)).unwrap().producers;
    assert_eq!(listed.len(), PRODUCERS + 1);
    assert!(listed.is_sorted_by_key(|(id, _)| id.clone()));
}
