//! Catch-up reads (PROTOCOL §5.6, §8): bounded, exact, and honest about where they end.

use std::time::Duration;

use crate::world::{Kind, World, offset, position};

for_each_kind![
    from_the_start_from_an_offset_and_from_now,
    offsets_that_cannot_have_been_handed_out_are_refused,
    sentinels_and_queries,
    bounded_reads_rebuild_a_binary_stream,
    bounded_reads_rebuild_a_json_stream,
    a_message_longer_than_the_bound_comes_whole,
    up_to_date_and_closed_are_said_at_the_end_only,
    now_is_empty_and_never_cached,
    caching_depends_on_credentials_and_content,
    pages_before_the_tail_are_cached,
    a_cache_that_asks_sees_the_next_append_and_the_next_stream,
    there_must_be_a_stream,
    a_get_extends_the_life_of_its_stream,
    offsets_sort_as_text,
];

/// Follows `Stream-Next-Offset` until the response says that it is up to date.
async fn follow(world: &World, path: &str) -> Vec<(Vec<u8>, bool)> {
    let mut parts = Vec::new();
    let mut from = "-1".to_owned();
    loop {
        let reply = world.get(&format!("{path}?offset={from}")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let next = reply.header("stream-next-offset").unwrap().to_owned();
        let done = reply.header("stream-up-to-date") == Some("true");
        assert!(done || next > from || from == "-1", "{from} leads to {next}");
        parts.push((reply.body.clone(), reply.header("stream-closed").is_some()));
        if done {
            return parts;
        }
        from = next;
    }
}

async fn from_the_start_from_an_offset_and_from_now(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "hello ").await;
    world.append("/a", "text/plain", "world").await;
    for (query, body) in [
        (String::new(), "hello world"),
        ("?offset=-1".to_owned(), "hello world"),
        (format!("?offset={}", offset(0)), "hello world"),
        (format!("?offset={}", offset(6)), "world"),
        (format!("?offset={}", offset(8)), "rld"),
        (format!("?offset={}", offset(11)), ""),
        ("?offset=now".to_owned(), ""),
        (format!("?unknown=1&offset={}&x", offset(6)), "world"),
    ] {
        let reply = world.get(&format!("/a{query}")).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, body), "{query}");
        assert_eq!(reply.header("stream-next-offset"), Some(offset(11).as_str()), "{query}");
        assert_eq!(reply.header("stream-up-to-date"), Some("true"), "{query}");
        assert_eq!(reply.header("stream-closed"), None, "{query}");
        assert_eq!(reply.header("content-type"), Some("text/plain"), "{query}");
    }
}

async fn offsets_that_cannot_have_been_handed_out_are_refused(kind: Kind) {
    let world = World::new(kind);
    world.stream("/text", "text/plain", "abc").await;
    world.stream("/json", "application/json", "[10,{\"a\":1}]").await;
    let tail = position(&world.head("/json").await);
    for live in ["", "&live=long-poll", "&live=sse"] {
        for beyond in [offset(4), offset(9_999_999_999_999_999)] {
            let reply = world.get(&format!("/text?offset={beyond}{live}")).await;
            assert_eq!(
                (reply.status, reply.code().as_str()),
                (400, "offset-beyond-tail"),
                "{live}"
            );
        }
        let reply = world.get(&format!("/json?offset={}{live}", offset(tail + 1))).await;
        assert_eq!(reply.code(), "offset-beyond-tail", "{live}");
    }
    let mut boundaries = Vec::new();
    for at in 0..=tail {
        let reply = world.get(&format!("/json?offset={}", offset(at))).await;
        if reply.status == 200 {
            serde_json::from_slice::<Vec<serde_json::Value>>(&reply.body).unwrap();
            boundaries.push(at);
        } else {
            assert_eq!((reply.status, reply.code().as_str()), (400, "offset-inside-message"));
            for live in ["&live=long-poll", "&live=sse"] {
                let reply = world.get(&format!("/json?offset={}{live}", offset(at))).await;
                assert_eq!(reply.code(), "offset-inside-message", "{at}{live}");
            }
        }
    }
    assert_eq!(boundaries.len(), 3, "{boundaries:?}");
}

