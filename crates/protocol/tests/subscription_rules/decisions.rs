//! What each decision returns in each phase of a wake (§7.1 to §7.3), and at the edges of leases and retries.

use durable_streams_protocol::{
    Offset, Timestamp,
    subscription::{
        Ack, DeliveryAttempt, DeliveryOutcome, EndReason, Fence, Refusal, RetrySchedule,
        Subscription, SubscriptionEvent, SubscriptionId, TokenClaims, WakeAction, WakeId,
    },
};

use crate::{at, path, pull_wake, record, webhook, with_work};

/// All leases that are not renewed end here.
const LEASE_END: u64 = 50_000;
/// When the retry of a failed wake is due.
const RETRY: u64 = 10;
/// `lease_ttl_ms` of a subscription that names none.
const LEASE: u64 = 30_000;

const WEBHOOK: [&str; 5] = ["webhook idle", "delivering", "delivered", "refused", "unknown"];
const PULL_WAKE: [&str; 4] = ["pull idle", "unannounced", "announced", "claimed"];

fn wake_id(byte: u8) -> WakeId {
    WakeId::from_random([byte; 12])
}

fn retry() -> RetrySchedule {
    RetrySchedule { failures: 1, at: at(RETRY) }
}

/// A subscription with work, and its first wake in this phase.
fn phase(name: &str) -> Subscription {
    use SubscriptionEvent as E;
    let woken = |lease_until| E::Woken { generation: 1, wake_id: wake_id(7), lease_until };
    let (post, pull) = (woken(Some(at(LEASE_END))), woken(None));
    let failed = |refused| E::DeliveryFailed { refused, retry: retry() };
    let claimed = E::Claimed { worker: "w".into(), lease_until: at(LEASE_END) };
    let (config, events) = match name {
        "webhook idle" => (webhook(), vec![]),
        "delivering" => (webhook(), vec![post]),
        "delivered" => (webhook(), vec![post, E::Delivered]),
        "refused" => (webhook(), vec![post, failed(true)]),
        "unknown" => (webhook(), vec![post, failed(false)]),
        "pull idle" => (pull_wake(), vec![]),
        "unannounced" => (pull_wake(), vec![pull]),
        "announced" => (pull_wake(), vec![pull, E::Announced]),
        "claimed" => (pull_wake(), vec![pull, E::Announced, claimed]),
        _ => unreachable!("{name}"),
    };
    let mut subscription = with_work(config);
    events.iter().for_each(|event| subscription.apply(event));
    subscription
}

/// The events in a few words each.
fn words(events: &[SubscriptionEvent]) -> String {
    use SubscriptionEvent as E;
    let lease = |until: Option<Timestamp>| until.map_or(String::new(), |at| format!(" {at:?}"));
    let words = events.iter().map(|event| match event {
        E::Woken { generation, lease_until, .. } => {
            format!("woken {generation}{}", lease(*lease_until))
        }
        E::Redelivering { lease_until } => format!("redelivering{}", lease(Some(*lease_until))),
        E::Delivered => "delivered".into(),
        E::DeliveryFailed { refused: true, retry } => format!("refused {}", retry.failures),
        E::DeliveryFailed { refused: false, retry } => format!("unknown {}", retry.failures),
        E::Announced => "announced".into(),
        E::AnnounceFailed { retry } => format!("not announced {}", retry.failures),
        E::Claimed { worker, lease_until } => {
            format!("claimed by {worker}{}", lease(Some(*lease_until)))
        }
        E::Acked { links, lease_until } => format!("acked {}{}", links.len(), lease(*lease_until)),
        E::Ended { reason } => format!("ended {reason:?}"),
        other => format!("{other:?}"),
    });
    words.collect::<Vec<_>>().join(", ")
}

fn outcome(result: Result<Vec<SubscriptionEvent>, Refusal>) -> String {
    result.map_or_else(|refusal| refusal.code().into(), |events| words(&events))
}

/// Checks one decision in every phase; a phase that is not named has no events.
fn in_every_phase(decide: impl Fn(&Subscription) -> String, expected: &[(&str, &str)]) {
    for name in WEBHOOK.into_iter().chain(PULL_WAKE) {
        let found = decide(&phase(name));
        let expected = expected.iter().find(|(phase, _)| *phase == name).map_or("", |(_, to)| to);
        assert_eq!(found, expected, "{name}");
    }
}

fn claims() -> TokenClaims {
    TokenClaims {
        tenant: None,
        subscription: SubscriptionId::new("s").unwrap(),
        generation: 1,
        wake: wake_id(7),
        expires: at(u64::MAX),
    }
}

