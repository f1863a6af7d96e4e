//! Browsers on other origins (PROTOCOL §12.7): preflights, exposed headers, security headers everywhere.

use http::HeaderName;

use durable_streams_server::edge::{AllowedHosts, AllowedOrigins, CorsPolicy};

use crate::support::Reply;
use crate::world::{Kind, World, offset, request};

for_each_kind![
    a_preflight_allows_what_clients_send,
    answers_expose_what_clients_read,
    #[only(http1, proxied, http2; "some limits are of the edge")]
    errors_can_be_read_by_pages_too,
    only_listed_origins,
    listed_origins_may_send_cookies_and_headers_of_their_own,
    an_answer_to_a_cookie_is_private,
    #[only(http1, proxied, http2; "hosts are checked by the edge")]
    a_server_for_this_machine_refuses_other_hosts_before_it_acts,
    security_headers_are_on_every_answer,
    documents_are_sandboxed_and_saved,
    the_rules_for_documents_can_be_changed,
];

const ORIGIN: &str = "origin: https://app.example\r\n";

fn lists(reply: &Reply, header: &str, name: &str) -> bool {
    let value = reply.header(header).unwrap_or_default();
    value.split(',').any(|item| item.trim().eq_ignore_ascii_case(name))
}

async fn a_preflight_allows_what_clients_send(kind: Kind) {
    let world = World::new(kind);
    let fields = format!(
        "{ORIGIN}access-control-request-method: PUT\r\n\
         access-control-request-headers: if-none-match, stream-closed\r\n"
    );
    // Whether the stream exists does not matter to a preflight.
    let reply = world.ask("OPTIONS", "/none", &fields, b"").await;
    assert_eq!((reply.status, reply.body.len()), (204, 0));
    assert_eq!(reply.header("access-control-allow-origin"), Some("*"));
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"] {
        assert!(lists(&reply, "access-control-allow-methods", method), "{method}");
    }
    for name in [
        "Content-Type",
        "Authorization",
        "If-None-Match",
        "Last-Event-ID",
        "Stream-Seq",
        "Stream-TTL",
        "Stream-Expires-At",
        "Stream-Closed",
        "Producer-Id",
        "Producer-Epoch",
        "Producer-Seq",
        "Stream-Forked-From",
        "Stream-Fork-Offset",
        "Stream-Fork-Sub-Offset",
        "traceparent",
        "tracestate",
        "baggage",
        "Cache-Control",
        "X-Api-Key",
    ] {
        assert!(lists(&reply, "access-control-allow-headers", name), "{name}");
    }
}

async fn answers_expose_what_clients_read(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc").await;
    let sse = "/a?offset=-1&live=sse";
    for (method, path) in [("GET", "/a"), ("HEAD", "/a"), ("GET", sse), ("GET", "/none")] {
        let (_, reply) = if path == sse {
            world.live(path, ORIGIN).await
        } else {
            (world.server.connect().await, world.ask(method, path, ORIGIN, b"").await)
        };
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"), "{method} {path}");
        for name in [
            "Stream-Next-Offset",
            "Stream-Cursor",
            "Stream-Up-To-Date",
            "Stream-Closed",
            "Stream-TTL",
            "Stream-Expires-At",
            "Stream-SSE-Data-Encoding",
            "ETag",
            "Location",
            "Producer-Epoch",
            "Producer-Seq",
            "Producer-Expected-Seq",
            "Producer-Received-Seq",
        ] {
            assert!(lists(&reply, "access-control-expose-headers", name), "{method} {path} {name}");
        }
    }
    assert_eq!(world.get("/a").await.header("access-control-allow-origin"), Some("*"), "cached");
}

