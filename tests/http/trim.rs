//! `PATCH`: trims and changes of the expiry, and what readers find after them (§4, §5.6; extensions of this server).

use serde_json::json;

use crate::support::Reply;
use crate::world::{Kind, ROUTE, World, soon};

const TEXT: &str = "content-type: text/plain\r\n";

for_each_kind![
    what_is_before_the_earliest_offset_is_gone,
    an_untrimmed_stream_says_nothing_of_trims,
    a_trim_is_the_same_done_twice_and_never_goes_back,
    a_trim_lies_between_appends_or_messages,
    everything_can_be_trimmed_and_the_stream_goes_on,
    a_long_poll_and_events_behind_a_trim_end,
    live_readers_at_the_tail_notice_nothing,
    a_fork_keeps_what_it_inherits_and_a_late_one_begins_at_the_trim,
    caches_ask_again_for_the_beginning_and_tags_change,
    a_patch_that_changes_nothing_or_names_nothing_is_refused,
    an_expiry_is_changed_and_ended,
    trimmed_bytes_make_room,
    browsers_may_patch_and_see_the_earliest_offset,
];

fn raw(reply: &Reply) -> String {
    reply.offset.clone().unwrap_or_else(|| panic!("no offset: {reply:?}"))
}

async fn trim(world: &World, path: &str, before: &str) -> Reply {
    world.ask("PATCH", path, &format!("stream-trim-before: {before}\r\n"), b"").await
}

fn earliest(reply: &Reply) -> Option<&str> {
    reply.header("stream-earliest-offset")
}

/// A stream of three appends, and the offsets behind them.
async fn three(world: &World, path: &str) -> [String; 3] {
    world.stream(path, "text/plain", "").await;
    let mut ends = Vec::new();
    for part in ["one,", "two,", "three"] {
        ends.push(raw(&world.append(path, "text/plain", part).await));
    }
    ends.try_into().unwrap()
}

async fn what_is_before_the_earliest_offset_is_gone(kind: Kind) {
    let world = World::new(kind);
    let [one, two, three] = three(&world, "/a").await;
    let trimmed = trim(&world, "/a", &one).await;
    assert_eq!((trimmed.status, earliest(&trimmed)), (204, Some(&*one)), "{trimmed:?}");
    assert_eq!(trimmed.body.len(), 0);
    for from in ["", "?offset=-1", &format!("?offset={one}")] {
        let read = world.get(&format!("/a{from}")).await;
        assert_eq!((read.status, read.text().as_str()), (200, "two,three"), "{from}");
        assert_eq!((raw(&read), earliest(&read)), (three.clone(), Some(&*one)), "{from}");
    }
    let rest = world.get(&format!("/a?offset={two}")).await;
    assert_eq!((rest.text().as_str(), earliest(&rest)), ("three", Some(&*one)));
    let head = world.head("/a").await;
    assert_eq!((head.status, earliest(&head), raw(&head)), (200, Some(&*one), three.clone()));
    let start = "0000000000000000_0000000000000000";
    for live in ["", "&live=long-poll", "&live=sse"] {
        let gone = world.get(&format!("/a?offset={start}{live}")).await;
        assert_eq!((gone.status, gone.code().as_str()), (410, "offset-trimmed"), "{live}");
        assert_eq!(earliest(&gone), Some(&*one), "{live}");
        assert_eq!(gone.header("cache-control"), Some("no-store"), "{live}");
    }
    let now = world.get("/a?offset=now").await;
    assert_eq!((now.status, raw(&now)), (200, three));
    assert_eq!(world.post("/a", TEXT, ".").await.status, 204, "writers go on");
    assert_eq!(world.get("/a").await.text(), "two,three.");
}

async fn an_untrimmed_stream_says_nothing_of_trims(kind: Kind) {
    let world = World::new(kind);
    let [_, _, end] = three(&world, "/a").await;
    for reply in [
        world.get("/a").await,
        world.head("/a").await,
        world.get(&format!("/a?offset={end}")).await,
        world.get("/a?offset=now").await,
    ] {
        assert_eq!((reply.status, earliest(&reply)), (200, None), "{reply:?}");
    }
    let nothing = trim(&world, "/a", "0000000000000000_0000000000000000").await;
    assert_eq!((nothing.status, earliest(&nothing)), (204, None), "nothing was before it");
}

