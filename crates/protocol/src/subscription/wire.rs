//! The JSON of requests and responses (§6, §7).

use serde::{Deserialize, Serialize};

use super::{Ack, Fence, Refusal, SubscriptionId, TokenClaims, WakeId, config};
use crate::{Offset, StreamId, StreamPath};

/// A value as JSON text.
pub fn json<T: Serialize>(value: &T) -> Vec<u8> {
    // The types here have string keys and no failing serializers.
    serde_json::to_vec(value).unwrap_or_default()
}

/// One link of `GET` (§6.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LinkInfo {
    /// The stream.
    pub path: StreamPath,
    /// `explicit` or `glob`.
    pub link_type: &'static str,
    /// The cursor.
    pub acked_offset: Offset,
}

/// One stream of a wake (§7.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StreamInfo {
    /// The stream.
    pub path: StreamPath,
    /// `explicit` or `glob`.
    pub link_type: &'static str,
    /// The cursor.
    pub acked_offset: Offset,
    /// The durable tail.
    pub tail_offset: Offset,
    /// Whether the tail is past the cursor.
    pub has_pending: bool,
    /// Which stream at that path.
    #[serde(skip)]
    pub stream: Option<StreamId>,
}

/// The body of a webhook.
#[derive(Clone, Debug, Serialize)]
pub struct WakeNotice<'a> {
    /// The subscription.
    pub subscription_id: &'a SubscriptionId,
    /// The wake.
    pub wake_id: &'a WakeId,
    /// Its generation.
    pub generation: u64,
    /// Linked streams, those with pending work first.
    pub streams: &'a [StreamInfo],
    /// Where to call back.
    pub callback_url: String,
    /// With which bearer token.
    pub callback_token: String,
}

/// The event in a wake stream.
#[derive(Clone, Debug, Serialize)]
pub struct WakeEvent<'a> {
    /// Always `wake`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The subscription.
    pub subscription_id: &'a SubscriptionId,
    /// A stream with pending work.
    pub stream: &'a str,
    /// The wake's generation.
    pub generation: u64,
    /// Milliseconds since 1970.
    pub ts: u64,
}

/// The body of a successful claim.
#[derive(Clone, Debug, Serialize)]
pub struct ClaimResponse {
    /// The wake.
    pub wake_id: WakeId,
    /// Its generation.
    pub generation: u64,
    /// The bearer token for acks and release.
    pub token: String,
    /// Linked streams, those with pending work first.
    pub streams: Vec<StreamInfo>,
    /// The lease.
    pub lease_ttl_ms: u64,
}

/// How receivers verify webhooks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SigningInfo {
    /// Always `ed25519`.
    pub alg: &'static str,
    /// The active key.
    pub kid: String,
    /// Where the keys are.
    pub jwks_url: String,
}

/// The webhook of a [`SubscriptionView`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WebhookView {
    /// Where wakes go.
    pub url: String,
    /// How to verify them.
    pub signing: SigningInfo,
}

/// The body of `GET` and `PUT` responses (§6.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SubscriptionView {
    /// The id.
    pub id: SubscriptionId,
    /// The id again.
    pub subscription_id: SubscriptionId,
    /// `webhook` or `pull-wake`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The pattern.
    pub pattern: Option<String>,
    /// Links in path order: the first page, or the one after the path that the request names.
    pub streams: Vec<LinkInfo>,
    /// The number of all links.
    pub streams_total: usize,
    /// With more links behind this page: its last path, which the request for the next page names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streams_next: Option<StreamPath>,
    /// For webhooks.
    pub webhook: Option<WebhookView>,
    /// For pull-wake.
    pub wake_stream: Option<StreamPath>,
    /// The lease.
    pub lease_ttl_ms: u64,
    /// RFC 3339.
    pub created_at: String,
    /// `failed` while a retry is scheduled.
    pub status: &'static str,
    /// For humans.
    pub description: Option<String>,
}

/// The body of a claim.
#[derive(Clone, Debug, Deserialize)]
pub struct ClaimRequest {
    worker: Option<String>,
}

impl ClaimRequest {
    /// The worker's name, 1 to 256 bytes.
    ///
    /// # Errors
    /// [`Refusal::InvalidRequest`].
    pub fn worker(self) -> Result<String, Refusal> {
        self.worker.filter(|name| (1..=256).contains(&name.len())).ok_or_else(|| {
            Refusal::InvalidRequest("worker must be a string of 1 to 256 bytes".into())
        })
    }
}

/// The body of a callback or an ack.
#[derive(Clone, Debug, Deserialize)]
pub struct AckRequest {
    /// The wake.
    pub wake_id: Option<String>,
    /// Its generation.
    pub generation: Option<u64>,
    /// Cursors to move.
    #[serde(default)]
    pub acks: Option<Vec<Ack>>,
    /// Ends the wake.
    #[serde(default)]
    pub done: Option<bool>,
}

/// The body of a release.
#[derive(Clone, Debug, Deserialize)]
pub struct ReleaseRequest {
    /// The wake.
    pub wake_id: Option<String>,
    /// Its generation.
    pub generation: Option<u64>,
}

/// The body that adds explicit streams.
#[derive(Clone, Debug, Deserialize)]
pub struct StreamsRequest {
    streams: Option<Vec<String>>,
}

impl StreamsRequest {
    /// The paths, sorted, each once.
    ///
    /// # Errors
    /// [`Refusal::InvalidRequest`], [`Refusal::TooMany`].
    pub fn paths(self) -> Result<Vec<StreamPath>, Refusal> {
        match self.streams {
            Some(streams) if !streams.is_empty() => config::stream_paths(&streams),
            _ => Err(Refusal::InvalidRequest("streams must be a non-empty array of paths".into())),
        }
    }
}

impl ReleaseRequest {
    /// What must match the current wake.
    ///
    /// # Errors
    /// [`Refusal::InvalidRequest`].
    pub fn fence<'a>(&'a self, claims: &'a TokenClaims) -> Result<Fence<'a>, Refusal> {
        fence(claims, self.wake_id.as_deref(), self.generation)
    }
}

impl AckRequest {
    /// What must match the current wake.
    ///
    /// # Errors
    /// [`Refusal::InvalidRequest`].
    pub fn fence<'a>(&'a self, claims: &'a TokenClaims) -> Result<Fence<'a>, Refusal> {
        fence(claims, self.wake_id.as_deref(), self.generation)
    }
}

fn fence<'a>(
    claims: &'a TokenClaims,
    wake_id: Option<&'a str>,
    generation: Option<u64>,
) -> Result<Fence<'a>, Refusal> {
    match (wake_id, generation) {
        (Some(wake_id), Some(generation)) => Ok(Fence { claims, wake_id, generation }),
        _ => Err(Refusal::InvalidRequest("wake_id and generation are required".into())),
    }
}
