//! Attacks that make the server work, or somebody who works for it wait.

use std::io::Write;
use std::net::TcpListener;
use std::time::Duration;

use crate::attacker::Attacker;
use crate::process::{LARGE, ROUTE, TEXT};

const JSON: &str = "content-type: application/json\r\n";

fn subscribe(attacker: &Attacker, count: usize, body: impl Fn(usize) -> String) {
    let Ok(mut connection) = attacker.connection() else { return };
    for nth in 0..count {
        if !attacker.goes_on() {
            return;
        }
        let path = format!("{ROUTE}/__ds/subscriptions/s{nth}");
        if connection.request("PUT", &path, JSON, body(nth).as_bytes()).is_err() {
            match attacker.connection() {
                Ok(again) => connection = again,
                Err(_) => return,
            }
        }
    }
}

fn append(attacker: &Attacker, path: &str) {
    while attacker.goes_on() {
        let Ok(mut connection) = attacker.connection() else { return };
        if connection.request("PUT", path, TEXT, b"").is_err() {
            continue;
        }
        while attacker.goes_on() && connection.request("POST", path, TEXT, b"x").is_ok() {}
    }
}

/// 2,000 patterns of many wildcards, and appends to paths that nearly match them.
pub(crate) fn patterns(attacker: Attacker) {
    let pattern = |nth: usize| {
        // As many `**` as a pattern may have, at places that differ.
        let mut segments = vec!["*"; 23];
        for star in 0..4 {
            segments[(nth * 7 + nth / 23 + star * 5) % 23] = "**";
        }
        format!(
            r#"{{"type":"pull-wake","pattern":"{}/end{nth}","wake_stream":"wakes"}}"#,
            segments.join("/")
        )
    };
    let path = format!("{ROUTE}/{}", ["a"; 60].join("/"));
    attacker.on_threads(2, |thread, attacker| match thread {
        0 => subscribe(attacker, 2000, pattern),
        _ => append(attacker, &path),
    });
}

/// 1,500 webhooks to a receiver that takes each connection and never answers.
pub(crate) fn webhooks(attacker: Attacker) {
    let receiver = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = receiver.local_addr().unwrap().port();
    receiver.set_nonblocking(true).unwrap();
    let webhook = move |_| {
        format!(
            r#"{{"type":"webhook","pattern":"hooked/**","webhook":{{"url":"http://localhost:{port}/"}}}}"#
        )
    };
    attacker.on_threads(3, |thread, attacker| match thread {
        0 => subscribe(attacker, 1500, webhook),
        1 => append(attacker, &format!("{ROUTE}/hooked/a")),
        _ => {
            let mut held = Vec::new();
            while attacker.goes_on() {
                match receiver.accept() {
                    Ok((socket, _)) => held.push(socket),
                    Err(_) => attacker.pause(Duration::from_millis(20)),
                }
            }
        }
    });
}

/// 64 readers that want every byte compressed, and uploads that are nearly all chunk extensions.
pub(crate) fn compression(attacker: Attacker) {
    let extension = format!("1;{}\r\nx\r\n", "e".repeat(4000)).repeat(16);
    let upload = format!(
        "POST {LARGE} HTTP/1.1\r\nhost: a\r\n{TEXT}transfer-encoding: chunked\r\n\r\n{extension}"
    );
    attacker.on_threads(68, |thread, attacker| {
        while attacker.goes_on() {
            if thread >= 64 {
                if let Ok(mut socket) = attacker.stalled(upload.as_bytes()) {
                    while attacker.goes_on() && socket.write_all(extension.as_bytes()).is_ok() {}
                }
                continue;
            }
            let Ok(mut connection) = attacker.connection() else { continue };
            let coding = ["br", "gzip", "zstd"][thread % 3];
            let fields = format!("accept-encoding: {coding}\r\n");
            while attacker.goes_on() && connection.drain(LARGE, &fields).is_ok() {}
        }
    });
}

/// Requests whose access-log lines fill the pipe behind standard error, which nobody reads.
pub(crate) fn log_lines(attacker: Attacker) {
    let path = format!("{ROUTE}/{}", "x".repeat(900));
    attacker.on_threads(4, |_, attacker| {
        while attacker.goes_on() {
            let Ok(mut connection) = attacker.connection() else { continue };
            while attacker.goes_on() && connection.request("GET", &path, "", b"").is_ok() {}
        }
    });
}
