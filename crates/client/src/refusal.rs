//! What a response that says no says.

use std::time::Duration;

use durable_streams_protocol::{ProblemDetails, ResponseFacts};
use http::{Response, StatusCode};
use hyper::body::Incoming;

use crate::{
    error::{ClientError, RefusedRequest},
    exchange::{LONGEST_PROBLEM, OpaqueFields, next_piece, take_opaque},
};

pub(crate) async fn refusal(
    response: Response<Incoming>,
    url: String,
    read_timeout: Duration,
) -> ClientError {
    let (mut head, mut incoming) = response.into_parts();
    let status = head.status;
    let OpaqueFields { next_offset, earliest, .. } =
        take_opaque(&mut head.headers, &url).unwrap_or_default();
    let facts = ResponseFacts::parse(&head.headers).unwrap_or_default();
    let mut body = Vec::new();
    // What the body adds helps people only: a refusal whose body is lost is still one.
    while body.len() < LONGEST_PROBLEM {
        match tokio::time::timeout(read_timeout, next_piece(&mut incoming)).await {
            Ok(Ok(Some(chunk))) => body.extend_from_slice(&chunk),
            _ => break,
        }
    }
    if let (StatusCode::GONE, Some(earliest)) = (status, earliest) {
        return ClientError::Trimmed { url, earliest };
    }
    let problem = ProblemDetails::parse(&body).unwrap_or_else(|_| ProblemDetails {
        // Other servers send a line of text.
        detail: first_line(&body).into(),
        ..ProblemDetails::default()
    });
    ClientError::Refused(Box::new(RefusedRequest {
        url,
        status,
        code: problem.code.into_owned(),
        detail: problem.detail.into_owned(),
        retry_after: facts.retry_after,
        closed: facts.closed,
        next_offset,
        producer_epoch: facts.producer_epoch,
        expected_seq: facts.expected_seq,
    }))
}

/// The first line of a short text, for people.
fn first_line(body: &[u8]) -> String {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let line = text.lines().next().unwrap_or_default().trim();
    let shown = line.len() <= 200 && !line.starts_with(['<', '{', '[']);
    line.chars().filter(|c| shown && !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_text_explains_a_refusal() {
        assert_eq!(first_line(b"Sequence conflict\r\nmore"), "Sequence conflict");
        for other in [&b"<html>"[..], b"{\"error\":1}", b"\xff", b"", &[b'x'; 300]] {
            assert_eq!(first_line(other), "");
        }
    }
}
