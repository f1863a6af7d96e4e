//! The response when proxying failed.
//!
//! Once a response has begun there is only one honest way to end it: break the connection (an
//! HTTP/2 stream is reset), so that no client takes a part for the whole.

use http::StatusCode;
use pingora::proxy::{FailToProxy, Session};
use pingora::{Error, ErrorSource, ErrorType};

use crate::edge::context::RequestContext;
use crate::edge::http1::framing;
use crate::edge::problem::EdgeProblem;
use durable_streams_pingora::transport::ReplyWriter;

/// The error of an upstream without a server to ask.
pub(super) fn none_healthy() -> Box<Error> {
    Error::explain(NONE_HEALTHY, "no healthy server left to ask").into_up()
}

const NONE_HEALTHY: ErrorType = ErrorType::CustomCode("no_healthy_server", 502);

/// Answers for an upstream that did not.
pub(crate) async fn answer(
    session: &mut Session,
    error: &Error,
    ctx: &mut RequestContext,
) -> FailToProxy {
    // A late answer on this connection could be taken for the next request's.
    let give_up = |error_code| FailToProxy { error_code, can_reuse_downstream: false };
    let begun = session.response_written().is_some_and(|r| !r.status.is_informational());
    if begun || session.was_upgraded() {
        return give_up(0);
    }
    let earlier = ctx.attempt.failure.take().filter(|_| *error.etype() == NONE_HEALTHY);
    let Some(problem) = earlier.or_else(|| problem(error)) else { return give_up(0) };
    if problem.status == StatusCode::INTERNAL_SERVER_ERROR {
        tracing::error!(request_id = ctx.request_id.text(), %error, "a request failed inside");
    }
    ctx.problem = Some(problem.code);
    let status = problem.status.as_u16();
    session.set_keepalive(None);
    let session = session.as_downstream_mut();
    if let Err(error) = session.whole(problem.response()).await {
        tracing::debug!(%error, "the client did not wait for the error");
    }
    give_up(status)
}

/// The problem to report for `error`. `None`: the client is gone.
pub(super) fn problem(error: &Error) -> Option<EdgeProblem> {
    let bad_gateway = |code, detail: &str| EdgeProblem::new(StatusCode::BAD_GATEWAY, code, detail);
    let timeout =
        |detail: &str| EdgeProblem::new(StatusCode::GATEWAY_TIMEOUT, "upstream-timeout", detail);
    Some(match (error.esource(), error.etype()) {
        (_, etype) if *etype == NONE_HEALTHY => {
            bad_gateway("upstream-unavailable", "no server of the upstream is healthy")
        }
        (ErrorSource::Upstream, ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout) => {
            timeout("the upstream did not accept the connection in time")
        }
        (ErrorSource::Upstream, ErrorType::ReadTimedout) => {
            timeout("the upstream did not answer in time")
        }
        (ErrorSource::Upstream, ErrorType::WriteTimedout) => {
            timeout("the upstream did not take the request in time")
        }
        (ErrorSource::Upstream, ErrorType::ConnectRefused | ErrorType::ConnectNoRoute) => {
            bad_gateway("upstream-unavailable", "the upstream refuses connections")
        }
        (
            ErrorSource::Upstream,
            ErrorType::TLSHandshakeFailure | ErrorType::InvalidCert | ErrorType::HandshakeError,
        ) => bad_gateway("upstream-tls", "TLS with the upstream failed; see the server's log"),
        (ErrorSource::Upstream, _) => {
            bad_gateway("upstream-failed", "the upstream broke off before it answered")
        }
        (ErrorSource::Downstream, ErrorType::ReadError) if framing::is_invalid(error) => {
            let detail = "the chunked request body is not valid";
            EdgeProblem::new(StatusCode::BAD_REQUEST, "body-invalid", detail)
        }
        (
            ErrorSource::Downstream,
            ErrorType::WriteError | ErrorType::ReadError | ErrorType::ConnectionClosed,
        ) => return None,
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => EdgeProblem::new(
            StatusCode::REQUEST_TIMEOUT,
            "body-timeout",
            "the request body stopped arriving",
        ),
        (ErrorSource::Downstream, _) => EdgeProblem::new(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "the request cannot be forwarded: its framing or its Connection field is invalid",
        ),
        (ErrorSource::Internal | ErrorSource::Unset, ErrorType::HTTPStatus(status)) => {
            let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY);
            EdgeProblem::new(status, "refused", "the request was refused")
        }
        (ErrorSource::Internal | ErrorSource::Unset, _) => EdgeProblem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "the request failed inside the server; see its log",
        ),
    })
}
