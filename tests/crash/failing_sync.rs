//! A disk whose syncs fail. Of the log: what it was for is not acknowledged, and nothing is written again
//! until a restart, since nobody knows what the disk has. Of the index: the log has everything, so appends
//! go on, and the checkpoint is made when syncs work again. And a disk that does not answer: nor does the server.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use crate::{
    disk_full::Appender,
    oracle,
    server::{PATIENCE, SMALL, Server, Setup},
    skips::skipped,
};

/// A server whose syncs this test can break.
struct Breakable {
    setup: Setup,
    trigger: PathBuf,
}

impl Breakable {
    /// `None`, with the reason printed, where there is no C compiler or no `LD_PRELOAD`.
    fn new() -> Option<Self> {
        Self::with(SMALL)
    }

    fn with(settings: &str) -> Option<Self> {
        if !cfg!(all(target_os = "linux", not(target_env = "musl"))) {
            return skipped("LD_PRELOAD of a shim needs Linux with a dynamic libc");
        }
        let mut setup = Setup::new(settings);
        let library = setup.path().join("fail_sync.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/fail_sync.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library);
        match compiler.arg(source).status() {
            Err(error) => return skipped(&format!("no C compiler: {error}")),
            Ok(status) => assert!(status.success(), "the shim does not compile"),
        }
        let trigger = setup.path().join("fail");
        setup.environment = vec![
            ("LD_PRELOAD".into(), library.to_string_lossy().into_owned()),
            ("FAIL_SYNC".into(), trigger.to_string_lossy().into_owned()),
        ];
        Some(Breakable { setup, trigger })
    }

    /// From now on syncs of files whose path contains `part` fail; with a `~` before it, they wait.
    fn break_syncs(&self, part: &str) {
        let whole = self.trigger.with_extension("new");
        fs::write(&whole, part).unwrap();
        fs::rename(whole, &self.trigger).unwrap();
    }

    fn mend(&self) {
        fs::remove_file(&self.trigger).unwrap();
    }
}

fn with_some_data(server: &Server, path: &str) -> Appender {
    let mut client = server.client();
    let mut stream = Appender::create(&mut client, path);
    for _ in 0..10 {
        assert_eq!(stream.append(&mut client, 1000).status, 204);
    }
    stream
}

#[test]
fn a_failed_sync_of_the_log_is_not_acknowledged_and_ends_writing_until_a_restart() {
    let Some(disk) = Breakable::new() else { return };
    let mut server = disk.setup.start();
    let mut stream = with_some_data(&server, "sync/log");
    let mut client = server.client();

    disk.break_syncs(".wal");
    for _ in 0..3 {
        let reply = stream.append(&mut client, 1000);
        assert_eq!((reply.status, reply.code()), (503, "unavailable".into()), "{reply:?}");
    }
    server.until_logged("cannot sync the log");
    stream.check(&mut client);

    // The disk is fine again, the server's knowledge of it is not.
    disk.mend();
    let text = [("content-type", "text/plain")];
    for (method, path) in [("POST", "sync/log"), ("PUT", "sync/other"), ("DELETE", "sync/log")] {
        let reply = client.must(method, path, &text, b"never stored\n");
        assert_eq!(
            (reply.status, reply.code()),
            (503, "unavailable".into()),
            "{method}: {reply:?}"
        );
    }
    assert_eq!(client.must("HEAD", "sync/other", &[], b"").status, 404);
    stream.check(&mut client);
    assert!(server.is_running());
    server.kill();

    // The append that failed was written, so it may be there, whole; the ones after it may not.
    let server = disk.setup.start();
    let found = oracle::rest(&mut server.client(), "sync/log", "-1", false).unwrap().records;
    let kept = stream.acknowledged.len();
    assert!(found.starts_with(&stream.acknowledged), "an acknowledged append is gone");
    assert!(found.len() <= kept + 1, "{:?}", &found[kept..]);
    assert!(found[kept..].iter().all(|record| record.starts_with("11|")), "{:?}", &found[kept..]);
    stream.acknowledged = found;
    stream.until_accepted(&mut server.client());
    stream.check(&mut server.client());
}

#[test]
fn a_stop_after_a_failed_sync_loses_nothing_acknowledged() {
    let Some(disk) = Breakable::new() else { return };
    let server = disk.setup.start();
    let mut stream = with_some_data(&server, "sync/stop");
    disk.break_syncs(".wal");
    assert_eq!(stream.append(&mut server.client(), 1000).status, 503);
    server.stop();
    disk.mend();
    let server = disk.setup.start();
    let found = oracle::rest(&mut server.client(), "sync/stop", "-1", false).unwrap().records;
    assert!(found.starts_with(&stream.acknowledged), "an acknowledged append is gone");
}

/// The disk cannot hear of accesses any more; the server has.
#[test]
fn a_stream_with_a_ttl_stays_as_long_as_it_is_read() {
    let Some(disk) = Breakable::new() else { return };
    let server = disk.setup.start();
    let mut client = server.client();
    let fields = [("content-type", "text/plain"), ("stream-ttl", "3")];
    assert_eq!(client.must("PUT", "sync/ttl", &fields, b"x").status, 201);
    disk.break_syncs(".wal");
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(700));
        let read = client.must("GET", "sync/ttl?offset=-1", &[], b"");
        assert_eq!((read.status, read.body.as_slice()), (200, &b"x"[..]), "{read:?}");
    }
}

