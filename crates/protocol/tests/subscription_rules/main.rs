//! Single rules of subscriptions, at their edges.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]

mod decisions;
mod requests;
mod streams;

use durable_streams_protocol::{
    Offset, StreamId, StreamPath, TenantId, Timestamp,
    subscription::{
        CreateRequest, EndReason, LinkRecord, RetrySchedule, StreamHead, Subscription,
        SubscriptionConfig, SubscriptionEvent, SubscriptionId, SubscriptionName, WakeId,
        WebhookTarget, encode_batch,
    },
};

fn path(text: &str) -> StreamPath {
    StreamPath::new(text).unwrap()
}

fn config(more: &str) -> Result<SubscriptionConfig, String> {
    let body = format!(r#"{{"pattern":"events/*",{more}}}"#);
    let request = serde_json::from_str::<CreateRequest>(&body).unwrap();
    request.into_config().map_err(|refusal| format!("{refusal:?}"))
}

fn webhook() -> SubscriptionConfig {
    config(r#""type":"webhook","webhook":{"url":"https://w.example/"}"#).unwrap()
}

fn pull_wake() -> SubscriptionConfig {
    config(r#""type":"pull-wake","wake_stream":"wake/x""#).unwrap()
}

fn name(tenant: Option<&str>) -> SubscriptionName {
    let tenant = tenant.map(|tenant| TenantId::new(tenant).unwrap());
    SubscriptionName { tenant, id: SubscriptionId::new("s").unwrap() }
}

fn subscription(config: SubscriptionConfig) -> Subscription {
    let created = SubscriptionEvent::created(name(None), config, Timestamp::default());
    Subscription::replay([created, SubscriptionEvent::Ready]).unwrap()
}

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn woken(generation: u64) -> SubscriptionEvent {
    let lease_until = Some(at(50_000));
    SubscriptionEvent::Woken { generation, wake_id: WakeId::from_random([7; 12]), lease_until }
}

fn record(text: &str, cursor: Option<(u64, u64)>) -> LinkRecord {
    let cursor = cursor.map(|(stream, at)| (StreamId(stream), Offset::new(at)));
    LinkRecord { path: path(text), explicit: false, cursor }
}

/// A stream that a webhook's pattern matches has bytes that no worker has.
fn with_work(config: SubscriptionConfig) -> Subscription {
    let mut subscription = subscription(config);
    let head = StreamHead { stream: StreamId(1), tail: Offset::new(5) };
    subscription.observe(&path("events/a"), Some(head));
    subscription
}

#[test]
fn a_name_has_its_tenant() {
    assert_eq!(name(Some("acme")).tenant(), Some("acme"));
    assert_eq!(name(None).tenant(), None);
}

#[test]
fn a_description_has_4096_bytes_at_most() {
    let of = |length: usize| {
        let description = "d".repeat(length);
        config(&format!(
            r#""type":"pull-wake","wake_stream":"wake/x","description":"{description}""#
        ))
    };
    assert_eq!(of(4096).unwrap().description.unwrap().len(), 4096);
    assert!(of(4097).unwrap_err().contains("4096"));
}

/// A post that was under way may have reached a worker, so its wake ends; what has an outcome goes on.
#[test]
fn a_restart_ends_a_post_of_unknown_outcome_alone() {
    let mut posting = with_work(webhook());
    assert_eq!(posting.recovered(), []);
    posting.apply(&woken(1));
    let ended = SubscriptionEvent::Ended { reason: EndReason::Superseded };
    assert_eq!(posting.recovered(), [ended]);
    posting.apply(&SubscriptionEvent::Delivered);
    assert_eq!(posting.recovered(), []);
    let mut announcing = with_work(pull_wake());
    announcing.apply(&woken(1));
    assert_eq!(announcing.recovered(), []);
}

#[test]
fn only_a_webhook_with_work_wants_a_permit_to_post() {
    assert!(with_work(webhook()).wants_permit(at(1)));
    assert!(!with_work(pull_wake()).wants_permit(at(1)), "it posts nothing");
    assert!(!subscription(webhook()).wants_permit(at(1)), "there is no work");
    let mut refused = with_work(webhook());
    refused.apply(&woken(1));
    assert!(!refused.wants_permit(at(1)), "the post is under way");
    let retry = RetrySchedule { failures: 1, at: at(10) };
    refused.apply(&SubscriptionEvent::DeliveryFailed { refused: true, retry });
    assert_eq!((refused.wants_permit(at(9)), refused.wants_permit(at(10))), (false, true));
}

#[test]
fn a_link_is_written_as_explicit_only_if_it_is() {
    let text = |explicit: bool| {
        let links = vec![LinkRecord { explicit, ..record("a", None) }];
        String::from_utf8(encode_batch(&[SubscriptionEvent::Linked { links }])).unwrap()
    };
    assert!(text(true).contains(r#""explicit":true"#));
    assert!(!text(false).contains("explicit"));
}

#[test]
fn a_cursor_goes_back_only_with_another_stream() {
    let mut subscription = subscription(webhook());
    assert_eq!(subscription.link_count(), 0);
    let acked = |cursor| SubscriptionEvent::Acked {
        links: vec![record("events/a", Some(cursor))],
        lease_until: None,
    };
    for (cursor, expected) in [((1, 5), 5), ((1, 3), 5), ((2, 1), 1), ((2, 4), 4)] {
        subscription.apply(&acked(cursor));
        let link = subscription.link(&path("events/a")).unwrap();
        assert_eq!(link.cursor.unwrap().acked, Offset::new(expected), "{cursor:?}");
    }
    let links = vec![record("events/b", None), record("events/c", None)];
    subscription.apply(&SubscriptionEvent::Linked { links });
    assert_eq!(subscription.link_count(), 3);
}

#[test]
fn a_webhook_url_has_a_host() {
    let host = |url| WebhookTarget::host_of(url);
    assert_eq!(host("https://w.example:8443/a").as_deref(), Some("w.example"));
    assert_eq!(host("https://[::1]/").as_deref(), Some("[::1]"));
    assert_eq!((host("mailto:a@b"), host("no url")), (None, None));
}
