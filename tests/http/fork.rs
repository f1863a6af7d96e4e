//! Forks (PROTOCOL §4.2): inherited bytes, a life of their own, soft deletion and its cascade.

use crate::world::{Kind, World, offset, position};

for_each_kind![
    a_fork_has_the_bytes_and_goes_its_own_way,
    offsets_are_shared_up_to_the_fork,
    sub_offsets_count_bytes_or_messages,
    forks_that_cannot_be_are_refused,
    the_source_may_be_spelled_with_escapes,
    types_and_closure,
    writers_start_afresh,
    confirming_a_fork,
    a_body_follows_the_inherited_bytes,
    reads_are_stitched_and_bounded,
    forks_of_forks,
    a_deleted_source_lives_on_for_its_forks,
    deletion_cascades_up_the_chain,
    a_fork_with_forks_is_soft_deleted_too,
    a_stream_cannot_fork_itself,
    forks_that_race_with_their_sources_deletion,
];

const TEXT: &str = "content-type: text/plain\r\n";

fn from(source: &str) -> String {
    format!("stream-forked-from: /v1/stream/{source}\r\n")
}

fn at(source: &str, position: u64) -> String {
    format!("{}stream-fork-offset: {}\r\n", from(source), offset(position))
}

async fn source(kind: Kind, body: &str) -> World {
    let world = World::new(kind);
    world.stream("/s", "text/plain", body).await;
    world
}

async fn a_fork_has_the_bytes_and_goes_its_own_way(kind: Kind) {
    let world = source(kind, "abcdef").await;
    let reply = world.put("/f", &from("s"), "").await;
    assert_eq!((reply.status, reply.header("stream-next-offset")), (201, Some(&*offset(6))));
    assert_eq!(reply.header("content-type"), Some("text/plain"));
    world.append("/f", "text/plain", "fork").await;
    world.append("/s", "text/plain", "source").await;
    assert_eq!(world.get("/f").await.text(), "abcdeffork");
    assert_eq!(world.get("/s").await.text(), "abcdefsource");
    world.close("/f").await;
    assert_eq!(world.head("/s").await.header("stream-closed"), None);
}

async fn offsets_are_shared_up_to_the_fork(kind: Kind) {
    let world = source(kind, "abcdef").await;
    assert_eq!(world.put("/f", &at("s", 4), "").await.status, 201);
    world.append("/f", "text/plain", "XY").await;
    for position in 0..=6 {
        let fork = world.get(&format!("/f?offset={}", offset(position))).await;
        assert_eq!(fork.text(), "abcdXY"[position as usize..]);
        assert_eq!(fork.header("stream-next-offset"), Some(offset(6).as_str()));
    }
    assert_eq!(world.get(&format!("/f?offset={}", offset(7))).await.code(), "offset-beyond-tail");
    for (line, text) in [("stream-fork-offset: -1\r\n", ""), ("", "abcdef")] {
        let path = format!("/f{}", line.len());
        assert_eq!(world.put(&path, &format!("{}{line}", from("s")), "").await.status, 201);
        assert_eq!(world.get(&path).await.text(), text, "{line}");
    }
}

