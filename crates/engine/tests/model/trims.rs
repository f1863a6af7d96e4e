//! Readers beside a writer, trims, forks and checkpoints: whatever is read is what was written, in order, and what is missing
//! was trimmed, with the offset to go on at.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use durable_streams_engine::{Engine, EngineLimits};
use durable_streams_protocol::{
    Append, ContentType, Create, Fork, MESSAGE_END, Offset, ReadFrom, Rejection, StreamPath,
};

use crate::stores::{StoreKind, engine};

/// Messages of a run; each is its number in seven digits, and some padding.
const MESSAGES: u64 = 1_500;
/// Bytes of a message as it is stored: of JSON with its terminator.
const STORED: u64 = 200;

fn path(text: &str) -> StreamPath {
    StreamPath::new(text).unwrap()
}

fn message(number: u64, json: bool) -> String {
    // A JSON number must not begin with a zero.
    let digits = 10_000_000 + number;
    let length = STORED as usize - usize::from(json);
    format!("{digits}{:1<1$}", "", length - 8)
}

async fn write(engine: Arc<Engine>, stream: StreamPath, content_type: ContentType) {
    let json = content_type.is_json();
    let append = Append { content_type: Some(Ok(content_type)), ..Append::default() };
    for number in 0..MESSAGES {
        engine.append(&stream, &append, message(number, json).into()).await.unwrap();
        if number % 20 == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    }
    engine.append(&stream, &Append { close: true, ..append }, Bytes::new()).await.unwrap();
}

/// Trims at random, sometimes up to the tail; at offsets inside appends where that is allowed.
async fn trim(engine: Arc<Engine>, stream: StreamPath, done: Arc<AtomicBool>) -> u64 {
    let mut trims = 0;
    while !done.load(Ordering::Relaxed) {
        let view = engine.head(&stream).await.unwrap();
        let (earliest, tail) = (view.tail.earliest.position(), view.tail.offset.position());
        let inside = if view.core.content_type.is_json() { 0 } else { fastrand::u64(..STORED) };
        let before = (fastrand::u64(earliest / STORED..=tail / STORED) * STORED + inside).min(tail);
        let asked = view.core.offset_at(before);
        let trimmed = engine.trim(&stream, asked).await.unwrap();
        assert!(trimmed.position().is_multiple_of(STORED), "between messages: {trimmed}");
        assert!(trimmed <= asked.max(view.tail.earliest) || trimmed > view.tail.earliest);
        trims += 1;
        tokio::time::sleep(std::time::Duration::from_millis(fastrand::u64(..6))).await;
    }
    trims
}

/// Follows a stream to its end. Returns how many messages were read, and how often some were missing.
async fn follow(engine: Arc<Engine>, stream: StreamPath, max: usize) -> (u64, u64) {
    let (mut position, mut read, mut gaps) = (None, 0, 0);
    loop {
        let (view, mut watch) = engine.open_live(&stream).await.unwrap();
        let asked = position.map_or(ReadFrom::Start, ReadFrom::At);
        let found = match view.start(asked) {
            Ok(from) => engine
                .read(&view.core, from, view.tail.offset, max)
                .await
                .map(|slice| (from, slice)),
            Err(refused) => Err(refused),
        };
        let (from, slice) = match found {
            Ok(found) => found,
            Err(Rejection::OffsetTrimmed { earliest }) => {
                assert!(position.is_none_or(|position| earliest > position), "it goes forward");
                position = Some(earliest);
                gaps += 1;
                continue;
            }
            Err(other) => panic!("{other}"),
        };
        let bytes = slice.chunks.concat();
        for (at, stored) in bytes.chunks(STORED as usize).enumerate() {
            let number = from.position() / STORED + at as u64;
            let json = view.core.content_type.is_json();
            let expected = message(number, json);
            let text = std::str::from_utf8(stored).unwrap();
            assert_eq!(text.trim_end_matches(char::from(MESSAGE_END)), expected);
            read += 1;
        }
        position = Some(slice.end);
        if slice.end == view.tail.offset {
            if view.tail.closed {
                return (read, gaps);
            }
            watch.changed().await;
        }
    }
}

