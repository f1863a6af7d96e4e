//! The work beside the handshakes: files that change, certificates that run out, orders.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use durable_streams_engine::{Clock, counters::RelaxedCounter};
use durable_streams_protocol::Timestamp;
use parking_lot::Mutex;
use pingora::{server::ShutdownWatch, services::background::BackgroundService};

use super::{
    AlpnChallenges, CertificateError, CertificateFacts, CertificateSource, TlsListener, TlsOptions,
    acme::{AcmeOptions, CertificateManager, HostCertificate, HttpChallenges, StorageError},
    files::WatchedFiles,
    handshake::{HandshakeFailure, Handshakes},
};

/// Between two looks at certificate files.
const FILE_INTERVAL: Duration = Duration::from_secs(10);
/// Certificates of the internal authority are made again when less than this is left of them.
const INTERNAL_LEFT: Duration = Duration::from_secs(10 * 86_400);
/// From when on the log warns that a certificate from files runs out.
const WARNING_LEFT: Duration = Duration::from_secs(14 * 86_400);
/// Between two such warnings.
const WARNING_INTERVAL: Duration = Duration::from_secs(86_400);

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate, a key or a file of authorities.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The storage of ordered certificates.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Everything that listens with TLS. One per server.
pub struct TlsService {
    clock: Clock,
    listeners: Vec<Arc<TlsListener>>,
    manager: Option<CertificateManager>,
    handshakes: Handshakes,
    counts: HandshakeCounts,
    watched: Mutex<Vec<WatchedFiles>>,
}

impl std::fmt::Debug for TlsService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsService").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

/// Handshakes since the start.
#[derive(Debug, Default)]
struct HandshakeCounts {
    completed: RelaxedCounter,
    failed: [RelaxedCounter; HandshakeFailure::ALL.len()],
}

impl TlsService {
    /// Reads every certificate, and the ones that were ordered before. `acme` is used where a listener has
    /// [`CertificateSource::Automatic`]; its hosts are those of the listeners.
    ///
    /// # Errors
    /// The first certificate, key or directory that cannot be used.
    pub fn open(
        listeners: Vec<TlsOptions>,
        acme: AcmeOptions,
        handshake_timeout: Duration,
        clock: Clock,
    ) -> Result<Self, TlsError> {
        let challenges = Arc::<AlpnChallenges>::default();
        let now = clock.now();
        let mut opened = Vec::new();
        let mut watched = Vec::new();
        for options in listeners {
            watched.push(WatchedFiles::of(&options));
            opened.push(Arc::new(TlsListener::new(options, challenges.clone(), now)?));
        }
        let is_automatic =
            |one: &&Arc<TlsListener>| one.options().source == CertificateSource::Automatic;
        let automatic: Vec<_> = opened.iter().filter(is_automatic).cloned().collect();
        let manager = if automatic.is_empty() {
            None
        } else {
            let mut hosts: Vec<String> =
                automatic.iter().flat_map(|one| one.options().hosts.clone()).collect();
            hosts.sort_unstable();
            hosts.dedup();
            let acme = AcmeOptions { hosts, ..acme };
            Some(CertificateManager::open(acme, automatic, challenges, clock.clone())?)
        };
        Ok(TlsService {
            clock,
            listeners: opened,
            manager,
            handshakes: Handshakes::new(handshake_timeout),
            counts: HandshakeCounts::default(),
            watched: Mutex::new(watched),
        })
    }

    /// The listeners, in the order of their options.
    pub fn listeners(&self) -> &[Arc<TlsListener>] {
        &self.listeners
    }

    /// The bounds of handshakes.
    pub(crate) fn handshakes(&self) -> &Handshakes {
        &self.handshakes
    }

    /// Counts a handshake, and logs a failed one at `debug`: a client can cause as many as it likes.
    pub(crate) fn note_handshake(
        &self,
        result: Result<(), HandshakeFailure>,
        client: std::net::IpAddr,
    ) {
        match result {
            Ok(()) => self.counts.completed.add(1),
            Err(failure) => {
                if let Some(count) = self.counts.failed.get(failure as usize) {
                    count.add(1);
                }
                tracing::debug!(%client, reason = failure.label(), "TLS handshake failed");
            }
        }
    }

