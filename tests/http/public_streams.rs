//! Public streams over a real port: readable without credentials, and what that does not open.

use durable_streams_auth::{GuardOptions, NewApiKey, NewUrlKey, Operation, UrlGrant};
use durable_streams_protocol::StreamPath;
use durable_streams_server::edge::AccessCaching;
use http::header;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::access::{Access, auth, create, grant};
use crate::support::Reply;
use crate::world::{Kind, ROUTE, World, offset, request, soon};

for_each_kind![
    everyone_reads_a_public_stream_and_nothing_else,
    a_stranger_cannot_tell_private_from_absent,
    making_a_stream_public_is_a_grant_of_its_own,
    an_operator_can_forbid_public_streams,
    being_public_is_part_of_the_configuration,
    a_public_stream_that_is_made_again_is_private,
    a_fork_is_public_only_if_it_asks,
    a_tenants_public_stream_stays_with_the_tenant,
    without_access_control_being_public_is_kept,
    shared_caches_keep_what_a_url_shows_to_everyone,
    no_spelling_and_no_header_opens_a_private_stream,
];

const TEXT: &str = "content-type: text/plain\r\n";

async fn publish(world: &World, token: &str, path: &str) -> Reply {
    let fields = format!("{}{TEXT}", auth(token));
    world.put(&format!("{path}?public=true"), &fields, "seed").await
}

async fn everyone_reads_a_public_stream_and_nothing_else(kind: Kind) {
    let world = Access::new().world(kind);
    let made = publish(&world, "root", "/p/a").await;
    assert_eq!((made.status, made.header("stream-public")), (201, Some("true")), "{made:?}");
    // With no credentials, with valid ones that do not allow it, and with none that are valid.
    for (token, reads) in
        [("", 200), ("reader", 200), ("writer", 200), ("nobody", 401), ("down", 503)]
    {
        let fields = auth(token);
        let got = world.ask("GET", "/p/a?offset=-1", &fields, b"").await;
        assert_eq!(got.status, reads, "{token}: {got:?}");
        let head = world.ask("HEAD", "/p/a", &fields, b"").await;
        assert_eq!(head.status, reads, "{token}: {head:?}");
        if reads == 200 {
            assert_eq!(got.text(), "seed");
            assert_eq!(head.header("stream-public"), Some("true"));
            let mut sse = world.sse("/p/a?offset=-1&live=sse", &fields).await;
            assert_eq!(soon(sse.event()).await.data, "seed");
            let poll = format!("/p/a?offset={}&live=long-poll", offset(0));
            assert_eq!(world.ask("GET", &poll, &fields, b"").await.text(), "seed");
        }
    }
    for (method, fields, body, strangers, readers) in [
        ("POST", TEXT, "x", 401, 404),
        ("POST", "stream-closed: true\r\n", "", 401, 404),
        ("PUT", TEXT, "", 401, 403),
        ("DELETE", "", "", 401, 404),
    ] {
        for (token, expected) in [("", strangers), ("reader", readers)] {
            let fields = format!("{}{fields}", auth(token));
            let seen = world.ask(method, "/p/a", &fields, body.as_bytes()).await;
            assert_eq!(seen.status, expected, "{token:?} {method}: {seen:?}");
        }
    }
}

/// Status, fields and body, without what differs from response to response.
fn look(reply: &Reply) -> (String, String) {
    let varies = |line: &&str| {
        let line = line.to_ascii_lowercase();
        line.starts_with("date:") || line.starts_with("x-request-id:")
    };
    let head = reply.head.lines().filter(|line| !varies(line));
    (head.collect::<Vec<_>>().join("\n"), reply.text())
}

async fn a_stranger_cannot_tell_private_from_absent(kind: Kind) {
    let world = Access::new().world(kind);
    create(&world, "root", "/p/private").await;
    for token in ["", "reader"] {
        for method in ["GET", "HEAD"] {
            let mut seen = Vec::new();
            for path in ["/p/private", "/p/absent"] {
                let began = std::time::Instant::now();
                let reply = world.ask(method, path, &auth(token), b"").await;
                let took = began.elapsed();
                assert!(took >= std::time::Duration::from_millis(10), "{path}: {took:?}");
                seen.push(look(&reply));
            }
            assert_eq!(seen[0], seen[1], "{token} {method}");
        }
    }
}

