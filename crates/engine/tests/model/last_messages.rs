//! Where the last messages of a stream begin, for a look at its end.

use bytes::Bytes;
use durable_streams_engine::{Engine, LastMessages};
use durable_streams_protocol::{Append, ContentType, Create, Offset, StreamPath};

use crate::stores::{StoreKind, engine};

const KIB: usize = 1 << 10;

struct Writer<'e> {
    engine: &'e Engine,
    path: StreamPath,
    content_type: ContentType,
    /// Where each message or append begins, and the tail.
    begins: Vec<u64>,
}

impl<'e> Writer<'e> {
    async fn create(engine: &'e Engine, content_type: &str) -> Self {
        let path = StreamPath::new(&content_type.replace('/', "-")).unwrap();
        let content_type = ContentType::parse(content_type).unwrap();
        let create = Create { content_type: Some(content_type.clone()), ..Create::default() };
        engine.create(&path, &create, Bytes::new()).await.unwrap();
        Writer { engine, path, content_type, begins: vec![0] }
    }

    async fn append(&mut self, body: String) {
        let append =
            Append { content_type: Some(Ok(self.content_type.clone())), ..Append::default() };
        self.engine.append(&self.path, &append, body.into()).await.unwrap();
    }

    /// Appends JSON strings of these lengths at once.
    async fn messages(&mut self, lengths: impl Iterator<Item = usize>) {
        let mut messages = Vec::new();
        for length in lengths {
            messages.push(format!("\"{}\"", "x".repeat(length)));
            // Two quotation marks and the terminator.
            self.begins.push(self.begins[self.begins.len() - 1] + length as u64 + 3);
        }
        self.append(format!("[{}]", messages.join(","))).await;
    }

    async fn bytes(&mut self, length: usize) {
        self.begins.push(self.begins[self.begins.len() - 1] + length as u64);
        self.append("z".repeat(length)).await;
    }

    async fn last(&self, count: usize) -> LastMessages {
        self.engine.last_messages(&self.path, count).await.unwrap()
    }

    /// Trims all but the last `count`. Returns the earliest offset.
    async fn keep(&self, count: usize) -> Offset {
        let core = self.engine.head(&self.path).await.unwrap().core;
        let before = core.offset_at(self.begin(count).position());
        assert_eq!(self.engine.trim(&self.path, before).await, Ok(before));
        before
    }

    /// Where the last `count` begin.
    fn begin(&self, count: usize) -> Offset {
        Offset::new(self.begins[self.begins.len() - 1 - count])
    }
}

#[tokio::test]
async fn as_many_messages_are_left_as_were_asked_for_or_as_there_are() {
    for kind in StoreKind::ALL {
        let (engine, _clock, _keep) = engine(*kind, 64);
        let mut stream = Writer::create(&engine, "application/json").await;
        assert_eq!(stream.last(5).await.messages, Some(0), "{kind:?}");
        // Pieces of 64 KiB end inside of messages, and some hold many.
        for part in 0..10 {
            stream.messages((0..30).map(|n| (part * 331 + n * 97) % (3 * KIB))).await;
        }
        for count in [0, 1, 2, 29, 30, 31, 100, 299, 300] {
            let (offset, messages) = (stream.begin(count), Some(count));
            let expected = LastMessages { offset, messages, complete: true };
            assert_eq!(stream.last(count).await, expected, "{kind:?}, the last {count}");
        }
        let all = LastMessages { offset: Offset::ZERO, messages: Some(300), complete: true };
        assert_eq!(stream.last(1_000).await, all, "{kind:?}");
        let earliest = stream.keep(120).await;
        let rest = LastMessages { offset: earliest, messages: Some(120), complete: true };
        for count in [120, 121, 1_000] {
            assert_eq!(stream.last(count).await, rest, "{kind:?}, trimmed, the last {count}");
        }
        assert_eq!(stream.last(119).await.offset, stream.begin(119), "{kind:?}");
        engine.close().await;
    }
}

/// A page that shows the end of a stream must not read all of it.
#[tokio::test]
async fn only_a_mebibyte_is_looked_at() {
    for kind in StoreKind::ALL {
        let (engine, _clock, _keep) = engine(*kind, 64);
        let mut stream = Writer::create(&engine, "application/json").await;
        for length in [10, 600 * KIB, 600 * KIB] {
            stream.messages([length].into_iter()).await;
        }
        let one = LastMessages { offset: stream.begin(1), messages: Some(1), complete: true };
        assert_eq!(stream.last(1).await, one, "{kind:?}");
        for count in [2, 3, 4] {
            let found = stream.last(count).await;
            assert_eq!(found, LastMessages { complete: false, ..one }, "{kind:?}");
        }
        stream.messages([2_000 * KIB].into_iter()).await;
        let none = LastMessages { offset: stream.begin(0), messages: Some(0), complete: false };
        assert_eq!(stream.last(1).await, none, "{kind:?}, not even one");
        engine.close().await;
    }
}

#[tokio::test]
async fn other_streams_are_looked_at_from_an_append_about_64_kib_before_the_tail() {
    for kind in StoreKind::ALL {
        let (engine, _clock, _keep) = engine(*kind, 64);
        let mut stream = Writer::create(&engine, "text/plain").await;
        for (length, from) in
            [(0, 0), (14 * KIB, 1), (50 * KIB, 2), (50 * KIB, 1), (50 * KIB, 1), (70 * KIB, 0)]
        {
            if length > 0 {
                stream.bytes(length).await;
            }
            let offset = stream.begin(from);
            let expected = LastMessages { offset, messages: None, complete: true };
            assert_eq!(stream.last(1).await, expected, "{kind:?}, {length} bytes");
        }
        stream.bytes(10 * KIB).await;
        let earliest = stream.keep(1).await;
        assert_eq!(stream.last(1).await.offset, earliest, "{kind:?}, trimmed");
        engine.close().await;
    }
}
