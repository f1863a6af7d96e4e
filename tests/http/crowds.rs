//! A thousand readers of one stream (PROTOCOL §5.7, §5.8): each is served, none is left over.

use std::time::Duration;

use crate::support::{Client, eventually};
use crate::world::{Kind, Sse, World, offset, request};

for_each_kind![
    #[only(http1, proxied, embedded; "the gateway would need four thousand sockets")]
    a_thousand_long_polls,
    #[only(http1, proxied, embedded; "the gateway would need four thousand sockets")]
    a_thousand_event_readers,
    #[only(http1, proxied, embedded; "the gateway would need four thousand sockets")]
    a_crowd_that_leaves_at_once,
];

const CROWD: usize = 1_000;

/// Opens `CROWD` connections that each ask for `path`; batches, so that no accept queue overflows.
async fn crowd(world: &World, path: &str) -> Vec<Client> {
    let mut clients = Vec::with_capacity(CROWD);
    while clients.len() < CROWD {
        for _ in 0..100 {
            let mut client = world.server.connect().await;
            client.send(request("GET", path, "", b"")).await;
            clients.push(client);
        }
        let waiting = clients.len();
        eventually("the crowd waits", async || world.engine.stats().live_readers == waiting).await;
    }
    clients
}

/// A server whose readers stay while the crowd gathers, which on a busy machine takes longer than a long-poll.
async fn patient(kind: Kind) -> World {
    let world = World::with(kind, |setup| {
        setup.edge.streams.long_poll_timeout = Duration::from_secs(300);
        setup.edge.streams.sse_reconnect_interval = Duration::from_secs(300);
    });
    world.stream("/a", "text/plain", "").await;
    world
}

async fn a_thousand_long_polls(kind: Kind) {
    let world = patient(kind).await;
    let clients = crowd(&world, "/a?offset=now&live=long-poll").await;
    world.append("/a", "text/plain", "news").await;
    for mut client in clients {
        let reply = client.reply().await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "news"));
        assert_eq!(reply.header("stream-next-offset"), Some(offset(4).as_str()));
    }
    world.at_rest().await;
}

async fn a_thousand_event_readers(kind: Kind) {
    let world = patient(kind).await;
    let mut readers = Vec::new();
    for mut client in crowd(&world, "/a?offset=now&live=sse").await {
        let head = client.head().await;
        assert_eq!(head.status, 200);
        readers.push(Sse::new(client, head));
    }
    for part in ["one", "two", "three"] {
        world.append("/a", "text/plain", part).await;
    }
    world.close("/a").await;
    for mut sse in readers {
        let mut read = String::new();
        let mut closed = false;
        while let Some(event) = sse.next().await {
            match event.name.as_str() {
                "data" => read.push_str(&event.data),
                _ => closed = event.control()["streamClosed"] == true,
            }
        }
        assert_eq!((read.as_str(), closed), ("onetwothree", true));
    }
    world.at_rest().await;
}

async fn a_crowd_that_leaves_at_once(kind: Kind) {
    let world = patient(kind).await;
    let polls = crowd(&world, "/a?offset=now&live=long-poll").await;
    drop(polls);
    world.at_rest().await;
    let events = crowd(&world, "/a?offset=now&live=sse").await;
    drop(events);
    world.at_rest().await;
    world.append("/a", "text/plain", "still here").await;
    assert_eq!(world.get("/a").await.text(), "still here");
}