async fn sub_offsets_count_bytes_or_messages(kind: Kind) {
    let world = source(kind, "abcdef").await;
    world.stream("/j", "application/json", "[10,20]").await;
    let second = position(&world.head("/j").await);
    world.append("/j", "application/json", "[30,{\"x\":[1,2]},40]").await;
    for (n, (fields, text)) in [
        (format!("{}stream-fork-sub-offset: 3\r\n", at("s", 1)), "abcd"),
        (format!("{}stream-fork-sub-offset: 0\r\n", at("s", 1)), "a"),
        (format!("{}stream-fork-sub-offset: 5\r\n", at("s", 1)), "abcdef"),
        (format!("{}stream-fork-sub-offset: 2\r\n", at("j", second)), "[10,20,30,{\"x\":[1,2]}]"),
        (format!("{}stream-fork-sub-offset: 1\r\n", at("j", 0)), "[10]"),
        (format!("{}stream-fork-sub-offset: 5\r\n", at("j", 0)), "[10,20,30,{\"x\":[1,2]},40]"),
        (format!("{}stream-fork-sub-offset: 0\r\n", from("j")), "[10,20,30,{\"x\":[1,2]},40]"),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/f{n}");
        assert_eq!(world.put(&path, &fields, "").await.status, 201, "{fields}");
        assert_eq!(world.get(&path).await.text(), text, "{fields}");
        assert_eq!(world.put(&path, &fields, "").await.status, 200, "confirmed: {fields}");
    }
    for fields in [
        format!("{}stream-fork-sub-offset: 6\r\n", at("s", 1)),
        format!("{}stream-fork-sub-offset: 1\r\n", from("s")),
        format!("{}stream-fork-sub-offset: 9007199254740991\r\n", at("s", 0)),
        format!("{}stream-fork-sub-offset: 6\r\n", at("j", 0)),
        format!("{}stream-fork-sub-offset: 4\r\n", at("j", second)),
    ] {
        let reply = world.put("/none", &fields, "").await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, "sub-offset-beyond-data"),
            "{fields}"
        );
    }
    for bad in ["-1", "+1", "01", "1.0", "", "x", "18446744073709551616"] {
        let fields = format!("{}stream-fork-sub-offset: {bad}\r\n", at("s", 0));
        assert_eq!(world.put("/none", &fields, "").await.code(), "invalid-header", "{bad:?}");
    }
    assert_eq!(world.head("/none").await.status, 404);
}

async fn forks_that_cannot_be_are_refused(kind: Kind) {
    let world = source(kind, "abcdef").await;
    world.stream("/j", "application/json", "[123,4]").await;
    for (fields, status, code) in [
        (from("nowhere"), 404, "source-not-found"),
        (at("s", 7), 400, "offset-beyond-tail"),
        (at("j", 2), 400, "offset-inside-message"),
        (format!("{}stream-fork-offset: now\r\n", from("s")), 400, "invalid-header"),
        (format!("{}stream-fork-offset: 3\r\n", from("s")), 400, "invalid-header"),
        (format!("stream-fork-offset: {}\r\n", offset(0)), 400, "fork-without-source"),
        ("stream-fork-sub-offset: 1\r\n".to_owned(), 400, "fork-without-source"),
        ("stream-forked-from: s\r\n".to_owned(), 400, "invalid-header"),
        ("stream-forked-from: /elsewhere/s\r\n".to_owned(), 400, "invalid-header"),
        ("stream-forked-from: /v1/streams/s\r\n".to_owned(), 400, "invalid-header"),
        ("stream-forked-from: /v1/stream/../s\r\n".to_owned(), 400, "invalid-header"),
        ("stream-forked-from: /v1/stream/__ds/x\r\n".to_owned(), 400, "invalid-header"),
        ("stream-forked-from: /v1/stream/\u{e9}\r\n".to_owned(), 400, "invalid-header"),
        ("stream-forked-from:\r\n".to_owned(), 400, "invalid-header"),
        (format!("{}{}", from("s"), from("s")), 400, "invalid-header"),
        (format!("{}content-type: text/html\r\n", from("s")), 409, "source-type-mismatch"),
    ] {
        let reply = world.put("/f", &fields, "").await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{fields}");
    }
    assert_eq!(world.head("/f").await.status, 404);
    world.delete("/s").await;
    assert_eq!(world.head("/s").await.status, 404, "refused forks hold nothing");
}

async fn the_source_may_be_spelled_with_escapes(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a%20b/%C3%A9", "text/plain", "abc").await;
    for (n, spelled) in ["a%20b/%C3%A9", "a%20b/%c3%a9", "%61%20b%2F%C3%A9"].into_iter().enumerate()
    {
        let path = format!("/f{n}");
        assert_eq!(world.put(&path, &from(spelled), "").await.status, 201, "{spelled}");
        assert_eq!(world.get(&path).await.text(), "abc");
    }
}

async fn types_and_closure(kind: Kind) {
    let world = source(kind, "abc").await;
    world.close("/s").await;
    let fields = format!("{}content-type: TEXT/plain;charset=utf-8\r\n", from("s"));
    let reply = world.put("/f", &fields, "").await;
    assert_eq!((reply.status, reply.header("stream-closed")), (201, None), "a fork starts open");
    world.append("/f", "text/plain", "def").await;
    assert_eq!(world.get("/f").await.text(), "abcdef");
    let reply = world.put("/g", &format!("{}stream-closed: true\r\n", from("s")), "!").await;
    assert_eq!((reply.status, reply.header("stream-closed")), (201, Some("true")));
    assert_eq!(world.get("/g").await.text(), "abc!");
}

