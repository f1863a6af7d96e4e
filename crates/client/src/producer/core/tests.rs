//! The producer against a model of the server's rules (§5.2.1), over a network that loses, doubles and reorders.

use std::time::Duration;

use durable_streams_protocol::{Producer, ProducerAdmission, ProducerState};
use proptest::prelude::*;

use super::*;

/// A stream as the server keeps it: `Producer::admit` is the server's own judgement.
#[derive(Default)]
struct ModelStream {
    producer: Option<ProducerState>,
    messages: Vec<u32>,
    closed_by: Option<(u64, u64)>,
}

impl ModelStream {
    fn receive(&mut self, request: &BatchRequest) -> BatchResponse {
        let id = ProducerId::new("p").unwrap();
        let producer = Producer { id, epoch: request.epoch, seq: request.seq };
        let tuple = (producer.epoch, producer.seq);
        if let Some(closed_by) = self.closed_by {
            return if closed_by == tuple {
                accepted()
            } else {
                BatchResponse::Failed(refused(409))
            };
        }
        match producer.admit(self.producer) {
            ProducerAdmission::Accept => {
                self.producer =
                    Some(ProducerState { epoch: producer.epoch, last_seq: producer.seq });
                if !request.body.is_empty() {
                    self.messages
                        .extend(serde_json::from_slice::<Vec<u32>>(&request.body).unwrap());
                }
                self.closed_by = request.close.then_some(tuple);
                accepted()
            }
            ProducerAdmission::Duplicate(_) => accepted(),
            ProducerAdmission::StaleEpoch { current } => BatchResponse::StaleEpoch { current },
            ProducerAdmission::Gap { expected } => BatchResponse::Gap { expected },
            ProducerAdmission::EpochMustStartAtZero => BatchResponse::Failed(refused(400)),
        }
    }
}

fn accepted() -> BatchResponse {
    BatchResponse::Accepted { offset: StreamOffset::new("7").unwrap() }
}

fn refused(status: u16) -> ClientError {
    ClientError::Refused(Box::new(crate::error::RefusedRequest {
        url: String::new(),
        status: http::StatusCode::from_u16(status).unwrap(),
        code: String::new(),
        detail: String::new(),
        retry_after: None,
        closed: false,
        next_offset: None,
        producer_epoch: None,
        expected_seq: None,
    }))
}

fn lost() -> BatchResponse {
    let reason = "lost".to_owned();
    BatchResponse::Failed(ClientError::Transport { url: String::new(), reason, unsent: false })
}

fn core(epoch: Option<u64>, max_in_flight: usize) -> ProducerCore {
    ProducerCore::new(CoreOptions {
        id: ProducerId::new("p").unwrap(),
        epoch,
        first_seq: 0,
        json: true,
        linger: Duration::from_millis(5),
        max_batch: 12,
        max_batch_messages: 9,
        max_in_flight,
        retry: RetryPolicy::forever(),
    })
}

/// What happens next between the producer and the server.
#[derive(Clone, Copy, Debug)]
enum NetworkStep {
    Push,
    Send,
    /// The request at this place arrives, and its response.
    Deliver(usize),
    /// It arrives twice.
    DeliverTwice(usize),
    /// It never arrives.
    LoseRequest(usize),
    /// It arrives; the response does not.
    LoseResponse(usize),
    /// It arrives now, and its response later.
    Receive(usize),
    /// The server refuses it as it is overloaded.
    Overload(usize),
    Wait,
    Flush,
    CloseStream,
}

fn a_step() -> impl Strategy<Value = NetworkStep> {
    prop_oneof![
        4 => Just(NetworkStep::Push),
        4 => Just(NetworkStep::Send),
        4 => (0..4usize).prop_map(NetworkStep::Deliver),
        1 => (0..4usize).prop_map(NetworkStep::DeliverTwice),
        1 => (0..4usize).prop_map(NetworkStep::LoseRequest),
        1 => (0..4usize).prop_map(NetworkStep::LoseResponse),
        2 => (0..4usize).prop_map(NetworkStep::Receive),
        1 => (0..4usize).prop_map(NetworkStep::Overload),
        2 => Just(NetworkStep::Wait),
        1 => Just(NetworkStep::Flush),
        1 => Just(NetworkStep::CloseStream),
    ]
}

/// A producer, a server, and the requests and responses between them.
struct World {
    core: ProducerCore,
    server: ModelStream,
    now: Instant,
    /// With the response, once the server has received it.
    on_the_way: Vec<(BatchRequest, Option<BatchResponse>)>,
    pushed: u32,
    outcomes: Vec<PendingOutcome>,
}

impl World {
    fn new(core: ProducerCore, server: ModelStream) -> Self {
        World {
            core,
            server,
            now: Instant::now(),
            on_the_way: Vec::new(),
            pushed: 0,
            outcomes: Vec::new(),
        }
    }

