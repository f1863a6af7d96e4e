//! What operators see of subscriptions, and do with them.

use std::time::Duration;

use durable_streams_protocol::{
    StreamPath, TenantId, Timestamp,
    subscription::{DeliveryConfig, Refusal, SubscriptionId, SubscriptionName},
};
use durable_streams_subscriptions::{
    SubscriptionOptions, SubscriptionPhase, SubscriptionReport, SubscriptionScope,
};
use http::Method;
use serde_json::{Value, json};

use super::{
    receiver::{Habit, Receiver},
    rig::{Rig, options, until},
    tenants::call,
};

const START: u64 = 1_700_000_000_000;

fn name(tenant: Option<&str>, id: &str) -> SubscriptionName {
    let tenant = tenant.map(|tenant| TenantId::new(tenant).unwrap());
    SubscriptionName { tenant, id: SubscriptionId::new(id).unwrap() }
}

fn pull(pattern: &str) -> Value {
    json!({"type": "pull-wake", "pattern": pattern, "wake_stream": "w", "lease_ttl_ms": 5_000,
        "description": "d"})
}

fn at(millis: u64) -> Option<Timestamp> {
    Some(Timestamp::from_millis(millis))
}

async fn report(rig: &Rig) -> SubscriptionReport {
    rig.subs.report(&name(None, "s")).await.unwrap()
}

async fn in_phase(rig: &Rig, phase: SubscriptionPhase) -> SubscriptionReport {
    until(&format!("{phase:?}"), || async {
        let report = report(rig).await;
        (report.phase == phase).then_some(report)
    })
    .await
}

#[tokio::test]
async fn a_pull_wake_from_idle_to_claimed_and_back() {
    let rig = Rig::frozen(options()).await;
    rig.create("w").await;
    rig.put("s", pull("events/*")).await;
    let idle = report(&rig).await;
    assert_eq!(idle.name, name(None, "s"));
    assert!(
        matches!(&idle.delivery, DeliveryConfig::PullWake { wake_stream } if wake_stream.as_str() == "w")
    );
    assert_eq!(
        (idle.pattern.as_deref(), idle.description.as_deref()),
        (Some("events/*"), Some("d"))
    );
    assert_eq!((idle.phase, idle.generation, idle.links), (SubscriptionPhase::Idle, 0, 0));
    assert_eq!((idle.worker, idle.lease_until, idle.next_retry), (None, None, None));
    assert_eq!((Some(idle.created), idle.last_success, idle.failures), (at(START), None, 0));
    assert_eq!(rig.subs.deliveries(), (0, 0));
    rig.append("events/a", "12").await;
    rig.append("events/b", "3").await;
    let waking = until("the announcement", || async {
        Some(report(&rig).await).filter(|report| report.last_success.is_some())
    })
    .await;
    assert_eq!((waking.phase, waking.generation, waking.links), (SubscriptionPhase::Waking, 1, 2));
    assert_eq!((waking.lag_streams, waking.lag_bytes), (2, 5), "each message has a terminator");
    assert_eq!((waking.last_success, waking.last_error), (at(START), None));
    assert_eq!((waking.lease_until, rig.subs.deliveries()), (None, (1, 0)));
    rig.pass(1_000);
    let (_, claim) = rig.post("s", "claim", None, json!({"worker": "one"})).await;
    let claimed = report(&rig).await;
    assert_eq!(
        (claimed.phase, claimed.worker.as_deref()),
        (SubscriptionPhase::Claimed, Some("one"))
    );
    assert_eq!(claimed.lease_until, at(START + 6_000));
    // A clock that is set moves what is shown, not what is held.
    let done = json!({"wake_id": claim["wake_id"], "generation": 1, "done": true,
        "acks": [{"stream": "events/a", "offset": rig.tail("events/a").await}]});
    let (status, acked) = rig.post("s", "ack", claim["token"].as_str(), done).await;
    assert_eq!((status.as_u16(), &acked["next_wake"]), (200, &json!(true)));
    let next = in_phase(&rig, SubscriptionPhase::Waking).await;
    assert_eq!((next.lag_streams, next.lag_bytes, next.worker), (1, 2, None));
}

