//! Single requests: create, append, head, close, delete, and reads to the tail.

use std::time::Duration;

use durable_streams_client::{
    AppendOptions, Client, ContentType, CreateOptions, Expiry, HttpVersion, RetryPolicy, StartFrom,
    StreamPosition,
};
use futures_util::{StreamExt, TryStreamExt};

use crate::scene::Scene;

#[tokio::test]
async fn a_stream_lives_from_create_to_delete() {
    let scene = Scene::start();
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        let client = scene.builder().http_version(version).build().unwrap();
        let stream = client.stream("rooms/one two").unwrap();
        let text = CreateOptions::text().ttl(Duration::from_secs(3600));
        assert!(stream.create(&text).await.unwrap().created);
        assert!(!stream.create(&text).await.unwrap().created, "it exists as asked");
        let conflict = stream.create(&CreateOptions::json()).await.unwrap_err();
        assert_eq!(conflict.status().unwrap(), 409);
        assert!(!conflict.is_retryable() && conflict.code().is_some(), "{conflict}");

        let first = stream.append("hello ", &AppendOptions::default()).await.unwrap();
        let ordered =
            AppendOptions { stream_seq: Some("2".to_owned()), ..AppendOptions::default() };
        stream.append("world", &ordered).await.unwrap();
        let behind = stream.append("!", &ordered).await.unwrap_err();
        assert_eq!(behind.code(), Some("sequence-regression"), "{behind}");

        let head = stream.head().await.unwrap();
        assert_eq!(head.content_type.as_ref().unwrap().as_str(), "text/plain; charset=utf-8");
        assert_eq!((head.closed, head.expiry), (false, Expiry::Ttl(3600)));
        let mut read = stream.read(StartFrom::Start);
        let batch = read.next().await.unwrap().unwrap();
        assert_eq!((batch.to_bytes().as_ref(), batch.is_up_to_date()), (&b"hello world"[..], true));
        assert_eq!(read.next().await.unwrap(), None);
        assert_eq!(read.position(), &StreamPosition::at(head.tail.clone()));
        let rest = stream.read(first).collect().await.unwrap();
        assert_eq!(rest[0].to_bytes(), "world");
        let nothing = stream.read(StartFrom::Now).collect().await.unwrap();
        assert!(nothing.is_empty());

        assert_eq!(stream.close().await.unwrap(), head.tail);
        assert_eq!(stream.close().await.unwrap(), head.tail, "closing again succeeds");
        let closed = stream.append("x", &AppendOptions::default()).await.unwrap_err();
        let refusal = closed.refusal().unwrap();
        assert!(refusal.closed && refusal.next_offset.as_ref() == Some(&head.tail), "{closed:?}");
        let mut read = stream.read(StartFrom::Start);
        assert!(read.next().await.unwrap().unwrap().is_last());
        assert!(read.next().await.unwrap().is_none() && read.is_closed());

        stream.delete().await.unwrap();
        for error in [stream.head().await.unwrap_err(), stream.delete().await.unwrap_err()] {
            assert_eq!(error.status().unwrap(), 404, "{error}");
        }
        let missing = stream.read(StartFrom::Start).next().await.unwrap_err();
        assert_eq!(missing.code(), Some("not-found"), "{missing}");
    }
}

#[tokio::test]
async fn json_messages_come_back_as_they_were() {
    let scene = Scene::start();
    let stream = scene.client().stream("json").unwrap();
    stream.create(&CreateOptions::json().data("[{\"first\":1}]")).await.unwrap();
    stream.append_json(&vec![1, 2]).await.unwrap();
    stream.append_json_messages(["a", "b"]).await.unwrap();
    let none = stream.append_json_messages(Vec::<u8>::new()).await.unwrap_err();
    assert_eq!(none.status().unwrap(), 400);
    let messages = stream.read(StartFrom::Start).into_messages::<serde_json::Value>();
    let messages: Vec<_> = messages.try_collect().await.unwrap();
    let expected = serde_json::json!([{"first": 1}, [1, 2], "a", "b"]);
    assert_eq!(serde_json::Value::from(messages), expected);
    let wrong = stream.read(StartFrom::Start).into_messages::<String>();
    let results: Vec<_> = wrong.collect().await;
    assert!(results[0].is_err() && results.len() == 1, "the first is no text: {results:?}");
}

