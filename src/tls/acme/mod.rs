//! Certificates that the server orders from an ACME server (RFC 8555) and renews itself.
//!
//! | file | what it is |
//! |---|---|
//! | `options` | which authority, which account, which names |
//! | `account` | the account, made once and kept |
//! | `storage` | what is kept on disk: account, certificates, failed attempts |
//! | `attempts` | when an order may be tried again |
//! | `renewal` | when a certificate is due |
//! | `challenges` | answers to HTTP-01 and TLS-ALPN-01 |
//! | `order` | one order, from request to certificate |
//! | `failure` | what went wrong, and what an operator can do about it |
//! | `http_client` | the ACME library's requests, made by reqwest |
//!
//! Invariants
//! - An attempt is written down before it is made. A process that is restarted again and again makes no more
//!   attempts than one that keeps running, so a crash loop cannot use up the authority's limits.
//! - A certificate is served until another one replaces it; a failed renewal changes nothing but the log,
//!   a metric and the time of the next attempt.
//! - One certificate per name: a name that cannot be validated does not hold up the others.

mod account;
mod attempts;
mod challenges;
mod failure;
mod http_client;
mod options;
mod order;
mod renewal;
mod storage;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use durable_streams_engine::Clock;
use durable_streams_protocol::Timestamp;
use instant_acme::Account;
use parking_lot::Mutex;

pub use challenges::HttpChallenges;
pub use options::{AcmeOptions, ChallengeKind, ExternalAccount};

use attempts::Attempts;
use challenges::Challenges;
use failure::AcmeFailure;
pub use storage::StorageError;

use storage::AcmeStorage;

use super::{
    certificate::{CertificateFacts, LoadedCertificate},
    listener::TlsListener,
    resolver::AlpnChallenges,
};

/// The longest time between two looks at what is due: clocks jump and machines sleep.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// How one name stands, for `/readyz`, metrics and the admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostCertificate {
    /// The name.
    pub host: String,
    /// What its certificate says; `None` while there is none.
    pub certificate: Option<CertificateFacts>,
    /// Why the last attempt failed, if it did.
    pub failure: Option<String>,
    /// Attempts that failed in a row.
    pub failures: u32,
    /// When the next attempt is made.
    pub next_attempt: Option<Timestamp>,
}

/// What is in memory of one name.
#[derive(Clone, Default)]
struct HostState {
    certificate: Option<LoadedCertificate>,
    attempts: Attempts,
    failure: Option<String>,
    /// When the certificate is due, once that is decided.
    renew_at: Option<Timestamp>,
}

/// Orders and renews the certificates of all listeners that have `tls: auto`.
pub struct CertificateManager {
    options: AcmeOptions,
    clock: Clock,
    storage: AcmeStorage,
    challenges: Challenges,
    listeners: Vec<Arc<TlsListener>>,
    hosts: Mutex<BTreeMap<String, HostState>>,
}

impl CertificateManager {
    /// Takes what is kept on disk and serves it; `listeners` are those that have [`CertificateSource::Automatic`].
    ///
    /// # Errors
    /// The storage directory cannot be used.
    ///
    /// [`CertificateSource::Automatic`]: super::CertificateSource::Automatic
    pub fn open(
        options: AcmeOptions,
        listeners: Vec<Arc<TlsListener>>,
        alpn: Arc<AlpnChallenges>,
        clock: Clock,
    ) -> Result<Self, StorageError> {
        let storage = AcmeStorage::open(&options)?;
        let now = clock.now();
        let mut hosts = BTreeMap::new();
        for host in &options.hosts {
            let state = HostState {
                // One that cannot be used any more is ordered again.
                certificate: storage.certificate(host, now),
                attempts: storage.attempts(host),
                ..HostState::default()
            };
            hosts.insert(host.clone(), state);
        }
        let challenges = Challenges::new(alpn);
        let manager = CertificateManager {
            options,
            clock,
            storage,
            challenges,
            listeners,
            hosts: Mutex::new(hosts),
        };
        manager.serve();
        Ok(manager)
    }

    /// Answers to HTTP-01, for the listener on port 80.
    pub fn http_challenges(&self) -> Arc<HttpChallenges> {
        self.challenges.http.clone()
    }

    /// How each name stands.
    pub fn status(&self) -> Vec<HostCertificate> {
        let hosts = self.hosts.lock();
        hosts
            .iter()
            .map(|(host, state)| HostCertificate {
                host: host.clone(),
                certificate: state.certificate.as_ref().map(|one| one.facts.clone()),
                failure: state.failure.clone(),
                failures: state.attempts.failures,
                next_attempt: state.attempts.next.or(state.renew_at),
            })
            .collect()
    }

    /// Orders what is missing and renews what is due, until the future is dropped.
    pub async fn run(&self) {
        loop {
            let wait = self.run_due().await;
            tokio::time::sleep(wait).await;
        }
    }

