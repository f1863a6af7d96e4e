//! The stream routes: one request in, one reply out.
//!
//! [`DurableStreams`] is all that another Pingora application needs: call [`matches`](DurableStreams::matches) in
//! `request_filter`, and [`handle`](DurableStreams::handle) for the requests that match.
//!
//! A request passes `request` (operation and path), `dispatch` (the engine decides) and `deliver` (wait, write, count).
//!
//! | file | what it does |
//! |---|---|
//! | `request` | parses the head: operation and path |
//! | `dispatch` | from the request to its reply, through the engine |
//! | `reply` | the response, and what its delivery waits for |
//! | `deliver` | waits, writes and counts; the trait of the writers |
//! | `session` | the writer for Pingora sessions |
//! | `append`, `read`, `events` | appends; catch-up and long-poll; SSE |
//! | `body` | receives a request body, bounded |
//! | `chunk` | an event, framed for HTTP/1.1 |
//! | `subscriptions` | requests under the reserved segment |
//! | `compress` | content encoding of catch-up responses |
//! | `cors` | which browser pages may read the responses |
//! | `options`, `background`, `time` | settings; the engine's housekeeping; durations on the engine's clock |

mod append;
mod background;
mod body;
mod chunk;
mod compress;
mod cors;
mod deliver;
mod dispatch;
mod events;
mod options;
mod read;
mod reply;
mod request;
mod session;
mod subscriptions;
mod time;

use std::sync::Arc;

use durable_streams_engine::Engine;
use durable_streams_subscriptions::Subscriptions;
use pingora::{protocols::http::ServerSession, server::ShutdownWatch};

pub use background::StreamsBackground;
pub use cors::Cors;
pub use options::StreamOptions;

pub(in crate::edge) use chunk::{Chunk, LAST as LAST_CHUNK};
pub(in crate::edge) use deliver::{Delivered, ReplyWriter, Written};
pub(in crate::edge) use reply::Reply;
pub(in crate::edge) use request::StreamRequest;
pub(in crate::edge) use session::joined;

use crate::telemetry::metrics::Metrics;

/// Durable Streams on a Pingora session. Clones share everything.
#[derive(Clone)]
pub struct DurableStreams {
    engine: Arc<Engine>,
    options: Arc<StreamOptions>,
    shutdown: ShutdownWatch,
    metrics: Arc<Metrics>,
    subscriptions: Option<Subscriptions>,
}

/// How a request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answered {
    /// The code of the problem that the response reported, if it did.
    pub problem: Option<&'static str>,
}

impl DurableStreams {
    /// Routes for the streams of `engine`. Live readers end when `shutdown` turns `true`.
    pub fn new(engine: Arc<Engine>, options: StreamOptions, shutdown: ShutdownWatch) -> Self {
        let options = Arc::new(options);
        DurableStreams { engine, options, shutdown, metrics: Arc::default(), subscriptions: None }
    }

    /// The engine that holds the streams.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// The counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Whether a URL path belongs to the streams.
    pub fn matches(&self, path: &str) -> bool {
        self.options.matches(path)
    }

    /// Answers a request whose path [`matches`](Self::matches). The response is written to its end.
    ///
    /// # Errors
    /// The client can no longer be written to. An append may have been committed all the same.
    pub async fn handle(&self, session: &mut ServerSession) -> pingora::Result<Answered> {
        let request = StreamRequest::parse(&self.options, session.req_header());
        let reply = self.reply(session, &self.options, request).await;
        let Delivered { problem, result, .. } = self.deliver(reply, session).await;
        result.map(|()| Answered { problem })
    }

    fn is_stopping(&self) -> bool {
        *self.shutdown.borrow()
    }
}
