//! Idempotent producers (PROTOCOL §5.2.1): exactly once, fenced, gaps reported.

use crate::support::Reply;
use crate::world::{Kind, World, offset, request};

for_each_kind![
    new_data_is_200_and_a_retry_204,
    a_new_epoch_takes_over_and_fences_the_old_one,
    a_gap_says_what_was_expected,
    an_unknown_producer_starts_at_zero,
    all_three_headers_or_none,
    malformed_headers_are_refused,
    producers_do_not_know_each_other,
    a_retry_is_recognised_before_stream_seq,
    a_refused_append_does_not_count,
    a_retry_of_the_closing_append_is_recognised,
    nothing_else_gets_past_a_closure,
    close_only_is_sequenced_too,
    pipelined_requests_are_accepted_in_order,
    the_same_request_at_once_is_stored_once,
];

const TEXT: &str = "content-type: text/plain\r\n";

fn producer(id: &str, epoch: u64, seq: u64) -> String {
    format!("{TEXT}producer-id: {id}\r\nproducer-epoch: {epoch}\r\nproducer-seq: {seq}\r\n")
}

async fn send(world: &World, epoch: u64, seq: u64, body: &str) -> Reply {
    world.post("/a", &producer("p", epoch, seq), body).await
}

/// Epoch and sequence number as the answer gives them.
fn state(reply: &Reply) -> (&str, &str) {
    (reply.header("producer-epoch").unwrap_or("-"), reply.header("producer-seq").unwrap_or("-"))
}

async fn text(kind: Kind) -> World {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "").await;
    world
}

async fn new_data_is_200_and_a_retry_204(kind: Kind) {
    let world = text(kind).await;
    for (seq, status, highest) in [(0, 200, "0"), (0, 204, "0"), (1, 200, "1"), (0, 204, "1")] {
        let reply = send(&world, 0, seq, &seq.to_string()).await;
        assert_eq!((reply.status, state(&reply)), (status, ("0", highest)), "{seq}");
        assert!(reply.header("stream-next-offset").is_some());
    }
    assert_eq!(world.get("/a").await.text(), "01");
    // A retry is judged by its numbers, not by its bytes.
    assert_eq!(send(&world, 0, 1, "something else").await.status, 204);
    assert_eq!(world.get("/a").await.text(), "01");
}

async fn a_new_epoch_takes_over_and_fences_the_old_one(kind: Kind) {
    let world = text(kind).await;
    assert_eq!(send(&world, 3, 0, "a").await.status, 200, "any epoch may be the first");
    let reply = send(&world, 5, 1, "x").await;
    assert_eq!((reply.status, reply.code().as_str()), (400, "epoch-must-start-at-zero"));
    let reply = send(&world, 5, 0, "b").await;
    assert_eq!((reply.status, state(&reply)), (200, ("5", "0")));
    for seq in [0, 1, 9] {
        let reply = send(&world, 3, seq, "zombie").await;
        assert_eq!((reply.status, reply.code().as_str()), (403, "stale-epoch"), "{seq}");
        assert_eq!(reply.header("producer-epoch"), Some("5"));
        assert_eq!(reply.header("stream-next-offset"), Some("0000000000000000_0000000000000002"));
    }
    assert_eq!(world.get("/a").await.text(), "ab");
}

async fn a_gap_says_what_was_expected(kind: Kind) {
    let world = text(kind).await;
    send(&world, 0, 0, "a").await;
    let reply = send(&world, 0, 3, "x").await;
    assert_eq!((reply.status, reply.code().as_str()), (409, "sequence-gap"));
    assert_eq!(reply.header("producer-expected-seq"), Some("1"));
    assert_eq!(reply.header("producer-received-seq"), Some("3"));
    assert_eq!(reply.header("stream-next-offset"), Some("0000000000000000_0000000000000001"));
    assert_eq!(reply.header("stream-closed"), None);
    assert_eq!(send(&world, 0, 1, "b").await.status, 200);
    assert_eq!(world.get("/a").await.text(), "ab");
}

async fn an_unknown_producer_starts_at_zero(kind: Kind) {
    let world = text(kind).await;
    let reply = send(&world, 0, 1, "x").await;
    assert_eq!((reply.status, reply.code().as_str()), (409, "sequence-gap"));
    assert_eq!(reply.header("producer-expected-seq"), Some("0"));
}

async fn all_three_headers_or_none(kind: Kind) {
    let world = text(kind).await;
    let lines = ["producer-id: p\r\n", "producer-epoch: 0\r\n", "producer-seq: 0\r\n"];
    for given in 1..7_usize {
        let some: String = (0..3).filter(|i| given & (1 << i) != 0).map(|i| lines[i]).collect();
        let reply = world.post("/a", &format!("{TEXT}{some}"), "x").await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "partial-producer"), "{some}");
    }
}

async fn malformed_headers_are_refused(kind: Kind) {
    let world = text(kind).await;
    let long = "x".repeat(257);
    for (id, epoch, seq) in [
        ("", "0", "0"),
        (long.as_str(), "0", "0"),
        ("p\u{e9}", "0", "0"),
        ("p", "-1", "0"),
        ("p", "1.0", "0"),
        ("p", "one", "0"),
        ("p", "", "0"),
        ("p", "9007199254740992", "0"),
        ("p", "0", "+0"),
        ("p", "0", "00"),
        ("p", "0", "0x0"),
        ("p", "0", "9007199254740992"),
        ("p", "0", "99999999999999999999999"),
    ] {
        let fields = format!(
            "{TEXT}producer-id: {id}\r\nproducer-epoch: {epoch}\r\nproducer-seq: {seq}\r\n"
        );
        let reply = world.post("/a", &fields, "x").await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "invalid-header"), "{fields}");
    }
    let twice = format!("{}producer-seq: 1\r\n", producer("p", 0, 0));
    assert_eq!(world.post("/a", &twice, "x").await.status, 400, "a repeated header is ambiguous");
    assert_eq!(send(&world, 9_007_199_254_740_991, 0, "y").await.status, 200);
    assert_eq!(world.get("/a").await.text(), "y");
}

