//! What went wrong with an order, and what an operator can do about it.

use std::{error::Error, fmt, time::Duration};

use instant_acme::Problem;

/// How long to stay away from an authority that says it was asked too often.
const RATE_LIMITED: Duration = Duration::from_secs(3600);

/// Why there is no certificate.
#[derive(Debug)]
pub(super) struct AcmeFailure {
    text: String,
    retry_after: Option<Duration>,
    stale_nonce: bool,
}

impl AcmeFailure {
    pub(super) fn new(what: &str, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        AcmeFailure {
            text: format!("{what}: {}", causes(&*error.into())),
            retry_after: None,
            stale_nonce: false,
        }
    }

    pub(super) fn storage(error: &super::storage::StorageError) -> Self {
        AcmeFailure { text: error.to_string(), retry_after: None, stale_nonce: false }
    }

    /// A failure of the ACME library, or the authority's refusal.
    pub(super) fn acme(what: &str, error: instant_acme::Error) -> Self {
        match error {
            instant_acme::Error::Api(problem) => Self::problem(what, &problem),
            other => Self::new(what, other),
        }
    }

    /// The authority's refusal, with advice where the kind of problem allows some.
    pub(super) fn problem(what: &str, problem: &Problem) -> Self {
        let kind = problem.r#type.as_deref().unwrap_or_default();
        let kind = kind.strip_prefix("urn:ietf:params:acme:error:").unwrap_or(kind);
        let detail = problem.detail.as_deref().unwrap_or("no detail");
        let mut text = format!("{what}: {detail} ({kind})");
        if let Some(advice) = advice(kind) {
            text.push_str("; ");
            text.push_str(advice);
        }
        let retry_after = (kind == "rateLimited").then_some(RATE_LIMITED);
        AcmeFailure { text, retry_after, stale_nonce: kind == "badNonce" }
    }

    /// The least wait before the next attempt, where the failure says one.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Whether the authority only refused the nonce of a request: nothing is wrong with the order, and
    /// RFC 8555 §6.5 has the client try again.
    pub(super) fn stale_nonce(&self) -> bool {
        self.stale_nonce
    }
}

impl fmt::Display for AcmeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn advice(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "connection" => {
            "the authority could not connect; port 80 (http-01) or 443 (tls-alpn-01) of this name must \
             reach this server from the internet"
        }
        "dns" => {
            "the authority could not resolve the name; it needs an A or AAAA record that leads here"
        }
        "unauthorized" | "incorrectResponse" => {
            "another server answered; the name resolves to another machine, or something in front of this \
             server answers for it"
        }
        "tls" => "the handshake on port 443 failed; something in front of this server may end TLS",
        "caa" => "a CAA record of the domain forbids this authority",
        "rateLimited" => {
            "the authority was asked too often; the certificate in use stays, nothing is lost"
        }
        "externalAccountRequired" => "this authority needs acme.external_account",
        "rejectedIdentifier" => "the authority does not issue for this name",
        "accountDoesNotExist" => {
            "the kept account is unknown to the authority; remove account.json"
        }
        _ => return None,
    })
}

/// An error with its causes.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
