//! Memory of the real binary: catching up on a large stream costs a window of it, not the stream.

use std::fs;

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