#[tokio::test]
async fn a_stream_is_created_closed_and_forked() {
    let scene = Scene::start();
    let client = scene.client();
    let source = client.stream("source").unwrap();
    let made = source.create(&CreateOptions::text().data("abcdef").closed()).await.unwrap();
    assert!(made.created && made.closed);
    let fork = client.stream("fork").unwrap();
    let options = CreateOptions::fork_of(&source, None).fork_sub_offset(0);
    let forked = fork.create(&options).await.unwrap();
    assert_eq!((forked.tail, forked.closed), (made.tail, false));
    fork.append("gh", &AppendOptions { close: true, ..AppendOptions::default() }).await.unwrap();
    let all = fork.read(StartFrom::Start).collect().await.unwrap();
    let text: Vec<u8> = all.iter().flat_map(|batch| batch.to_bytes()).collect();
    assert_eq!(text, b"abcdefgh");
    assert!(fork.head().await.unwrap().closed);
}

/// A response of many pieces, and one of many pages, each resumed at every position that a batch has.
#[tokio::test]
async fn a_read_resumes_at_every_position_of_every_batch() {
    for settings in ["", "limits: {max_read: 64KiB}\n"] {
        let scene = Scene::with(settings);
        let stream = scene.client().stream("large").unwrap();
        let data: Vec<u8> = (0..700_000u32).flat_map(u32::to_be_bytes).collect();
        stream.create(&CreateOptions::default()).await.unwrap();
        for part in data.chunks(100_000) {
            stream.append(part.to_vec(), &AppendOptions::default()).await.unwrap();
        }
        let batches = stream.read(StartFrom::Start).collect().await.unwrap();
        assert!(batches.len() > 5, "{} batches", batches.len());
        let read: Vec<u8> = batches.iter().flat_map(|batch| batch.to_bytes()).collect();
        assert!(read == data, "{settings}: {} of {} bytes", read.len(), data.len());
        let within = batches.iter().filter(|batch| batch.position().skip() > 0).count();
        assert!(within > 0 || !settings.is_empty(), "positions within a page");
        let mut at = 0;
        for batch in batches.iter().step_by(batches.len() / 5) {
            at = batches
                .iter()
                .take_while(|other| other.position() != batch.position())
                .chain([batch])
                .map(|batch| batch.to_bytes().len())
                .sum::<usize>()
                .max(at);
            let text = batch.position().to_string();
            let position: StreamPosition = text.parse().unwrap();
            let rest = stream.read(position).collect().await.unwrap();
            let rest: Vec<u8> = rest.iter().flat_map(|batch| batch.to_bytes()).collect();
            assert!(rest == data[at..], "from {text}: {} of {}", rest.len(), data.len() - at);
        }
    }
}

#[tokio::test]
async fn a_token_is_needed_where_the_server_says_so() {
    let setup = crate::server::Setup::new("");
    let credentials = setup.path().join("credentials.yaml");
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_durable-streams-server"))
        .args(["key", "create", "--name", "tests", "--allow", "all", "--credentials"])
        .arg(&credentials)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&made.stderr);
    assert!(made.status.success(), "{error}");
    let key = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    let scene = Scene::with(&format!("auth: {{credentials: {:?}}}\n", credentials));
    let anonymous = scene.builder().retry(RetryPolicy::never()).build().unwrap();
    let refused = anonymous.stream("a").unwrap().create(&CreateOptions::text()).await.unwrap_err();
    assert_eq!(refused.status().unwrap(), 401, "{refused}");
    let fixed = scene.builder().token(&key).unwrap().build().unwrap();
    fixed.stream("a").unwrap().create(&CreateOptions::text()).await.unwrap();
    let callback = scene.builder().token_callback(move || {
        let key = key.clone();
        async move { Ok::<_, std::io::Error>(key) }
    });
    let stream = callback.build().unwrap().stream("a").unwrap();
    stream.append("x", &AppendOptions::default()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_transport_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Client::builder(&url).retry(RetryPolicy::never()).build().unwrap();
    let error = client.stream("a").unwrap().head().await.unwrap_err();
    assert!(error.is_retryable() && error.status().is_none(), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    let typed =
        AppendOptions { content_type: ContentType::parse("a/b"), ..AppendOptions::default() };
    let error = client.stream("a").unwrap().append("x", &typed).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
}
