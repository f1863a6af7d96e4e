//! Stopping: what is finished, what is cut, how long it takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use durable_streams_server::edge::EdgeOptions;
use durable_streams_server::edge::upstream::UpstreamOptions;
use durable_streams_server::server::{ListenOptions, Server, ServerError, ServerOptions, Stopped};
use tokio::sync::Notify;

use crate::support::upstreams::{Upstream, ok};
use crate::support::{Client, PROMPT, TestServer, edge, engine, eventually, to};

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_do_not_hold_up_a_stop() {
    let server = TestServer::start(EdgeOptions::default());
    let mut idle = Vec::new();
    for n in 0..20 {
        let mut client = server.connect().await;
        if n % 2 == 0 {
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
            client.reply().await;
        }
        idle.push(client);
    }
    let socket = tokio::net::TcpStream::connect(server.addr).await.unwrap();
    let (h2, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let h2 = h2.ready().await.unwrap();
    server.stop();
    let (stopped, took) = server.ended().await;
    assert_eq!(stopped, Stopped::Drained);
    assert!(took < PROMPT, "{took:?}");
    drop((idle, h2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_in_flight_is_answered_and_new_connections_are_refused() {
    let (arrived, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (a, r) = (arrived.clone(), release.clone());
    let upstream = Upstream::http(move |_| {
        let (arrived, release) = (a.clone(), r.clone());
        async move {
            arrived.notify_one();
            release.notified().await;
            ok("finished")
        }
    })
    .await;
    let server = TestServer::before(&upstream);
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    arrived.notified().await;
    server.stop();
    let addr = server.addr;
    eventually("the port is closed", || async {
        tokio::net::TcpStream::connect(addr).await.is_err()
    })
    .await;
    release.notify_one();
    let reply = client.reply().await;
    assert_eq!((reply.text().as_str(), reply.complete), ("finished", true));
    let (stopped, took) = server.ended().await;
    assert_eq!(stopped, Stopped::Drained);
    assert!(took < PROMPT, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_every_accepted_request_is_answered_whole() {
    let upstream = Upstream::http(|_| async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        ok("whole")
    })
    .await;
    let server = TestServer::before(&upstream);
    let (addr, stopping) = (server.addr, Arc::new(AtomicBool::new(false)));
    let answered = Arc::new(AtomicUsize::new(0));
    let mut load = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (stopping, answered) = (stopping.clone(), answered.clone());
        load.spawn(async move {
            while let Ok(socket) = tokio::net::TcpStream::connect(addr).await {
                drop(socket);
                if stopping.load(Ordering::SeqCst) {
                    return;
                }
                let mut client = Client::connect(addr).await;
                client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
                let begun_before = !stopping.load(Ordering::SeqCst);
                if begun_before {
                    let reply = client.reply().await;
                    assert_eq!((reply.text().as_str(), reply.complete), ("whole", true));
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
    }
    eventually("there is load", || async { answered.load(Ordering::SeqCst) > 100 }).await;
    stopping.store(true, Ordering::SeqCst);
    // Requests begun before the flag are under way; give their bytes time to arrive.
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop();
    let (stopped, took) = server.ended().await;
    assert_eq!(stopped, Stopped::Drained);
    assert!(took < PROMPT, "{took:?}");
    while let Some(result) = load.join_next().await {
        result.unwrap();
    }
}

async fn stuck(shutdown_timeout: Duration) -> (TestServer, Client, Upstream) {
    let upstream = Upstream::http(|_| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        ok("never")
    })
    .await;
    let options = ServerOptions {
        shutdown_timeout,
        edge: edge(vec![to(&[&upstream])]),
        ..ServerOptions::default()
    };
    let server = TestServer::start_with(options);
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    eventually("the request is under way", || async { upstream.hits() == 1 }).await;
    (server, client, upstream)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_wish_stops_at_once() {
    let (server, mut client, _upstream) = stuck(Duration::from_secs(60)).await;
    server.stop();
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.stop();
    let (stopped, took) = server.ended().await;
    assert_eq!(stopped, Stopped::Forced);
    assert!(took < PROMPT, "{took:?}");
    assert!(client.is_closed().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shutdown_timeout_bounds_a_stop() {
    let (server, _client, _upstream) = stuck(Duration::from_millis(300)).await;
    server.stop();
    let (stopped, took) = server.ended().await;
    assert_eq!(stopped, Stopped::TimedOut);
    assert!(took >= Duration::from_millis(200) && took < PROMPT, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_an_error_that_names_it() {
    let server = TestServer::start(EdgeOptions::default());
    let addresses = vec![server.addr.to_string().into()];
    let options = ServerOptions { listen: ListenOptions { addresses }, ..ServerOptions::default() };
    let Err(error @ ServerError::Bind { .. }) = Server::bind(options, engine()) else {
        panic!("the same port was bound twice");
    };
    assert!(error.to_string().contains(&server.addr.to_string()), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watch_turns_when_the_stop_begins() {
    let server = Server::bind(
        ServerOptions {
            listen: ListenOptions { addresses: vec!["127.0.0.1:0".into()] },
            ..ServerOptions::default()
        },
        engine(),
    )
    .unwrap();
    let (mut watch, handle) = (server.shutdown(), server.stop_handle());
    let thread = std::thread::spawn(move || server.run_without_signals());
    assert!(!*watch.borrow());
    handle.stop();
    watch.wait_for(|stopping| *stopping).await.unwrap();
    let stopped = tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();
    assert_eq!(stopped, Stopped::Drained);
}

#[tokio::test(flavor = "multi_thread")]
async fn proxied_tunnels_and_event_streams_do_not_hold_up_a_stop() {
    use futures_util::StreamExt;
    let sockets = Upstream::raw(|socket| async move {
        if let Ok(mut socket) = tokio_tungstenite::accept_async(socket).await {
            while socket.next().await.is_some() {}
        }
    })
    .await;
    let events = Upstream::http(|_| async {
        use http_body_util::BodyExt;
        let first = Ok(hyper::body::Frame::data("data: one\n\n".into()));
        let body = futures_util::stream::iter([first]).chain(futures_util::stream::pending());
        let body = BodyExt::boxed(http_body_util::StreamBody::new(body));
        http::Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
    })
    .await;
    let under =
        |prefix: &str, upstream| UpstreamOptions { prefix: prefix.into(), ..to(&[upstream]) };
    let server =
        TestServer::start(edge(vec![under("/socket", &sockets), under("/events", &events)]));
    let url = format!("ws://{}/socket", server.addr);
    let (_socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let mut client = server.connect().await;
    client.send("GET /events HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n\r\n").await;
    client.until(b"data: one\n\n").await;
    server.stop();
    let (stopped, took) = server.ended().await;
    assert_eq!(stopped, Stopped::Drained);
    assert!(took < PROMPT, "{took:?}");
}
