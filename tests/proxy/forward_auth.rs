//! Forward auth of proxied routes: what the service is asked, what its answers mean, and what the upstream then gets.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use durable_streams_server::edge::EdgeOptions;
use durable_streams_server::edge::upstream::{ForwardAuthOptions, UpstreamOptions};
use http::{HeaderName, Request, Response};
use hyper::body::Incoming;

use super::h2;
use crate::support::upstreams::{Body, Upstream, echo_head, full};
use crate::support::{TestServer, edge, to};

/// A service that authenticates the cookie `session=good` as `ada`; and the requests that it got, newest last.
struct Service {
    upstream: Upstream,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Service {
    async fn start() -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = asked.clone();
        let upstream = Upstream::http(move |request: Request<Incoming>| {
            let kept = kept.clone();
            async move {
                kept.lock().unwrap().push(head_of(&request));
                judge(&request)
            }
        })
        .await;
        Service { upstream, asked }
    }

    fn options(&self) -> ForwardAuthOptions {
        ForwardAuthOptions {
            url: format!("http://{}/verify", self.upstream.addr).parse().unwrap(),
            request_headers: ["authorization", "cookie"].map(HeaderName::from_static).into(),
            copy_headers: ["remote-user", "x-team"].map(HeaderName::from_static).into(),
            timeout: Duration::from_millis(500),
            cache: Duration::ZERO,
            max_concurrent: 4,
        }
    }

    fn before(&self, upstream: &Upstream) -> TestServer {
        TestServer::start(edge(vec![guarded(upstream, self.options())]))
    }

    fn last(&self) -> String {
        self.asked.lock().unwrap().last().cloned().unwrap_or_default()
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn guarded(upstream: &Upstream, forward_auth: ForwardAuthOptions) -> UpstreamOptions {
    UpstreamOptions { forward_auth: Some(forward_auth), ..to(&[upstream]) }
}

fn head_of(request: &Request<Incoming>) -> String {
    let fields = request.headers().iter();
    let fields: String =
        fields.map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap())).collect();
    format!("{} {}\n{fields}", request.method(), request.uri())
}

fn judge(request: &Request<Incoming>) -> Response<Body> {
    let cookie = request.headers().get("cookie").and_then(|one| one.to_str().ok()).unwrap_or("");
    let answer = match cookie {
        "session=good" | "theme=dark; session=good" => Response::builder()
            .status(204)
            .header("remote-user", "ada")
            .header("x-team", "red")
            .header("x-team", "blue")
            .header("x-secret", "not for the upstream"),
        "session=login" => Response::builder()
            .status(302)
            .header("location", "https://id.example.com/login?rd=/app")
            .header("set-cookie", "state=1")
            .header("set-cookie", "nonce=2")
            .header("connection", "x-hop")
            .header("x-hop", "1"),
        "session=other" => Response::builder().status(403),
        "session=slow" => Response::builder().status(429).header("retry-after", "7"),
        "session=broken" => Response::builder().status(500).header("remote-user", "root"),
        "session=long" => Response::builder().status(403).header("x-length", "long"),
        _ => Response::builder().status(401).header("www-authenticate", "Basic realm=\"app\""),
    };
    let text = match cookie {
        "session=good" | "theme=dark; session=good" => String::new(),
        "session=long" => "x".repeat(65 * 1024),
        _ => "go away".to_owned(),
    };
    answer.body(full(text)).unwrap()
}

