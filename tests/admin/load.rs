//! Metrics under load: the figures are what the clients did, to the last request.

use durable_streams_server::edge::EdgeOptions;
use durable_streams_server::edge::StreamOptions;

use crate::harness::{Client, edge, eventually, to};
use crate::scrape::{Scrape, server};
use crate::upstreams::{Upstream, ok};

const CLIENTS: usize = 8;
const ROUNDS: usize = 50;
const BODY: &str = "0123456789";

/// One client with its own stream: create it, then append, read and ask for what is not there.
async fn client(addr: std::net::SocketAddr, number: usize) {
    let mut client = Client::connect(addr).await;
    let path = format!("/v1/stream/load-{number}");
    let create = format!(
        "PUT {path} HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n\r\n"
    );
    client.send(create).await;
    assert_eq!(client.reply().await.status, 201);
    let append = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    for round in 1..=ROUNDS {
        client.send(&append).await;
        assert_eq!(client.reply().await.status, 204);
        client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        let read = client.reply().await;
        assert_eq!((read.status, read.body.len()), (200, round * BODY.len()));
        client.send("GET /v1/stream/absent HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.reply().await.status, 404);
        client.send("GET /proxied HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert_eq!(client.reply().await.text(), "up");
    }
    client.send(format!("GET {path}?offset=nonsense HTTP/1.1\r\nhost: a\r\n\r\n")).await;
    assert_eq!(client.reply().await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_figures_are_what_the_clients_did() {
    let upstream = Upstream::http(|_| async { ok("up") }).await;
    let server = server(edge(vec![to(&[&upstream])]));
    let (addr, admin) = (server.addr, server.admin.unwrap());
    let clients: Vec<_> = (0..CLIENTS).map(|n| tokio::spawn(client(addr, n))).collect();

    // Scrapes meanwhile: counters never fall.
    let mut before = 0.0;
    while !clients.iter().all(|client| client.is_finished()) {
        let seen = Scrape::of(admin).await.total("durable_streams_requests_total");
        assert!(seen >= before, "{seen} after {before}");
        before = seen;
    }
    for client in clients {
        client.await.unwrap();
    }
    let many = (CLIENTS * ROUNDS) as f64;
    eventually("all connections are gone", || async {
        Scrape::of(admin).await.get("durable_streams_connections") == 0.0
    })
    .await;
    let scrape = Scrape::of(admin).await;
    let requests = [
        ("PUT", "create", 201, CLIENTS as f64),
        ("POST", "append", 204, many),
        ("GET", "catch_up", 200, many),
        ("GET", "catch_up", 404, many),
        ("GET", "invalid", 400, CLIENTS as f64),
    ];
    for (method, mode, status, expected) in requests {
        let seen = scrape.requests(method, mode, status);
        assert_eq!(seen, expected, "{method} {mode} {status}");
    }
    let sum: f64 = requests.iter().map(|(.., expected)| expected).sum();
    assert_eq!(scrape.total("durable_streams_requests_total"), sum, "nothing else was counted");
    assert_eq!(scrape.get("durable_streams_append_duration_seconds_count"), many);
    assert_eq!(scrape.get("durable_streams_read_duration_seconds_count"), many);
    assert!(scrape.get("durable_streams_append_duration_seconds_sum") > 0.0);

    let stored = many * BODY.len() as f64;
    assert_eq!(scrape.get(r#"durable_streams_request_body_bytes_total{route="streams"}"#), stored);
    assert_eq!(scrape.get("durable_streams_stored_bytes"), stored);
    assert_eq!(scrape.get("durable_streams_streams"), CLIENTS as f64);
    assert_eq!(scrape.get("durable_streams_connections_accepted_total"), CLIENTS as f64);
    assert_eq!(scrape.get("durable_streams_inflight_append_bytes"), 0.0);
    let read = (CLIENTS * BODY.len() * ROUNDS * (ROUNDS + 1) / 2) as f64;
    let sent = scrape.get(r#"durable_streams_response_body_bytes_total{route="streams"}"#);
    assert!(sent > read, "{sent}: the reads are {read}, and problems have bodies too");

    let proxied = r#"durable_streams_upstream_requests_total{upstream="upstream",status="200"}"#;
    assert_eq!(scrape.get(proxied), many);
    let proxied = r#"durable_streams_response_body_bytes_total{route="proxy"}"#;
    assert_eq!(scrape.get(proxied), many * 2.0);
    let server = upstream.addr;
    let healthy =
        format!(r#"durable_streams_upstream_healthy{{upstream="upstream",server="{server}"}}"#);
    assert_eq!(scrape.get(&healthy), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn live_readers_are_counted_while_they_are_there() {
    let server = server(EdgeOptions::default());
    let admin = server.admin.unwrap();
    let create = "PUT /v1/stream/live HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\n\
                  content-length: 0\r\n\r\n";
    assert_eq!(server.ask(create).await.status, 201);
    let mut sse = server.connect().await;
    let read =
        |mode| format!("GET /v1/stream/live?offset=-1&live={mode} HTTP/1.1\r\nhost: a\r\n\r\n");
    sse.send(read("sse")).await;
    sse.until(b"event: control").await;
    let mut poll = server.connect().await;
    poll.send(read("long-poll")).await;
    let readers = |scrape: &Scrape| {
        let of = |mode| scrape.get(&format!(r#"durable_streams_live_readers{{mode="{mode}"}}"#));
        (of("sse"), of("long_poll"))
    };
    eventually("both wait", || async { readers(&Scrape::of(admin).await) == (1.0, 1.0) }).await;

    let append = "POST /v1/stream/live HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\n\
                  content-length: 2\r\n\r\nhi";
    assert_eq!(server.ask(append).await.status, 204);
    assert_eq!(poll.reply().await.text(), "hi");
    sse.until(b"hi").await;
    eventually("the long-poll is over", || async {
        readers(&Scrape::of(admin).await) == (1.0, 0.0)
    })
    .await;
    drop(sse);
    eventually("nobody waits", || async { readers(&Scrape::of(admin).await) == (0.0, 0.0) }).await;
    eventually("the SSE reader is counted as a request", || async {
        Scrape::of(admin).await.requests("GET", "sse", 200) == 1.0
    })
    .await;
    let scrape = Scrape::of(admin).await;
    assert_eq!(scrape.requests("GET", "long_poll", 200), 1.0);
    assert_eq!(scrape.get(r#"durable_streams_sse_events_total{event="data"}"#), 1.0);
    assert!(scrape.get(r#"durable_streams_sse_events_total{event="control"}"#) >= 1.0);
    assert!(scrape.get("durable_streams_sse_bytes_total") > 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_counted() {
    let mut options = EdgeOptions::default();
    options.limits.max_connections = 1;
    let server = server(options);
    let admin = server.admin.unwrap();
    let mut first = server.connect().await;
    first.send("GET /nowhere HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(first.reply().await.status, 404);
    let mut second = server.connect().await;
    assert_eq!(second.head().await.status, 503);
    eventually("the first request is counted", || async {
        Scrape::of(admin).await.total("durable_streams_unrouted_requests_total") == 1.0
    })
    .await;
    let scrape = Scrape::of(admin).await;
    assert_eq!(scrape.get("durable_streams_connections_refused_total"), 1.0);
    assert_eq!(scrape.get("durable_streams_connections"), 1.0);
    assert_eq!(scrape.get(r#"durable_streams_unrouted_requests_total{status="404"}"#), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn server_timing_is_there_when_asked_for() {
    let create = "PUT /v1/stream/timed HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\n\
                  content-length: 2\r\n\r\nhi";
    let quiet = server(EdgeOptions::default());
    assert_eq!(quiet.ask(create).await.header("server-timing"), None);

    let streams = StreamOptions { server_timing: true, ..StreamOptions::default() };
    let server = server(EdgeOptions { streams, ..EdgeOptions::default() });
    let created = server.ask(create).await;
    let read = server.get("/v1/stream/timed").await;
    assert_eq!(read.text(), "hi");
    for (reply, what) in [(created, "durable;dur="), (read, "read;dur=")] {
        let timing = reply.header("server-timing").unwrap();
        let millis: f64 = timing.strip_prefix(what).expect(what).parse().unwrap();
        assert!((0.0..10_000.0).contains(&millis), "{timing}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_store_on_disk_tells_how_log_and_index_do() {
    let directory = tempfile::tempdir().unwrap();
    let config = format!(
        "listen: 127.0.0.1:0\nadmin: {{listen: \"127.0.0.1:0\"}}\nlog: {{format: json, access: false}}\n\
         data_dir: {}\nstorage: {{checkpoint_interval: 100ms}}\n",
        directory.path().join("data").display()
    );
    let process = crate::process::Process::run(&config).await;
    let (addr, admin) = process.addresses();
    let clients: Vec<_> = (0..CLIENTS).map(|n| tokio::spawn(append_only(addr, n))).collect();
    for client in clients {
        client.await.unwrap();
    }
    // One event for each create and each append.
    let events = (CLIENTS * (1 + ROUNDS)) as f64;
    eventually("a checkpoint covers everything", || async {
        let scrape = Scrape::of(admin).await;
        scrape.get(r#"durable_streams_checkpoints_total{result="ok"}"#) >= 1.0
            && scrape.get("durable_streams_checkpoint_lag_events") == 0.0
    })
    .await;
    let scrape = Scrape::of(admin).await;
    assert_eq!(scrape.get("durable_streams_commit_batch_events_sum"), events);
    let batches = scrape.get("durable_streams_commit_batch_events_count");
    assert!((1.0..=events).contains(&batches), "{batches}");
    let syncs = scrape.get("durable_streams_log_sync_duration_seconds_count");
    assert!((1.0..=batches + 1.0).contains(&syncs), "{syncs} syncs of {batches} batches");
    let bytes = (CLIENTS * ROUNDS * BODY.len()) as f64;
    assert!(scrape.get("durable_streams_log_written_bytes_total") > bytes);
    assert!(scrape.get("durable_streams_log_bytes") > bytes);
    assert!(scrape.get("durable_streams_database_bytes") > bytes);
    assert_eq!(scrape.get(r#"durable_streams_checkpoints_total{result="failed"}"#), 0.0);
    assert_eq!(scrape.get("durable_streams_stored_bytes"), bytes);
    assert_eq!(scrape.get("durable_streams_ready"), 1.0);
    kept_for_forks(addr, admin).await;
}

/// What is deleted and kept for a fork is counted until the fork goes; then its room is free.
async fn kept_for_forks(addr: std::net::SocketAddr, admin: std::net::SocketAddr) {
    let ask = async |method: &str, path: &str, fields: &str, body: &str| {
        let mut client = Client::connect(addr).await;
        let length = body.len();
        let request = format!(
            "{method} /v1/stream/{path} HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\n{fields}\
             content-length: {length}\r\n\r\n{body}"
        );
        client.send(request).await;
        let status = client.reply().await.status;
        assert!(status < 300, "{method} {path}: {status}");
    };
    let kept = async |streams: f64, bytes: f64| {
        eventually("a checkpoint counts what is kept", || async {
            let scrape = Scrape::of(admin).await;
            scrape.get("durable_streams_deleted_streams_kept") == streams
                && scrape.get("durable_streams_deleted_bytes_kept") == bytes
        })
        .await;
    };
    ask("PUT", "source", "", &"s".repeat(300_000)).await;
    ask("PUT", "fork", "stream-forked-from: /v1/stream/source\r\n", "own").await;
    kept(0.0, 0.0).await;
    ask("DELETE", "source", "", "").await;
    kept(1.0, 300_000.0).await;
    ask("DELETE", "fork", "", "").await;
    kept(0.0, 0.0).await;
    eventually("the room is free", || async {
        let scrape = Scrape::of(admin).await;
        let free = scrape.get("durable_streams_database_free_bytes");
        free > 300_000.0 && free < scrape.get("durable_streams_database_bytes")
    })
    .await;
}

async fn append_only(addr: std::net::SocketAddr, number: usize) {
    let mut client = Client::connect(addr).await;
    let request = |method: &str, body: &str| {
        format!(
            "{method} /v1/stream/disk-{number} HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    client.send(request("PUT", "")).await;
    assert_eq!(client.reply().await.status, 201);
    for _ in 0..ROUNDS {
        client.send(request("POST", BODY)).await;
        assert_eq!(client.reply().await.status, 204);
    }
}
