//! The HTTP client that delivers wakes, as a trait, and what its answers mean (§7.1).

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use durable_streams_protocol::subscription::{DeliveryOutcome, LinkRecord, WebhookTarget};
use http::StatusCode;

/// Posts wakes to webhooks.
///
/// The URL of a request was judged by the operator's rules; its host's addresses were not. An
/// implementation
/// - connects only to addresses that [`WebhookTarget::allows`], judged after name resolution and for the
///   very address that it connects to;
/// - goes through no proxy and follows no redirect, since either leads past that check;
/// - reads at most [`WebhookRequest::max_response`] bytes of a response body;
/// - returns within [`WebhookRequest::timeout`]; the caller drops the future of one that does not.
#[async_trait]
pub trait WebhookClient: Send + Sync {
    /// Sends a `POST` with `Content-Type: application/json` and returns the response.
    ///
    /// # Errors
    /// [`WebhookError::NotSent`] only when the receiver certainly did not see the request.
    async fn post(&self, request: WebhookRequest) -> Result<WebhookResponse, WebhookError>;
}

/// One delivery of a wake.
#[derive(Clone, Debug)]
pub struct WebhookRequest {
    /// The URL, and which addresses its host may resolve to.
    pub target: WebhookTarget,
    /// The wake notice, JSON.
    pub body: Bytes,
    /// The value of the `Webhook-Signature` header.
    pub signature: String,
    /// The bound on the whole exchange, the response's body included.
    pub timeout: Duration,
    /// The most bytes of the response's body that are read.
    pub max_response: usize,
}

/// A webhook's response.
#[derive(Clone, Debug)]
pub struct WebhookResponse {
    /// The response's status.
    pub status: StatusCode,
    /// The response's body; `None` when it was longer than the bound, cut off or late.
    pub body: Option<Bytes>,
}

/// Why there is no response.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WebhookError {
    /// The receiver did not see the request.
    #[error("{0}")]
    NotSent(String),
    /// The request was sent, perhaps in part, and no response came: a worker may have begun.
    #[error("{0}")]
    NoResponse(String),
}

/// What a delivery came to, and for a failed one why. `snapshot` is what `{"done": true}` acknowledges.
pub(super) fn outcome(
    response: Result<WebhookResponse, WebhookError>,
    snapshot: Vec<LinkRecord>,
) -> (DeliveryOutcome, Option<String>) {
    match response {
        Ok(response) if response.status.is_success() => {
            if response.body.is_some_and(|body| says_done(&body)) {
                (DeliveryOutcome::Done(snapshot), None)
            } else {
                (DeliveryOutcome::Accepted, None)
            }
        }
        Ok(response) => {
            (DeliveryOutcome::Refused, Some(format!("status {}", response.status.as_u16())))
        }
        Err(WebhookError::NotSent(reason)) => (DeliveryOutcome::Refused, Some(reason)),
        Err(WebhookError::NoResponse(reason)) => (DeliveryOutcome::Unknown, Some(reason)),
    }
}

/// Whether a body is `{"done": true}`.
fn says_done(body: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct DoneResponse {
        done: bool,
    }
    serde_json::from_slice::<DoneResponse>(body).is_ok_and(|reply| reply.done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: Option<&'static str>) -> (DeliveryOutcome, Option<String>) {
        let status = StatusCode::from_u16(status).unwrap();
        outcome(Ok(WebhookResponse { status, body: body.map(Bytes::from) }), Vec::new())
    }

    #[test]
    fn only_success_that_says_done_acknowledges() {
        let done = DeliveryOutcome::Done(Vec::new());
        for (body, expected) in [
            (Some(r#"{"done": true}"#), &done),
            (Some(r#"{"done": true, "other": [1]}"#), &done),
            (Some(r#"{"done": false}"#), &DeliveryOutcome::Accepted),
            (Some(r#"{"done": "true"}"#), &DeliveryOutcome::Accepted),
            (Some(""), &DeliveryOutcome::Accepted),
            (Some("<html>"), &DeliveryOutcome::Accepted),
            (None, &DeliveryOutcome::Accepted),
        ] {
            assert_eq!(of(200, body), (expected.clone(), None), "{body:?}");
            assert_eq!(of(299, body), (expected.clone(), None), "{body:?}");
            for status in [199, 300, 307, 404, 500] {
                let why = Some(format!("status {status}"));
                assert_eq!(of(status, body), (DeliveryOutcome::Refused, why));
            }
        }
    }

    #[test]
    fn what_was_not_sent_is_refused_and_what_has_no_response_is_unknown() {
        let why = || "why".to_owned();
        let not_sent = outcome(Err(WebhookError::NotSent(why())), Vec::new());
        assert_eq!(not_sent, (DeliveryOutcome::Refused, Some(why())));
        let no_response = outcome(Err(WebhookError::NoResponse(why())), Vec::new());
        assert_eq!(no_response, (DeliveryOutcome::Unknown, Some(why())));
    }
}
