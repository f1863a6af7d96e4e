//! An engine in memory, subscriptions on it, and short ways to use both.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use durable_streams_engine::store::{AnyStore, MemoryStore};
use durable_streams_engine::{Clock, Engine, EngineLimits, ManualClock, StreamObserver};
use durable_streams_protocol::{
    Append, ContentType, Create, Expiry, Fork, Offset, StreamCore, StreamPath, Tail, Timestamp,
    subscription::TargetRules,
};
use durable_streams_subscriptions::{
    ControlAuthority, ControlRequest, ControlResponse, SubscriptionOptions, Subscriptions,
    WebhookClient,
};
use http::{HeaderMap, Method, StatusCode, header::AUTHORIZATION};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::oneshot;

use crate::http_client;

pub(crate) const BASE: &str = "http://server.example/v1/stream";

/// Hands news to whoever runs at the moment, so that subscriptions can be restarted on one engine.
#[derive(Default)]
struct Relay(Mutex<Option<Arc<dyn StreamObserver>>>);

impl StreamObserver for Relay {
    fn on_durable(&self, path: &StreamPath, core: Option<&Arc<StreamCore>>, tail: Tail) {
        if let Some(observer) = &*self.0.lock() {
            observer.on_durable(path, core, tail);
        }
    }
}

pub(crate) struct Rig {
    pub(crate) engine: Arc<Engine>,
    pub(crate) subs: Subscriptions,
    pub(crate) clock: Option<ManualClock>,
    options: SubscriptionOptions,
    webhooks: Arc<dyn WebhookClient>,
    relay: Arc<Relay>,
    stop: Option<oneshot::Sender<()>>,
}

pub(crate) fn options() -> SubscriptionOptions {
    SubscriptionOptions {
        targets: TargetRules { allow_http_localhost: true, ..TargetRules::default() },
        public_url: Some(BASE.into()),
        ..SubscriptionOptions::default()
    }
}

/// One control request, without access control.
pub(crate) async fn send(
    subs: &Subscriptions,
    base_url: &str,
    method: &Method,
    target: &str,
    headers: &HeaderMap,
    body: Bytes,
) -> ControlResponse {
    let authority = ControlAuthority::Unrestricted;
    subs.handle(ControlRequest { method, target, headers, body, base_url, authority }).await
}

impl Rig {
    /// On the system's clock.
    pub(crate) async fn new(options: SubscriptionOptions) -> Rig {
        Self::with_client(options, http_client(), None).await
    }

    /// On a clock that stands still.
    pub(crate) async fn frozen(options: SubscriptionOptions) -> Rig {
        let clock = ManualClock::at(Timestamp::from_millis(1_700_000_000_000));
        Self::with_client(options, http_client(), Some(clock)).await
    }

    /// With a webhook client of the test's own.
    pub(crate) async fn with_client(
        options: SubscriptionOptions,
        webhooks: Arc<dyn WebhookClient>,
        clock: Option<ManualClock>,
    ) -> Rig {
        let engine_clock = clock.clone().map_or(Clock::System, Clock::Manual);
        let store = AnyStore::Memory(MemoryStore::default());
        let engine = Arc::new(Engine::new(store, engine_clock, EngineLimits::default()));
        let relay = Arc::new(Relay::default());
        engine.observe(relay.clone());
        let (subs, stop) = start(&engine, &options, &webhooks, &relay).await;
        Rig { engine, subs, clock, options, webhooks, relay, stop: Some(stop) }
    }

    /// Ends the driver and all that it had in memory. Posts under way go on, as they would on a network.
    pub(crate) fn crash(&mut self) {
        *self.relay.0.lock() = None;
        self.stop.take();
    }

    /// Starts again with other options.
    pub(crate) async fn restart_with(&mut self, options: SubscriptionOptions) {
        self.options = options;
        self.restart().await;
    }

    /// Starts again from what is stored.
    pub(crate) async fn restart(&mut self) {
        self.crash();
        let (subs, stop) = start(&self.engine, &self.options, &self.webhooks, &self.relay).await;
        self.subs = subs;
        self.stop = Some(stop);
    }

    pub(crate) fn pass(&self, millis: u64) {
        self.clock.as_ref().unwrap().advance_millis(millis);
        self.subs.tick();
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        body: Value,
    ) -> (StatusCode, Value) {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let (status, _, body) = send(&self.subs, BASE, &method, path, &headers, body).await;
        let body =
            if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
        (status, body)
    }

