//! The admin listener beside clients that take everything there is: connections, file descriptors, and the
//! reader of standard error.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use durable_streams_server::edge::EdgeOptions;

#[cfg(target_os = "linux")]
use crate::api::{OPEN, put, send};
use crate::harness::{Client, eventually};
#[cfg(target_os = "linux")]
use crate::process::Process;
use crate::scrape::{Scrape, ask, server};

/// How long a health check may take: Kubernetes' own default is 1 s, the manifest here allows 5 s.
const HEALTHY_WITHIN: Duration = Duration::from_secs(2);

/// The binary under `ulimit -n`, with its standard error as a pipe that nobody reads yet.
struct Bounded {
    child: Child,
    _directory: tempfile::TempDir,
}

impl Bounded {
    /// `sh` runs `limits` first.
    fn start(limits: &str, config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("streams.yaml");
        std::fs::write(&file, config).unwrap();
        let script = format!("{limits}; exec \"$0\" run --config \"$1\"");
        let child = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_durable-streams-server")])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Bounded { child, _directory: directory }
    }

    /// What it wrote to standard error until it ended.
    fn said(mut self) -> String {
        let mut pipe = self.child.stderr.take().unwrap();
        self.child.kill().unwrap();
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two ports that were free just now.
fn ports() -> (SocketAddr, SocketAddr) {
    let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [streams, admin] = free.map(|listener| listener.local_addr().unwrap());
    (streams, admin)
}

async fn up(admin: SocketAddr) {
    eventually("the server is up", || async {
        tokio::net::TcpStream::connect(admin).await.is_ok()
    })
    .await;
}

async fn assert_healthy(admin: SocketAddr) {
    let asked = Instant::now();
    let reply = tokio::time::timeout(HEALTHY_WITHIN, ask(admin, "GET", "/healthz")).await;
    assert_eq!(reply.expect("no answer in time").status, 200);
    assert!(asked.elapsed() < HEALTHY_WITHIN);
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_do_not_keep_a_health_check_out() {
    let server = server(EdgeOptions::default());
    let admin = server.admin.unwrap();
    let silent: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(admin).unwrap()).collect();
    assert_healthy(admin).await;
    drop(silent);
}

/// A live tail holds its connection, of which the listener has 128: what is not a tail finds some free, and no tail is closed
/// for it.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn tails_leave_connections_to_health_checks_and_scrapes() {
    const TAILS: usize = 96;
    let server = Process::run(OPEN).await;
    let (streams, admin) = server.addresses();
    put(streams, "a", "").await;
    let follow = async || {
        let mut tail = Client::connect(admin).await;
        let path = "/admin/v1/data/a?offset=now&live=sse";
        tail.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        tail
    };
    let mut tails = Vec::new();
    for _ in 0..TAILS {
        let mut tail = follow().await;
        assert_eq!(tail.head().await.status, 200);
        tails.push(tail);
    }
    for _ in 0..10 {
        let refused = follow().await.reply().await;
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert_eq!(refused.code(), "too-many-data-requests");
        assert_eq!(refused.header("retry-after"), Some("1"));
    }
    for _ in 0..40 {
        assert_healthy(admin).await;
        assert_eq!(ask(admin, "GET", "/metrics").await.status, 200);
        assert_eq!(send(admin, "GET", "/admin/v1/status", "", "").await.status, 200);
    }
    // No tail was closed for them.
    let text = "Content-Type: text/plain\r\n";
    assert_eq!(send(streams, "POST", "/v1/stream/a", text, "later").await.status, 204);
    for tail in &mut tails {
        tail.until(b"data:later").await;
    }
    drop(tails.pop());
    eventually("there is room for a tail", || async { follow().await.head().await.status == 200 })
        .await;
}

/// Requests that wait for an upstream take two descriptors each, which no bound on connections covers.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_free_descriptor_a_health_check_is_answered() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let (streams, admin) = ports();
    let config = format!(
        "listen: {streams}\nthreads: 1\nadmin: {{listen: {admin}}}\nupstreams: [{{servers: [http://{}]}}]\n",
        upstream.local_addr().unwrap()
    );
    let server = Bounded::start("ulimit -n 120", &config);
    up(admin).await;
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let mut client = TcpStream::connect(streams).unwrap();
        std::io::Write::write_all(&mut client, b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
        waiting.push(client);
    }
    let open = format!("/proc/{}/fd", server.child.id());
    eventually("no descriptor is free", || async {
        std::fs::read_dir(&open).unwrap().count() >= 120
    })
    .await;
    for _ in 0..20 {
        assert_healthy(admin).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_soft_limit_of_descriptors_is_raised_and_a_hard_one_reported() {
    let (streams, admin) = ports();
    let config = format!(
        "listen: {streams}\nadmin: {{listen: {admin}}}\nlimits: {{max_connections: 1000}}\n"
    );
    let server = Bounded::start("ulimit -Hn 4000; ulimit -Sn 200", &config);
    up(admin).await;
    assert_eq!(Scrape::of(admin).await.get("process_max_fds"), 1256.0);
    assert!(!server.said().contains("file descriptors"));

    let server = Bounded::start("ulimit -n 800", &config);
    up(admin).await;
    assert_eq!(Scrape::of(admin).await.get("process_max_fds"), 800.0);
    let said = server.said();
    let warning = "limits.max_connections = 1000 needs more file descriptors than this process may open: \
                   544 connections are taken";
    assert!(said.contains(warning), "{said}");
}

/// More lines than pipe and queue hold: requests go on, lines are counted, and the count is logged.
#[tokio::test(flavor = "multi_thread")]
async fn a_standard_error_that_nobody_reads_stops_no_request() {
    let (streams, admin) = ports();
    let config = format!("listen: {streams}\nadmin: {{listen: {admin}}}\n");
    let mut server = Bounded::start("true", &config);
    up(admin).await;
    let path = format!("/{}", "x".repeat(4000));
    let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    let mut client = Client::connect(streams).await;
    let dropped = "durable_streams_log_lines_dropped_total";
    for count in 0.. {
        client.send(&request).await;
        assert_eq!(client.reply().await.status, 404);
        if count % 100 == 0 && Scrape::of(admin).await.get(dropped) > 0.0 {
            break;
        }
        assert!(count < 2000, "a queue of 1 MiB takes all of it");
    }
    let mut pipe = server.child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        let mut part = [0; 65_536];
        while !text.contains("log lines were dropped") {
            let count = pipe.read(&mut part).unwrap();
            assert_ne!(count, 0, "{}", text.lines().last().unwrap_or_default());
            text.push_str(std::str::from_utf8(&part[..count]).unwrap());
        }
    });
    eventually("the number of dropped lines is logged", || async { reader.is_finished() }).await;
    reader.join().unwrap();
}
