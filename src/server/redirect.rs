//! The listeners on port 80: they answer HTTP-01 challenges and send everything else to HTTPS.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderValue, Response, StatusCode, header};
use pingora::apps::http_app::ServeHttp;
use pingora::apps::{HttpServerOptions, ServerApp};
use pingora::protocols::http::ServerSession;

#[cfg(unix)]
use pingora::server::ListenFds;
use pingora::server::ShutdownWatch;
use pingora::services::Service;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::accept::transport;
use super::listen::BoundListeners;
use crate::edge::HttpLimits;
use crate::edge::connection::ClientConnection;
use crate::edge::http1::head;
use crate::tls::acme::HttpChallenges;

/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 256;
/// From the accept to the end of the response.
const MAX_DURATION: Duration = Duration::from_secs(10);

/// What is answered on port 80.
pub(super) struct HttpsRedirect {
    challenges: Option<Arc<HttpChallenges>>,
    /// Port of the HTTPS listener, where it is not 443.
    port: Option<u16>,
}

impl HttpsRedirect {
    pub(super) fn new(challenges: Option<Arc<HttpChallenges>>, https_port: u16) -> Self {
        HttpsRedirect { challenges, port: (https_port != 443).then_some(https_port) }
    }

    /// The same URL with `https`; `None` where the request names no host to go to.
    fn location(&self, host: &str, path_and_query: &str) -> Option<String> {
        // Without the port of this listener. An IPv6 address keeps its brackets.
        let name = match host.strip_prefix('[') {
            Some(_) => host.split_inclusive(']').next(),
            None => host.split(':').next(),
        }?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
        if name.is_empty() || !name.bytes().all(allowed) || !path_and_query.starts_with('/') {
            return None;
        }
        Some(match self.port {
            None => format!("https://{name}{path_and_query}"),
            Some(port) => format!("https://{name}:{port}{path_and_query}"),
        })
    }

    fn respond(&self, host: &str, path: &str, path_and_query: &str) -> Response<Vec<u8>> {
        if let Some(answer) = self.challenges.as_ref().and_then(|all| all.answer(path)) {
            let mut response = Response::new(answer.into_bytes());
            let media_type = HeaderValue::from_static("application/octet-stream");
            response.headers_mut().insert(header::CONTENT_TYPE, media_type);
            return response;
        }
        let location = self.location(host, path_and_query);
        let location = location.and_then(|url| HeaderValue::from_str(&url).ok());
        let mut response = Response::new(Vec::new());
        match location {
            // 308: a POST is repeated as a POST.
            Some(location) => {
                *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
                response.headers_mut().insert(header::LOCATION, location);
            }
            None => *response.status_mut() = StatusCode::BAD_REQUEST,
        }
        response
    }
}

#[async_trait]
impl ServeHttp for HttpsRedirect {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        session.set_keepalive(None);
        let request = session.req_header();
        let host = request.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
        let mut response = self.respond(host.unwrap_or_default(), request.uri.path(), target);
        let length = HeaderValue::from(response.body().len());
        response.headers_mut().insert(header::CONTENT_LENGTH, length);
        response
    }
}

/// The service that accepts.
pub(super) struct RedirectService {
    app: Arc<pingora::apps::http_app::HttpServer<HttpsRedirect>>,
    bound: BoundListeners,
    limits: HttpLimits,
}

impl RedirectService {
    pub(super) fn new(redirect: HttpsRedirect, bound: BoundListeners, limits: HttpLimits) -> Self {
        let mut app = pingora::apps::http_app::HttpServer::new_app(redirect);
        app.server_options = Some(HttpServerOptions::default());
        RedirectService { app: Arc::new(app), bound, limits }
    }
}

#[async_trait]
impl Service for RedirectService {
    async fn start_service(
        &mut self,
        #[cfg(unix)] _fds: Option<ListenFds>,
        shutdown: ShutdownWatch,
        _: usize,
    ) {
        let open = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut loops = JoinSet::new();
        for listener in self.bound.listeners.drain(..) {
            match TcpListener::from_std(listener.socket) {
                Ok(listener) => {
                    let (app, open) = (self.app.clone(), open.clone());
                    let (limits, shutdown) = (self.limits.clone(), shutdown.clone());
                    loops.spawn(accept(listener, app, limits, open, shutdown));
                }
                Err(error) => tracing::error!(%error, "the socket of the redirect is unusable"),
            }
        }
        let mut shutdown = shutdown;
        let _ = shutdown.wait_for(|ended| *ended).await;
    }

    fn name(&self) -> &'static str {
        "https redirect"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

async fn accept(
    listener: TcpListener,
    app: Arc<pingora::apps::http_app::HttpServer<HttpsRedirect>>,
    limits: HttpLimits,
    open: Arc<Semaphore>,
    shutdown: ShutdownWatch,
) {
    while let Ok(permit) = open.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((socket, peer)) => {
                let io = transport(socket, peer);
                let mut connection = ClientConnection::new(io, &limits, shutdown.clone(), permit);
                let (app, shutdown) = (app.clone(), shutdown.clone());
                tokio::spawn(async move {
                    let served = async {
                        if head::arrives(&mut connection).await {
                            app.process_new(Box::new(connection), &shutdown).await;
                        }
                    };
                    let _ = tokio::time::timeout(MAX_DURATION, served).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed on the listener of the redirect");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirected(port: u16, host: &str, target: &str) -> Option<String> {
        let response = HttpsRedirect::new(None, port).respond(host, "/", target);
        let location = response.headers().get(header::LOCATION)?;
        assert_eq!(response.status(), StatusCode::PERMANENT_REDIRECT);
        Some(location.to_str().unwrap().to_owned())
    }

    #[test]
    fn everything_is_sent_to_the_same_place_by_https() {
        for (port, host, target, location) in [
            (443, "a.test", "/x?y=1", "https://a.test/x?y=1"),
            (443, "a.test:80", "/", "https://a.test/"),
            (8443, "a.test:8080", "/", "https://a.test:8443/"),
            (443, "[2001:db8::1]:80", "/", "https://[2001:db8::1]/"),
        ] {
            assert_eq!(redirected(port, host, target).as_deref(), Some(location));
        }
    }

    #[test]
    fn a_host_that_is_none_leads_nowhere() {
        for host in ["", "a.test/@evil", "evil\\.test", "a b", "user@evil.test", "é"] {
            assert_eq!(redirected(443, host, "/"), None, "{host}");
        }
        assert_eq!(redirected(443, "a.test", "http://evil.test/"), None);
    }
}