async fn writers_start_afresh(kind: Kind) {
    let world = source(kind, "").await;
    let writer = |epoch: u64, seq: u64| {
        format!("{TEXT}producer-id: p\r\nproducer-epoch: {epoch}\r\nproducer-seq: {seq}\r\n")
    };
    world.post("/s", &format!("{}stream-seq: 9\r\n", writer(5, 0)), "a").await;
    world.put("/f", &from("s"), "").await;
    let reply = world.post("/f", &writer(5, 1), "x").await;
    assert_eq!((reply.status, reply.header("producer-expected-seq")), (409, Some("0")));
    let fields = format!("{}stream-seq: 1\r\n", writer(0, 0));
    assert_eq!(world.post("/f", &fields, "b").await.status, 200);
    assert_eq!(world.post("/s", &writer(5, 1), "c").await.status, 200, "the source is unmoved");
    assert_eq!(world.get("/f").await.text(), "ab");
}

async fn confirming_a_fork(kind: Kind) {
    let world = source(kind, "abcdef").await;
    world.stream("/other", "text/plain", "abcdef").await;
    assert_eq!(world.put("/f", &at("s", 3), "").await.status, 201);
    assert_eq!(world.put("/f", &at("s", 3), "").await.status, 200);
    assert_eq!(world.put("/f", &format!("{}{TEXT}", at("s", 3)), "").await.status, 200);
    for fields in [
        at("s", 4),
        at("other", 3),
        TEXT.to_owned(),
        format!("{}stream-fork-sub-offset: 1\r\n", at("s", 3)),
        format!("{}stream-ttl: 5\r\n", at("s", 3)),
    ] {
        assert_eq!(world.put("/f", &fields, "").await.code(), "config-mismatch", "{fields}");
    }
    world.append("/s", "text/plain", "more").await;
    assert_eq!(world.put("/f", &at("s", 3), "").await.status, 200, "whatever the source does");
    assert_eq!(world.put("/s", &from("other"), "").await.code(), "config-mismatch");
}

async fn a_body_follows_the_inherited_bytes(kind: Kind) {
    let world = source(kind, "abcdef").await;
    let reply = world.put("/f", &at("s", 2), "XYZ").await;
    assert_eq!((reply.status, position(&reply)), (201, 5));
    assert_eq!(world.get("/f").await.text(), "abXYZ");
    world.stream("/j", "application/json", "[1]").await;
    assert_eq!(world.put("/g", &from("j"), "[2,3]").await.status, 201);
    assert_eq!(world.get("/g").await.text(), "[1,2,3]", "one array over the boundary");
    assert_eq!(world.put("/h", &from("j"), "[2,").await.code(), "invalid-json");
    assert_eq!(world.head("/h").await.status, 404);
}

async fn reads_are_stitched_and_bounded(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_read = Some(4));
    world.stream("/s", "text/plain", "").await;
    for part in ["abcd", "efghij"] {
        world.append("/s", "text/plain", part).await;
    }
    world.put("/f", &at("s", 6), "").await;
    for part in ["KL", "MNOP"] {
        world.append("/f", "text/plain", part).await;
    }
    let (mut read, mut next) = (String::new(), 0);
    while next < 12 {
        let reply = world.get(&format!("/f?offset={}", offset(next))).await;
        assert!(reply.body.len() <= 4 && !reply.body.is_empty());
        read.push_str(&reply.text());
        assert_eq!(reply.header("stream-up-to-date").is_some(), position(&reply) == 12);
        next = position(&reply);
    }
    assert_eq!(read, "abcdefKLMNOP");
}

async fn forks_of_forks(kind: Kind) {
    let world = source(kind, "0").await;
    let mut expected = "0".to_owned();
    for n in 1..20u64 {
        let parent = if n == 1 { "s".to_owned() } else { format!("f{}", n - 1) };
        assert_eq!(world.put(&format!("/f{n}"), &from(&parent), "").await.status, 201);
        world.append(&format!("/f{n}"), "text/plain", format!("{n}")).await;
        expected.push_str(&n.to_string());
    }
    assert_eq!(world.get("/f19").await.text(), expected);
    assert_eq!(world.put("/back", &at("f19", 3), "!").await.status, 201);
    assert_eq!(world.get("/back").await.text(), "012!", "a place inherited from far up");
}

