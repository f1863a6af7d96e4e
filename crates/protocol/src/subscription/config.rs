//! A subscription's configuration (§6.2): parsed, normalized, hashed.

use std::fmt;

use ring::digest;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Glob, Refusal};
use crate::{StreamPath, TenantId};

/// The longest subscription id, bytes.
pub const MAX_ID_BYTES: usize = 256;
/// The longest description, bytes.
const MAX_DESCRIPTION_BYTES: usize = 4096;
/// Most explicit streams in one request.
pub(super) const MAX_STREAMS_PER_REQUEST: usize = 10_000;
/// Bounds and default of `lease_ttl_ms` (§6.2).
const LEASE_MILLIS: std::ops::RangeInclusive<u64> = 1_000..=600_000;
const DEFAULT_LEASE_MILLIS: u64 = 30_000;

/// The client's name for a subscription: 1 to [`MAX_ID_BYTES`] bytes without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SubscriptionId(String);

impl SubscriptionId {
    /// Checks a decoded id.
    ///
    /// # Errors
    /// [`Refusal::InvalidRequest`].
    pub fn new(text: &str) -> Result<Self, Refusal> {
        if text.is_empty() || text.len() > MAX_ID_BYTES || text.chars().any(char::is_control) {
            return Err(Refusal::InvalidRequest(format!(
                "the subscription id must have 1 to {MAX_ID_BYTES} bytes and no control characters"
            )));
        }
        Ok(SubscriptionId(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What identifies a subscription: its id, below the root of a tenant or of none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubscriptionName {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    pub id: SubscriptionId,
}

impl SubscriptionName {
    /// The tenant's name.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_ref().map(TenantId::as_str)
    }
}

/// How wakes reach workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum DeliveryConfig {
    /// Posted to a URL (§7.1).
    Webhook {
        /// The URL as the client wrote it.
        url: String,
    },
    /// Written to a stream, then claimed (§7.2).
    PullWake { wake_stream: StreamPath },
}

/// A normalized configuration. Equal ones have equal [`hash`](Self::hash)es.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionConfig {
    pub delivery: DeliveryConfig,
    /// Links every stream that it matches.
    pub pattern: Option<Glob>,
    /// Explicit streams, sorted, each once.
    pub streams: Vec<StreamPath>,
    /// How long a worker may hold a wake without an ack, milliseconds.
    pub lease_ttl_ms: u64,
    pub description: Option<String>,
}

impl SubscriptionConfig {
    /// SHA-256 over the normalized configuration, hexadecimal.
    pub fn hash(&self) -> String {
        let canonical = json!({
            "delivery": self.delivery,
            "pattern": self.pattern,
            "streams": self.streams,
            "lease_ttl_ms": self.lease_ttl_ms,
            "description": self.description,
        });
        let digest = digest::digest(&digest::SHA256, canonical.to_string().as_bytes());
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether the pattern links this stream. The pattern never links the subscription's own
    /// wake stream, where every wake would cause the next.
    pub fn matches(&self, path: &StreamPath) -> bool {
        let own = matches!(&self.delivery, DeliveryConfig::PullWake { wake_stream } if wake_stream == path);
        !own && self.pattern.as_ref().is_some_and(|pattern| pattern.matches(path.as_str()))
    }
}

/// The body of a `PUT`, not yet validated.
#[derive(Clone, Debug, Deserialize)]
pub struct CreateRequest {
    #[serde(rename = "type")]
    kind: Option<String>,
    pattern: Option<String>,
    streams: Option<Vec<String>>,
    webhook: Option<WebhookField>,
    wake_stream: Option<String>,
    lease_ttl_ms: Option<u64>,
    description: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct WebhookField {
    url: Option<String>,
}

impl CreateRequest {
    /// Normalizes the request. [`WebhookTarget::parse`](super::WebhookTarget::parse) judges
    /// the webhook URL.
    ///
    /// # Errors
    /// [`Refusal::InvalidRequest`].
    pub fn into_config(self) -> Result<SubscriptionConfig, Refusal> {
        let delivery = match self.kind.as_deref() {
            Some("webhook") => DeliveryConfig::Webhook {
                url: present(self.webhook.and_then(|webhook| webhook.url))
                    .ok_or_else(|| invalid("a webhook subscription needs webhook.url"))?,
            },
            Some("pull-wake") => {
                let stream = present(self.wake_stream)
                    .ok_or_else(|| invalid("a pull-wake subscription needs wake_stream"))?;
                DeliveryConfig::PullWake { wake_stream: stream_path("wake_stream", &stream)? }
            }
            _ => return Err(invalid(r#"type must be "webhook" or "pull-wake""#)),
        };
        let pattern = present(self.pattern)
            .map(|text| Glob::parse(text.trim_start_matches('/')).map_err(Refusal::InvalidRequest))
            .transpose()?;
        let streams = stream_paths(&self.streams.unwrap_or_default())?;
        if pattern.is_none() && streams.is_empty() {
            return Err(invalid("give pattern, streams, or both"));
        }
        if let DeliveryConfig::PullWake { wake_stream } = &delivery
            && streams.contains(wake_stream)
        {
            return Err(invalid("wake_stream cannot be one of the subscription's own streams"));
        }
        let lease_ttl_ms = self.lease_ttl_ms.unwrap_or(DEFAULT_LEASE_MILLIS);
        if !LEASE_MILLIS.contains(&lease_ttl_ms) {
            return Err(invalid("lease_ttl_ms must be an integer from 1000 to 600000"));
        }
        if self.description.as_ref().is_some_and(|text| text.len() > MAX_DESCRIPTION_BYTES) {
            return Err(invalid("description is longer than 4096 bytes"));
        }
        Ok(SubscriptionConfig {
            delivery,
            pattern,
            streams,
            lease_ttl_ms,
            description: self.description,
        })
    }
}

/// Checks, sorts and deduplicates explicit streams.
pub(super) fn stream_paths(texts: &[String]) -> Result<Vec<StreamPath>, Refusal> {
    if texts.len() > MAX_STREAMS_PER_REQUEST {
        return Err(Refusal::TooMany {
            what: "streams per request",
            limit: MAX_STREAMS_PER_REQUEST,
        });
    }
    let paths = texts.iter().map(|text| stream_path("streams", text));
    let mut paths = paths.collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    paths.dedup();
    Ok(paths)
}

/// A stream-root-relative path; a leading slash is ignored.
fn stream_path(field: &str, text: &str) -> Result<StreamPath, Refusal> {
    StreamPath::new(text.trim_start_matches('/'))
        .map_err(|error| invalid(&format!("{field}: {text:?}: {error}")))
}

fn present(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn invalid(message: &str) -> Refusal {
    Refusal::InvalidRequest(message.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: serde_json::Value) -> Result<SubscriptionConfig, Refusal> {
        serde_json::from_value::<CreateRequest>(body).unwrap().into_config()
    }

    #[test]
    fn order_repetition_and_defaults_do_not_change_the_hash() {
        let a = parse(json!({"type": "webhook", "webhook": {"url": "https://w.example/"},
            "streams": ["b", "a", "/a"], "lease_ttl_ms": 30000, "wake_stream": "ignored"}));
        let b = parse(json!({"type": "webhook", "webhook": {"url": "https://w.example/"},
            "streams": ["a", "b"], "pattern": null}));
        let (a, b) = (a.unwrap(), b.unwrap());
        assert_eq!((&a, a.hash()), (&b, b.hash()));
        for change in [
            json!({"streams": ["a"]}),
            json!({"pattern": "x/*"}),
            json!({"lease_ttl_ms": 30001}),
            json!({"description": "d"}),
            json!({"webhook": {"url": "https://v.example/"}}),
            json!({"type": "pull-wake", "wake_stream": "w"}),
        ] {
            let mut body = json!({"type": "webhook", "webhook": {"url": "https://w.example/"},
                "streams": ["a", "b"]});
            body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            assert_ne!(parse(body).unwrap().hash(), a.hash(), "{change}");
        }
    }

    #[test]
    fn bad_requests_say_what_to_change() {
        for (body, word) in [
            (json!({}), "type"),
            (json!({"type": "email"}), "type"),
            (json!({"type": "webhook", "pattern": "*"}), "webhook.url"),
            (json!({"type": "pull-wake", "pattern": "*"}), "wake_stream"),
            (json!({"type": "pull-wake", "wake_stream": "w"}), "pattern"),
            (json!({"type": "pull-wake", "wake_stream": "w", "streams": ["w"]}), "wake_stream"),
            (json!({"type": "pull-wake", "wake_stream": "__ds/x", "pattern": "*"}), "reserved"),
            (json!({"type": "pull-wake", "wake_stream": "w", "streams": ["a/../b"]}), "segment"),
            (json!({"type": "pull-wake", "wake_stream": "w", "pattern": "a*"}), "whole"),
            (
                json!({"type": "pull-wake", "wake_stream": "w", "pattern": "*", "lease_ttl_ms": 999}),
                "lease_ttl_ms",
            ),
            (
                json!({"type": "pull-wake", "wake_stream": "w", "pattern": "*",
                "lease_ttl_ms": 600_001}),
                "lease_ttl_ms",
            ),
        ] {
            let refusal = parse(body.clone()).unwrap_err();
            assert_eq!(refusal.code(), "INVALID_REQUEST", "{body}");
            assert!(refusal.to_string().contains(word), "{body}: {refusal}");
        }
    }
}
