//! Subscriptions as an operator sees and steers them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::api::{Api, configs, send};
use crate::harness::eventually;
use crate::process::Process;

/// A webhook that answers with a status; counts its requests.
struct Receiver {
    url: String,
    status: Arc<AtomicU16>,
    posts: Arc<AtomicU16>,
}

impl Receiver {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (status, posts) = (Arc::new(AtomicU16::new(503)), Arc::new(AtomicU16::new(0)));
        let (answers, counts) = (status.clone(), posts.clone());
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (answers, counts) = (answers.clone(), counts.clone());
                tokio::spawn(async move {
                    let mut head = vec![0; 65_536];
                    let _ = socket.read(&mut head).await;
                    counts.fetch_add(1, Ordering::SeqCst);
                    let status = answers.load(Ordering::SeqCst);
                    let body = "{\"done\":true}";
                    let answer = format!(
                        "HTTP/1.1 {status} x\r\nContent-Type: application/json\r\nConnection: close\r\n\
                         Content-Length: {}\r\n\r\n{body}",
                        body.len()
                    );
                    let _ = socket.write_all(answer.as_bytes()).await;
                });
            }
        });
        Receiver { url, status, posts }
    }
}

const LOCAL: &str = "subscriptions: {allow_http_localhost: true}\n";

async fn subscribe(streams: std::net::SocketAddr, id: &str, body: &Value) {
    let path = format!("/v1/stream/__ds/subscriptions/{id}");
    let fields = "Content-Type: application/json\r\n";
    let made = send(streams, "PUT", &path, fields, &body.to_string()).await;
    assert_eq!(made.status, 201, "{}", made.text());
}

async fn append(streams: std::net::SocketAddr, path: &str) {
    let fields = "Content-Type: text/plain\r\n";
    assert_eq!(send(streams, "POST", path, fields, "more").await.status, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_receiver_is_visible_and_is_tried_again_at_once() {
    for (config, _folder) in configs() {
        let server = Process::run(&format!("{config}{LOCAL}")).await;
        let (streams, admin) = server.addresses();
        let api = Api { admin, fields: String::new() };
        let receiver = Receiver::start().await;
        let hook =
            json!({ "type": "webhook", "pattern": "jobs/*", "webhook": { "url": receiver.url } });
        subscribe(streams, "worker", &hook).await;
        crate::api::put(streams, "jobs/1", "").await;
        eventually("the failure is shown", || async {
            let one = api.get("/subscriptions/worker").await;
            one["last_error"]["status"] == 503 && one["next_retry"].is_string()
        })
        .await;
        let one = api.get("/subscriptions/worker").await;
        assert_eq!((&one["state"], &one["type"]), (&json!("retrying"), &json!("webhook")));
        assert_eq!((&one["lag"]["streams"], &one["lag"]["bytes"]), (&json!(1), &json!(5)));
        assert!(one["failures"].as_u64() >= Some(1) && one["last_error"]["at"].is_string());
        assert_eq!(api.get("/streams/jobs/1").await["subscriptions"][0]["id"], "worker");
        assert!(api.get("/overview").await["totals"]["delivery_failures"].as_u64() >= Some(1));
        // Failures far enough apart that a delivery within a moment is the operator's doing.
        eventually("four failures", || async {
            let one = api.get("/subscriptions/worker").await;
            if one["failures"].as_u64() < Some(4) {
                api.ask("POST", "/subscriptions/worker/retry", json!({})).await;
            }
            one["failures"].as_u64() >= Some(4)
        })
        .await;
        receiver.status.store(200, Ordering::SeqCst);
        let (status, _) = api.ask("POST", "/subscriptions/worker/retry", json!({})).await;
        assert_eq!(status, 200);
        eventually("it is delivered", || async {
            let one = api.get("/subscriptions/worker").await;
            one["state"] == "idle" && one["lag"]["bytes"] == 0 && one["last_success"].is_string()
        })
        .await;
        assert_eq!(api.ask("DELETE", "/subscriptions/worker", Value::Null).await.0, 204);
        assert_eq!(api.ask("GET", "/subscriptions/worker", Value::Null).await.0, 404);
        assert_eq!(api.ask("DELETE", "/subscriptions/worker", Value::Null).await.0, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_subscription_stays_paused_over_a_restart_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = format!("{}data_dir: {}\n{LOCAL}", crate::api::OPEN, folder.path().display());
    let receiver = Receiver::start().await;
    receiver.status.store(200, Ordering::SeqCst);
    let mut server = Process::run(&config).await;
    let (streams, admin) = server.addresses();
    let api = Api { admin, fields: String::new() };
    let hook =
        json!({ "type": "webhook", "pattern": "jobs/*", "webhook": { "url": receiver.url } });
    subscribe(streams, "worker", &hook).await;
    let (status, paused) = api.ask("POST", "/subscriptions/worker/pause", json!({})).await;
    assert_eq!((status, &paused["state"]), (200, &json!("paused")));
    crate::api::put(streams, "jobs/1", "").await;
    append(streams, "/v1/stream/jobs/1").await;
    assert!(server.stop().await.0);
    drop(server);

    let server = Process::run(&config).await;
    let (_, admin) = server.addresses();
    let api = Api { admin, fields: String::new() };
    eventually("the pending work is known", || async {
        api.get("/subscriptions/worker").await["lag"]["bytes"] == 9
    })
    .await;
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    assert_eq!(api.get("/subscriptions/worker").await["paused"], true);
    assert_eq!(receiver.posts.load(Ordering::SeqCst), 0, "nothing is posted");
    let (_, resumed) = api.ask("POST", "/subscriptions/worker/resume", json!({})).await;
    assert_eq!(resumed["paused"], false);
    eventually("it is delivered", || async {
        api.get("/subscriptions/worker").await["lag"]["bytes"] == 0
    })
    .await;
    assert!(receiver.posts.load(Ordering::SeqCst) >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_listed_in_pages() {
    for (config, _folder) in configs() {
        let server = Process::run(&config).await;
        let (streams, admin) = server.addresses();
        let api = Api { admin, fields: String::new() };
        let json_type = "Content-Type: application/json\r\n";
        send(streams, "PUT", "/v1/stream/wakes", json_type, "").await;
        let pull = json!({ "type": "pull-wake", "pattern": "a/**", "wake_stream": "wakes" });
        for number in 0..12 {
            subscribe(streams, &format!("s%2F{number:02}"), &pull).await;
        }
        let mut seen = Vec::new();
        let mut query = "?limit=5".to_owned();
        loop {
            let page = api.get(&format!("/subscriptions{query}")).await;
            let all = page["subscriptions"].as_array().unwrap();
            seen.extend(all.iter().map(|one| one["id"].as_str().unwrap().to_owned()));
            assert!(all.iter().all(|one| one["wake_stream"] == "wakes" && one["state"] == "idle"));
            let Some(cursor) = page["cursor"].as_str() else { break };
            query = format!("?limit=5&cursor={cursor}");
        }
        assert_eq!(seen, (0..12).map(|n| format!("s/{n:02}")).collect::<Vec<_>>());
        assert_eq!(api.get("/subscriptions/s%2F03").await["pattern"], "a/**");
    }
}
