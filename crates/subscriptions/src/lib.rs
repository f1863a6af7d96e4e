//! Subscriptions at run time (§6, §7): wake workers when streams have work.
//!
//! | file | what it is |
//! |---|---|
//! | `http` | control requests in, responses out |
//! | `requests` | what each request does |
//! | `entry` | one subscription: its lock, its state, its log |
//! | `drive` | what happens by itself: wakes, expiries, retries |
//! | `recover` | after a restart: read the logs, then look at the streams |
//! | `watch` | from a stream's append to the subscriptions that link it |
//! | `webhook`, `lanes` | the HTTP client as a trait, and which deliveries wait for each other |
//! | `log` | the reserved streams that hold the state |
//! | `keys`, `timers`, `options` | what they say |
//!
//! Invariants
//! - Every change is committed to the subscription's log before anybody is told of it, and each is made
//!   in a task of its own, so a client that leaves cannot leave half a change.
//! - One lock per subscription, held over its commit: a slow one delays only itself.
//! - Nothing is lost by forgetting: what is pending comes from the streams and the cursors.

mod drive;
mod entry;
mod http;
mod keys;
mod lanes;
mod log;
mod options;
mod recover;
mod requests;
mod timers;
mod watch;
mod webhook;

use std::{future::Future, sync::Arc};

use tokio::sync::mpsc;

pub use http::ControlResponse;
pub use keys::{KeyError, KeyFile, KeySource, REPLAY_WINDOW_MILLIS};
pub use options::Options;
pub use webhook::{WebhookClient, WebhookError, WebhookRequest, WebhookResponse};

use durable_streams_engine::{Engine, StreamObserver};
use durable_streams_protocol::subscription::{Refusal, WakeId};
use entry::{Entry, Registry};
use lanes::DeliveryLanes;
use timers::Timers;
use watch::Watcher;

/// All subscriptions of a server. Cheap to clone.
#[derive(Clone)]
pub struct Subscriptions {
    shared: Arc<Shared>,
}

struct Shared {
    engine: Arc<Engine>,
    options: Options,
    keys: keys::Keys,
    registry: Registry,
    watcher: Arc<Watcher>,
    timers: Timers,
    webhooks: Arc<dyn WebhookClient>,
    lanes: DeliveryLanes,
    /// Subscriptions to drive; each is in it at most once.
    ready: mpsc::UnboundedSender<Arc<Entry>>,
}

/// Drives subscriptions: run it in the background of the server.
pub struct Driver {
    shared: Arc<Shared>,
    ready: mpsc::UnboundedReceiver<Arc<Entry>>,
}

/// Why subscriptions cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The key file.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The stored state.
    #[error("cannot read the stored subscriptions: {0}")]
    Store(String),
}

impl Subscriptions {
    /// Reads the stored subscriptions and begins to watch streams. Wakes go out through `webhooks` once the
    /// driver runs.
    ///
    /// # Errors
    /// [`OpenError`]. A log that is damaged is reported and left alone; the others work.
    pub async fn open(
        engine: Arc<Engine>,
        options: Options,
        webhooks: Arc<dyn WebhookClient>,
    ) -> Result<(Subscriptions, Driver), OpenError> {
        let keys = keys::Keys::open(options.keys.clone(), engine.now())?;
        let lanes = DeliveryLanes::new(options.max_deliveries, options.max_retries);
        let (ready, queue) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            engine,
            options,
            keys,
            registry: Registry::default(),
            watcher: Arc::new(Watcher::default()),
            timers: Timers::default(),
            webhooks,
            lanes,
            ready,
        });
        shared.engine.observe(shared.watcher.clone());
        shared.recover().await.map_err(|error| OpenError::Store(error.to_string()))?;
        let driver = Driver { shared: shared.clone(), ready: queue };
        Ok((Subscriptions { shared }, driver))
    }

    /// Hears of appends; the engine is told of it by [`open`](Self::open).
    pub fn observer(&self) -> Arc<dyn StreamObserver> {
        self.shared.watcher.clone()
    }

    /// Looks at the clock now instead of when the next timer was expected to end: for clocks moved by hand.
    pub fn tick(&self) {
        self.shared.watcher.nudge();
    }

    /// Subscriptions that exist.
    pub fn len(&self) -> usize {
        self.shared.registry.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Runs `work` in a task of its own and waits for it.
    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        match tokio::spawn(work).await {
            Ok(done) => done,
            Err(_) => Err(Refusal::Unavailable("the server is shutting down".into())),
        }
    }
}

/// Random bytes that cannot be guessed.
fn secret<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(clippy::expect_used, reason = "without randomness nothing here is safe to go on")]
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes)
        .expect("the system has random numbers");
    bytes
}

fn wake_id() -> WakeId {
    WakeId::from_random(secret())
}