    pub(crate) async fn put(&self, id: &str, body: Value) -> (StatusCode, Value) {
        self.call(Method::PUT, &format!("subscriptions/{id}"), None, body).await
    }

    pub(crate) async fn get(&self, id: &str) -> Value {
        self.call(Method::GET, &format!("subscriptions/{id}"), None, Value::Null).await.1
    }

    pub(crate) async fn post(
        &self,
        id: &str,
        action: &str,
        token: Option<&str>,
        body: Value,
    ) -> (StatusCode, Value) {
        self.call(Method::POST, &format!("subscriptions/{id}/{action}"), token, body).await
    }

    /// Appends a JSON message, creating the stream first if need be. Returns the tail.
    pub(crate) async fn append(&self, path: &str, body: &str) -> String {
        self.create(path).await;
        let append = Append {
            content_type: Some(Ok(json_type())),
            stream_seq: None,
            producer: None,
            close: false,
        };
        let path = StreamPath::new(path).unwrap();
        self.engine.append(&path, &append, Bytes::from(body.to_owned())).await.unwrap();
        self.tail(path.as_str()).await
    }

    pub(crate) async fn tail(&self, path: &str) -> String {
        self.engine.head(&StreamPath::new(path).unwrap()).await.unwrap().tail.offset.to_string()
    }

    pub(crate) async fn create(&self, path: &str) {
        let create = Create {
            content_type: Some(json_type()),
            expiry: Expiry::Never,
            closed: false,
            fork: None,
            public: false,
        };
        self.engine.create(&StreamPath::new(path).unwrap(), &create, Bytes::new()).await.unwrap();
    }

    /// Creates a stream of another type than JSON.
    pub(crate) async fn create_as(&self, path: &str, content_type: &str, body: &str) {
        let create = Create {
            content_type: ContentType::parse(content_type),
            expiry: Expiry::Never,
            closed: false,
            fork: None,
            public: false,
        };
        let path = StreamPath::system(path).unwrap();
        self.engine.create(&path, &create, Bytes::from(body.to_owned())).await.unwrap();
    }

    pub(crate) async fn fork(&self, path: &str, source: &str) {
        let source = StreamPath::new(source).unwrap();
        let create = Create {
            content_type: None,
            expiry: Expiry::Never,
            closed: false,
            fork: Some(Fork { source, offset: None, sub_offset: 0 }),
            public: false,
        };
        self.engine.create(&StreamPath::new(path).unwrap(), &create, Bytes::new()).await.unwrap();
    }

    pub(crate) async fn delete(&self, path: &str) {
        self.engine.delete(&StreamPath::new(path).unwrap()).await.unwrap();
    }

    /// The first log of a subscription, as text.
    pub(crate) async fn log(&self, id: &str) -> String {
        let path = StreamPath::system(&format!("__ds/subscriptions/{id}/{:016}", 0)).unwrap();
        let view = self.engine.head(&path).await.unwrap();
        let tail = view.tail.offset;
        let slice = self.engine.read(&view.core, Offset::ZERO, tail, usize::MAX).await.unwrap();
        String::from_utf8(slice.chunks.concat()).unwrap()
    }

    /// The JSON messages of a stream.
    pub(crate) async fn read(&self, path: &str) -> Vec<Value> {
        let view = self.engine.head(&StreamPath::new(path).unwrap()).await.unwrap();
        let tail = view.tail.offset;
        let slice = self.engine.read(&view.core, Offset::ZERO, tail, usize::MAX).await.unwrap();
        let bytes: Vec<u8> = slice.chunks.concat();
        let messages = bytes.split(|byte| *byte == durable_streams_protocol::MESSAGE_END);
        messages.filter(|m| !m.is_empty()).map(|m| serde_json::from_slice(m).unwrap()).collect()
    }
}

fn json_type() -> ContentType {
    ContentType::parse("application/json").unwrap()
}

async fn start(
    engine: &Arc<Engine>,
    options: &SubscriptionOptions,
    webhooks: &Arc<dyn WebhookClient>,
    relay: &Arc<Relay>,
) -> (Subscriptions, oneshot::Sender<()>) {
    let opened = Subscriptions::open(engine.clone(), options.clone(), webhooks.clone()).await;
    let (subs, driver) = opened.unwrap();
    *relay.0.lock() = Some(subs.observer());
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(driver.run(async {
        let _ = stopped.await;
    }));
    (subs, stop)
}

/// Polls until `check` gives something.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut check: impl FnMut() -> F,
) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The error code of a response.
pub(crate) fn code(body: &Value) -> &str {
    body["error"]["code"].as_str().unwrap_or("none")
}
