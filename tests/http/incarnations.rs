//! Offsets of a deleted stream are recognised when its path lives again (§8).

use crate::support::Reply;
use crate::world::{Kind, ROUTE, World, offset};

const TEXT: &str = "content-type: text/plain\r\n";
const ZERO: &str = "0000000000000000_0000000000000000";

for_each_kind!(
    offsets_of_a_deleted_stream_are_gone,
    an_offset_of_the_living_stream_goes_on_in_every_mode,
    a_fork_has_its_sources_offsets_and_later_ones_of_its_own,
    every_event_names_the_incarnation,
);

fn raw(reply: &Reply) -> String {
    reply.offset.clone().unwrap_or_else(|| panic!("no offset: {reply:?}"))
}

async fn offsets_of_a_deleted_stream_are_gone(kind: Kind) {
    let world = World::new(kind);
    world.stream("/source", "text/plain", "source").await;
    let old = raw(&world.stream("/a", "text/plain", "old bytes").await);
    assert_eq!(world.delete("/a").await.status, 204);
    let new = raw(&world.stream("/a", "text/plain", "new bytes of another stream").await);
    assert!(new > old, "incarnations grow: {old} {new}");

    for live in ["", "&live=long-poll", "&live=sse"] {
        let gone = world.get(&format!("/a?offset={old}{live}")).await;
        assert_eq!(
            (gone.status, gone.code().as_str()),
            (410, "offset-of-deleted-stream"),
            "{live}"
        );
        // A position that the old stream never had is none of the new one either.
        let (incarnation, _) = old.split_once('_').unwrap();
        let gone = world.get(&format!("/a?offset={incarnation}_0000000000000099{live}")).await;
        assert_eq!(
            (gone.status, gone.code().as_str()),
            (410, "offset-of-deleted-stream"),
            "{live}"
        );
    }
    let resumed = format!("last-event-id: {old}\r\n");
    let gone = world.ask("GET", "/a?offset=-1&live=sse", &resumed, b"").await;
    assert_eq!((gone.status, gone.code().as_str()), (410, "offset-of-deleted-stream"));

    let forked = |offset: &str| {
        format!("{TEXT}stream-forked-from: {ROUTE}/a\r\nstream-fork-offset: {offset}\r\n")
    };
    let gone = world.put("/fork", &forked(&old), "").await;
    assert_eq!((gone.status, gone.code().as_str()), (410, "offset-of-deleted-stream"));
    assert_eq!(world.put("/fork", &forked(&new), "").await.status, 201);

    // The start names every stream.
    for start in [ZERO, "-1"] {
        let all = world.get(&format!("/a?offset={start}")).await;
        assert_eq!((all.status, all.text().as_str()), (200, "new bytes of another stream"));
    }
}

async fn an_offset_of_the_living_stream_goes_on_in_every_mode(kind: Kind) {
    let world = World::new(kind);
    let begun = raw(&world.stream("/a", "text/plain", "").await);
    assert_eq!(begun, ZERO, "the start of every stream");
    let first = raw(&world.append("/a", "text/plain", "one").await);
    let second = raw(&world.append("/a", "text/plain", "two").await);
    assert!(ZERO < first.as_str() && first < second);
    assert_eq!(first.split_once('_').unwrap().0, second.split_once('_').unwrap().0);
    assert_ne!(first.split_once('_').unwrap().0, "0000000000000000");
    for live in ["", "&live=long-poll"] {
        let read = world.get(&format!("/a?offset={first}{live}")).await;
        assert_eq!((read.status, read.text().as_str(), raw(&read)), (200, "two", second.clone()));
    }
    let resumed = format!("last-event-id: {first}\r\n");
    let mut sse = world.sse("/a?offset=-1&live=sse", &resumed).await;
    assert_eq!(sse.event().await.data, "two");
    let control = sse.block().await.unwrap();
    assert!(control.contains(&format!("\"streamNextOffset\":\"{second}\"")), "{control}");
    assert!(control.contains(&format!("id:{second}\n")), "{control}");
    assert_eq!(raw(&world.head("/a").await), second);
    assert_eq!(raw(&world.get("/a?offset=now").await), second);
}

async fn a_fork_has_its_sources_offsets_and_later_ones_of_its_own(kind: Kind) {
    let world = World::new(kind);
    world.stream("/source", "text/plain", "012").await;
    let point = raw(&world.append("/source", "text/plain", "345").await);
    let beyond = raw(&world.append("/source", "text/plain", "678").await);
    let forked =
        format!("{TEXT}stream-forked-from: {ROUTE}/source\r\nstream-fork-offset: {point}\r\n");
    let fork = world.put("/fork", &forked, "").await;
    assert_eq!((fork.status, raw(&fork)), (201, point.clone()), "where it leaves its source");
    let own = raw(&world.append("/fork", "text/plain", "abc").await);
    assert!(own > point && own > beyond, "its own sort after them: {own} {beyond}");
    assert_ne!(own.split_once('_').unwrap().0, point.split_once('_').unwrap().0);
    assert_eq!(world.get(&format!("/fork?offset={point}")).await.text(), "abc");
    assert_eq!(world.get(&format!("/fork?offset={}", offset(4))).await.text(), "45abc");
    let gone = world.get(&format!("/fork?offset={beyond}")).await;
    assert_eq!((gone.status, gone.code().as_str()), (410, "offset-of-deleted-stream"));
    // The source knows nothing of the fork, and the offset sorts after its tail.
    let beyond = world.get(&format!("/source?offset={own}")).await;
    assert_eq!((beyond.status, beyond.code().as_str()), (400, "offset-beyond-tail"));

    // The same request again, then with an offset of another incarnation.
    assert_eq!(world.put("/fork", &forked, "").await.status, 200);
    let (incarnation, position) = point.split_once('_').unwrap();
    let other = format!("{:016}_{position}", incarnation.parse::<u64>().unwrap() + 1);
    let other = forked.replace(&point, &other);
    assert_eq!(world.put("/fork", &other, "").await.status, 409);
}

/// Of events in one piece, of large ones, and of those that hold back the beginning of a character.
async fn every_event_names_the_incarnation(kind: Kind) {
    let world = World::new(kind);
    let (text, bytes) = ("text/plain", "application/octet-stream");
    let long = vec![b'x'; 200_000];
    for (path, content_type, appends) in [
        ("/small", text, [&b"one"[..], b"two"]),
        ("/binary", bytes, [b"one", b"two"]),
        ("/long", text, [&long, b"two"]),
        ("/long-binary", bytes, [b"one", &long]),
        ("/character", text, [b"caf\xc3", b"\xa9s"]),
    ] {
        world.stream(path, content_type, "").await;
        let mut tail = String::new();
        let mut sse = world.sse(&format!("{path}?offset=-1&live=sse"), "").await;
        for append in appends {
            tail = raw(&world.append(path, content_type, append).await);
        }
        let (incarnation, _) = tail.split_once('_').unwrap();
        loop {
            let block = sse.block().await.unwrap();
            let Some((_, next)) = block.split_once("\"streamNextOffset\":\"") else { continue };
            let next = next.split('"').next().unwrap().to_owned();
            assert!(next == ZERO || next.starts_with(incarnation), "{path}: {next} of {tail}");
            let resumed = world.get(&format!("{path}?offset={next}")).await;
            assert_eq!(resumed.status, 200, "{path}: {next} of {tail}");
            if next == tail {
                break;
            }
        }
    }
}