fn fence<'a>(claims: &'a TokenClaims, wake_id: &'a str, generation: u64) -> Fence<'a> {
    Fence { claims, wake_id, generation }
}

#[test]
fn the_outcome_of_a_post_counts_once_and_within_its_lease() {
    let done = || DeliveryOutcome::Done(vec![record("events/a", Some((1, 5)))]);
    let outcomes: [(DeliveryOutcome, &[(&str, &str)]); 4] = [
        (done(), &[("delivering", "acked 1, ended Done"), ("delivered", "acked 1, ended Done")]),
        (DeliveryOutcome::Accepted, &[("delivering", "delivered")]),
        (DeliveryOutcome::Refused, &[("delivering", "refused 1")]),
        (DeliveryOutcome::Unknown, &[("delivering", "unknown 1")]),
    ];
    for (posted, expected) in outcomes {
        let of = |generation, now: u64| {
            let posted = posted.clone();
            move |subscription: &Subscription| {
                words(&subscription.posted(generation, posted.clone(), at(now), 0))
            }
        };
        in_every_phase(of(1, LEASE_END - 1), expected);
        in_every_phase(of(1, LEASE_END), &[]);
        in_every_phase(of(0, 1), &[]);
        in_every_phase(of(2, 1), &[]);
    }
}

#[test]
fn a_response_acks_only_the_streams_that_are_still_there() {
    for (stream, kept) in [(1, "acked 1, ended Done"), (2, "acked 0, ended Done")] {
        let links = vec![record("events/a", Some((stream, 5)))];
        let events = phase("delivering").posted(1, DeliveryOutcome::Done(links), at(1), 0);
        assert_eq!(words(&events), kept, "the wake told of stream {stream}");
    }
}

#[test]
fn an_announcement_counts_once() {
    let of = |generation, done| {
        move |subscription: &Subscription| {
            words(&subscription.announced(generation, done, at(1), 0))
        }
    };
    in_every_phase(of(1, true), &[("unannounced", "announced")]);
    in_every_phase(of(1, false), &[("unannounced", "not announced 1")]);
    in_every_phase(of(2, true), &[]);
    in_every_phase(of(2, false), &[]);
}

#[test]
fn only_an_announced_wake_is_lost_with_the_wake_stream() {
    let gone = |subscription: &Subscription| words(&subscription.wake_stream_gone(at(1), 0));
    in_every_phase(gone, &[("announced", "not announced 1")]);
}

#[test]
fn only_a_post_under_way_has_an_unknown_outcome_after_a_restart() {
    let recovered = |subscription: &Subscription| words(&subscription.recovered());
    in_every_phase(recovered, &[("delivering", "ended Superseded")]);
}

#[test]
fn a_wake_is_claimed_once_and_from_its_wake_stream_only() {
    let claim = |subscription: &Subscription| outcome(subscription.claim("v".into(), at(1_000)));
    let claimed = format!("claimed by v {:?}", at(1_000 + LEASE));
    let pull = ["NO_PENDING_WORK", &claimed, &claimed, "ALREADY_CLAIMED"];
    let expected = WEBHOOK.map(|phase| (phase, "INVALID_REQUEST")).into_iter();
    in_every_phase(claim, &expected.chain(PULL_WAKE.into_iter().zip(pull)).collect::<Vec<_>>());
    let refusal = phase("claimed").claim("v".into(), at(1)).unwrap_err();
    assert_eq!(refusal, Refusal::AlreadyClaimed { holder: "w".into(), generation: 1 });
}

#[test]
fn an_ack_extends_the_lease_and_done_ends_the_wake() {
    let claims = claims();
    let ack = |done, now| {
        let fence = fence(&claims, claims.wake.as_str(), 1);
        move |subscription: &Subscription| outcome(subscription.ack(fence, &[], done, at(now)))
    };
    let fenced = ["webhook idle", "pull idle", "unannounced", "announced"].map(|p| (p, "FENCED"));
    let all = |held: [(&'static str, String); 5]| {
        let held: Vec<_> = held.into_iter().collect();
        move |decide: &dyn Fn(&Subscription) -> String| {
            let held = held.iter().map(|(phase, to)| (*phase, to.as_str()));
            in_every_phase(decide, &held.chain(fenced).collect::<Vec<_>>());
        }
    };
    let held = ["delivering", "delivered", "refused", "unknown", "claimed"];
    let extended = format!("acked 0 {:?}", at(1_000 + LEASE));
    // A receiver that calls back holds the wake, whatever became of the response to the post.
    let taken = |phase: &'static str| match phase {
        "delivered" | "claimed" => (phase, extended.clone()),
        _ => (phase, format!("delivered, {extended}")),
    };
    all(held.map(taken))(&ack(false, 1_000));
    all(held.map(|phase| (phase, "acked 0, ended Done".into())))(&ack(true, 1_000));
    all(held.map(|phase| (phase, "FENCED".into())))(&ack(true, LEASE_END));
}