async fn a_deleted_source_lives_on_for_its_forks(kind: Kind) {
    let world = source(kind, "abc").await;
    world.put("/f", &from("s"), "").await;
    assert_eq!(world.delete("/s").await.status, 204);
    for method in ["GET", "HEAD", "POST", "DELETE"] {
        let body: &[u8] = if method == "POST" { b"x" } else { b"" };
        let reply = world.ask(method, "/s", TEXT, body).await;
        assert_eq!(reply.status, 410, "{method}");
    }
    for live in ["long-poll", "sse"] {
        assert_eq!(world.get(&format!("/s?offset=-1&live={live}")).await.status, 410, "{live}");
    }
    assert_eq!(world.put("/s", TEXT, "").await.code(), "path-blocked");
    assert_eq!(world.put("/g", &from("s"), "").await.code(), "source-deleted");
    assert_eq!(world.get("/f").await.text(), "abc");
    world.append("/f", "text/plain", "def").await;
    assert_eq!(world.get("/f").await.text(), "abcdef");
    assert_eq!(world.put("/f", &from("s"), "").await.status, 200, "the fork is still that fork");
    assert_eq!(world.delete("/f").await.status, 204);
    assert_eq!(world.head("/s").await.status, 404);
    assert_eq!(world.put("/s", TEXT, "new").await.status, 201);
    assert_eq!(world.get("/s").await.text(), "new");
}

async fn deletion_cascades_up_the_chain(kind: Kind) {
    let world = source(kind, "a").await;
    world.put("/f", &from("s"), "b").await;
    world.put("/g", &from("f"), "c").await;
    assert_eq!(world.delete("/s").await.status, 204);
    assert_eq!(world.delete("/f").await.status, 204);
    assert_eq!(world.head("/f").await.status, 410);
    assert_eq!(world.get("/g").await.text(), "abc");
    assert_eq!(world.delete("/g").await.status, 204);
    for path in ["/s", "/f", "/g"] {
        assert_eq!(world.head(path).await.status, 404, "{path}");
    }
    let stats = world.stored();
    assert_eq!((stats.streams, stats.bytes), (0, 0), "nothing is left behind");
}

async fn a_fork_with_forks_is_soft_deleted_too(kind: Kind) {
    let world = source(kind, "a").await;
    world.put("/f", &from("s"), "").await;
    world.put("/g", &from("s"), "").await;
    world.delete("/s").await;
    assert_eq!(world.delete("/f").await.status, 204);
    assert_eq!(world.head("/f").await.status, 404);
    assert_eq!(world.head("/s").await.status, 410, "one fork is left");
    assert_eq!(world.get("/g").await.text(), "a");
    world.delete("/g").await;
    assert_eq!(world.head("/s").await.status, 404);
}

async fn a_stream_cannot_fork_itself(kind: Kind) {
    let world = source(kind, "abc").await;
    assert_eq!(world.put("/x", &from("x"), "").await.code(), "source-not-found");
    assert_eq!(world.put("/s", &from("s"), "").await.code(), "config-mismatch");
    assert_eq!(world.head("/x").await.status, 404);
}

/// Whoever wins, no fork is left whose bytes are gone, and no bytes are left without a stream.
async fn forks_that_race_with_their_sources_deletion(kind: Kind) {
    let world = World::new(kind);
    for _ in 0..20 {
        world.stream("/s", "text/plain", "abc").await;
        let fields = from("s");
        let (a, b, deleted) = tokio::join!(
            world.put("/a", &fields, ""),
            world.put("/b", &fields, ""),
            world.delete("/s"),
        );
        assert_eq!(deleted.status, 204);
        for (path, reply) in [("/a", a), ("/b", b)] {
            match reply.status {
                201 => {
                    assert_eq!(world.get(path).await.text(), "abc", "{path}");
                    assert_eq!(world.delete(path).await.status, 204);
                }
                404 | 409 => assert_eq!(world.head(path).await.status, 404, "{path}"),
                _ => panic!("{reply:?}"),
            }
        }
        assert_eq!(world.head("/s").await.status, 404);
        assert_eq!(world.stored().bytes, 0);
    }
}
