//! Appends stay whole (PROTOCOL §5.6 to §5.8): editors apply what an event or a page holds as whole updates.

use base64::Engine as _;

use crate::support::Reply;
use crate::world::{Kind, ROUTE, Sse, World, offset, position, request, soon};

for_each_kind![
    binary_events_hold_whole_appends,
    a_large_append_reaches_a_live_reader_as_one_event,
    a_large_message_is_one_event,
    text_events_hold_whole_appends_and_whole_characters,
    a_large_event_is_closed_and_held_back_as_a_small_one,
    pages_end_where_appends_end,
    pages_of_text_decode_by_themselves,
    a_page_ends_where_a_fork_leaves_its_source,
    a_fork_may_begin_inside_the_next_append_only,
    an_event_whose_stream_is_deleted_is_cut_off,
];

const BINARY: &str = "application/octet-stream";

/// Bytes that no two appends share.
fn bytes(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| (at.wrapping_mul(2_654_435_761) >> 7) as u8 ^ seed as u8).collect()
}

/// A stream of this type with an append for each of the parts, and where they end.
async fn stream(world: &World, path: &str, content_type: &str, parts: &[Vec<u8>]) -> Vec<usize> {
    world.stream(path, content_type, "").await;
    for part in parts {
        world.append(path, content_type, part).await;
    }
    let mut end = 0;
    parts
        .iter()
        .map(|part| {
            end += part.len();
            end
        })
        .collect()
}

/// Reads to the event that says that the stream is closed. Gives the data of each event, and the offset behind it.
async fn to_the_end(sse: &mut Sse) -> Vec<(String, usize)> {
    let mut events = Vec::new();
    loop {
        let data = soon(sse.event()).await;
        let control = match data.name.as_str() {
            "data" => soon(sse.event()).await.control(),
            _ => data.control(),
        };
        let end = control["streamNextOffset"].as_str().unwrap().rsplit('_').next().unwrap();
        if data.name == "data" {
            events.push((data.data, end.parse().unwrap()));
        }
        if control["streamClosed"] == true {
            return events;
        }
    }
}

fn decode(data: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(data).unwrap()
}

async fn binary_events_hold_whole_appends(kind: Kind) {
    let world = World::new(kind);
    let lengths = [10, 20, 100_000, 30, 64 << 10, 1, (64 << 10) - 1, 1 << 20, 300_000, 40, 50];
    let parts: Vec<_> = lengths.iter().enumerate().map(|(n, len)| bytes(*len, n)).collect();
    let ends = stream(&world, "/a", BINARY, &parts).await;
    world.close("/a").await;
    let all = parts.concat();
    for from in [0, 10, 25, 500_000] {
        let mut sse = world.sse(&format!("/a?offset={}&live=sse", offset(from as u64)), "").await;
        let mut at = from;
        for (data, end) in to_the_end(&mut sse).await {
            let data = decode(&data);
            assert!(data == all[at..end], "{} bytes from {at} to {end}", data.len());
            assert!(ends.contains(&end), "an event ends at {end}, inside an append");
            // Small appends share an event, a large one is alone.
            let next = ends.iter().find(|next| **next > at).unwrap();
            assert!(end - at <= 64 << 10 || end == *next, "{at} to {end}");
            at = end;
        }
        assert_eq!(at, all.len());
    }
}

async fn a_large_append_reaches_a_live_reader_as_one_event(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", BINARY, "").await;
    let mut sse = world.sse("/a?offset=-1&live=sse", "").await;
    soon(sse.event()).await;
    for (n, length) in [100_000, 5_000_000, 3, 200_001, 70_000].into_iter().enumerate() {
        let part = bytes(length, n);
        world.append("/a", BINARY, &part).await;
        let data = soon(sse.event()).await;
        assert!(decode(&data.data) == part, "{} bytes of {length}", data.data.len());
        assert_eq!(soon(sse.event()).await.control()["upToDate"], true);
    }
}

async fn a_large_message_is_one_event(kind: Kind) {
    let world = World::new(kind);
    world.stream("/j", "application/json", "").await;
    let mut sse = world.sse("/j?offset=-1&live=sse", "").await;
    soon(sse.event()).await;
    for length in [100_000, 10, 2_000_000] {
        let message = format!("{{\"s\":\n\"{}\u{1f600}\"\r\n}}", "\u{e9}".repeat(length / 2));
        world.append("/j", "application/json", &message).await;
        let data = soon(sse.event()).await;
        let read: Vec<serde_json::Value> = serde_json::from_str(&data.data).unwrap();
        assert!(read == [serde_json::from_str::<serde_json::Value>(&message).unwrap()]);
        assert_eq!(soon(sse.event()).await.control()["upToDate"], true);
    }
}