#[test]
fn a_wake_is_released_by_the_worker_that_claimed_it() {
    let claims = claims();
    let release = |subscription: &Subscription| {
        outcome(subscription.release(fence(&claims, claims.wake.as_str(), 1), at(1)))
    };
    let pull = ["FENCED", "FENCED", "FENCED", "ended Released"];
    let expected = WEBHOOK.map(|phase| (phase, "INVALID_REQUEST")).into_iter();
    in_every_phase(release, &expected.chain(PULL_WAKE.into_iter().zip(pull)).collect::<Vec<_>>());
}

/// Each of the four must match, whatever the other three do.
#[test]
fn a_fence_compares_wake_and_generation_of_token_and_body() {
    let subscription = phase("claimed");
    let (own, other) = (wake_id(7), wake_id(8));
    for token_wake in [&own, &other] {
        for body_wake in [&own, &other] {
            for (token_generation, body_generation) in [(1, 1), (1, 2), (2, 1), (2, 2), (0, 1)] {
                let wake = token_wake.clone();
                let claims = TokenClaims { generation: token_generation, wake, ..claims() };
                let fence = fence(&claims, body_wake.as_str(), body_generation);
                let taken = subscription.ack(fence, &[], false, at(1)).is_ok();
                let same = (token_wake, body_wake) == (&own, &own)
                    && (token_generation, body_generation) == (1, 1);
                assert_eq!(taken, same, "{claims:?} {body_wake} {body_generation}");
            }
        }
    }
}

fn poll(subscription: &Subscription, now: u64, may_post: bool) -> String {
    words(&subscription.poll(at(now), may_post, || wake_id(9), 0))
}

#[test]
fn what_is_due_by_time_alone() {
    let polled =
        |now, may_post| move |subscription: &Subscription| poll(subscription, now, may_post);
    let (first, pull) = (format!("woken 1 {:?}", at(1 + LEASE)), ("pull idle", "woken 1"));
    in_every_phase(polled(1, true), &[("webhook idle", &first), pull]);
    in_every_phase(polled(1, false), &[pull]);
    in_every_phase(polled(RETRY - 1, false), &[pull]);
    let first = format!("woken 1 {:?}", at(RETRY + LEASE));
    let again = format!("redelivering {:?}", at(RETRY + LEASE));
    let next = format!("ended Superseded, woken 2 {:?}", at(RETRY + LEASE));
    in_every_phase(
        polled(RETRY, true),
        &[("webhook idle", &first), ("refused", &again), ("unknown", &next), pull],
    );
    in_every_phase(polled(RETRY, false), &[pull]);
    let over = "ended Expired";
    let ended = [
        ("delivering", "unknown 1, ended Expired"),
        ("delivered", over),
        ("refused", over),
        ("unknown", over),
        ("claimed", over),
        pull,
    ];
    in_every_phase(polled(LEASE_END, false), &ended);
    in_every_phase(polled(LEASE_END - 1, false), &[pull]);
}

#[test]
fn while_paused_nothing_begins_and_leases_still_end() {
    for name in WEBHOOK.into_iter().chain(PULL_WAKE) {
        let mut subscription = phase(name);
        subscription.apply(&SubscriptionEvent::Paused);
        assert_eq!(poll(&subscription, RETRY, true), "", "{name}");
        let ends = !matches!(name, "webhook idle" | "pull idle" | "unannounced" | "announced");
        assert_eq!(poll(&subscription, LEASE_END, true).ends_with("ended Expired"), ends, "{name}");
        let posts = matches!(subscription.work(at(RETRY)), Some(WakeAction::Post(_)));
        assert_eq!(posts, name == "delivering", "a post under way goes on");
        assert_eq!(subscription.work(at(RETRY)).is_some(), posts, "{name}");
        let lease = ends.then(|| at(LEASE_END));
        assert_eq!(subscription.deadline(), lease, "{name}: a retry does not count");
    }
}