async fn sentinels_and_queries(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc").await;
    for query in [
        "offset=",
        "offset",
        "offset=0",
        "offset=-2",
        "offset=NOW",
        "offset=1_2",
        "offset=0000000000000000_00000000000000001",
        "offset=0000000000000001_0000000000000000",
        "offset=%00",
        "offset=%FF",
        "offset=../../etc/passwd",
        "offset=-1&offset=-1",
        "offset=-1&live=yes",
        "offset=-1&live=",
        "offset=-1&live=SSE",
        "offset=-1&live=sse&live=sse",
        "live=sse",
        "live=long-poll",
    ] {
        let reply = world.get(&format!("/a?{query}")).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "invalid-query"), "{query}");
    }
    for query in ["offset=%2d1", "offset=n%6Fw", "cursor=nonsense", "cursor=-1&cursor2=3", ""] {
        assert_eq!(world.get(&format!("/a?{query}")).await.status, 200, "{query}");
    }
}

async fn bounded_reads_rebuild_a_binary_stream(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_read = Some(100));
    let mut expected = Vec::new();
    world.stream("/a", "application/octet-stream", "").await;
    for part in [1usize, 99, 100, 101, 250, 3] {
        let bytes: Vec<u8> = (0..part).map(|i| (i * 7 + part) as u8).collect();
        world.append("/a", "application/octet-stream", &bytes).await;
        expected.extend(bytes);
    }
    world.close("/a").await;
    let parts = follow(&world, "/a").await;
    let lengths: Vec<usize> = parts.iter().map(|(part, _)| part.len()).collect();
    assert_eq!(lengths, [100, 100, 101, 250, 3], "whole appends");
    assert_eq!(
        parts.iter().map(|(part, _)| part.as_slice()).collect::<Vec<_>>().concat(),
        expected
    );
    let closed: Vec<bool> = parts.iter().map(|(_, closed)| *closed).collect();
    assert_eq!(closed.iter().filter(|c| **c).count(), 1, "{closed:?}");
    assert_eq!(closed.last(), Some(&true));
}

async fn bounded_reads_rebuild_a_json_stream(kind: Kind) {
    for max_read in [1, 2, 7, 64] {
        let world = World::with(kind, |setup| setup.limits.max_read = Some(max_read));
        world.stream("/a", "application/json", "").await;
        let mut expected = Vec::new();
        for round in 0..12usize {
            let text = format!("{{\"n\":{round},\"s\":\"{}\"}}", "x".repeat(round * 3 % 17));
            world.append("/a", "application/json", format!("[{text}, {round}]")).await;
            expected.extend([text, round.to_string()]);
        }
        let mut read = Vec::new();
        for (part, _) in follow(&world, "/a").await {
            let part: Vec<Box<serde_json::value::RawValue>> =
                serde_json::from_slice(&part).unwrap();
            assert!(!part.is_empty() || read.len() == expected.len(), "no progress at {max_read}");
            read.extend(part.iter().map(|value| value.get().to_owned()));
        }
        assert_eq!(read, expected, "max_read {max_read}");
    }
}

async fn a_message_longer_than_the_bound_comes_whole(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_read = Some(100));
    let long = "y".repeat(100_000);
    world.stream("/a", "application/json", format!("[\"1\",\"{long}\",\"2\"]")).await;
    let parts = follow(&world, "/a").await;
    assert!(parts.len() > 1 && parts[0].0 == b"[\"1\"]", "the long one is not waited for");
    let read: Vec<Vec<String>> =
        parts.iter().map(|(part, _)| serde_json::from_slice(part).unwrap()).collect();
    assert!(read.concat() == ["1", long.as_str(), "2"], "not what was written");
}

async fn up_to_date_and_closed_are_said_at_the_end_only(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_read = Some(4));
    world.stream("/a", "text/plain", "abcd").await;
    world.append("/a", "text/plain", "ef").await;
    world.close("/a").await;
    let first = world.get("/a").await;
    assert_eq!(first.text(), "abcd");
    assert_eq!((first.header("stream-up-to-date"), first.header("stream-closed")), (None, None));
    let last = world.get(&format!("/a?offset={}", offset(4))).await;
    assert_eq!(last.text(), "ef");
    assert_eq!(last.header("stream-up-to-date"), Some("true"));
    assert_eq!(last.header("stream-closed"), Some("true"));
}

async fn now_is_empty_and_never_cached(kind: Kind) {
    let world = World::new(kind);
    world.stream("/text", "text/plain", "abc").await;
    world.stream("/json", "application/json; charset=utf-8", "[1]").await;
    for (path, body) in [("/text", ""), ("/json", "[]")] {
        let reply = world.get(&format!("{path}?offset=now")).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, body));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("etag"), None);
        assert_eq!(reply.header("stream-up-to-date"), Some("true"));
        let tail = world.head(path).await;
        assert_eq!(reply.header("stream-next-offset"), tail.header("stream-next-offset"));
    }
}

