//! Idempotent producers.

use std::time::Duration;

use durable_streams_client::{CreateOptions, HttpVersion, ProducerError, StartFrom, Stream};

use crate::scene::Scene;

async fn numbers(stream: &Stream) -> Vec<u32> {
    let batches = stream.read(StartFrom::Start).collect().await.unwrap();
    batches.iter().flat_map(|batch| batch.json::<u32>().unwrap()).collect()
}

#[tokio::test]
async fn messages_are_stored_once_and_in_order() {
    let scene = Scene::start();
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        let client = scene.builder().http_version(version).build().unwrap();
        let stream = client.stream(&format!("{version:?}")).unwrap();
        stream.create(&CreateOptions::json()).await.unwrap();
        let producer = stream.producer("p").max_batch(200).start().await.unwrap();
        let mut last = None;
        for number in 0..2000u32 {
            last = Some(producer.append_json(&number).await.unwrap());
        }
        let offset = last.unwrap().await.unwrap();
        assert_eq!(offset, stream.head().await.unwrap().tail);
        producer.flush().await.unwrap();
        assert_eq!(producer.unacknowledged(), 0);
        producer.append_json(&2000).await.unwrap();
        let end = producer.close_stream().await.unwrap();
        let head = stream.head().await.unwrap();
        assert_eq!((head.tail, head.closed), (end, true), "closed with the last batch");
        assert_eq!(numbers(&stream).await, (0..=2000).collect::<Vec<_>>(), "{version:?}");
    }
}

#[tokio::test]
async fn bytes_are_joined_as_they_are() {
    let scene = Scene::start();
    let stream = scene.client().stream("bytes").unwrap();
    stream.create(&CreateOptions::default()).await.unwrap();
    let producer = stream.producer("p").start().await.unwrap();
    for part in [&b"ab"[..], b"\xff", b"[1"] {
        producer.append(part).await.unwrap();
    }
    assert!(matches!(producer.append("").await, Err(ProducerError::InvalidMessage(_))));
    producer.close().await.unwrap();
    let read = stream.read(StartFrom::Start).collect().await.unwrap();
    assert_eq!(read[0].to_bytes(), &b"ab\xff[1"[..]);
}

#[tokio::test]
async fn a_message_that_is_no_json_harms_no_other() {
    let scene = Scene::start();
    let stream = scene.client().stream("json").unwrap();
    stream.create(&CreateOptions::json()).await.unwrap();
    let producer = stream.producer("p").start().await.unwrap();
    producer.append("1").await.unwrap();
    for bad in ["{", "1,2", "1 2", "1],[2", "x"] {
        let refused = producer.append(bad).await;
        assert!(matches!(refused, Err(ProducerError::InvalidMessage(_))), "{bad}");
    }
    producer.append(" 2 ").await.unwrap();
    producer.close().await.unwrap();
    assert_eq!(numbers(&stream).await, [1, 2]);
}

#[tokio::test]
async fn the_newest_producer_fences_the_others() {
    let scene = Scene::start();
    let stream = scene.client().stream("fenced").unwrap();
    stream.create(&CreateOptions::json()).await.unwrap();
    let first = stream.producer("p").start().await.unwrap();
    first.append_json(&1).await.unwrap().await.unwrap();
    let second = stream.producer("p").start().await.unwrap();
    second.append_json(&2).await.unwrap().await.unwrap();
    let late = first.append_json(&9).await.unwrap();
    let fenced = late.await.unwrap_err();
    assert!(matches!(&fenced, ProducerError::Fenced { id, .. } if id == "p"), "{fenced}");
    assert!(matches!(first.append_json(&9).await, Err(ProducerError::Fenced { .. })));
    assert!(matches!(first.close_stream().await, Err(ProducerError::Fenced { .. })));
    assert!(!stream.head().await.unwrap().closed, "a fenced producer closes nothing");
    second.append_json(&3).await.unwrap();
    second.close().await.unwrap();
    assert_eq!(numbers(&stream).await, [1, 2, 3]);
}

#[tokio::test]
async fn a_repeated_session_stores_nothing_twice() {
    let scene = Scene::start();
    let stream = scene.client().stream("session").unwrap();
    stream.create(&CreateOptions::json()).await.unwrap();
    for _ in 0..2 {
        let producer = stream.producer("p").epoch(4).max_batch(1).start().await.unwrap();
        for number in 0..5 {
            producer.append_json(&number).await.unwrap();
        }
        producer.close().await.unwrap();
    }
    let more = stream.producer("p").epoch(4).first_seq(5).start().await.unwrap();
    more.append_json(&5).await.unwrap();
    more.close().await.unwrap();
    assert_eq!(numbers(&stream).await, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_full_buffer_makes_its_callers_wait() {
    let scene = Scene::start();
    let stream = scene.client().stream("full").unwrap();
    stream.create(&CreateOptions::default()).await.unwrap();
    let slow = stream.producer("p").max_buffered(1000).linger(Duration::from_millis(300));
    let producer = slow.start().await.unwrap();
    for _ in 0..10 {
        producer.try_append([b'x'; 100]).unwrap();
    }
    assert!(matches!(producer.try_append("x"), Err(ProducerError::BufferFull)));
    let long = producer.append([b'x'; 1001]).await;
    assert!(matches!(long, Err(ProducerError::TooLarge { bytes: 1001, limit: 1000 })));
    let began = std::time::Instant::now();
    producer.append([b'x'; 1000]).await.unwrap();
    assert!(began.elapsed() > Duration::from_millis(100), "it waited for room");
    producer.close().await.unwrap();
    let read = stream.read(StartFrom::Start).collect().await.unwrap();
    assert_eq!(read.iter().map(|batch| batch.to_bytes().len()).sum::<usize>(), 2000);
}

#[tokio::test]
async fn a_dropped_producer_tells_its_messages() {
    let scene = Scene::start();
    let stream = scene.client().stream("dropped").unwrap();
    stream.create(&CreateOptions::json()).await.unwrap();
    let producer = stream.producer("p").linger(Duration::from_secs(60)).start().await.unwrap();
    let delivery = producer.append_json(&1).await.unwrap();
    assert_eq!(producer.unacknowledged(), 1);
    drop(producer);
    assert!(matches!(delivery.await, Err(ProducerError::Stopped)));
    let missing = scene.client().stream("missing").unwrap();
    let refused = missing.producer("p").start().await.unwrap_err();
    assert_eq!(refused.status().unwrap(), 404);
    let refused = stream.producer("é").start().await.unwrap_err();
    assert!(refused.to_string().contains("visible ASCII"), "{refused}");
    let bounds = [
        stream.producer("p").max_batch(0),
        stream.producer("p").max_batch_messages(0),
        stream.producer("p").max_in_flight(0),
        stream.producer("p").max_buffered(0),
    ];
    for builder in bounds {
        let refused = builder.start().await.unwrap_err();
        assert!(refused.to_string().contains("at least 1"), "{refused}");
    }
}

#[tokio::test]
async fn a_deleted_stream_fails_its_messages() {
    let scene = Scene::start();
    let stream = scene.client().stream("deleted").unwrap();
    stream.create(&CreateOptions::json()).await.unwrap();
    let producer = stream.producer("p").start().await.unwrap();
    producer.append_json(&1).await.unwrap().await.unwrap();
    stream.delete().await.unwrap();
    let error = producer.append_json(&2).await.unwrap().await.unwrap_err();
    let ProducerError::Failed(error) = error else { panic!("{error}") };
    assert_eq!(error.status().unwrap(), 404);
}
