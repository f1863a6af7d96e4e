//! Interleavings of appends, deletions, claims, acks, releases, expiries, deliveries and restarts on the
//! pure state, with what must always hold checked after every step.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]

use std::collections::{BTreeMap, HashMap, HashSet};

use durable_streams_protocol::{
    Offset, StreamId, StreamPath, Timestamp,
    subscription::{
        Ack, CreateRequest, DeliveryOutcome, EndReason, Fence, LinkRecord, RetrySchedule,
        StreamHead, Subscription, SubscriptionEvent, SubscriptionId, TokenClaims, WakeAction,
        WakeId, WakePhase, decode_log, encode_batch,
    },
};
use proptest::prelude::*;

const TTL: u64 = 1_000;

#[derive(Clone, Debug)]
enum Op {
    Append(u8),
    Delete(u8),
    Pass(u16),
    Claim,
    /// A worker of some earlier or the present wake acks; which one, how much, done or not.
    Ack {
        worker: u8,
        share: u8,
        done: bool,
    },
    Release {
        worker: u8,
    },
    /// The post under way ends.
    Answer(u8),
    Announce(bool),
    WakeStreamGone,
    Link(u8),
    Unlink(u8),
    /// An operator stops it, or lets it go on.
    Pause(bool),
    /// An operator does not wait for the retry.
    RetryNow,
    Rewrite,
    Restart,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..4u8).prop_map(Op::Append),
        1 => (0..4u8).prop_map(Op::Delete),
        3 => (0..1500u16).prop_map(Op::Pass),
        3 => Just(Op::Claim),
        4 => (any::<u8>(), any::<u8>(), any::<bool>())
            .prop_map(|(worker, share, done)| Op::Ack { worker, share, done }),
        2 => any::<u8>().prop_map(|worker| Op::Release { worker }),
        4 => (0..4u8).prop_map(Op::Answer),
        3 => any::<bool>().prop_map(Op::Announce),
        1 => Just(Op::WakeStreamGone),
        1 => (0..4u8).prop_map(Op::Link),
        1 => (0..4u8).prop_map(Op::Unlink),
        1 => any::<bool>().prop_map(Op::Pause),
        1 => Just(Op::RetryNow),
        1 => Just(Op::Rewrite),
        1 => Just(Op::Restart),
    ]
}

/// A worker that was given a wake, and what it was shown.
struct Worker {
    claims: TokenClaims,
    seen: Vec<(StreamPath, Offset)>,
}

struct World {
    state: Subscription,
    log: Vec<u8>,
    now: u64,
    streams: BTreeMap<StreamPath, StreamHead>,
    next_id: u64,
    wakes: u8,
    workers: Vec<Worker>,
    /// Generations that somebody was given, to find one given twice.
    held: HashSet<u64>,
    posting: Option<(u64, Vec<LinkRecord>)>,
    posted: HashSet<(u64, u32)>,
    cursors: HashMap<StreamId, Offset>,
    generation: u64,
}

fn path(n: u8) -> StreamPath {
    // The last one is outside the pattern.
    let text = if n == 3 { "other/x".to_owned() } else { format!("events/{n}") };
    StreamPath::new(&text).unwrap()
}

