//! JSON mode (PROTOCOL §9.1): one level flattened, whole POST or nothing, byte for byte.

use crate::world::{Kind, World, offset, position};

for_each_kind![
    one_level_is_flattened,
    messages_come_back_byte_for_byte,
    what_is_not_json_is_refused_as_a_whole,
    empty_arrays,
    deep_and_wide_bodies,
    every_offset_handed_out_is_a_boundary,
    media_types_that_only_look_like_json,
    parameters_do_not_matter,
];

const JSON: &str = "content-type: application/json\r\n";

async fn json(kind: Kind) -> World {
    let world = World::new(kind);
    world.stream("/a", "application/json", "").await;
    world
}

async fn one_level_is_flattened(kind: Kind) {
    for (body, read) in [
        ("{\"event\":\"created\"}", "[{\"event\":\"created\"}]"),
        ("[1,2]", "[1,2]"),
        ("[[1,2],[3,4]]", "[[1,2],[3,4]]"),
        ("[[[1,2,3]]]", "[[[1,2,3]]]"),
        ("[[]]", "[[]]"),
        ("null", "[null]"),
        ("\"[1]\"", "[\"[1]\"]"),
        (" \t\r\n[ 1 ,\n2 ]\n", "[1,2]"),
    ] {
        let world = json(kind).await;
        assert_eq!(world.post("/a", JSON, body).await.status, 204, "{body}");
        assert_eq!(world.get("/a").await.text(), read, "{body}");
        assert_eq!(world.put("/b", JSON, body).await.status, 201, "{body}");
        assert_eq!(world.get("/b").await.text(), read, "a PUT is read the same way: {body}");
    }
}

async fn messages_come_back_byte_for_byte(kind: Kind) {
    let world = json(kind).await;
    for message in [
        "12345678901234567890123456789",
        "-0.0",
        "1E400",
        "1.10",
        r#"{"b":1,"a":2,"b":3}"#,
        r#""\u00e9\/\ud83d\ude00""#,
        r#""\ud800""#,
        "{ \"spaced\" : [ 1 , 2 ] }",
        "\"\u{7f}\u{80}é😀\"",
        "{\"\":\"\"}",
    ] {
        let before = position(&world.head("/a").await);
        assert_eq!(world.post("/a", JSON, message).await.status, 204, "{message}");
        let read = world.get(&format!("/a?offset={}", offset(before))).await;
        assert_eq!(read.text(), format!("[{message}]"));
    }
}

async fn what_is_not_json_is_refused_as_a_whole(kind: Kind) {
    let world = json(kind).await;
    world.append("/a", "application/json", "1").await;
    let before = world.head("/a").await.header("stream-next-offset").unwrap().to_owned();
    let bad: [&[u8]; 14] = [
        b"{",
        b"[1,2",
        b"[1,,2]",
        b"[1,]",
        b"[1]]",
        b"1 2",
        b"{'a':1}",
        b"nul",
        b"01",
        b"\"\n\"",
        b"\"\x1e\"",
        b"\"\xff\"",
        b"\xef\xbb\xbf1",
        b" ",
    ];
    for body in bad {
        let reply = world.post("/a", JSON, body).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "invalid-json"), "{body:?}");
    }
    let after = world.head("/a").await;
    assert_eq!(after.header("stream-next-offset"), Some(before.as_str()));
    assert_eq!(world.get("/a").await.text(), "[1]");
}

async fn empty_arrays(kind: Kind) {
    let world = World::new(kind);
    let reply = world.put("/a", JSON, "[]").await;
    assert_eq!((reply.status, reply.header("stream-next-offset")), (201, Some(&*offset(0))));
    assert_eq!(world.get("/a").await.text(), "[]");
    for body in ["[]", " [ \n ] "] {
        assert_eq!(world.post("/a", JSON, body).await.code(), "empty-json-array", "{body:?}");
    }
}

async fn deep_and_wide_bodies(kind: Kind) {
    let world = json(kind).await;
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    assert_eq!(world.post("/a", JSON, &deep).await.status, 204);
    assert!(world.get("/a").await.text() == deep, "the outer level flattened, one level framed");
    let world = json(kind).await;
    let wide: Vec<String> = (0..20_000).map(|n| n.to_string()).collect();
    let wide = format!("[{}]", wide.join(","));
    assert_eq!(world.post("/a", JSON, &wide).await.status, 204);
    assert!(world.get("/a").await.text() == wide);
}

async fn every_offset_handed_out_is_a_boundary(kind: Kind) {
    let world = json(kind).await;
    let mut written = Vec::new();
    let mut ends = Vec::new();
    for n in 0..20 {
        written.push(format!("{{\"n\":{n}}}"));
        let reply = world.append("/a", "application/json", &written[n]).await;
        ends.push(reply.header("stream-next-offset").unwrap().to_owned());
    }
    for (n, end) in ends.iter().enumerate() {
        let rest = world.get(&format!("/a?offset={end}")).await;
        assert_eq!(rest.text(), format!("[{}]", written[n + 1..].join(",")));
    }
}

async fn media_types_that_only_look_like_json(kind: Kind) {
    let world = World::new(kind);
    for (index, media) in
        ["application/ndjson", "application/problem+json", "text/json"].into_iter().enumerate()
    {
        let path = format!("/{index}");
        world.stream(&path, media, "[1,").await;
        assert_eq!(world.get(&path).await.text(), "[1,", "{media} is bytes");
    }
}

async fn parameters_do_not_matter(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "Application/JSON; charset=utf-8", "[1]").await;
    world.append("/a", "application/json", "[2]").await;
    let read = world.get("/a").await;
    assert_eq!(read.text(), "[1,2]");
    assert_eq!(read.header("content-type"), Some("Application/JSON; charset=utf-8"));
}
