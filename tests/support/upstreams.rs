//! Servers for the proxy to talk to: well-behaved ones on hyper, ill-behaved ones on bare TCP.
//!
//! Each listens on a loopback port of its own and ends when it is dropped.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::AbortHandle;

/// The body type of the well-behaved servers.
pub type Body = BoxBody<Bytes, std::io::Error>;

/// A body that is there at once.
pub fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// A 200 with this body.
pub fn ok(text: impl Into<Bytes>) -> Response<Body> {
    Response::new(full(text))
}

/// A running server.
pub struct Upstream {
    pub addr: SocketAddr,
    /// Requests (hyper) or connections (bare TCP) seen.
    hits: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The HTTP version a hyper server speaks.
#[derive(Clone, Copy, PartialEq)]
pub enum Speak {
    Http1,
    Http2,
}

impl Upstream {
    pub fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
    }

    /// HTTP/1.1.
    pub async fn http<F, Fut>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::serve(free_port().await, Speak::Http1, None, handler).await
    }

    /// HTTP/2 without TLS.
    pub async fn h2c<F, Fut>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::serve(free_port().await, Speak::Http2, None, handler).await
    }

    /// Everything chosen: the socket, the version, TLS.
    pub async fn serve<F, Fut>(
        listener: TcpListener,
        speak: Speak,
        tls: Option<tokio_rustls::TlsAcceptor>,
        handler: F,
    ) -> Self
    where
        F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Response<Body>> + Send + 'static,
    {
        let hits = Arc::new(AtomicUsize::new(0));
        let counter = hits.clone();
        Self::accept(listener, hits, move |socket| {
            let (handler, tls, counter) = (handler.clone(), tls.clone(), counter.clone());
            async move {
                match tls {
                    None => exchange(socket, speak, handler, counter).await,
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(socket).await {
                            exchange(stream, speak, handler, counter).await;
                        }
                    }
                }
            }
        })
    }

    /// Bare TCP: the handler does what it likes with each connection.
    pub async fn raw<F, Fut>(handler: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let hits = Arc::new(AtomicUsize::new(0));
        let counter = hits.clone();
        Self::accept(free_port().await, hits, move |socket| {
            counter.fetch_add(1, Ordering::SeqCst);
            handler.clone()(socket)
        })
    }

    fn accept<F, Fut>(listener: TcpListener, hits: Arc<AtomicUsize>, handler: F) -> Self
    where
        F: Fn(TcpStream) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let addr = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            // Connections live in a set, so that dropping the server drops them as well.
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    Ok((socket, _)) = listener.accept() => {
                        connections.spawn(handler(socket));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Upstream { addr, hits, task: task.abort_handle() }
    }
}

async fn exchange<IO, F, Fut>(io: IO, speak: Speak, handler: F, hits: Arc<AtomicUsize>)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        hits.fetch_add(1, Ordering::SeqCst);
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let io = TokioIo::new(io);
    // An error here is a client that left, which the tests judge from their own side.
    let _ = match speak {
        Speak::Http1 => {
            hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
        }
        Speak::Http2 => {
            hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(io, service)
                .await
        }
    };
}

/// A listener on a port of the system's choice.
pub async fn free_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// A port that refuses connections: bound, so that nobody else gets it, and not listening. It refuses as
/// long as the socket lives, or until it listens.
pub fn refusing_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

/// Answers with the request head as it arrived: one `name: value` per line.
pub async fn echo_head(request: Request<Incoming>) -> Response<Body> {
    let mut text = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        text.push_str(&format!("{name}: {}\n", value.to_str().unwrap_or("?")));
    }
    ok(text)
}

/// Answers with the request's body.
pub async fn echo_body(request: Request<Incoming>) -> Response<Body> {
    Response::new(request.into_body().map_err(std::io::Error::other).boxed())
}

/// Answers with the request's body once all of it has come; never if it does not come.
pub async fn collect_body(request: Request<Incoming>) -> Response<Body> {
    match request.into_body().collect().await {
        Ok(body) => ok(body.to_bytes()),
        Err(_) => std::future::pending().await,
    }
}
