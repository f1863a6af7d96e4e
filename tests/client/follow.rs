//! Subscriptions: catch up, then live, over SSE and long-poll.

use std::time::Duration;

use durable_streams_client::{
    AppendOptions, Client, CreateOptions, FollowMode, HttpVersion, StartFrom, StreamPosition,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::scene::{Scene, bytes, end, next};

const MODES: [FollowMode; 3] = [FollowMode::Automatic, FollowMode::Sse, FollowMode::LongPoll];

#[tokio::test]
async fn a_subscription_catches_up_and_follows_to_the_end() {
    let scene = Scene::start();
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        let client = scene.builder().http_version(version).build().unwrap();
        for (number, mode) in MODES.into_iter().enumerate() {
            let stream = client.stream(&format!("{version:?}/{number}")).unwrap();
            stream.create(&CreateOptions::json()).await.unwrap();
            stream.append_json(&1).await.unwrap();
            let mut all = stream.subscription(StartFrom::Start).mode(mode).build();
            let mut news = stream.subscription(StartFrom::Now).mode(mode).build();
            assert_eq!(next(&mut all).await.json::<u32>().unwrap(), [1]);
            let nothing = news.next_within(Duration::from_millis(200)).await.unwrap();
            assert_eq!(nothing, None);
            let pinned = news.position().clone();
            assert_ne!(pinned, StreamPosition::START, "the tail is known");
            for message in 2..5u32 {
                stream.append_json(&message).await.unwrap();
                for subscription in [&mut all, &mut news] {
                    let batch = next(subscription).await;
                    assert_eq!(batch.json::<u32>().unwrap(), [message], "{mode:?}");
                    assert_eq!(subscription.position(), batch.position());
                }
            }
            let mut again = stream.subscribe(pinned);
            assert_eq!(next(&mut again).await.json::<u32>().unwrap(), [2, 3, 4]);
            stream.close().await.unwrap();
            for subscription in [&mut all, &mut news, &mut again] {
                end(subscription).await;
            }
            let mut late = stream.subscription(StartFrom::Now).mode(mode).build();
            end(&mut late).await;
        }
    }
}

/// SSE turns each line end into LF and every byte that is no UTF-8 into U+FFFD.
#[tokio::test]
async fn text_arrives_byte_for_byte() {
    let scene = Scene::start();
    let stream = scene.client().stream("lines").unwrap();
    stream.create(&CreateOptions::text()).await.unwrap();
    let mut exact = stream.subscribe(StartFrom::Start);
    let mut events = stream.subscription(StartFrom::Start).mode(FollowMode::Sse).build();
    for subscription in [&mut exact, &mut events] {
        assert_eq!(subscription.next_within(Duration::from_millis(200)).await.unwrap(), None);
    }
    let parts: [&[u8]; 5] = [b"plain", b"a\r\nb\rc\n", b"\xff", "é\u{fffd}".as_bytes(), b"end"];
    for part in parts {
        stream.append(part, &AppendOptions::default()).await.unwrap();
        assert_eq!(bytes(&mut exact, part.len()).await, part);
    }
    let changed = bytes(&mut events, 10).await;
    assert!(changed.starts_with(b"plaina\nb\nc\n"), "{:?}", String::from_utf8_lossy(&changed));
}

#[tokio::test]
async fn a_deleted_stream_ends_its_subscriptions_with_an_error() {
    let scene = Scene::start();
    for mode in MODES {
        let stream = scene.client().stream("gone").unwrap();
        stream.create(&CreateOptions::text()).await.unwrap();
        let mut subscription = stream.subscription(StartFrom::Start).mode(mode).build();
        assert_eq!(subscription.next_within(Duration::from_millis(100)).await.unwrap(), None);
        stream.delete().await.unwrap();
        let ended =
            tokio::time::timeout(crate::scene::PATIENCE, subscription.next()).await.unwrap();
        let error = ended.expect_err("the stream is gone");
        assert_eq!(error.status().unwrap(), 404, "{mode:?}: {error}");
    }
}

/// Cancelling the wait for a batch, at whatever moment, loses and doubles nothing.
#[tokio::test]
async fn a_cancelled_wait_loses_nothing() {
    let scene = Scene::start();
    for mode in MODES {
        let stream = scene.client().stream(&format!("{mode:?}")).unwrap();
        stream.create(&CreateOptions::json()).await.unwrap();
        let writer = stream.clone();
        let writing = tokio::spawn(async move {
            for number in 0..200u32 {
                writer.append_json(&number).await.unwrap();
            }
            writer.close().await.unwrap();
        });
        let mut subscription = stream.subscription(StartFrom::Start).mode(mode).build();
        let mut read = Vec::new();
        let mut waits = 0;
        while !subscription.is_closed() {
            let patience = Duration::from_micros(fastrand::u64(0..3000));
            if let Some(batch) = subscription.next_within(patience).await.unwrap() {
                read.extend(batch.json::<u32>().unwrap());
            }
            waits += 1;
            assert!(waits < 200_000, "{mode:?}: it stands still at {}", read.len());
        }
        assert_eq!(read, (0..200).collect::<Vec<_>>(), "{mode:?}");
        writing.await.unwrap();
    }
}

/// A server that answers each request with the next of `responses`, and then no more.
async fn scripted(responses: &'static [&'static str]) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/stream", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut responses = responses.iter();
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = Vec::new();
            while let Ok(byte) = socket.read_u8().await {
                head.push(byte);
                if head.ends_with(b"\r\n\r\n") {
                    let Some(response) = responses.next() else { return };
                    socket.write_all(response.as_bytes()).await.unwrap();
                    head.clear();
                }
            }
        }
    });
    url
}

/// A response that was sent twice, as the answer to another request: it has no data and ends further on.
#[tokio::test]
async fn a_page_without_data_skips_nothing() {
    const ABSENT: &str =
        "HTTP/1.1 204 No Content\r\nstream-next-offset: 9\r\nstream-up-to-date: true\r\n\r\n";
    const EMPTY: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nstream-next-offset: 9\r\n\
                         stream-up-to-date: true\r\ncontent-length: 0\r\n\r\n";
    const TAIL: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nstream-next-offset: 5\r\n\
                        stream-up-to-date: true\r\ncontent-length: 0\r\n\r\n";
    const DATA: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nstream-next-offset: 9\r\n\
                        stream-up-to-date: true\r\nstream-closed: true\r\ncontent-length: 4\r\n\r\nabcd";
    let from: StreamPosition = "5".parse().unwrap();
    let stream = |url: String| Client::new(&url).unwrap().stream("s").unwrap();
    let read = stream(scripted(&[EMPTY, DATA]).await).read(from.clone()).collect().await.unwrap();
    assert_eq!(read[0].to_bytes(), "abcd");
    for script in [&[TAIL, ABSENT, DATA][..], &[TAIL, EMPTY, DATA], &[EMPTY, TAIL, DATA]] {
        let stream = stream(scripted(script).await);
        let mut followed = stream.subscription(from.clone()).mode(FollowMode::LongPoll).build();
        let batch = next(&mut followed).await;
        assert_eq!((batch.to_bytes().as_ref(), batch.is_last()), (&b"abcd"[..], true));
    }
}
