//! `DELETE` (PROTOCOL §5.4). Soft deletion is in `fork`.

use crate::world::{Kind, World};

for_each_kind![
    a_deleted_stream_is_gone,
    a_deleted_stream_can_be_created_anew,
    nothing_of_the_old_stream_comes_back,
    deleting_frees_its_bytes,
];

const TEXT: &str = "content-type: text/plain\r\n";

async fn a_deleted_stream_is_gone(kind: Kind) {
    let world = World::new(kind);
    assert_eq!(world.delete("/a").await.status, 404);
    world.stream("/a", "text/plain", "abc").await;
    let reply = world.delete("/a").await;
    assert_eq!((reply.status, reply.body.len()), (204, 0));
    assert_eq!(reply.header("content-length"), None);
    for method in ["GET", "HEAD", "POST", "DELETE"] {
        let body: &[u8] = if method == "POST" { b"x" } else { b"" };
        assert_eq!(world.ask(method, "/a", TEXT, body).await.status, 404, "{method}");
    }
}

async fn a_deleted_stream_can_be_created_anew(kind: Kind) {
    let world = World::new(kind);
    for (content_type, body) in [("text/plain", "abc"), ("application/json", "[1]")] {
        world.stream("/a", content_type, body).await;
        assert_eq!(world.get("/a").await.text(), body);
        assert_eq!(world.delete("/a").await.status, 204);
    }
}

async fn nothing_of_the_old_stream_comes_back(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "").await;
    let writer = format!(
        "{TEXT}producer-id: p\r\nproducer-epoch: 3\r\nproducer-seq: 0\r\nstream-seq: 9\r\n"
    );
    assert_eq!(world.post("/a", &writer, "old").await.status, 200);
    world.close("/a").await;
    world.delete("/a").await;
    world.stream("/a", "text/plain", "").await;
    let fresh = writer.replace("epoch: 3", "epoch: 0").replace("stream-seq: 9", "stream-seq: 1");
    assert_eq!(world.post("/a", &fresh, "new").await.status, 200);
    assert_eq!(world.get("/a").await.text(), "new");
}

async fn deleting_frees_its_bytes(kind: Kind) {
    let world = World::with(kind, |setup| {
        setup.limits.max_total = Some(10);
        setup.limits.max_streams = Some(1);
    });
    for _ in 0..3 {
        world.stream("/a", "text/plain", "0123456789").await;
        assert_eq!(world.post("/a", TEXT, "x").await.status, 507);
        world.delete("/a").await;
        world.stored();
    }
}
