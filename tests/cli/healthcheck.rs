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

/// A container's health check finds the admin listener where the server's environment puts it.
#[test]
fn the_environment_says_where_the_admin_listener_is() {
    for host in ["127.0.0.1", "0.0.0.0"] {
        let (url, asked) = answering("HTTP/1.1 200 OK\r\n\r\n");
        let port = url.trim_end_matches("/readyz").rsplit(':').next().expect("a port");
        let listen = format!("{host}:{port}");
        let mut command = binary();
        command.arg("healthcheck").env("DURABLE_STREAMS_ADMIN_LISTEN", &listen);
        let seen = finish(&mut command);
        assert_eq!(seen.code, 0, "{listen}: {}", seen.stderr);
        assert!(asked.join().expect("asked").starts_with("GET /readyz "));
    }
    // The flag wins over the environment.
    let (url, asked) = answering("HTTP/1.1 200 OK\r\n\r\n");
    let mut command = binary();
    command.args(["healthcheck", "--url", &url]).env("DURABLE_STREAMS_ADMIN_LISTEN", "127.0.0.1:1");
    assert_eq!(finish(&mut command).code, 0);
    asked.join().expect("asked");
    let mut command = binary();
    command.arg("healthcheck").env("DURABLE_STREAMS_ADMIN_LISTEN", "localhost");
    let seen = finish(&mut command);
    assert_eq!(seen.code, 1);
    assert!(seen.stderr.contains("is not an IP address and a port"), "{}", seen.stderr);
}
