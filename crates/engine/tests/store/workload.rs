//! Random events that make sense, from a seed.

use bytes::Bytes;
use durable_streams_engine::store::{AnyStore, Store};
use durable_streams_protocol::{
    ContentType, Decision, Expiry, ForkPoint, Offset, StreamEvent, StreamId,
};

use super::harness::{Model, appended, at, created, producer, stream_seq};

/// SplitMix64: small, and the same everywhere.
#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// The next event, given everything decided so far.
pub fn next_event(rng: &mut Rng, model: &Model, store: &AnyStore) -> (StreamId, StreamEvent) {
    let ids: Vec<StreamId> = model.streams.keys().copied().collect();
    let kind = rng.below(24);
    if ids.is_empty() || kind < 4 {
        return (store.next_id(), create(rng, model, &ids));
    }
    let id = ids[rng.below(ids.len() as u64) as usize];
    // What brings a deadline forward is found after the next checkpoint only.
    let time = rng.below(1000).max(model.streams[&id].0.touched.millis());
    let event = match kind {
        4 if model.forks(id).is_empty() => StreamEvent::Deleted { at: at(time) },
        5 => StreamEvent::SoftDeleted { at: at(time) },
        6 => StreamEvent::Touched { at: at(time) },
        7 | 8 => trim(rng, model, id, time),
        9 => StreamEvent::ExpiryChanged { at: at(time), expiry: expiry(rng) },
        10 => StreamEvent::Marked { at: at(time) },
        _ => append(rng, model, id, time),
    };
    (id, event)
}

fn data(rng: &mut Rng) -> Bytes {
    let len = match rng.below(30) {
        0 => rng.below(20_000),
        1..4 => 0,
        _ => rng.below(300),
    };
    let seed = rng.next();
    (0..len).map(|n| (seed.rotate_left(n as u32 % 64) ^ n) as u8).collect()
}

/// A trim where an append ends.
fn trim(rng: &mut Rng, model: &Model, id: StreamId, time: u64) -> StreamEvent {
    let (state, _) = &model.streams[&id];
    let ends = model.ends.get(&id).map_or(&[][..], |ends| ends);
    let later: Vec<u64> =
        ends.iter().copied().filter(|end| *end >= state.earliest.position()).collect();
    let forks = !model.forks(id).is_empty();
    let before = match later.len() {
        0 => state.earliest,
        some => Offset::new(later[rng.below(some as u64) as usize]),
    };
    match state.trim(before, None, forks, at(time)) {
        Ok(Decision::Commit(event, _)) => event,
        _ => StreamEvent::Touched { at: at(time) },
    }
}

fn expiry(rng: &mut Rng) -> Expiry {
    match rng.below(3) {
        0 => Expiry::Never,
        1 => Expiry::Ttl(rng.below(2)),
        _ => Expiry::At(at(rng.below(2000))),
    }
}

fn append(rng: &mut Rng, model: &Model, id: StreamId, time: u64) -> StreamEvent {
    let mut event = appended(&data(rng));
    event.at = at(time);
    let (state, _) = &model.streams[&id];
    if rng.below(2) == 0 {
        let name = format!("p{}", rng.below(4));
        let known = state.producers.iter().find(|(id, _)| id.as_str() == name);
        let seq = known.map_or(0, |(_, known)| known.last_seq + 1);
        event.producer = Some(producer(&name, 1, seq));
    }
    if rng.below(4) == 0 {
        event.stream_seq = Some(stream_seq(&format!("{:020}", rng.next())));
    }
    event.close = rng.below(10) == 0;
    StreamEvent::Appended(event)
}

fn create(rng: &mut Rng, model: &Model, ids: &[StreamId]) -> StreamEvent {
    let free =
        |text: &String| !model.streams.values().any(|(state, _)| state.core.path.as_str() == text);
    let path = loop {
        let n = rng.below(1000);
        let text = if n < 100 { format!("{}{n}", "long".repeat(200)) } else { format!("s/{n}") };
        if free(&text) {
            break text;
        }
    };
    let mut event = created(&path, "");
    event.data = data(rng);
    event.incarnation = rng.below(3);
    if rng.below(4) == 0 {
        event.content_type = ContentType::parse("application/json").unwrap();
    }
    event.expiry = expiry(rng);
    if !ids.is_empty() && rng.below(3) == 0 {
        let (source, _) = &model.streams[&ids[rng.below(ids.len() as u64) as usize]];
        let position = Offset::new(rng.below(source.tail.position() + 1)).max(source.earliest);
        event.earliest = source.earliest;
        event.fork = Some(ForkPoint {
            source: source.core.id,
            source_path: source.core.path.clone(),
            position,
            requested: None,
            sub_offset: 0,
            ancestors: source.core.ancestors_up_to(position),
        });
    }
    StreamEvent::Created(Box::new(event))
}
