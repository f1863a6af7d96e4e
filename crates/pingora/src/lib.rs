#![doc = include_str!("../README.md")]
//!
//! # Inside
//!
//! A request passes [`transport::StreamRequest::parse`] (mode and path), [`DurableStreams::reply`] (the engine decides)
//! and [`DurableStreams::deliver`] (wait, write, count); [`DurableStreams::handle`] is all three.
//!
//! | file | what it does |
//! |---|---|
//! | `request` | parses the head: mode and path |
//! | `reply/` | from the request to its reply, through the engine |
//! | `write/` | delivers a reply: waits, writes and counts; the writer for Pingora sessions |
//! | `background` | the work beside the requests |
//! | `answers` | the budget of memory for response bodies |
//! | `clients` | what one client address holds of a limit |
//! | `counters` | what is counted |
//! | `forwarded` | the URL that a client used, behind proxies |
//! | `cors` | which browser pages may read the responses |
//! | `browser` | what browsers may do with a stream that they open as a page |
//! | `options`, `path`, `stopping` | settings; prefixes of paths; the start of a stop |

mod answers;
mod background;
mod browser;
mod clients;
mod cors;
mod counters;
pub mod forwarded;
mod options;
mod path;
mod reply;
mod request;
mod stopping;
mod write;

use std::sync::Arc;

use durable_streams_engine::Engine;
use durable_streams_subscriptions::Subscriptions;
use pingora_core::{protocols::http::ServerSession, server::ShutdownWatch};
use pingora_proxy::Session;

pub use background::StreamsBackground;
pub use browser::BrowserRules;
pub use clients::ClientShare;
pub use cors::{AllowedOrigins, CorsPolicy};
pub use counters::{
    MAX_PREFIXES, MAX_TENANTS, RequestCount, RequestMode, RequestUsage, StreamCounters,
    UsageCounters, UsageOptions,
};
pub use options::StreamOptions;
pub use reply::access::{AUDIT_TARGET, AuditLevel};
pub use reply::caching::AccessCaching;

/// For servers that route, write and log by themselves instead of calling [`DurableStreams::handle`].
pub mod transport {
    pub use crate::clients::{ClientAddress, ClientGauge, ClientPermit};
    pub use crate::counters::{StatusCounts, by_status};
    pub use crate::path::is_under;
    pub use crate::reply::StreamReply;
    pub use crate::reply::access::render_access_error;
    pub use crate::reply::body::BodyPace;
    pub use crate::request::StreamRequest;
    pub use crate::stopping::Stopping;
    pub use crate::write::{
        DeliveredReply, EventChunk, LAST_CHUNK, PATIENCE, ReplyWriter, WrittenReply,
    };
}

use answers::AnswerBudget;
use reply::{StreamEncoders, access::StreamAccess};
use transport::{ClientGauge, DeliveredReply, Stopping, StreamRequest};

/// Durable Streams on a Pingora session. Clones share everything.
#[derive(Clone)]
pub struct DurableStreams {
    engine: Arc<Engine>,
    options: Arc<StreamOptions>,
    stopping: Stopping,
    counters: Arc<StreamCounters>,
    /// Bytes of bodies that are being received or made durable, of each client.
    client_appends: ClientGauge,
    /// Live readers of each client.
    client_readers: ClientGauge,
    subscriptions: Option<Subscriptions>,
    access: Option<Arc<StreamAccess>>,
    encoders: StreamEncoders,
    answers: AnswerBudget,
}

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandledRequest {
    /// The code of the problem that the response reported, if it did.
    pub problem: Option<&'static str>,
}

impl DurableStreams {
    /// Routes for the streams of `engine`. Live readers end when `shutdown` turns `true`.
    pub fn new(engine: Arc<Engine>, options: StreamOptions, shutdown: ShutdownWatch) -> Self {
        let answers = AnswerBudget::new(options.max_inflight_read);
        let options = Arc::new(options);
        let stopping = Stopping::from(shutdown);
        DurableStreams {
            engine,
            options,
            stopping,
            counters: Arc::default(),
            client_appends: ClientGauge::default(),
            client_readers: ClientGauge::default(),
            subscriptions: None,
            access: None,
            encoders: StreamEncoders::default(),
            answers,
        }
    }

    /// The engine that holds the streams.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The counters.
    pub fn counters(&self) -> &Arc<StreamCounters> {
        &self.counters
    }

    /// Whether a URL path belongs to the streams.
    pub fn matches(&self, path: &str) -> bool {
        self.options.matches(path)
    }

    /// Answers a request whose path [`matches`](Self::matches). The response is written to its end.
    ///
    /// # Errors
    /// The client can no longer be written to. An append may have been committed all the same.
    pub async fn handle(
        &self,
        session: &mut ServerSession,
    ) -> pingora_core::Result<HandledRequest> {
        // Pingora would take a request that is sent ahead, while a live read waits, for a client that breaks the protocol.
        session.set_pipelining_enabled(true);
        let request = StreamRequest::parse(&self.options, session.req_header());
        let mut reply = self.reply(session, &self.options, request).await;
        let DeliveredReply { problem, result, .. } = self.deliver(&mut reply, session).await;
        result.map(|()| HandledRequest { problem })
    }

    /// For [`ProxyHttp::request_filter`](pingora_proxy::ProxyHttp::request_filter): answers a request for a stream and
    /// returns `true`; returns `false` for any other, which is then the application's.
    ///
    /// # Errors
    /// As [`handle`](Self::handle).
    pub async fn request_filter(&self, session: &mut Session) -> pingora_core::Result<bool> {
        if !self.matches(session.req_header().uri.path()) {
            return Ok(false);
        }
        self.handle(session.as_downstream_mut()).await.map(|_| true)
    }
}