#[tokio::test]
async fn a_webhook_that_fails_is_retried_when_asked_and_paused_ones_wait() {
    let rig = Rig::frozen(options()).await;
    let receiver = Receiver::start(Habit::Answer(503, "no".into())).await;
    let body =
        json!({"type": "webhook", "pattern": "events/*", "webhook": {"url": receiver.url()}});
    rig.put("s", body).await;
    rig.append("events/a", "1").await;
    let failed = in_phase(&rig, SubscriptionPhase::Retrying).await;
    let error = failed.last_error.unwrap();
    assert_eq!(
        (error.status, error.detail.as_str(), Some(error.at)),
        (Some(503), "status 503", at(START))
    );
    assert_eq!((failed.failures, failed.last_success), (1, None));
    let next = failed.next_retry.unwrap().millis() - START;
    assert!((800..=1_200).contains(&next), "{next}");
    assert_eq!(rig.subs.deliveries(), (0, 1));
    let named = name(None, "s");
    let paused = rig.subs.pause(&named, true).await.unwrap();
    assert_eq!((paused.phase, paused.paused), (SubscriptionPhase::Paused, true));
    assert_eq!((paused.failures, paused.next_retry), (1, None));
    receiver.set(Receiver::accept());
    rig.pass(5_000);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(receiver.count(), 1, "paused");
    assert!(!rig.subs.pause(&named, false).await.unwrap().paused);
    let delivered = in_phase(&rig, SubscriptionPhase::Delivered).await;
    assert_eq!((receiver.count(), delivered.last_success), (2, at(START + 5_000)));
    assert_eq!((delivered.lease_until, delivered.failures), (at(START + 35_000), 0));
    assert_eq!(rig.subs.deliveries(), (1, 1));
}

#[tokio::test]
async fn a_retry_that_is_asked_for_does_not_wait() {
    let rig = Rig::frozen(options()).await;
    let receiver = Receiver::start(Habit::HangUp).await;
    let body =
        json!({"type": "webhook", "pattern": "events/*", "webhook": {"url": receiver.url()}});
    rig.put("s", body).await;
    rig.append("events/a", "1").await;
    let failed = in_phase(&rig, SubscriptionPhase::Retrying).await;
    assert_eq!(failed.last_error.unwrap().status, None);
    receiver.set(Receiver::done());
    let report = rig.subs.retry_now(&name(None, "s")).await.unwrap();
    assert_eq!(report.name, name(None, "s"));
    let idle = in_phase(&rig, SubscriptionPhase::Idle).await;
    assert_eq!((receiver.count(), idle.lag_streams, idle.lease_until), (2, 0, None));
}

#[tokio::test]
async fn a_wake_that_cannot_be_announced_is_retried() {
    let rig = Rig::frozen(options()).await;
    rig.put("s", pull("events/*")).await;
    rig.append("events/a", "1").await;
    let failed = in_phase(&rig, SubscriptionPhase::Retrying).await;
    assert!(
        failed.last_error.unwrap().detail.contains("there is no stream here"),
        "there is no wake stream"
    );
    assert_eq!((failed.generation, failed.failures), (1, 1));
    for failures in 2..4 {
        rig.pass(failures * 1_200);
        until("another failure", || async {
            (u64::from(report(&rig).await.failures) == failures).then_some(())
        })
        .await;
    }
    rig.create("w").await;
    in_phase(&rig, SubscriptionPhase::Waking).await;
    until("the announcement", || async { (rig.read("w").await.len() == 1).then_some(()) }).await;
    assert_eq!(rig.read("w").await[0]["stream"], "events/a");
}

