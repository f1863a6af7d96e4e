//! Cross-origin access for browsers.
//!
//! A cached response may be served to any page, so every `GET` carries the headers; other methods carry
//! them only when the request names an origin.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, DELETE, OPTIONS");

const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "Content-Type, Authorization, X-Api-Key, If-None-Match, Last-Event-ID, Stream-Seq, Stream-TTL, \
     Stream-Expires-At, Stream-Closed, Producer-Id, Producer-Epoch, Producer-Seq, \
     Stream-Forked-From, Stream-Fork-Offset, Stream-Fork-Sub-Offset",
);

const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Stream-Next-Offset, Stream-Cursor, Stream-Up-To-Date, Stream-Closed, Stream-TTL, \
     Stream-Expires-At, Stream-SSE-Data-Encoding, Producer-Epoch, Producer-Seq, \
     Producer-Expected-Seq, Producer-Received-Seq, ETag, Location, Retry-After, WWW-Authenticate",
);

/// How long a browser may remember a preflight, seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("86400");

/// Whose pages may read the answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cors {
    /// Everyone's.
    #[default]
    Any,
    /// Pages of these origins, written like `https://app.example`. None: no page's.
    Origins(Vec<String>),
}

impl Cors {
    /// The fields of the response to a request. None, and no allocation, for a write without an origin.
    pub(crate) fn fields(
        &self,
        method: &Method,
        request: &HeaderMap,
    ) -> Vec<(HeaderName, HeaderValue)> {
        let mut fields = Vec::new();
        let origin = request.get(header::ORIGIN);
        if origin.is_none() && *method != Method::GET && *method != Method::OPTIONS {
            return fields;
        }
        let allowed = match self {
            Cors::Any => HeaderValue::from_static("*"),
            Cors::Origins(origins) => {
                fields.push((header::VARY, HeaderValue::from_static("origin")));
                let listed = |origin: &&HeaderValue| {
                    origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
                };
                match origin.filter(listed) {
                    Some(origin) => origin.clone(),
                    None => return fields,
                }
            }
        };
        fields.push((header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed));
        if *method == Method::OPTIONS {
            fields.push((header::ACCESS_CONTROL_ALLOW_METHODS, METHODS));
            fields.push((header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS));
            fields.push((header::ACCESS_CONTROL_MAX_AGE, MAX_AGE));
            // A page on the internet may reach a server on a local network only with this consent.
            let private = HeaderName::from_static("access-control-request-private-network");
            if request.contains_key(private) {
                let allow = HeaderName::from_static("access-control-allow-private-network");
                fields.push((allow, HeaderValue::from_static("true")));
            }
        } else {
            fields.push((header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED));
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(cors: &Cors, method: Method, origin: Option<&'static str>) -> HeaderMap {
        let mut request = HeaderMap::new();
        if let Some(origin) = origin {
            request.insert(header::ORIGIN, HeaderValue::from_static(origin));
        }
        cors.fields(&method, &request).into_iter().collect()
    }

    fn allowed(response: &HeaderMap) -> Option<&str> {
        response.get(header::ACCESS_CONTROL_ALLOW_ORIGIN)?.to_str().ok()
    }

    #[test]
    fn anyone_or_the_listed() {
        assert_eq!(allowed(&applied(&Cors::Any, Method::GET, None)), Some("*"));
        assert_eq!(allowed(&applied(&Cors::Any, Method::POST, None)), None);
        assert_eq!(
            allowed(&applied(&Cors::Any, Method::POST, Some("https://a.example"))),
            Some("*")
        );
        let listed = Cors::Origins(vec!["https://a.example".to_owned()]);
        let response = applied(&listed, Method::GET, Some("https://a.example"));
        assert_eq!(allowed(&response), Some("https://a.example"));
        assert_eq!(response.get(header::VARY).unwrap(), "origin");
        assert_eq!(allowed(&applied(&listed, Method::GET, Some("https://b.example"))), None);
    }

    #[test]
    fn a_preflight_allows_conditional_requests() {
        let response = applied(&Cors::Any, Method::OPTIONS, Some("https://a.example"));
        let headers = response.get(header::ACCESS_CONTROL_ALLOW_HEADERS).unwrap();
        assert!(headers.to_str().unwrap().contains("If-None-Match"));
    }
}