async fn a_trim_is_the_same_done_twice_and_never_goes_back(kind: Kind) {
    let world = World::new(kind);
    let [one, two, end] = three(&world, "/a").await;
    for before in [&two, &two, &one] {
        let trimmed = trim(&world, "/a", before).await;
        assert_eq!((trimmed.status, earliest(&trimmed)), (204, Some(&*two)));
    }
    let (incarnation, position) = end.split_once('_').unwrap();
    let beyond = format!("{incarnation}_{:016}", position.parse::<u64>().unwrap() + 1);
    let refused = trim(&world, "/a", &beyond).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "offset-beyond-tail"));
    assert_eq!(world.delete("/a").await.status, 204);
    assert_eq!(trim(&world, "/a", &two).await.status, 404);
    world.stream("/a", "text/plain", "another").await;
    let refused = trim(&world, "/a", &two).await;
    assert_eq!((refused.status, refused.code().as_str()), (410, "offset-of-deleted-stream"));
    assert_eq!(world.get("/a").await.text(), "another");
}

async fn a_trim_lies_between_appends_or_messages(kind: Kind) {
    let world = World::new(kind);
    let [one, two, _] = three(&world, "/a").await;
    let (incarnation, position) = two.split_once('_').unwrap();
    let inside = format!("{incarnation}_{:016}", position.parse::<u64>().unwrap() - 1);
    let trimmed = trim(&world, "/a", &inside).await;
    assert_eq!((trimmed.status, earliest(&trimmed)), (204, Some(&*one)), "moved back");

    world.stream("/j", "application/json", "[1,22,333]").await;
    let end = raw(&world.head("/j").await);
    let (incarnation, _) = end.split_once('_').unwrap();
    let refused = trim(&world, "/j", &format!("{incarnation}_0000000000000003")).await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "offset-inside-message"));
    let second = format!("{incarnation}_0000000000000002");
    let trimmed = trim(&world, "/j", &second).await;
    assert_eq!((trimmed.status, earliest(&trimmed)), (204, Some(&*second)));
    assert_eq!(world.get("/j").await.text(), "[22,333]");
    assert_eq!(world.get(&format!("/j?offset={second}")).await.text(), "[22,333]");
}

async fn everything_can_be_trimmed_and_the_stream_goes_on(kind: Kind) {
    let world = World::new(kind);
    for (path, content_type, first, second) in
        [("/a", "text/plain", "old", "new"), ("/j", "application/json", "[1]", "[2]")]
    {
        world.stream(path, content_type, first).await;
        let end = raw(&world.head(path).await);
        assert_eq!(trim(&world, path, &end).await.status, 204);
        let read = world.get(path).await;
        let empty = if path == "/a" { "" } else { "[]" };
        assert_eq!((read.status, read.text().as_str()), (200, empty));
        assert_eq!(read.header("stream-up-to-date"), Some("true"));
        world.append(path, content_type, second).await;
        assert_eq!(world.get(path).await.text(), second);
        assert_eq!(world.get(&format!("{path}?offset={end}")).await.text(), second);
        world.stored();
        assert_eq!(world.get(path).await.text(), second, "also from the index");
    }
}

async fn a_long_poll_and_events_behind_a_trim_end(kind: Kind) {
    let world = World::new(kind);
    let [one, _, end] = three(&world, "/a").await;
    // A reader that has all: its next bytes are appended and trimmed before it looks.
    let mut poll = world.poll(&format!("/a?offset={end}&live=long-poll")).await;
    let mut sse = world.sse(&format!("/a?offset={end}&live=sse"), "").await;
    assert_eq!(sse.event().await.name, "control");
    let engine = &world.engine;
    let path = durable_streams_protocol::StreamPath::new("a").unwrap();
    let append = durable_streams_protocol::Append {
        content_type: durable_streams_protocol::ContentType::parse("text/plain").map(Ok),
        ..Default::default()
    };
    // Both are decided before the server's threads run readers again, or not: either outcome is whole.
    let appended = engine.append(&path, &append, "four".into()).await.unwrap();
    engine.trim(&path, appended.next_offset).await.unwrap();
    let answer = soon(poll.reply()).await;
    match answer.status {
        200 => assert_eq!(answer.text(), "four"),
        status => assert_eq!((status, answer.code().as_str()), (410, "offset-trimmed")),
    }
    // It has the append, or its response ends and it gets the status when it comes back.
    if let Some(event) = soon(sse.next()).await {
        assert_eq!((event.name.as_str(), event.data.as_str()), ("data", "four"));
    }
    let gone = world.get(&format!("/a?offset={one}&live=sse")).await;
    assert_eq!((gone.status, earliest(&gone)), (410, Some(&*appended.next_offset.to_string())));
    let resumed = format!("last-event-id: {one}\r\n");
    let resumed = world.ask("GET", "/a?offset=-1&live=sse", &resumed, b"").await;
    assert_eq!(resumed.status, 410);
}