    /// One round over all names. Returns how long nothing is due.
    async fn run_due(&self) -> Duration {
        let mut account = None;
        let mut wait = LONGEST_WAIT;
        for host in &self.options.hosts {
            let due = self.due(host, &mut account).await;
            let now = self.clock.now();
            if due <= now {
                self.attempt(host, &mut account).await;
            }
            let next = self.hosts.lock().get(host).and_then(HostState::next).unwrap_or(now);
            let millis = next.millis().saturating_sub(self.clock.now().millis());
            wait = wait.min(Duration::from_millis(millis.max(500)));
        }
        wait
    }

    /// When an order for this name is due. Asks the authority for a certificate's renewal window (RFC 9773).
    async fn due(&self, host: &str, account: &mut Option<Account>) -> Timestamp {
        let state = self.hosts.lock().get(host).cloned().unwrap_or_default();
        let not_before = state.attempts.next.unwrap_or_default();
        let Some(certificate) = state.certificate else { return not_before };
        let asked = match self.account(account).await {
            Ok(account) => renewal::window(account, &certificate).await,
            Err(_) => None,
        };
        let due = renewal::due(host, &certificate.facts, asked);
        if let Some(state) = self.hosts.lock().get_mut(host) {
            state.renew_at = Some(due);
        }
        due.max(not_before)
    }

    async fn account<'a>(
        &self,
        known: &'a mut Option<Account>,
    ) -> Result<&'a Account, AcmeFailure> {
        let account = match known.take() {
            Some(account) => account,
            None => account::open(&self.options, &self.storage).await?,
        };
        Ok(known.insert(account))
    }

    async fn attempt(&self, host: &str, account: &mut Option<Account>) {
        let (attempts, replaces) = {
            let hosts = self.hosts.lock();
            let Some(state) = hosts.get(host) else { return };
            (state.attempts.clone(), state.certificate.clone())
        };
        let begun = attempts.begin(self.clock.now());
        if let Err(error) = self.storage.keep_attempts(host, &begun) {
            // Without a record a crash loop could use up the authority's limits.
            self.failed(host, begun, AcmeFailure::storage(&error));
            return;
        }
        let kind = self.options.challenge(attempts.failures);
        tracing::info!(host, challenge = kind.name(), "ordering a certificate");
        let ordered = match self.account(account).await {
            Ok(account) => {
                let replaces = replaces.as_ref().and_then(renewal::identifier);
                order::order(account, host, kind, &self.challenges, replaces).await
            }
            Err(failure) => Err(failure),
        };
        match ordered.and_then(|issued| self.accept(host, &issued)) {
            Ok(certificate) => self.succeeded(host, certificate),
            Err(failure) => self.failed(host, begun, failure),
        }
    }

    /// Keeps and judges a new certificate.
    fn accept(&self, host: &str, issued: &str) -> Result<LoadedCertificate, AcmeFailure> {
        let now = self.clock.now();
        self.storage
            .keep_certificate(host, issued)
            .map_err(|error| AcmeFailure::storage(&error))?;
        self.storage
            .load(host, now)
            .map_err(|error| AcmeFailure::new("the issued certificate cannot be used", error))
    }

    fn succeeded(&self, host: &str, certificate: LoadedCertificate) {
        let until = certificate.facts.not_after.to_string();
        if let Err(error) = self.storage.forget_attempts(host) {
            tracing::warn!(host, %error, "the record of attempts stays");
        }
        if let Some(state) = self.hosts.lock().get_mut(host) {
            *state = HostState { certificate: Some(certificate), ..HostState::default() };
        }
        self.serve();
        tracing::info!(host, until, "certificate issued");
    }

    fn failed(&self, host: &str, begun: Attempts, failure: AcmeFailure) {
        let attempts = begun.postponed(self.clock.now(), failure.retry_after());
        let next = attempts.next.map(|next| next.to_string());
        if let Err(error) = self.storage.keep_attempts(host, &attempts) {
            tracing::warn!(host, %error, "the record of attempts cannot be written");
        }
        let served = self.hosts.lock().get(host).and_then(|state| {
            state.certificate.as_ref().map(|one| one.facts.not_after.to_string())
        });
        tracing::error!(
            host,
            failures = attempts.failures,
            next_attempt = next,
            serving_until = served,
            "no certificate: {failure}"
        );
        if let Some(state) = self.hosts.lock().get_mut(host) {
            state.failure = Some(failure.to_string());
            state.attempts = attempts;
        }
    }

    /// Gives every listener the certificates of its names.
    fn serve(&self) {
        let hosts = self.hosts.lock();
        for listener in &self.listeners {
            let wanted = &listener.options().hosts;
            let certificates =
                wanted.iter().filter_map(|host| hosts.get(host)?.certificate.clone()).collect();
            listener.replace(certificates);
        }
    }
}

impl HostState {
    /// When something is to be done next.
    fn next(&self) -> Option<Timestamp> {
        match (&self.certificate, self.attempts.next) {
            (None, next) => next,
            (Some(_), None) => self.renew_at,
            (Some(_), Some(next)) => Some(self.renew_at.unwrap_or_default().max(next)),
        }
    }
}
