//! Why access is refused, and what the response says about it.
//!
//! No text here repeats a credential, says whether a stream exists, or tells an unknown key from a wrong
//! one.

use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode};

/// What a rate or quota counts (`qu` of draft-ietf-httpapi-ratelimit-headers-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateUnit {
    /// Requests.
    Requests,
    /// Bytes of bodies.
    ContentBytes,
    /// Requests that are served at the same time: live readers.
    ConcurrentRequests,
}

/// A rate or quota that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {unit} that {policy} allows are used up; try again later")]
pub struct RateRefusal {
    /// What it is called in responses.
    pub policy: &'static str,
    /// What it counts.
    pub unit: RateUnit,
    /// How many of them it allows at once.
    pub quota: u64,
    /// Seconds in which so many become available again.
    pub window: Option<u64>,
    /// When the request would pass.
    pub retry_after: Duration,
}

impl std::fmt::Display for RateUnit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RateUnit::Requests => "requests",
            RateUnit::ContentBytes => "bytes",
            RateUnit::ConcurrentRequests => "live readers",
        })
    }
}

impl RateRefusal {
    /// The fields `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers-10.
    pub fn fields(&self) -> [(HeaderName, HeaderValue); 2] {
        let RateRefusal { policy, quota, .. } = self;
        let unit = match self.unit {
            RateUnit::Requests => "",
            RateUnit::ContentBytes => ";qu=\"content-bytes\"",
            RateUnit::ConcurrentRequests => ";qu=\"concurrent-requests\"",
        };
        let window = self.window.map(|seconds| format!(";w={seconds}")).unwrap_or_default();
        let after = whole_seconds(self.retry_after);
        let value = |text: String| {
            HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"rate\";r=0"))
        };
        [
            (POLICY, value(format!("\"{policy}\";q={quota}{unit}{window}"))),
            (LIMIT, value(format!("\"{policy}\";r=0;t={after}"))),
        ]
    }
}

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Up to the next whole second, at least one.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// 401: the request carries no credential that the provider looks for. A chain asks the next provider.
    #[error("this needs credentials; send them in the Authorization header")]
    NoCredentials,
    /// 401: the request carries a credential, but one that another provider issued, or none. A chain
    /// asks the next provider.
    #[error("the credentials are not known here")]
    UnknownCredentials,
    /// 401: the credential is this provider's, and is not valid. Final.
    #[error("the credentials are not valid: {0}")]
    InvalidCredentials(&'static str),
    /// 403: the principal may not do this.
    #[error("these credentials do not allow this operation here")]
    NotAllowed,
    /// 404, the same response as for a stream that does not exist: the principal may not even know whether
    /// it does.
    #[error("there is no stream here")]
    Hidden,
    /// 401 or 403 of the operator's authorization service, passed on.
    #[error("the authorization service refuses this")]
    Forwarded {
        /// 401 or 403.
        status: StatusCode,
        /// Its `WWW-Authenticate`.
        challenge: Option<HeaderValue>,
        /// Whether a public stream is readable all the same. Not if the service might have named a tenant, for whom the
        /// same URL is another stream.
        reads_public: bool,
    },
    /// 429: a quota or rate is used up.
    #[error("{0}")]
    RateLimited(RateRefusal),
    /// 503: whether the credential is valid cannot be found out now.
    #[error("credentials cannot be checked at the moment: {reason}")]
    Unavailable {
        /// Why, without names of machines or files.
        reason: &'static str,
    },
}

impl AccessError {
    /// The status code.
    pub fn status(&self) -> StatusCode {
        match self {
            AccessError::NoCredentials
            | AccessError::UnknownCredentials
            | AccessError::InvalidCredentials(_) => StatusCode::UNAUTHORIZED,
            AccessError::NotAllowed => StatusCode::FORBIDDEN,
            AccessError::Hidden => StatusCode::NOT_FOUND,
            AccessError::Forwarded { status, .. } => *status,
            AccessError::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            AccessError::Unavailable { .. } => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The machine-readable code of the problem body and of the audit log.
    pub fn code(&self) -> &'static str {
        match self {
            AccessError::NoCredentials => "no-credentials",
            AccessError::UnknownCredentials | AccessError::InvalidCredentials(_) => {
                "invalid-credentials"
            }
            AccessError::Forwarded { status: StatusCode::UNAUTHORIZED, .. } => {
                "invalid-credentials"
            }
            AccessError::NotAllowed | AccessError::Forwarded { .. } => "not-allowed",
            AccessError::Hidden => "not-found",
            AccessError::RateLimited(_) => "rate-limited",
            AccessError::Unavailable { .. } => "auth-unavailable",
        }
    }

    /// The `WWW-Authenticate` header of a 401 (RFC 6750, section 3).
    pub fn challenge(&self) -> Option<HeaderValue> {
        let text = match self {
            AccessError::NoCredentials => r#"Bearer realm="durable-streams""#,
            AccessError::UnknownCredentials | AccessError::InvalidCredentials(_) => {
                r#"Bearer realm="durable-streams", error="invalid_token""#
            }
            AccessError::Forwarded { challenge: Some(challenge), .. } => {
                return Some(challenge.clone());
            }
            AccessError::Forwarded { status: StatusCode::UNAUTHORIZED, .. } => {
                r#"Bearer realm="durable-streams""#
            }
            _ => return None,
        };
        Some(HeaderValue::from_static(text))
    }

    /// The `Retry-After` of a 429 or 503: whole seconds, at least one.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            AccessError::RateLimited(refusal) => Some(whole_seconds(refusal.retry_after)),
            AccessError::Unavailable { .. } => Some(1),
            _ => None,
        }
    }

    /// Whether a chain goes on to its next provider.
    pub fn is_not_mine(&self) -> bool {
        matches!(self, AccessError::NoCredentials | AccessError::UnknownCredentials)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_401_challenges_and_only_a_wait_says_how_long() {
        let refusal = RateRefusal {
            policy: "client",
            unit: RateUnit::Requests,
            quota: 200,
            window: Some(4),
            retry_after: Duration::from_millis(1_200),
        };
        let fields = |refusal: RateRefusal| {
            refusal.fields().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        };
        assert_eq!(
            fields(refusal),
            [r#"ratelimit-policy: "client";q=200;w=4"#, r#"ratelimit: "client";r=0;t=2"#]
        );
        let readers = RateRefusal { unit: RateUnit::ConcurrentRequests, window: None, ..refusal };
        assert_eq!(
            fields(readers)[0],
            r#"ratelimit-policy: "client";q=200;qu="concurrent-requests""#
        );
        let limited = AccessError::RateLimited(refusal);
        for (error, status, challenges, waits) in [
            (AccessError::NoCredentials, 401, true, None),
            (AccessError::UnknownCredentials, 401, true, None),
            (AccessError::InvalidCredentials("expired"), 401, true, None),
            (AccessError::NotAllowed, 403, false, None),
            (AccessError::Hidden, 404, false, None),
            (limited, 429, false, Some(2)),
            (AccessError::Unavailable { reason: "no keys yet" }, 503, false, Some(1)),
        ] {
            assert_eq!(error.status().as_u16(), status, "{error}");
            assert_eq!(error.challenge().is_some(), challenges, "{error}");
            assert_eq!(error.retry_after(), waits, "{error}");
        }
    }
}