    fn step(&mut self, step: NetworkStep) {
        let place = |at: usize, len: usize| if len == 0 { None } else { Some(at % len) };
        let len = self.on_the_way.len();
        match step {
            NetworkStep::Push => {
                let message = self.pushed.to_string();
                if let Ok(outcome) = self.core.push(message.as_bytes(), self.now) {
                    self.pushed += 1;
                    self.outcomes.push(outcome);
                }
            }
            NetworkStep::Send => {
                if let Some(request) = self.core.next_request(self.now) {
                    self.on_the_way.push((request, None));
                }
            }
            NetworkStep::Wait => self.now += Duration::from_secs(10),
            NetworkStep::Flush => drop(self.core.flush()),
            // Late, so that most messages come before it.
            NetworkStep::CloseStream if self.pushed < 12 => {}
            NetworkStep::CloseStream => drop(self.core.close_stream()),
            NetworkStep::Receive(at) => {
                let Some(at) = place(at, len) else { return };
                if self.on_the_way[at].1.is_none() {
                    self.on_the_way[at].1 = Some(self.server.receive(&self.on_the_way[at].0));
                }
            }
            NetworkStep::Deliver(at) | NetworkStep::DeliverTwice(at) => {
                let Some(at) = place(at, len) else { return };
                let (request, response) = self.on_the_way.remove(at);
                let mut response = response.unwrap_or_else(|| self.server.receive(&request));
                if matches!(step, NetworkStep::DeliverTwice(_)) {
                    response = self.server.receive(&request);
                }
                self.core.take(&request, response);
            }
            NetworkStep::LoseRequest(at) | NetworkStep::LoseResponse(at) => {
                let Some(at) = place(at, len) else { return };
                let (request, response) = self.on_the_way.remove(at);
                if matches!(step, NetworkStep::LoseResponse(_)) && response.is_none() {
                    self.server.receive(&request);
                }
                self.core.take(&request, lost());
            }
            NetworkStep::Overload(at) => {
                let Some(at) = place(at, len) else { return };
                let (request, response) = self.on_the_way.remove(at);
                let response = response.unwrap_or_else(|| BatchResponse::Failed(refused(503)));
                self.core.take(&request, response);
            }
        }
    }

