//! Which server of an upstream is asked, when it is asked again, and who is left out.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use durable_streams_server::edge::upstream::{
    Balance, HealthCheck, HealthProbe, HostHeader, UpstreamOptions,
};
use tokio::io::AsyncReadExt;

use crate::support::upstreams::{Speak, Upstream, ok, refusing_port};
use crate::support::{TestServer, edge, eventually, to, to_addrs};

async fn named(name: &'static str) -> Upstream {
    Upstream::http(move |_| async move { ok(name) }).await
}

/// Reads a request and closes without an answer.
async fn rude() -> Upstream {
    Upstream::raw(|mut socket| async move {
        let mut request = [0; 1024];
        let _ = socket.read(&mut request).await;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn round_robin_takes_turns() {
    let (a, b) = (named("a").await, named("b").await);
    let server = TestServer::start(edge(vec![to(&[&a, &b])]));
    for _ in 0..10 {
        server.get("/").await;
    }
    assert_eq!((a.hits(), b.hits()), (5, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn consistent_hashing_keeps_a_key_with_its_server() {
    let servers = [named("a").await, named("b").await, named("c").await];
    let all = [&servers[0], &servers[1], &servers[2]];
    let by_path = UpstreamOptions { balance: Balance::Path, ..to(&all) };
    let server = TestServer::start(edge(vec![by_path]));
    let mut seen = HashSet::new();
    for n in 0..20 {
        let path = format!("/doc/{n}");
        let first = server.get(&path).await.text();
        for _ in 0..3 {
            assert_eq!(server.get(&path).await.text(), first, "{path} moved");
        }
        seen.insert(first);
    }
    assert!(seen.len() > 1, "twenty paths all went to {seen:?}");

    let balance = Balance::Header("x-user".parse().unwrap());
    let server = TestServer::start(edge(vec![UpstreamOptions { balance, ..to(&all) }]));
    let ask = |n: usize| format!("GET /{n} HTTP/1.1\r\nhost: a\r\nx-user: ann\r\n\r\n");
    let first = server.ask(&ask(0)).await.text();
    for n in 1..6 {
        assert_eq!(server.ask(&ask(n)).await.text(), first);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_connections_is_passed_over_for_any_method() {
    let alive = named("alive").await;
    let (_refuses, dead) = refusing_port();
    let server = TestServer::start(edge(vec![to_addrs(&[dead, alive.addr])]));
    for method in ["GET", "POST"] {
        for _ in 0..4 {
            let request = format!("{method} / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi");
            assert_eq!(server.ask(&request).await.text(), "alive", "{method}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_is_sent_again_only_if_that_is_harmless() {
    let (rude, polite) = (rude().await, named("polite").await);
    let server = TestServer::start(edge(vec![to(&[&rude, &polite])]));
    for _ in 0..4 {
        assert_eq!(server.get("/").await.text(), "polite");
    }
    assert_eq!(polite.hits(), 4);
    let refused = rude.hits();
    assert!(refused > 0, "round robin never came to the rude one");

    let (mut ok, mut failed) = (0, 0);
    for _ in 0..4 {
        match server.ask("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi").await {
            reply if reply.status == 200 => ok += 1,
            reply => {
                assert_eq!((reply.status, reply.code().as_str()), (502, "upstream-failed"));
                failed += 1;
            }
        }
    }
    assert_eq!((ok, failed), (2, 2), "a POST was sent twice");
    assert_eq!((rude.hits(), polite.hits()), (refused + 2, 6));
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_counted() {
    let servers = [rude().await, rude().await, rude().await, rude().await];
    let all: Vec<_> = servers.iter().collect();
    let options = UpstreamOptions { retries: 2, ..to(&all) };
    let server = TestServer::start(edge(vec![options]));
    assert_eq!(server.get("/").await.code(), "upstream-failed");
    assert_eq!(servers.iter().map(Upstream::hits).sum::<usize>(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_pooled() {
    let sockets = Arc::new(std::sync::Mutex::new(HashSet::new()));
    let seen = sockets.clone();
    // The peer's port is the pooled connection.
    let upstream = Upstream::http(|_| async { ok("x") }).await;
    let inner = upstream.addr;
    let counting = Upstream::raw(move |mut socket| {
        seen.lock().unwrap().insert(socket.peer_addr().unwrap());
        async move {
            let mut inner = tokio::net::TcpStream::connect(inner).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut socket, &mut inner).await;
        }
    });
    let counting = counting.await;
    let server = TestServer::before(&counting);
    for _ in 0..10 {
        assert_eq!(server.get("/").await.text(), "x");
    }
    // A connection goes back to the pool after the client has its answer, perhaps after the next
    // request has begun: now and then a second one is opened.
    let opened = sockets.lock().unwrap().len();
    assert!(opened < 5, "{opened} connections for ten requests in a row");
}

fn every(interval: u64, probe: HealthProbe) -> Option<HealthCheck> {
    let interval = Duration::from_millis(interval);
    Some(HealthCheck { probe, interval, failures: 1, ..HealthCheck::default() })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tcp_check_takes_a_dead_server_out_and_brings_it_back() {
    let (socket, addr) = refusing_port();
    let options = UpstreamOptions { health: every(50, HealthProbe::Tcp), ..to_addrs(&[addr]) };
    let server = TestServer::start(edge(vec![options]));
    eventually("the dead server is out", || async {
        server.get("/").await.text().contains("no server of the upstream is healthy")
    })
    .await;
    let listener = socket.listen(16).unwrap();
    let _alive = Upstream::serve(listener, Speak::Http1, None, |_| async { ok("back") }).await;
    eventually("it is back", || async { server.get("/").await.text() == "back" }).await;
}

fn asks_for_healthz(status: http::StatusCode) -> HealthProbe {
    HealthProbe::Http { path: "/healthz".into(), status }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_check_wants_its_own_status_and_asks_each_server_by_its_name() {
    let picky = |answers: http::StatusCode| {
        Upstream::http(move |request: http::Request<_>| async move {
            let own = request.headers()[http::header::HOST].to_str().unwrap().to_owned();
            let mut response = ok(own);
            if request.uri().path() == "/healthz" {
                *response.status_mut() = answers;
            }
            response
        })
    };
    let well = picky(http::StatusCode::NO_CONTENT).await;
    let sick = picky(http::StatusCode::OK).await;
    let health = every(50, asks_for_healthz(http::StatusCode::NO_CONTENT));
    let host = HostHeader::Server;
    let options = UpstreamOptions { health, host, ..to(&[&well, &sick]) };
    let server = TestServer::start(edge(vec![options]));
    let name = well.addr.to_string();
    eventually("only 204 is good here", || async {
        for _ in 0..4 {
            if server.get("/").await.text() != name {
                return false;
            }
        }
        true
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_check_believes_the_status() {
    let well = Arc::new(AtomicBool::new(false));
    let status = well.clone();
    let patient = Upstream::http(move |request: http::Request<_>| {
        let sick = request.uri().path() == "/healthz" && !status.load(Ordering::SeqCst);
        async move {
            let mut response = ok("patient");
            if sick {
                *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
            }
            response
        }
    })
    .await;
    let other = named("other").await;
    let health = every(50, asks_for_healthz(http::StatusCode::OK));
    let server =
        TestServer::start(edge(vec![UpstreamOptions { health, ..to(&[&patient, &other]) }]));
    let only_other = || async {
        for _ in 0..4 {
            if server.get("/").await.text() != "other" {
                return false;
            }
        }
        true
    };
    eventually("the sick one is out", only_other).await;
    well.store(true, Ordering::SeqCst);
    eventually("it is back", || async { server.get("/").await.text() == "patient" }).await;
}
