//! A graceful stop: appends under way are answered, live readers are told within a second.

use std::time::Duration;

use durable_streams_server::server::Stopped;

use crate::support::eventually;
use crate::world::{Kind, ROUTE, World, offset, soon};

for_each_kind![
    #[only(http1, proxied, http2; "the host stops an embedded server")]
    live_readers_are_told_at_once,
    #[only(http1, proxied; "looks at the listener and at the connection")]
    an_append_under_way_is_answered,
];

/// What a stop may take on a busy machine when there is nothing to wait for; the bound that is promised
/// is a second, a stop that waits for what it should not takes ten.
const PROMPT: Duration = Duration::from_secs(2);

async fn live_readers_are_told_at_once(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "abc").await;
    let mut polls = Vec::new();
    for _ in 0..20 {
        polls.push(world.poll("/a?offset=now&live=long-poll").await);
    }
    let mut events = Vec::new();
    for _ in 0..20 {
        let mut sse = world.sse("/a?offset=-1&live=sse", "").await;
        sse.catch_up().await;
        events.push(sse);
    }
    let World { server, engine, .. } = world;
    server.stop();
    for mut poll in polls {
        let reply = soon(poll.reply()).await;
        assert_eq!(reply.status, 204);
        assert_eq!(reply.header("stream-next-offset"), Some(offset(3).as_str()));
        assert_eq!(reply.header("stream-closed"), None, "the server stops, not the stream");
        assert!(reply.header("stream-cursor").is_some());
    }
    for mut sse in events {
        let control = soon(sse.event()).await.control();
        assert_eq!(control["streamNextOffset"], offset(3));
        assert!(control.get("streamClosed").is_none());
        assert!(soon(sse.next()).await.is_none(), "the response ends as it should");
    }
    let (stopped, took) = server.ended().await;
    assert_eq!(stopped, Stopped::Drained);
    assert!(took < PROMPT, "{took:?}");
    let stats = engine.stats();
    assert_eq!((stats.live_readers, stats.inflight_append_bytes), (0, 0));
}

async fn an_append_under_way_is_answered(kind: Kind) {
    let world = World::new(kind);
    world.stream("/a", "text/plain", "").await;
    let mut client = world.server.connect().await;
    let fields = "content-type: text/plain\r\ncontent-length: 6";
    client.send(format!("POST {ROUTE}/a HTTP/1.1\r\nhost: t\r\n{fields}\r\n\r\nabc")).await;
    eventually("the append is under way", async || world.engine.stats().inflight_append_bytes > 0)
        .await;
    let World { server, engine, .. } = world;
    server.stop();
    eventually("the stop has begun", async || {
        tokio::net::TcpStream::connect(server.addr).await.is_err()
    })
    .await;
    client.send("def").await;
    let reply = soon(client.reply()).await;
    assert_eq!((reply.status, reply.header("connection")), (204, Some("close")));
    assert!(client.is_closed().await);
    let (stopped, _) = server.ended().await;
    assert_eq!(stopped, Stopped::Drained);
    let path = durable_streams_protocol::StreamPath::new("a").unwrap();
    assert_eq!(engine.head(&path).await.unwrap().tail.offset.position(), 6, "it is stored");
}