impl World {
    fn new(kind: &str) -> Self {
        let body = format!(
            r#"{{"type":"{kind}","pattern":"events/*","wake_stream":"wake/x","lease_ttl_ms":{TTL},
            "webhook":{{"url":"https://w.example/"}}}}"#
        );
        let config = serde_json::from_str::<CreateRequest>(&body).unwrap().into_config().unwrap();
        let events = vec![
            SubscriptionEvent::Created {
                at: Timestamp::from_millis(0),
                id: SubscriptionId::new("s").unwrap(),
                config,
                base_url: "http://x".into(),
            },
            SubscriptionEvent::Ready,
        ];
        World {
            log: encode_batch(&events),
            state: Subscription::replay(events).unwrap(),
            now: 1,
            streams: BTreeMap::new(),
            next_id: 1,
            wakes: 0,
            workers: Vec::new(),
            held: HashSet::new(),
            posting: None,
            posted: HashSet::new(),
            cursors: HashMap::new(),
            generation: 0,
        }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now)
    }

    fn commit(&mut self, events: Vec<SubscriptionEvent>) {
        self.log.extend(encode_batch(&events));
        events.iter().for_each(|event| self.state.apply(event));
        assert!(self.state.generation() >= self.generation, "generations only grow");
        self.generation = self.state.generation();
        for (path, head) in &self.streams {
            if let Some(link) = self.state.link(path) {
                // Unlinking forgets a cursor; linking again begins at the tail, which is not less.
                let before = self.cursors.insert(head.stream, link.acked());
                assert!(before <= Some(link.acked()), "the cursor of {path} went back");
            } else {
                self.cursors.remove(&head.stream);
            }
        }
    }

    /// What the server does by itself.
    fn settle(&mut self) {
        for _ in 0..20 {
            let id = WakeId::from_random([self.wakes; 12]);
            let events = self.state.poll(self.now(), true, || id, 1 << 31);
            if events.is_empty() {
                let work = self.state.work(self.now());
                if let Some(WakeAction::Post(attempt)) = work
                    && self.posting.is_none()
                    && self.posted.insert((attempt.generation, attempt.failures))
                {
                    self.hand_out(true);
                    let streams = self.state.stream_infos(usize::MAX);
                    let links = streams.iter().filter_map(|info| {
                        let cursor = Some((info.stream?, info.tail_offset));
                        Some(LinkRecord { path: info.path.clone(), explicit: false, cursor })
                    });
                    self.posting = Some((attempt.generation, links.collect()));
                }
                return;
            }
            let sends = |event: &SubscriptionEvent| {
                matches!(
                    event,
                    SubscriptionEvent::Woken { .. } | SubscriptionEvent::Redelivering { .. }
                )
            };
            assert!(!self.state.is_paused() || !events.iter().any(sends), "{events:?}");
            self.wakes = self.wakes.wrapping_add(1);
            let over = events.iter().any(|e| matches!(e, SubscriptionEvent::Ended { .. }));
            self.commit(events);
            if over {
                self.posting = None;
            }
        }
        panic!("what is due never ends");
    }

    /// Somebody is given the present wake.
    fn hand_out(&mut self, again_if_refused: bool) {
        let generation = self.state.generation();
        let first = self.held.insert(generation);
        assert!(first || again_if_refused, "generation {generation} has two holders");
        let claims = TokenClaims {
            tenant: None,
            subscription: self.state.id().clone(),
            generation,
            wake: self.state.wake().unwrap().id.clone(),
            expires: Timestamp::from_millis(u64::MAX),
        };
        let streams = self.state.stream_infos(usize::MAX);
        let seen = streams.into_iter().map(|info| (info.path, info.tail_offset)).collect();
        self.workers.push(Worker { claims, seen });
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::Append(n) => {
                let path = path(n);
                let next = StreamId(self.next_id);
                let head = self.streams.entry(path.clone()).or_insert_with(|| {
                    self.next_id += 1;
                    StreamHead { stream: next, tail: Offset::ZERO }
                });
                head.tail = head.tail.advance(10);
                self.state.observe(&path, Some(*head));
            }
            Op::Delete(n) => {
                self.streams.remove(&path(n));
                self.state.observe(&path(n), None);
            }
            Op::Pass(millis) => self.now += u64::from(millis),
            Op::Claim => {
                if let Ok(events) = self.state.claim("w".into(), self.now()) {
                    self.commit(events);
                    self.hand_out(false);
                }
            }
            Op::Ack { worker, share, done } => self.ack(worker, share, done),
            Op::Release { worker } => {
                let Some(at) = self.pick(worker) else { return };
                let claims = self.workers[at].claims.clone();
                let wake = claims.wake.clone();
                let fence = Fence {
                    claims: &claims,
                    wake_id: wake.as_str(),
                    generation: claims.generation,
                };
                let current = self.is_current(&claims);
                // A refusal changes nothing, which the next step checks.
                if let Ok(events) = self.state.release(fence, self.now()) {
                    assert!(current, "a stale release was taken");
                    self.commit(events);
                }
            }
            Op::Answer(kind) => {
                let Some((generation, links)) = self.posting.take() else { return };
                let delivered = match kind {
                    0 => DeliveryOutcome::Done(links),
                    1 => DeliveryOutcome::Accepted,
                    2 => DeliveryOutcome::Refused,
                    _ => DeliveryOutcome::Unknown,
                };
                let events = self.state.posted(generation, delivered, self.now(), 0);
                self.commit(events);
            }
            Op::Announce(done) => {
                let generation = self.state.generation();
                let events = self.state.announced(generation, done, self.now(), 0);
                self.commit(events);
            }
            Op::WakeStreamGone => {
                let events = self.state.wake_stream_gone(self.now(), 0);
                self.commit(events);
            }
            Op::Link(n) => {
                let head = self.streams.get(&path(n)).copied();
                let events = self.state.link_explicit(&[(path(n), head)]);
                self.commit(events);
                self.state.observe(&path(n), head);
            }
            Op::Unlink(n) => {
                let events = self.state.unlink(&path(n));
                self.commit(events);
                self.state.observe(&path(n), self.streams.get(&path(n)).copied());
            }
            Op::Pause(pause) => {
                let events = self.state.pause(pause);
                self.commit(events);
            }
            Op::RetryNow => {
                let (before, events) = (self.state.retry(), self.state.retry_now(self.now()));
                self.commit(events);
                let failures = |retry: Option<RetrySchedule>| retry.map(|retry| retry.failures);
                assert_eq!(failures(self.state.retry()), failures(before));
            }
            Op::Rewrite => self.log = encode_batch(&self.state.rewritten()),
            Op::Restart => self.restart(),
        }
    }

    fn restart(&mut self) {
        let mut state = Subscription::replay(decode_log(&self.log).unwrap()).unwrap();
        for (path, head) in &self.streams {
            state.observe(path, Some(*head));
        }
        let gone: Vec<_> =
            state.linked_paths().filter(|p| !self.streams.contains_key(*p)).cloned().collect();
        gone.iter().for_each(|path| state.observe(path, None));
        assert_eq!(normal(&state), normal(&self.state), "the log and the streams say it all");
        self.state = state;
        self.posting = None;
        let events = self.state.recovered();
        self.commit(events);
    }

    fn pick(&self, worker: u8) -> Option<usize> {
        // Mostly the latest, sometimes one of old.
        let last = self.workers.len().checked_sub(1)?;
        Some(if worker < 192 { last } else { usize::from(worker) % (last + 1) })
    }

    fn is_current(&self, claims: &TokenClaims) -> bool {
        self.state.wake().is_some_and(|wake| {
            wake.id == claims.wake && wake.lease_until.is_none_or(|until| until > self.now())
        }) && claims.generation == self.state.generation()
    }

    fn ack(&mut self, worker: u8, share: u8, done: bool) {
        let Some(at) = self.pick(worker) else { return };
        let claims = self.workers[at].claims.clone();
        let all = &self.workers[at].seen;
        let some = all.iter().take(usize::from(share) % (all.len() + 1));
        let acks: Vec<Ack> = some
            .map(|(path, offset)| Ack { stream: path.to_string(), offset: offset.to_string() })
            .collect();
        let wake = claims.wake.clone();
        let fence =
            Fence { claims: &claims, wake_id: wake.as_str(), generation: claims.generation };
        let current = self.is_current(&claims);
        if let Ok(events) = self.state.ack(fence, &acks, done, self.now()) {
            assert!(current, "a stale ack was taken");
            self.commit(events);
            if done {
                self.posting = None;
            }
        }
    }

    fn check(&self) {
        let pending: Vec<_> = self
            .streams
            .iter()
            .filter(|(path, _)| self.state.link(path).is_some_and(|link| link.is_pending()))
            .map(|(path, _)| path.clone())
            .collect();
        assert_eq!(
            self.state.has_pending(),
            !pending.is_empty(),
            "pending is what the streams say"
        );
        assert_eq!(self.state.first_pending(), pending.first());
        for path in self.streams.keys().filter(|path| path.as_str().starts_with("events/")) {
            assert!(self.state.link(path).is_some(), "{path} matches and must be linked");
        }
        if !pending.is_empty() && !self.state.is_paused() {
            // Something is on its way, or will be at a time that is known.
            let wake = self.state.wake().map(|wake| &wake.phase);
            let waits_for_worker = matches!(wake, Some(WakePhase::Announced));
            let busy = self.posting.is_some() || self.state.work(self.now()).is_some();
            assert!(
                waits_for_worker || busy || self.state.deadline().is_some(),
                "pending work leads nowhere: {wake:?}"
            );
        }
    }

    /// Let time pass with a worker that does its work: everything must be acked in the end.
    fn drain(&mut self) {
        self.step(Op::Pause(false));
        for _ in 0..200 {
            self.settle();
            if !self.state.has_pending() {
                return;
            }
            self.now += 70_000;
            self.settle();
            self.step(Op::Announce(true));
            self.step(Op::Claim);
            self.step(Op::Answer(0));
            self.step(Op::Ack { worker: 0, share: u8::MAX, done: false });
            let all = self.workers.last().map_or(0, |worker| worker.seen.len());
            self.step(Op::Ack { worker: 0, share: all as u8, done: true });
        }
        panic!("work was never done");
    }
}

