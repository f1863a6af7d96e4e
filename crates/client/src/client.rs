//! A client: what all requests to one server have in common.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use hyper_util::{
    client::{legacy, proxy::matcher::Matcher},
    rt::{TokioExecutor, TokioTimer},
};
use url::Url;

use crate::{
    auth::{RequestAuth, bearer},
    connect::{StreamConnector, proxy_authorization, tls_config},
    error::ClientError,
    exchange::HttpTransport,
    retry::RetryPolicy,
    stream::Stream,
};

const USER_AGENT: &str = concat!("durable-streams-client/", env!("CARGO_PKG_VERSION"));

/// Streams of one server. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) inner: Arc<ClientInner>,
}

#[derive(Debug)]
pub(crate) struct ClientInner {
    pub(crate) base: Url,
    pub(crate) transport: HttpTransport,
    pub(crate) request_timeout: Duration,
    pub(crate) live_timeout: Duration,
    pub(crate) event_patience: Duration,
    pub(crate) max_message: usize,
    pub(crate) retry: RetryPolicy,
}

/// Which versions of HTTP the client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum HttpVersion {
    /// HTTP/1.1 without TLS; with TLS what the server prefers.
    #[default]
    Automatic,
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, without TLS by prior knowledge: all requests share one connection.
    Http2,
}

/// Settings of a [`Client`].
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    base: String,
    headers: HeaderMap,
    auth: RequestAuth,
    version: HttpVersion,
    roots: Option<Vec<u8>>,
    identity: Option<Vec<u8>>,
    connect_timeout: Duration,
    request_timeout: Duration,
    live_timeout: Duration,
    event_patience: Duration,
    max_message: usize,
    retry: RetryPolicy,
}

impl Client {
    /// A client with default settings for the streams below `base`, such as `http://localhost:4437/v1/stream`.
    ///
    /// # Errors
    /// [`ClientError::InvalidArgument`] when `base` is no `http` or `https` URL.
    pub fn new(base: &str) -> Result<Self, ClientError> {
        Self::builder(base).build()
    }

    /// Settings for a client of the streams below `base`.
    pub fn builder(base: &str) -> ClientBuilder {
        ClientBuilder {
            base: base.to_owned(),
            headers: HeaderMap::new(),
            auth: RequestAuth::None,
            version: HttpVersion::default(),
            roots: None,
            identity: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            live_timeout: Duration::from_secs(75),
            event_patience: Duration::from_secs(5),
            max_message: 64 << 20,
            retry: RetryPolicy::default(),
        }
    }

    /// A handle for the stream at `path` below the base URL: a relative path as text, which is escaped, or a whole `http`
    /// or `https` URL. The query of a URL, such as that of a signed one, is sent with every request and shown nowhere.
    /// Sends nothing yet.
    ///
    /// # Errors
    /// [`ClientError::InvalidArgument`] when that is no URL, or one of another server: the client's headers and token
    /// are for one server only. Also when its query has `offset`, `live` or `cursor`.
    pub fn stream(&self, path: &str) -> Result<Stream, ClientError> {
        let invalid =
            |reason: String| ClientError::InvalidArgument { what: "the stream's path", reason };
        let base = &self.inner.base;
        let url = if path.starts_with("http://") || path.starts_with("https://") {
            let url = Url::parse(path).map_err(|error| invalid(error.to_string()))?;
            if url.origin() != base.origin() {
                return Err(invalid(format!(
                    "{path:?} is not on {}",
                    base.origin().ascii_serialization()
                )));
            }
            url
        } else {
            let mut url = base.clone();
            // One `/` between the two, none doubled; `push` escapes what a segment cannot hold.
            let mut segments =
                url.path_segments_mut().map_err(|()| invalid("no base".to_owned()))?;
            segments.pop_if_empty().extend(path.trim_start_matches('/').split('/'));
            drop(segments);
            url
        };
        let reserved = |name: &str| matches!(name, "offset" | "live" | "cursor");
        if let Some((name, _)) = url.query_pairs().find(|(name, _)| reserved(name)) {
            return Err(invalid(format!("its query has {name:?}, which is for the client to set")));
        }
        Stream::new(self.clone(), url)
    }

    /// The base URL.
    pub fn base(&self) -> &str {
        self.inner.base.as_str()
    }
}

impl ClientBuilder {
    /// Sends this header with every request.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Sends `Authorization: Bearer` with this token.
    ///
    /// # Errors
    /// [`ClientError::InvalidArgument`] when the token has bytes that no header can carry.
    pub fn token(mut self, token: &str) -> Result<Self, ClientError> {
        self.auth = RequestAuth::Fixed(bearer(token)?);
        Ok(self)
    }

    /// Sends `Authorization: Bearer` with what `callback` returns, which runs before every request and every attempt.
    /// Let it cache: a token that expires is then replaced in time, also during a read that lasts for days.
    #[must_use]
    pub fn token_callback<F, Fut, E>(mut self, callback: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, E>> + Send + 'static,
        E: fmt::Display,
    {
        self.auth = RequestAuth::callback(callback);
        self
    }

    /// Which versions of HTTP to speak.
    #[must_use]
    pub fn http_version(mut self, version: HttpVersion) -> Self {
        self.version = version;
        self
    }

    /// Trusts these authorities (PEM) in place of the system's.
    #[must_use]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots = Some(pem.into());
        self
    }