/// A page that cannot read an error's status sees a failed network instead.
async fn errors_can_be_read_by_pages_too(kind: Kind) {
    let world = World::with(kind, |setup| {
        setup.limits.max_append = 10;
        setup.edge.limits.max_uri = 200;
        setup.edge.limits.max_headers = 20;
    });
    world.stream("/a", "text/plain", "").await;
    let long = format!("/{}", "x".repeat(300));
    let many: String = (0..30).map(|n| format!("x-{n}: y\r\n")).collect();
    for (method, path, fields, body, status) in [
        ("POST", "/a", "content-type: text/plain\r\n", "0123456789a", 413),
        ("GET", long.as_str(), "", "", 414),
        ("GET", "/a", many.as_str(), "", 431),
        ("PATCH", "/a", "", "", 400),
        ("PROPFIND", "/a", "", "", 405),
        ("GET", "/%ff", "", "", 400),
        ("GET", "/..%2fx", "", "", 400),
    ] {
        let fields = format!("{ORIGIN}{fields}");
        let reply = world.ask(method, path, &fields, body.as_bytes()).await;
        assert_eq!(reply.status, status, "{reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), Some("*"), "{status}");
        assert_eq!(reply.header("cross-origin-resource-policy"), Some("cross-origin"), "{status}");
        reply.code();
    }
}

fn listed(credentials: bool) -> CorsPolicy {
    let origins = vec!["https://app.example".to_owned()];
    CorsPolicy::new(
        AllowedOrigins::Listed { origins, credentials },
        &[HeaderName::from_static("x-tenant")],
    )
}

async fn only_listed_origins(kind: Kind) {
    let world = World::with(kind, |setup| {
        setup.edge.streams.cors = listed(false);
    });
    world.stream("/a", "text/plain", "abc").await;
    for (method, status) in [("GET", 200), ("OPTIONS", 204)] {
        let listed = world.ask(method, "/a", ORIGIN, b"").await;
        assert_eq!(listed.status, status);
        assert_eq!(listed.header("access-control-allow-origin"), Some("https://app.example"));
        for other in [
            "origin: https://evil.example\r\n",
            "origin: https://app.example.evil.example\r\n",
            "origin: https://app.exampl\r\n",
            "origin: https://app.example:8443\r\n",
            "origin: http://app.example\r\n",
            "origin: https://xapp.example\r\n",
            "origin: null\r\n",
            "",
        ] {
            let reply = world.ask(method, "/a", other, b"").await;
            assert_eq!(reply.header("access-control-allow-origin"), None, "{method} {other}");
            let varies: Vec<String> = reply.all("vary").iter().map(|v| v.to_lowercase()).collect();
            assert!(varies.join(",").contains("origin"), "a cache keeps them apart: {varies:?}");
        }
    }
}

async fn listed_origins_may_send_cookies_and_headers_of_their_own(kind: Kind) {
    let world = World::with(kind, |setup| setup.edge.streams.cors = listed(true));
    world.stream("/a", "text/plain", "abc").await;
    for method in ["GET", "OPTIONS"] {
        let reply = world.ask(method, "/a", ORIGIN, b"").await;
        assert_eq!(reply.header("access-control-allow-credentials"), Some("true"), "{method}");
        assert_eq!(reply.header("access-control-allow-origin"), Some("https://app.example"));
        let other = world.ask(method, "/a", "origin: https://evil.example\r\n", b"").await;
        assert_eq!(other.header("access-control-allow-credentials"), None, "{method}");
    }
    let preflight = world.ask("OPTIONS", "/a", ORIGIN, b"").await;
    assert!(lists(&preflight, "access-control-allow-headers", "x-tenant"), "{preflight:?}");
}

async fn an_answer_to_a_cookie_is_private(kind: Kind) {
    let world = World::new(kind);
    let created = world.stream("/a", "text/plain", "abc").await;
    let middle = created.header("stream-next-offset").unwrap();
    world.append("/a", "text/plain", "def").await;
    for (path, caching) in [
        // Bytes at an offset stay what they are; what is at a path now does not.
        (format!("/a?offset={middle}&live=long-poll"), "max-age=60, stale-while-revalidate=300"),
        ("/a".to_owned(), "no-cache"),
    ] {
        for (fields, shared) in
            [("", true), ("cookie: session=1\r\n", false), ("authorization: Bearer x\r\n", false)]
        {
            let reply = world.ask("GET", &path, fields, b"").await;
            let cached = reply.header("cache-control").unwrap_or_default();
            let expected = match (shared, caching) {
                (false, _) => format!("private, {caching}"),
                (true, "no-cache") => caching.to_owned(),
                (true, _) => format!("public, {caching}"),
            };
            assert_eq!(cached, expected, "{path} {fields}");
        }
    }
}

/// A page on the internet can send what needs no preflight, and can have a name of its own resolve to loopback.
async fn a_server_for_this_machine_refuses_other_hosts_before_it_acts(kind: Kind) {
    let world = World::with(kind, |setup| {
        let allowed = ["streams.test", "test.example"].map(str::to_owned);
        setup.edge.allowed_hosts = Some(AllowedHosts::new(allowed));
    });
    world.stream("/a", "text/plain", "abc").await;
    let append = request("POST", "/a", "content-type: text/plain\r\n", b"xyz");
    let rebound = String::from_utf8(append).unwrap().replace("test.example", "evil.example");
    let mut client = world.server.connect().await;
    client.send(&rebound).await;
    let reply = client.reply().await;
    assert_eq!((reply.status, &*reply.code()), (403, "host-not-allowed"));
    for (fields, code) in [
        ("origin: https://evil.example\r\n", "origin-not-allowed"),
        ("origin: null\r\n", "origin-not-allowed"),
    ] {
        for (method, path) in [
            ("POST", "/a"),
            ("PUT", "/b"),
            ("DELETE", "/a"),
            ("GET", "/a"),
            ("OPTIONS", "/a"),
            ("PUT", "/__ds/subscriptions/s"),
        ] {
            let fields = format!("{fields}content-type: text/plain\r\n");
            let reply = world.ask(method, path, &fields, b"xyz").await;
            assert_eq!((reply.status, &*reply.code()), (403, code), "{method} {path}");
            assert_eq!(reply.header("access-control-allow-origin"), None, "{method} {path}");
        }
    }
    for origin in ["http://localhost:5173", "http://127.0.0.1", "https://streams.test"] {
        let fields = format!("origin: {origin}\r\ncontent-type: text/plain\r\n");
        assert_eq!(world.ask("POST", "/a", &fields, b"def").await.status, 204, "{origin}");
    }
    assert_eq!(world.get("/a").await.body, b"abcdefdefdef", "nothing else was done");
    assert_eq!(world.get("/b").await.status, 404);
}

async fn security_headers_are_on_every_answer(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc").await;
    let beyond = format!("/a?offset={}", offset(9));
    for (method, path) in [
        ("GET", "/a"),
        ("GET", "/a?offset=now&live=x"),
        ("GET", beyond.as_str()),
        ("GET", "/none"),
        ("HEAD", "/a"),
        ("PUT", "/a"),
        ("POST", "/a"),
        ("OPTIONS", "/a"),
        ("PATCH", "/a"),
        ("GET", ""),
        ("DELETE", "/a"),
    ] {
        let reply = world.ask(method, path, "", b"").await;
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"), "{method} {path}");
        let policy = reply.header("cross-origin-resource-policy");
        assert_eq!(policy, Some("cross-origin"), "{method} {path}");
        let body = !matches!(reply.status, 204 | 304);
        let policy = body.then_some("sandbox; default-src 'none'");
        assert_eq!(reply.header("content-security-policy"), policy, "{method} {path}");
    }
}

/// A stream typed as a page, an image with script or a script is none on the application's origin.
async fn documents_are_sandboxed_and_saved(kind: Kind) {
    let world = World::new(kind);
    let script = "<script>fetch('/api/me')</script>";
    for (path, content_type, disposition) in [
        ("/html", "text/html; charset=utf-8", Some("attachment")),
        ("/svg", "image/svg+xml", Some("attachment")),
        ("/xml", "application/xml", Some("attachment")),
        ("/js", "application/javascript", None),
        ("/text", "text/plain", None),
    ] {
        world.stream(path, content_type, script).await;
        for (method, query) in [
            ("GET", ""),
            ("HEAD", ""),
            ("GET", "?offset=-1&live=long-poll"),
            ("GET", "?offset=now"),
        ] {
            let reply = world.ask(method, &format!("{path}{query}"), "", b"").await;
            let policy = reply.header("content-security-policy");
            assert_eq!(policy, Some("sandbox; default-src 'none'"), "{method} {path}{query}");
            assert_eq!(reply.header("content-disposition"), disposition, "{method} {path}{query}");
        }
    }
}

async fn the_rules_for_documents_can_be_changed(kind: Kind) {
    let world = World::with(kind, |setup| {
        let browser = &mut setup.edge.streams.browser;
        browser.content_security_policy = Some("default-src 'self'".parse().unwrap());
        browser.attachments = false;
    });
    world.stream("/a", "text/html", "<p>").await;
    let reply = world.get("/a").await;
    assert_eq!(reply.all("content-security-policy"), ["default-src 'self'"]);
    assert_eq!(reply.header("content-disposition"), None);
    let refused = world.get("/none").await;
    let policy = refused.header("content-security-policy");
    assert_eq!(policy, Some("sandbox; default-src 'none'"), "a refusal needs nothing else");
    let world = World::with(kind, |setup| {
        setup.edge.streams.browser.content_security_policy = None;
    });
    world.stream("/a", "text/html", "<p>").await;
    let reply = world.get("/a").await;
    assert_eq!(reply.header("content-security-policy"), None);
    assert_eq!(reply.header("content-disposition"), Some("attachment"));
}
