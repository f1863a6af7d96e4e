//! The body of an error: `application/problem+json` (RFC 9457) with a stable `code`.

use std::borrow::Cow;

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};

use crate::JsonError;

/// A problem as RFC 9457 writes it. Members that a body leaves out are empty, and 0 for the status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProblemDetails<'p> {
    /// A URI for the kind of problem: `urn:durable-streams:problem:` and the code.
    pub r#type: Cow<'p, str>,
    /// The status in words.
    pub title: Cow<'p, str>,
    /// The status code, a copy of the response's.
    pub status: u16,
    /// What is wrong with this request and what to do, for people.
    pub detail: Cow<'p, str>,
    /// The stable name of the problem for programs, as [`Rejection::code`](crate::Rejection::code) returns it.
    pub code: Cow<'p, str>,
}

impl ProblemDetails<'static> {
    /// Reads the body of an error response.
    ///
    /// # Errors
    /// When it is not a JSON object, or a member has another type; then an intermediary wrote the response.
    pub fn parse(body: &[u8]) -> Result<Self, JsonError> {
        serde_json::from_slice(body)
    }
}

/// The body of a problem response with this stable `code`.
pub fn problem_body(status: StatusCode, code: &str, detail: String) -> Bytes {
    let problem = ProblemDetails {
        r#type: format!("urn:durable-streams:problem:{code}").into(),
        title: status.canonical_reason().unwrap_or("Error").into(),
        status: status.as_u16(),
        detail: detail.into(),
        code: code.into(),
    };
    serde_json::to_vec(&problem).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_problem_of_another_server_may_say_less() {
        let parsed = ProblemDetails::parse(br#"{"title":"Bad Gateway","extra":[1]}"#).unwrap();
        let expected = ProblemDetails { title: "Bad Gateway".into(), ..ProblemDetails::default() };
        assert_eq!(parsed, expected);
        for bad in ["", "<html>", "[]x", "1", r#"{"status":"400"}"#] {
            assert!(ProblemDetails::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_problem_round_trips(status in 100..1000u16, code in "[a-z-]{1,20}", detail in ".*") {
            let of = StatusCode::from_u16(status).unwrap();
            let parsed = ProblemDetails::parse(&problem_body(of, &code, detail.clone())).unwrap();
            prop_assert_eq!(parsed, ProblemDetails {
                r#type: format!("urn:durable-streams:problem:{code}").into(),
                title: of.canonical_reason().unwrap_or("Error").into(),
                status,
                detail: detail.into(),
                code: code.into(),
            });
        }
    }
}
