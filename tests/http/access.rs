//! Access control over a real port: what every principal may do, on every transport and store.

use std::sync::Arc;
use std::time::Duration;

use durable_streams_auth::{
    AccessError, AccessGuard, AnonymousAccess, ApiKeys, BearerValidator, CredentialFile, Grant,
    GuardOptions, NewApiKey, NewUrlKey, Operation, OperationSet, PathPattern, Principal,
    ProjectTokens, ProviderChain, RateRule, RateRules, SignedUrls, TenantId, UrlGrant,
};
use durable_streams_protocol::{StreamPath, Timestamp};

use crate::support::Client;
use crate::world::{Kind, ROUTE, World, offset, request, soon};

for_each_kind![
    every_principal_does_what_its_grants_say,
    what_is_hidden_looks_as_if_it_did_not_exist,
    a_fork_needs_to_read_its_source,
    tenants_do_not_meet,
    a_signed_url_reads_and_does_nothing_else,
    a_live_read_ends_when_its_right_ends,
    responses_stay_with_the_client_that_they_are_for,
    rates_bound_clients_and_principals,
];

pub(crate) fn grant(words: &[&str], pattern: &str) -> Grant {
    let sets = words.iter().map(|word| OperationSet::from_word(word).unwrap());
    let set = sets.fold(OperationSet::NONE, OperationSet::union);
    Grant::on(set, PathPattern::parse(pattern).unwrap())
}

/// The providers of a configured server, and one whose tokens are the names of principals.
pub(crate) struct Access {
    pub(crate) file: Arc<CredentialFile>,
    pub(crate) guard: AccessGuard,
    _folder: tempfile::TempDir,
}

impl Access {
    pub(crate) fn new() -> Self {
        Access::with(GuardOptions::default())
    }

    pub(crate) fn with(options: GuardOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = CredentialFile::open(&folder.path().join("credentials.json")).unwrap();
        let file = Arc::new(file);
        let names = BearerValidator::new("names", |token| async move {
            let tenant = |name: &str| TenantId::new(name).ok();
            let principal = Principal::new(token.clone());
            Ok(match token.as_str() {
                "root" => Some(principal.with_grant(grant(&["all"], "**"))),
                "reader" => Some(principal.with_grant(grant(&["read"], "pub/**"))),
                "writer" => Some(principal.with_grant(grant(&["write"], "pub/**"))),
                "closer" => Some(principal.with_grant(grant(&["close", "read"], "pub/**"))),
                "operator" => Some(principal.with_grant(grant(&["administer"], "**"))),
                "auditor" => Some(principal.with_grant(grant(&["read"], "__ds/lifecycle"))),
                "acme" | "globex" => {
                    let owner = principal.with_tenant(tenant(&token));
                    Some(owner.with_grant(grant(&["all"], "**")))
                }
                "down" => return Err(AccessError::Unavailable { reason: "a test" }),
                _ => None,
            })
        });
        let mut chain = ProviderChain::new();
        chain.push(Arc::new(ApiKeys::new(file.clone(), None))).unwrap();
        chain.push(Arc::new(ProjectTokens::new(file.clone(), None, 1 << 20))).unwrap();
        chain.push(Arc::new(names)).unwrap();
        chain.push(Arc::new(SignedUrls::new(file.clone()))).unwrap();
        chain.push(Arc::new(AnonymousAccess::new(vec![grant(&["read"], "open/**")]))).unwrap();
        let guard = AccessGuard::new(Arc::new(chain), options);
        Access { file, guard, _folder: folder }
    }

    pub(crate) fn world(&self, kind: Kind) -> World {
        World::with(kind, |setup| setup.access = Some(self.guard.clone()))
    }
}

pub(crate) fn auth(token: &str) -> String {
    if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") }
}

pub(crate) async fn create(world: &World, token: &str, path: &str) {
    let fields = format!("{}content-type: text/plain\r\n", auth(token));
    let made = world.put(path, &fields, "seed").await;
    assert_eq!(made.status, 201, "{path}: {made:?}");
}

