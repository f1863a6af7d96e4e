//! The trivial responder: one epoll loop that recognises the end of a request and writes a fixed
//! answer. Nothing cheaper can speak HTTP over these sockets, so its rate bounds the client's.

use anyhow::Result;
use memchr::memmem;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

const LISTENER: Token = Token(usize::MAX);

struct Conn {
    stream: TcpStream,
    pending: Vec<u8>,
    /// Answer bytes the socket did not take yet.
    unsent: Vec<u8>,
}

/// What the last POST carried is what GET answers, as the bare Pingora responder does it.
struct Answers {
    appended: u64,
    last_body: Vec<u8>,
}

/// Serves until it is ended.
pub(crate) fn respond(addr: SocketAddr) -> Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(addr)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut conns: Vec<Option<Conn>> = Vec::new();
    let mut events = Events::with_capacity(4096);
    let mut answers = Answers { appended: 0, last_body: Vec::new() };
    let mut scratch = vec![0; 256 * 1024];
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            other => other?,
        }
        for event in events.iter() {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    let interest = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(conns.len()), interest)?;
                    let (pending, unsent) = (Vec::new(), Vec::new());
                    conns.push(Some(Conn { stream, pending, unsent }));
                }
                continue;
            }
            let slot = &mut conns[event.token().0];
            if let Some(conn) = slot
                && serve(conn, &mut answers, &mut scratch).is_err()
            {
                *slot = None;
            }
        }
    }
}

fn serve(conn: &mut Conn, answers: &mut Answers, scratch: &mut [u8]) -> std::io::Result<()> {
    loop {
        match conn.stream.read(scratch) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                conn.pending.extend_from_slice(&scratch[..read]);
                while let Some(used) = answers.answer(&conn.pending, &mut conn.unsent) {
                    conn.pending.drain(..used);
                }
                if read < scratch.len() {
                    break;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    while !conn.unsent.is_empty() {
        match conn.stream.write(&conn.unsent) {
            Ok(written) => drop(conn.unsent.drain(..written)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Answers {
    /// Answers the request at the start of `data`, if it is whole; returns its length.
    fn answer(&mut self, data: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let head = memmem::find(data, b"\r\n\r\n")? + 4;
        let length = match memmem::find(&data[..head], b"Content-Length: ") {
            Some(at) => number(&data[at + 16..]),
            None => 0,
        };
        let body = data.get(head..head + length)?;
        match data[0..2] {
            [b'P', b'U'] => out.extend_from_slice(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n"),
            [b'P', _] => {
                self.appended += 1;
                if self.last_body.len() != body.len() {
                    self.last_body = body.to_vec();
                }
                out.extend_from_slice(b"HTTP/1.1 204 No Content\r\n");
            }
            [b'H', _] => out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"),
            _ => {
                let _ =
                    write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", self.last_body.len());
                out.extend_from_slice(b"Stream-Up-To-Date: true\r\n");
            }
        }
        let _ = write!(out, "Stream-Next-Offset: {:020}\r\n\r\n", self.appended);
        if data[0] == b'G' {
            out.extend_from_slice(&self.last_body);
        }
        Some(head + length)
    }
}

fn number(digits: &[u8]) -> usize {
    digits.iter().take_while(|b| b.is_ascii_digit()).fold(0, |n, b| n * 10 + usize::from(b - b'0'))
}
