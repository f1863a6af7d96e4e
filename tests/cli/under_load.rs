//! Backups of a server under load: each is whole, has everything that was acknowledged before it began, and nothing
//! half.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    client::{Client, Fields},
    server::{PATIENCE, SMALL, Server, Setup},
    support::{binary, finish},
};

const WRITERS: usize = 3;
const BACKUPS: usize = 5;

/// One writer's stream: record `n` is sent once record `n - 1` was acknowledged.
#[derive(Default)]
struct Stream {
    sent: AtomicU64,
    acknowledged: AtomicU64,
}

impl Stream {
    fn write(&self, number: usize, client: &mut Client, done: &AtomicBool) {
        let path = format!("load/{number}");
        assert_eq!(client.must("PUT", &path, &[("content-type", "text/plain")], b"").status, 201);
        let mut rng = fastrand::Rng::with_seed(number as u64);
        for seq in 0.. {
            if done.load(Ordering::Relaxed) {
                return;
            }
            self.sent.store(seq + 1, Ordering::SeqCst);
            let body = record(number, seq, rng.usize(1..8000));
            let reply = client.ask("POST", &path, &producer(seq), body.as_bytes()).unwrap();
            assert_eq!(reply.status, 200, "{reply:?}");
            self.acknowledged.store(seq + 1, Ordering::SeqCst);
        }
    }
}

fn record(number: usize, seq: u64, padding: usize) -> String {
    format!("{number}.{seq}.{padding}.{}\n", "x".repeat(padding))
}

fn producer(seq: u64) -> Fields {
    vec![
        ("content-type", "text/plain".into()),
        ("producer-id", "p".into()),
        ("producer-epoch", "0".into()),
        ("producer-seq", seq.to_string()),
    ]
}

/// The number of records, which must be whole and in order.
fn records(number: usize, text: &str) -> u64 {
    let mut seq = 0;
    for line in text.split_inclusive('\n') {
        let padding = line.split('.').nth(2).and_then(|padding| padding.parse().ok());
        let padding = padding.unwrap_or_else(|| panic!("half a record: {line:?}"));
        assert_eq!(line, record(number, seq, padding), "record {seq}");
        seq += 1;
    }
    seq
}

/// All bytes of a stream.
fn read(client: &mut Client, path: &str) -> String {
    let (mut text, mut offset) = (Vec::new(), "-1".to_owned());
    loop {
        let reply = client.must("GET", &format!("{path}?offset={offset}"), &[], b"");
        assert_eq!(reply.status, 200, "{path}");
        text.extend_from_slice(&reply.body);
        offset = reply.next_offset();
        if reply.has("stream-up-to-date", "true") {
            return String::from_utf8(text).expect("text");
        }
    }
}

/// What a backup must have besides.
struct Furniture {
    subscription: Value,
    keys: Value,
}

fn json(client: &mut Client, path: &str) -> Value {
    let reply = client.must("GET", path, &[], b"");
    assert_eq!(reply.status, 200, "{path}");
    serde_json::from_slice(&reply.body).expect("JSON")
}