#[test]
fn a_failed_sync_of_the_index_leaves_appends_to_the_log() {
    let Some(disk) = Breakable::new() else { return };
    let mut server = disk.setup.start();
    let mut stream = with_some_data(&server, "sync/index");
    let mut client = server.client();
    disk.break_syncs("data.mdb");
    for _ in 0..10 {
        assert_eq!(stream.append(&mut client, 1000).status, 204);
    }
    server.until_logged("cannot checkpoint");
    assert_eq!(stream.append(&mut client, 1000).status, 204);
    stream.check(&mut client);

    // Killed before the index has it: the log has.
    server.kill();
    disk.mend();
    let mut server = disk.setup.start();
    stream.check(&mut server.client());

    // Mended while it runs: folded in, so that the next start has nothing to replay.
    disk.break_syncs("data.mdb");
    stream.until_accepted(&mut server.client());
    server.until_logged("cannot checkpoint");
    disk.mend();
    stream.until_accepted(&mut server.client());
    let deadline = Instant::now() + PATIENCE;
    loop {
        thread::sleep(Duration::from_millis(500));
        server.kill();
        server = disk.setup.start();
        stream.check(&mut server.client());
        if crate::server::replayed(&server.log()) == 0 {
            return;
        }
        assert!(Instant::now() < deadline, "it is never folded in");
    }
}

/// Two appends in one packet, answered by nobody yet.
fn ask_for_two(server: &Server, path: &str) -> TcpStream {
    let mut connection = TcpStream::connect(server.address).unwrap();
    let fields = "host: a\r\ncontent-type: text/plain\r\ncontent-length: 6\r\n\r\n";
    let ask = |body| format!("POST /v1/stream/{path} HTTP/1.1\r\n{fields}{body}");
    connection.write_all((ask("1|one\n") + &ask("2|two\n")).as_bytes()).unwrap();
    connection
}

/// What comes within a while, as text. `None` if nothing does, and the connection is still there.
fn hear(connection: &mut TcpStream, patience: Duration) -> Option<String> {
    connection.set_read_timeout(Some(patience)).unwrap();
    let mut heard = [0; 4096];
    match connection.read(&mut heard) {
        Ok(n) => Some(String::from_utf8(heard[..n].to_vec()).unwrap()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(error) => Some(error.to_string()),
    }
}

fn until_heard(connection: &mut TcpStream, text: &str, times: usize) -> String {
    let mut heard = String::new();
    while heard.matches(text).count() < times {
        let more = hear(connection, PATIENCE).expect("an answer");
        assert!(!more.is_empty(), "the connection ended: {heard}");
        heard += &more;
    }
    heard
}

#[test]
fn an_append_is_not_answered_before_its_sync_returns() {
    let Some(disk) = Breakable::new() else { return };
    let mut server = disk.setup.start();
    with_some_data(&server, "sync/slow");
    disk.break_syncs("~.wal");
    let mut connection = ask_for_two(&server, "sync/slow");
    assert_eq!(hear(&mut connection, Duration::from_millis(300)), None);
    // Nor is it shown to readers.
    let read = server.client().must("GET", "sync/slow?offset=now", &[], b"");
    let before = read.next_offset();
    disk.mend();
    let heard = until_heard(&mut connection, "HTTP/1.1 204", 2);
    assert_eq!(heard.matches("HTTP/1.1").count(), 2, "{heard}");
    let read = server.client().must("GET", &format!("sync/slow?offset={before}"), &[], b"");
    assert_eq!(read.body, b"1|one\n2|two\n");

    // Nothing of an answer is sent when the process ends first.
    disk.break_syncs("~.wal");
    let mut connection = ask_for_two(&server, "sync/slow");
    assert_eq!(hear(&mut connection, Duration::from_millis(200)), None);
    server.kill();
    let heard = hear(&mut connection, PATIENCE).expect("an end");
    assert!(!heard.contains("HTTP/1.1"), "{heard}");
}

#[test]
fn an_append_that_is_lost_is_refused_logged_and_counted_as_such() {
    let log = format!("{SMALL}log: {{format: json, access: true}}\n");
    let Some(disk) = Breakable::with(&log) else { return };
    let server = disk.setup.start();
    with_some_data(&server, "sync/lost");
    disk.break_syncs("~.wal");
    let mut connection = ask_for_two(&server, "sync/lost");
    assert_eq!(hear(&mut connection, Duration::from_millis(200)), None);
    disk.break_syncs(".wal");
    // The connection goes on: the second is refused on it as well.
    let heard = until_heard(&mut connection, "\"code\":\"unavailable\"", 2).to_lowercase();
    assert_eq!(heard.matches("http/1.1 503 service unavailable\r\n").count(), 2, "{heard}");
    assert_eq!(heard.matches("content-type: application/problem+json\r\n").count(), 2, "{heard}");
    assert!(!heard.contains("204"), "{heard}");
    server.until_logged("POST /v1/stream/sync/lost 503");
    let line = server.log().lines().find(|line| line.contains("sync/lost 503")).map(str::to_owned);
    assert!(line.unwrap().contains("\"problem\":\"unavailable\""));
}
