//! Cross-origin access for browsers.
//!
//! A cached response may be served to any page, so every `GET` carries the headers; other methods carry
//! them only when the request names an origin.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

const METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// What clients of the protocol send, what `EventSource` in its many forms sends, and what tracing adds.
const REQUEST_HEADERS: &str = "Content-Type, Authorization, X-Api-Key, Cache-Control, Pragma, If-None-Match, \
     Last-Event-ID, Stream-Seq, Stream-TTL, Stream-Expires-At, Stream-Closed, Stream-Trim-Before, Producer-Id, \
     Producer-Epoch, Producer-Seq, Stream-Forked-From, Stream-Fork-Offset, Stream-Fork-Sub-Offset, traceparent, tracestate, \
     baggage, X-Request-Id, X-Requested-With";

const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Stream-Next-Offset, Stream-Earliest-Offset, Stream-Cursor, Stream-Up-To-Date, Stream-Closed, \
     Stream-Public, Stream-TTL, Stream-Expires-At, Stream-SSE-Data-Encoding, Producer-Epoch, Producer-Seq, \
     Producer-Expected-Seq, Producer-Received-Seq, ETag, Location, Retry-After, RateLimit, \
     RateLimit-Policy, WWW-Authenticate",
);

/// How long a browser may remember a preflight, seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("86400");

/// Whose pages may use the streams.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// Everyone's, without cookies.
    #[default]
    Any,
    /// Pages of these origins, written like `https://app.example`. None: no page's.
    Listed {
        /// As browsers send them.
        origins: Vec<String>,
        /// Whether their pages may send cookies and client certificates.
        credentials: bool,
    },
}

/// Which browser pages may use the streams, and what they may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsPolicy {
    origins: AllowedOrigins,
    request_headers: HeaderValue,
}

impl Default for CorsPolicy {
    fn default() -> Self {
        CorsPolicy::new(AllowedOrigins::Any, &[])
    }
}

impl CorsPolicy {
    /// A policy for pages of `origins`, which may send the protocol's header fields and `headers`.
    pub fn new(origins: AllowedOrigins, headers: &[HeaderName]) -> Self {
        let mut names = REQUEST_HEADERS.to_owned();
        for name in headers {
            names.push_str(", ");
            names.push_str(name.as_str());
        }
        let request_headers = HeaderValue::try_from(names);
        // The name of a header field is always a valid value.
        let request_headers = request_headers.unwrap_or(HeaderValue::from_static(REQUEST_HEADERS));
        CorsPolicy { origins, request_headers }
    }

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
        let allowed = match &self.origins {
            AllowedOrigins::Any => HeaderValue::from_static("*"),
            AllowedOrigins::Listed { origins, credentials } => {
                fields.push((header::VARY, HeaderValue::from_static("origin")));
                let listed = |origin: &&HeaderValue| {
                    origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
                };
                let Some(origin) = origin.filter(listed) else { return fields };
                if *credentials {
                    let allow = header::ACCESS_CONTROL_ALLOW_CREDENTIALS;
                    fields.push((allow, HeaderValue::from_static("true")));
                }
                origin.clone()
            }
        };
        fields.push((header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed));
        if *method == Method::OPTIONS {
            fields.push((header::ACCESS_CONTROL_ALLOW_METHODS, METHODS));
            fields.push((header::ACCESS_CONTROL_ALLOW_HEADERS, self.request_headers.clone()));
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

    fn applied(cors: &CorsPolicy, method: Method, origin: Option<&'static str>) -> HeaderMap {
        let mut request = HeaderMap::new();
        if let Some(origin) = origin {
            request.insert(header::ORIGIN, HeaderValue::from_static(origin));
        }
        cors.fields(&method, &request).into_iter().collect()
    }

    fn allowed(response: &HeaderMap) -> Option<&str> {
        response.get(header::ACCESS_CONTROL_ALLOW_ORIGIN)?.to_str().ok()
    }

    fn listed(credentials: bool) -> CorsPolicy {
        let origins = vec!["https://a.example".to_owned()];
        CorsPolicy::new(AllowedOrigins::Listed { origins, credentials }, &[])
    }

    #[test]
    fn anyone_or_the_listed() {
        let any = CorsPolicy::default();
        assert_eq!(allowed(&applied(&any, Method::GET, None)), Some("*"));
        assert_eq!(allowed(&applied(&any, Method::POST, None)), None);
        assert_eq!(allowed(&applied(&any, Method::POST, Some("https://a.example"))), Some("*"));
        let listed = listed(false);
        let response = applied(&listed, Method::GET, Some("https://a.example"));
        assert_eq!(allowed(&response), Some("https://a.example"));
        assert_eq!(response.get(header::VARY).unwrap(), "origin");
        assert_eq!(allowed(&applied(&listed, Method::GET, Some("https://b.example"))), None);
    }

    #[test]
    fn cookies_are_for_listed_origins_that_may_have_them() {
        let credentials = |cors: &CorsPolicy, method, origin| {
            applied(cors, method, origin).contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS)
        };
        for method in [Method::GET, Method::POST, Method::OPTIONS] {
            let (ours, theirs) = (Some("https://a.example"), Some("https://b.example"));
            assert!(credentials(&listed(true), method.clone(), ours), "{method}");
            assert!(!credentials(&listed(true), method.clone(), theirs), "{method}");
            assert!(!credentials(&listed(false), method.clone(), ours), "{method}");
            assert!(!credentials(&CorsPolicy::default(), method, ours));
        }
    }

    #[test]
    fn a_preflight_allows_what_is_listed_and_configured() {
        let mine = HeaderName::from_static("x-mine");
        let cors = CorsPolicy::new(AllowedOrigins::Any, std::slice::from_ref(&mine));
        let response = applied(&cors, Method::OPTIONS, Some("https://a.example"));
        let headers = response.get(header::ACCESS_CONTROL_ALLOW_HEADERS).unwrap().to_str().unwrap();
        for name in ["If-None-Match", "traceparent", mine.as_str()] {
            assert!(headers.split(", ").any(|listed| listed == name), "{name}: {headers}");
        }
    }
}
