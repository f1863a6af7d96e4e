//! What changes in a message on its way: `X-Forwarded-*`, `Via`, hop-by-hop fields, request ids.

use durable_streams_server::edge::EdgeOptions;

use super::h2;
use crate::support::upstreams::{Upstream, echo_head, full};
use crate::support::{TestServer, edge, to};

const SPOOF: &str = "GET / HTTP/1.1\r\nhost: a.example\r\nx-forwarded-for: 1.2.3.4\r\n\
    x-forwarded-proto: https\r\nx-forwarded-host: evil.example\r\nforwarded: for=1.2.3.4\r\n\
    x-real-ip: 1.2.3.4\r\nx-request-id: chosen\r\n\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_cannot_forge_where_it_comes_from() {
    let upstream = Upstream::http(echo_head).await;
    let text = TestServer::before(&upstream).ask(SPOOF).await.text();
    assert!(text.contains("\nx-forwarded-for: 127.0.0.1\n"), "{text}");
    assert!(text.contains("\nx-forwarded-proto: http\n"), "{text}");
    assert!(text.contains("\nx-forwarded-host: a.example\n"), "{text}");
    for forged in ["1.2.3.4", "evil", "chosen"] {
        assert!(!text.contains(forged), "{forged} passed in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_is_believed_and_extended() {
    let upstream = Upstream::http(echo_head).await;
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let server = TestServer::start(EdgeOptions { trusted_proxies, ..edge(vec![to(&[&upstream])]) });
    let reply = server.ask(SPOOF).await;
    let text = reply.text();
    assert!(text.contains("\nx-forwarded-for: 1.2.3.4, 127.0.0.1\n"), "{text}");
    assert!(text.contains("\nx-forwarded-proto: https\n"), "{text}");
    assert!(text.contains("\nx-forwarded-host: evil.example\n"), "{text}");
    assert!(text.contains("\nx-request-id: chosen\n"), "{text}");
    assert_eq!(reply.header("x-request-id"), Some("chosen"));
}

/// Fields that servers behind a proxy believe.
const BELIEVED: [&str; 12] = [
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-Forwarded-Ssl",
    "X_Forwarded_For",
    "True-Client-IP",
    "CF-Connecting-IP",
    "X-Real-IP",
    "X-Original-URL",
    "X-Rewrite-URL",
    "Proxy",
    "Forwarded",
];

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_upstreams_believe_come_from_trusted_proxies_only() {
    let upstream = Upstream::http(echo_head).await;
    let fields: String = BELIEVED.iter().map(|name| format!("{name}: forged\r\n")).collect();
    let request = format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}x-other: kept\r\n\r\n");
    let text = TestServer::before(&upstream).ask(&request).await.text();
    assert!(text.contains("\nx-other: kept\n"), "{text}");
    assert!(!text.contains("forged"), "{text}");
    let mut over_http2 = h2::get("/");
    for name in BELIEVED {
        let name: http::HeaderName = name.to_lowercase().parse().unwrap();
        over_http2.headers_mut().insert(name, http::HeaderValue::from_static("forged"));
    }
    let server = TestServer::before(&upstream);
    let (_, body) = h2::ask(&h2::connect(&server).await, over_http2, b"").await.unwrap();
    let text = String::from_utf8(body).unwrap();
    assert!(!text.contains("forged"), "{text}");

    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let server = TestServer::start(EdgeOptions { trusted_proxies, ..edge(vec![to(&[&upstream])]) });
    let text = server.ask(&request).await.text();
    for name in BELIEVED {
        assert!(text.contains(&format!("\n{}: forged\n", name.to_lowercase())), "{name}: {text}");
    }
}

/// RFC 9113 §8.2.3: HTTP/2 splits cookies, HTTP/1.1 has one field.
#[tokio::test(flavor = "multi_thread")]
async fn cookies_reach_an_upstream_in_one_field() {
    let upstream = Upstream::http(echo_head).await;
    let server = TestServer::before(&upstream);
    let mut request = h2::get("/");
    for cookie in ["session=1", "csrf=2; a=b", "theme=3"] {
        request.headers_mut().append("cookie", http::HeaderValue::from_static(cookie));
    }
    let (_, body) = h2::ask(&h2::connect(&server).await, request, b"").await.unwrap();
    let expected = "\ncookie: session=1; csrf=2; a=b; theme=3\n";
    let text = String::from_utf8(body).unwrap();
    assert!(text.contains(expected) && text.matches("\ncookie:").count() == 1, "{text}");
    let split = "GET / HTTP/1.1\r\nhost: a\r\ncookie: a=1\r\nCookie: b=2\r\n\r\n";
    let text = server.ask(split).await.text();
    assert!(text.contains("\ncookie: a=1; b=2\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hop_by_hop_fields_go_no_further() {
    let upstream = Upstream::http(echo_head).await;
    let request = "GET / HTTP/1.1\r\nhost: a\r\nconnection: x-mine, keep-alive\r\nx-mine: 1\r\n\
        keep-alive: timeout=5\r\nproxy-connection: keep-alive\r\nte: trailers\r\n\
        proxy-authorization: Basic x\r\nupgrade: h2c\r\nx-other: kept\r\n\r\n";
    let text = TestServer::before(&upstream).ask(request).await.text();
    assert!(text.contains("\nx-other: kept\n"), "{text}");
    assert!(text.contains("\nvia: 1.1 durable-streams-server\n"), "{text}");
    for gone in ["x-mine", "\nkeep-alive:", "proxy-", "\nte:", "\nupgrade:"] {
        assert!(!text.contains(gone), "{gone} passed in {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_cannot_name_the_fields_that_carry_trust() {
    let upstream = Upstream::http(echo_head).await;
    let server = TestServer::before(&upstream);
    for name in ["host", "X-Forwarded-For", "x-forwarded-proto"] {
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: {name}\r\n\r\n");
        assert_eq!(server.ask(&request).await.code(), "bad-request", "{name}");
    }
    assert_eq!(upstream.hits(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_loses_its_hop_by_hop_fields_too() {
    let upstream = Upstream::http(|_| async {
        http::Response::builder()
            .header("connection", "x-mine")
            .header("x-mine", "1")
            .header("keep-alive", "timeout=5")
            .header("x-other", "kept")
            .body(full("x"))
            .unwrap()
    })
    .await;
    let reply = TestServer::before(&upstream).get("/").await;
    assert_eq!(reply.header("x-other"), Some("kept"));
    assert_eq!(reply.header("via"), Some("1.1 durable-streams-server"));
    assert_eq!(reply.header("x-mine"), None, "{}", reply.head);
    assert_eq!(reply.header("keep-alive"), None, "{}", reply.head);
    assert_eq!(reply.header("x-request-id").map(str::len), Some(32));
}