async fn making_a_stream_public_is_a_grant_of_its_own(kind: Kind) {
    let access = Access::new();
    let world = access.world(kind);
    let key = |words: &[&str]| {
        let new = NewApiKey {
            name: "k".into(),
            tenant: None,
            grants: vec![grant(words, "p/**")],
            expires: None,
        };
        access.file.create_api_key(new, world.engine.now()).unwrap().1
    };
    let (writer, publisher) = (key(&["write", "read"]), key(&["create", "publish"]));
    let only = key(&["publish"]);
    for (token, path, status) in [
        (writer.as_str(), "/p/1", 403),
        (&publisher, "/p/2", 201),
        (&publisher, "/q/3", 403),
        (&only, "/p/4", 403),
        ("", "/p/5", 401),
        // It says nothing about what is there.
        (&writer, "/p/2", 403),
    ] {
        assert_eq!(publish(&world, token, path).await.status, status, "{path}");
    }
    let plain = world.put("/p/6?public=false", &format!("{}{TEXT}", auth(&writer)), "").await;
    assert_eq!((plain.status, plain.header("stream-public")), (201, None));
    for bad in ["public", "public=", "public=TRUE", "public=1", "public=true&public=false"] {
        let refused = world.put(&format!("/p/7?{bad}"), &auth("root"), "").await;
        assert_eq!((refused.status, refused.code()), (400, "invalid-query".into()), "{bad}");
    }
    assert_eq!(world.ask("GET", "/p/7", &auth("root"), b"").await.status, 404);
}

async fn an_operator_can_forbid_public_streams(kind: Kind) {
    let options = GuardOptions { public_streams: false, ..GuardOptions::default() };
    let forbidden = Access::with(options).world(kind);
    assert_eq!(publish(&forbidden, "root", "/p/b").await.status, 403);
    // One that was made before, as after a restart with another configuration.
    let create = durable_streams_protocol::Create {
        public: true,
        ..durable_streams_protocol::Create::default()
    };
    let path = StreamPath::new("p/a").unwrap();
    forbidden.engine.create(&path, &create, bytes::Bytes::from_static(b"x")).await.unwrap();
    for (token, status) in [("", 401), ("reader", 404), ("root", 200)] {
        let seen = forbidden.ask("GET", "/p/a?offset=-1", &auth(token), b"").await;
        assert_eq!(seen.status, status, "{token}: {seen:?}");
    }
}

async fn being_public_is_part_of_the_configuration(kind: Kind) {
    let world = Access::new().world(kind);
    assert_eq!(publish(&world, "root", "/p/a").await.status, 201);
    assert_eq!(publish(&world, "root", "/p/a").await.status, 200, "the same once more");
    create(&world, "root", "/p/b").await;
    let fields = format!("{}{TEXT}", auth("root"));
    for path in ["/p/a", "/p/a?public=false", "/p/b?public=true"] {
        let conflict = world.put(path, &fields, "").await;
        assert_eq!((conflict.status, conflict.code()), (409, "config-mismatch".into()), "{path}");
        assert!(conflict.text().contains("public"), "{conflict:?}");
    }
    assert_eq!(world.get("/p/a?offset=-1").await.status, 200);
    assert_eq!(world.get("/p/b?offset=-1").await.status, 401);
}

async fn a_public_stream_that_is_made_again_is_private(kind: Kind) {
    let world = Access::new().world(kind);
    assert_eq!(publish(&world, "root", "/p/a").await.status, 201);
    let mut sse = world.sse("/p/a?offset=-1&live=sse", "").await;
    assert_eq!(soon(sse.event()).await.data, "seed");
    assert_eq!(soon(sse.event()).await.name, "control");
    let deleted = world.ask("DELETE", "/p/a", &auth("root"), b"").await;
    assert_eq!(deleted.status, 204);
    assert_eq!(world.get("/p/a").await.status, 401);
    create(&world, "root", "/p/a").await;
    assert_eq!(world.get("/p/a").await.status, 401);
    while let Some(event) = soon(sse.next()).await {
        assert_ne!(event.name, "data", "the reader of the first sees nothing of the second");
    }
}