async fn live_readers_at_the_tail_notice_nothing(kind: Kind) {
    let world = World::new(kind);
    let [_, two, end] = three(&world, "/a").await;
    let mut poll = world.poll(&format!("/a?offset={end}&live=long-poll")).await;
    let mut sse = world.sse("/a?offset=-1&live=sse", "").await;
    assert_eq!(sse.catch_up().await.0.concat(), "one,two,three");
    assert_eq!(trim(&world, "/a", &two).await.status, 204);
    assert_eq!(trim(&world, "/a", &end).await.status, 204);
    world.append("/a", "text/plain", "four").await;
    let answer = soon(poll.reply()).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "four"));
    assert_eq!(earliest(&answer), Some(&*end));
    let event = soon(sse.next()).await.unwrap();
    assert_eq!((event.name.as_str(), event.data.as_str()), ("data", "four"));
    let late = world.sse("/a?offset=-1&live=sse", "").await;
    assert_eq!(earliest(&late.head), Some(&*end));
}

async fn a_fork_keeps_what_it_inherits_and_a_late_one_begins_at_the_trim(kind: Kind) {
    let world = World::new(kind);
    let [one, two, end] = three(&world, "/a").await;
    let forked = |offset: &str| {
        format!("{TEXT}stream-forked-from: {ROUTE}/a\r\nstream-fork-offset: {offset}\r\n")
    };
    assert_eq!(world.put("/early", &forked(&two), "").await.status, 201);
    assert_eq!(trim(&world, "/a", &two).await.status, 204);
    world.stored();
    assert_eq!(world.get("/early").await.text(), "one,two,");
    assert_eq!(earliest(&world.head("/early").await), None);
    let gone = world.put("/late", &forked(&one), "").await;
    assert_eq!((gone.status, gone.code().as_str()), (410, "offset-trimmed"));
    assert_eq!(earliest(&gone), Some(&*two));
    assert_eq!(world.put("/late", &forked(&end), "").await.status, 201);
    let late = world.get("/late").await;
    assert_eq!((late.text().as_str(), earliest(&late)), ("three", Some(&*two)));
    // A fork is trimmed by itself, also within what it inherits.
    assert_eq!(trim(&world, "/early", &one).await.status, 204);
    assert_eq!(world.get("/early").await.text(), "two,");
    assert_eq!(world.get("/a").await.text(), "three");
    assert_eq!(world.delete("/early").await.status, 204);
    assert_eq!(world.delete("/late").await.status, 204);
    world.stored();
    assert_eq!(world.get("/a").await.text(), "three");
}

async fn caches_ask_again_for_the_beginning_and_tags_change(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_read = Some(4));
    let [one, two, _] = three(&world, "/a").await;
    let before = world.get("/a?offset=-1").await;
    let tag = before.header("etag").unwrap().to_owned();
    assert_eq!(trim(&world, "/a", &one).await.status, 204);
    let held = format!("if-none-match: {tag}\r\n");
    let after = world.ask("GET", "/a?offset=-1", &held, b"").await;
    assert_eq!((after.status, after.text().as_str()), (200, "two,"), "not the page that is held");
    assert_eq!(after.header("cache-control"), Some("no-cache"), "the next trim moves it");
    assert_ne!(after.header("etag"), Some(&*tag));
    let page = world.get(&format!("/a?offset={one}")).await;
    let keep = Some("public, max-age=60, stale-while-revalidate=300");
    assert_eq!((page.text().as_str(), page.header("cache-control")), ("two,", keep));
    let held = format!("if-none-match: {}\r\n", page.header("etag").unwrap());
    let same = world.ask("GET", &format!("/a?offset={one}"), &held, b"").await;
    assert_eq!((same.status, earliest(&same)), (304, Some(&*one)));
    assert_eq!(trim(&world, "/a", &two).await.status, 204);
    let gone = world.ask("GET", &format!("/a?offset={one}"), &held, b"").await;
    assert_eq!((gone.status, gone.code().as_str()), (410, "offset-trimmed"));
}

