//! Numbered messages to a stream and from it.
//!
//! ```sh
//! cargo run -- dev                                                  # a server, in another terminal
//! cargo run --example client -- --mode both --count 1000
//! cargo run --example client -- --mode produce --count 1000
//! cargo run --example client -- --mode consume --offset <the position that it printed last> --count 10
//! ```
//!
//! Options: `--url http://localhost:4437/v1/stream`, `--stream numbers`, `--mode produce|consume|both`, `--count N`,
//! `--offset start|now|POSITION`.

use durable_streams_client::{Client, CreateOptions, StartFrom, Stream};
use serde::{Deserialize, Serialize};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Serialize, Deserialize)]
struct NumberedMessage {
    number: u64,
}

/// What the arguments say.
#[derive(Debug)]
struct ExampleOptions {
    url: String,
    stream: String,
    mode: String,
    count: u64,
    from: StartFrom,
}

fn options(arguments: &[String]) -> Result<ExampleOptions, BoxError> {
    let mut options = ExampleOptions {
        url: "http://localhost:4437/v1/stream".to_owned(),
        stream: "numbers".to_owned(),
        mode: "both".to_owned(),
        count: 100,
        from: StartFrom::Start,
    };
    let mut words = arguments.iter();
    while let Some(name) = words.next() {
        let value = words.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--url" => options.url = value.clone(),
            "--stream" => options.stream = value.clone(),
            "--mode" => options.mode = value.clone(),
            "--count" => options.count = value.parse()?,
            "--offset" => {
                options.from = match value.as_str() {
                    "start" => StartFrom::Start,
                    "now" => StartFrom::Now,
                    position => StartFrom::Position(position.parse()?),
                }
            }
            _ => return Err(format!("there is no option {name}").into()),
        }
    }
    Ok(options)
}

async fn produce(stream: Stream, count: u64) -> Result<(), BoxError> {
    let producer = stream.producer("example").start().await?;
    for number in 0..count {
        producer.append_json(&NumberedMessage { number }).await?;
    }
    producer.close().await?;
    Ok(())
}

/// Returns what it received, and the position after it.
async fn consume(
    stream: Stream,
    from: StartFrom,
    count: u64,
) -> Result<(Vec<u64>, String), BoxError> {
    let mut subscription = stream.subscribe(from);
    let mut received = Vec::new();
    while (received.len() as u64) < count {
        let Some(batch) = subscription.next().await? else { break };
        received.extend(batch.json::<NumberedMessage>()?.iter().map(|message| message.number));
    }
    Ok((received, subscription.position().to_string()))
}

/// Runs the example, and returns what it prints.
pub(crate) async fn run(arguments: &[String]) -> Result<String, BoxError> {
    let ExampleOptions { url, stream, mode, count, from } = options(arguments)?;
    let stream = Client::new(&url)?.stream(&stream)?;
    stream.create(&CreateOptions::json()).await?;
    let (received, position) = match mode.as_str() {
        "produce" => {
            produce(stream.clone(), count).await?;
            return Ok(format!("{count} messages are durable up to {}", stream.head().await?.tail));
        }
        "consume" => consume(stream, from, count).await?,
        "both" => {
            let consumer = tokio::spawn(consume(stream.clone(), from, count));
            produce(stream, count).await?;
            consumer.await??
        }
        other => return Err(format!("--mode is produce, consume or both, not {other}").into()),
    };
    Ok(format!("received {} messages up to {position}", received.len()))
}

#[allow(dead_code, reason = "tests call `run`")]
#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    println!("{}", run(&arguments).await?);
    Ok(())
}