/// Characters of two to four bytes, with line ends of every kind, and no two lines alike.
fn text(length: usize) -> String {
    let mut text = String::new();
    for line in 0.. {
        if text.len() >= length {
            return text;
        }
        let end = ["\n", "\r\n", "\r", " "][line % 4];
        text.push_str(&format!(" {line} gr\u{fc}\u{df}e \u{20ac} \u{1f600}{end}"));
    }
    text
}

async fn text_events_hold_whole_appends_and_whole_characters(kind: Kind) {
    let world = World::new(kind);
    let parts: Vec<Vec<u8>> =
        [40, 100_000, 65_000, 65_540, 30, 900_000].map(|len| text(len).into_bytes()).to_vec();
    let ends = stream(&world, "/t", "text/plain", &parts).await;
    world.close("/t").await;
    let mut sse = world.sse("/t?offset=-1&live=sse", "").await;
    let mut read = String::new();
    for (data, end) in to_the_end(&mut sse).await {
        assert!(ends.contains(&end), "an event ends at {end}, inside an append");
        read.push_str(&data);
    }
    let all = String::from_utf8(parts.concat()).unwrap();
    assert!(read == all.replace("\r\n", "\n").replace('\r', "\n"), "not what was written");
}

async fn a_large_event_is_closed_and_held_back_as_a_small_one(kind: Kind) {
    let world = World::new(kind);
    // A line end and a character that two large appends share.
    let first = [&b"x".repeat(99_998)[..], b"\r"].concat();
    let second = [&b"\n"[..], &b"y".repeat(99_997), &"\u{1f600}".as_bytes()[..2]].concat();
    let third = [&"\u{1f600}".as_bytes()[2..], &b"z".repeat(99_997), b"\xe2\x82"].concat();
    world.stream("/t", "text/plain", "").await;
    let mut sse = world.sse("/t?offset=-1&live=sse", "").await;
    soon(sse.event()).await;
    let (mut read, mut end) = (String::new(), 0);
    for (part, held) in [(&first, 0), (&second, 2), (&third, 2)] {
        world.append("/t", "text/plain", part).await;
        end += part.len();
        read.push_str(&soon(sse.event()).await.data);
        let control = soon(sse.event()).await.control();
        assert_eq!(control["streamNextOffset"], offset((end - held) as u64));
        assert_eq!(control["upToDate"], true);
    }
    world.close("/t").await;
    let rest = soon(sse.event()).await;
    assert_eq!(rest.data, "\u{fffd}", "nothing more will come");
    let control = soon(sse.event()).await.control();
    assert_eq!(
        (&control["streamClosed"], &control["streamNextOffset"]),
        (&true.into(), &offset(end as u64).into())
    );
    let expected = [
        "x".repeat(99_998),
        "\n".into(),
        "y".repeat(99_997),
        "\u{1f600}".into(),
        "z".repeat(99_997),
    ];
    assert!(read == expected.concat(), "{} bytes", read.len());
}

/// Follows `Stream-Next-Offset` to the tail. Gives each page and the offset behind it.
async fn pages(world: &World, path: &str, live: &str) -> Vec<(Reply, usize)> {
    let (mut pages, mut from) = (Vec::new(), 0);
    loop {
        let page = world.get(&format!("{path}?offset={}{live}", offset(from))).await;
        assert_eq!(page.status, 200);
        from = position(&page);
        let done = page.header("stream-up-to-date").is_some();
        pages.push((page, from as usize));
        if done {
            return pages;
        }
    }
}