async fn a_fork_is_public_only_if_it_asks(kind: Kind) {
    let world = Access::new().world(kind);
    assert_eq!(publish(&world, "root", "/p/a").await.status, 201);
    create(&world, "root", "/secret/b").await;
    for (fork, source, status) in [
        ("/p/1", "/p/a", 401),
        ("/p/2?public=true", "/p/a", 200),
        ("/p/3?public=true", "/secret/b", 200),
    ] {
        let fields = format!("{}stream-forked-from: {ROUTE}{source}\r\n", auth("root"));
        assert_eq!(world.put(fork, &fields, "").await.status, 201, "{fork}");
        let path = fork.split('?').next().unwrap();
        assert_eq!(world.get(&format!("{path}?offset=-1")).await.status, status, "{fork}");
    }
    // Forking reads by grant, whatever everyone may read.
    let fields = format!("{}stream-forked-from: {ROUTE}/p/a\r\n", auth("writer"));
    assert_eq!(world.put("/pub/fork", &fields, "").await.status, 404);
}

async fn a_tenants_public_stream_stays_with_the_tenant(kind: Kind) {
    let access = Access::new();
    let world = access.world(kind);
    assert_eq!(publish(&world, "acme", "/x").await.status, 201);
    let new = NewApiKey {
        name: "visitor".into(),
        tenant: durable_streams_auth::TenantId::new("acme").ok(),
        grants: vec![grant(&["read"], "other/**")],
        expires: None,
    };
    let visitor = access.file.create_api_key(new, world.engine.now()).unwrap().1;
    for (token, path, status) in [
        (visitor.as_str(), "/x", 200),
        (&visitor, "/y", 404),
        ("globex", "/x", 404),
        ("root", "/x", 404),
        ("", "/x", 401),
        ("", "/__ds/t/acme/x", 401),
        ("", "/%5F%5Fds/t/acme/x", 400),
        ("", "/__ds%2Ft/acme/x", 400),
    ] {
        let seen = world.ask("GET", path, &auth(token), b"").await;
        assert_eq!(seen.status, status, "{token} {path}: {seen:?}");
    }
}

async fn without_access_control_being_public_is_kept(kind: Kind) {
    let world = World::new(kind);
    let made = world.put("/a?public=true", TEXT, "x").await;
    assert_eq!((made.status, made.header("stream-public")), (201, Some("true")));
    assert_eq!(world.head("/a").await.header("stream-public"), Some("true"));
    assert_eq!(world.put("/a", TEXT, "").await.status, 409);
    let core = world.engine.head(&StreamPath::new("a").unwrap()).await.unwrap().core;
    assert!(core.public);
    let read = world.get("/a?offset=-1").await;
    assert_eq!((read.status, read.header("cache-control")), (200, Some("no-cache")));
}

async fn shared_caches_keep_what_a_url_shows_to_everyone(kind: Kind) {
    let access = Access::new();
    let shared = AccessCaching::shared(&[header::AUTHORIZATION, durable_streams_auth::X_API_KEY]);
    let world = World::with(kind, |setup| {
        setup.access = Some(access.guard.clone());
        setup.caching = shared.clone();
    });
    assert_eq!(publish(&world, "root", "/pub/open").await.status, 201);
    create(&world, "root", "/pub/closed").await;
    let now = world.engine.now();
    let new =
        NewUrlKey { name: "u".into(), tenant: None, grants: vec![grant(&["read"], "pub/**")] };
    let (key, _) = access.file.create_url_key(new, now).unwrap();
    let path = StreamPath::new("pub/closed").unwrap();
    let signed = |secs| {
        let url =
            UrlGrant { operation: Operation::Read, path: &path, expires: now.plus_secs(secs) };
        access.file.sign_url(&key.id, &url).unwrap()
    };
    // A page behind the start that reaches no tail: what caches keep for a while.
    for path in ["/pub/open", "/pub/closed"] {
        let fields = format!("{}{TEXT}stream-closed: true\r\n", auth("root"));
        assert_eq!(world.post(path, &fields, "more").await.status, 204);
    }
    let at = offset(4);
    let kept = "public, max-age=60, stale-while-revalidate=300";
    for (target, token, expected) in [
        (format!("/pub/open?offset={at}"), "", kept),
        ("/pub/open?offset=-1".to_owned(), "", "no-cache"),
        (format!("/pub/open?offset={at}&live=sse"), "", "no-cache"),
        (
            format!("/pub/open?offset={at}"),
            "root",
            "private, max-age=60, stale-while-revalidate=300",
        ),
        (format!("/pub/open?offset={at}"), "writer", kept),
        (
            format!("/pub/closed?offset={at}"),
            "root",
            "private, max-age=60, stale-while-revalidate=300",
        ),
        (format!("/pub/closed?offset={at}&{}", signed(100_000)), "", kept),
    ] {
        let (_, head) = world.live(&target, &auth(token)).await;
        let seen = head.header("cache-control").unwrap_or("none");
        // A client with credentials is the only one to keep what came with them.
        let expected =
            if token == "writer" { kept.replace("public", "private") } else { expected.to_owned() };
        assert_eq!((head.status, seen), (200, expected.as_str()), "{target} {token}: {head:?}");
        assert!(head.all("vary").contains(&"authorization, x-api-key"), "{head:?}");
    }
    let brief = format!("/pub/closed?offset={at}&{}", signed(30));
    let (_, head) = world.live(&brief, "").await;
    let caching = head.header("cache-control").unwrap();
    let age: u64 = caching.split(['=', ',']).nth(2).unwrap().parse().unwrap();
    assert!((20..=30).contains(&age) && caching.ends_with("stale-while-revalidate=0"), "{caching}");
    for (target, token, status) in
        [("/pub/closed", "", 401), ("/pub/none", "", 401), ("/other", "reader", 404)]
    {
        let refused = world.ask("GET", target, &auth(token), b"").await;
        assert_eq!((refused.status, refused.header("cache-control")), (status, Some("no-store")));
    }
}

