//! Trimmed streams: the client's own error, going on where that is asked for, and the commands.

use durable_streams_client::{
    AppendOptions, ClientError, ContentType, CreateOptions, Expiry, FollowMode, StartFrom, Stream,
    StreamOffset, StreamPosition,
};

use crate::commands::{code, printed};
use crate::scene::{Scene, bytes};

/// A stream of text with the offsets behind its appends.
async fn three(scene: &Scene, path: &str) -> (Stream, Vec<StreamOffset>) {
    let stream = scene.client().stream(path).unwrap();
    let text = ContentType::parse("text/plain").unwrap();
    stream.create(&CreateOptions::of_type(&text)).await.unwrap();
    let mut ends = Vec::new();
    for part in ["one,", "two,", "three"] {
        ends.push(stream.append(part, &AppendOptions::default()).await.unwrap());
    }
    (stream, ends)
}

fn at(offset: &StreamOffset) -> StartFrom {
    StartFrom::Position(StreamPosition::at(offset.clone()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_of_what_was_removed_says_where_to_go_on() {
    let scene = Scene::start();
    let (stream, ends) = three(&scene, "a").await;
    assert_eq!(stream.head().await.unwrap().earliest, None);
    assert_eq!(stream.trim(&ends[1]).await.unwrap(), ends[1]);
    assert_eq!(stream.trim(&ends[0]).await.unwrap(), ends[1], "it never goes back");
    assert_eq!(stream.head().await.unwrap().earliest.as_ref(), Some(&ends[1]));
    let error = stream.read(at(&ends[0])).next().await.unwrap_err();
    let ClientError::Trimmed { earliest, .. } = &error else { panic!("{error}") };
    assert_eq!((earliest, error.code()), (&ends[1], Some("offset-trimmed")));
    assert_eq!(error.status().map(|status| status.as_u16()), Some(410));
    assert!(!error.is_retryable());
    let batch = stream.read(at(earliest)).next().await.unwrap().unwrap();
    assert_eq!(&*batch.to_bytes(), b"three");
    let batch = stream.read(StartFrom::Start).next().await.unwrap().unwrap();
    assert_eq!(&*batch.to_bytes(), b"three");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_skips_what_was_removed_only_when_it_is_told_to() {
    let scene = Scene::start();
    for mode in [FollowMode::Sse, FollowMode::LongPoll] {
        let (stream, ends) = three(&scene, &format!("a/{mode:?}")).await;
        let mut strict = stream.subscription(at(&ends[0])).mode(mode).build();
        let mut tolerant = stream.subscription(at(&ends[0])).mode(mode).skip_trimmed().build();
        stream.trim(&ends[1]).await.unwrap();
        let error = strict.next().await.unwrap_err();
        assert!(matches!(&error, ClientError::Trimmed { earliest, .. } if *earliest == ends[1]));
        assert_eq!(strict.position().offset(), Some(&ends[0]), "it stays where it was");
        assert_eq!(bytes(&mut tolerant, 5).await, b"three");
        assert_eq!(tolerant.gaps(), 1);
        // It has all, and notices no further trim.
        stream.trim(&ends[2]).await.unwrap();
        stream.append("four", &AppendOptions::default()).await.unwrap();
        assert_eq!(bytes(&mut tolerant, 4).await, b"four");
        assert_eq!(tolerant.gaps(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expiry_is_changed() {
    let scene = Scene::start();
    let (stream, _) = three(&scene, "a").await;
    for expiry in [Expiry::Ttl(60), Expiry::Never] {
        stream.change_expiry(expiry).await.unwrap();
        assert_eq!(stream.head().await.unwrap().expiry, expiry);
    }
}

#[test]
fn a_stream_is_trimmed_and_its_expiry_changed_by_commands() {
    let scene = Scene::start();
    let url = &scene.url();
    printed(url, &["create", "a", "--type", "text/plain", "--data", "old,"]);
    let head: serde_json::Value =
        serde_json::from_str(&printed(url, &["head", "a", "--json"])).unwrap();
    let end = head["offset"].as_str().unwrap();
    printed(url, &["append", "a", "--data", "new"]);
    assert_eq!(printed(url, &["trim", "a", "--before", end]), format!("{end}\n"));
    assert_eq!(printed(url, &["read", "a"]), "new");
    let head = printed(url, &["head", "a"]);
    assert!(head.contains(&format!("earliest: {end}\n")), "{head}");
    let start = "0000000000000000_0000000000000000";
    assert_eq!(code(url, &["read", "a", "--from", start]), 3);
    assert_eq!(code(url, &["trim", "none", "--before", end]), 3);
    assert_eq!(code(url, &["trim", "a", "--before", "now"]), 2);
    printed(url, &["expire", "a", "--ttl", "1h"]);
    assert!(printed(url, &["head", "a"]).contains("ttl_seconds: 3600\n"));
    printed(url, &["expire", "a", "--at", "2999-01-31T12:00:00Z"]);
    assert!(printed(url, &["head", "a"]).contains("expires_at: 2999-01-31T12:00:00Z\n"));
    printed(url, &["expire", "a", "--never"]);
    assert!(!printed(url, &["head", "a"]).contains("expires_at"));
    assert_eq!(code(url, &["expire", "a"]), 2);
    printed(url, &["close", "a"]);
    assert_eq!(printed(url, &["follow", "a", "--from", start, "--skip-trimmed"]), "new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_of_the_configuration_trims() {
    let scene = Scene::with("retention:\n  - paths: \"logs/*\"\n    keep_messages: 2\n");
    let (kept, _) = three(&scene, "other").await;
    let (stream, ends) = three(&scene, "logs/a").await;
    let deadline = std::time::Instant::now() + crate::scene::PATIENCE;
    while stream.head().await.unwrap().earliest.as_ref() != Some(&ends[0]) {
        assert!(std::time::Instant::now() < deadline, "nothing is trimmed");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert_eq!(kept.head().await.unwrap().earliest, None);
}
