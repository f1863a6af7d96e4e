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
/// What each may add at its peak, KiB: a few pieces, as many as are read at once to find the end of a message, a
/// connection, and what the future of a debug build needs. A quarter to a third of that is usual.
const EACH: u64 = 5 * 80 + 48;
/// What all together may add, KiB: threads, and memory that the allocator keeps.
const SLACK: u64 = 6 << 10;

/// Opens readers that take nothing; the most memory that the server had until it was quiet.
fn stall(server: &Server, target: &str, readers: usize) -> u64 {
    let request = format!("GET /v1/stream/{target} HTTP/1.1\r\nhost: t\r\n\r\n");
    let readers: Vec<TcpStream> = (0..readers)
        .map(|_| {
            let mut socket = TcpStream::connect(server.address).unwrap();
            socket.write_all(request.as_bytes()).unwrap();
            socket
        })
        .collect();
    let (mut most, began) = (0, Instant::now());
    let mut quiet = Instant::now();
    while quiet.elapsed() < Duration::from_secs(1) && began.elapsed() < Duration::from_secs(30) {
        let now = anonymous(server);
        if now > most {
            (most, quiet) = (now, Instant::now());
        }
        thread::sleep(Duration::from_millis(20));
    }
    drop(readers);
    most
}

/// One append of 15 MiB in each, so that an event and a message are as large as can be.
#[test]
#[cfg(target_os = "linux")]
fn readers_that_stall_cost_a_piece_each() {
    // Nothing cached, which would leave memory meanwhile and hide what readers hold.
    let settings =
        "storage: {checkpoint_interval: 200ms, cache: 0B}\nlimits: {write_timeout: 5m}\n";
    let server = Setup::new(settings).start();
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
    // The allocator gives back what they left within ten seconds.
    thread::sleep(Duration::from_secs(12));
    let before = anonymous(&server);
    let mut said = Vec::new();
    for target in targets {
        let grown = stall(&server, &target, STALLED).saturating_sub(before);
        said.push(format!("{target}: {grown} KiB"));
        assert!(grown < STALLED as u64 * EACH + SLACK, "{STALLED} readers: {said:#?}");
    }
    println!("{STALLED} readers that stall: {said:#?}");
}