/// Requests that are put together of what clients could try, on a path that is private.
async fn no_spelling_and_no_header_opens_a_private_stream(kind: Kind) {
    let world = Access::new().world(kind);
    create(&world, "root", "/secret/s").await;
    assert_eq!(publish(&world, "root", "/p/a").await.status, 201);
    assert_eq!(publish(&world, "acme", "/secret/s").await.status, 201);
    let piece = proptest::sample::select(vec![
        "secret", "s", "p", "a", "/", "/", "/", "%2F", "//", ".", "..", "%2e%2e", "\\", "%5c",
        "__ds", "t", "acme", "%00", ";", "%73ecret", "*", "**",
    ]);
    let path = proptest::collection::vec(piece, 1..8).prop_map(|pieces| pieces.concat());
    let path = prop_oneof![path, Just("secret/s".to_owned()), Just("p/../secret/s".to_owned())];
    let query = proptest::sample::select(vec![
        "",
        "?public=true",
        "?offset=-1&public=true",
        "?offset=-1",
        "?public=true&public=true",
        "?%70ublic=true",
        "?ds-op=read&ds-exp=9999999999&ds-key=x&ds-sig=x",
    ]);
    let field = proptest::sample::select(vec![
        "",
        "stream-public: true\r\n",
        "x-original-url: /v1/stream/p/a\r\n",
        "x-rewrite-url: /v1/stream/p/a\r\n",
        "x-forwarded-prefix: /p\r\n",
        "x-http-method-override: GET\r\n",
        "x-tenant: acme\r\n",
        "cookie: ds=1\r\n",
        "authorization: Bearer nobody\r\n",
        "authorization: Basic eDp4\r\n",
        "x-api-key: root\r\n",
        "authorization: \r\n",
    ]);
    let method = proptest::sample::select(vec!["GET", "HEAD", "POST", "PUT", "DELETE"]);
    let mut runner = TestRunner::deterministic();
    let mut client = world.server.connect().await;
    for _ in 0..150 {
        let tree =
            (method.clone(), path.clone(), query.clone(), field.clone()).new_tree(&mut runner);
        let (method, path, query, field) = tree.unwrap().current();
        let body: &[u8] = if matches!(method, "POST" | "PUT") { b"taken" } else { b"" };
        let fields = format!("{TEXT}{field}");
        client.send(request(method, &format!("/{path}{query}"), &fields, body)).await;
        let reply = if method == "HEAD" { client.head().await } else { client.reply().await };
        let said = format!("{method} /{path}{query} {field:?}: {reply:?}");
        let public = StreamPath::from_url(&path).is_ok_and(|path| path.as_str() == "p/a");
        let read = matches!(method, "GET" | "HEAD") && public;
        assert!(read || reply.status >= 400, "{said}");
        if reply.header("connection") == Some("close") || reply.status == 400 {
            client = world.server.connect().await;
        }
    }
    let secret = world.ask("GET", "/secret/s?offset=-1", &auth("root"), b"").await;
    assert_eq!(secret.text(), "seed", "nobody wrote to it");
}
