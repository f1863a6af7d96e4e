//! One answer reaches the tail, whatever its size (PROTOCOL §5.6, §5.7), and is never taken for more than it is.

use std::io::Read as _;
use std::time::Duration;

use base64::Engine as _;

use crate::support::{Client, Reply, StoreKind, Transport};
use crate::world::{Kind, ROUTE, Sse, World, offset, request, soon};

for_each_kind![
    one_catch_up_answer_reaches_the_tail,
    one_long_poll_answer_reaches_the_tail,
    json_is_one_array_from_wherever_it_begins,
    a_fork_is_read_to_the_tail_over_its_lineage,
    a_long_answer_has_the_tag_and_the_length_of_its_bytes,
    a_long_answer_is_encoded_as_it_is_read,
    #[only(http1, proxied, embedded; "versions of HTTP/1")]
    http_1_0_gets_a_length_instead_of_an_encoding,
    an_answer_whose_stream_is_deleted_is_cut_off_or_whole,
    a_connection_goes_on_after_a_long_answer,
    what_is_appended_meanwhile_is_left_to_the_next_answer,
    a_reader_that_pauses_gets_every_byte_once,
    what_lies_in_a_file_is_sent_from_it_from_the_first_byte_on,
    messages_are_sent_from_files_with_their_commas,
];

/// Bytes that repeat nowhere within a megabyte.
fn bytes(length: usize) -> Vec<u8> {
    let mut seed = 0x9e37_79b9_u32;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 17;
        seed ^= seed << 5;
        seed.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(length).collect()
}

/// On files, what is read is in sealed segments, in the index, and in memory.
fn sealing(kind: Kind) -> World {
    World::with(kind, |setup| setup.seals = true)
}

/// A stream of this type with these appends, of which the last one is not sealed, unless it is the only one.
async fn stream(world: &World, path: &str, content_type: &str, appends: &[Vec<u8>]) {
    world.stream(path, content_type, "").await;
    let sealed = appends.len().saturating_sub(1).max(1);
    for (nth, append) in appends.iter().enumerate() {
        world.append(path, content_type, append).await;
        if nth + 1 == sealed {
            world.seal();
        }
    }
}

async fn one_catch_up_answer_reaches_the_tail(kind: Kind) {
    let world = sealing(kind);
    let appends = [bytes(1), bytes(64 << 10), bytes((1 << 20) + 7), bytes(3 << 20), bytes(100)];
    stream(&world, "/a", "application/octet-stream", &appends).await;
    let all = appends.concat();
    for (from, closed) in [(0, false), (5, false), (all.len() - 65_537, false), (77, true)] {
        if closed {
            world.close("/a").await;
        }
        let reply = world.get(&format!("/a?offset={}", offset(from as u64))).await;
        assert_eq!(reply.status, 200);
        assert!(reply.complete && reply.body == all[from..], "{} from {from}", reply.body.len());
        assert_eq!(reply.header("content-length"), Some(&*(all.len() - from).to_string()));
        assert_eq!(reply.header("stream-next-offset"), Some(&*offset(all.len() as u64)));
        assert_eq!(reply.header("stream-up-to-date"), Some("true"));
        assert_eq!(reply.header("stream-closed").is_some(), closed);
    }
}

async fn one_long_poll_answer_reaches_the_tail(kind: Kind) {
    let world = sealing(kind);
    let all = bytes(3 << 20);
    stream(&world, "/a", "application/octet-stream", std::slice::from_ref(&all)).await;
    let reply = world.get("/a?offset=-1&live=long-poll").await;
    assert!(reply.complete && reply.body == all, "{} bytes", reply.body.len());
    assert_eq!(reply.header("stream-up-to-date"), Some("true"));
    assert!(reply.header("stream-cursor").is_some());
    let mut waiting =
        world.poll(&format!("/a?offset={}&live=long-poll", offset(all.len() as u64))).await;
    world.append("/a", "application/octet-stream", &all).await;
    let reply = soon(waiting.reply()).await;
    assert!(reply.complete && reply.body == all, "{} bytes", reply.body.len());
}