async fn caching_depends_on_credentials_and_content(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc").await;
    let page = format!("/a?offset={}", offset(1));
    for path in ["/a", "/a?offset=-1", &format!("/a?offset={}", offset(0)), &page] {
        let public = world.get(path).await;
        assert_eq!(public.header("cache-control"), Some("no-cache"), "{path} grows");
        assert!(public.header("etag").is_some());
        let private = world.ask("GET", path, "authorization: Bearer x\r\n", b"").await;
        assert_eq!(private.header("cache-control"), Some("private, no-cache"), "{path}");
    }
    let expected = "max-age=60, stale-while-revalidate=300";
    let poll = world.get(&format!("{page}&live=long-poll")).await;
    assert_eq!(poll.header("cache-control"), Some(&*format!("public, {expected}")));
    let first = world.get("/a?offset=-1&live=long-poll").await;
    assert_eq!(first.header("cache-control"), Some("no-cache"), "of whatever stream is there");
    let empty = world.get(&format!("/a?offset={}", offset(3))).await;
    world.close("/a").await;
    let last = world.get(&page).await;
    assert_eq!(last.header("cache-control"), Some(&*format!("public, {expected}")), "for ever");
    assert_eq!(empty.header("cache-control"), Some("no-store"), "it would hide what comes next");
    assert!(empty.header("etag").is_some());
    assert_eq!(world.get("/none").await.header("cache-control"), Some("no-store"));
}

async fn pages_before_the_tail_are_cached(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_read = Some(4));
    world.stream("/a", "text/plain", "").await;
    for part in ["abcd", "efgh", "ijkl"] {
        world.append("/a", "text/plain", part).await;
    }
    for (from, caching) in [
        (0, "no-cache"),
        (4, "public, max-age=60, stale-while-revalidate=300"),
        (8, "no-cache"),
        (12, "no-store"),
    ] {
        let page = world.get(&format!("/a?offset={}", offset(from))).await;
        assert_eq!(page.header("cache-control"), Some(caching), "from {from}");
    }
}

/// What a browser's cache does with `no-cache`: it sends the tag of what it holds, and takes a 304 for an answer.
async fn a_cache_that_asks_sees_the_next_append_and_the_next_stream(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc").await;
    let held = world.get("/a").await;
    let ask = async || {
        let tag = format!("if-none-match: {}\r\n", held.header("etag").unwrap());
        world.ask("GET", "/a", &tag, b"").await
    };
    assert_eq!(ask().await.status, 304);
    world.append("/a", "text/plain", "def").await;
    assert_eq!((ask().await.status, ask().await.text().as_str()), (200, "abcdef"));
    world.delete("/a").await;
    assert_eq!(ask().await.status, 404);
    world.stream("/a", "text/plain", "xyz").await;
    assert_eq!((ask().await.status, ask().await.text().as_str()), (200, "xyz"));
}

async fn there_must_be_a_stream(kind: Kind) {
    let world = World::new(kind);
    for query in ["", "?offset=now", "?offset=-1&live=long-poll", "?offset=-1&live=sse"] {
        let reply = world.get(&format!("/a{query}")).await;
        assert_eq!((reply.status, reply.code().as_str()), (404, "not-found"), "{query}");
    }
    let stats = world.engine.stats();
    assert_eq!((stats.cells, stats.live_readers), (0, 0), "asking leaves nothing behind");
}

async fn a_get_extends_the_life_of_its_stream(kind: Kind) {
    let (world, clock) = World::with_clock(kind);
    world.put("/a", "stream-ttl: 10\r\n", "").await;
    for query in ["", "?offset=now", "?offset=-1"] {
        clock.advance_millis(9_000);
        assert_eq!(world.get(&format!("/a{query}")).await.status, 200, "{query}");
    }
    clock.advance_millis(Duration::from_secs(10).as_millis() as u64);
    assert_eq!(world.get("/a").await.status, 404);
}

async fn offsets_sort_as_text(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "").await;
    let mut last = String::new();
    for size in [1, 8, 1, 90, 900, 9_000, 1] {
        let reply = world.append("/a", "text/plain", "x".repeat(size)).await;
        let next = reply.header("stream-next-offset").unwrap().to_owned();
        assert!(next > last, "{next} after {last}");
        assert!(next.len() < 256 && !next.contains([',', '&', '=', '?', '/']));
        last = next;
    }
}