/// What a client can do to a stream, as (method, fields, body).
const REQUESTS: [(&str, &str, &str); 7] = [
    ("GET", "", ""),
    ("HEAD", "", ""),
    ("POST", "content-type: text/plain\r\n", "x"),
    ("POST", "stream-closed: true\r\n", ""),
    ("POST", "content-type: text/plain\r\nstream-closed: true\r\n", "x"),
    ("PUT", "content-type: text/plain\r\n", ""),
    ("DELETE", "", ""),
];

async fn every_principal_does_what_its_grants_say(kind: Kind) {
    let access = Access::new();
    let world = access.world(kind);
    let mut number = 0;
    for (token, folder, statuses) in [
        // GET, HEAD, append, close, append and close, create again, DELETE.
        ("", "pub", [401; 7]),
        ("nobody", "pub", [401; 7]),
        ("a.b.c", "pub", [401; 7]),
        ("down", "pub", [503; 7]),
        ("reader", "pub", [200, 200, 403, 403, 403, 403, 403]),
        ("reader", "other", [404, 404, 404, 404, 404, 403, 404]),
        ("writer", "pub", [404, 404, 204, 204, 204, 200, 204]),
        ("closer", "pub", [200, 200, 403, 204, 403, 403, 403]),
        ("root", "pub", [200, 200, 204, 204, 204, 200, 204]),
        // Another place altogether: nothing is there, and it makes its own.
        ("acme", "pub", [404, 404, 404, 404, 404, 201, 404]),
        ("", "open", [200, 200, 401, 401, 401, 401, 401]),
        ("nobody", "open", [401; 7]),
    ] {
        for ((method, fields, body), expected) in REQUESTS.into_iter().zip(statuses) {
            number += 1;
            let path = format!("/{folder}/{number}");
            create(&world, "root", &path).await;
            let fields = format!("{}{fields}", auth(token));
            let seen = world.ask(method, &path, &fields, body.as_bytes()).await;
            assert_eq!(seen.status, expected, "{token:?} {method} {path} {fields:?}: {seen:?}");
            assert_eq!(seen.header("www-authenticate").is_some(), expected == 401, "{seen:?}");
            if expected >= 401 {
                assert_eq!(seen.header("cache-control"), Some("no-store"), "{seen:?}");
            }
        }
    }
}

async fn what_is_hidden_looks_as_if_it_did_not_exist(kind: Kind) {
    let access = Access::new();
    let world = access.world(kind);
    create(&world, "root", "/secret/there").await;
    for (method, fields, body) in REQUESTS {
        let fields = format!("{}{fields}", auth("reader"));
        let mut seen = Vec::new();
        for path in ["/secret/there", "/secret/nowhere"] {
            let reply = world.ask(method, path, &fields, body.as_bytes()).await;
            let varies = |line: &&str| {
                let line = line.to_ascii_lowercase();
                line.starts_with("date:") || line.starts_with("x-request-id:")
            };
            let head = reply.head.lines().filter(|line| !varies(line));
            seen.push((head.collect::<Vec<_>>().join("\n"), reply.text()));
        }
        assert_eq!(seen[0], seen[1], "{method}");
    }
    // And the same as where a reader may look and nothing is.
    let hidden = world.ask("GET", "/secret/there", &auth("reader"), b"").await;
    let absent = world.ask("GET", "/pub/nowhere", &auth("reader"), b"").await;
    assert_eq!((hidden.status, hidden.text()), (absent.status, absent.text()));
}

async fn a_fork_needs_to_read_its_source(kind: Kind) {
    let access = Access::new();
    let world = access.world(kind);
    create(&world, "root", "/pub/source").await;
    create(&world, "root", "/secret/source").await;
    create(&world, "acme", "/source").await;
    for (token, fork, source, status) in [
        ("root", "/pub/1", "/secret/source", 201),
        ("writer", "/pub/2", "/pub/source", 404),
        ("reader", "/pub/3", "/pub/source", 403),
        ("acme", "/4", "/source", 201),
        ("acme", "/5", "/secret/source", 404),
        ("globex", "/6", "/source", 404),
        ("root", "/pub/7", "/source", 404),
        ("root", "/pub/8", "/__ds/t/acme/source", 400),
    ] {
        let fields = format!("{}stream-forked-from: {ROUTE}{source}\r\n", auth(token));
        let made = world.put(fork, &fields, "").await;
        assert_eq!(made.status, status, "{token} {fork} {source}: {made:?}");
    }
    let read = world.ask("GET", "/4", &auth("acme"), b"").await;
    assert_eq!(read.text(), "seed", "a fork of a tenant stays with it");
}

