//! What the client counts, through the `metrics` facade: compiled in with the feature `metrics`, sent nowhere until the
//! application installs a recorder. docs/client.md lists the names.

use std::time::Duration;

use crate::error::ClientError;

/// Counts a request, and how long the head of its response took.
pub(crate) fn request_ended<T>(
    operation: &'static str,
    result: &Result<T, ClientError>,
    took: Duration,
) {
    #[cfg(feature = "metrics")]
    {
        let outcome = match result {
            Ok(_) => "ok",
            Err(ClientError::Refused(_)) => "refused",
            Err(_) => "failed",
        };
        metrics::counter!("durable_streams_client_requests_total",
            "operation" => operation, "outcome" => outcome)
        .increment(1);
        metrics::histogram!("durable_streams_client_request_seconds", "operation" => operation)
            .record(took.as_secs_f64());
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (operation, result, took);
}

/// Counts a failure after which the operation goes on.
pub(crate) fn retried(operation: &'static str) {
    #[cfg(feature = "metrics")]
    metrics::counter!("durable_streams_client_retries_total", "operation" => operation)
        .increment(1);
    #[cfg(not(feature = "metrics"))]
    let _ = operation;
}

/// Counts bytes of a read's response body.
pub(crate) fn received(bytes: usize) {
    #[cfg(feature = "metrics")]
    metrics::counter!("durable_streams_client_received_bytes_total").increment(bytes as u64);
    #[cfg(not(feature = "metrics"))]
    let _ = bytes;
}

/// Counts a subscription that uses long-poll because SSE does not get through.
pub(crate) fn fell_back() {
    #[cfg(feature = "metrics")]
    metrics::counter!("durable_streams_client_long_poll_fallbacks_total").increment(1);
}

/// Counts the messages of a batch that the server acknowledged.
pub(crate) fn acknowledged(messages: u64, bytes: usize) {
    #[cfg(feature = "metrics")]
    {
        metrics::counter!("durable_streams_client_producer_messages_total", "outcome" => "acknowledged")
            .increment(messages);
        metrics::histogram!("durable_streams_client_producer_batch_bytes").record(bytes as f64);
    }
    #[cfg(not(feature = "metrics"))]
    let _ = (messages, bytes);
}

/// Counts the messages that a stopped producer does not know to be stored.
pub(crate) fn abandoned(messages: u64) {
    #[cfg(feature = "metrics")]
    metrics::counter!("durable_streams_client_producer_messages_total", "outcome" => "abandoned")
        .increment(messages);
    #[cfg(not(feature = "metrics"))]
    let _ = messages;
}

/// Counts a batch that arrived before the one ahead of it, and is sent again.
pub(crate) fn gap() {
    #[cfg(feature = "metrics")]
    metrics::counter!("durable_streams_client_producer_gaps_total").increment(1);
}
