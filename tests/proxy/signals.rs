//! The signals of a real process: this test binary, started again as a server.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use durable_streams_server::server::{ListenOptions, Server, ServerOptions, Stopped};

use crate::support::upstreams::{Upstream, ok};
use crate::support::{Client, PATIENCE, PROMPT, edge, engine, to_addrs};

const UPSTREAM: &str = "TEST_SERVER_UPSTREAM";

/// Not a test: the server that the tests below start as a process.
#[test]
#[ignore = "a helper of the other tests"]
fn serve() {
    let Ok(upstream) = std::env::var(UPSTREAM) else { return };
    let options = ServerOptions {
        listen: ListenOptions { addresses: vec!["127.0.0.1:0".into()] },
        edge: edge(vec![to_addrs(&[upstream.parse().unwrap()])]),
        ..ServerOptions::default()
    };
    let stopped = Server::bind(options, engine()).unwrap().run(|addresses| {
        println!("listening {}", addresses[0]);
        std::io::stdout().flush().unwrap();
    });
    std::process::exit(match stopped {
        Ok(Stopped::Drained) => 0,
        Ok(Stopped::TimedOut) => 3,
        Ok(Stopped::Forced) => 4,
        Err(_) => 1,
    });
}

struct Process {
    child: Child,
    addr: SocketAddr,
}

impl Process {
    fn start(upstream: SocketAddr) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "signals::serve", "--ignored", "--nocapture"])
            .env(UPSTREAM, upstream.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // libtest prints the test's name first, on the same line.
        let line = lines.map_while(Result::ok).find(|line| line.contains("listening "));
        let addr = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
        Process { child, addr }
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    fn exit(&mut self) -> (ExitStatus, Duration) {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, started.elapsed());
            }
            assert!(started.elapsed() < PATIENCE, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn upstream() -> Upstream {
    Upstream::http(|request| async move {
        if request.uri().path() == "/stuck" {
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        ok("up")
    })
    .await
}

/// A connection that has had its answer and stays open.
async fn idle(process: &Process) -> Client {
    let mut client = Client::connect(process.addr).await;
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(client.reply().await.text(), "up");
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn each_stop_signal_ends_the_process_with_zero_and_promptly() {
    let upstream = upstream().await;
    for name in ["TERM", "INT", "QUIT"] {
        let mut process = Process::start(upstream.addr);
        let _idle = idle(&process).await;
        process.signal(name);
        let (status, took) = process.exit();
        assert_eq!(status.code(), Some(0), "{name}");
        assert!(took < PROMPT, "{name}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_does_not_wait() {
    let upstream = upstream().await;
    let mut process = Process::start(upstream.addr);
    let mut client = idle(&process).await;
    client.send("GET /stuck HTTP/1.1\r\nhost: a\r\n\r\n").await;
    crate::support::eventually("it is stuck", || async { upstream.hits() == 2 }).await;
    process.signal("TERM");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(process.child.try_wait().unwrap().is_none(), "the request was dropped");
    process.signal("TERM");
    let (status, took) = process.exit();
    assert_eq!(status.code(), Some(4));
    assert!(took < PROMPT, "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_without_a_terminal_changes_nothing() {
    let upstream = upstream().await;
    let process = Process::start(upstream.addr);
    let _idle = idle(&process).await;
    process.signal("HUP");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let _still = idle(&process).await;
}
