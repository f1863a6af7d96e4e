//! Why an operation failed, and whether repeating it can help.

use std::time::Duration;

use http::StatusCode;

use crate::position::StreamOffset;

/// Why an operation failed. Cheap to clone.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// An argument that no request can carry: a URL, a header value, a certificate.
    #[error("{what} cannot be used: {reason}")]
    InvalidArgument {
        /// Which argument.
        what: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// No whole response arrived.
    #[error("{url}: {reason}")]
    Transport {
        /// Where the request went, without its query.
        url: String,
        /// What happened, with its causes.
        reason: String,
        /// The connection could not be made, so the server has not seen the request.
        unsent: bool,
    },
    /// The server refused the request.
    #[error(transparent)]
    Refused(#[from] Box<RefusedRequest>),
    /// The server removed the bytes at the position (410). Those from `earliest` on are there.
    #[error("{url}: the bytes at the position were removed; the earliest offset is {earliest}")]
    Trimmed {
        /// Where the request went, without its query.
        url: String,
        /// Where the stream can be read from.
        earliest: StreamOffset,
    },
    /// The response is not what PROTOCOL.md describes.
    #[error("{url}: the response is not of this protocol: {reason}")]
    InvalidResponse {
        /// Where the request went, without its query.
        url: String,
        /// What is wrong with the response.
        reason: String,
    },
    /// The body of a response cannot be parsed: a JSON array that is cut, an event that is no JSON. Reads repeat the
    /// request, whose next response may be whole, up to [`RetryPolicy::damaged_bodies`](crate::RetryPolicy) times.
    #[error("{url}: the response is damaged: {reason}")]
    DamagedBody {
        /// Where the request went, without its query.
        url: String,
        /// What is wrong with the body.
        reason: String,
    },
    /// One message or event is larger than the client may hold.
    #[error("a message is larger than {limit} bytes; raise ClientBuilder::max_message")]
    MessageTooLarge {
        /// The bound, bytes.
        limit: usize,
    },
    /// A message is not what the caller deserializes it into, or a value does not serialize.
    #[error("JSON: {0}")]
    Json(String),
    /// The caller's token callback failed.
    #[error("no token: {0}")]
    Token(String),
}

/// A response that says no.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{url}: {status}{}{}", separated(.code), separated(.detail))]
#[non_exhaustive]
pub struct RefusedRequest {
    /// Where the request went, without its query.
    pub url: String,
    /// The status.
    pub status: StatusCode,
    /// The server's stable name of the problem, such as `stream-closed`; empty when the body has none.
    pub code: String,
    /// The server's explanation for people; empty when the body has none.
    pub detail: String,
    /// `Retry-After`: how long the server wants to be left alone.
    pub retry_after: Option<Duration>,
    /// The stream is closed: no append can succeed (§5.2).
    pub closed: bool,
    /// The stream's tail, where the response names it.
    pub next_offset: Option<StreamOffset>,
    /// The newest epoch of the producer, of a 403 (§5.2.1).
    pub producer_epoch: Option<u64>,
    /// The sequence number that the server would have accepted, of a 409 (§5.2.1).
    pub expected_seq: Option<u64>,
}

fn separated(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

impl ClientError {
    /// Whether the same request may succeed later: no response, overload, a failing server.
    ///
    /// It does not say that repeating is safe. An append without a producer may have been stored although no response
    /// arrived.
    pub fn is_retryable(&self) -> bool {
        match self {
            ClientError::Transport { .. } | ClientError::DamagedBody { .. } => true,
            ClientError::Refused(refusal) => refusal.is_retryable(),
            ClientError::Trimmed { .. }
            | ClientError::InvalidResponse { .. }
            | ClientError::InvalidArgument { .. }
            | ClientError::MessageTooLarge { .. }
            | ClientError::Json(_)
            | ClientError::Token(_) => false,
        }
    }

    /// Whether the request certainly changed nothing, so that repeating cannot duplicate.
    pub(crate) fn is_without_effect(&self) -> bool {
        match self {
            ClientError::Transport { unsent, .. } => *unsent,
            ClientError::Refused(refusal) => refusal.status == StatusCode::TOO_MANY_REQUESTS,
            _ => false,
        }
    }

    /// The status of a refusal.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            ClientError::Trimmed { .. } => Some(StatusCode::GONE),
            error => error.refusal().map(|refusal| refusal.status),
        }
    }

    /// The server's stable name of the problem, such as `stream-not-found`.
    pub fn code(&self) -> Option<&str> {
        match self {
            ClientError::Trimmed { .. } => Some("offset-trimmed"),
            error => {
                let code = error.refusal().map(|refusal| refusal.code.as_str());
                code.filter(|code| !code.is_empty())
            }
        }
    }

    /// The refusal, if the server sent one; [`Trimmed`](Self::Trimmed) is an error of its own.
    pub fn refusal(&self) -> Option<&RefusedRequest> {
        if let ClientError::Refused(refusal) = self { Some(refusal) } else { None }
    }

    /// What the server wants to be waited for.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.refusal().and_then(|refusal| refusal.retry_after)
    }
}

impl RefusedRequest {
    fn is_retryable(&self) -> bool {
        // The last one: the request was cut on its way.
        matches!(self.status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
            || self.code == "body-incomplete"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16) -> ClientError {
        ClientError::Refused(Box::new(RefusedRequest {
            url: "http://h/a".to_owned(),
            status: StatusCode::from_u16(status).unwrap(),
            code: "some-code".to_owned(),
            detail: String::new(),
            retry_after: None,
            closed: false,
            next_offset: None,
            producer_epoch: None,
            expected_seq: None,
        }))
    }

    #[test]
    fn an_error_says_what_happened_and_whether_a_retry_can_help() {
        assert_eq!(refusal(404).to_string(), "http://h/a: 404 Not Found: some-code");
        assert_eq!(refusal(404).code(), Some("some-code"));
        for (status, retryable) in
            [(400, false), (404, false), (409, false), (429, true), (503, true)]
        {
            assert_eq!(refusal(status).is_retryable(), retryable, "{status}");
        }
    }

    #[test]
    fn only_a_request_that_changed_nothing_is_without_effect() {
        let transport =
            |unsent| ClientError::Transport { url: String::new(), reason: String::new(), unsent };
        assert!(transport(true).is_without_effect() && refusal(429).is_without_effect());
        assert!(!transport(false).is_without_effect(), "it may have been stored");
        assert!(!refusal(503).is_without_effect(), "a proxy may have sent it on");
    }
}
