//! Many writers and readers at once on few streams: order, no loss, no duplicates, readers see prefixes only.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use durable_streams_engine::Engine;
use durable_streams_protocol::{
    Append, ContentType, Create, Fork, MESSAGE_END, Offset, Producer, ProducerId, Rejection,
    StreamPath,
};

use crate::stores::{StoreKind, engine};

const STREAMS: usize = 3;
const WRITERS: usize = 8;
const MESSAGES: u64 = 60;

fn path(stream: usize) -> StreamPath {
    StreamPath::new(&format!("s/{stream}")).unwrap()
}

fn json() -> ContentType {
    ContentType::parse("application/json").unwrap()
}

/// Sends every message twice, as a client does that loses each first answer.
async fn write(engine: Arc<Engine>, stream: usize, writer: usize) {
    for seq in 0..MESSAGES {
        let id = ProducerId::new(&format!("w{writer}")).unwrap();
        let append = Append {
            content_type: Some(Ok(json())),
            producer: Some(Producer { id, epoch: 0, seq }),
            ..Append::default()
        };
        let body = Bytes::from(format!("[\"{writer} {seq}\"]"));
        // Both at once: whichever comes second is the duplicate.
        let path = path(stream);
        let first = engine.append(&path, &append, body.clone());
        let (first, again) = tokio::join!(first, engine.append(&path, &append, body));
        let (first, again) = (first.unwrap(), again.unwrap());
        assert_eq!(usize::from(first.added) + usize::from(again.added), 1, "stored once");
        if seq % 16 == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Reads in windows of `max` from the start until the stream is closed, waiting for the tail in between.
async fn follow(engine: Arc<Engine>, path: StreamPath, max: usize) -> Vec<u8> {
    let (view, mut watch) = engine.open_live(&path).await.unwrap();
    let mut read = Vec::new();
    let mut before = Offset::ZERO;
    loop {
        let tail = watch.tail();
        assert!(tail.offset >= before && !tail.gone, "the tail never goes back");
        before = tail.offset;
        let mut from = Offset::new(read.len() as u64);
        while from < tail.offset {
            let slice = engine.read(&view.core, from, tail.offset, max).await.unwrap();
            read.extend(slice.chunks.concat());
            from = slice.end;
        }
        assert_eq!(read.last().copied().unwrap_or(MESSAGE_END), MESSAGE_END, "whole messages only");
        if tail.closed {
            return read;
        }
        watch.changed().await;
    }
}

/// Forks the stream at its tail again and again; each fork has what a read at that time gives.
async fn fork(engine: Arc<Engine>, stream: usize) {
    for turn in 0..20 {
        let name = StreamPath::new(&format!("f/{stream}/{turn}")).unwrap();
        let source = path(stream);
        let fork = Some(Fork { source: source.clone(), offset: None, sub_offset: 0 });
        let made = engine
            .create(&name, &Create { fork, ..Create::default() }, Bytes::new())
            .await
            .unwrap();
        let view = engine.open(&name).await.unwrap();
        assert_eq!(view.tail.offset, made.next_offset);
        let inherited =
            engine.read(&view.core, Offset::ZERO, view.tail.offset, usize::MAX).await.unwrap();
        let view = engine.open(&source).await.unwrap();
        let whole =
            engine.read(&view.core, Offset::ZERO, view.tail.offset, usize::MAX).await.unwrap();
        assert!(
            whole.chunks.concat().starts_with(&inherited.chunks.concat()),
            "a fork is a prefix"
        );
        if turn % 2 == 0 {
            engine.delete(&name).await.unwrap();
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_lost_doubled_or_reordered() {
    for kind in StoreKind::ALL {
        let (engine, _, _dir) = engine(*kind, 64);
        let create = Create { content_type: Some(json()), ..Create::default() };
        for stream in 0..STREAMS {
            engine.create(&path(stream), &create, Bytes::new()).await.unwrap();
        }
        let mut readers = Vec::new();
        for reader in 0..STREAMS * 3 {
            let follow = follow(engine.clone(), path(reader % STREAMS), 1 + reader * 37);
            readers.push((reader % STREAMS, tokio::spawn(follow)));
        }
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            for stream in 0..STREAMS {
                writers.push(tokio::spawn(write(engine.clone(), stream, writer)));
            }
        }
        for stream in 0..STREAMS {
            writers.push(tokio::spawn(fork(engine.clone(), stream)));
        }
        for writer in writers {
            writer.await.unwrap();
        }
        for stream in 0..STREAMS {
            let close = Append { close: true, ..Append::default() };
            engine.append(&path(stream), &close, Bytes::new()).await.unwrap();
        }
        let mut seen: HashMap<usize, Vec<u8>> = HashMap::new();
        for (stream, reader) in readers {
            let read = tokio::time::timeout(std::time::Duration::from_secs(30), reader).await;
            let read = read.expect("a reader never heard of the end").unwrap();
            let same = seen.entry(stream).or_insert_with(|| read.clone());
            assert_eq!(*same, read, "all readers read the same");
        }
        for read in seen.values() {
            check_messages(read);
        }
    }
}

/// Every message of every writer once, each writer's in order.
fn check_messages(read: &[u8]) {
    let mut next = [0; WRITERS];
    for message in read.split(|byte| *byte == MESSAGE_END).filter(|message| !message.is_empty()) {
        let text: String = serde_json::from_slice(message).unwrap();
        let (writer, seq) = text.split_once(' ').unwrap();
        let writer: usize = writer.parse().unwrap();
        assert_eq!(seq.parse::<u64>().unwrap(), next[writer], "in order, without a gap, once");
        next[writer] += 1;
    }
    assert_eq!(next, [MESSAGES; WRITERS], "nothing is lost");
}

/// Streams that come and go under their forks and readers: no answer but the expected ones, and nothing left behind.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn creation_forks_and_deletion_at_once_leave_nothing_behind() {
    for kind in StoreKind::ALL {
        let (engine, _, _dir) = engine(*kind, 64);
        let mut tasks = Vec::new();
        for task in 0..8usize {
            let engine = engine.clone();
            tasks.push(tokio::spawn(async move {
                for turn in 0..300usize {
                    let (at, other) = (path((task + turn) % 4), path((task * 7 + turn / 3) % 4));
                    let fork =
                        Some(Fork { source: other, offset: Some(Offset::ZERO), sub_offset: 0 });
                    let create =
                        Create { fork: fork.filter(|_| turn % 3 == 0), ..Create::default() };
                    let done = match turn % 5 {
                        0..=2 => engine.create(&at, &create, "x".into()).await.map(|_| ()),
                        3 => engine.delete(&at).await,
                        _ => match engine.open(&at).await {
                            Ok(view) => engine
                                .read(&view.core, Offset::ZERO, view.tail.offset, 9)
                                .await
                                .map(|_| ()),
                            Err(rejected) => Err(rejected),
                        },
                    };
                    match done {
                        Ok(())
                        | Err(
                            Rejection::NotFound
                            | Rejection::Gone
                            | Rejection::SourceNotFound
                            | Rejection::SourceDeleted
                            | Rejection::PathBlocked
                            | Rejection::ConfigMismatch { .. }
                            | Rejection::OffsetBeyondTail { .. }
                            | Rejection::ForkTooDeep { .. }
                            // Something else moved in between two looks; the client tries again.
                            | Rejection::Unavailable { .. },
                        ) => {}
                        Err(other) => panic!("{other}"),
                    }
                    if turn % 8 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
            }));
        }
        for task in tasks {
            tokio::time::timeout(std::time::Duration::from_secs(30), task)
                .await
                .expect("stuck")
                .unwrap();
        }
        for _ in 0..8 {
            for at in 0..4 {
                let _ = engine.delete(&path(at)).await;
            }
        }
        engine.sweep_due().await;
        // What a deletion leaves to clean up may become durable a little later than its answer.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        let left = || engine.stats().store.streams + engine.stats().store.bytes;
        while left() > 0 && std::time::Instant::now() < deadline {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(engine.stats().store.streams, 0, "every stream can be deleted in the end");
        assert_eq!(engine.stats().store.bytes, 0);
    }
}

/// Requests of one producer travel on several connections, and the second may be judged first (§5.2.1, "Concurrency
/// Requirements").
#[tokio::test]
async fn a_request_that_overtook_its_predecessor_is_no_gap() {
    for kind in StoreKind::ALL {
        let (engine, _, _dir) = engine(*kind, 64);
        let create = Create { content_type: Some(json()), ..Create::default() };
        engine.create(&path(0), &create, Bytes::new()).await.unwrap();
        let id = ProducerId::new("p").unwrap();
        let append = |seq| {
            let producer = Some(Producer { id: id.clone(), epoch: 0, seq });
            Append { content_type: Some(Ok(json())), producer, ..Append::default() }
        };
        let appends = [append(0), append(1), append(2), append(9)];
        let at = path(0);
        let send = |seq: usize| engine.append(&at, &appends[seq], Bytes::from_static(b"1"));
        let (third, second, first, gap) = tokio::join!(send(2), send(1), send(0), send(3));
        assert!(first.is_ok() && second.is_ok() && third.is_ok(), "{kind:?}: {third:?}");
        let gap = gap.unwrap_err();
        assert!(matches!(gap, Rejection::SequenceGap { expected: 3, received: 9, .. }), "{gap:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_flight_are_committed_in_order_whatever_order_they_arrive_in() {
    const IN_FLIGHT: usize = 16;
    for kind in StoreKind::ALL {
        let (engine, _, _dir) = engine(*kind, 64);
        let engine = Arc::new(engine);
        let create = Create { content_type: Some(json()), ..Create::default() };
        engine.create(&path(0), &create, Bytes::new()).await.unwrap();
        for first in (0..20 * IN_FLIGHT).step_by(IN_FLIGHT) {
            let mut seqs: Vec<usize> = (first..first + IN_FLIGHT).collect();
            seqs.rotate_left(first / IN_FLIGHT % IN_FLIGHT);
            seqs.reverse();
            let requests = seqs.into_iter().map(|seq| {
                let engine = engine.clone();
                tokio::spawn(async move {
                    let id = ProducerId::new("p").unwrap();
                    let producer = Some(Producer { id, epoch: 0, seq: seq as u64 });
                    let append =
                        Append { content_type: Some(Ok(json())), producer, ..Append::default() };
                    engine.append(&path(0), &append, seq.to_string().into()).await
                })
            });
            for request in requests.collect::<Vec<_>>() {
                assert!(request.await.unwrap().unwrap().added, "{kind:?}");
            }
        }
        let view = engine.open(&path(0)).await.unwrap();
        let all =
            engine.read(&view.core, Offset::ZERO, view.tail.offset, usize::MAX).await.unwrap();
        let expected: Vec<u8> = (0..20 * IN_FLIGHT)
            .flat_map(|seq| [seq.to_string().as_bytes(), &[MESSAGE_END]].concat())
            .collect();
        assert_eq!(all.chunks.concat(), expected, "{kind:?}");
    }
}
