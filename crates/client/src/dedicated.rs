//! Connections of HTTP/1.1 that belong to one caller, for requests one after the other.

use std::{
    error::Error as StdError,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::http1::{self, Connection, SendRequest},
};
use hyper_rustls::MaybeHttpsStream;
use hyper_util::client::legacy::connect::Connection as _;
use tower_service::Service;

use crate::connect::{ProxiedIo, StreamConnector};

/// How often a task that was woken by itself polls again before it lets others run.
const POLLS: u32 = 4;

type BoxError = Box<dyn StdError + Send + Sync>;

/// A connection that is made with the first request and again after it ended.
///
/// The task that waits for a response polls it. A connection of the client's pool has a task of its own, which every
/// request and every response would have to wake. Measured: see "Speed" in docs/client.md.
#[derive(Debug, Default)]
pub(crate) struct DedicatedConnection {
    /// Boxed, as it moves into every request and back.
    open: Option<Box<OpenConnection>>,
}

#[derive(Debug)]
struct OpenConnection {
    sender: SendRequest<Full<Bytes>>,
    polled: PolledConnection,
    /// A proxy takes the requests, with their whole URLs.
    proxied: bool,
}

#[derive(Debug)]
struct PolledConnection {
    /// `None` once it has ended.
    connection: Option<Connection<MaybeHttpsStream<ProxiedIo>, Full<Bytes>>>,
    waker: Arc<PollingWaker>,
}

/// Wakes the task that waits, unless it is polling: then the task polls again.
///
/// The parts of a connection wake each other. Were the task itself woken meanwhile, it would be scheduled once more, for
/// which tokio wakes another thread with every append.
#[derive(Debug, Default)]
struct PollingWaker {
    task: AtomicWaker,
    polling: AtomicBool,
    woken: AtomicBool,
}

/// Why there is no response.
#[derive(Debug)]
pub(crate) struct UnansweredRequest {
    pub(crate) cause: BoxError,
    /// The server has not seen the request.
    pub(crate) unsent: bool,
}

impl DedicatedConnection {
    /// Sends `request`, whose `Host` is set, and returns the head of the response. The body arrives while
    /// [`along`](Self::along) runs. A call that is cancelled must be followed by [`close`](Self::close).
    pub(crate) async fn request(
        &mut self,
        connector: &StreamConnector,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, UnansweredRequest> {
        let mut reused = true;
        loop {
            let open = match &mut self.open {
                Some(open) => open,
                None => {
                    reused = false;
                    // Boxed, so that the futures of requests are small: they are moved, too.
                    let connected =
                        Box::pin(OpenConnection::connect(connector, request.uri())).await;
                    let connected =
                        connected.map_err(|cause| UnansweredRequest { cause, unsent: true });
                    self.open.insert(Box::new(connected?))
                }
            };
            match open.request(request).await {
                Ok(response) => return Ok(response),
                // The server has closed it since the last request.
                Err((_, Some(unsent))) if reused => {
                    request = unsent;
                    self.open = None;
                }
                Err((cause, message)) => {
                    self.open = None;
                    return Err(UnansweredRequest { cause, unsent: message.is_some() });
                }
            }
        }
    }

    /// Runs `work`, which reads the body of a response.
    pub(crate) async fn along<T>(&mut self, work: impl Future<Output = T>) -> T {
        match &mut self.open {
            Some(open) => open.polled.along(work).await,
            None => work.await,
        }
    }

    /// Ends the connection; the next request makes another.
    pub(crate) fn close(&mut self) {
        self.open = None;
    }
}

impl OpenConnection {
    async fn connect(connector: &StreamConnector, server: &Uri) -> Result<Self, BoxError> {
        let io = connector.clone().call(server.clone()).await?;
        let proxied = io.connected().is_proxied();
        let (sender, connection) = http1::handshake(io).await?;
        let waker = Arc::new(PollingWaker::default());
        let polled = PolledConnection { connection: Some(connection), waker };
        Ok(OpenConnection { sender, polled, proxied })
    }

    /// Returns the request with the error when it was not sent.
    async fn request(
        &mut self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, (BoxError, Option<Request<Full<Bytes>>>)> {
        let url = request.uri().clone();
        if let (false, Some(path)) = (self.proxied, url.path_and_query()) {
            *request.uri_mut() = Uri::from(path.clone());
        }
        let sender = &mut self.sender;
        let answered = self.polled.along(async {
            if let Err(error) = sender.ready().await {
                return Err((error, Some(request)));
            }
            sender.try_send_request(request).await.map_err(|mut error| {
                let unsent = error.take_message();
                (error.into_error(), unsent)
            })
        });
        answered.await.map_err(|(error, unsent)| {
            let unsent = unsent.map(|mut request| {
                *request.uri_mut() = url;
                request
            });
            (error.into(), unsent)
        })
    }
}

impl PolledConnection {
    /// Polls the connection whenever `work` cannot go on.
    async fn along<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let waker = Waker::from(self.waker.clone());
        poll_fn(|context| {
            self.waker.task.register(context.waker());
            self.waker.polling.store(true, Ordering::SeqCst);
            let mut polled = Poll::Pending;
            for _ in 0..POLLS {
                self.waker.woken.store(false, Ordering::SeqCst);
                polled = self.poll_both(work.as_mut(), &mut Context::from_waker(&waker));
                if polled.is_ready() || !self.waker.woken.load(Ordering::SeqCst) {
                    break;
                }
            }
            self.waker.polling.store(false, Ordering::SeqCst);
            // Since the last poll another thread may have woken it, and seen that it was polling.
            if polled.is_pending() && self.waker.woken.load(Ordering::SeqCst) {
                context.waker().wake_by_ref();
            }
            polled
        })
        .await
    }

