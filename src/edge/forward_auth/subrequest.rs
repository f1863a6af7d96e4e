//! The subrequest of forward auth over HTTP: for streams, and for proxied routes.

use std::time::Duration;

use durable_streams_auth::{ForwardFailure, ForwardedRequest};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use reqwest::{Client, Url, redirect};

/// Idle connections to the service that are kept.
const IDLE_CONNECTIONS: usize = 32;

/// What the service answered.
pub(crate) struct ServiceAnswer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    /// Whether `body` is all of it: it did not break off, and was not longer than asked for.
    pub(crate) is_whole: bool,
}

/// Sends subrequests: a `GET` without a body, no redirects, bounded in time and bytes.
pub(crate) struct SubrequestClient {
    client: Client,
    url: Url,
}

impl SubrequestClient {
    /// A client of the service at `url`.
    ///
    /// # Errors
    /// The system's certificate authorities cannot be loaded.
    pub(crate) fn new(url: Url, timeout: Duration) -> Result<Self, reqwest::Error> {
        // The same provider as the listeners'; the first of them installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .timeout(timeout)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(IDLE_CONNECTIONS);
        Ok(SubrequestClient { client: client.build()?, url })
    }

    /// Asks the service, and reads at most `most` bytes of its body.
    ///
    /// # Errors
    /// No answer. The log has the reason.
    pub(crate) async fn ask(
        &self,
        request: ForwardedRequest,
        most: usize,
    ) -> Result<ServiceAnswer, ForwardFailure> {
        let failed = |error: reqwest::Error| {
            let error = error.without_url();
            tracing::warn!(%error, "the authorization service gives no answer");
            ForwardFailure(error.to_string())
        };
        let mut asked = self.client.get(self.url.clone()).headers(copied(&request));
        asked = asked.header("x-forwarded-method", request.method.as_str());
        asked = asked.header("x-forwarded-uri", request.uri);
        if let Some(client) = request.client {
            asked = asked.header("x-forwarded-for", client.to_string());
        }
        let mut response = asked.send().await.map_err(failed)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let (mut body, mut is_whole) = (Vec::new(), true);
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= most => {
                    body.extend_from_slice(&chunk);
                }
                Ok(None) => break,
                Ok(Some(_)) | Err(_) => {
                    is_whole = false;
                    break;
                }
            }
        }
        Ok(ServiceAnswer { status, headers, body, is_whole })
    }
}

/// The client's fields. Cookies become one field: HTTP/2 may split them, and servers of HTTP/1.1 read one (RFC 9113
/// §8.2.3).
fn copied(request: &ForwardedRequest) -> HeaderMap {
    let (mut fields, mut cookies) = (HeaderMap::new(), Vec::new());
    for (name, value) in &request.headers {
        if *name == header::COOKIE {
            cookies.push(value.as_bytes());
        } else {
            fields.append(name.clone(), value.clone());
        }
    }
    if let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
        && !joined.is_empty()
    {
        fields.insert(header::COOKIE, joined);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, Method};

    #[test]
    fn cookies_become_one_field_and_other_fields_stay_as_they_are() {
        let field = |name: &'static str, value: &'static str| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let headers = vec![
            field("cookie", "a=1"),
            field("accept", "x"),
            field("cookie", "b=2"),
            field("accept", "y"),
        ];
        let request =
            ForwardedRequest { method: Method::GET, uri: "/".into(), client: None, headers };
        let fields = copied(&request);
        assert_eq!(fields.get_all("cookie").iter().collect::<Vec<_>>(), ["a=1; b=2"]);
        assert_eq!(fields.get_all("accept").iter().collect::<Vec<_>>(), ["x", "y"]);
        let none = ForwardedRequest { headers: Vec::new(), ..request };
        assert!(copied(&none).is_empty());
    }
}
