//! HTTP/2: by prior knowledge from clients, and to upstreams that speak it.

use bytes::Bytes;
use durable_streams_server::edge::upstream::UpstreamOptions;
use durable_streams_server::edge::{EdgeOptions, HttpLimits};
use http::Request;
use tokio::net::TcpStream;

use crate::support::upstreams::{Upstream, echo_body, echo_head, ok};
use crate::support::{PATIENCE, TestServer, edge, to};

pub type Sender = h2::client::SendRequest<Bytes>;

pub async fn connect(server: &TestServer) -> Sender {
    let socket = TcpStream::connect(server.addr).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    sender
}

pub async fn ask(
    sender: &Sender,
    request: Request<()>,
    body: &[u8],
) -> Result<(u16, Vec<u8>), h2::Error> {
    let exchange = async {
        let mut sender = sender.clone().ready().await?;
        let (response, mut send) = sender.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            send.send_data(Bytes::copy_from_slice(body), true)?;
        }
        let response = response.await?;
        let status = response.status().as_u16();
        let mut stream = response.into_body();
        let mut all = Vec::new();
        while let Some(data) = stream.data().await {
            let data = data?;
            stream.flow_control().release_capacity(data.len())?;
            all.extend_from_slice(&data);
        }
        Ok((status, all))
    };
    tokio::time::timeout(PATIENCE, exchange).await.expect("no answer")
}

pub fn get(path: &str) -> Request<()> {
    Request::get(format!("http://test.example{path}")).body(()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_begin_with_http2() {
    let upstream = Upstream::http(echo_head).await;
    let server = TestServer::before(&upstream);
    let sender = connect(&server).await;
    let (status, body) = ask(&sender, get("/x?y"), b"").await.unwrap();
    let text = String::from_utf8(body).unwrap();
    assert_eq!(status, 200);
    assert!(text.starts_with("GET /x?y\n"), "{text}");
    assert!(text.contains("\nhost: test.example\n"), "{text}");
    assert!(text.contains("\nvia: 2 durable-streams-server\n"), "{text}");
    // The same port still speaks HTTP/1.1, even a request shorter than HTTP/2's preface.
    let reply = server.ask("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(reply.status, 200);
    let (status, _) = ask(&sender, get("/v1/stream/../x"), b"").await.unwrap();
    assert_eq!(status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_may_speak_http2() {
    let upstream = Upstream::h2c(|request: Request<hyper::body::Incoming>| async {
        assert_eq!(request.version(), http::Version::HTTP_2);
        echo_body(request).await
    })
    .await;
    let server = TestServer::start(edge(vec![UpstreamOptions { http2: true, ..to(&[&upstream]) }]));
    let reply = server.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello").await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n\
        3\r\nfoo\r\n3\r\nbar\r\n0\r\n\r\n";
    assert_eq!(server.ask(chunked).await.text(), "foobar");
    let sender = connect(&server).await;
    let post = Request::post("http://test.example/").body(()).unwrap();
    assert_eq!(ask(&sender, post, b"two").await.unwrap(), (200, b"two".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_breaks_off_resets_the_stream() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let upstream = Upstream::raw(|mut socket| async move {
        let mut request = [0; 1024];
        let _ = socket.read(&mut request).await;
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
        let _ = socket.write_all(head).await;
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    })
    .await;
    let server = TestServer::before(&upstream);
    let sender = connect(&server).await;
    let error = ask(&sender, get("/"), b"").await.expect_err("a part passed for the whole");
    assert!(error.is_reset(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_for_http2_as_well() {
    let upstream = Upstream::http(|_| async { ok("x") }).await;
    let limits = HttpLimits { max_uri: 100, max_headers: 10, ..HttpLimits::default() };
    let server = TestServer::start(EdgeOptions { limits, ..edge(vec![to(&[&upstream])]) });
    let sender = connect(&server).await;
    let long = get(&format!("/{}", "x".repeat(200)));
    assert_eq!(ask(&sender, long, b"").await.unwrap().0, 414);
    let mut many = get("/");
    for n in 0..20 {
        let name: http::HeaderName = format!("x-{n}").parse().unwrap();
        many.headers_mut().insert(name, "v".parse().unwrap());
    }
    assert_eq!(ask(&sender, many, b"").await.unwrap().0, 431);
    assert_eq!(upstream.hits(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn rapid_reset_ends_the_connection() {
    let upstream = Upstream::http(|_| async {
        tokio::time::sleep(PATIENCE).await;
        ok("x")
    })
    .await;
    let server = TestServer::before(&upstream);
    let sender = connect(&server).await;
    let mut ended = false;
    for _ in 0..20_000 {
        let Ok(mut ready) = sender.clone().ready().await else {
            ended = true;
            break;
        };
        let Ok((response, mut send)) = ready.send_request(get("/"), false) else {
            ended = true;
            break;
        };
        send.send_reset(h2::Reason::CANCEL);
        drop(response);
    }
    assert!(ended, "20,000 streams were opened and reset on one connection");
    // The server itself is unimpressed.
    assert_eq!(server.get("/v1/stream/../x").await.status, 400);
}

/// An upstream that refuses every second stream before it looks at it (RFC 9113 §8.7).
async fn refusing_every_second() -> Upstream {
    Upstream::raw(|socket| async move {
        let Ok(mut connection) = h2::server::handshake(socket).await else { return };
        let mut requests = 0;
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            requests += 1;
            if requests % 2 == 1 {
                respond.send_reset(h2::Reason::REFUSED_STREAM);
                continue;
            }
            tokio::spawn(async move {
                let mut body = request.into_body();
                while let Some(Ok(data)) = body.data().await {
                    let _ = body.flow_control().release_capacity(data.len());
                }
                let mut send = respond.send_response(http::Response::new(()), false).unwrap();
                let _ = send.send_data(Bytes::from_static(b"ok"), true);
            });
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_stream_is_tried_again_as_retries_says() {
    for (retries, status) in [(1, 200), (0, 502)] {
        let upstream = refusing_every_second().await;
        let options = UpstreamOptions { http2: true, retries, ..to(&[&upstream]) };
        let server = TestServer::start(edge(vec![options]));
        assert_eq!(server.get("/").await.status, status, "{retries} retries");
    }
    let upstream = refusing_every_second().await;
    let server = TestServer::start(edge(vec![UpstreamOptions { http2: true, ..to(&[&upstream]) }]));
    // Nothing was done, so a POST may be repeated as well, as long as its body is still there.
    let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
    let reply = server.ask(post).await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok"), "{reply:?}");
}
