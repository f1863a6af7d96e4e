//! Entity tags and `If-None-Match` (PROTOCOL §10.1, RFC 9110 §13.1.2, RFC 9111 §4.3.4).

use crate::support::Reply;
use crate::world::{Kind, World, offset};

for_each_kind![
    the_same_bytes_have_the_same_tag,
    tags_differ_where_answers_differ,
    what_is_held_is_not_sent_again,
    other_tags_do_not_match,
    a_closure_is_never_hidden,
    not_modified_says_what_the_full_answer_would,
    live_reads_and_now_have_their_own_rules,
];

async fn text(kind: Kind) -> World {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abcdef").await;
    world
}

fn etag(reply: &Reply) -> String {
    reply.header("etag").unwrap().to_owned()
}

async fn ask(world: &World, path: &str, tags: &str) -> Reply {
    world.ask("GET", path, &format!("if-none-match: {tags}\r\n"), b"").await
}

async fn the_same_bytes_have_the_same_tag(kind: Kind) {
    let world = text(kind).await;
    assert_eq!(etag(&world.get("/a").await), etag(&world.get("/a?offset=-1").await));
    let tag = etag(&world.get("/a").await);
    assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
}

async fn tags_differ_where_answers_differ(kind: Kind) {
    let world = text(kind).await;
    world.stream("/b", "text/plain", "abcdef").await;
    let mut tags = vec![etag(&world.get("/a").await), etag(&world.get("/b").await)];
    for position in [1, 3, 6] {
        tags.push(etag(&world.get(&format!("/a?offset={}", offset(position))).await));
    }
    world.append("/a", "text/plain", "g").await;
    tags.push(etag(&world.get("/a").await));
    world.close("/a").await;
    tags.push(etag(&world.get("/a").await));
    tags.push(etag(&world.get(&format!("/a?offset={}", offset(7))).await));
    let all = tags.len();
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), all, "{tags:?}");
}

async fn what_is_held_is_not_sent_again(kind: Kind) {
    let world = text(kind).await;
    let tag = etag(&world.get("/a").await);
    for tags in [
        tag.clone(),
        format!("W/{tag}"),
        format!("\"other\", {tag}"),
        format!("\"a,b\",W/{tag}  ,\"c\""),
        "*".to_owned(),
        format!("\"x\"\r\nif-none-match: {tag}"),
    ] {
        let reply = ask(&world, "/a", &tags).await;
        assert_eq!((reply.status, reply.body.len()), (304, 0), "{tags}");
        assert_eq!(reply.header("content-length"), None, "{tags}");
        assert_eq!(etag(&reply), tag);
    }
}

async fn other_tags_do_not_match(kind: Kind) {
    let world = text(kind).await;
    let tag = etag(&world.get("/a").await);
    let bare = tag.trim_matches('"').to_owned();
    for tags in [
        bare.clone(),
        format!("\"{bare}"),
        format!("\"{bare}:c\""),
        format!("\"x{bare}\""),
        String::new(),
        "W/".to_owned(),
        "\"\u{e9}\"".to_owned(),
    ] {
        let reply = ask(&world, "/a", &tags).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "abcdef"), "{tags:?}");
    }
    world.append("/a", "text/plain", "g").await;
    assert_eq!(ask(&world, "/a", &tag).await.text(), "abcdefg");
    assert_eq!(ask(&world, &format!("/a?offset={}", offset(1)), &tag).await.status, 200);
}

async fn a_closure_is_never_hidden(kind: Kind) {
    let world = text(kind).await;
    for path in ["/a".to_owned(), format!("/a?offset={}", offset(6))] {
        let open = etag(&world.get(&path).await);
        world.close("/a").await;
        let reply = ask(&world, &path, &open).await;
        assert_eq!((reply.status, reply.header("stream-closed")), (200, Some("true")), "{path}");
        let closed = etag(&reply);
        let again = ask(&world, &path, &closed).await;
        assert_eq!((again.status, again.header("stream-closed")), (304, Some("true")));
        world.delete("/a").await;
        world.stream("/a", "text/plain", "abcdef").await;
    }
}

/// A cache finds what to refresh by the tag, weak or strong, and by what the answer varies on.
async fn not_modified_says_what_the_full_answer_would(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc ".repeat(2_000)).await;
    for accepted in ["", "accept-encoding: gzip\r\n"] {
        let full = world.ask("GET", "/a", accepted, b"").await;
        assert_eq!(full.header("content-encoding").is_some(), !accepted.is_empty());
        let fields = format!("{accepted}if-none-match: {}\r\n", etag(&full));
        let again = world.ask("GET", "/a", &fields, b"").await;
        assert_eq!(again.status, 304);
        for name in [
            "etag",
            "cache-control",
            "vary",
            "stream-next-offset",
            "stream-up-to-date",
            "access-control-allow-origin",
        ] {
            assert_eq!(again.header(name), full.header(name), "{name} with {accepted:?}");
        }
    }
}

async fn live_reads_and_now_have_their_own_rules(kind: Kind) {
    let world = text(kind).await;
    assert_eq!(ask(&world, "/a?offset=now", "*").await.status, 200, "now has no tag");
    let tag = etag(&world.get("/a?offset=-1&live=long-poll").await);
    let reply = ask(&world, "/a?offset=-1&live=long-poll", &tag).await;
    assert_eq!(reply.status, 304);
    assert!(reply.header("stream-cursor").is_some());
    let sse = world.sse("/a?offset=-1&live=sse", &format!("if-none-match: {tag}\r\n")).await;
    assert_eq!(sse.head.status, 200);
}