    /// A good network from here on.
    fn settle(&mut self) {
        for _ in 0..1000 {
            self.step(NetworkStep::Wait);
            self.step(NetworkStep::Send);
            self.step(NetworkStep::Deliver(0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn every_message_is_stored_once_and_in_order(
        steps in proptest::collection::vec(a_step(), 0..150),
        epoch in prop_oneof![Just(None), Just(Some(3))],
        earlier in proptest::option::of((0..3u64, 0..5u64)),
        max_in_flight in 1..4usize,
    ) {
        let producer = earlier.map(|(epoch, last_seq)| ProducerState { epoch, last_seq });
        let server = ModelStream { producer, ..ModelStream::default() };
        let mut world = World::new(core(epoch, max_in_flight), server);
        for step in steps {
            world.step(step);
            let expected: Vec<u32> = (0..world.server.messages.len() as u32).collect();
            prop_assert_eq!(&world.server.messages, &expected, "in order, none twice");
        }
        world.settle();
        prop_assert_eq!(world.server.messages.len() as u32, world.pushed, "none is lost");
        prop_assert_eq!(world.core.unacknowledged(), 0);
        for outcome in &world.outcomes {
            prop_assert!(matches!(outcome.known(), Some(Ok(_))));
        }
    }

    #[test]
    fn a_fenced_producer_stops_and_stores_nothing_more(
        before in proptest::collection::vec(a_step(), 0..60),
        after in proptest::collection::vec(a_step(), 0..60),
    ) {
        let open = |step: &NetworkStep| !matches!(step, NetworkStep::CloseStream);
        let (before, after) = (before.into_iter().filter(open), after.into_iter().filter(open));
        let mut world = World::new(core(Some(3), 3), ModelStream::default());
        before.for_each(|step| world.step(step));
        let stored = world.server.messages.len();
        let acknowledged =
            world.outcomes.iter().filter(|outcome| matches!(outcome.known(), Some(Ok(_)))).count();
        prop_assert!(acknowledged <= stored);
        world.server.producer = Some(ProducerState { epoch: 9, last_seq: 0 });
        after.for_each(|step| world.step(step));
        world.step(NetworkStep::Push);
        world.settle();
        prop_assert_eq!(world.server.messages.len(), stored, "the fence holds");
        let error = world.core.check_open().unwrap_err();
        let fenced = matches!(error, ProducerError::Fenced { epoch: 3, current: 9, .. });
        prop_assert!(fenced, "{}", error);
        for (number, outcome) in world.outcomes.iter().enumerate() {
            match outcome.known() {
                Some(Ok(_)) => prop_assert!(number < stored, "{} is acknowledged but not stored", number),
                Some(Err(error)) => {
                    let fenced = matches!(error, ProducerError::Fenced { .. });
                    prop_assert!(fenced, "{}", error);
                }
                None => prop_assert!(false, "message {} has no outcome", number),
            }
        }
    }
}

/// Sends everything that may be sent now.
fn requests(core: &mut ProducerCore, now: Instant) -> Vec<BatchRequest> {
    std::iter::from_fn(|| core.next_request(now)).collect()
}

#[test]
fn batches_wait_for_size_linger_or_a_flush() {
    let mut core = core(Some(0), 2);
    let now = Instant::now();
    core.push(b"1", now).unwrap();
    assert_eq!(requests(&mut core, now), []);
    assert_eq!(core.next_time(), Some(now + Duration::from_millis(5)));
    let sent = requests(&mut core, now + Duration::from_millis(5));
    assert_eq!(sent[0].body, "[1]");
    core.push(b"2", now).unwrap();
    core.flush().unwrap();
    assert_eq!(requests(&mut core, now), [], "the first batch of an epoch goes alone");
    core.take(&sent[0], accepted());
    assert_eq!(requests(&mut core, now)[0].body, "[2]");
    core.push(b"333333", now).unwrap();
    core.push(b"444444", now).unwrap();
    let sent = requests(&mut core, now);
    assert_eq!((sent.len(), &sent[0].body[..]), (1, &b"[333333]"[..]), "the next would not fit");
}

#[test]
fn a_gap_is_sent_again_after_what_came_before() {
    let mut core = core(Some(0), 3);
    let now = Instant::now();
    let batch = |core: &mut ProducerCore, text: &[u8]| {
        core.push(text, now).unwrap();
        core.flush().unwrap();
        requests(core, now)
    };
    let first = batch(&mut core, b"1");
    core.take(&first[0], accepted());
    let second = batch(&mut core, b"2");
    let third = batch(&mut core, b"3");
    core.take(&third[0], BatchResponse::Gap { expected: 1 });
    assert_eq!(requests(&mut core, now), third, "at once: the second is on its way");
    core.take(&third[0], BatchResponse::Gap { expected: 1 });
    assert_eq!(requests(&mut core, now), [], "after the second refusal it waits");
    core.take(&second[0], accepted());
    assert_eq!(requests(&mut core, now), third, "the same bytes with the same number");
    core.take(&third[0], accepted());

    // The batch before it was accepted after the refusal, but is acknowledged before it arrives.
    let [fourth, fifth] = [b"4", b"5"].map(|text| batch(&mut core, text));
    core.take(&fourth[0], accepted());
    core.take(&fifth[0], BatchResponse::Gap { expected: 3 });
    let third = requests(&mut core, now);
    assert_eq!(third, fifth, "at once, without counting as a failure");
    core.take(&third[0], BatchResponse::Gap { expected: 1 });
    let error = core.check_open().unwrap_err();
    assert!(
        matches!(error, ProducerError::ServerLostBatches { expected: 1, acknowledged: 4 }),
        "{error}"
    );
}

#[test]
fn an_epoch_is_claimed_above_the_newest() {
    for (known, least, most) in [
        (None, 0, 0),
        (Some(ProducerState { epoch: 0, last_seq: 4 }), 1, CLAIM_SPREAD),
        (Some(ProducerState { epoch: 7, last_seq: 0 }), 8, 7 + CLAIM_SPREAD),
    ] {
        let mut server = ModelStream { producer: known, ..ModelStream::default() };
        let mut core = core(None, 3);
        let now = Instant::now();
        core.push(b"5", now).unwrap();
        core.flush().unwrap();
        for _ in 0..2 {
            for request in requests(&mut core, now) {
                let response = server.receive(&request);
                core.take(&request, response);
            }
        }
        assert_eq!(server.messages, [5]);
        let epoch = server.producer.unwrap().epoch;
        assert!((least..=most).contains(&epoch), "{known:?}: {epoch}");
    }
}

#[test]
fn a_final_refusal_fails_every_message_that_is_not_acknowledged() {
    let mut core = core(Some(0), 1);
    let now = Instant::now();
    let outcomes = [b"1", b"2"].map(|message| core.push(message, now).unwrap());
    core.flush().unwrap();
    let sent = requests(&mut core, now);
    let later = core.push(b"3", now).unwrap();
    assert_eq!(core.take(&sent[0], BatchResponse::Failed(refused(404))), 3, "bytes are free again");
    for outcome in outcomes.iter().chain([&later]) {
        assert!(matches!(outcome.known(), Some(Err(ProducerError::Failed(_)))));
    }
    assert!(core.push(b"4", now).is_err() && core.flush().is_err());
}
