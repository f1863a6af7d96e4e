//! Limits on what is under way at once, and what is counted against them.

use durable_streams_engine::store::{AnyStore, MemoryStore};
use durable_streams_engine::{Clock, Engine, EngineLimits};
use durable_streams_protocol::Rejection;

fn engine(limits: EngineLimits) -> Engine {
    Engine::new(AnyStore::Memory(MemoryStore::default()), Clock::System, limits)
}

#[test]
fn bodies_under_way_have_a_limit_together_and_give_back_what_they_held() {
    let engine = engine(EngineLimits { max_inflight_append: 100, ..EngineLimits::default() });
    let held = || engine.stats().inflight_append_bytes;
    let mut body = engine.append_permit(60).unwrap();
    assert_eq!((engine.append_room(40), body.units()), (Ok(()), 60));
    assert_eq!(engine.append_room(41), Err(Rejection::TooManyAppends));
    assert_eq!(held(), 60, "a question takes nothing");
    assert_eq!(engine.append_permit(41).unwrap_err(), Rejection::TooManyAppends);
    assert_eq!(held(), 60, "nor does what is refused");
    assert_eq!(engine.grow_append_permit(&mut body, 40), Ok(()));
    assert_eq!((held(), body.units()), (100, 100));
    assert_eq!(engine.append_room(1), Err(Rejection::TooManyAppends));
    // Its bytes are there already. They count until the body is dropped.
    let refused = engine.grow_append_permit(&mut body, 5);
    assert_eq!((refused, body.units()), (Err(Rejection::TooManyAppends), 105));
    drop(body);
    assert_eq!(held(), 0);
}

#[test]
fn live_readers_have_a_limit_together() {
    let engine = engine(EngineLimits { max_live_readers: 2, ..EngineLimits::default() });
    let (one, _other) = (engine.live_permit().unwrap(), engine.live_permit().unwrap());
    let refused = Rejection::TooManyReaders { limit: 2 };
    assert_eq!(engine.live_permit().unwrap_err(), refused);
    assert_eq!(engine.stats().live_readers, 2);
    drop(one);
    let _next = engine.live_permit().unwrap();
    assert_eq!(engine.live_permit().unwrap_err(), refused);
}
