//! Memory of the real binary: catching up on a large stream costs a window of it, not the stream, and a reader that
//! stalls costs a piece.

use std::{
    fs,
    io::Write,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use crate::{
    client::Client,
    server::{Server, Setup},
};

const TEXT: (&str, &str) = ("content-type", "text/plain");
const PIECE: usize = 512 << 10;
/// 96 MiB in all.
const PIECES: usize = 192;
/// What reading it may add, KiB: a few windows, buffers of connections and threads.
const GROWTH: u64 = 16 << 10;
const READERS: usize = 3;

/// Memory without pages of files, KiB.
fn anonymous(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("it is there");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Reads the whole stream; gives its length and the most memory that the server had meanwhile.
fn catch_up(client: &mut Client, server: &Server) -> (usize, u64) {
    let (mut at, mut total, mut most) = ("-1".to_owned(), 0, 0);
    loop {
        let reply = client.must("GET", &format!("large?offset={at}"), &[], b"");
        assert_eq!(reply.status, 200, "{}", reply.status);
        total += reply.body.len();
        at = reply.next_offset();
        most = most.max(anonymous(server));
        if reply.has("stream-up-to-date", "true") {
            return (total, most);
        }
        assert!(reply.body.len() <= PIECES * PIECE / 8, "one answer holds {}", reply.body.len());
    }
}

#[test]
#[cfg(target_os = "linux")]
fn catching_up_on_a_large_stream_costs_a_window_of_memory() {
    let setup = Setup::new(
        "storage: {checkpoint_interval: 200ms, checkpoint_size: 8MiB, wal_segment: 8MiB, cache: 1MiB}\n\
         limits: {max_append: 1MiB}\n",
    );
    let server = setup.start();
    let mut client = server.client();
    assert_eq!(client.must("PUT", "large", &[TEXT], b"").status, 201);
    let piece = vec![b'x'; PIECE];
    for _ in 0..PIECES {
        assert_eq!(client.must("POST", "large", &[TEXT], &piece).status, 204);
    }
    assert!(server.stop().status.success());

    // A fresh process has nothing of it in memory.
    let server = setup.start();
    let mut client = server.client();
    assert_eq!(client.must("HEAD", "large", &[], b"").status, 200);
    let before = anonymous(&server);
    let address = server.address;
    let most = std::thread::scope(|scope| {
        let reader = || catch_up(&mut Client::new(address), &server);
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(reader)).collect();
        let read: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        assert!(read.iter().all(|(total, _)| *total == PIECES * PIECE), "{read:?}");
        read.into_iter().map(|(_, most)| most).max().unwrap_or(0)
    });
    println!("{before} KiB before, at most {most} KiB while {READERS} clients read 96 MiB each");
    assert!(most < before + GROWTH, "{before} KiB before, {most} KiB while reading");
}

const STALLED: usize = 100;
const APPEND: usize = 15 << 20;
/// What each reader may hold while it stalls, KiB: what was read for it, its connection and its futures.
const EACH: u64 = 64;
/// What each may add for a moment, KiB: while it does not stall yet, or the end of a message is searched for.
const EACH_AT_PEAK: u64 = 128;
/// What all together may add, KiB: threads, and pages that are partly in use.
const SLACK: u64 = 1 << 10;

/// Memory that is freed goes back to the system at once, so that what is resident is in use. By default the allocator
/// keeps it for some seconds, for what comes next.
fn without_free_memory(settings: &str) -> Setup {
    let mut setup = Setup::new(settings);
    let settings = "dirty_decay_ms:0,muzzy_decay_ms:0,tcache:false".to_owned();
    setup.environment.push(("_RJEM_MALLOC_CONF".to_owned(), settings));
    setup
}

/// Opens readers that take nothing, and sends `request` on each.
fn stalled(server: &Server, request: &str, readers: usize) -> Vec<TcpStream> {
    let open = || {
        let mut socket = TcpStream::connect(server.address).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        socket
    };
    (0..readers).map(|_| open()).collect()
}

/// The memory of a server whose readers stall: the most until it was quiet for a second, and then.
fn stall(server: &Server, target: &str, readers: usize) -> (u64, u64) {
    let request = format!("GET /v1/stream/{target} HTTP/1.1\r\nhost: t\r\n\r\n");
    let readers = stalled(server, &request, readers);
    let (mut most, mut last, began) = (0, 0, Instant::now());
    let mut quiet = Instant::now();
    while quiet.elapsed() < Duration::from_secs(1) && began.elapsed() < Duration::from_secs(30) {
        let now = anonymous(server);
        if now.abs_diff(last) > SLACK / 4 {
            (last, quiet) = (now, Instant::now());
        }
        most = most.max(now);
        thread::sleep(Duration::from_millis(20));
    }
    let held = anonymous(server);
    drop(readers);
    (most, held)
}

/// One append of 15 MiB in each, so that an event and a message are as large as can be.
#[test]
#[cfg(target_os = "linux")]
fn readers_that_stall_hold_64_kib_each() {
    // Nothing cached, which would leave memory meanwhile and hide what readers hold.
    let settings =
        "storage: {checkpoint_interval: 200ms, cache: 0B}\nlimits: {write_timeout: 5m}\n";
    let setup = without_free_memory(settings);
    let server = setup.start();
    let mut client = server.client();
    let text = "0123456789\u{e4}\u{1f600}\n".repeat(APPEND / 17);
    let message = format!("\"{}\"", "m".repeat(APPEND));
    for (path, content_type, body) in [
        ("binary", "application/octet-stream", vec![b'b'; APPEND]),
        ("text", "text/plain", text.into_bytes()),
        ("lines", "text/plain", vec![b'\n'; APPEND / 8]),
        ("json", "application/json", message.into_bytes()),
    ] {
        let fields = [("content-type", content_type)];
        assert_eq!(client.must("PUT", path, &fields, b"").status, 201);
        assert_eq!(client.must("POST", path, &fields, &body).status, 204);
    }
    let paths = ["binary", "text", "lines", "json"];
    let targets = paths.iter().flat_map(|path| {
        ["", "&live=long-poll", "&live=sse"].map(|live| format!("{path}?offset=-1{live}"))
    });
    let targets: Vec<String> = targets.collect();
    // One of each before, so that what all of them share is counted already.
    targets.iter().for_each(|target| _ = stall(&server, target, 1));
    let mut said = Vec::new();
    for target in targets {
        let (_, before) = stall(&server, &target, 0);
        let (most, held) = stall(&server, &target, STALLED);
        let (most, held) = (most.saturating_sub(before), held.saturating_sub(before));
        said.push(format!("{target}: {held} KiB, {most} KiB at the peak"));
        let readers = STALLED as u64;
        assert!(held < readers * EACH + SLACK, "{STALLED} readers hold: {said:#?}");
        assert!(most < readers * EACH_AT_PEAK + SLACK, "{STALLED} readers hold: {said:#?}");
    }
    println!("{STALLED} readers that stall hold: {said:#?}");
}

const APPENDS: usize = 6;
/// Responses on each connection: more than the kernels take of them.
const PIPELINED: usize = 40;
/// A response of one piece.
const TAIL: usize = 60_000;

/// Appends much to a few streams, and opens `readers` of the last bytes of each that take nothing.
fn read_ends(server: &Server, client: &mut Client, name: &str, readers: usize) -> Vec<TcpStream> {
    let fields = [("content-type", "application/octet-stream")];
    let append = vec![b'a'; APPEND / 2];
    let one = |nth| {
        let path = format!("{name}-{nth}");
        assert_eq!(client.must("PUT", &path, &fields, b"").status, 201);
        let appended = client.must("POST", &path, &fields, &append);
        assert_eq!(appended.status, 204, "{appended:?}");
        let mut at = client.must("HEAD", &path, &[], b"").next_offset();
        let position = format!("{:016}", append.len() - TAIL);
        at.replace_range(at.len() - position.len().., &position);
        let request = format!("GET /v1/stream/{path}?offset={at} HTTP/1.1\r\nhost: t\r\n\r\n");
        stalled(server, &request.repeat(PIPELINED), readers)
    };
    (0..APPENDS).flat_map(one).collect()
}

/// A response of one piece shares its bytes with the append of which it is a part. A reader that does not take it must not
/// keep that append in memory, once the store has no more use for it.
#[test]
#[cfg(target_os = "linux")]
fn a_reader_that_stalls_does_not_keep_the_append_that_it_reads_a_part_of() {
    // Each append is read while it is not in the index yet.
    let interval = Duration::from_secs(5);
    let settings = "storage: {checkpoint_interval: 5s, cache: 0B}\nlimits: {write_timeout: 5m}\n";
    let setup = without_free_memory(settings);
    let server = setup.start();
    let mut client = server.client();
    drop(read_ends(&server, &mut client, "before", 0));
    thread::sleep(2 * interval);
    let before = anonymous(&server);
    let readers = read_ends(&server, &mut client, "large", 1);
    // A third of what was appended.
    let most = before + (APPENDS * APPEND / 6) as u64 / 1024;
    let (began, mut now) = (Instant::now(), anonymous(&server));
    while now > most && began.elapsed() < 6 * interval {
        thread::sleep(Duration::from_millis(200));
        now = anonymous(&server);
    }
    assert!(now <= most, "{before} KiB before, {now} KiB while {} readers stall", readers.len());
}