/// Without links that only say that nothing is there.
fn normal(state: &Subscription) -> String {
    let links: Vec<_> = state.link_infos(None, usize::MAX);
    format!(
        "{links:?} {:?} {:?} {:?} {:?} {:?}",
        state.stream_infos(usize::MAX),
        state.generation(),
        state.wake(),
        state.retry(),
        state.is_paused()
    )
}

fn play(kind: &str, ops: Vec<Op>) {
    let mut world = World::new(kind);
    for op in ops {
        world.step(op);
        world.settle();
        world.check();
    }
    world.drain();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn pull_wake_never_loses_work_nor_shares_a_generation(ops in prop::collection::vec(op(), 0..60)) {
        play("pull-wake", ops);
    }

    #[test]
    fn webhooks_never_lose_work_nor_share_a_generation(ops in prop::collection::vec(op(), 0..60)) {
        play("webhook", ops);
    }
}

#[test]
fn a_webhook_without_an_answer_is_retried_under_a_new_generation() {
    let mut world = World::new("webhook");
    world.step(Op::Append(0));
    world.settle();
    let first = world.state.generation();
    world.step(Op::Answer(3));
    world.settle();
    assert_eq!(world.state.status(), "failed");
    assert_eq!(world.state.generation(), first, "not before the pause is over");
    let stale = world.workers[0].claims.clone();
    world.now += 999;
    world.settle();
    assert_eq!(world.state.generation(), first + 1);
    let fence = Fence { claims: &stale, wake_id: stale.wake.as_str(), generation: first };
    assert_eq!(
        world.state.ack(fence, &[], true, world.now()).unwrap_err().code(),
        "FENCED",
        "whoever had the first is fenced"
    );
}