async fn tenants_do_not_meet(kind: Kind) {
    let access = Access::new();
    let world = access.world(kind);
    create(&world, "root", "/t/acme/a").await;
    create(&world, "acme", "/a").await;
    create(&world, "globex", "/a").await;
    let put = world.put("/b", &format!("{}content-type: text/plain\r\n", auth("acme")), "").await;
    let location = put.header("location").unwrap();
    assert!(location.ends_with(&format!("{ROUTE}/b")), "the client's own name: {location}");
    for (token, text) in [("acme", "-acme"), ("globex", "-globex")] {
        let fields = format!("{}content-type: text/plain\r\n", auth(token));
        assert_eq!(world.post("/a", &fields, text).await.status, 204);
    }
    for (token, path, expected) in [
        ("acme", "/a", Some("seed-acme")),
        ("globex", "/a", Some("seed-globex")),
        ("root", "/t/acme/a", Some("seed")),
        ("root", "/a", None),
        ("acme", "/t/acme/a", None),
        ("root", "/__ds/t/acme/a", None),
        ("root", "/%5F%5Fds/t/acme/a", None),
        ("root", "/__ds%2Ft/acme/a", None),
        ("acme", "/../globex/a", None),
        ("acme", "/%2e%2e/globex/a", None),
        ("acme", "/../../t/globex/a", None),
    ] {
        let read = world.ask("GET", path, &auth(token), b"").await;
        let text = (read.status == 200).then(|| read.text());
        assert_eq!(text.as_deref(), expected, "{token} {path}: {read:?}");
    }
}

async fn a_signed_url_reads_and_does_nothing_else(kind: Kind) {
    let access = Access::new();
    let world = access.world(kind);
    create(&world, "root", "/pub/a").await;
    create(&world, "root", "/pub/b").await;
    let new =
        NewUrlKey { name: "u".into(), tenant: None, grants: vec![grant(&["read"], "pub/**")] };
    let now = world.engine.now();
    let (key, _) = access.file.create_url_key(new, now).unwrap();
    let path = StreamPath::new("pub/a").unwrap();
    let url = UrlGrant { operation: Operation::Read, path: &path, expires: now.plus_secs(60) };
    let query = access.file.sign_url(&key.id, &url).unwrap();
    let got = world.ask("GET", &format!("/pub/a?offset=-1&{query}"), "", b"").await;
    assert_eq!((got.status, got.text().as_str()), (200, "seed"));
    for (method, target, status) in [
        ("HEAD", format!("/pub/a?{query}"), 200),
        ("GET", format!("/pub/b?{query}"), 401),
        ("GET", format!("/pub/a?{}", query.replace("ds-exp=", "ds-exp=9")), 401),
        ("POST", format!("/pub/a?{query}"), 403),
        ("DELETE", format!("/pub/a?{query}"), 403),
        ("PUT", format!("/pub/a?{query}"), 403),
    ] {
        let fields = "content-type: text/plain\r\n";
        let seen = world.ask(method, &target, fields, b"").await;
        assert_eq!(seen.status, status, "{method} {target}: {seen:?}");
    }
    access.file.delete_url_key(&key.id).unwrap();
    let seen = world.ask("GET", &format!("/pub/a?{query}"), "", b"").await;
    assert_eq!(seen.status, 401);
}

