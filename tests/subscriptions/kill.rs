//! `kill -9` of the server on its file store, again and again, at any moment between append, wake,
//! delivery and ack. What was appended must be worked on in the end, no generation be handed out twice, and
//! no cursor move back.

use std::{
    collections::{BTreeMap, HashMap},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    receiver::{Habit, Receiver},
    workers::client,
};

const SERVER: &str = env!("CARGO_BIN_EXE_durable-streams-server");
const ROUNDS: usize = 12;

/// A server that is killed when dropped.
struct Server(Child);

impl Server {
    async fn start(config: &Path, client: &reqwest::Client, streams: &str) -> Server {
        let mut command = Command::new(SERVER);
        command.args(["run", "--config"]).arg(config);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut server = Server(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while client.head(format!("{streams}/x")).send().await.is_err() {
            assert!(server.0.try_wait().unwrap().is_none(), "the server did not start again");
            assert!(Instant::now() < deadline, "the server never answered");
            sleep(Duration::from_millis(10)).await;
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL: no goodbye.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn config(directory: &Path) -> (PathBuf, String) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let path = directory.join("config.yaml");
    let data = directory.join("data");
    let text = format!(
        "listen: \"127.0.0.1:{port}\"\ndata_dir: {}\nsubscriptions:\n  allow_http_localhost: true\n  webhook_timeout: 500ms\n",
        data.display()
    );
    std::fs::write(&path, text).unwrap();
    (path, format!("http://127.0.0.1:{port}/v1/stream"))
}

/// One request; `None` when the server is not there or died over it.
async fn call(
    client: &reqwest::Client,
    method: &str,
    url: &str,
    token: Option<&str>,
    body: Value,
) -> Option<(u16, Value)> {
    let mut request = client.request(method.parse().unwrap(), url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let request = request.header("content-type", "application/json").body(body.to_string());
    let response = request.timeout(Duration::from_secs(5)).send().await.ok()?;
    let status = response.status().as_u16();
    let body = response.bytes().await.ok()?;
    Some((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

/// TokenClaims and acks for ever. Every claim that was answered is noted.
async fn work(client: reqwest::Client, streams: String, claims: Arc<Mutex<Vec<Value>>>) {
    let base = format!("{streams}/__ds/subscriptions/pull");
    loop {
        let worker = json!({"worker": "w"});
        let claimed = call(&client, "POST", &format!("{base}/claim"), None, worker).await;
        let Some((200, claimed)) = claimed else {
            sleep(Duration::from_millis(5)).await;
            continue;
        };
        claims.lock().push(claimed.clone());
        let acks: Vec<Value> = claimed["streams"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| json!({"stream": s["path"], "offset": s["tail_offset"]}))
            .collect();
        let body = json!({"wake_id": claimed["wake_id"], "generation": claimed["generation"],
            "acks": acks, "done": true});
        call(&client, "POST", &format!("{base}/ack"), claimed["token"].as_str(), body).await;
    }
}

/// Each generation is one wake, and no later wake begins before where an earlier one began.
fn judge(wakes: &[Value]) {
    let mut by_generation: BTreeMap<u64, &Value> = BTreeMap::new();
    for wake in wakes {
        let generation = wake["generation"].as_u64().unwrap();
        let first = by_generation.entry(generation).or_insert(wake);
        assert_eq!(
            first["wake_id"], wake["wake_id"],
            "generation {generation} was given out twice"
        );
    }
    let mut cursors: HashMap<String, String> = HashMap::new();
    for (generation, wake) in by_generation {
        for stream in wake["streams"].as_array().unwrap() {
            let path = stream["path"].as_str().unwrap().to_owned();
            let offset = stream["acked_offset"].as_str().unwrap().to_owned();
            let before = cursors.insert(path.clone(), offset.clone()).unwrap_or_default();
            assert!(before <= offset, "{path} went back from {before} to {offset} at {generation}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_nothing_is_lost_and_nothing_given_twice() {
    let directory = tempfile::tempdir().unwrap();
    let (config, streams) = config(directory.path());
    let client = client();
    let receiver = Receiver::start(Receiver::done()).await;
    let mut server = Server::start(&config, &client, &streams).await;
    let put = |path: &str, body: Value| {
        let (client, url) = (client.clone(), format!("{streams}/{path}"));
        async move { call(&client, "PUT", &url, None, body).await.unwrap().0 }
    };
    assert_eq!(put("wake/pool", json!([])).await, 201);
    let hook = json!({"type": "webhook", "pattern": "work/*", "lease_ttl_ms": 1000,
        "webhook": {"url": receiver.url()}});
    assert_eq!(put("__ds/subscriptions/hook", hook.clone()).await, 201);
    let pull = json!({"type": "pull-wake", "pattern": "work/*", "lease_ttl_ms": 1000,
        "wake_stream": "wake/pool"});
    assert_eq!(put("__ds/subscriptions/pull", pull.clone()).await, 201);

    let claims = Arc::new(Mutex::new(Vec::new()));
    let worker = tokio::spawn(work(client.clone(), streams.clone(), claims.clone()));
    let mut sure: BTreeMap<String, usize> = BTreeMap::new();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..ROUNDS {
        receiver.set(match round % 3 {
            0 => Receiver::done(),
            1 => Habit::Hang,
            _ => Habit::Answer(503, String::new()),
        });
        let end = Instant::now() + Duration::from_millis(random.u64(20..400));
        while Instant::now() < end {
            let path = format!("work/{}", random.u8(0..5));
            let url = format!("{streams}/{path}");
            if call(&client, "PUT", &url, None, json!([])).await.is_some()
                && let Some((204, _)) = call(&client, "POST", &url, None, json!({"n": 1})).await
            {
                *sure.entry(path).or_default() += 1;
            }
        }
        drop(server);
        server = Server::start(&config, &client, &streams).await;
    }
    receiver.set(Receiver::done());

    assert!(sure.values().sum::<usize>() > ROUNDS, "there was something to lose: {sure:?}");
    for (path, count) in &sure {
        let (_, messages) =
            call(&client, "GET", &format!("{streams}/{path}"), None, Value::Null).await.unwrap();
        assert!(messages.as_array().unwrap().len() >= *count, "an acknowledged append is gone");
    }
    for (id, config) in [("hook", hook), ("pull", pull)] {
        assert_eq!(
            put(&format!("__ds/subscriptions/{id}"), config).await,
            200,
            "{id} is still there"
        );
        let url = format!("{streams}/__ds/subscriptions/{id}");
        // Retries pause for up to a minute.
        let deadline = Instant::now() + Duration::from_secs(80);
        loop {
            let (_, body) = call(&client, "GET", &url, None, Value::Null).await.unwrap();
            let links = body["streams"].as_array().unwrap();
            let mut done = links.len() >= sure.len();
            for link in links {
                let url = format!("{streams}/{}", link["path"].as_str().unwrap());
                let tail = client.head(url).send().await.unwrap();
                done &=
                    tail.headers()["stream-next-offset"] == link["acked_offset"].as_str().unwrap();
            }
            if done {
                break;
            }
            assert!(Instant::now() < deadline, "work of {id} was lost: {body}");
            sleep(Duration::from_millis(20)).await;
        }
    }
    worker.abort();
    let claims = claims.lock().clone();
    let generations: Vec<u64> =
        claims.iter().map(|claim| claim["generation"].as_u64().unwrap()).collect();
    assert!(generations.is_sorted_by(|a, b| a < b), "claimed twice: {generations:?}");
    judge(&claims);
    judge(&receiver.all().into_iter().map(|received| received.body).collect::<Vec<_>>());
}
