//! Every rule of the protocol that a stream must remember, after a stop and after a kill, from the log, from
//! the index, and from both at once.
//!
//! The second half of what is done to each stream comes after a restart, so that the index has the first
//! half and the log the second; or there is no restart in between, and everything is in one of them.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    client::{Client, ROUTE, Reply},
    server::{Server, Setup, replayed},
};

/// No checkpoint but that of a stop, so that a kill leaves everything to the log.
const RARE: &str = "storage: {checkpoint_interval: 1h, wal_segment: 1MiB, map_size: 64MiB}\n\
     limits: {max_append: 512KiB}\n";
const TEXT: (&str, &str) = ("content-type", "text/plain");
const JSON: (&str, &str) = ("content-type", "application/json");
const CLOSED: (&str, &str) = ("stream-closed", "true");

/// How a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// SIGTERM: everything is folded into the index.
    Stop,
    /// SIGKILL.
    Kill,
}

/// What is done before, what is done after a restart in between, and what must hold in the end.
struct Case {
    first: fn(&mut Client),
    second: fn(&mut Client),
    check: fn(&mut Client),
}

fn end(mut server: Server, end: End) {
    match end {
        End::Stop => {
            let ended = server.stop();
            assert!(ended.status.success(), "{}", ended.log);
        }
        End::Kill => server.kill(),
    }
}

/// Runs a case through every way of ending, with and without a restart in between, and twice at the end.
fn survives(case: &Case) {
    for between in [None, Some(End::Stop), Some(End::Kill)] {
        for last in [End::Stop, End::Kill] {
            println!("between: {between:?}, at the end: {last:?}");
            let setup = Setup::new(RARE);
            let mut server = setup.start();
            (case.first)(&mut server.client());
            if let Some(way) = between {
                end(server, way);
                server = setup.start();
            }
            (case.second)(&mut server.client());
            end(server, last);
            for again in 0..2 {
                let server = setup.start();
                let events = replayed(&server.log());
                assert_eq!(events > 0, last == End::Kill && again == 0, "{events} replayed");
                (case.check)(&mut server.client());
                end(server, End::Stop);
            }
        }
    }
}

fn producer<'f>(epoch: &'f str, seq: &'f str) -> Vec<(&'static str, &'f str)> {
    vec![TEXT, ("producer-id", "p"), ("producer-epoch", epoch), ("producer-seq", seq)]
}

fn with<'f>(
    mut fields: Vec<(&'static str, &'f str)>,
    more: (&'static str, &'f str),
) -> Vec<(&'static str, &'f str)> {
    fields.push(more);
    fields
}

fn ok(reply: &Reply) {
    assert!((200..300).contains(&reply.status), "{reply:?}");
}

fn refused(reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status, reply.code().as_str()), (status, code), "{reply:?}");
}

fn body(client: &mut Client, path: &str) -> String {
    let reply = client.must("GET", &format!("{path}?offset=-1"), &[], b"");
    assert_eq!(reply.status, 200, "{path}: {reply:?}");
    assert!(reply.has("stream-up-to-date", "true"), "{path}: {reply:?}");
    String::from_utf8(reply.body).expect("text")
}

/// `HEAD` and `GET` of a path that must be gone.
fn gone(client: &mut Client, path: &str, status: u16) {
    for method in ["HEAD", "GET"] {
        assert_eq!(client.must(method, path, &[], b"").status, status, "{method} {path}");
    }
}

#[test]
fn content_and_offsets() {
    survives(&Case {
        first: |client| {
            ok(&client.must("PUT", "text", &[TEXT], b"one"));
            ok(&client.must("PUT", "empty", &[("content-type", "image/png")], b""));
        },
        second: |client| ok(&client.must("POST", "text", &[TEXT], b"two")),
        check: |client| {
            assert_eq!(body(client, "text"), "onetwo");
            assert_eq!(body(client, "empty"), "");
            let head = client.must("HEAD", "empty", &[], b"");
            assert!(head.has("content-type", "image/png"), "{head:?}");
            let tail = client.must("HEAD", "text", &[], b"").next_offset();
            let rest = client.must("GET", &format!("text?offset={tail}"), &[], b"");
            assert_eq!(
                (rest.status, rest.body.as_slice(), rest.next_offset()),
                (200, &b""[..], tail)
            );
            refused(&client.must("POST", "text", &[JSON], b"1"), 409, "content-type-mismatch");
            // The same configuration is confirmed, another one refused.
            assert_eq!(client.must("PUT", "text", &[TEXT], b"").status, 200);
            refused(&client.must("PUT", "text", &[JSON], b""), 409, "config-mismatch");
        },
    });
}