#[tokio::test]
async fn subscriptions_are_listed_in_order_by_tenant_and_in_pages() {
    let rig = Rig::frozen(options()).await;
    let all = [("", "b"), ("", "d"), ("acme", "a"), ("acme", "c"), ("globex", "a")];
    assert!(rig.subs.is_empty());
    for (tenant, id) in all.into_iter().rev() {
        let target = format!("subscriptions/{id}");
        let (status, _) = call(&rig, tenant, Method::PUT, &target, pull("events/*")).await;
        assert_eq!(status, 201);
    }
    assert!(!rig.subs.is_empty() && rig.subs.len() == 5);
    let list = async |scope: SubscriptionScope, after: Option<SubscriptionName>, max| {
        let reports = rig.subs.list(&scope, after.as_ref(), max).await;
        reports.into_iter().map(|report| report.name).collect::<Vec<_>>()
    };
    let names = all.map(|(tenant, id)| name(Some(tenant).filter(|t| !t.is_empty()), id));
    assert_eq!(list(SubscriptionScope::Everything, None, 9).await, names);
    for max in 1..5 {
        assert_eq!(list(SubscriptionScope::Everything, None, max).await, names[..max]);
        let after = Some(names[max - 1].clone());
        let next = list(SubscriptionScope::Everything, after, 1).await;
        assert_eq!(next, names[max..=max], "behind {max}");
    }
    let acme = || SubscriptionScope::Tenant(TenantId::new("acme").unwrap());
    assert_eq!(list(acme(), None, 9).await, names[2..4]);
    assert_eq!(list(acme(), Some(names[2].clone()), 9).await, names[3..4]);
    let linking = |tenant: Option<&str>, path: &str, max| {
        let tenant = tenant.map(|tenant| TenantId::new(tenant).unwrap());
        rig.subs.linking(tenant.as_ref(), &StreamPath::new(path).unwrap(), max)
    };
    let mut found = linking(Some("acme"), "events/x", 9);
    found.sort();
    assert_eq!(found, names[2..4]);
    assert_eq!(linking(None, "events/x", 1).len(), 1);
    assert_eq!(
        (linking(None, "other/x", 9), linking(Some("none"), "events/x", 9)),
        (vec![], vec![])
    );
    rig.subs.remove(&names[2]).await.unwrap();
    assert_eq!(list(acme(), None, 9).await, names[3..4]);
    for missing in [&names[2], &name(None, "a")] {
        assert_eq!(rig.subs.remove(missing).await, Err(Refusal::NotFound));
        assert_eq!(rig.subs.report(missing).await.unwrap_err(), Refusal::NotFound);
        assert_eq!(rig.subs.pause(missing, true).await.unwrap_err(), Refusal::NotFound);
    }
}

#[test]
fn posts_at_one_time_are_those_of_both_lanes() {
    let options = SubscriptionOptions { max_deliveries: 5, max_retries: 3, ..options() };
    assert_eq!(options.all_deliveries(), 8);
}

/// One receiver has one permit here, and does not answer.
#[tokio::test]
async fn a_webhook_that_waits_for_its_turn_is_pending() {
    let rig = Rig::frozen(SubscriptionOptions { max_deliveries: 1, ..options() }).await;
    let receiver = Receiver::start(Habit::Hang).await;
    for id in ["first", "s"] {
        let pattern = format!("{id}/*");
        let body =
            json!({"type": "webhook", "pattern": pattern, "webhook": {"url": receiver.url()}});
        rig.put(id, body).await;
    }
    rig.append("first/a", "1").await;
    receiver.nth(0).await;
    assert_eq!(report(&rig).await.phase, SubscriptionPhase::Idle);
    rig.append("s/a", "1").await;
    let pending = in_phase(&rig, SubscriptionPhase::Pending).await;
    assert_eq!((pending.generation, pending.lag_streams, receiver.count()), (0, 1, 1));
    let first = rig.subs.report(&name(None, "first")).await.unwrap();
    assert_eq!((first.phase, first.lease_until), (SubscriptionPhase::Waking, at(START + 30_000)));
}
