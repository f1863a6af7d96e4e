#![doc = include_str!("../README.md")]
//!
//! | module | what it does |
//! |---|---|
//! | `http` | control requests in, responses out |
//! | `access` | what the client of a request may do, as the embedding server decides it |
//! | `requests`, `create` | what each request does |
//! | `cell` | one subscription: its lock, its state, its log |
//! | `inspect` | what operators see of subscriptions, and do with them |
//! | `driver` | wakes, expiries and retries: what happens without a request |
//! | `recover` | after a restart: replay the logs, then read the tails of the streams |
//! | `watcher` | from a stream's append to the subscriptions that link it |
//! | `delivery`, `lanes` | posting to webhooks, and which deliveries wait for each other |
//! | `webhook` | the HTTP client as a trait |
//! | `announce` | appending to wake streams |
//! | `state_log` | the reserved streams that hold the state |
//! | `keys` | the keys that sign webhooks and tokens |
//! | `link_budget` | the bound on links over all subscriptions |
//! | `deadlines`, `options` | the driver's timer queue; the settings |
//!
//! Invariants
//! - Every change is committed to the subscription's log before a response or a delivery shows it. Each runs
//!   in a task of its own, so a client that disconnects cannot stop it halfway.
//! - One lock per subscription, held over its commit: a slow subscription delays only itself.
//! - Pending work is never stored: it is the distance between a stream's durable tail and the cursor, read
//!   again after a restart.

mod access;
mod announce;
mod cell;
mod create;
mod deadlines;
mod delivery;
mod driver;
mod http;
mod inspect;
mod keys;
mod lanes;
mod link_budget;
mod options;
mod recover;
mod requests;
mod state_log;
mod watcher;
mod webhook;

use std::{future::Future, sync::Arc};

use tokio::sync::mpsc;

pub use access::{ControlAccess, ControlAuthority};
pub use http::{ControlRequest, ControlResponse};
pub use inspect::{DeliveryFailure, SubscriptionPhase, SubscriptionReport, SubscriptionScope};
pub use keys::{KeyError, KeyFile, KeySource, REPLAY_WINDOW_MILLIS};
pub use options::SubscriptionOptions;
pub use webhook::{WebhookClient, WebhookError, WebhookRequest, WebhookResponse};

use cell::{SubscriptionCell, SubscriptionRegistry};
use deadlines::DeadlineQueue;
use durable_streams_engine::{Engine, StreamObserver};
use durable_streams_protocol::subscription::{Refusal, WakeId};
use inspect::DeliveryCounts;
use lanes::DeliveryLanes;
use link_budget::LinkBudget;
use watcher::StreamWatcher;

/// All subscriptions of a server. Cheap to clone.
#[derive(Clone)]
pub struct Subscriptions {
    shared: Arc<SubscriptionsInner>,
}

struct SubscriptionsInner {
    engine: Arc<Engine>,
    options: SubscriptionOptions,
    keys: keys::KeyRing,
    registry: SubscriptionRegistry,
    watcher: Arc<StreamWatcher>,
    deadlines: DeadlineQueue,
    webhooks: Arc<dyn WebhookClient>,
    lanes: DeliveryLanes,
    links: Arc<LinkBudget>,
    deliveries: DeliveryCounts,
    /// The driver's queue; it holds each cell at most once.
    ready: mpsc::UnboundedSender<Arc<SubscriptionCell>>,
}

/// Sends wakes and ends leases: run it in the background of the server.
pub struct WakeDriver {
    shared: Arc<SubscriptionsInner>,
    ready: mpsc::UnboundedReceiver<Arc<SubscriptionCell>>,
}

/// Why subscriptions cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The key file cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The engine failed while the stored subscriptions were read.
    #[error("cannot read the stored subscriptions: {0}")]
    Store(String),
}

impl Subscriptions {
    /// Reads the stored subscriptions and begins to watch streams. Wakes go out through `webhooks` once the
    /// driver runs.
    ///
    /// # Errors
    /// [`OpenError`]. A damaged log is logged and skipped; the other subscriptions work.
    pub async fn open(
        engine: Arc<Engine>,
        options: SubscriptionOptions,
        webhooks: Arc<dyn WebhookClient>,
    ) -> Result<(Subscriptions, WakeDriver), OpenError> {
        let keys = keys::KeyRing::open(options.keys.clone(), engine.now())?;
        let lanes = DeliveryLanes::new(options.max_deliveries, options.max_retries);
        let (ready, queue) = mpsc::unbounded_channel();
        let shared = Arc::new(SubscriptionsInner {
            engine,
            options,
            keys,
            registry: SubscriptionRegistry::default(),
            watcher: Arc::new(StreamWatcher::default()),
            deadlines: DeadlineQueue::default(),
            webhooks,
            lanes,
            links: Arc::default(),
            deliveries: DeliveryCounts::default(),
            ready,
        });
        shared.engine.observe(shared.watcher.clone());
        shared.recover().await.map_err(|error| OpenError::Store(error.to_string()))?;
        let driver = WakeDriver { shared: shared.clone(), ready: queue };
        Ok((Subscriptions { shared }, driver))
    }

    /// The observer that [`open`](Self::open) registered with the engine.
    pub fn observer(&self) -> Arc<dyn StreamObserver> {
        self.shared.watcher.clone()
    }

    /// Makes the driver read the clock now instead of at the next deadline, for tests with a manual clock.
    pub fn tick(&self) {
        self.shared.watcher.nudge();
    }

    /// The number of subscriptions.
    pub fn len(&self) -> usize {
        self.shared.registry.len()
    }

    /// Whether there are no subscriptions.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Runs `work` in a task of its own, which goes on when the caller stops waiting.
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

/// Cryptographically secure random bytes.
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
