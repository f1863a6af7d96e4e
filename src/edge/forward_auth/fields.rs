//! Which fields of the authorization service's answer the client gets.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use durable_streams_protocol::{Body, Response};

use super::subrequest::ServiceAnswer;

/// Fields of an answer that belong to the connection with the service, or that this server writes itself.
const OWN_FIELDS: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::DATE,
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The answer, as the client gets it.
pub(super) fn passed_on(answer: ServiceAnswer) -> Response {
    let named = named_by_connection(&answer.headers);
    let fields = answer.headers.iter().filter(|(name, _)| {
        let own =
            OWN_FIELDS.contains(name) || matches!(name.as_str(), "keep-alive" | "proxy-connection");
        !own && !named.contains(name)
    });
    let mut headers: Vec<_> = fields.map(|(name, value)| (name.clone(), value.clone())).collect();
    if !answer.headers.contains_key(header::CACHE_CONTROL) {
        headers.push((header::CACHE_CONTROL, HeaderValue::from_static("no-store")));
    }
    let body =
        if answer.body.is_empty() { Body::Empty } else { Body::Full(vec![answer.body.into()]) };
    Response { status: answer.status, headers, body }
}

/// The fields that `Connection` names.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(header::CONNECTION).iter();
    let tokens = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    tokens.filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    #[test]
    fn an_answer_loses_what_belongs_to_its_connection() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("location", "https://id.example.com/"),
            ("set-cookie", "a=1"),
            ("set-cookie", "b=2"),
            ("connection", "keep-alive, x-hop"),
            ("keep-alive", "timeout=5"),
            ("x-hop", "1"),
            ("content-length", "2"),
            ("transfer-encoding", "chunked"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let answer = ServiceAnswer {
            status: StatusCode::FOUND,
            headers,
            body: b"no".to_vec(),
            is_whole: true,
        };
        let response = passed_on(answer);
        let names: Vec<&str> = response.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["location", "set-cookie", "set-cookie", "cache-control"]);
    }
}