async fn a_live_read_ends_when_its_right_ends(kind: Kind) {
    let access = Access::new();
    let world = access.world(kind);
    create(&world, "root", "/pub/a").await;
    let reader = |expires| NewApiKey {
        name: "reader".into(),
        tenant: None,
        grants: vec![grant(&["read"], "pub/**")],
        expires,
    };
    let now: Timestamp = world.engine.now();
    let soon_over = Timestamp::from_millis(now.millis() + 1_500);
    let (_, brief) = access.file.create_api_key(reader(Some(soon_over)), now).unwrap();
    let (record, revoked) = access.file.create_api_key(reader(None), now).unwrap();
    let mut readers = Vec::new();
    for key in [&brief, &revoked] {
        let mut sse = world.sse("/pub/a?offset=now&live=sse", &auth(key)).await;
        assert_eq!(soon(sse.event()).await.name, "control", "the greeting");
        readers.push(sse);
    }
    let polled = {
        let (target, fields) =
            (format!("/pub/a?offset={}&live=long-poll", offset(4)), auth(&revoked));
        let head = world.aim(request("GET", &target, &fields, b"")).await;
        let addr = world.server.addr;
        tokio::spawn(async move {
            let mut client = Client::connect(addr).await;
            client.send(head).await;
            client.reply().await
        })
    };
    tokio::time::sleep(Duration::from_millis(200)).await;
    access.file.revoke_api_key(&record.id, now).unwrap();
    for mut sse in readers {
        let last = soon(sse.event()).await;
        assert_eq!(last.name, "control", "where the client goes on from");
        assert!(last.control()["streamNextOffset"].is_string(), "{last:?}");
        assert_eq!(soon(sse.next()).await, None, "and nothing more");
    }
    assert_eq!(polled.await.unwrap().status, 204);
    let again = world.ask("GET", "/pub/a", &auth(&revoked), b"").await;
    assert_eq!(again.status, 401);
}

async fn responses_stay_with_the_client_that_they_are_for(kind: Kind) {
    let access = Access::new();
    let world = access.world(kind);
    create(&world, "root", "/open/a").await;
    for fields in [auth("root"), String::new()] {
        let read = world.ask("GET", "/open/a?offset=-1", &fields, b"").await;
        let caching = read.header("cache-control").unwrap();
        assert!(caching.starts_with("private"), "{caching}");
        assert!(read.all("vary").iter().any(|vary| vary.contains("authorization")), "{read:?}");
    }
    let live = world.sse("/open/a?offset=-1&live=sse", &auth("root")).await;
    assert_eq!(live.head.header("cache-control"), Some("private, no-cache"));
    let now = world.ask("GET", "/open/a?offset=now", &auth("root"), b"").await;
    assert_eq!(now.header("cache-control"), Some("no-store"));
    let page = format!("{}origin: https://page.example\r\n", auth("nobody"));
    let refused = world.ask("GET", "/open/a", &page, b"").await;
    assert_eq!(refused.header("access-control-allow-origin"), Some("*"), "pages see the refusal");
}

async fn rates_bound_clients_and_principals(kind: Kind) {
    let mut access = Access::new();
    let rules = RateRules {
        client: Some(RateRule { requests: 1, burst: 20, bytes: None }),
        principal: Some(RateRule { requests: 1, burst: 5, bytes: None }),
        buckets: 1024,
        ..RateRules::default()
    };
    access.guard = access.guard.clone().with_rates(rules);
    let world = access.world(kind);
    create(&world, "root", "/open/a").await;
    let mut seen = Vec::new();
    for _ in 0..30 {
        let reply = world.ask("GET", "/open/a?offset=-1", &auth("root"), b"").await;
        if reply.status == 429 {
            assert_eq!(reply.code(), "rate-limited");
            assert_eq!(reply.header("cache-control"), Some("no-store"));
            let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=2).contains(&wait), "{reply:?}");
        }
        seen.push(reply.status);
    }
    let passed = seen.iter().filter(|status| **status == 200).count();
    assert!((4..15).contains(&passed), "{seen:?}");
    // The address has used up its rate too, whoever it says it is.
    let other = world.ask("GET", "/open/a?offset=-1", "", b"").await;
    assert_eq!(other.status, 429, "{other:?}");
}
