//! Which requests reach which upstream, and what is said when none is there.

use std::time::Duration;

use durable_streams_server::edge::EdgeOptions;
use durable_streams_server::edge::upstream::{HostHeader, UpstreamOptions, UpstreamServer};

use crate::support::upstreams::{Upstream, echo_head, ok, refusing_port};
use crate::support::{TestServer, edge, eventually, to, to_addrs};

#[tokio::test(flavor = "multi_thread")]
async fn without_an_upstream_the_answer_says_so() {
    let server = TestServer::start(EdgeOptions::default());
    let reply = server.get("/anything").await;
    assert_eq!((reply.status, reply.code().as_str()), (404, "no-upstream"));
    assert!(reply.text().contains("upstreams"), "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_request_gets_the_error_without_its_body() {
    let server = TestServer::start(EdgeOptions::default());
    let mut client = server.connect().await;
    client.send("HEAD /x HTTP/1.1\r\nhost: a\r\n\r\nGET /x HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.head().await.status, 404);
    // The next bytes are the next answer: no body in between.
    assert_eq!(client.reply().await.code(), "no-upstream");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_stay_here_and_the_rest_goes_upstream() {
    let upstream = Upstream::http(|_| async { ok("upstream") }).await;
    let server = TestServer::before(&upstream);
    for path in ["/", "/v1/streamx", "/v1", "/a%20b?x=/v1/stream/a"] {
        assert_eq!(server.get(path).await.text(), "upstream", "{path}");
    }
    let before = upstream.hits();
    for path in ["/v1/stream/a", "/v1/stream", "/v1/stream/a?offset=-1"] {
        assert_ne!(server.get(path).await.text(), "upstream", "{path}");
    }
    for path in ["/v1/%73tream/a", "/x/../v1/stream/a", "/v1/stream/../x", "//v1/stream/a"] {
        let reply = server.get(path).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "ambiguous-path"), "{path}");
    }
    assert_eq!(upstream.hits(), before, "a stream request reached the upstream");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_absolute_form_of_a_target_is_routed_by_its_path() {
    let upstream = Upstream::http(|_| async { ok("upstream") }).await;
    let server = TestServer::before(&upstream);
    let ask = |target: &str| format!("GET {target} HTTP/1.1\r\nhost: a.example\r\n\r\n");
    assert_eq!(server.ask(&ask("http://a.example/x")).await.text(), "upstream");
    assert_ne!(server.ask(&ask("http://a.example/v1/stream/x")).await.text(), "upstream");
    assert_eq!(server.ask(&ask("http://b.example/x")).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn prefixes_choose_the_upstream_and_can_be_taken_off() {
    let api = Upstream::http(echo_head).await;
    let rest = Upstream::http(echo_head).await;
    let server = TestServer::start(edge(vec![
        to(&[&rest]),
        UpstreamOptions { prefix: "/api".into(), strip_prefix: true, ..to(&[&api]) },
    ]));
    assert!(server.get("/api/users?x=1").await.text().starts_with("GET /users?x=1\n"));
    assert!(server.get("/api").await.text().starts_with("GET /\n"));
    assert_eq!(api.hits(), 2);
    assert!(server.get("/apis").await.text().starts_with("GET /apis\n"));
    assert_eq!(rest.hits(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_is_kept_or_rewritten() {
    let upstream = Upstream::http(echo_head).await;
    let server = TestServer::before(&upstream);
    assert!(server.get("/").await.text().contains("\nhost: test.example\n"));
    let host = HostHeader::Rewrite("inner.example".into());
    let server = TestServer::start(edge(vec![UpstreamOptions { host, ..to(&[&upstream]) }]));
    let text = server.get("/").await.text();
    assert!(text.contains("\nhost: inner.example\n"), "{text}");
    assert!(text.contains("\nx-forwarded-host: test.example\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_may_be_that_of_the_chosen_server() {
    let (one, two) = (Upstream::http(echo_head).await, Upstream::http(echo_head).await);
    let options = UpstreamOptions { host: HostHeader::Server, ..to(&[&one, &two]) };
    let server = TestServer::start(edge(vec![options]));
    for _ in 0..4 {
        server.get("/").await;
    }
    for upstream in [&one, &two] {
        let asked = format!("/{}", upstream.addr.port());
        let expected = format!("\nhost: {}\n", upstream.addr);
        eventually("each is asked under its own name", || async {
            server.get(&asked).await.text().contains(&expected)
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_upstream_is_502_and_streams_still_answer() {
    let (_refuses, dead) = refusing_port();
    let server = TestServer::start(edge(vec![to_addrs(&[dead])]));
    for _ in 0..3 {
        let reply = server.get("/x").await;
        assert_eq!((reply.status, reply.code().as_str()), (502, "upstream-unavailable"));
    }
    assert_ne!(server.get("/v1/stream/a").await.status, 502);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upstream_is_504() {
    let slow = Upstream::http(|_| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        ok("late")
    })
    .await;
    let read_timeout = Duration::from_millis(200);
    let server = TestServer::start(edge(vec![UpstreamOptions { read_timeout, ..to(&[&slow]) }]));
    let reply = server.get("/x").await;
    assert_eq!((reply.status, reply.code().as_str()), (504, "upstream-timeout"));
    assert_eq!(slow.hits(), 1, "a timeout must not be tried again");
}

/// Event streams and upgraded connections may be silent for `live_timeout` instead of `read_timeout`.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_of_an_upstream_has_a_timeout_of_its_own() {
    let slow = Upstream::http(|_| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        ok("late")
    })
    .await;
    let (short, long) = (Duration::from_millis(200), Duration::from_secs(60));
    for (read_timeout, live_timeout, live, plain) in
        [(short, long, 200, 504), (long, short, 504, 200)]
    {
        let options = UpstreamOptions { read_timeout, live_timeout, ..to(&[&slow]) };
        let server = TestServer::start(edge(vec![options]));
        assert_eq!(server.get("/x").await.status, plain);
        let request = "GET /x HTTP/1.1\r\nhost: t\r\naccept: text/event-stream\r\n\r\n";
        assert_eq!(server.ask(request).await.status, live);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_resolve_is_502_and_no_reason_not_to_start() {
    let servers = vec![UpstreamServer::new("nowhere.invalid:80")];
    let server = TestServer::start(edge(vec![UpstreamOptions { servers, ..to_addrs(&[]) }]));
    let reply = server.get("/x").await;
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream-unavailable"));
}