impl Furniture {
    fn set_up(client: &mut Client) -> Self {
        let text = [("content-type", "text/plain")];
        let mut must = |method: &str, path: &str, fields: &[(&'static str, &str)], body: &str| {
            let reply = client.must(method, path, fields, body.as_bytes());
            assert!(reply.status < 300, "{method} {path}: {reply:?}");
        };
        must("PUT", "closed", &text, "over");
        must("POST", "closed", &[("stream-closed", "true")], "");
        must("PUT", "deleted", &text, "gone");
        must("DELETE", "deleted", &[], "");
        must("PUT", "source", &text, "inherited,");
        let fork = [("content-type", "text/plain"), ("stream-forked-from", "/v1/stream/source")];
        must("PUT", "fork", &fork, "own");
        must("DELETE", "source", &[], "");
        must("PUT", "wake", &[("content-type", "application/json")], "");
        let pull = r#"{"type": "pull-wake", "pattern": "outbox/*", "wake_stream": "wake"}"#;
        must("PUT", "__ds/subscriptions/s", &[], pull);
        must("PUT", "outbox/a", &text, "work");
        // Enough that a copy takes a while.
        for number in 0..40 {
            must("PUT", &format!("bulk/{number}"), &text, &"b".repeat(500_000));
        }
        let until = Instant::now() + PATIENCE;
        loop {
            let subscription = json(client, "__ds/subscriptions/s");
            if subscription.to_string().contains("outbox/a") {
                return Furniture { subscription, keys: json(client, "__ds/jwks.json") };
            }
            assert!(Instant::now() < until, "never linked: {subscription}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn check(&self, client: &mut Client) {
        let closed = client.must("GET", "closed", &[], b"");
        assert_eq!(
            (closed.body.as_slice(), closed.has("stream-closed", "true")),
            (&b"over"[..], true)
        );
        let text = [("content-type", "text/plain")];
        assert_eq!(client.must("POST", "closed", &text, b"more").status, 409);
        assert_eq!(client.must("GET", "deleted", &[], b"").status, 404);
        assert_eq!(client.must("GET", "source", &[], b"").status, 410);
        assert_eq!(read(client, "fork"), "inherited,own");
        assert_eq!(json(client, "__ds/jwks.json"), self.keys);
        let subscription = json(client, "__ds/subscriptions/s");
        assert_eq!(subscription["streams"], self.subscription["streams"]);
        let claim = client.must("POST", "__ds/subscriptions/s/claim", &[], br#"{"worker": "w"}"#);
        let claimed = String::from_utf8(claim.body).expect("text");
        assert!(claim.status == 200 && claimed.contains("outbox/a"), "{claimed}");
        assert_eq!(read(client, "bulk/39").len(), 500_000);
    }
}

struct Taken {
    to: PathBuf,
    /// Acknowledged when it began, and sent when it was done, by each writer.
    least: Vec<u64>,
    most: Vec<u64>,
}

fn take(server: &Server, data: &Path, to: PathBuf, streams: &[Stream]) -> Taken {
    let counts = |count: fn(&Stream) -> &AtomicU64| -> Vec<u64> {
        streams.iter().map(|stream| count(stream).load(Ordering::SeqCst)).collect()
    };
    let least = counts(|stream| &stream.acknowledged);
    let seen = finish(binary().args(["backup", "--data-dir"]).arg(data).arg(&to));
    assert_eq!((seen.code, seen.stderr.as_str()), (0, ""), "{}\n{}", seen.stdout, server.log());
    Taken { to, least, most: counts(|stream| &stream.sent) }
}

impl Taken {
    /// Restores it, serves it, and compares.
    fn check(&self, restored: &Path, furniture: &Furniture) {
        let again = Setup::on(SMALL, restored);
        let seen = finish(binary().args(["restore", "--data-dir"]).arg(restored).arg(&self.to));
        assert_eq!(seen.code, 0, "{}", seen.stderr);
        let server = again.start();
        let mut client = server.client();
        for (number, (least, most)) in self.least.iter().zip(&self.most).enumerate() {
            let path = format!("load/{number}");
            let there = records(number, &read(&mut client, &path));
            assert!((*least..=*most).contains(&there), "{there} of {least} to {most} in {path}");
            let mut send =
                |seq: u64| client.ask("POST", &path, &producer(seq), b"!").unwrap().status;
            assert_eq!(send(there - 1), 204, "the last one is a duplicate");
            assert_eq!(send(there + 1), 409, "one too far is a gap");
            assert_eq!(send(there), 200, "the next one is taken");
        }
        furniture.check(&mut client);
        assert!(server.stop().status.success());
        let seen = finish(binary().args(["verify", "--data-dir"]).arg(restored));
        assert_eq!(seen.code, 0, "{}{}", seen.stdout, seen.stderr);
    }
}

#[test]
fn every_backup_is_a_prefix_with_all_that_was_acknowledged_before_it() {
    let setup = Setup::new(SMALL);
    let server = setup.start();
    let furniture = Furniture::set_up(&mut server.client());
    let streams: Vec<Stream> = (0..WRITERS).map(|_| Stream::default()).collect();
    let done = AtomicBool::new(false);
    let taken: Vec<Taken> = thread::scope(|scope| {
        for (number, stream) in streams.iter().enumerate() {
            let (client, done) = (server.client(), &done);
            scope.spawn(move || stream.write(number, &mut { client }, done));
        }
        let taken = (0..BACKUPS)
            .map(|number| {
                thread::sleep(Duration::from_millis(300));
                let to = setup.path().join(format!("backup{number}"));
                take(&server, &setup.data, to, &streams)
            })
            .collect();
        done.store(true, Ordering::Relaxed);
        taken
    });
    let meanwhile = taken.iter().map(|taken| taken.most[0] - taken.least[0]).sum::<u64>();
    assert!(meanwhile > BACKUPS as u64, "no appends while backups were taken");
    // Two at once: the second waits for the first.
    thread::scope(|scope| {
        for number in 0..2 {
            let (server, setup, streams) = (&server, &setup, &streams);
            let to = setup.path().join(format!("twin{number}"));
            scope.spawn(move || take(server, &setup.data, to, streams));
        }
    });
    drop(server);
    for (number, taken) in taken.iter().enumerate() {
        let restored = setup.path().join(format!("restored{number}"));
        taken.check(&restored, &furniture);
        fs::remove_dir_all(restored).expect("removed");
    }
}

/// Whatever moment ends the command or the server, what is left is no data directory, or a whole one.
#[test]
fn a_backup_that_is_cut_short_is_none() {
    let setup = Setup::new(SMALL);
    let mut server = setup.start();
    Furniture::set_up(&mut server.client());
    let mut whole = 0;
    for round in 0..12_u64 {
        let to = setup.path().join(format!("cut{round}"));
        let mut command = binary();
        command.args(["backup", "--data-dir"]).arg(&setup.data).arg(&to);
        let mut child = command.stderr(std::process::Stdio::null()).spawn().expect("it starts");
        thread::sleep(Duration::from_millis(round * 25));
        if round % 3 == 2 {
            if round % 2 == 0 {
                server.kill();
            } else {
                assert!(server.stop().status.success());
            }
            let ended = child.wait().expect("it ends");
            assert!(ended.code().is_some(), "it ends by itself: {ended}");
            assert_eq!(ended.success(), to.exists(), "round {round}");
            server = setup.start();
        } else {
            let _ = child.kill();
            child.wait().expect("it ends");
        }
        let seen = finish(binary().args(["verify", "--data-dir"]).arg(&to));
        let unfinished = seen.stderr.contains("an unfinished one") || !to.exists();
        assert!(seen.code == 0 || unfinished, "round {round}: {}{}", seen.stdout, seen.stderr);
        whole += u32::from(seen.code == 0);
    }
    assert!(whole < 12, "nothing was ever cut short");
}