    fn poll_both<T>(
        &mut self,
        mut work: Pin<&mut impl Future<Output = T>>,
        context: &mut Context<'_>,
    ) -> Poll<T> {
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(done);
        }
        if let Some(connection) = &mut self.connection
            && Pin::new(connection).poll(context).is_ready()
        {
            // What ended it is the outcome of the request, too.
            self.connection = None;
        }
        work.poll(context)
    }
}

impl Wake for PollingWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        if !self.polling.load(Ordering::SeqCst) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;
    use hyper_util::client::proxy::matcher::Matcher;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::connect::tls_config;

    /// Reads a request without a body, and answers it with its own target.
    async fn answer(socket: &mut TcpStream) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let target = head.split(' ').nth(1).unwrap().to_owned();
        let length = target.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{target}");
        socket.write_all(answer.as_bytes()).await.unwrap();
        target
    }

    async fn ask(
        connection: &mut DedicatedConnection,
        connector: &StreamConnector,
        url: &str,
    ) -> String {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = url.parse().unwrap();
        let response = connection.request(connector, request).await.unwrap();
        let body = connection.along(response.into_body().collect()).await.unwrap();
        String::from_utf8(body.to_bytes().to_vec()).unwrap()
    }

    fn connector(url: &str, proxies: &Matcher) -> StreamConnector {
        let tls = tls_config(Some(b""), None, &[]).unwrap();
        StreamConnector::new(&url.parse().unwrap(), proxies, tls, Duration::from_secs(5))
    }

    #[tokio::test]
    async fn a_connection_serves_until_it_ends_and_is_made_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/a?b=c", listener.local_addr().unwrap());
        let connector = connector(&url, &Matcher::builder().build());
        let server = tokio::spawn(async move {
            for _ in 0..2 {
                let (mut socket, _) = listener.accept().await.unwrap();
                assert_eq!(answer(&mut socket).await, "/a?b=c");
                answer(&mut socket).await;
            }
        });
        let mut connection = DedicatedConnection::default();
        for _ in 0..2 {
            assert_eq!(ask(&mut connection, &connector, &url).await, "/a?b=c");
        }
        // Its end arrives while no request is on the way.
        let ended = |connection: &mut DedicatedConnection| {
            connection.open.as_ref().is_none_or(|open| open.sender.is_closed())
        };
        for _ in 0..500 {
            let _ = tokio::time::timeout(
                Duration::from_millis(10),
                connection.along(std::future::pending::<()>()),
            )
            .await;
            if ended(&mut connection) {
                break;
            }
        }
        assert!(ended(&mut connection));
        for _ in 0..2 {
            assert_eq!(ask(&mut connection, &connector, &url).await, "/a?b=c");
        }
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_proxy_takes_the_whole_url() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://{}", listener.local_addr().unwrap());
        let connector = connector("http://h.test/a", &Matcher::builder().all(proxy).build());
        let server = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            answer(&mut socket).await
        });
        let mut connection = DedicatedConnection::default();
        let target = ask(&mut connection, &connector, "http://h.test/a").await;
        assert_eq!(
            (target.as_str(), server.await.unwrap().as_str()),
            ("http://h.test/a", "http://h.test/a")
        );
    }

    #[tokio::test]
    async fn a_server_that_is_away_has_not_seen_the_request() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/a", listener.local_addr().unwrap());
        drop(listener);
        let connector = connector(&url, &Matcher::builder().build());
        let mut request = Request::new(Full::default());
        *request.uri_mut() = url.parse().unwrap();
        let failed = DedicatedConnection::default().request(&connector, request).await;
        assert!(failed.unwrap_err().unsent);
    }

    #[derive(Default)]
    struct WakeCount(std::sync::atomic::AtomicU32);

    impl Wake for WakeCount {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Polls once what wakes itself with each of its first `wakes` polls. Returns how often it was polled, how often the
    /// task was woken, and how often it was after one more event.
    fn woken(wakes: u32) -> (u32, u32, u32) {
        let count = Arc::new(WakeCount::default());
        let waker = Arc::new(PollingWaker::default());
        let mut polled = PolledConnection { connection: None, waker: waker.clone() };
        let mut polls = 0;
        let mut along = Box::pin(polled.along(poll_fn(|context| {
            polls += 1;
            if polls <= wakes {
                context.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        })));
        let task = Waker::from(count.clone());
        assert!(along.as_mut().poll(&mut Context::from_waker(&task)).is_pending());
        drop(along);
        let before = count.0.load(Ordering::SeqCst);
        waker.wake_by_ref();
        (polls, before, count.0.load(Ordering::SeqCst))
    }

    #[test]
    fn a_task_that_wakes_itself_polls_again_and_then_lets_others_run() {
        assert_eq!(woken(0), (2, 0, 1));
        assert_eq!(woken(1), (4, 0, 1));
        assert_eq!(woken(u32::MAX), (2 * POLLS, 1, 2));
    }
}
