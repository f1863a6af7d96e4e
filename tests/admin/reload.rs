//! SIGHUP: what can change does, together or not at all.

use std::net::SocketAddr;

use crate::harness::{Client, Reply, eventually};
use crate::process::Process;
use crate::scrape::Scrape;
use crate::upstreams::{Upstream, ok};

const BASE: &str =
    "listen: 127.0.0.1:0\nadmin: {listen: \"127.0.0.1:0\"}\nlog: {format: json, access: false}\n";

async fn ask(addr: SocketAddr, request: &str) -> Reply {
    let mut client = Client::connect(addr).await;
    client.send(request).await;
    client.reply().await
}

async fn get(addr: SocketAddr, path: &str) -> Reply {
    ask(addr, &format!("GET {path} HTTP/1.1\r\nhost: a\r\norigin: https://b.example\r\n\r\n")).await
}

fn put(path: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "PUT /v1/stream/{path} HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
}

async fn reloads(admin: SocketAddr, result: &str) -> f64 {
    let sample = format!(r#"durable_streams_config_reloads_total{{result="{result}"}}"#);
    Scrape::of(admin).await.get(&sample)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_change_does_and_the_rest_is_named() {
    let (one, two) = (
        Upstream::http(|_| async { ok("one") }).await,
        Upstream::http(|_| async { ok("two") }).await,
    );
    let with = |upstream: &Upstream, more: &str| {
        format!("{BASE}upstreams: [{{servers: [\"http://{}\"]}}]\n{more}", upstream.addr)
    };
    let process = Process::run(&with(&one, "threads: 2\n")).await;
    let (addr, admin) = process.addresses();
    assert_eq!(get(addr, "/").await.text(), "one");
    assert_eq!(ask(addr, &put("a", "0123456789")).await.status, 201);
    assert_eq!(get(addr, "/v1/stream/a").await.header("access-control-allow-origin"), Some("*"));
    // A connection from before the change.
    let mut kept = Client::connect(addr).await;
    kept.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(kept.reply().await.text(), "one");

    let more = "threads: 3\nlimits: {max_append: 5B}\ncors: {origins: [\"https://a.example\"]}\n\
                telemetry: {server_timing: true}\nroute: /elsewhere\n";
    process.write(&with(&two, more));
    process.hang_up();
    eventually("it is reloaded", || async { process.logged("reloaded").is_some() }).await;
    assert_eq!(get(addr, "/").await.text(), "two");
    kept.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(kept.reply().await.text(), "two", "on an old connection too");
    assert_eq!(ask(addr, &put("b", "0123456789")).await.status, 413);
    let read = get(addr, "/v1/stream/a").await;
    assert_eq!(read.text(), "0123456789", "streams are untouched");
    assert_eq!(read.header("access-control-allow-origin"), None);
    assert!(read.header("server-timing").is_some());

    for (change, level) in [
        ("limits.max_append is now \"5B\", was \"16MiB\"", "INFO"),
        ("telemetry.server_timing is now \"true\", was \"false\"", "INFO"),
        ("threads = \"3\" needs a restart; it stays \"2\"", "WARN"),
        ("route = \"/elsewhere\" needs a restart; it stays \"/v1/stream\"", "WARN"),
    ] {
        let record = process.logged(change).unwrap_or_else(|| panic!("not logged: {change}"));
        assert_eq!(record["level"], level, "{change}");
    }
    assert_eq!((reloads(admin, "ok").await, reloads(admin, "refused").await), (1.0, 0.0));
    // Counts stay with the upstream's name: one, kept's first, two, kept's second.
    let proxied = r#"durable_streams_upstream_requests_total{upstream="/",status="200"}"#;
    eventually("all four are counted", || async { Scrape::of(admin).await.get(proxied) == 4.0 })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lifecycle_events_are_turned_on_and_off() {
    const LOG: &str = "/v1/stream/__ds/lifecycle";
    let process = Process::run(BASE).await;
    let (addr, _) = process.addresses();
    assert_eq!(get(addr, LOG).await.status, 404);
    process.write(&format!("{BASE}lifecycle: {{keep_bytes: 64KiB}}\n"));
    process.hang_up();
    eventually("the stream is there", || async { get(addr, LOG).await.status == 200 }).await;
    assert_eq!(ask(addr, &put("a", "0123456789")).await.status, 201);
    eventually("the event is there", || async {
        let text = get(addr, LOG).await.text();
        text.contains(r#""event":"created","seq":1"#) && text.contains(r#""path":"a""#)
    })
    .await;
    process.write(BASE);
    process.hang_up();
    eventually("the stream is gone", || async { get(addr, LOG).await.status == 404 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_file_changes_nothing() {
    let process = Process::run(BASE).await;
    let (addr, admin) = process.addresses();
    for (refused, (mistake, place)) in [
        ("limits: {max_append: 5B}\nthreds: 1\n", "streams.yaml:5:1: threds is not a known key"),
        ("limits: {max_append: 0B}\n", "streams.yaml:4:22: limits.max_append"),
        ("limits: [\n", "is not valid YAML"),
    ]
    .into_iter()
    .enumerate()
    {
        process.write(&format!("{BASE}{mistake}"));
        process.hang_up();
        eventually("it is refused", || async {
            process.times("the running one stays") == refused + 1
        })
        .await;
        let record = process.logged(place).unwrap_or_else(|| panic!("not logged: {place}"));
        assert_eq!(record["level"], "ERROR");
    }
    std::fs::remove_file(process.config()).unwrap();
    process.hang_up();
    eventually("it is refused", || async { process.times("the running one stays") == 4 }).await;
    assert_eq!(ask(addr, &put("a", "0123456789")).await.status, 201, "the old limit holds");
    assert_eq!((reloads(admin, "ok").await, reloads(admin, "refused").await), (0.0, 4.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_level_changes_both_ways() {
    let process = Process::run(BASE).await;
    let (addr, _) = process.addresses();
    process.write(&BASE.replace("access: false", "access: true"));
    process.hang_up();
    eventually("it is reloaded", || async { process.times("configuration reloaded") == 1 }).await;
    get(addr, "/seen").await;
    eventually("it is logged", || async { process.times("GET /seen 404") == 1 }).await;

    let quiet = BASE.replace("access: false", "access: true, level: error");
    process.write(&quiet);
    process.hang_up();
    // At level error the reload says nothing itself; the request that is not logged shows it.
    let (_, admin) = process.addresses();
    eventually("it is reloaded", || async { reloads(admin, "ok").await == 2.0 }).await;
    get(addr, "/unseen").await;
    process.write(BASE);
    process.hang_up();
    eventually("it is loud again", || async { process.times("configuration reloaded") == 2 }).await;
    assert_eq!(process.times("/unseen"), 0);
}