#[test]
fn a_wake_that_no_worker_holds_ends_with_its_work() {
    for name in WEBHOOK.into_iter().chain(PULL_WAKE) {
        let mut subscription = phase(name);
        subscription.observe(&path("events/a"), None);
        let dropped = ["refused", "unknown", "unannounced", "announced"].contains(&name);
        let expected = if dropped { "ended Done" } else { "" };
        assert_eq!(poll(&subscription, RETRY, true), expected, "{name}");
    }
}

/// After a lease without a response the next post waits for the retry. A pull-wake has no receiver to spare.
#[test]
fn failures_hold_back_the_next_wake_of_a_webhook() {
    let mut post = phase("unknown");
    post.apply(&SubscriptionEvent::Ended { reason: EndReason::Expired });
    assert_eq!(post.status(), "failed");
    assert_eq!((post.retry(), post.deadline()), (Some(retry()), Some(at(RETRY))));
    assert_eq!(poll(&post, RETRY - 1, true), "");
    assert!(poll(&post, RETRY, true).starts_with("woken 2"));
    post.observe(&path("events/a"), None);
    assert_eq!(post.deadline(), None, "no work is left");
    let mut pull = phase("unannounced");
    pull.apply(&SubscriptionEvent::AnnounceFailed { retry: retry() });
    pull.apply(&SubscriptionEvent::Ended { reason: EndReason::Superseded });
    assert_eq!(pull.deadline(), None);
    assert_eq!(poll(&pull, RETRY - 1, true), "woken 2");
    pull.apply(&SubscriptionEvent::Ended { reason: EndReason::Done });
    assert_eq!((pull.status(), pull.retry()), ("active", None));
}

#[test]
fn the_server_posts_and_announces_what_is_due() {
    let work = |subscription: &Subscription| match subscription.work(at(RETRY - 1)) {
        Some(WakeAction::Post(DeliveryAttempt { generation, failures })) => {
            format!("post {generation} {failures}")
        }
        Some(WakeAction::Announce(DeliveryAttempt { generation, failures })) => {
            format!("announce {generation} {failures}")
        }
        None => String::new(),
    };
    in_every_phase(work, &[("delivering", "post 1 0"), ("unannounced", "announce 1 0")]);
    let mut again = phase("unannounced");
    again.apply(&SubscriptionEvent::AnnounceFailed { retry: retry() });
    assert_eq!(again.work(at(RETRY - 1)), None);
    let attempt = DeliveryAttempt { generation: 1, failures: 1 };
    assert_eq!(again.work(at(RETRY)), Some(WakeAction::Announce(attempt)));
    assert_eq!(again.deadline(), Some(at(RETRY)));
}

#[test]
fn the_next_deadline_is_the_lease_or_the_retry() {
    let deadline = |subscription: &Subscription| {
        subscription.deadline().map_or(String::new(), |at| at.millis().to_string())
    };
    in_every_phase(
        deadline,
        &[
            ("delivering", "50000"),
            ("delivered", "50000"),
            ("refused", "10"),
            ("unknown", "10"),
            ("claimed", "50000"),
        ],
    );
}

#[test]
fn a_cursor_moves_between_itself_and_the_tail() {
    let claims = claims();
    let mut subscription = phase("claimed");
    let links = vec![record("events/a", Some((1, 2)))];
    subscription.apply(&SubscriptionEvent::Acked { links, lease_until: None });
    let ack = |stream: &str, offset: &str| {
        let acks = [Ack { stream: stream.into(), offset: offset.into() }];
        let fence = fence(&claims, claims.wake.as_str(), 1);
        subscription.ack(fence, &acks, true, at(1))
    };
    let text = |position| Offset::new(position).to_string();
    for (position, taken) in [(1, false), (2, true), (3, true), (5, true), (6, false)] {
        assert_eq!(ack("events/a", &text(position)).is_ok(), taken, "{position}");
    }
    let events = ack("/events/a", &text(4)).unwrap();
    let links = vec![record("events/a", Some((1, 4)))];
    let acked = SubscriptionEvent::Acked { links, lease_until: None };
    assert_eq!(events, [acked, SubscriptionEvent::Ended { reason: EndReason::Done }]);
    for (stream, offset) in
        [("events/b", &*text(0)), ("events/a", "5"), ("events/a", "-1"), ("..", &text(0))]
    {
        assert_eq!(ack(stream, offset).unwrap_err().code(), "INVALID_OFFSET", "{stream} {offset}");
    }
    // One that cannot be applied leaves the others where they are.
    let acks = [text(4), text(9)].map(|offset| Ack { stream: "events/a".into(), offset });
    let fence = fence(&claims, claims.wake.as_str(), 1);
    assert!(subscription.ack(fence, &acks, false, at(1)).is_err());
}