    /// Completed handshakes, and failed ones by reason.
    pub fn handshake_counts(&self) -> (u64, impl Iterator<Item = (&'static str, u64)>) {
        let failed = HandshakeFailure::ALL.iter().zip(&self.counts.failed);
        let failed = failed.map(|(failure, count)| (failure.label(), count.get()));
        (self.counts.completed.get(), failed)
    }

    /// Every certificate in use.
    pub fn certificates(&self) -> Vec<CertificateFacts> {
        self.listeners.iter().flat_map(|one| one.facts()).collect()
    }

    /// How each ordered name stands.
    pub fn ordered(&self) -> Vec<HostCertificate> {
        self.manager.as_ref().map(CertificateManager::status).unwrap_or_default()
    }

    /// Answers to HTTP-01, where certificates are ordered.
    pub fn http_challenges(&self) -> Option<Arc<HttpChallenges>> {
        self.manager.as_ref().map(CertificateManager::http_challenges)
    }

    /// Names that clients cannot be served under yet, and why.
    pub fn missing(&self) -> Option<String> {
        let ordered = self.ordered();
        let missing = ordered.iter().find(|one| one.certificate.is_none())?;
        let reason = match &missing.failure {
            Some(failure) => format!("the last attempt failed: {failure}"),
            None => "it is being ordered".to_owned(),
        };
        Some(format!("no certificate for {} yet: {reason}", missing.host))
    }

    /// Reads every file again.
    ///
    /// # Errors
    /// The first file that cannot be used. The listener it belongs to keeps what it has, and so do those
    /// behind it.
    pub fn reload(&self) -> Result<(), CertificateError> {
        let now = self.clock.now();
        self.listeners.iter().try_for_each(|listener| listener.reload(now))
    }

    fn look_at_files(&self) {
        let now = self.clock.now();
        let mut watched = self.watched.lock();
        for (listener, files) in self.listeners.iter().zip(watched.iter_mut()) {
            let runs_out = listener.options().source.is_internal()
                && listener.facts().iter().any(|one| left(one, now) < INTERNAL_LEFT);
            if !files.changed() && !runs_out {
                continue;
            }
            match listener.reload(now) {
                Ok(()) => tracing::info!(names = names(&listener.facts()), "certificates reloaded"),
                Err(error) => {
                    tracing::error!("certificates not reloaded, those in use stay: {error}")
                }
            }
        }
    }

    /// Warns about certificates that nothing here renews.
    fn warn(&self) {
        let now = self.clock.now();
        for listener in &self.listeners {
            if !matches!(listener.options().source, CertificateSource::Files(_)) {
                continue;
            }
            for facts in listener.facts() {
                let days = left(&facts, now).as_secs() / 86_400;
                if left(&facts, now) < WARNING_LEFT {
                    tracing::warn!(names = facts.names.join(", "), days, "a certificate runs out");
                }
                if facts.lacks_issuer {
                    tracing::warn!(
                        names = facts.names.join(", "),
                        "the file holds no intermediate certificate; clients that do not trust its issuer \
                         itself refuse it; use the full chain"
                    );
                }
            }
        }
    }
}

#[async_trait]
impl BackgroundService for TlsService {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let files = async {
            loop {
                tokio::time::sleep(FILE_INTERVAL).await;
                self.look_at_files();
            }
        };
        let warnings = async {
            loop {
                self.warn();
                tokio::time::sleep(WARNING_INTERVAL).await;
            }
        };
        let orders = async {
            match &self.manager {
                Some(manager) => manager.run().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = files => {}
            () = warnings => {}
            () = orders => {}
            _ = shutdown.wait_for(|stopping| *stopping) => {}
        }
    }
}

/// How long a certificate is still valid.
fn left(facts: &CertificateFacts, now: Timestamp) -> Duration {
    Duration::from_millis(facts.not_after.millis().saturating_sub(now.millis()))
}

fn names(facts: &[CertificateFacts]) -> String {
    facts.iter().flat_map(|one| one.names.clone()).collect::<Vec<_>>().join(", ")
}