    /// Identifies itself with this certificate chain and its private key, together in one PEM.
    #[must_use]
    pub fn client_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.identity = Some(pem.into());
        self
    }

    /// For making a connection; 10 s by default.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// From a request to the head of its response, and between two pieces of its body; 30 s by default.
    #[must_use]
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// Silence after which a live read counts as lost, and is made again; 75 s by default. Servers rotate live reads
    /// about every 60 s (§10.2), and not all send comments in between.
    #[must_use]
    pub fn live_timeout(mut self, timeout: Duration) -> Self {
        self.live_timeout = timeout;
        self
    }

    /// How long the first event of an SSE response may take before something between here and the server counts as
    /// holding it back, so that long-poll takes over; 5 s by default.
    #[must_use]
    pub fn event_patience(mut self, patience: Duration) -> Self {
        self.event_patience = patience;
        self
    }

    /// The largest JSON message and the largest event to accept, bytes; 64 MiB by default. A read holds about one of
    /// them in memory.
    #[must_use]
    pub fn max_message(mut self, bytes: usize) -> Self {
        self.max_message = bytes;
        self
    }

    /// How single requests are repeated. Subscriptions and producers have policies of their own.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Makes the client; connects to nothing yet.
    ///
    /// # Errors
    /// [`ClientError::InvalidArgument`] for a base URL or a certificate that cannot be used.
    pub fn build(self) -> Result<Client, ClientError> {
        let invalid = |what, reason: String| ClientError::InvalidArgument { what, reason };
        let base =
            Url::parse(&self.base).map_err(|error| invalid("the base URL", error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") || base.query().is_some() {
            let reason = format!("{:?} is no http or https URL without a query", self.base);
            return Err(invalid("the base URL", reason));
        }
        let alpn: &[&str] = match self.version {
            HttpVersion::Automatic => &["h2", "http/1.1"],
            HttpVersion::Http1 => &["http/1.1"],
            HttpVersion::Http2 => &["h2"],
        };
        let server = Uri::try_from(base.as_str())
            .map_err(|error| invalid("the base URL", error.to_string()))?;
        let proxies = Matcher::from_env();
        // The system's authorities take milliseconds to load, and small containers have none.
        let plain = base.scheme() == "http" && proxies.intercept(&server).is_none();
        let roots = self.roots.as_deref().or(plain.then_some(&[]));
        let tls = tls_config(roots, self.identity.as_deref(), alpn)?;
        let only_http1 = match self.version {
            HttpVersion::Automatic => base.scheme() == "http",
            HttpVersion::Http1 => true,
            HttpVersion::Http2 => false,
        };
        let mut headers = self.headers;
        let defaults = [
            (header::USER_AGENT, Some(HeaderValue::from_static(USER_AGENT))),
            (header::ACCEPT, Some(HeaderValue::from_static("*/*"))),
            (header::PROXY_AUTHORIZATION, proxy_authorization(&server, &proxies)),
            (header::HOST, only_http1.then(|| host(&base)).flatten()),
        ];
        for (name, value) in defaults {
            if let (Some(value), false) = (value, headers.contains_key(&name)) {
                headers.insert(name, value);
            }
        }
        let mut http = legacy::Client::builder(TokioExecutor::new());
        http.timer(TokioTimer::new()).pool_timer(TokioTimer::new());
        if self.version == HttpVersion::Http2 {
            http.http2_only(true)
                .http2_initial_stream_window_size(4 << 20)
                .http2_initial_connection_window_size(16 << 20);
        }
        let connector = StreamConnector::new(&server, &proxies, tls, self.connect_timeout);
        let transport = HttpTransport {
            http: http.build(connector.clone()),
            connector,
            auth: self.auth,
            headers,
            only_http1,
            read_timeout: self.request_timeout,
        };
        Ok(Client {
            inner: Arc::new(ClientInner {
                base,
                transport,
                request_timeout: self.request_timeout,
                live_timeout: self.live_timeout,
                event_patience: self.event_patience,
                max_message: self.max_message,
                retry: self.retry,
            }),
        })
    }
}

/// `Host` of requests to `base`, which HTTP/2 has elsewhere.
fn host(base: &Url) -> Option<HeaderValue> {
    let name = base.host_str()?;
    let host = base.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
    HeaderValue::try_from(host).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_the_url_of_its_path() {
        let client = Client::new("http://h.test/v1/stream/").unwrap();
        for (path, url) in [
            ("a", "http://h.test/v1/stream/a"),
            ("/a/b c", "http://h.test/v1/stream/a/b%20c"),
            ("a?b#c%", "http://h.test/v1/stream/a%3Fb%23c%25"),
            ("http://h.test/other/a%20b", "http://h.test/other/a%20b"),
            ("http://h.test/a?sig=b%2F#c", "http://h.test/a"),
        ] {
            assert_eq!(client.stream(path).unwrap().url(), url);
        }
        for bad in
            ["http://other.test/a", "https://h.test/a", "http://h.test/a?offset=-1", "http://"]
        {
            assert!(client.stream(bad).is_err(), "{bad}");
        }
        for bad in ["", "h.test", "ftp://h.test", "http://h.test/?a=b", "mailto:a@b"] {
            assert!(Client::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_query_of_a_url_is_sent_and_not_shown() {
        let client = Client::new("http://h.test/v1/stream").unwrap();
        let stream = client.stream("http://h.test/a?sig=b%2F#c").unwrap();
        let call = stream.call("read", http::Method::GET);
        assert_eq!(
            (call.uri.to_string().as_str(), &*call.shown),
            ("http://h.test/a?sig=b%2F", "http://h.test/a")
        );
    }

    #[test]
    fn certificates_are_checked_when_the_client_is_made() {
        let error =
            Client::builder("https://h.test").client_certificate("no PEM").build().unwrap_err();
        assert!(error.to_string().starts_with("client_certificate cannot be used"), "{error}");
    }
}
