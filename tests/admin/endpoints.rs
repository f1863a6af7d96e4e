//! What each path answers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use durable_streams_engine::store::{AnyStore, FileStore, FileStoreOptions};
use durable_streams_engine::{Clock, Engine, EngineLimits, ScopeQuota, UsageScope};
use durable_streams_protocol::{Create, StreamPath};
use durable_streams_server::edge::{AllowedHosts, EdgeOptions};
use durable_streams_server::server::{AdminOptions, ListenOptions, Server, ServerOptions};
use durable_streams_server::telemetry::metrics::{self, Kind};

use crate::harness::{Client, edge, eventually, to};
use crate::scrape::{Scrape, ask, server};
use crate::upstreams::{Upstream, ok};

#[tokio::test(flavor = "multi_thread")]
async fn each_path_answers_what_it_says() {
    let server = server(EdgeOptions::default());
    let admin = server.admin.unwrap();
    for path in ["/healthz", "/readyz"] {
        let reply = ask(admin, "GET", path).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "ok\n"), "{path}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
    let help = ask(admin, "GET", "/").await;
    assert!(help.text().contains("/metrics") && help.text().contains("/readyz"));
    let metrics = ask(admin, "GET", "/metrics").await;
    assert!(metrics.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"));
    let head = ask(admin, "HEAD", "/healthz").await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("3")));
    for path in ["/nothing", "/healthz/", "/v1/stream/a"] {
        let reply = ask(admin, "GET", path).await;
        assert_eq!((reply.status, reply.code().as_str()), (404, "not-found"), "{path}");
    }
    let refused = ask(admin, "POST", "/healthz").await;
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_not_valid_gets_an_answer() {
    let server = server(EdgeOptions::default());
    for head in
        ["GET /healthz\r\n\r\n", "GET /a b HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\na b: c\r\n\r\n"]
    {
        let mut client = Client::connect(server.admin.unwrap()).await;
        client.send(head).await;
        let reply = client.reply().await;
        assert_eq!((reply.status, &*reply.code()), (400, "malformed-request"), "{head:?}");
        assert!(client.is_closed().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_for_this_machine_answers_no_page_of_another_host() {
    let allowed_hosts = Some(AllowedHosts::new(["streams.test".to_owned()]));
    let server = server(EdgeOptions { allowed_hosts, ..EdgeOptions::default() });
    for (fields, refused) in [
        ("host: localhost:5241", None),
        ("host: streams.test", None),
        ("host: evil.example", Some("host-not-allowed")),
        ("host: localhost\r\norigin: https://evil.example", Some("origin-not-allowed")),
    ] {
        let mut client = Client::connect(server.admin.unwrap()).await;
        client.send(format!("GET /metrics HTTP/1.1\r\n{fields}\r\n\r\n")).await;
        let reply = client.reply().await;
        match refused {
            None => assert_eq!(reply.status, 200, "{fields}"),
            Some(code) => assert_eq!((reply.status, &*reply.code()), (403, code), "{fields}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_paths_are_not_on_the_stream_listener() {
    let server = server(EdgeOptions::default());
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(server.get(path).await.status, 404, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_told_before_it_is_over() {
    let slow = Upstream::http(|_| async {
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        ok("late")
    })
    .await;
    let server = server(edge(vec![to(&[&slow])]));
    let admin = server.admin.unwrap();
    let mut client = server.connect().await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    eventually("the request is open", || async {
        Scrape::of(admin).await.get("durable_streams_connections") == 1.0
    })
    .await;
    server.stop();
    eventually("it is not ready", || async {
        let reply = ask(admin, "GET", "/readyz").await;
        reply.status == 503 && reply.text().contains("the server is stopping")
    })
    .await;
    assert_eq!(ask(admin, "GET", "/healthz").await.status, 200, "still up");
    assert_eq!(Scrape::of(admin).await.get("durable_streams_ready"), 0.0);
    assert_eq!(client.reply().await.text(), "late", "the open request was finished");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_takes_no_writes_is_not_ready() {
    let directory = tempfile::tempdir().unwrap();
    let store = FileStore::open(FileStoreOptions::new(directory.path())).unwrap();
    let store = AnyStore::File(store);
    let engine = Arc::new(Engine::new(store, Clock::System, EngineLimits::default()));
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = ServerOptions {
        listen: ListenOptions { addresses: vec!["127.0.0.1:0".into()] },
        admin: Some(AdminOptions { address, optional: false }),
        ..ServerOptions::default()
    };
    let server = Server::bind(options, engine.clone()).unwrap();
    let (admin, handle) = (server.admin_address().unwrap(), server.stop_handle());
    let thread = std::thread::spawn(move || server.run_without_signals());
    assert_eq!(ask(admin, "GET", "/readyz").await.status, 200);
    engine.close().await;
    let reply = ask(admin, "GET", "/readyz").await;
    assert_eq!((reply.status, reply.code().as_str()), (503, "not-ready"));
    assert!(reply.text().contains("the store is closed"), "{}", reply.text());
    assert_eq!(ask(admin, "GET", "/healthz").await.status, 200);
    handle.stop();
    thread.join().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_there_is_is_scraped_and_no_other() {
    let upstream = Upstream::http(|_| async { ok("up") }).await;
    let server = server(edge(vec![to(&[&upstream])]));
    server.get("/").await;
    let scrape = Scrape::of(server.admin.unwrap()).await;
    let families = scrape.text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let seen: BTreeSet<(&str, &str)> = families.filter_map(|line| line.split_once(' ')).collect();
    // What only a store on disk, only TLS, or only Linux can tell.
    let elsewhere = |name: &str| {
        [
            metrics::BATCH_EVENTS,
            metrics::SYNC_DURATION,
            metrics::LOG_WRITTEN,
            metrics::LOG_BYTES,
            metrics::DATABASE_BYTES,
            metrics::DATABASE_FREE,
            metrics::KEPT_STREAMS,
            metrics::KEPT_BYTES,
            metrics::CHECKPOINTS,
            metrics::CHECKPOINT_SECONDS,
            metrics::CHECKPOINT_LAG,
            metrics::CHECKPOINT_PENDING,
            metrics::DISK_LIMIT,
            metrics::INDEX_AVAILABLE,
            metrics::INDEX_REOPENED,
            metrics::SCRUBS,
            metrics::SCRUB_AGE,
            metrics::SCRUB_BYTES,
            metrics::SCRUB_DAMAGED,
            metrics::SEGMENTS,
            metrics::SEGMENT_BYTES,
            metrics::SEGMENT_LIVE,
            metrics::SEALED_BYTES,
            metrics::SEAL_FAILURES,
            metrics::FILE_PARTS,
            metrics::QUOTA_USED,
            metrics::QUOTA_LIMIT,
            metrics::TLS_HANDSHAKES,
            metrics::TLS_EXPIRY,
            metrics::TLS_ORDER_FAILURES,
        ]
        .iter()
        .any(|metric| metric.name == name)
            // With object storage; tests/admin/segments.rs has those.
            || name.starts_with("durable_streams_tier_")
            || (name.starts_with("process_") && !cfg!(target_os = "linux"))
    };
    let kind = |kind| match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let all: BTreeSet<(&str, &str)> = metrics::ALL
        .iter()
        .filter(|metric| !elsewhere(metric.name))
        .map(|metric| (metric.name, kind(metric.kind)))
        .collect();
    assert_eq!(seen, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_are_scraped_of_those_that_have_a_name() {
    let engine = Arc::new(Engine::in_memory());
    let quota = |streams| ScopeQuota { streams, bytes: Some(1_000) };
    let tenants = UsageScope {
        name: "tenant".into(),
        prefix: "__ds/t".into(),
        each: true,
        quota: quota(Some(9)),
        named: vec![("acme".into(), quota(None))],
    };
    let chat = UsageScope {
        name: "path:chat".into(),
        prefix: "chat".into(),
        quota: quota(Some(5)),
        ..UsageScope::default()
    };
    engine.limit_scopes(vec![tenants, chat]).await.unwrap();
    for path in ["__ds/t/acme/a", "__ds/t/globex/a", "chat/a", "chat/b"] {
        let path = StreamPath::system(path).unwrap();
        engine.create(&path, &Create::default(), Bytes::from_static(b"12345")).await.unwrap();
    }
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = ServerOptions {
        listen: ListenOptions { addresses: vec!["127.0.0.1:0".into()] },
        admin: Some(AdminOptions { address, optional: false }),
        ..ServerOptions::default()
    };
    let server = Server::bind(options, engine).unwrap();
    let (admin, handle) = (server.admin_address().unwrap(), server.stop_handle());
    let thread = std::thread::spawn(move || server.run_without_signals());
    let scrape = Scrape::of(admin).await.text;
    let quotas: BTreeSet<&str> =
        scrape.lines().filter(|line| line.starts_with("durable_streams_quota_")).collect();
    let expected = BTreeSet::from([
        r#"durable_streams_quota_limit{scope="path:chat",what="bytes"} 1000"#,
        r#"durable_streams_quota_limit{scope="path:chat",what="streams"} 5"#,
        r#"durable_streams_quota_limit{scope="tenant:acme",what="bytes"} 1000"#,
        r#"durable_streams_quota_used{scope="path:chat",what="bytes"} 10"#,
        r#"durable_streams_quota_used{scope="path:chat",what="streams"} 2"#,
        r#"durable_streams_quota_used{scope="tenant:acme",what="bytes"} 5"#,
        r#"durable_streams_quota_used{scope="tenant:acme",what="streams"} 1"#,
    ]);
    assert_eq!(quotas, expected);
    handle.stop();
    thread.join().unwrap();
}
