//! The programs of examples/ that use the client.

use std::time::Duration;

use durable_streams_client::CreateOptions;
use serde_json::json;

use crate::scene::Scene;

#[path = "../../examples/ai_tokens.rs"]
mod ai_tokens;
#[path = "../../examples/client.rs"]
mod client;
#[path = "../../examples/pull_wake_worker.rs"]
mod pull_wake_worker;
#[path = "../../examples/snapshot_and_trim.rs"]
mod snapshot_and_trim;

async fn numbers(url: &str, stream: &str, arguments: &[&str]) -> String {
    let words = ["--url", url, "--stream", stream].into_iter().chain(arguments.iter().copied());
    client::run(&words.map(str::to_owned).collect::<Vec<_>>()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbered_messages_in_every_mode() {
    let scene = Scene::start();
    let url = &scene.url();
    let both = numbers(url, "both", &["--mode", "both", "--count", "500"]).await;
    assert!(both.starts_with("received 500 messages up to "), "{both}");
    let produced = numbers(url, "apart", &["--mode", "produce", "--count", "30"]).await;
    assert!(produced.starts_with("30 messages are durable up to "), "{produced}");
    let consumed = numbers(url, "apart", &["--mode", "consume", "--count", "30"]).await;
    let position = consumed.strip_prefix("received 30 messages up to ").unwrap();
    let tail = produced.rsplit(' ').next().unwrap();
    assert_eq!(position, tail);
    numbers(url, "apart", &["--mode", "produce", "--count", "5"]).await;
    let later = ["--mode", "consume", "--offset", position, "--count", "5"];
    let later = numbers(url, "apart", &later).await;
    assert!(later.starts_with("received 5 messages"), "{later}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_of_an_answer_has_all_of_it() {
    let scene = Scene::start();
    let texts = ai_tokens::run(&scene.url(), "answers/1").await.unwrap();
    assert_eq!(texts.len(), 3);
    for text in &texts {
        assert!(text.starts_with("Streams are") && text.ends_with("whole answer first."), "{text}");
        assert_eq!(text, &texts[0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_does_all_pending_work() {
    let scene = Scene::with("subscriptions: {public_url: \"http://localhost\"}\n");
    let url = scene.url();
    let working = tokio::spawn({
        let url = url.clone();
        async move { pull_wake_worker::run(&url, "jobs", 6).await.unwrap() }
    });
    // It installs what reqwest needs for TLS.
    let client = scene.client();
    // A subscription begins at the tails of the streams that are there.
    let subscription = format!("{url}/__ds/subscriptions/jobs");
    let begun = async {
        while !reqwest::get(&subscription).await.unwrap().status().is_success() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(crate::scene::PATIENCE, begun).await.unwrap();
    for (stream, count) in [("jobs/1", 2), ("jobs/2", 4)] {
        let stream = client.stream(stream).unwrap();
        stream.create(&CreateOptions::json()).await.unwrap();
        for number in 0..count {
            stream.append_json(&json!({"job": stream.url(), "number": number})).await.unwrap();
        }
    }
    let done = tokio::time::timeout(crate::scene::PATIENCE, working).await.unwrap().unwrap();
    for (path, count) in [("jobs/1", 2), ("jobs/2", 4)] {
        let numbers: Vec<_> = done
            .iter()
            .filter(|job| job["job"].as_str().unwrap().ends_with(path))
            .map(|job| job["number"].as_u64().unwrap())
            .collect();
        assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "{path}: once and in order");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_is_snapshotted_and_trimmed_stays_short_and_right() {
    use snapshot_and_trim::{change, read_state, run};

    let scene = Scene::start();
    let state = run(&scene.url(), "counts", 250).await.unwrap();
    let expected: snapshot_and_trim::Counts =
        [("third".to_owned(), 83), ("other".to_owned(), 167)].into();
    assert_eq!(state.counts, expected);
    // The second snapshot, and the changes since.
    assert_eq!(state.messages, 51);
    let stream = scene.client().stream("counts").unwrap();
    assert!(stream.head().await.unwrap().earliest.is_some());

    // A writer that died before its trim, and another that appended before its snapshot.
    let before = read_state(&stream).await.unwrap();
    change(&stream, "late", 5).await.unwrap();
    let snapshot = json!({"snapshot": before.counts, "covers": before.upto.as_str()});
    stream.append_json(&snapshot).await.unwrap();
    change(&stream, "late", 1).await.unwrap();
    let state = read_state(&stream).await.unwrap();
    assert_eq!((state.counts.get("late"), state.counts.get("third")), (Some(&6), Some(&83)));
    snapshot_and_trim::snapshot_and_trim(&stream).await.unwrap();
    let state = read_state(&stream).await.unwrap();
    assert_eq!((state.counts.get("late"), state.counts.get("other")), (Some(&6), Some(&167)));
    assert_eq!(state.messages, 1, "the snapshot alone");
}