fn get(fields: &str) -> String {
    format!("GET /app/x%20y?q=1 HTTP/1.1\r\nhost: app.example\r\n{fields}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_names_the_client_to_the_upstream() {
    let (service, upstream) = (Service::start().await, Upstream::http(echo_head).await);
    let server = service.before(&upstream);
    let forged = "cookie: session=good\r\nremote-user: root\r\nX_Team: admins\r\nx-team: admins\r\n\
                  x-auth-request-email: root@example.com\r\nx-forwarded-user: root\r\nx-other: kept\r\n\
                  x-forwarded-for: 6.6.6.6\r\naccept: text/html\r\n";
    let reply = server.ask(&get(forged)).await;
    let text = reply.text();
    assert_eq!(reply.status, 200, "{text}");
    for field in ["remote-user: ada\n", "x-team: red\n", "x-team: blue\n", "x-other: kept\n"] {
        assert!(text.contains(&format!("\n{field}")), "{field} is missing in {text}");
    }
    for forged in ["root", "admins", "x_team", "x-secret"] {
        assert!(!text.to_lowercase().contains(forged), "{forged} passed in {text}");
    }
    let asked = service.last();
    assert!(asked.starts_with("GET /verify\n"), "{asked}");
    for field in [
        "x-forwarded-method: GET\n",
        "x-forwarded-uri: /app/x%20y?q=1\n",
        "x-forwarded-proto: http\n",
        "x-forwarded-host: app.example\n",
        "x-forwarded-for: 127.0.0.1\n",
        "cookie: session=good\n",
    ] {
        assert!(asked.contains(field), "{field} is missing in {asked}");
    }
    assert!(!asked.contains("text/html"), "only listed fields are copied: {asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_in_front_says_nothing_about_who_the_client_is() {
    let (service, upstream) = (Service::start().await, Upstream::http(echo_head).await);
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let options = edge(vec![guarded(&upstream, service.options())]);
    let server = TestServer::start(EdgeOptions { trusted_proxies, ..options });
    let fields = "cookie: session=good\r\nx-forwarded-user: root\r\nremote-groups: wheel\r\n\
                  x-forwarded-proto: https\r\n";
    let text = server.ask(&get(fields)).await.text();
    assert!(text.contains("\nremote-user: ada\n"), "{text}");
    assert!(!text.contains("root") && !text.contains("wheel"), "{text}");
    assert!(service.last().contains("x-forwarded-proto: https\n"), "{}", service.last());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_no_service_sets_comes_from_trusted_proxies_only() {
    let upstream = Upstream::http(echo_head).await;
    let fields = "remote-user: root\r\nx-auth-request-user: root\r\nx_webauth_user: root\r\n";
    let text = TestServer::before(&upstream).ask(&get(fields)).await.text();
    assert!(!text.contains("root"), "{text}");
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let server = TestServer::start(EdgeOptions { trusted_proxies, ..edge(vec![to(&[&upstream])]) });
    let text = server.ask(&get(fields)).await.text();
    assert!(text.contains("\nremote-user: root\n"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_service_is_the_clients_answer() {
    let (service, upstream) = (Service::start().await, Upstream::http(echo_head).await);
    let server = service.before(&upstream);
    let reply = server.ask(&get("")).await;
    assert_eq!((reply.status, reply.text().as_str()), (401, "go away"));
    assert_eq!(reply.header("www-authenticate"), Some("Basic realm=\"app\""));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let reply = server.ask(&get("cookie: session=login\r\n")).await;
    assert_eq!(reply.status, 302);
    assert_eq!(reply.header("location"), Some("https://id.example.com/login?rd=/app"));
    assert_eq!(reply.all("set-cookie"), ["state=1", "nonce=2"]);
    assert_eq!(reply.header("x-hop"), None, "it belongs to the service's own connection");
    let reply = server.ask(&get("cookie: session=slow\r\n")).await;
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("7")));
    assert_eq!(server.ask(&get("cookie: session=other\r\n")).await.status, 403);
    assert_eq!(upstream.hits(), 0, "the upstream got nothing of it");
    // A HEAD has no body, and the connection goes on.
    let mut client = server.connect().await;
    client.send("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.head().await.status, 401);
    client.send(&get("cookie: session=good\r\n")).await;
    assert_eq!(client.reply().await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_verdict_is_a_503() {
    let (service, upstream) = (Service::start().await, Upstream::http(echo_head).await);
    let server = service.before(&upstream);
    for cookie in ["broken", "long"] {
        let reply = server.ask(&get(&format!("cookie: session={cookie}\r\n"))).await;
        assert_eq!((reply.status, reply.code().as_str()), (503, "auth-unavailable"), "{cookie}");
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    let silent = Upstream::raw(|socket| async move {
        tokio::time::sleep(Duration::from_secs(30)).await;
        drop(socket);
    })
    .await;
    let url = format!("http://{}/", silent.addr).parse().unwrap();
    let options = ForwardAuthOptions { url, ..service.options() };
    let server = TestServer::start(edge(vec![guarded(&upstream, options)]));
    let began = std::time::Instant::now();
    let reply = server.ask(&get("cookie: session=good\r\n")).await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "auth-unavailable"));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(upstream.hits(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_and_upgrades_wait_for_the_verdict() {
    let (service, upstream) = (Service::start().await, Upstream::http(echo_head).await);
    let server = service.before(&upstream);
    let post = |cookie: &str| {
        format!(
            "POST /app HTTP/1.1\r\nhost: a\r\ncookie: {cookie}\r\ncontent-length: 5\r\n\r\nhello"
        )
    };
    assert_eq!(server.ask(&post("session=other")).await.status, 403);
    assert_eq!(upstream.hits(), 0);
    assert_eq!(server.ask(&post("session=good")).await.status, 200);
    let asked = service.last();
    assert!(asked.contains("x-forwarded-method: POST\n"), "{asked}");
    assert!(!asked.contains("content-length") && !asked.contains("transfer-encoding"), "{asked}");
    let upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    assert_eq!(server.ask(&get(upgrade)).await.status, 401);
    assert!(!service.last().contains("upgrade"), "{}", service.last());
    assert_eq!(upstream.hits(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_judged_alike() {
    let (service, upstream) = (Service::start().await, Upstream::http(echo_head).await);
    let server = service.before(&upstream);
    let sender = h2::connect(&server).await;
    let (status, body) = h2::ask(&sender, h2::get("/x"), b"").await.unwrap();
    assert_eq!((status, &body[..]), (401, &b"go away"[..]));
    assert_eq!(upstream.hits(), 0);
    // Cookies of HTTP/2 may come in several fields; the service, of HTTP/1.1, reads one.
    let request = Request::get("http://test.example/x?y")
        .header("cookie", "theme=dark")
        .header("cookie", "session=good")
        .header("remote-user", "root");
    let (status, body) = h2::ask(&sender, request.body(()).unwrap(), b"").await.unwrap();
    let text = String::from_utf8(body).unwrap();
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("\nremote-user: ada\n") && !text.contains("root"), "{text}");
    let asked = service.last();
    assert!(asked.contains("cookie: theme=dark; session=good\n"), "{asked}");
    assert!(asked.contains("x-forwarded-host: test.example\n"), "{asked}");
    let post = Request::post("http://test.example/x").header("cookie", "session=other");
    let (status, _) = h2::ask(&sender, post.body(()).unwrap(), b"hello").await.unwrap();
    assert_eq!(status, 403);
    assert_eq!(upstream.hits(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_counts_again_for_requests_that_are_alike() {
    let (service, upstream) = (Service::start().await, Upstream::http(echo_head).await);
    let options = ForwardAuthOptions { cache: Duration::from_secs(60), ..service.options() };
    let server = TestServer::start(edge(vec![guarded(&upstream, options)]));
    for _ in 0..3 {
        let text = server.ask(&get("cookie: session=good\r\nremote-user: root\r\n")).await.text();
        assert!(text.contains("\nremote-user: ada\n") && !text.contains("root"), "{text}");
    }
    assert_eq!(service.asked(), 1);
    let other = get("cookie: session=good\r\n").replace("q=1", "q=2");
    assert_eq!(server.ask(&other).await.status, 200);
    assert_eq!(service.asked(), 2, "another URL");
    let other = get("cookie: session=good\r\n").replace("app.example", "b.example");
    assert_eq!(server.ask(&other).await.status, 200);
    assert_eq!(service.asked(), 3, "another host");
    for _ in 0..2 {
        assert_eq!(server.ask(&get("cookie: session=other\r\n")).await.status, 403);
    }
    assert_eq!(service.asked(), 5, "refusals are not kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn subrequests_at_one_time_are_bounded() {
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let (now, peak) = (running.clone(), most.clone());
    let service = Upstream::http(move |_| {
        let (now, peak) = (now.clone(), peak.clone());
        async move {
            peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Response::builder().status(204).body(full("")).unwrap()
        }
    })
    .await;
    let upstream = Upstream::http(echo_head).await;
    let options = ForwardAuthOptions {
        url: format!("http://{}/", service.addr).parse().unwrap(),
        timeout: Duration::from_secs(20),
        max_concurrent: 2,
        ..Service::start().await.options()
    };
    let server = Arc::new(TestServer::start(edge(vec![guarded(&upstream, options)])));
    let asked = (0..12).map(|_| {
        let server = server.clone();
        tokio::spawn(async move { server.ask(&get("")).await.status })
    });
    for asked in asked.collect::<Vec<_>>() {
        assert_eq!(asked.await.unwrap(), 200);
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);
}
