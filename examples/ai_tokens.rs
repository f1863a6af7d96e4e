//! A model's answer as a stream: one producer writes tokens as they come, three readers come and go, and each has the
//! whole answer in the end, whether it was there from the beginning, left for a while, or came late.
//!
//! ```sh
//! cargo run -- dev                       # a server, in another terminal
//! cargo run --example ai_tokens
//! ```

use std::time::Duration;

use durable_streams_client::{Client, CreateOptions, StartFrom, Stream};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const ANSWER: &str = "Streams are logs with a URL.\nA reader that loses its connection says where it was, \
    and reads on exactly there: no token is lost, none comes twice, and a late reader sees the whole answer first.";

/// Writes the answer token by token, then closes the stream, by which readers see that it is complete.
async fn answer(stream: Stream) -> Result<(), BoxError> {
    let producer = stream.producer("model").linger(Duration::from_millis(1)).start().await?;
    for token in ANSWER.split_inclusive(' ') {
        producer.append(token).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    producer.close_stream().await?;
    Ok(())
}

/// Reads to the end, but goes away after every `patience` batches and comes back with its position.
async fn read(stream: Stream, late: Duration, patience: usize) -> Result<String, BoxError> {
    tokio::time::sleep(late).await;
    let mut from = StartFrom::Start;
    let mut text = Vec::new();
    loop {
        let mut subscription = stream.subscribe(from);
        for _ in 0..patience {
            let Some(batch) = subscription.next().await? else {
                return Ok(String::from_utf8(text)?);
            };
            text.extend_from_slice(&batch.to_bytes());
        }
        // This is what an application stores. Dropping the subscription frees its connection.
        let position = subscription.position().to_string();
        drop(subscription);
        tokio::time::sleep(Duration::from_millis(20)).await;
        from = StartFrom::Position(position.parse()?);
    }
}

/// Runs the example, and returns what each reader has read.
pub(crate) async fn run(url: &str, path: &str) -> Result<Vec<String>, BoxError> {
    let stream = Client::new(url)?.stream(path)?;
    stream.create(&CreateOptions::text()).await?;
    let readers = [(0, usize::MAX), (0, 3), (100, 5)].map(|(late, patience)| {
        tokio::spawn(read(stream.clone(), Duration::from_millis(late), patience))
    });
    answer(stream).await?;
    let mut texts = Vec::new();
    for reader in readers {
        texts.push(reader.await??);
    }
    Ok(texts)
}

#[allow(dead_code, reason = "tests call `run`")]
#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let path = format!("answers/{:08x}", std::process::id());
    let texts = run("http://localhost:4437/v1/stream", &path).await?;
    for text in &texts {
        println!("{} bytes, complete: {}", text.len(), text == ANSWER);
    }
    println!("{ANSWER}");
    Ok(())
}