async fn json_is_one_array_from_wherever_it_begins(kind: Kind) {
    let world = sealing(kind);
    world.stream("/j", "application/json", "").await;
    let mut places = vec![0];
    for n in 0..40 {
        let message = format!("{{\"n\":{n},\"s\":\"{}\"}}", "x".repeat(50_000));
        let reply = world.append("/j", "application/json", message).await;
        places.push(crate::world::position(&reply));
    }
    for first in [0, 1, 17, 39] {
        let reply = world.get(&format!("/j?offset={}", offset(places[first]))).await;
        assert_eq!(reply.header("content-length"), Some(&*reply.body.len().to_string()));
        assert_eq!(reply.header("stream-up-to-date"), Some("true"));
        let read: Vec<serde_json::Value> = serde_json::from_slice(&reply.body).unwrap();
        let numbers: Vec<u64> = read.iter().map(|one| one["n"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (first as u64..40).collect::<Vec<_>>());
    }
    let inside = world.get(&format!("/j?offset={}", offset(places[3] + 25_000))).await;
    assert_eq!((inside.status, inside.code().as_str()), (400, "offset-inside-message"));
}

async fn a_fork_is_read_to_the_tail_over_its_lineage(kind: Kind) {
    let world = sealing(kind);
    let (inherited, own) = (bytes(200_000), bytes(300_001));
    stream(&world, "/s", "application/octet-stream", std::slice::from_ref(&inherited)).await;
    let fork =
        format!("stream-forked-from: {ROUTE}/s\r\nstream-fork-offset: {}\r\n", offset(200_000));
    assert_eq!(world.put("/f", &fork, "").await.status, 201);
    world.append("/f", "application/octet-stream", &own).await;
    world.append("/s", "application/octet-stream", "not the fork's").await;
    let reply = world.get("/f").await;
    assert!(reply.complete && reply.body == [inherited, own].concat());
}

async fn a_long_answer_has_the_tag_and_the_length_of_its_bytes(kind: Kind) {
    let world = sealing(kind);
    stream(&world, "/a", "application/octet-stream", &[bytes(300_000)]).await;
    let full = world.get("/a").await;
    let held = format!("if-none-match: {}\r\n", full.header("etag").unwrap());
    let again = world.ask("GET", "/a", &held, b"").await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    assert_eq!(again.header("content-length"), None);
    assert_eq!(again.header("etag"), full.header("etag"));
}

fn decoded(reply: &Reply) -> Vec<u8> {
    let (body, mut out) = (&reply.body[..], Vec::new());
    match reply.header("content-encoding") {
        Some("gzip") => flate2::read::GzDecoder::new(body).read_to_end(&mut out),
        Some("br") => brotli::Decompressor::new(body, 4096).read_to_end(&mut out),
        Some("zstd") => zstd::Decoder::new(body).unwrap().read_to_end(&mut out),
        other => panic!("{other:?}"),
    }
    .unwrap();
    out
}

async fn a_long_answer_is_encoded_as_it_is_read(kind: Kind) {
    let world = sealing(kind);
    let line = "all work and no play \u{1f600}\n";
    let text = line.repeat((1 << 20) / line.len());
    world.stream("/t", "text/plain", &text).await;
    let messages = vec!["{\"a\":[1,2,3]}"; 30_000].join(",");
    world.stream("/j", "application/json", format!("[{messages}]")).await;
    for coding in ["gzip", "br", "zstd"] {
        for (path, plain) in [("/t", text.clone()), ("/j", format!("[{messages}]"))] {
            let fields = format!("accept-encoding: {coding}\r\n");
            let reply = world.ask("GET", path, &fields, b"").await;
            assert_eq!(reply.header("content-encoding"), Some(coding));
            assert_eq!(reply.header("vary"), Some("accept-encoding"));
            assert_eq!(reply.header("content-length"), None, "not known before it is read");
            assert!(reply.header("etag").unwrap().starts_with("W/"), "not the same bytes");
            assert!(reply.complete && reply.body.len() < plain.len() / 10, "{coding}");
            assert!(decoded(&reply) == plain.as_bytes(), "{coding}");
        }
    }
}

async fn http_1_0_gets_a_length_instead_of_an_encoding(kind: Kind) {
    let world = sealing(kind);
    world.stream("/t", "text/plain", "z".repeat(300_000)).await;
    let mut client = world.server.connect().await;
    let get = format!("GET {ROUTE}/t HTTP/1.0\r\nhost: t\r\naccept-encoding: gzip\r\n\r\n");
    client.send(get).await;
    let reply = soon(client.reply()).await;
    assert_eq!(reply.header("content-encoding"), None);
    assert_eq!(reply.header("content-length"), Some("300000"));
    assert!(reply.complete && reply.body.len() == 300_000);
}

/// A short body that looks complete would be data loss that no client notices.
async fn an_answer_whose_stream_is_deleted_is_cut_off_or_whole(kind: Kind) {
    let world = sealing(kind);
    let part = "\u{e9} text that a client takes its time for \n".repeat(300_000);
    for fields in ["", "accept-encoding: gzip\r\n"] {
        world.stream("/a", "text/plain", &part).await;
        for _ in 0..2 {
            world.append("/a", "text/plain", &part).await;
        }
        let mut client = world.server.connect().await;
        client.send(request("GET", "/a", fields, b"")).await;
        assert!(soon(client.more()).await);
        assert_eq!(world.delete("/a").await.status, 204);
        world.stream("/a", "text/plain", "another stream").await;
        // Time for the server to run into the end of what is readable.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let reply = tokio::time::timeout(Duration::from_secs(60), client.reply()).await.unwrap();
        if reply.complete && fields.is_empty() {
            assert!(
                reply.body == part.repeat(3).as_bytes(),
                "{} bytes look whole",
                reply.body.len()
            );
        } else if reply.complete {
            assert!(decoded(&reply) == part.repeat(3).as_bytes(), "a part looks whole");
        }
        assert_eq!(world.delete("/a").await.status, 204);
    }
}

async fn a_connection_goes_on_after_a_long_answer(kind: Kind) {
    let world = sealing(kind);
    world.stream("/a", "text/plain", "y".repeat(500_000)).await;
    let mut client = world.server.connect().await;
    for fields in ["", "accept-encoding: br\r\n", ""] {
        client.send(request("GET", "/a", fields, b"")).await;
        let reply = soon(client.reply()).await;
        assert!(reply.complete, "{fields:?}");
        assert_eq!(reply.header("connection").unwrap_or("keep-alive"), "keep-alive");
    }
}

async fn what_is_appended_meanwhile_is_left_to_the_next_answer(kind: Kind) {
    let world = sealing(kind);
    let all = bytes(12 << 20);
    stream(&world, "/a", "application/octet-stream", std::slice::from_ref(&all)).await;
    let mut client = world.server.connect().await;
    client.send(request("GET", "/a", "", b"")).await;
    assert!(soon(client.more()).await, "the answer begins");
    world.append("/a", "application/octet-stream", "later").await;
    let reply = soon(client.reply()).await;
    assert!(reply.complete && reply.body == all);
    let next = reply.header("stream-next-offset").unwrap().to_owned();
    assert_eq!(world.get(&format!("/a?offset={next}")).await.text(), "later");
}

/// A range that is worth it; read twice, since the second time the place in the file is known.
async fn what_lies_in_a_file_is_sent_from_it_from_the_first_byte_on(kind: Kind) {
    let world = World::with(kind, |setup| {
        setup.seals = true;
        setup.cache = Some(1);
    });
    let own_loop = matches!(kind.transport, Transport::Http1 | Transport::Proxied);
    let by_kernel = kind.store == StoreKind::File && own_loop;
    let appends = [bytes(100_000), bytes(10)];
    let text = "a line of text\n".repeat(10_000);
    stream(&world, "/a", "application/octet-stream", &appends).await;
    stream(&world, "/t", "text/plain", &[text.clone().into(), b"end".to_vec()]).await;
    let fields =
        format!("stream-forked-from: {ROUTE}/a\r\nstream-fork-offset: {}\r\n", offset(90_000));
    assert_eq!(world.put("/f", &fields, "").await.status, 201);
    world.append("/f", "application/octet-stream", "own").await;
    let (all, text) = (appends.concat(), format!("{text}end").into_bytes());
    let fork = [&all[..90_000], b"own"].concat();
    for turn in ["first", "second"] {
        for (path, fields, whole, from, sent) in [
            ("/a", "", &all, 0, 100_000),
            ("/a", "", &all, 40_000, 60_000),
            ("/a", "accept-encoding: gzip\r\n", &all, 1, 99_999),
            ("/a", "", &all, 80_000, 0),
            ("/f", "", &fork, 10_000, 80_000),
            ("/t", "accept-encoding: identity\r\n", &text, 0, 150_000),
            ("/t", "accept-encoding: gzip\r\n", &text, 0, 0),
        ] {
            let before = world.file_parts();
            let target = format!("{path}?offset={}", offset(from as u64));
            let reply = world.ask("GET", &target, fields, b"").await;
            let case = format!("{turn} {path} from {from} {fields}");
            assert!(reply.status == 200 && reply.complete, "{case}: {}", reply.status);
            let body = match reply.header("content-encoding") {
                None => reply.body.clone(),
                Some(_) => {
                    let mut body = Vec::new();
                    flate2::read::GzDecoder::new(&*reply.body).read_to_end(&mut body).unwrap();
                    body
                }
            };
            assert!(body == whole[from..], "{case}: {} bytes", body.len());
            let expected = if by_kernel { sent } else { 0 };
            assert_eq!(world.file_parts() - before, expected, "{case}");
        }
    }
}

/// The array's brackets come from memory, and where a read begins behind a message, what is read first; the kernel sends the rest.
async fn messages_are_sent_from_files_with_their_commas(kind: Kind) {
    const READ: usize = 64 << 10;
    let world = World::with(kind, |setup| {
        setup.seals = true;
        setup.cache = Some(1);
    });
    let own_loop = matches!(kind.transport, Transport::Http1 | Transport::Proxied);
    let by_kernel = kind.store == StoreKind::File && own_loop;
    let message = |n: usize| format!("{{\"n\":[{n},{n}],\"s\":\"{}\"}}", "x,".repeat(250 + n % 99));
    let messages: Vec<String> = (0..500).map(message).collect();
    let position = |nth: usize| messages.iter().take(nth).map(|message| message.len() + 1).sum();
    let array = |of: &[String]| format!("[{}]", of.join(","));
    let (json, all): (_, usize) = ("application/json", position(500));
    stream(&world, "/j", json, &[array(&messages).into()]).await;
    stream(&world, "/k", json, &[array(&messages).into(), b"[1,2]".to_vec()]).await;
    let point: usize = position(400);
    let fields = format!(
        "stream-forked-from: {ROUTE}/j\r\nstream-fork-offset: {}\r\n",
        offset(point as u64)
    );
    assert_eq!(world.put("/f", &fields, "").await.status, 201);
    world.append("/f", json, "\"own\"").await;
    let and = |of: &[String], more: &[&str]| {
        let more = more.iter().map(|message| (*message).to_owned());
        array(&of.iter().cloned().chain(more).collect::<Vec<_>>())
    };
    for turn in ["first", "second"] {
        for (path, fields, from, body, sent) in [
            ("/j", "", 0, array(&messages), all - 1),
            ("/j", "", 77, array(&messages[77..]), all - position(77) - READ - 1),
            ("/k", "", 0, and(&messages, &["1", "2"]), all),
            ("/f", "", 0, and(&messages[..400], &["\"own\""]), point),
            ("/f", "", 1, and(&messages[1..400], &["\"own\""]), point - position(1) - READ),
            ("/j", "accept-encoding: gzip\r\n", 0, array(&messages), 0),
        ] {
            let before = world.file_parts();
            let from: usize = position(from);
            let target = format!("{path}?offset={}", offset(from as u64));
            let reply = world.ask("GET", &target, fields, b"").await;
            let case = format!("{turn} {path} from {from} {fields}");
            assert!(reply.status == 200 && reply.complete, "{case}: {}", reply.status);
            let found = match reply.header("content-encoding") {
                None => reply.text(),
                Some(_) => {
                    let mut body = String::new();
                    flate2::read::GzDecoder::new(&*reply.body).read_to_string(&mut body).unwrap();
                    body
                }
            };
            assert!(found == body, "{case}: {} of {} bytes", found.len(), body.len());
            let expected = if by_kernel { sent as u64 } else { 0 };
            assert_eq!(world.file_parts() - before, expected, "{case}");
        }
        // An offset within a message is refused, wherever its bytes are.
        for inside in [position(300) + 1, position(301) - 1] {
            let reply = world.get(&format!("/j?offset={}", offset(inside as u64))).await;
            assert_eq!(reply.status, 400, "{turn}: {inside}");
        }
    }
}

/// Reads the first megabyte of a response with pauses, in which the server drops what it has read ahead.
async fn read_with_pauses(client: &mut Client) {
    let mut pauses = 0;
    while client.unread().len() < 1 << 20 {
        assert!(soon(client.more()).await);
        if client.unread().len() > pauses * 100_000 {
            pauses += 1;
            tokio::time::sleep(Duration::from_millis(10 + pauses as u64 % 4 * 10)).await;
        }
    }
}

async fn a_reader_that_pauses_gets_every_byte_once(kind: Kind) {
    let world = sealing(kind);
    let appends = [bytes(5 << 20), bytes(100), bytes(2 << 20), bytes(50_000)];
    stream(&world, "/a", "application/octet-stream", &appends).await;
    let message = |nth: usize| format!("{{\"n\":{nth},\"s\":\"{}\"}}", "x".repeat(3_000 + nth));
    let messages: Vec<String> = (0..1_500).map(message).collect();
    world.stream("/j", "application/json", format!("[{}]", messages.join(","))).await;
    world.seal();
    let array = format!("[{}]", messages.join(",")).into_bytes();
    for (path, all) in [("/a", appends.concat()), ("/j", array)] {
        let mut client = world.server.connect().await;
        client.send(request("GET", path, "", b"")).await;
        read_with_pauses(&mut client).await;
        let reply = soon(client.reply()).await;
        assert!(reply.complete && reply.body == all, "{path}: {} bytes", reply.body.len());
    }
    // Where the kernel can send files, it has.
    let own_loop = matches!(kind.transport, Transport::Http1 | Transport::Proxied);
    let by_kernel = kind.store == StoreKind::File && own_loop;
    let most = (appends[..3].concat().len() + messages.concat().len() + messages.len()) as u64;
    let sent = world.file_parts();
    assert!(
        if by_kernel { sent > most / 2 && sent <= most } else { sent == 0 },
        "{sent} of {most}"
    );
    world.stream("/s", "text/plain", "\u{e9} line\n".repeat(300_000)).await;
    for (path, data) in [
        ("/a", base64::engine::general_purpose::STANDARD.encode(&appends[0])),
        ("/s", "\u{e9} line\n".repeat(300_000)),
    ] {
        let mut client = world.server.connect().await;
        client.send(request("GET", &format!("{path}?offset=-1&live=sse"), "", b"")).await;
        let head = client.head().await;
        read_with_pauses(&mut client).await;
        let event = soon(Sse::new(client, head).event()).await;
        assert!(event.name == "data" && event.data == data, "{path}: {} bytes", event.data.len());
    }
}
