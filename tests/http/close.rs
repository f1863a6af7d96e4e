//! Closing (PROTOCOL §4.1, §5.2, §5.3): once, for ever, seen by every reader.

use crate::world::{Kind, World, offset};

for_each_kind![
    closing_is_idempotent,
    only_true_closes_in_any_case,
    append_and_close_is_one_step,
    append_and_close_is_not_idempotent,
    a_close_ignores_the_content_type,
    the_final_offset_comes_with_the_refusal,
    closure_is_told_in_every_mode,
    a_refused_final_append_does_not_close,
    closing_in_json_mode,
];

const TEXT: &str = "content-type: text/plain\r\n";
const CLOSE: &str = "stream-closed: true\r\n";

async fn closing_is_idempotent(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc").await;
    for _ in 0..3 {
        let reply = world.post("/a", CLOSE, "").await;
        assert_eq!((reply.status, reply.header("stream-closed")), (204, Some("true")));
        assert_eq!(reply.header("stream-next-offset"), Some(offset(3).as_str()));
    }
    assert_eq!(world.post("/none", CLOSE, "").await.status, 404);
}

async fn only_true_closes_in_any_case(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "").await;
    for value in ["false", "yes", "1", "", "truee", "true, true", "\"true\"", "tru\u{e9}"] {
        let fields = format!("{TEXT}stream-closed: {value}\r\n");
        let reply = world.post("/a", &fields, "x").await;
        assert_eq!((reply.status, reply.header("stream-closed")), (204, None), "{value:?}");
    }
    for lines in [
        "stream-closed: true\r\nstream-closed: false\r\n",
        "stream-closed: false\r\nstream-closed: true\r\n",
    ] {
        let reply = world.post("/a", &format!("{TEXT}{lines}"), "x").await;
        assert_eq!(reply.header("stream-closed"), None, "undecided, so it stays open: {lines}");
    }
    for value in ["true", "TRUE", "tRuE", "  true  "] {
        let path = format!("/{}", value.replace(' ', "_"));
        world.stream(&path, "text/plain", "").await;
        let reply = world.post(&path, &format!("stream-closed: {value}\r\n"), "").await;
        assert_eq!((reply.status, reply.header("stream-closed")), (204, Some("true")), "{value:?}");
    }
}

async fn append_and_close_is_one_step(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "").await;
    let mut sse = world.sse("/a?offset=now&live=sse", "").await;
    assert_eq!(sse.event().await.control()["upToDate"], true);
    let reply = world.post("/a", &format!("{TEXT}{CLOSE}"), "last").await;
    assert_eq!((reply.status, reply.header("stream-closed")), (204, Some("true")));
    assert_eq!(sse.event().await.data, "last");
    assert_eq!(sse.event().await.control()["streamClosed"], true, "no step in between was seen");
    assert!(sse.next().await.is_none());
}

async fn append_and_close_is_not_idempotent(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "").await;
    assert_eq!(world.post("/a", &format!("{TEXT}{CLOSE}"), "last").await.status, 204);
    let again = world.post("/a", &format!("{TEXT}{CLOSE}"), "last").await;
    assert_eq!((again.status, again.header("stream-closed")), (409, Some("true")));
    assert_eq!(world.get("/a").await.text(), "last");
}

/// Clients and libraries attach types to empty bodies; §5.2 forbids to refuse them for it.
async fn a_close_ignores_the_content_type(kind: Kind) {
    let world = World::new(kind);
    for (index, line) in [
        "content-type: application/json\r\n",
        "content-type: nonsense\r\n",
        "content-type: tex\u{e9}/plain\r\n",
        "content-type: text/plain\r\ncontent-type: text/html\r\n",
        "content-type:\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/{index}");
        world.stream(&path, "text/plain", "").await;
        let reply = world.post(&path, &format!("{line}{CLOSE}"), "").await;
        assert_eq!(reply.status, 204, "{line:?}: {reply:?}");
        let with_body = world.post(&path, &format!("{line}{CLOSE}"), "x").await;
        assert_eq!(with_body.code(), "stream-closed", "{line:?}: closed counts first");
    }
}

async fn the_final_offset_comes_with_the_refusal(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc").await;
    world.close("/a").await;
    let reply = world.post("/a", TEXT, "x").await;
    assert_eq!((reply.status, reply.code().as_str()), (409, "stream-closed"));
    assert_eq!(reply.header("stream-closed"), Some("true"));
    assert_eq!(reply.header("stream-next-offset"), Some(offset(3).as_str()));
}

async fn closure_is_told_in_every_mode(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc").await;
    world.close("/a").await;
    let tail = offset(3);
    for (path, status, body) in [
        ("/a".to_owned(), 200, "abc"),
        (format!("/a?offset={tail}"), 200, ""),
        ("/a?offset=now".to_owned(), 200, ""),
        ("/a?offset=now&live=long-poll".to_owned(), 204, ""),
        (format!("/a?offset={tail}&live=long-poll"), 204, ""),
        ("/a?offset=-1&live=long-poll".to_owned(), 200, "abc"),
    ] {
        let reply = world.get(&path).await;
        assert_eq!((reply.status, reply.text().as_str()), (status, body), "{path}");
        assert_eq!(reply.header("stream-closed"), Some("true"), "{path}");
        assert_eq!(reply.header("stream-up-to-date"), Some("true"), "{path}");
        assert_eq!(reply.header("stream-next-offset"), Some(tail.as_str()), "{path}");
    }
    assert_eq!(world.head("/a").await.header("stream-closed"), Some("true"));
    for from in ["now", tail.as_str()] {
        let mut sse = world.sse(&format!("/a?offset={from}&live=sse"), "").await;
        let control = sse.event().await.control();
        assert_eq!((&control["streamClosed"], &control["upToDate"]), (&true.into(), &true.into()));
        assert_eq!(control["streamNextOffset"], tail);
        assert!(sse.next().await.is_none(), "the only event");
    }
}

async fn a_refused_final_append_does_not_close(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "application/json", "").await;
    let fields = format!("content-type: application/json\r\n{CLOSE}");
    for (body, code) in [("{", "invalid-json"), ("[]", "empty-json-array")] {
        assert_eq!(world.post("/a", &fields, body).await.code(), code);
        assert_eq!(world.head("/a").await.header("stream-closed"), None);
    }
    let other = format!("{TEXT}{CLOSE}");
    assert_eq!(world.post("/a", &other, "{}").await.code(), "content-type-mismatch");
    assert_eq!(world.head("/a").await.header("stream-closed"), None);
}

async fn closing_in_json_mode(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "application/json", "[1,2]").await;
    let reply = world.post("/a", &format!("content-type: application/json\r\n{CLOSE}"), "3").await;
    let tail = reply.header("stream-next-offset").unwrap().to_owned();
    let read = world.get("/a").await;
    assert_eq!((read.text().as_str(), read.header("stream-closed")), ("[1,2,3]", Some("true")));
    let end = world.get(&format!("/a?offset={tail}")).await;
    assert_eq!((end.text().as_str(), end.header("stream-closed")), ("[]", Some("true")));
}
