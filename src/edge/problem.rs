//! Errors the edge answers itself, as `application/problem+json` (RFC 9457).
//!
//! The protocol's shape of error for what is not the protocol's: `type`, `title`, `status`, `detail` and a
//! stable machine-readable `code`. `detail` says what to change and never repeats a client's bytes.

use std::time::Duration;

use durable_streams_protocol::{Response, render_problem};
use http::StatusCode;

use super::text;

/// One error answer, before it is bytes.
#[derive(Debug, Clone)]
pub(crate) struct EdgeProblem {
    pub(crate) status: StatusCode,
    /// Stable, kebab case; clients may match on it.
    pub(crate) code: &'static str,
    pub(crate) detail: String,
    /// Seconds for `Retry-After`, where waiting helps.
    pub(crate) retry_after: Option<u32>,
}

impl EdgeProblem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        EdgeProblem { status, code, detail: detail.into(), retry_after: None }
    }

    pub(crate) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The response that reports it, in the shape of the stream routes' own refusals.
    pub(crate) fn response(&self) -> Response {
        let after = self.retry_after.map(|seconds| Duration::from_secs(seconds.into()));
        render_problem(self.status, self.code, self.detail.clone(), after)
    }

    /// As HTTP/1.1 text, for refusals made before there is a session. The connection closes after it.
    pub(crate) fn http1_text(&self) -> Vec<u8> {
        text::refusal(&self.response())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use durable_streams_protocol::Body;

    #[test]
    fn a_problem_carries_the_five_members_and_escapes_its_detail() {
        let problem = EdgeProblem::new(StatusCode::NOT_FOUND, "no-upstream", "say \"what\"\nnow");
        let value: serde_json::Value = {
            let Body::Full(body) = problem.response().body else { panic!("no body") };
            serde_json::from_slice(&body.concat()).unwrap()
        };
        assert_eq!(value["status"], 404);
        assert_eq!(value["title"], "Not Found");
        assert_eq!(value["code"], "no-upstream");
        assert_eq!(value["detail"], "say \"what\"\nnow");
        assert_eq!(value["type"], "urn:durable-streams:problem:no-upstream");
    }

    #[test]
    fn the_raw_text_declares_the_length_of_its_body() {
        let problem = EdgeProblem::new(StatusCode::SERVICE_UNAVAILABLE, "x", "y").retry_after(2);
        let text = String::from_utf8(problem.http1_text()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        assert!(head.contains("retry-after: 2"), "{head}");
    }
}
