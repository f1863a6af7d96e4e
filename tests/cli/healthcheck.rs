//! `healthcheck` against a listener that answers what the test says.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use crate::support::{binary, finish};

/// Answers one request; gives back what was asked.
fn answering(answer: &'static str) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/readyz", listener.local_addr().expect("an address"));
    let thread = std::thread::spawn(move || {
        let (mut socket, _) = listener.accept().expect("a client");
        let mut request = Vec::new();
        let mut part = [0; 512];
        while !request.ends_with(b"\r\n\r\n") {
            let read = socket.read(&mut part).expect("a request");
            request.extend_from_slice(&part[..read]);
        }
        socket.write_all(answer.as_bytes()).expect("the answer is taken");
        String::from_utf8(request).expect("text")
    });
    (url, thread)
}

#[test]
fn a_ready_server_is_healthy() {
    let (url, asked) = answering("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok\n");
    let seen = finish(binary().args(["healthcheck", "--url", &url]));
    assert_eq!((seen.code, seen.stdout.as_str(), seen.stderr.as_str()), (0, "", ""));
    assert!(asked.join().expect("asked").starts_with("GET /readyz HTTP/1.1\r\n"));
}

#[test]
fn a_server_that_is_not_ready_says_why() {
    let (url, asked) = answering(
        "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"detail\":\"the server is stopping\"}",
    );
    let seen = finish(binary().args(["healthcheck", "--url", &url]));
    assert_eq!(seen.code, 1);
    assert!(seen.stderr.contains("503") && seen.stderr.contains("is stopping"), "{}", seen.stderr);
    asked.join().expect("asked");
}

#[test]
fn what_is_no_server_is_unhealthy() {
    let (url, asked) = answering("nonsense 200");
    assert_eq!(finish(binary().args(["healthcheck", "--url", &url])).code, 1);
    asked.join().expect("asked");
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        format!("http://{}/", listener.local_addr().expect("an address"))
    };
    for (url, why) in [
        (closed.as_str(), "cannot connect"),
        ("https://127.0.0.1/", "not an http:// URL"),
        ("nowhere", "not an http:// URL"),
    ] {
        let seen = finish(binary().args(["healthcheck", "--url", url]));
        assert_eq!(seen.code, 1, "{url}");
        assert!(seen.stderr.contains(why), "{url}: {}", seen.stderr);
    }
}
