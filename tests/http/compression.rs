//! Content encoding of catch-up reads (RFC 9110 §12.5.3): when asked for and worth it, never on live reads.

use std::io::Read as _;

use crate::support::Reply;
use crate::world::{Kind, World, offset};

for_each_kind![
    each_coding_decodes_to_the_same_bytes,
    the_client_decides,
    small_answers_and_other_types_are_left_alone,
    json_is_framed_before_it_is_encoded,
    live_reads_are_not_encoded,
    encoded_parts_still_rebuild_the_stream,
];

fn decoded(reply: &Reply) -> Vec<u8> {
    assert_eq!(reply.header("content-length"), Some(reply.body.len().to_string().as_str()));
    let (body, mut out) = (&reply.body[..], Vec::new());
    match reply.header("content-encoding") {
        Some("gzip") => flate2::read::GzDecoder::new(body).read_to_end(&mut out),
        Some("br") => brotli::Decompressor::new(body, 4096).read_to_end(&mut out),
        Some("zstd") => zstd::Decoder::new(body).unwrap().read_to_end(&mut out),
        None => return reply.body.clone(),
        other => panic!("{other:?}"),
    }
    .unwrap();
    out
}

async fn ask(world: &World, path: &str, accepted: &str) -> Reply {
    world.ask("GET", path, &format!("accept-encoding: {accepted}\r\n"), b"").await
}

async fn each_coding_decodes_to_the_same_bytes(kind: Kind) {
    let world = World::new(kind);
    // Both on the thread that answers and on another.
    for size in [2_000, 50_000] {
        let path = format!("/{size}");
        let body = "all work and no play ".repeat(size / 20);
        world.stream(&path, "text/plain", &body).await;
        for coding in ["gzip", "br", "zstd"] {
            let reply = ask(&world, &path, coding).await;
            assert_eq!(reply.header("content-encoding"), Some(coding));
            assert_eq!(reply.header("vary"), Some("accept-encoding"));
            assert!(reply.header("etag").unwrap().starts_with("W/"), "not the same bytes");
            assert!(reply.body.len() < body.len() / 2);
            assert_eq!(decoded(&reply), body.as_bytes(), "{coding}");
        }
    }
}

async fn the_client_decides(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc ".repeat(2_000)).await;
    for (accepted, coding) in [
        ("gzip;q=0.5, br;q=0.9", Some("br")),
        ("gzip, zstd;q=0", Some("gzip")),
        ("GZIP", Some("gzip")),
        ("*;q=0", None),
        ("identity", None),
        ("identity;q=1, *;q=0", None),
        ("deflate", None),
        ("gzip;q=nonsense;x", Some("gzip")),
        ("\u{e9}", None),
        (",,;;", None),
        ("zstd\r\naccept-encoding: gzip", Some("zstd")),
        ("identity\r\naccept-encoding: gzip", Some("gzip")),
    ] {
        let reply = ask(&world, "/a", accepted).await;
        assert_eq!(reply.header("content-encoding"), coding, "{accepted:?}");
        assert_eq!(reply.header("vary"), Some("accept-encoding"), "{accepted:?}");
        assert_eq!(decoded(&reply).len(), 8_000);
    }
}

async fn small_answers_and_other_types_are_left_alone(kind: Kind) {
    let world = World::new(kind);
    world.stream("/small", "text/plain", "abc").await;
    world.stream("/binary", "application/octet-stream", "abc ".repeat(2_000)).await;
    world.stream("/image", "image/png", "abc ".repeat(2_000)).await;
    for path in ["/small", "/binary", "/image"] {
        let reply = ask(&world, path, "gzip, br, zstd").await;
        assert_eq!(reply.header("content-encoding"), None, "{path}");
        assert!(reply.header("etag").unwrap().starts_with('"'), "{path}");
    }
}

async fn json_is_framed_before_it_is_encoded(kind: Kind) {
    let world = World::new(kind);
    let array = format!("[{}]", vec!["{\"a\":1}"; 500].join(","));
    world.stream("/a", "application/json", &array).await;
    assert_eq!(decoded(&ask(&world, "/a", "gzip").await), array.as_bytes());
}

async fn live_reads_are_not_encoded(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc ".repeat(2_000)).await;
    let poll = ask(&world, "/a?offset=-1&live=long-poll", "gzip").await;
    assert_eq!((poll.header("content-encoding"), poll.body.len()), (None, 8_000));
    let sse = world.sse("/a?offset=-1&live=sse", "accept-encoding: gzip\r\n").await;
    assert_eq!(sse.head.header("content-encoding"), None);
}

async fn encoded_parts_still_rebuild_the_stream(kind: Kind) {
    let world = World::with(kind, |setup| setup.limits.max_read = Some(3_000));
    let body: String = (0..5_000).map(|n| format!("{n},")).collect();
    world.stream("/a", "text/plain", &body).await;
    let mut read = Vec::new();
    let mut from = offset(0);
    loop {
        let reply = ask(&world, &format!("/a?offset={from}"), "zstd").await;
        read.extend(decoded(&reply));
        from = reply.header("stream-next-offset").unwrap().to_owned();
        if reply.header("stream-up-to-date").is_some() {
            break;
        }
    }
    assert_eq!(read, body.as_bytes());
}