async fn a_patch_that_changes_nothing_or_names_nothing_is_refused(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc").await;
    for (fields, code) in [
        ("", "empty-patch"),
        ("stream-trim-before: now\r\n", "invalid-header"),
        ("stream-trim-before: -1\r\n", "invalid-header"),
        ("stream-ttl: soon\r\n", "invalid-header"),
        ("stream-ttl: 1\r\nstream-expires-at: 2030-01-01T00:00:00Z\r\n", "two-expiries"),
    ] {
        let refused = world.ask("PATCH", "/a", fields, b"").await;
        assert_eq!((refused.status, refused.code().as_str()), (400, code), "{fields}");
    }
    assert_eq!(world.ask("PATCH", "/none", "stream-ttl: 1\r\n", b"").await.status, 404);
}

async fn an_expiry_is_changed_and_ended(kind: Kind) {
    let world = World::new(kind);
    let created = format!("{TEXT}stream-ttl: 60\r\n");
    assert_eq!(world.put("/a", &created, "abc").await.status, 201);
    let patch = async |fields: &str| world.ask("PATCH", "/a", fields, b"").await.status;
    assert_eq!(patch("stream-ttl: 7\r\n").await, 204);
    assert_eq!(world.head("/a").await.header("stream-ttl"), Some("7"));
    assert_eq!(world.put("/a", &created, "").await.status, 409, "it has another one now");
    assert_eq!(world.put("/a", &created.replace("60", "7"), "").await.status, 200);
    assert_eq!(patch("stream-expires-at: 2999-01-31T12:00:00Z\r\n").await, 204);
    let head = world.head("/a").await;
    assert_eq!(head.header("stream-expires-at"), Some("2999-01-31T12:00:00Z"));
    assert_eq!(head.header("stream-ttl"), None);
    assert_eq!(patch("stream-expires-at: never\r\n").await, 204);
    let head = world.head("/a").await;
    assert_eq!((head.header("stream-ttl"), head.header("stream-expires-at")), (None, None));
    assert_eq!(patch("stream-expires-at: 2001-01-31T12:00:00Z\r\n").await, 204);
    assert_eq!(world.head("/a").await.status, 404, "its time is up");
}

async fn trimmed_bytes_make_room(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_total = Some(10));
    world.stream("/a", "text/plain", "01234567").await;
    let end = raw(&world.head("/a").await);
    assert_eq!(world.post("/a", TEXT, "xyz").await.status, 507);
    assert_eq!(trim(&world, "/a", &end).await.status, 204);
    assert_eq!(world.post("/a", TEXT, "0123456789").await.status, 204);
    assert_eq!(world.post("/a", TEXT, "x").await.status, 507);
}

async fn browsers_may_patch_and_see_the_earliest_offset(kind: Kind) {
    let world = World::new(kind);
    let [one, ..] = three(&world, "/a").await;
    let origin = "origin: https://app.example\r\n";
    let asked = format!(
        "{origin}access-control-request-method: PATCH\r\naccess-control-request-headers: stream-trim-before\r\n"
    );
    let preflight = world.ask("OPTIONS", "/a", &asked, b"").await;
    let has = |name: &str, word: &str| {
        preflight.header(name).unwrap().split(", ").any(|listed| listed.eq_ignore_ascii_case(word))
    };
    assert!(has("access-control-allow-methods", "PATCH"));
    assert!(has("access-control-allow-headers", "stream-trim-before"));
    let fields = format!("{origin}stream-trim-before: {one}\r\n");
    let trimmed = world.ask("PATCH", "/a", &fields, b"").await;
    assert_eq!(trimmed.status, 204);
    let exposed = trimmed.header("access-control-expose-headers").unwrap();
    assert!(exposed.contains("Stream-Earliest-Offset"), "{exposed}");
    let problem = world.get("/a?offset=0000000000000000_0000000000000000").await;
    let body: serde_json::Value = serde_json::from_str(&problem.text()).unwrap();
    assert_eq!((&body["status"], &body["code"]), (&json!(410), &json!("offset-trimmed")));
}