#[test]
fn a_retry_that_is_asked_for_is_due_at_once() {
    for (answer, generations) in [(2, 0), (3, 1)] {
        let mut world = World::new("webhook");
        world.step(Op::Append(0));
        world.settle();
        let before = world.state.generation();
        world.step(Op::Answer(answer));
        world.settle();
        assert!(world.posting.is_none(), "it waits for its retry");
        world.step(Op::RetryNow);
        world.settle();
        assert!(world.posting.is_some());
        assert_eq!(world.state.generation(), before + generations);
        assert_eq!(world.state.lag(), (1, 10));
    }
}

#[test]
fn a_refused_webhook_is_retried_as_the_same_wake() {
    let mut world = World::new("webhook");
    world.step(Op::Append(0));
    world.settle();
    let (generation, wake) = (world.state.generation(), world.state.wake().unwrap().id.clone());
    world.step(Op::Answer(2));
    world.now += 900;
    world.settle();
    assert_eq!((world.state.generation(), &world.state.wake().unwrap().id), (generation, &wake));
    let lease = world.state.wake().unwrap().lease_until.unwrap();
    assert_eq!(lease.millis(), world.now + TTL, "its lease begins anew");
}

#[test]
fn a_lease_ends_to_the_millisecond() {
    let mut world = World::new("pull-wake");
    world.step(Op::Append(0));
    world.settle();
    world.step(Op::Claim);
    let claims = world.workers[0].claims.clone();
    let fence = Fence { claims: &claims, wake_id: claims.wake.as_str(), generation: 1 };
    world.now += TTL - 1;
    assert!(world.state.ack(fence, &[], false, world.now()).is_ok());
    world.now += 1;
    assert_eq!(world.state.ack(fence, &[], false, world.now()).unwrap_err().code(), "FENCED");
    let events = world.state.poll(world.now(), true, || WakeId::from_random([9; 12]), 0);
    assert_eq!(events, [SubscriptionEvent::Ended { reason: EndReason::Expired }]);
}

#[test]
fn stored_deadlines_are_bounded_by_their_own_length() {
    let far = Timestamp::from_millis(10_000_000);
    let now = Timestamp::from_millis(1_000);
    let mut world = World::new("webhook");
    let wake_id = WakeId::from_random([1; 12]);
    world.commit(vec![SubscriptionEvent::Woken { generation: 1, wake_id, lease_until: Some(far) }]);
    assert_eq!(world.state.deadline(), Some(far));
    world.state.bound_deadlines(now);
    assert_eq!(world.state.deadline(), Some(Timestamp::from_millis(1_000 + TTL)));
    let mut world = World::new("pull-wake");
    let wake_id = WakeId::from_random([1; 12]);
    world.commit(vec![SubscriptionEvent::Woken { generation: 1, wake_id, lease_until: None }]);
    let retry = RetrySchedule { failures: 1, at: far };
    world.commit(vec![SubscriptionEvent::AnnounceFailed { retry }]);
    assert_eq!(world.state.deadline(), Some(far));
    world.state.bound_deadlines(now);
    assert_eq!(world.state.deadline(), Some(Timestamp::from_millis(73_000)));
    let before = world.state.deadline();
    world.state.bound_deadlines(far);
    assert_eq!(world.state.deadline(), before, "an earlier one stays");
}
