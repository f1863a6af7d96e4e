//! Attacks that open much and then do nothing.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::attacker::Attacker;
use crate::http2;
use crate::process::LARGE;

const TICK: Duration = Duration::from_secs(1);

/// Each connection asks for the large stream 100 times over HTTP/2, with the largest windows, and reads nothing.
pub(crate) fn http2_readers(attacker: Attacker) {
    let requests = (0..100).flat_map(|nth| http2::get(nth, LARGE));
    let opening: Vec<u8> = http2::begin().into_iter().chain(requests).collect();
    attacker.hold(
        64,
        TICK,
        || attacker.stalled(&opening),
        |socket| socket.write_all(&http2::ignored()),
    );
}

/// Bodies that are announced as 16 MiB and of which a byte comes now and then: over HTTP/1.1, and 100 on each of a few
/// connections over HTTP/2.
pub(crate) fn uploads(attacker: Attacker) {
    let length = (16 << 20).to_string();
    let head = format!(
        "POST {LARGE} HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\nx"
    );
    let requests = (0..100).flat_map(|nth| http2::post(nth, LARGE, &length));
    let opening: Vec<u8> = http2::begin().into_iter().chain(requests).collect();
    let byte = |socket: &mut TcpStream| socket.write_all(b"x");
    attacker.on_threads(2, |thread, attacker| match thread {
        0 => attacker.hold(256, 5 * TICK, || attacker.stalled(head.as_bytes()), byte),
        _ => attacker.hold(
            8,
            5 * TICK,
            || attacker.stalled(&opening),
            |socket| socket.write_all(&http2::ignored()),
        ),
    });
}

/// 2,000 SSE readers of the large stream that read nothing.
pub(crate) fn event_readers(attacker: Attacker) {
    let request = format!("GET {LARGE}?offset=-1&live=sse HTTP/1.1\r\nhost: a\r\n\r\n");
    // Part of a next request, which the server leaves alone meanwhile.
    let byte = |socket: &mut TcpStream| socket.write_all(b"G");
    attacker.hold(2000, 2 * TICK, || attacker.stalled(request.as_bytes()), byte);
}

/// Connections to the admin listener that say nothing.
pub(crate) fn admin_connections(attacker: Attacker) {
    let open = || TcpStream::connect_timeout(&attacker.admin, Duration::from_secs(1));
    let ended = |socket: &mut TcpStream| {
        socket.set_nonblocking(true)?;
        match socket.read(&mut [0; 64]) {
            Ok(0) => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    };
    attacker.hold(300, TICK, open, ended);
}
