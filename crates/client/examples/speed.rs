//! Measures how fast the client is, against a server that runs.
//!
//! ```sh
//! cargo run --release -p durable-streams-client --example speed -- produce URL MESSAGES MESSAGE_BYTES MAX_BATCH IN_FLIGHT
//! cargo run --release -p durable-streams-client --example speed -- follow URL MEBIBYTES
//! ```
//!
//! `produce` appends JSON messages with one producer. `follow` appends 64 KiB chunks, and reads them back by
//! subscription and by a bare socket, both over SSE.

use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use durable_streams_client::{
    AppendOptions, Client, ContentType, CreateOptions, FollowMode, RetryPolicy, StartFrom, Stream,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const CHUNK: usize = 64 << 10;

async fn produce(stream: Stream, numbers: &[usize]) -> Result<(), BoxError> {
    let &[messages, bytes, max_batch, in_flight] = numbers else {
        return Err("MESSAGES MESSAGE_BYTES MAX_BATCH IN_FLIGHT".into());
    };
    stream.create(&CreateOptions::json()).await?;
    let builder = stream.producer("speed").max_batch(max_batch).max_in_flight(in_flight);
    let producer = builder.retry(RetryPolicy::never()).start().await?;
    let began = Instant::now();
    for number in 0..messages {
        let text = format!("{{\"n\":{number:>9},\"t\":\"{:x<1$}\"}}", "", bytes.saturating_sub(24));
        producer.append(text).await?;
    }
    producer.close().await?;
    let seconds = began.elapsed().as_secs_f64();
    println!("{messages} messages in {seconds:.2} s: {:.0}/s", messages as f64 / seconds);
    // Linux only; elsewhere the file is missing.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().filter(|line| line.starts_with("VmHWM")).for_each(|line| println!("{line}"));
    let mut reader = stream.read(StartFrom::Start);
    let mut expected = 0;
    while let Some(batch) = reader.next().await? {
        for message in batch.messages().unwrap_or_default() {
            let number = format!("{{\"n\":{expected:>9},");
            if !message.starts_with(number.as_bytes()) {
                return Err(format!("message {expected} is {message:?}").into());
            }
            expected += 1;
        }
    }
    println!("all {expected} are there, in order");
    Ok(())
}

async fn follow(stream: Stream, numbers: &[usize]) -> Result<(), BoxError> {
    let &[mebibytes] = numbers else { return Err("MEBIBYTES".into()) };
    let kind = ContentType::parse("application/octet-stream").unwrap_or_default();
    stream.create(&CreateOptions::of_type(&kind)).await?;
    let total = mebibytes << 20;
    let options = AppendOptions { content_type: Some(kind.clone()), ..AppendOptions::default() };
    for _ in 0..total / CHUNK {
        stream.append(vec![7; CHUNK], &options).await?;
    }
    for _ in 0..3 {
        let began = Instant::now();
        let subscription = stream.subscription(StartFrom::Start).mode(FollowMode::Sse);
        let mut subscription = subscription.events_from_the_beginning(&kind).build();
        let mut read = 0;
        while read < total {
            let batch = subscription.next().await?.ok_or("the stream is closed")?;
            read += batch.to_bytes().len();
        }
        report("subscription", total, began.elapsed());
        let began = Instant::now();
        raw(stream.url(), total).await?;
        report("bare socket ", total, began.elapsed());
    }
    Ok(())
}

fn report(what: &str, total: usize, took: Duration) {
    println!("{what}: {:.0} MiB/s", total as f64 / took.as_secs_f64() / f64::from(1 << 20));
}

/// Reads events until so many bytes have come; decodes base64, and nothing else.
async fn raw(url: &str, total: usize) -> Result<(), BoxError> {
    let rest = url.strip_prefix("http://").ok_or("http only")?;
    let (host, path) = rest.split_once('/').ok_or("a path")?;
    let mut socket = TcpStream::connect(host).await?;
    let request = format!("GET /{path}?live=sse&offset=-1 HTTP/1.1\r\nhost: {host}\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let (mut buffer, mut line, mut read) = (vec![0; 64 << 10], Vec::new(), 0);
    while read < total {
        let count = socket.read(&mut buffer).await?;
        if count == 0 {
            return Err("the connection ended".into());
        }
        for part in buffer.get(..count).unwrap_or_default().split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                if let Some(data) =
                    line.strip_prefix(b"data:").filter(|data| data.first() != Some(&b'{'))
                {
                    read += STANDARD.decode(data.trim_ascii()).map(|data| data.len()).unwrap_or(0);
                }
                line.clear();
            }
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [mode, url, numbers @ ..] = words.as_slice() else { return Err("MODE URL ...".into()) };
    let numbers: Vec<usize> = numbers.iter().map(|word| word.parse()).collect::<Result<_, _>>()?;
    let path = format!("speed/{:x}", std::process::id());
    let stream = Client::new(url)?.stream(&path)?;
    match mode.as_str() {
        "produce" => produce(stream, &numbers).await,
        "follow" => follow(stream, &numbers).await,
        other => Err(format!("there is no mode {other}").into()),
    }
}
