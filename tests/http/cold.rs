//! Reads of bytes that are in an object store: the same bytes as ever, or 503 with `Retry-After`. In memory nothing is cold.

use std::path::PathBuf;

use durable_streams_engine::Clock;
use durable_streams_engine::store::file::segments::cold::ColdStore as _;
use durable_streams_engine::store::file::segments::objects::{SegmentInfo, SegmentPlace};
use durable_streams_protocol::{Offset, Rejection, StreamPath};
use durable_streams_server::tier::{SegmentOwner as _, Tier, TierEnvironment, TierOptions};
use tempfile::TempDir;

use crate::support::{StoreKind, Transport};
use crate::world::{Kind, World, offset, request, soon};

for_each_kind![
    bytes_are_the_same_wherever_their_segments_are,
    an_object_store_that_is_away_refuses_cold_reads_and_nothing_else,
    a_long_answer_ends_where_the_object_store_ends,
];

const BYTES: &str = "application/octet-stream";

/// An object store in a directory.
struct Bucket {
    tier: Option<Tier>,
    dir: TempDir,
    _keys: TempDir,
}

impl Bucket {
    /// One that the streams of a world are read from.
    async fn of(world: &World) -> Self {
        let (dir, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut bucket = Bucket { tier: None, dir, _keys: keys };
        std::fs::create_dir(bucket.path()).unwrap();
        if let Some(store) = world.engine.file_store() {
            let location = bucket.path().canonicalize().unwrap();
            let location = url::Url::from_file_path(location).unwrap().to_string();
            let options = TierOptions {
                environment: TierEnvironment::default(),
                cache: 0,
                ..TierOptions::new(location.parse().unwrap())
            };
            let (keys, runtime) = (bucket._keys.path(), tokio::runtime::Handle::current());
            let opened = Tier::open(options, keys, Clock::System.now(), false, runtime).await;
            let tier = opened.unwrap();
            store.read_objects_from(tier.cold_place());
            bucket.tier = Some(tier);
        }
        bucket
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("bucket")
    }

    /// Leaves those segments to the object store of which `moves` is true, and returns how many bytes of data stay.
    async fn take(&self, world: &World, moves: impl Fn(u64) -> bool) -> u64 {
        let (Some(tier), Some(store)) = (&self.tier, world.engine.file_store()) else { return 0 };
        let segments = store.segments_after(None, 1000).unwrap();
        let local = |segment: &&SegmentInfo| segment.place == SegmentPlace::Local;
        let mut stay = 0;
        for segment in segments.iter().filter(local) {
            let number = segment.number;
            if !moves(number) {
                stay += segment.data;
                continue;
            }
            let (name, path) = (tier.segment_name(number), store.segment_path(number));
            tier.cold_store().put(&name, path).await.unwrap();
            assert!(store.note_object(number).unwrap() && store.drop_local(number).unwrap());
        }
        stay
    }

    /// Takes the object store away, as if it were not mounted.
    fn leaves(&self) {
        std::fs::rename(self.path(), self.dir.path().join("away")).unwrap();
    }

    fn returns(&self) {
        std::fs::rename(self.dir.path().join("away"), self.path()).unwrap();
    }
}

fn bytes(seed: usize, length: usize) -> Vec<u8> {
    let lines = (0..=length / 64).map(|line| format!("{seed:>31} {line:>31}\n"));
    let mut bytes = lines.collect::<String>().into_bytes();
    bytes.truncate(length);
    bytes
}

fn sealing(kind: Kind) -> World {
    World::with(kind, |setup| (setup.seals, setup.cache) = (true, Some(0)))
}

async fn bytes_are_the_same_wherever_their_segments_are(kind: Kind) {
    let world = sealing(kind);
    let bucket = Bucket::of(&world).await;
    let all: Vec<u8> = bytes(0, 5_600_000);
    world.stream("/a", BYTES, "").await;
    world.stream("/j", "application/json", "").await;
    for part in all.chunks(100_000) {
        world.append("/a", BYTES, part).await;
    }
    let messages: Vec<String> =
        (0..10_000).map(|n| format!("{{\"n\":{n},\"s\":\"{n:020}\"}}")).collect();
    for part in messages.chunks(2_500) {
        world.append("/j", "application/json", format!("[{}]", part.join(","))).await;
    }
    world.seal();
    // What follows is local, and the end is in the index.
    let (beginning, newest) = (all.len(), bytes(9, 3_000_000));
    let moves: [fn(u64) -> bool; 3] = [|number| number < 4, |number| number % 2 == 1, |_| true];
    for (turn, moves) in moves.into_iter().enumerate() {
        let stay = bucket.take(&world, moves).await;
        assert_eq!(stay > 0, turn < 2 && kind.store == StoreKind::File, "{stay} bytes are local");
        let before = world.file_parts();
        for from in [0, 1_048_575, beginning - 1] {
            let reply = world.get(&format!("/a?offset={}", offset(from as u64))).await;
            assert_eq!(reply.status, 200, "from {from}");
            assert!(
                reply.complete && reply.body == all[from..],
                "{} from {from}",
                reply.body.len()
            );
        }
        let json = world.get("/j").await;
        assert!(json.complete && json.text() == format!("[{}]", messages.join(",")));
        // Where the kernel can send files, it has sent the local ones.
        let own_loop = matches!(kind.transport, Transport::Http1 | Transport::Proxied);
        let by_kernel = kind.store == StoreKind::File && own_loop && stay > 0;
        let sent = world.file_parts() - before;
        assert_eq!(sent > 0, by_kernel, "{sent} of {stay}");
    }
    for part in newest.chunks(100_000) {
        world.append("/a", BYTES, part).await;
    }
    world.seal();
    world.append("/a", BYTES, "the end").await;
    let whole = [&all[..], &newest, b"the end"].concat();
    let before = world.file_parts();
    let reply = world.get("/a").await;
    assert!(reply.complete && reply.body == whole, "{} bytes", reply.body.len());
    if kind == (Kind { store: StoreKind::File, transport: Transport::Http1 }) {
        let sent = world.file_parts() - before;
        assert!(sent > 500_000, "{sent} bytes behind those of objects are sent from files");
    }
    let polled = world.get("/a?offset=-1&live=long-poll").await;
    assert!(polled.complete && polled.body == whole);
}

async fn an_object_store_that_is_away_refuses_cold_reads_and_nothing_else(kind: Kind) {
    let world = sealing(kind);
    let bucket = Bucket::of(&world).await;
    let (old, cold) = (bytes(1, 1_500_000), kind.store == StoreKind::File);
    world.stream("/a", BYTES, &old).await;
    world.stream("/t", "text/plain", "a line\n".repeat(20_000)).await;
    world.stream("/j", "application/json", format!("[{}1]", "0,".repeat(50_000))).await;
    world.seal();
    bucket.take(&world, |_| true).await;
    let tail = offset(old.len() as u64);
    world.append("/a", BYTES, "new").await;
    bucket.leaves();
    for path in ["/a", "/t", "/j"] {
        for query in ["", "?offset=-1", "?offset=-1&live=long-poll", "?offset=-1&live=sse"] {
            let (_client, head) = world.live(&format!("{path}{query}"), "").await;
            assert_eq!(head.status, if cold { 503 } else { 200 }, "{path}{query}");
            assert_eq!(head.header("retry-after"), cold.then_some("1"), "{path}{query}");
            assert_eq!(
                head.header("stream-next-offset").is_some(),
                !cold && !query.ends_with("sse")
            );
        }
        assert_eq!(world.head(path).await.status, 200, "{path}");
    }
    if cold {
        let refused = world.get("/a").await;
        assert_eq!(refused.code(), "object-store-unavailable");
        assert_eq!(refused.header("cache-control"), Some("no-store"));
        assert!(refused.text().contains("try again later"), "{}", refused.text());
    }
    // What is not in the object store is read and written as ever.
    for query in ["", "&live=long-poll"] {
        let hot = world.get(&format!("/a?offset={tail}{query}")).await;
        assert_eq!((hot.status, hot.text().as_str()), (200, "new"), "{query}");
    }
    let mut live = world.sse(&format!("/a?offset={tail}&live=sse"), "").await;
    assert_eq!(live.event().await.name, "data");
    world.append("/a", BYTES, "er").await;
    world.stream("/b", BYTES, "another stream").await;
    assert_eq!(world.get("/b").await.text(), "another stream");
    bucket.returns();
    let whole = world.get("/a").await;
    assert!(whole.complete && whole.body == [&old[..], b"newer"].concat());
}

async fn a_long_answer_ends_where_the_object_store_ends(kind: Kind) {
    let world = sealing(kind);
    let bucket = Bucket::of(&world).await;
    let all = bytes(2, 6_000_000);
    world.stream("/a", BYTES, "").await;
    for part in all.chunks(1_000_000) {
        world.append("/a", BYTES, part).await;
    }
    world.seal();
    bucket.take(&world, |_| true).await;
    let engine = &world.engine;
    let view = engine.open(&StreamPath::new("a").unwrap()).await.unwrap();
    let mut plan = engine.plan(&view.core, Offset::ZERO, view.tail.offset, None).await.unwrap();
    let mut client = world.server.connect().await;
    client.send(request("GET", "/a", "", b"")).await;
    assert!(soon(client.more()).await);
    bucket.leaves();
    // Its framing says that it is not whole, unless it was already on its way.
    let reply = soon(client.reply()).await;
    assert!(all.starts_with(&reply.body), "other bytes");
    assert_eq!(reply.complete, reply.body.len() == all.len(), "{} bytes", reply.body.len());
    let mut read =
        engine.next_piece(&view.core, &mut plan, 1 << 20).await.unwrap().unwrap().concat();
    let end = loop {
        match engine.next_piece(&view.core, &mut plan, 1 << 20).await {
            Ok(Some(piece)) => read.extend(piece.concat()),
            end => break end,
        }
    };
    assert!(all.starts_with(&read), "other bytes");
    match kind.store {
        StoreKind::Memory => assert!(end == Ok(None) && read.len() == all.len()),
        StoreKind::File => {
            let refused = matches!(end, Err(Rejection::ObjectStoreUnavailable { .. }));
            assert!(refused && read.len() < all.len(), "{end:?} after {} bytes", read.len());
        }
    }
    bucket.returns();
    assert!(world.get("/a").await.body == all);
}
