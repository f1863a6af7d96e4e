//! Deliveries against a webhook client that answers when the test says so: late answers, streams that change
//! meanwhile, receivers that hang.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use durable_streams_engine::ManualClock;
use durable_streams_protocol::Timestamp;
use durable_streams_subscriptions::{
    SubscriptionOptions, WebhookClient, WebhookError, WebhookRequest, WebhookResponse,
};
use http::{Method, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};

use super::rig::{BASE, Rig, options, until};

const ZERO: &str = "0000000000000000_0000000000000000";

type Answer = Result<WebhookResponse, WebhookError>;

/// A post that waits for its answer.
struct HeldPost {
    request: WebhookRequest,
    answer: oneshot::Sender<Answer>,
}

impl HeldPost {
    fn body(&self) -> Value {
        serde_json::from_slice(&self.request.body).unwrap()
    }

    fn done(self) {
        let body = Some(Bytes::from_static(br#"{"done": true}"#));
        let _ = self.answer.send(Ok(WebhookResponse { status: StatusCode::OK, body }));
    }
}

/// Hands each post to the test.
struct HoldingClient {
    posts: mpsc::UnboundedSender<HeldPost>,
}

#[async_trait]
impl WebhookClient for HoldingClient {
    async fn post(&self, request: WebhookRequest) -> Answer {
        let (answer, answered) = oneshot::channel();
        let _ = self.posts.send(HeldPost { request, answer });
        answered.await.unwrap_or_else(|_| Err(WebhookError::NoResponse("dropped".into())))
    }
}

struct Held {
    rig: Rig,
    clock: ManualClock,
    posts: AsyncMutex<mpsc::UnboundedReceiver<HeldPost>>,
}

impl Held {
    /// One subscription of `events/*` with a lease of one second, on a clock that stands still.
    async fn start() -> Held {
        Self::start_with(options()).await
    }

    async fn start_with(options: SubscriptionOptions) -> Held {
        let clock = ManualClock::at(Timestamp::from_millis(1_700_000_000_000));
        let (posts, held) = mpsc::unbounded_channel();
        let client = Arc::new(HoldingClient { posts });
        let rig = Rig::with_client(options, client, Some(clock.clone())).await;
        subscribe(&rig, "s", "events/*", "https://worker.example/").await;
        Held { rig, clock, posts: AsyncMutex::new(held) }
    }

    async fn next(&self) -> HeldPost {
        let mut posts = self.posts.lock().await;
        tokio::time::timeout(Duration::from_secs(10), posts.recv()).await.unwrap().unwrap()
    }

    async fn acked(&self) -> Value {
        self.rig.get("s").await["streams"][0]["acked_offset"].clone()
    }
}

async fn subscribe(rig: &Rig, id: &str, pattern: &str, url: &str) {
    let body = json!({"type": "webhook", "pattern": pattern, "webhook": {"url": url},
        "lease_ttl_ms": 1_000});
    let (status, body) = rig.put(id, body).await;
    assert_eq!(status, 201, "{body}");
}

#[tokio::test]
async fn an_answer_after_the_lease_acks_nothing() {
    let held = Held::start().await;
    let tail = held.rig.append("events/a", "1").await;
    let late = held.next().await;
    // The driver has not looked at the clock yet: the answer itself finds the lease over.
    held.clock.advance_millis(1_000);
    late.done();
    let next = until("another wake", || async {
        held.rig.pass(500);
        let mut posts = held.posts.lock().await;
        tokio::time::timeout(Duration::from_millis(50), posts.recv()).await.ok().flatten()
    })
    .await;
    assert_eq!(next.body()["generation"], 2, "another wake for the same work");
    assert_eq!(next.body()["streams"][0]["acked_offset"], ZERO);
    assert_eq!(held.acked().await, ZERO);
    next.done();
    until("the ack in time", || async { (held.acked().await == tail).then_some(()) }).await;
}

#[tokio::test]
async fn done_does_not_ack_a_stream_that_was_created_again_meanwhile() {
    let held = Held::start().await;
    held.rig.append("events/a", r#""a long first message""#).await;
    let post = held.next().await;
    held.rig.delete("events/a").await;
    let tail = held.rig.append("events/a", "1").await;
    // The worker acks the new stream, and then says `done` about the tails that it was sent.
    let wake = post.body();
    let callback = json!({"wake_id": wake["wake_id"], "generation": wake["generation"],
        "acks": [{"stream": "events/a", "offset": tail}]});
    let token = wake["callback_token"].as_str();
    let path = wake["callback_url"].as_str().unwrap();
    let path = path.strip_prefix(&format!("{BASE}/__ds/")).unwrap();
    assert_eq!(held.rig.call(Method::POST, path, token, callback).await.0, 200);
    post.done();
    // The end of the wake is committed when the next append leads to another.
    let tail = until("the end of the wake", || async {
        let (status, _) = held
            .rig
            .call(
                Method::POST,
                path,
                token,
                json!({"wake_id":
            wake["wake_id"], "generation": wake["generation"]}),
            )
            .await;
        (status == 409).then_some(tail.clone())
    })
    .await;
    assert_eq!(held.acked().await, tail, "the cursor of the new stream stays");
}

#[tokio::test]
async fn done_acks_the_tails_that_were_sent_and_no_later_ones() {
    let held = Held::start().await;
    let first = held.rig.append("events/a", "1").await;
    let post = held.next().await;
    held.rig.append("events/a", "2").await;
    post.done();
    let next = held.next().await;
    assert_eq!(next.body()["streams"][0]["acked_offset"], json!(first));
}

/// A lane has one permit here, and that of the first lane is held.
#[tokio::test]
async fn a_receiver_that_failed_or_was_slow_waits_for_the_second_lane() {
    let one = SubscriptionOptions { max_deliveries: 1, max_retries: 1, ..options() };
    let held = Held::start_with(one).await;
    subscribe(&held.rig, "hangs", "other/*", "https://hangs.example/").await;
    held.rig.append("events/a", "1").await;
    held.next().await.done();
    held.rig.append("other/a", "1").await;
    let hanging = held.next().await;
    held.rig.append("events/a", "2").await;
    let mut posts = held.posts.lock().await;
    let waited = tokio::time::timeout(Duration::from_millis(200), posts.recv()).await;
    assert!(waited.is_err(), "one that answered at once waits for the first lane");
    drop(posts);
    hanging.done();
    let slow = held.next().await;
    held.rig.append("other/a", "2").await;
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    slow.done();
    let hanging = held.next().await;
    assert_eq!(hanging.request.target.url.host_str(), Some("hangs.example"));
    held.rig.append("events/a", "3").await;
    let failing = held.next().await;
    assert_eq!(failing.body()["streams"][0]["path"], "events/a", "the last answer was slow");
    let failed = WebhookResponse { status: StatusCode::SERVICE_UNAVAILABLE, body: None };
    let _ = failing.answer.send(Ok(failed));
    until("the retry", || async {
        held.rig.pass(500);
        let mut posts = held.posts.lock().await;
        let post = tokio::time::timeout(Duration::from_millis(50), posts.recv()).await.ok()?;
        assert_eq!(post?.body()["streams"][0]["path"], "events/a");
        Some(())
    })
    .await;
    drop(hanging);
}

/// Never answers for some hosts, and at once for others.
struct HangingClient {
    hanging: &'static str,
    posted: Mutex<usize>,
}

#[async_trait]
impl WebhookClient for HangingClient {
    async fn post(&self, request: WebhookRequest) -> Answer {
        *self.posted.lock() += 1;
        if request.target.url.host_str() == Some(self.hanging) {
            std::future::pending::<()>().await;
        }
        let body = Some(Bytes::from_static(br#"{"done": true}"#));
        Ok(WebhookResponse { status: StatusCode::OK, body })
    }
}

/// 200 subscriptions of one hanging receiver take no permit that another host needs, nor one that another
/// owner needs, from their first posts on.
#[tokio::test]
async fn one_hanging_host_delays_no_other() {
    let client = Arc::new(HangingClient { hanging: "hangs.example", posted: Mutex::default() });
    let options = SubscriptionOptions { max_deliveries: 8, max_retries: 4, ..options() };
    let rig = Rig::with_client(options, client.clone(), None).await;
    for n in 0..200 {
        subscribe(&rig, &format!("hangs{n}"), "bad/**", "https://hangs.example/").await;
    }
    subscribe(&rig, "same-owner", "bad/b", "https://works.example/").await;
    subscribe(&rig, "other-owner", "good/*", "https://works.example/").await;
    rig.append("bad/a", "1").await;
    until("the first hanging posts", || async { (*client.posted.lock() >= 4).then_some(()) }).await;
    for (id, path) in [("other-owner", "good/a"), ("same-owner", "bad/b")] {
        let start = std::time::Instant::now();
        let tail = rig.append(path, "1").await;
        until("the ack", || async {
            let link = rig.get(id).await["streams"][0].clone();
            (link["acked_offset"] == tail).then_some(())
        })
        .await;
        assert!(start.elapsed() < Duration::from_millis(700), "{id}: {:?}", start.elapsed());
    }
}
