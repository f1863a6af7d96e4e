//! Responses of the admin listener.

use durable_streams_protocol::{Body, render_problem};
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

pub(super) fn text(body: Vec<u8>) -> Response<Vec<u8>> {
    answer(StatusCode::OK, "text/plain; charset=utf-8", body)
}

pub(super) fn problem(status: StatusCode, code: &str, detail: &str) -> Response<Vec<u8>> {
    rendered(render_problem(status, code, detail.to_owned(), None))
}

/// A refusal as the stream routes write it.
pub(super) fn rendered(problem: durable_streams_protocol::Response) -> Response<Vec<u8>> {
    let body = match problem.body {
        Body::Full(chunks) => chunks.concat(),
        Body::Empty | Body::Streamed(_) | Body::Live => Vec::new(),
    };
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(body);
    *response.status_mut() = problem.status;
    response.headers_mut().extend(problem.headers);
    response.headers_mut().insert(header::CONTENT_LENGTH, length);
    response
}

pub(super) fn answer(
    status: StatusCode,
    media_type: &'static str,
    body: Vec<u8>,
) -> Response<Vec<u8>> {
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CONTENT_LENGTH, length);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A 204, which has no fields that describe a body (RFC 9110 §8.6).
pub(super) fn no_content() -> Response<Vec<u8>> {
    let mut response = Response::new(Vec::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A value as JSON.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Vec<u8>> {
    answer(status, "application/json", serde_json::to_vec(value).unwrap_or_default())
}