/// Forks at the earliest offset, or somewhere; what a fork has at first it has for good.
async fn fork(engine: Arc<Engine>, stream: StreamPath, done: Arc<AtomicBool>) -> u64 {
    let mut forks = 0;
    while !done.load(Ordering::Relaxed) {
        let name = path(&format!("fork/{}/{forks}", stream.as_str()));
        let view = engine.head(&stream).await.unwrap();
        let (earliest, tail) = (view.tail.earliest.position(), view.tail.offset.position());
        let at = fastrand::u64(earliest / STORED..=tail / STORED) * STORED;
        let offset = Some(view.core.offset_at(at));
        let fork = Some(Fork { source: stream.clone(), offset, sub_offset: 0 });
        let made = engine.create(&name, &Create { fork, ..Create::default() }, Bytes::new()).await;
        match made {
            Ok(_) => {}
            Err(Rejection::OffsetTrimmed { .. }) => continue,
            Err(other) => panic!("{other}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        let view = engine.head(&name).await.unwrap();
        let from = view.start(ReadFrom::Start).unwrap();
        let slice = engine.read(&view.core, from, view.tail.offset, 1 << 24).await.unwrap();
        let bytes = slice.chunks.concat();
        assert_eq!(bytes.len() as u64, at - from.position(), "all of it is there");
        let first = from.position() / STORED;
        for (n, stored) in bytes.chunks(STORED as usize).enumerate() {
            let expected = message(first + n as u64, view.core.content_type.is_json());
            assert!(stored.starts_with(expected.as_bytes()), "{n}");
        }
        engine.delete(&name).await.unwrap();
        forks += 1;
    }
    forks
}

async fn run(kind: StoreKind, content_type: &str) {
    let (engine, _clock, _keep) = engine(kind, 1 << 20);
    let (stream, content_type) = (path("s"), ContentType::parse(content_type).unwrap());
    let create = Create { content_type: Some(content_type.clone()), ..Create::default() };
    engine.create(&stream, &create, Bytes::new()).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let trims = tokio::spawn(trim(engine.clone(), stream.clone(), done.clone()));
    let forks = tokio::spawn(fork(engine.clone(), stream.clone(), done.clone()));
    let readers: Vec<_> = [1, 500, 5_000, 1 << 20]
        .map(|max| tokio::spawn(follow(engine.clone(), stream.clone(), max)))
        .into();
    write(engine.clone(), stream.clone(), content_type).await;
    done.store(true, Ordering::Relaxed);
    let (mut read, mut missing) = (0, 0);
    for reader in readers {
        let (messages, gaps) = reader.await.unwrap();
        read += messages;
        missing += gaps;
    }
    let (trims, forks) = (trims.await.unwrap(), forks.await.unwrap());
    assert!(trims > 3 && forks > 1 && read > 0, "{trims} trims, {forks} forks, {read} messages");
    println!("{kind:?}: {trims} trims, {forks} forks, {read} messages, {missing} gaps");
    let view = engine.head(&stream).await.unwrap();
    engine.trim(&stream, view.tail.offset).await.unwrap();
    let usage = || engine.stats().store;
    for _ in 0..4_000 {
        if (usage().streams, usage().bytes) == (1, 0) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!((usage().streams, usage().bytes), (1, 0), "all forks are gone, and all bytes");
    assert_eq!(view.tail.offset, Offset::new(MESSAGES * STORED));
    engine.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_find_what_was_written_or_that_it_was_trimmed() {
    for kind in StoreKind::ALL {
        for content_type in ["application/json", "application/octet-stream"] {
            run(*kind, content_type).await;
        }
    }
}

/// Otherwise a fork and a trim, again and again, would store without bound.
#[tokio::test]
async fn bytes_that_only_forks_need_count_until_the_forks_are_gone() {
    for kind in StoreKind::ALL {
        let (engine, _clock, _keep) = engine(*kind, 100);
        let limits = EngineLimits { max_total: Some(20), ..EngineLimits::default() };
        engine.set_limits(limits);
        let (source, name) = (path("s"), path("fork"));
        engine.create(&source, &Create::default(), "0123456789".into()).await.unwrap();
        let fork = Some(Fork { source: source.clone(), offset: None, sub_offset: 0 });
        engine.create(&name, &Create { fork, ..Create::default() }, Bytes::new()).await.unwrap();
        let tail = engine.head(&source).await.unwrap().tail.offset;
        engine.trim(&source, tail).await.unwrap();
        let append = Append { content_type: Some(Ok(ContentType::default())), ..Append::default() };
        let full = engine.append(&source, &append, "0123456789x".into()).await.unwrap_err();
        assert_eq!(full, Rejection::StorageFull);
        engine.append(&source, &append, "0123456789".into()).await.unwrap();
        engine.delete(&name).await.unwrap();
        engine.append(&source, &append, "0123456789".into()).await.unwrap();
        let full = engine.append(&source, &append, "x".into()).await.unwrap_err();
        assert_eq!(full, Rejection::StorageFull);
        engine.close().await;
    }
}

/// A trim never cuts an append, also not one that a fork inherits.
#[tokio::test]
async fn a_trim_is_moved_back_to_where_an_append_begins() {
    for kind in StoreKind::ALL {
        let content_type = ContentType::parse("application/octet-stream").unwrap();
        let append = Append { content_type: Some(Ok(content_type.clone())), ..Append::default() };
        for (forked, asked, earliest) in [
            (false, 0, 0),
            (false, 9, 0),
            (false, 10, 10),
            (false, 19, 10),
            (false, 20, 20),
            (false, 29, 20),
            (false, 30, 30),
            (true, 9, 0),
            (true, 10, 10),
            (true, 19, 10),
            (true, 20, 20),
            (true, 29, 20),
            (true, 30, 30),
            (true, 39, 30),
            (true, 40, 40),
        ] {
            let (engine, _clock, _keep) = engine(*kind, 64);
            let create = Create { content_type: Some(content_type.clone()), ..Create::default() };
            engine.create(&path("a"), &create, Bytes::new()).await.unwrap();
            for _ in 0..3 {
                engine.append(&path("a"), &append, vec![7; 10].into()).await.unwrap();
            }
            let stream = path(if forked { "b" } else { "a" });
            if forked {
                let offset = engine.head(&path("a")).await.unwrap().core.offset_at(20);
                let fork = Fork { source: path("a"), offset: Some(offset), sub_offset: 0 };
                let create = Create { fork: Some(fork), ..create };
                engine.create(&stream, &create, Bytes::new()).await.unwrap();
                for _ in 0..2 {
                    engine.append(&stream, &append, vec![8; 10].into()).await.unwrap();
                }
            }
            let core = engine.head(&stream).await.unwrap().core;
            let trimmed = engine.trim(&stream, core.offset_at(asked)).await.unwrap();
            assert_eq!(trimmed.position(), earliest, "{kind:?}, {asked}, fork: {forked}");
            let found = engine.head(&stream).await.unwrap().tail.earliest;
            assert_eq!(found.position(), earliest);
            let again = engine.trim(&stream, core.offset_at(asked)).await.unwrap();
            assert_eq!(again.position(), earliest, "it was done");
            let beyond = engine.trim(&stream, core.offset_at(41)).await;
            assert!(matches!(beyond, Err(Rejection::OffsetBeyondTail { .. })), "{beyond:?}");
            engine.close().await;
        }
    }
}
