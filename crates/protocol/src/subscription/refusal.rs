//! Every reason to refuse a control request, with its status, code and words.

use http::StatusCode;
use serde_json::{Value, json};

/// A refusal of a control request. Rendered as `{"error": {"code", "message", ...}}`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The body is malformed.
    #[error("{0}")]
    InvalidRequest(String),
    /// Not a path under `__ds`.
    #[error("there is no such control route; see PROTOCOL.md section 6")]
    RouteNotFound,
    /// The route does not have this method.
    #[error("this route answers {allow}")]
    MethodNotAllowed {
        /// The methods that it has, for the `Allow` header.
        allow: &'static str,
    },
    /// No such subscription.
    #[error("there is no such subscription; create it with PUT")]
    NotFound,
    /// The request needs credentials.
    #[error("this needs credentials; send them in the Authorization header")]
    Unauthorized,
    /// The client may not follow all that the subscription does, or not write to its wake stream.
    #[error(
        "these credentials do not allow this: it needs subscribe and read on all that the \
         subscription links, and append on its wake stream"
    )]
    Forbidden,
    /// A subscription with this id and another configuration exists (§6.2).
    #[error("the subscription exists with a different configuration; delete it first")]
    AlreadyExists,
    /// The webhook URL is not allowed (§12.8).
    #[error("webhook.url is refused: {0}")]
    UrlRejected(String),
    /// The server has no address of its own for callbacks.
    #[error("this server takes no webhooks: its operator must set subscriptions.public_url")]
    WebhooksNotConfigured,
    /// No token, or one that this server did not sign for this subscription.
    #[error("the bearer token is missing or was not issued for this subscription")]
    TokenInvalid,
    /// An expired token.
    #[error("the bearer token has expired; wait for the next wake")]
    TokenExpired,
    /// A stale wake (§7.3).
    #[error("the wake is over; another generation may be running")]
    Fenced,
    /// Another worker has the lease (§7.2).
    #[error("another worker holds the lease")]
    AlreadyClaimed {
        /// The worker that holds it.
        holder: String,
        /// The generation of the wake.
        generation: u64,
    },
    /// Nothing to claim.
    #[error("no linked stream has pending work")]
    NoPendingWork,
    /// An ack that cannot be applied; none of the request's acks was.
    #[error("{0}")]
    InvalidOffset(String),
    /// A limit of the server is reached.
    #[error("{what} is limited to {limit}")]
    TooMany {
        /// The things that are counted, plural.
        what: &'static str,
        limit: usize,
    },
    /// The body is too large.
    #[error("the body is larger than {limit} bytes")]
    TooLarge { limit: usize },
    /// The server cannot commit the change now.
    #[error("the server cannot do this at the moment: {0}")]
    Unavailable(String),
}

impl Refusal {
    /// The status code.
    pub fn status(&self) -> StatusCode {
        match self {
            Refusal::InvalidRequest(_) | Refusal::UrlRejected(_) => StatusCode::BAD_REQUEST,
            Refusal::TokenInvalid | Refusal::TokenExpired | Refusal::Unauthorized => {
                StatusCode::UNAUTHORIZED
            }
            Refusal::Forbidden => StatusCode::FORBIDDEN,
            Refusal::RouteNotFound | Refusal::NotFound => StatusCode::NOT_FOUND,
            Refusal::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::AlreadyExists
            | Refusal::Fenced
            | Refusal::AlreadyClaimed { .. }
            | Refusal::NoPendingWork
            | Refusal::InvalidOffset(_) => StatusCode::CONFLICT,
            Refusal::WebhooksNotConfigured => StatusCode::NOT_IMPLEMENTED,
            Refusal::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::TooMany { .. } => StatusCode::INSUFFICIENT_STORAGE,
            Refusal::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::InvalidRequest(_) => "INVALID_REQUEST",
            Refusal::RouteNotFound => "ROUTE_NOT_FOUND",
            Refusal::MethodNotAllowed { .. } => "METHOD_NOT_ALLOWED",
            Refusal::NotFound => "SUBSCRIPTION_NOT_FOUND",
            Refusal::Unauthorized => "UNAUTHORIZED",
            Refusal::Forbidden => "FORBIDDEN",
            Refusal::AlreadyExists => "SUBSCRIPTION_ALREADY_EXISTS",
            Refusal::UrlRejected(_) => "WEBHOOK_URL_REJECTED",
            Refusal::WebhooksNotConfigured => "WEBHOOKS_NOT_CONFIGURED",
            Refusal::TokenInvalid => "TOKEN_INVALID",
            Refusal::TokenExpired => "TOKEN_EXPIRED",
            Refusal::Fenced => "FENCED",
            Refusal::AlreadyClaimed { .. } => "ALREADY_CLAIMED",
            Refusal::NoPendingWork => "NO_PENDING_WORK",
            Refusal::InvalidOffset(_) => "INVALID_OFFSET",
            Refusal::TooMany { .. } => "LIMIT_REACHED",
            Refusal::TooLarge { .. } => "BODY_TOO_LARGE",
            Refusal::Unavailable(_) => "UNAVAILABLE",
        }
    }

    /// The response body.
    pub fn body(&self) -> Value {
        let mut error = json!({ "code": self.code(), "message": self.to_string() });
        if let (Refusal::AlreadyClaimed { holder, generation }, Some(fields)) =
            (self, error.as_object_mut())
        {
            fields.insert("current_holder".into(), json!(holder));
            fields.insert("generation".into(), json!(generation));
        }
        json!({ "error": error })
    }
}