async fn pages_end_where_appends_end(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_read = Some(1_000));
    let lengths = [10, 400, 500, 90, 1, 1_000, 1_001, 999, 1, 1, 200_000, 3, 998];
    let parts: Vec<_> = lengths.iter().enumerate().map(|(n, len)| bytes(*len, n)).collect();
    let ends = stream(&world, "/a", BINARY, &parts).await;
    let all = parts.concat();
    for live in ["", "&live=long-poll"] {
        let mut at = 0;
        for (page, end) in pages(&world, "/a", live).await {
            assert!(page.body == all[at..end]);
            let last = ends.iter().rev().find(|end| **end > at && **end <= at + 1_000);
            let next = ends.iter().find(|end| **end > at).unwrap();
            assert_eq!(end, *last.unwrap_or(next), "a page from {at}{live}");
            at = end;
        }
        assert_eq!(at, all.len());
    }
    // From inside an append: the rest of it counts as one.
    let inside = world.get(&format!("/a?offset={}", offset(ends[9] as u64 + 5))).await;
    assert_eq!(position(&inside) as usize, ends[10]);
}

async fn pages_of_text_decode_by_themselves(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_read = Some(1_024));
    let parts: Vec<Vec<u8>> =
        [700, 700, 3_000, 5, 1_024].map(|len| text(len).into_bytes()).to_vec();
    stream(&world, "/t", "text/plain", &parts).await;
    let mut read = String::new();
    for (page, _) in pages(&world, "/t", "").await {
        read.push_str(std::str::from_utf8(&page.body).expect("no character is cut"));
    }
    assert!(read.as_bytes() == parts.concat());
}

async fn a_page_ends_where_a_fork_leaves_its_source(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_read = Some(100));
    stream(&world, "/s", BINARY, &[bytes(50, 1), bytes(60, 2), bytes(70, 3)]).await;
    // The fork inherits 10 bytes of the second append.
    let fork = format!(
        "content-type: {BINARY}\r\nstream-forked-from: {ROUTE}/s\r\nstream-fork-offset: {}\r\nstream-fork-sub-offset: 10\r\n",
        offset(50),
    );
    assert_eq!(world.put("/f", &fork, "").await.status, 201);
    for part in [20, 90, 10, 300, 4] {
        world.append("/f", BINARY, bytes(part, 9)).await;
    }
    let ends: Vec<usize> = pages(&world, "/f", "").await.into_iter().map(|(_, end)| end).collect();
    assert_eq!(ends, [80, 180, 480, 484]);
}

async fn a_fork_may_begin_inside_the_next_append_only(kind: Kind) {
    let world = World::new(kind);
    stream(&world, "/s", BINARY, &[bytes(10, 1), bytes(20, 2), bytes(30, 3)]).await;
    let fork = |at: u64, sub: u64| {
        format!(
            "stream-forked-from: {ROUTE}/s\r\nstream-fork-offset: {}\r\nstream-fork-sub-offset: {sub}\r\n",
            offset(at),
        )
    };
    for (n, (at, sub, end)) in [
        (0, 10, Some(10)),
        (0, 11, None),
        (10, 7, Some(17)),
        (10, 20, Some(30)),
        (10, 21, None),
        // From inside an append, to its end.
        (15, 15, Some(30)),
        (15, 16, None),
        (30, 30, Some(60)),
        (30, 31, None),
        (60, 0, Some(60)),
        (60, 1, None),
    ]
    .into_iter()
    .enumerate()
    {
        let reply = world.put(&format!("/f{n}"), &fork(at, sub), "").await;
        match end {
            Some(end) => assert_eq!((reply.status, position(&reply)), (201, end), "{at} + {sub}"),
            None => assert_eq!(reply.code(), "sub-offset-beyond-data", "{at} + {sub}"),
        }
    }
}

/// Half an event that looks whole would be half an update.
async fn an_event_whose_stream_is_deleted_is_cut_off(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", BINARY, bytes(15 << 20, 1)).await;
    let mut client = world.server.connect().await;
    client.send(request("GET", "/a?offset=-1&live=sse", "", b"")).await;
    assert!(soon(client.more()).await);
    assert_eq!(world.delete("/a").await.status, 204);
    world.stream("/a", BINARY, "another stream").await;
    let reply = tokio::time::timeout(std::time::Duration::from_secs(60), client.reply()).await;
    let reply = reply.expect("the response ends");
    let whole = memchr::memmem::find(&reply.body, b"\n\n").is_some();
    // Where only the head came before the deletion, no event was begun.
    let half = !whole && !reply.body.is_empty();
    assert!(!half || !reply.complete, "half an event, and the response looks complete");
    if whole {
        let text = String::from_utf8(reply.body).unwrap();
        let data = text.strip_prefix("event: data\ndata:").unwrap().split('\n').next().unwrap();
        assert!(decode(data) == bytes(15 << 20, 1));
    }
}
