//! Rates and quotas over a real port: what is refused, what is slowed down, and what no spelling gets around.

use std::time::{Duration, Instant};

use durable_streams_auth::{
    AccessGuard, ByteRate, PathPrefix, RateRule, RateRules, ReaderQuotas, TENANTS_PREFIX,
};
use durable_streams_engine::{ScopeQuota, UsageScope};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::access::{Access, auth, create};
use crate::support::{Reply, eventually};
use crate::world::{Kind, World, request, soon};

for_each_kind![
    a_refusal_says_which_rate_and_when,
    requests_with_the_token_of_a_wake_have_their_clients_rate,
    bytes_are_taken_in_both_directions,
    what_was_begun_is_slowed_down,
    live_readers_have_quotas,
    a_tenant_holds_its_quota_and_no_more,
    no_spelling_gets_a_tenant_past_its_quota,
];

const TEXT: &str = "content-type: text/plain\r\n";

fn guarded(kind: Kind, change: impl FnOnce(AccessGuard) -> AccessGuard) -> World {
    let mut access = Access::new();
    access.guard = change(access.guard.clone());
    access.world(kind)
}

fn rule(requests: u64, burst: u64) -> RateRule {
    RateRule { requests, burst, bytes: None }
}

fn rate_limited(reply: &Reply, policy: &str, limit: &str) {
    assert_eq!((reply.status, reply.code()), (429, "rate-limited".into()), "{reply:?}");
    assert_eq!(reply.header("ratelimit-policy"), Some(policy), "{reply:?}");
    let seen = reply.header("ratelimit").unwrap();
    assert!(seen.starts_with(limit), "{reply:?}");
    assert!(reply.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
}

async fn a_refusal_says_which_rate_and_when(kind: Kind) {
    let chat = PathPrefix::new("open/chat").unwrap();
    let world = guarded(kind, |guard| {
        guard.with_rates(RateRules {
            principal: Some(rule(1, 8)),
            paths: vec![(chat, rule(1, 3))],
            buckets: 1024,
            ..RateRules::default()
        })
    });
    create(&world, "root", "/open/chat/a").await;
    create(&world, "root", "/open/b").await;
    // Two more for the prefix, whoever asks; then none.
    for token in ["", "root"] {
        let read = world.ask("GET", "/open/chat/a?offset=-1", &auth(token), b"").await;
        assert_eq!(read.status, 200);
    }
    let refused = world.ask("GET", "/open/%63hat/a?offset=-1", "", b"").await;
    rate_limited(&refused, "\"path\";q=3;w=3", "\"path\";r=0;t=1");
    assert_eq!(world.get("/open/b?offset=-1").await.status, 200, "another prefix");
    let mut last = None;
    for _ in 0..9 {
        last = Some(world.ask("GET", "/open/b?offset=-1", &auth("root"), b"").await);
    }
    rate_limited(&last.unwrap(), "\"principal\";q=8;w=8", "\"principal\";r=0;t=1");
    let page = "origin: https://page.example\r\n";
    let shown = world.ask("GET", "/open/chat/a", page, b"").await;
    let exposed = shown.header("access-control-expose-headers").unwrap();
    assert!(exposed.contains("RateLimit-Policy"), "{exposed}");
}

async fn requests_with_the_token_of_a_wake_have_their_clients_rate(kind: Kind) {
    let world = guarded(kind, |guard| {
        let client = Some(rule(1, 6));
        guard.with_rates(RateRules { client, buckets: 1024, ..RateRules::default() })
    });
    let ack = "content-type: application/json\r\nauthorization: Bearer guessed\r\n";
    let guesses = [
        ("POST", "/__ds/subscriptions/a/ack"),
        ("POST", "/__ds/subscriptions/a/release"),
        ("POST", "/__ds/subscriptions/a/callback"),
        ("GET", "/__ds/jwks.json"),
    ];
    let mut served = 0;
    let refused = loop {
        let (method, path) = guesses[served % guesses.len()];
        let reply = world.ask(method, path, ack, b"{}").await;
        if reply.status == 429 {
            break reply;
        }
        served += 1;
        assert!(served < 100, "guessed {served} times");
    };
    assert!(served >= 6, "{served}");
    rate_limited(&refused, "\"client\";q=6;w=6", "\"client\";r=0;t=1");
    // A preflight sends nothing that could be guessed.
    let page = "origin: https://page.example\r\naccess-control-request-method: POST\r\n";
    assert_ne!(world.ask("OPTIONS", guesses[0].1, page, b"").await.status, 429);
}

async fn bytes_are_taken_in_both_directions(kind: Kind) {
    let bytes = Some(ByteRate { per_second: 4_000, burst: 20_000 });
    let world = guarded(kind, |guard| {
        let principal = Some(RateRule { bytes, ..rule(1_000, 1_000) });
        guard.with_rates(RateRules { principal, buckets: 1024, ..RateRules::default() })
    });
    create(&world, "root", "/a").await;
    let fields = format!("{}{TEXT}", auth("root"));
    assert_eq!(world.post("/a", &fields, vec![b'x'; 15_000]).await.status, 204);
    let refused = world.post("/a", &fields, vec![b'x'; 15_000]).await;
    rate_limited(
        &refused,
        "\"principal-bytes\";q=20000;qu=\"content-bytes\";w=5",
        "\"principal-bytes\";r=0",
    );
    assert_eq!(world.engine.stats().inflight_append_bytes, 0);
    // What is left lets a read begin, which then waits for its bytes; the next one is refused.
    let began = Instant::now();
    let read = world.ask("GET", "/a?offset=-1", &fields, b"").await;
    assert_eq!((read.status, read.body.len()), (200, 15_004));
    assert!(began.elapsed() > Duration::from_millis(1_500), "{:?}", began.elapsed());
    let other = world.ask("GET", "/a?offset=-1", &auth("reader"), b"").await;
    assert_eq!(other.status, 404, "another principal has its own");
}

async fn what_was_begun_is_slowed_down(kind: Kind) {
    let bytes = Some(ByteRate { per_second: 100_000, burst: 50_000 });
    let world = guarded(kind, |guard| {
        let client = Some(RateRule { bytes, ..rule(1_000, 1_000) });
        guard.with_rates(RateRules { client, buckets: 1024, ..RateRules::default() })
    });
    let path = durable_streams_protocol::StreamPath::new("open/a").unwrap();
    let create = durable_streams_protocol::Create::default();
    world.engine.create(&path, &create, vec![b'x'; 250_000].into()).await.unwrap();
    // 250,000 bytes, of which 50,000 come at once: two seconds, and base64 adds to the events.
    for (target, at_least) in [("/open/a?offset=-1", 1_500), ("/open/a?offset=-1&live=sse", 2_000)]
    {
        let began = Instant::now();
        if target.ends_with("sse") {
            let mut sse = world.sse(target, "").await;
            let mut received = 0;
            while received < 300_000 {
                received += soon(sse.event()).await.data.len();
            }
        } else {
            assert_eq!(world.get(target).await.body.len(), 250_000);
        }
        let took = began.elapsed();
        assert!(took > Duration::from_millis(at_least), "{target}: {took:?}");
        assert!(took < Duration::from_secs(20), "{target}: {took:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // A client that leaves while it is slowed down holds nothing.
    let (client, _) = world.live("/open/a?offset=-1&live=sse", "").await;
    drop(client);
    world.at_rest().await;
}

async fn live_readers_have_quotas(kind: Kind) {
    let world = guarded(kind, |guard| {
        guard.with_reader_quotas(ReaderQuotas {
            principal: Some(2),
            tenant: Some(1),
            paths: vec![(PathPrefix::new("open/chat").unwrap(), 1)],
            ..ReaderQuotas::default()
        })
    });
    for (token, path) in
        [("root", "/open/a"), ("root", "/open/chat/a"), ("acme", "/x"), ("globex", "/x")]
    {
        create(&world, token, path).await;
    }
    let sse = async |path: &str, token: &str| {
        world.sse(&format!("{path}?offset=now&live=sse"), &auth(token)).await
    };
    let refused = async |path: &str, token: &str, policy: &str| {
        for mode in ["sse", "long-poll"] {
            let target = format!("{path}?offset=now&live={mode}");
            let seen = world.ask("GET", &target, &auth(token), b"").await;
            rate_limited(&seen, policy, policy.split(';').next().unwrap());
        }
    };
    let readers = [sse("/open/a", "root").await, sse("/open/a", "root").await];
    refused("/open/a", "root", "\"principal-readers\";q=2;qu=\"concurrent-requests\"").await;
    let _anyone = [sse("/open/a", "").await, sse("/open/a", "").await, sse("/open/a", "").await];
    let tenant = sse("/x", "acme").await;
    refused("/x", "acme", "\"tenant-readers\";q=1;qu=\"concurrent-requests\"").await;
    let _other = sse("/x", "globex").await;
    let _chat = sse("/open/chat/a", "").await;
    refused("/open/chat/a", "", "\"path-readers\";q=1;qu=\"concurrent-requests\"").await;
    let caught_up = world.ask("GET", "/open/chat/a?offset=-1", "", b"").await;
    assert_eq!(caught_up.status, 200, "a read that does not wait is no live reader");
    drop((readers, tenant));
    eventually("their places are free", async || {
        let again = world.live("/x?offset=now&live=sse", &auth("acme")).await;
        again.1.status == 200
    })
    .await;
    let again = world.live("/open/a?offset=now&live=sse", &auth("root")).await;
    assert_eq!(again.1.status, 200);
}

async fn tenants(world: &World, streams: u64, bytes: u64) {
    let quota = ScopeQuota { streams: Some(streams), bytes: Some(bytes) };
    let scope = UsageScope {
        name: "tenant".into(),
        prefix: TENANTS_PREFIX.into(),
        each: true,
        quota: ScopeQuota::default(),
        named: vec![("acme".into(), quota), ("globex".into(), quota)],
    };
    world.engine.limit_scopes(vec![scope]).await.unwrap();
}

/// What acme and globex hold.
fn held(world: &World) -> Vec<(u64, u64)> {
    world.engine.scope_usage().into_iter().map(|one| (one.streams, one.bytes)).collect()
}

async fn a_tenant_holds_its_quota_and_no_more(kind: Kind) {
    let world = Access::new().world(kind);
    tenants(&world, 3, 100).await;
    let fields = format!("{}{TEXT}", auth("acme"));
    for path in ["/a", "/b?public=true", "/c/d"] {
        assert_eq!(world.put(path, &fields, "0123456789").await.status, 201);
    }
    let full = world.put("/e", &fields, "").await;
    assert_eq!((full.status, full.code()), (507, "quota-exceeded".into()));
    assert_eq!(full.header("retry-after"), Some("30"));
    assert_eq!(world.put("/a", &fields, "").await.status, 200, "what is there is confirmed");
    assert_eq!(world.post("/a", &fields, vec![b'x'; 70]).await.status, 204);
    let full = world.post("/b", &fields, "x").await;
    assert_eq!((full.status, full.code()), (507, "quota-exceeded".into()));
    assert_eq!(held(&world), [(3, 100), (0, 0)]);
    // Others have their own.
    create(&world, "globex", "/e").await;
    create(&world, "root", "/acme/e").await;
    create(&world, "root", "/t/acme/e").await;
    assert_eq!(held(&world), [(3, 100), (1, 4)]);
    assert_eq!(world.ask("DELETE", "/a", &fields, b"").await.status, 204);
    assert_eq!(world.put("/e", &fields, vec![b'x'; 80]).await.status, 201);
    assert_eq!(held(&world)[0], (3, 100));
}

async fn no_spelling_gets_a_tenant_past_its_quota(kind: Kind) {
    let world = Access::new().world(kind);
    tenants(&world, 8, 400).await;
    let piece = proptest::sample::select(vec![
        "a",
        "b",
        "%61",
        "/",
        "/",
        "%2F",
        "//",
        ".",
        "..",
        "%2e%2e",
        "__ds",
        "%5F_ds",
        "t",
        "globex",
        "acme",
        "*",
        "é",
        "%",
        "?public=true",
        "?x",
    ]);
    let path = proptest::collection::vec(piece, 1..7).prop_map(|pieces| pieces.concat());
    let method = proptest::sample::select(vec!["PUT", "PUT", "POST", "DELETE"]);
    let field = proptest::sample::select(vec![
        "",
        "x-tenant: globex\r\n",
        "x-forwarded-prefix: /v1/stream/globex\r\n",
        "stream-forked-from: /v1/stream/a\r\n",
        "producer-id: p\r\nproducer-epoch: 0\r\nproducer-seq: 0\r\n",
    ]);
    let mut runner = TestRunner::deterministic();
    let mut client = world.server.connect().await;
    let mut refused = 0;
    for _ in 0..200 {
        let tree = (method.clone(), path.clone(), field.clone(), 0..90_usize).new_tree(&mut runner);
        let (method, path, field, bytes) = tree.unwrap().current();
        let body = if method == "DELETE" { Vec::new() } else { vec![b'x'; bytes] };
        let fields = format!("{}{TEXT}{field}", auth("acme"));
        let sent = request(method, &format!("/{path}"), &fields, &body);
        client.send(world.aim(sent).await).await;
        let reply = client.reply().await;
        refused += u32::from(reply.status == 507);
        if reply.header("connection") == Some("close") || reply.status == 400 {
            client = world.server.connect().await;
        }
        let [acme, globex] = held(&world)[..] else { panic!("two tenants") };
        assert!(acme.0 <= 8 && acme.1 <= 400, "{method} /{path}: {acme:?}");
        assert_eq!(globex, (0, 0), "{method} /{path} {field:?}");
    }
    assert!(refused > 0, "the quota was never reached");
    // What was counted is what there is, and all of it is acme's.
    let all = world.engine.list(None, 1_000).await.unwrap();
    let mut bytes = 0;
    for path in &all {
        assert!(path.as_str().starts_with("__ds/t/acme/"), "{path}");
        if let Ok(view) = world.engine.head(path).await {
            bytes += view.tail.offset.position() - view.core.own_start().position();
        }
    }
    assert_eq!(held(&world)[0].0, all.len() as u64);
    assert!(held(&world)[0].1 >= bytes, "soft-deleted ones have bytes too");
}