async fn producers_do_not_know_each_other(kind: Kind) {
    let world = text(kind).await;
    for id in ["p", "P", "p/1", "\"p\"", "a b"] {
        assert_eq!(world.post("/a", &producer(id, 7, 0), "x").await.status, 200, "{id}");
    }
    world.stream("/b", "text/plain", "").await;
    assert_eq!(world.post("/b", &producer("p", 0, 0), "x").await.status, 200, "per stream");
}

async fn a_retry_is_recognised_before_stream_seq(kind: Kind) {
    let world = text(kind).await;
    let fields = format!("{}stream-seq: 5\r\n", producer("p", 0, 0));
    assert_eq!(world.post("/a", &fields, "x").await.status, 200);
    assert_eq!(world.post("/a", &fields, "x").await.status, 204, "a retry, not a regression");
    let next = format!("{}stream-seq: 5\r\n", producer("p", 0, 1));
    assert_eq!(world.post("/a", &next, "x").await.code(), "sequence-regression");
}

async fn a_refused_append_does_not_count(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "application/json", "").await;
    let fields = producer("p", 0, 0).replace("text/plain", "application/json");
    assert_eq!(world.post("/a", &fields, "{").await.code(), "invalid-json");
    assert_eq!(world.post("/a", &fields, "[]").await.code(), "empty-json-array");
    assert_eq!(world.post("/a", &fields, "{}").await.status, 200, "the number is still free");
}

async fn a_retry_of_the_closing_append_is_recognised(kind: Kind) {
    let world = text(kind).await;
    send(&world, 0, 0, "a").await;
    let closing = format!("{}stream-closed: true\r\n", producer("p", 0, 1));
    for status in [200, 204, 204] {
        let reply = world.post("/a", &closing, "b").await;
        assert_eq!((reply.status, state(&reply)), (status, ("0", "1")));
        assert_eq!(reply.header("stream-closed"), Some("true"));
        assert_eq!(reply.header("stream-next-offset"), Some(offset(2).as_str()));
    }
    // §5.2.1 asks for the producer's numbers only.
    assert_eq!(send(&world, 0, 1, "b").await.status, 204);
    assert_eq!(world.get("/a").await.text(), "ab");
}

async fn nothing_else_gets_past_a_closure(kind: Kind) {
    let world = text(kind).await;
    send(&world, 1, 0, "a").await;
    let closing = format!("{}stream-closed: true\r\n", producer("p", 1, 1));
    assert_eq!(world.post("/a", &closing, "b").await.status, 200);
    for fields in [
        producer("p", 1, 0),
        producer("p", 1, 2),
        producer("p", 0, 1),
        producer("p", 2, 0),
        producer("q", 1, 1),
        TEXT.to_owned(),
        format!("{TEXT}stream-closed: true\r\n"),
    ] {
        let reply = world.post("/a", &fields, "x").await;
        assert_eq!((reply.status, reply.code().as_str()), (409, "stream-closed"), "{fields}");
        assert_eq!(reply.header("stream-closed"), Some("true"));
        assert_eq!(reply.header("stream-next-offset"), Some(offset(2).as_str()));
    }
}

async fn close_only_is_sequenced_too(kind: Kind) {
    let world = text(kind).await;
    send(&world, 0, 0, "a").await;
    let close = |epoch, seq| format!("{}stream-closed: true\r\n", producer("p", epoch, seq));
    assert_eq!(world.post("/a", &close(0, 2), "").await.code(), "sequence-gap");
    let reply = world.post("/a", &close(0, 1), "").await;
    assert_eq!((reply.status, state(&reply)), (204, ("0", "1")));
    assert_eq!(reply.header("stream-closed"), Some("true"));
    assert_eq!(world.post("/a", &close(0, 1), "").await.status, 204, "a retry");
    assert_eq!(world.post("/a", "stream-closed: true\r\n", "").await.status, 204);
    assert_eq!(world.post("/a", &close(0, 2), "").await.code(), "stream-closed");
}

async fn pipelined_requests_are_accepted_in_order(kind: Kind) {
    let world = text(kind).await;
    let mut client = world.server.connect().await;
    let bodies: Vec<String> = (0..20).map(|seq| format!("<{seq}>")).collect();
    let requests: Vec<Vec<u8>> = (0..20)
        .map(|seq| request("POST", "/a", &producer("p", 0, seq as u64), bodies[seq].as_bytes()))
        .collect();
    client.send(requests.concat()).await;
    for seq in 0..20 {
        assert_eq!(client.reply().await.status, 200, "{seq}");
    }
    assert_eq!(world.get("/a").await.text(), bodies.concat());
}

async fn the_same_request_at_once_is_stored_once(kind: Kind) {
    let world = text(kind).await;
    let fields = producer("p", 0, 0);
    let ask = || world.post("/a", &fields, "once");
    let (a, b, c, d) = tokio::join!(ask(), ask(), ask(), ask());
    let mut statuses = [a.status, b.status, c.status, d.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 204, 204, 204]);
    assert_eq!(world.get("/a").await.text(), "once");
}
