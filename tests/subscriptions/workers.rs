//! The workers of docs/subscriptions.md, run by Node.js against a server as a reader would.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use serde_json::{Value, json};

const SERVER: &str = env!("CARGO_BIN_EXE_durable-streams-server");

struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    fn start(command: &mut Command) -> Process {
        let spawned = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        Process { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(20)).expect("a line in time")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn dev() -> (Process, String) {
    let server = Process::start(Command::new(SERVER).args(["dev", "--port", "0"]));
    loop {
        let line = server.line();
        if let Some(url) = line.trim().strip_prefix("URL") {
            let url = url.trim().trim_end_matches('/').to_owned();
            let streams =
                if url.ends_with("/v1/stream") { url } else { format!("{url}/v1/stream") };
            return (server, streams);
        }
    }
}

/// The program that the documentation calls by this name, written to a file.
fn program(directory: &Path, name: &str) -> std::path::PathBuf {
    let text = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/subscriptions.md"),
    );
    let text = text.unwrap();
    let (_, rest) = text.split_once(&format!("<!-- file: {name} -->\n```js\n")).unwrap();
    let (source, _) = rest.split_once("\n```").unwrap();
    let lines = source.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines <= 31, "short enough to read: {lines}");
    let path = directory.join(name);
    std::fs::write(&path, source).unwrap();
    path
}

async fn send(client: &reqwest::Client, method: &str, url: String, body: Value) -> u16 {
    let request = client.request(method.parse().unwrap(), url);
    let request = request.header("content-type", "application/json").body(body.to_string());
    request.send().await.unwrap().status().as_u16()
}

pub(crate) fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().tls_certs_only([]).no_proxy().build().unwrap()
}

/// Waits until the subscription's cursors are at the tails.
async fn all_acked(client: &reqwest::Client, streams: &str, id: &str) {
    for _ in 0..2_000 {
        let url = format!("{streams}/__ds/subscriptions/{id}");
        let body = client.get(url).send().await.unwrap().bytes().await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let mut acked = true;
        for link in body["streams"].as_array().unwrap() {
            let url = format!("{streams}/{}", link["path"].as_str().unwrap());
            let head = client.head(url).send().await.unwrap();
            acked &= head.headers()["stream-next-offset"] == link["acked_offset"].as_str().unwrap();
        }
        if acked {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the worker never acked");
}

/// Appends to three streams, and sees each message worked on once.
async fn exercise(
    client: &reqwest::Client,
    streams: &str,
    id: &str,
    under: &str,
    worker: &Process,
) {
    let mut expected = Vec::new();
    for n in 0..30 {
        let url = format!("{streams}/{under}/{}", n % 3);
        if n < 3 {
            assert_eq!(send(client, "PUT", url.clone(), json!([])).await, 201);
        }
        assert_eq!(send(client, "POST", url, json!({"n": n})).await, 204);
        expected.push(format!("work {under}/{} {{\"n\":{n}}}", n % 3));
    }
    let mut seen: Vec<String> = (0..30).map(|_| worker.line()).collect();
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);
    all_acked(client, streams, id).await;
    assert!(worker.lines.recv_timeout(Duration::from_millis(100)).is_err(), "nothing twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_webhook_worker_works() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, streams) = dev();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut node = Command::new("node");
    node.arg(program(directory.path(), "webhook.mjs"));
    let worker = Process::start(node.env("STREAMS", &streams).env("PORT", port.to_string()));
    let client = client();
    let body = json!({"type": "webhook", "pattern": "jobs/**",
        "webhook": {"url": format!("http://localhost:{port}/")}});
    assert_eq!(send(&client, "PUT", format!("{streams}/__ds/subscriptions/p"), body).await, 201);
    // It believes nobody else.
    let forged = loop {
        match client.post(format!("http://127.0.0.1:{port}/")).body("{}").send().await {
            Ok(response) => break response.status(),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert_eq!(forged, 401);
    exercise(&client, &streams, "p", "jobs/deep", &worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pull_wake_worker_works() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, streams) = dev();
    let client = client();
    assert_eq!(send(&client, "PUT", format!("{streams}/wake/pool"), json!([])).await, 201);
    let body = json!({"type": "pull-wake", "pattern": "outbox/*", "wake_stream": "wake/pool"});
    let url = format!("{streams}/__ds/subscriptions/mailer");
    assert_eq!(send(&client, "PUT", url, body).await, 201);
    let mut node = Command::new("node");
    node.arg(program(directory.path(), "pull.mjs"));
    let worker = Process::start(node.env("STREAMS", &streams));
    exercise(&client, &streams, "mailer", "outbox", &worker).await;
}