#[test]
fn json_mode() {
    survives(&Case {
        first: |client| {
            ok(&client.must("PUT", "json", &[JSON], br#"[{"n":1},[2,3]]"#));
            ok(&client.must("POST", "json", &[JSON], b"4"));
        },
        second: |client| ok(&client.must("POST", "json", &[JSON], br#"["five", null]"#)),
        check: |client| {
            assert_eq!(body(client, "json"), r#"[{"n":1},[2,3],4,"five",null]"#);
            refused(&client.must("POST", "json", &[JSON], b"[]"), 400, "empty-json-array");
            refused(&client.must("POST", "json", &[JSON], b"{"), 400, "invalid-json");
        },
    });
}

#[test]
fn producers() {
    survives(&Case {
        first: |client| {
            ok(&client.must("PUT", "s", &[TEXT], b""));
            assert_eq!(client.must("POST", "s", &producer("1", "0"), b"a").status, 200);
            assert_eq!(client.must("POST", "s", &producer("1", "1"), b"b").status, 200);
        },
        second: |client| {
            assert_eq!(client.must("POST", "s", &producer("1", "2"), b"c").status, 200)
        },
        check: |client| {
            let before = body(client, "s");
            let next = before.len().to_string();
            let last = (before.len() - 1).to_string();
            for seq in ["0", "1", last.as_str()] {
                let duplicate = client.must("POST", "s", &producer("1", seq), b"x");
                assert_eq!(duplicate.status, 204, "{seq}: {duplicate:?}");
                assert!(duplicate.has("producer-epoch", "1"), "{duplicate:?}");
                assert!(duplicate.has("producer-seq", &last), "{duplicate:?}");
            }
            let gap = client.must("POST", "s", &producer("1", "9"), b"x");
            refused(&gap, 409, "sequence-gap");
            assert!(gap.has("producer-expected-seq", &next), "{gap:?}");
            assert!(gap.has("producer-received-seq", "9"), "{gap:?}");
            let stale = client.must("POST", "s", &producer("0", "3"), b"x");
            refused(&stale, 403, "stale-epoch");
            assert!(stale.has("producer-epoch", "1"), "{stale:?}");
            refused(
                &client.must("POST", "s", &producer("2", "1"), b"x"),
                400,
                "epoch-must-start-at-zero",
            );
            assert_eq!(body(client, "s"), before, "none of it was stored");
            assert_eq!(client.must("POST", "s", &producer("1", &next), b"d").status, 200);
            assert_eq!(body(client, "s"), before + "d");
        },
    });
}

#[test]
fn stream_seq() {
    fn post(client: &mut Client, seq: &'static str) -> Reply {
        client.must("POST", "s", &[TEXT, ("stream-seq", seq)], b"x")
    }
    survives(&Case {
        first: |client| {
            ok(&client.must("PUT", "s", &[TEXT], b""));
            ok(&post(client, "b"));
        },
        second: |client| ok(&post(client, "b1")),
        check: |client| {
            for old in ["a", "b", "b1", "b0zzz"] {
                refused(&post(client, old), 409, "sequence-regression");
            }
            let stored = body(client, "s").len();
            // The second look finds what the first one appended.
            match stored {
                2 => ok(&post(client, "b2")),
                3 => refused(&post(client, "b2"), 409, "sequence-regression"),
                other => panic!("{other} bytes"),
            }
        },
    });
}

#[test]
fn closure_and_the_retry_that_closed() {
    survives(&Case {
        first: |client| {
            for path in ["now", "later", "empty"] {
                ok(&client.must("PUT", path, &[TEXT], b"a"));
            }
            assert_eq!(client.must("POST", "later", &producer("0", "0"), b"b").status, 200);
            let closing = with(producer("0", "0"), CLOSED);
            assert_eq!(client.must("POST", "now", &closing, b"last").status, 200);
        },
        second: |client| {
            let closing = with(producer("0", "1"), CLOSED);
            assert_eq!(client.must("POST", "later", &closing, b"last").status, 200);
            assert_eq!(client.must("POST", "empty", &[CLOSED], b"").status, 204);
        },
        check: |client| {
            for (path, seq, stored) in [("now", "0", "alast"), ("later", "1", "ablast")] {
                let read = client.must("GET", &format!("{path}?offset=-1"), &[], b"");
                assert_eq!(String::from_utf8_lossy(&read.body), stored);
                assert!(read.has("stream-closed", "true"), "{read:?}");
                // The retry of the append that closed it is confirmed, and appends nothing.
                let retry = client.must("POST", path, &with(producer("0", seq), CLOSED), b"last");
                assert_eq!(retry.status, 204, "{retry:?}");
                assert!(retry.has("stream-closed", "true"), "{retry:?}");
                assert_eq!(retry.next_offset(), read.next_offset());
                let next = (seq.parse::<u64>().expect("a number") + 1).to_string();
                let more = client.must("POST", path, &producer("0", &next), b"x");
                refused(&more, 409, "stream-closed");
            }
            for path in ["now", "later", "empty"] {
                let more = client.must("POST", path, &[TEXT], b"x");
                refused(&more, 409, "stream-closed");
                assert!(more.has("stream-closed", "true"), "{more:?}");
                assert!(client.must("HEAD", path, &[], b"").has("stream-closed", "true"));
                // Closing without bytes may be said again.
                assert_eq!(client.must("POST", path, &[CLOSED], b"").status, 204);
            }
        },
    });
}

#[test]
fn deletion_frees_the_path() {
    survives(&Case {
        first: |client| {
            for path in ["early", "late", "again"] {
                ok(&client.must("PUT", path, &[TEXT], b"old"));
                ok(&client.must("POST", path, &producer("0", "0"), b"old"));
            }
            assert_eq!(client.must("DELETE", "early", &[], b"").status, 204);
        },
        second: |client| {
            assert_eq!(client.must("DELETE", "late", &[], b"").status, 204);
            assert_eq!(client.must("DELETE", "again", &[], b"").status, 204);
            assert_eq!(client.must("PUT", "again", &[JSON], b"[1]").status, 201);
        },
        check: |client| {
            gone(client, "early", 404);
            gone(client, "late", 404);
            refused(&client.must("POST", "late", &[TEXT], b"x"), 404, "not-found");
            refused(&client.must("DELETE", "early", &[], b""), 404, "not-found");
            assert_eq!(body(client, "again"), "[1]", "nothing of the stream before");
        },
    });
}

#[test]
fn forks_and_soft_deletion() {
    fn fork(client: &mut Client, path: &str, source: &str) {
        let source = format!("{ROUTE}{source}");
        let reply = client.must("PUT", path, &[("stream-forked-from", &source)], b"");
        assert_eq!(reply.status, 201, "{reply:?}");
    }
    survives(&Case {
        first: |client| {
            for source in ["kept", "soft", "cascade"] {
                ok(&client.must("PUT", source, &[TEXT], b"base"));
            }
            fork(client, "fork", "soft");
            fork(client, "middle", "cascade");
            ok(&client.must("POST", "fork", &[TEXT], b"+1"));
            ok(&client.must("POST", "soft", &[TEXT], b" of the source"));
            assert_eq!(client.must("DELETE", "soft", &[], b"").status, 204);
        },
        second: |client| {
            ok(&client.must("POST", "fork", &[TEXT], b"+2"));
            fork(client, "grandchild", "fork");
            fork(client, "leaf", "middle");
            fork(client, "late", "kept");
            assert_eq!(client.must("DELETE", "cascade", &[], b"").status, 204);
            assert_eq!(client.must("DELETE", "middle", &[], b"").status, 204);
        },
        check: |client| {
            assert_eq!(body(client, "fork"), "base+1+2");
            assert_eq!(body(client, "grandchild"), "base+1+2");
            assert_eq!(body(client, "late"), "base");
            assert_eq!(body(client, "kept"), "base");
            for path in ["soft", "cascade", "middle"] {
                gone(client, path, 410);
                refused(&client.must("POST", path, &[TEXT], b"x"), 410, "gone");
                refused(&client.must("PUT", path, &[TEXT], b""), 409, "path-blocked");
            }
            assert_eq!(body(client, "leaf"), "base");
        },
    });
}

#[test]
fn the_last_fork_frees_its_sources_after_a_restart() {
    for way in [End::Stop, End::Kill] {
        let setup = Setup::new(RARE);
        let server = setup.start();
        let mut client = server.client();
        ok(&client.must("PUT", "source", &[TEXT], b"base"));
        let from = format!("{ROUTE}source");
        ok(&client.must("PUT", "fork", &[("stream-forked-from", &from)], b""));
        assert_eq!(client.must("DELETE", "source", &[], b"").status, 204);
        gone(&mut client, "source", 410);
        end(server, way);
        let server = setup.start();
        let mut client = server.client();
        gone(&mut client, "source", 410);
        assert_eq!(body(&mut client, "fork"), "base");
        assert_eq!(client.must("DELETE", "fork", &[], b"").status, 204);
        gone(&mut client, "source", 404);
        end(server, way);
        let server = setup.start();
        let mut client = server.client();
        gone(&mut client, "fork", 404);
        gone(&mut client, "source", 404);
        assert_eq!(client.must("PUT", "source", &[TEXT], b"new").status, 201);
    }
}

#[test]
fn lifetimes_go_on_while_the_server_is_down() {
    thread::scope(|scope| {
        for way in [End::Stop, End::Kill] {
            for fold in [false, true] {
                scope.spawn(move || lifetimes_go_on(way, fold));
            }
        }
    });
}

/// `fold`: what was created is in the index before it is read.
fn lifetimes_go_on(way: End, fold: bool) {
    let setup = Setup::new(RARE);
    let mut server = setup.start();
    let mut client = server.client();
    let ttl = |seconds| [TEXT, ("stream-ttl", seconds)];
    ok(&client.must("PUT", "short", &ttl("1"), b"x"));
    ok(&client.must("PUT", "read", &ttl("6"), b"x"));
    ok(&client.must("PUT", "unread", &ttl("6"), b"x"));
    let date = "2000-01-01T00:00:00Z";
    ok(&client.must("PUT", "past", &[TEXT, ("stream-expires-at", date)], b"x"));
    let date = "2999-01-01T00:00:00Z";
    ok(&client.must("PUT", "fixed", &[TEXT, ("stream-expires-at", date)], b"x"));
    let created = Instant::now();
    if fold {
        end(server, End::Stop);
        server = setup.start();
        client = server.client();
    }
    sleep_until(created + Duration::from_millis(3500));
    assert_eq!(body(&mut client, "read"), "x", "a read pushes the end back");
    let read = Instant::now();
    end(server, way);

    sleep_until(created + Duration::from_millis(6600));
    let server = setup.start();
    let mut client = server.client();
    for path in ["short", "past", "unread"] {
        gone(&mut client, path, 404);
    }
    assert!(read.elapsed() < Duration::from_secs(6), "the machine is too slow for this test");
    let head = client.must("HEAD", "read", &[], b"");
    assert_eq!(head.status, 200, "{way:?} {fold}: the access before the restart counts");
    assert!(head.has("stream-ttl", "6"), "{head:?}");
    let fixed = client.must("HEAD", "fixed", &[], b"");
    assert!(fixed.has("stream-expires-at", date), "{fixed:?}");
    // A restart is no access.
    sleep_until(read + Duration::from_millis(6500));
    gone(&mut client, "read", 404);
    assert_eq!(client.must("PUT", "short", &[TEXT], b"").status, 201, "its path is free");
}

fn sleep_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now()));
}
