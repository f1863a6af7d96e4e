//! Connections to the server: TCP, the proxy that the environment names, TLS.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, Uri, uri::Scheme};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::{
        legacy::connect::{Connected, Connection, HttpConnector, proxy::Tunnel},
        proxy::matcher::{Intercept, Matcher},
    },
    rt::TokioIo,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::net::TcpStream;
use tower_service::Service;

use crate::error::ClientError;

/// Of a connection that carries nothing.
const KEEPALIVE: Duration = Duration::from_secs(15);

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

/// Makes the connections of a client, each within a time.
#[derive(Clone, Debug)]
pub(crate) struct StreamConnector {
    https: HttpsConnector<ProxyConnector>,
    timeout: Duration,
}

/// Makes the connections below TLS.
#[derive(Clone, Debug)]
pub(crate) struct ProxyConnector {
    tcp: HttpConnector,
    proxy: Option<Arc<ProxyRoute>>,
}

#[derive(Debug)]
struct ProxyRoute {
    intercept: Intercept,
    /// To the proxy itself.
    connector: HttpsConnector<HttpConnector>,
}

/// A connection to the server or to its proxy.
#[derive(Debug)]
pub(crate) struct ProxiedIo {
    io: MaybeHttpsStream<TokioIo<TcpStream>>,
    /// A proxy takes the requests themselves, with their whole URLs.
    absolute: bool,
}

impl StreamConnector {
    /// For the server at `base`, through the proxy that `proxies` names for it.
    pub(crate) fn new(base: &Uri, proxies: &Matcher, tls: ClientConfig, timeout: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_keepalive_retries(Some(3));
        let proxy = proxies.intercept(base).map(|intercept| {
            let mut tls = tls.clone();
            // What the connection to a proxy speaks has nothing to do with the server.
            tls.alpn_protocols.clear();
            let connector = HttpsConnector::from((tcp.clone(), tls));
            Arc::new(ProxyRoute { intercept, connector })
        });
        let https = HttpsConnector::from((ProxyConnector { tcp, proxy }, tls));
        StreamConnector { https, timeout }
    }
}

/// `Proxy-Authorization` of requests that `proxies` lets a proxy take, where it has a user.
pub(crate) fn proxy_authorization(base: &Uri, proxies: &Matcher) -> Option<HeaderValue> {
    let plain = base.scheme() == Some(&Scheme::HTTP);
    proxies.intercept(base).filter(|_| plain)?.basic_auth().cloned()
}

impl Service<Uri> for StreamConnector {
    type Response = MaybeHttpsStream<ProxiedIo>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.https.poll_ready(context)
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let (connecting, timeout) = (self.https.call(server), self.timeout);
        Box::pin(async move {
            let connected = tokio::time::timeout(timeout, connecting).await;
            connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        })
    }
}

impl Service<Uri> for ProxyConnector {
    type Response = ProxiedIo;
    type Error = BoxError;
    type Future = Connecting<ProxiedIo>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        let Some(proxy) = self.proxy.clone() else {
            let connecting = self.tcp.call(server);
            return Box::pin(async move {
                let io = MaybeHttpsStream::Http(connecting.await?);
                Ok(ProxiedIo { io, absolute: false })
            });
        };
        let mut connector = proxy.connector.clone();
        let address = proxy.intercept.uri().clone();
        if server.scheme() == Some(&Scheme::HTTP) {
            let connecting = connector.call(address);
            return Box::pin(
                async move { Ok(ProxiedIo { io: connecting.await?, absolute: true }) },
            );
        }
        let mut tunnel = Tunnel::new(address, connector);
        if let Some(authorization) = proxy.intercept.basic_auth() {
            tunnel = tunnel.with_auth(authorization.clone());
        }
        let connecting = tunnel.call(server);
        Box::pin(async move { Ok(ProxiedIo { io: connecting.await?, absolute: false }) })
    }
}

impl Connection for ProxiedIo {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.absolute)
    }
}

impl Read for ProxiedIo {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_read(context, buffer)
    }
}

impl Write for ProxiedIo {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(context, pieces)
    }
}

/// The authorities to trust and the client's own certificate; PEM.
///
/// # Errors
/// [`ClientError::InvalidArgument`] for what is no PEM, or no certificate.
pub(crate) fn tls_config(
    roots: Option<&[u8]>,
    identity: Option<&[u8]>,
    alpn: &[&str],
) -> Result<ClientConfig, ClientError> {
    fn invalid(what: &'static str, error: impl ToString) -> ClientError {
        ClientError::InvalidArgument { what, reason: error.to_string() }
    }
    // One crypto provider for the process; where the application has chosen one, that stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = ClientConfig::builder();
    let config = match roots {
        None => {
            let provider = config.crypto_provider().clone();
            let system = rustls_platform_verifier::Verifier::new(provider)
                .map_err(|error| invalid("the system's authorities", error))?;
            config.dangerous().with_custom_certificate_verifier(Arc::new(system))
        }
        Some(pem) => {
            let mut trusted = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let added = certificate.map_err(|error| invalid("root_certificates", error))?;
                trusted.add(added).map_err(|error| invalid("root_certificates", error))?;
            }
            config.with_root_certificates(trusted)
        }
    };
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(pem) => {
            let failed = |error| invalid("client_certificate", error);
            let key = PrivateKeyDer::from_pem_slice(pem).map_err(failed)?;
            let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>();
            config
                .with_client_auth_cert(chain.map_err(failed)?, key)
                .map_err(|error| invalid("client_certificate", error))?
        }
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(config)
}

#[cfg(test)]
mod tests {
    use hyper_util::rt::TokioExecutor;
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    /// What a proxy receives first of a request to `url`.
    async fn at_the_proxy(url: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://me:pw@{}", listener.local_addr().unwrap());
        let proxies = Matcher::builder().all(proxy).no("direct.test").build();
        let base = Uri::from_static(url);
        let mut headers = http::HeaderMap::new();
        if let Some(authorization) = proxy_authorization(&base, &proxies) {
            headers.insert(http::header::PROXY_AUTHORIZATION, authorization);
        }
        let tls = tls_config(Some(b""), None, &[]).unwrap();
        let connector = StreamConnector::new(&base, &proxies, tls, Duration::from_secs(5));
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
        let client = client.build::<_, http_body_util::Empty<bytes::Bytes>>(connector);
        let mut request = http::Request::new(http_body_util::Empty::new());
        *request.uri_mut() = base;
        *request.headers_mut() = headers;
        tokio::spawn(client.request(request));
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap().to_ascii_lowercase()
    }

    #[tokio::test]
    async fn a_proxy_takes_requests_and_tunnels() {
        let head = at_the_proxy("http://h.test/v1/a?x=1").await;
        assert!(head.starts_with("get http://h.test/v1/a?x=1 http/1.1\r\n"), "{head}");
        assert!(head.contains("proxy-authorization: basic bwu6chc=\r\n"), "{head}");
        let head = at_the_proxy("https://h.test/v1/a").await;
        assert!(head.starts_with("connect h.test:443 http/1.1\r\n"), "{head}");
        assert!(head.contains("proxy-authorization: basic bwu6chc=\r\n"), "{head}");
    }
}
