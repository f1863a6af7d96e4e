//! A server with streams on one kind of store and one transport, requests in one line each, and a reader of events.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use durable_streams_auth::AccessGuard;
use durable_streams_engine::store::file::SegmentOptions;
use durable_streams_engine::store::{AnyStore, Store as _, StoreStats};
use durable_streams_engine::{Clock, Engine, EngineLimits, ManualClock};
use durable_streams_protocol::{StreamPath, Timestamp};
use durable_streams_server::edge::{AccessCaching, EdgeOptions};
use durable_streams_subscriptions::SubscriptionOptions;

use crate::support::served::ServedFeatures;
use crate::support::{
    Client, PATIENCE, Reply, StoreKind, TestServer, Transport, eventually, position_of,
};

/// What a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    pub store: StoreKind,
    pub transport: Transport,
}

/// Makes a test of each named `async fn(Kind)`, once for every transport and store: `name::http2::file` and so on.
///
/// `#[only(http1, http2; "why")]` before a name leaves the other transports out.
macro_rules! for_each_kind {
    ($($(#[only($($over:ident),+; $why:literal)])? $name:ident),+ $(,)?) => {
        $( mod $name { for_each_kind!(@ $name: $($($over)+)?); } )+
    };
    (@ $name:ident:) => { for_each_kind!(@ $name: http1 proxied http2 embedded); };
    (@ $name:ident: $($over:ident)+) => { $( mod $over {
        #[test]
        fn memory() {
            let transport = crate::support::transports::over::$over;
            let store = crate::support::StoreKind::Memory;
            crate::world::run(Box::pin(super::super::$name(crate::world::Kind { store, transport })));
        }

        #[test]
        fn file() {
            let transport = crate::support::transports::over::$over;
            let store = crate::support::StoreKind::File;
            crate::world::run(Box::pin(super::super::$name(crate::world::Kind { store, transport })));
        }
    } )+ };
}

/// Runs a test to its end. What `#[tokio::test]` would write into every one of thousands, and the compiler would read, is
/// here once.
pub fn run(test: Pin<Box<dyn Future<Output = ()>>>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).enable_all().build().unwrap().block_on(test);
}

/// Where the streams live.
pub const ROUTE: &str = "/v1/stream";

/// What a test may want otherwise.
#[derive(Default)]
pub struct Setup {
    pub edge: EdgeOptions,
    pub limits: EngineLimits,
    pub clock: Clock,
    pub access: Option<AccessGuard>,
    pub caching: AccessCaching,
    pub subscriptions: Option<SubscriptionOptions>,
    /// [`World::seal`] moves what there is into segments.
    pub seals: bool,
    /// Bytes in memory that were written or read lately, on files; the default when not set.
    pub cache: Option<usize>,
}

/// A running server and its engine.
pub struct World {
    pub server: TestServer,
    pub engine: Arc<Engine>,
    _store: Box<dyn std::any::Any + Send>,
}

impl World {
    pub fn new(kind: Kind) -> Self {
        Self::with(kind, |_| {})
    }

    /// With a say in limits, HTTP options and the clock.
    pub fn with(kind: Kind, change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup::default();
        change(&mut setup);
        let segments = setup.seals.then_some(SegmentOptions {
            min: 1,
            keep: 0,
            size: 1 << 20,
            arrays_from: 1,
            interval: Duration::from_secs(86_400),
            ..SegmentOptions::DEFAULT
        });
        let store = kind.store.open_with(|files| {
            files.segments = segments;
            files.cache = setup.cache.unwrap_or(files.cache);
        });
        let (store, keep) = store.into_parts();
        let engine = Engine::new(store, setup.clock, setup.limits);
        let access = setup.access.map(|guard| (guard, setup.caching));
        let features = ServedFeatures { access, subscriptions: setup.subscriptions };
        let (server, engine) = TestServer::over(kind.transport, setup.edge, features, engine);
        World { server, engine, _store: keep }
    }

    /// On a clock that stands still until it is moved.
    pub fn with_clock(kind: Kind) -> (Self, ManualClock) {
        // 2026-01-01T00:00:00Z.
        let clock = ManualClock::at(Timestamp::from_millis(1_767_225_600_000));
        let world = Self::with(kind, |setup| setup.clock = Clock::Manual(clock.clone()));
        (world, clock)
    }

    /// One request on a connection of its own; `path` is relative to the stream route.
    pub async fn ask(&self, method: &str, path: &str, fields: &str, body: &[u8]) -> Reply {
        let mut client = self.server.connect().await;
        client.send(self.aim(request(method, path, fields, body)).await).await;
        if method == "HEAD" { client.head().await } else { client.reply().await }
    }

    /// A request whose offsets, which tests write as positions, have the incarnations of the streams they are of.
    pub async fn aim(&self, request: Vec<u8>) -> Vec<u8> {
        const NONE: &str = "0000000000000000_";
        let Ok(mut text) = String::from_utf8(request.clone()) else { return request };
        let end = text.find("\r\n\r\n").unwrap_or(text.len());
        let asked = text.split(' ').nth(1).and_then(|target| target.split('?').next());
        let asked = asked.unwrap_or_default().to_owned();
        let forked = text.split("stream-forked-from: ").nth(1);
        let forked =
            forked.and_then(|rest| rest.split("\r\n").next()).unwrap_or_default().to_owned();
        let places: Vec<usize> = text.match_indices(NONE).map(|(at, _)| at).collect();
        for at in places.into_iter().filter(|at| *at < end) {
            let of = if text[..at].ends_with("stream-fork-offset: ") { &forked } else { &asked };
            let position = text.get(at + 17..at + 33).and_then(|digits| digits.parse().ok());
            let path = of.strip_prefix(ROUTE).unwrap_or(of).trim_start_matches('/');
            if let Some(position) = position
                && position > 0
                && let Ok(path) = StreamPath::new(path)
                && let Ok(view) = self.engine.head(&path).await
            {
                let offset = view.core.offset_at(position).to_string();
                text.replace_range(at..at + 33, &offset);
            }
        }
        text.into_bytes()
    }

    /// What the store holds. On files a deletion gives its bytes back with the next checkpoint.
    pub fn stored(&self) -> StoreStats {
        if let AnyStore::File(store) = self.engine.store() {
            store.checkpoint().unwrap();
        }
        self.engine.stats().store
    }

    /// Moves what the streams have into sealed segments, if they are on files.
    pub fn seal(&self) {
        if let AnyStore::File(store) = self.engine.store() {
            store.checkpoint().unwrap();
            store.seal().unwrap();
            assert!(store.file_stats().segment_files > 0);
        }
    }

    /// Bytes that were to be sent from files by the kernel.
    pub fn file_parts(&self) -> u64 {
        let disk = self.engine.store().disk_stats();
        disk.map_or(0, |disk| disk.files.file_part_bytes)
    }

    pub async fn put(&self, path: &str, fields: &str, body: impl AsRef<[u8]>) -> Reply {
        self.ask("PUT", path, fields, body.as_ref()).await
    }

    pub async fn post(&self, path: &str, fields: &str, body: impl AsRef<[u8]>) -> Reply {
        self.ask("POST", path, fields, body.as_ref()).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, "", b"").await
    }

    pub async fn head(&self, path: &str) -> Reply {
        self.ask("HEAD", path, "", b"").await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.ask("DELETE", path, "", b"").await
    }

    /// Creates a stream of this type with these bytes, and panics when that fails.
    pub async fn stream(&self, path: &str, content_type: &str, body: impl AsRef<[u8]>) -> Reply {
        let reply = self.put(path, &format!("content-type: {content_type}\r\n"), body).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        reply
    }

    /// Appends to a stream of this type, and panics when that fails.
    pub async fn append(&self, path: &str, content_type: &str, body: impl AsRef<[u8]>) -> Reply {
        let reply = self.post(path, &format!("content-type: {content_type}\r\n"), body).await;
        assert_eq!(reply.status, 204, "{reply:?}");
        reply
    }

    /// Closes a stream, and panics when that fails.
    pub async fn close(&self, path: &str) {
        let reply = self.post(path, "stream-closed: true\r\n", b"").await;
        assert_eq!(reply.status, 204, "{reply:?}");
    }

    /// Opens a live connection and reads its head.
    pub async fn live(&self, path: &str, fields: &str) -> (Client, Reply) {
        let mut client = self.server.connect().await;
        client.send(self.aim(request("GET", path, fields, b"")).await).await;
        let head = client.head().await;
        (client, head)
    }

    /// A long-poll whose answer is still to come.
    pub async fn poll(&self, path: &str) -> Client {
        let before = self.engine.stats().live_readers;
        let mut client = self.server.connect().await;
        client.send(self.aim(request("GET", path, "", b"")).await).await;
        eventually("the long-poll waits", async || self.engine.stats().live_readers > before).await;
        client
    }

    /// Reads events; panics when there are none to be read.
    pub async fn sse(&self, path: &str, fields: &str) -> Sse {
        let (client, head) = self.live(path, fields).await;
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        Sse::new(client, head)
    }

    /// Waits until no live reader and no append is left.
    pub async fn at_rest(&self) {
        eventually("every reader and append is given back", async || {
            let stats = self.engine.stats();
            stats.live_readers == 0 && stats.inflight_append_bytes == 0
        })
        .await;
    }
}

/// An HTTP/1.1 request as text. `fields` are whole lines.
pub fn request(method: &str, path: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let mut text = format!("{method} {ROUTE}{path} HTTP/1.1\r\nhost: test.example\r\n{fields}");
    if !body.is_empty() || matches!(method, "PUT" | "POST") {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

/// The text form of a byte position.
pub fn offset(position: u64) -> String {
    format!("0000000000000000_{position:016}")
}

/// The position in an offset's text.
pub fn position(reply: &Reply) -> u64 {
    reply.header("stream-next-offset").unwrap().rsplit('_').next().unwrap().parse().unwrap()
}

/// One server-sent event, as the standard's parser gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub data: String,
    pub id: Option<String>,
}

impl Event {
    /// A control event's content.
    pub fn control(&self) -> serde_json::Value {
        assert_eq!(self.name, "control", "{self:?}");
        serde_json::from_str(&self.data).unwrap()
    }
}

/// A connection that carries events.
pub struct Sse {
    pub client: Client,
    pub head: Reply,
    buffer: Vec<u8>,
}

impl Sse {
    /// On a connection whose head has been read.
    pub fn new(client: Client, head: Reply) -> Self {
        Sse { client, head, buffer: Vec::new() }
    }

    /// One block up to its empty line, comments included; `None` at the end of the response.
    pub async fn block(&mut self) -> Option<String> {
        let mut searched = 0;
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer[searched..], b"\n\n") {
                let rest = self.buffer.split_off(searched + at + 2);
                let block = std::mem::replace(&mut self.buffer, rest);
                return Some(String::from_utf8(block).unwrap());
            }
            searched = self.buffer.len().saturating_sub(1);
            match self.client.chunk().await {
                Some(chunk) if !chunk.is_empty() => self.buffer.extend(chunk),
                Some(_) => return None,
                None => panic!("cut off after {:?}", String::from_utf8_lossy(&self.buffer)),
            }
        }
    }

    /// The next event, comments left out; `None` at the end of the response.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            let block = self.block().await?;
            if !block.starts_with(':') {
                return Some(parse(&block));
            }
        }
    }

    pub async fn event(&mut self) -> Event {
        self.next().await.expect("an event")
    }

    /// Reads data events, each with its control event, until one says that it is up to date.
    pub async fn catch_up(&mut self) -> (Vec<String>, serde_json::Value) {
        let mut data = Vec::new();
        loop {
            let event = self.event().await;
            if event.name == "data" {
                data.push(event.data);
                let control = self.event().await.control();
                if control["upToDate"] == true {
                    return (data, control);
                }
            } else {
                return (data, event.control());
            }
        }
    }
}

/// The fields of one block, by the rules of the HTML standard.
fn parse(block: &str) -> Event {
    let mut event = Event::default();
    let mut lines: Vec<&str> = Vec::new();
    for line in block.trim_end_matches('\n').split(['\n', '\r']) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => event.name = value.to_owned(),
            "data" => lines.push(value),
            "id" => event.id = Some(position_of(value)),
            _ => panic!("not a field: {line:?}"),
        }
    }
    event.data = lines.join("\n");
    // As in answers: positions only.
    if event.name == "control"
        && let Ok(mut control) = serde_json::from_str::<serde_json::Value>(&event.data)
        && let Some(offset) = control["streamNextOffset"].as_str()
    {
        control["streamNextOffset"] = position_of(offset).into();
        event.data = control.to_string();
    }
    event
}

/// A short time, for timeouts that a test waits out.
pub const SHORT: Duration = Duration::from_millis(200);

/// Waits for `what` no longer than patience.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it takes too long")
}
