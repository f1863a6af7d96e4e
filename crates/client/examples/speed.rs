//! Measures how fast the client is, against a server that runs, beside bare sockets under the same load.
//!
//! ```sh
//! cargo run --release -p durable-streams-client --example speed -- appends URL SECONDS CONNECTIONS [http2]
//! cargo run --release -p durable-streams-client --example speed -- produce URL MESSAGES MESSAGE_BYTES
//! cargo run --release -p durable-streams-client --example speed -- follow URL MEBIBYTES
//! ```
//!
//! `appends`: one message of 256 bytes a request, from one producer with as many batches in flight as bare sockets have
//! connections. The sockets append to the same stream without producer headers, so none waits for another. `produce`:
//! small JSON messages through the producer's own batches, read back and checked. `follow`: chunks of 64 KiB by
//! subscription and by a bare socket, both over SSE.

use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use durable_streams_client::{
    Client, ContentType, CreateOptions, FollowMode, HttpVersion, RetryPolicy, StartFrom, Stream,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

const CHUNK: usize = 64 << 10;
const MESSAGE: usize = 256;
const ROUNDS: u32 = 5;

/// Appends of one message each, by a producer and by bare sockets, in turn.
async fn appends(client: &Client, numbers: &[u64]) -> Result<(), BoxError> {
    let &[seconds, connections] = numbers else { return Err("SECONDS CONNECTIONS".into()) };
    let (time, connections) = (Duration::from_secs(seconds), usize::try_from(connections)?);
    let kind = ContentType::parse("application/octet-stream").unwrap_or_default();
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let stream = client.stream(&format!("speed/{:x}/{round}", std::process::id()))?;
        stream.create(&CreateOptions::of_type(&kind)).await?;
        let raw = raw_appends(stream.url(), time, connections).await?;
        let produced = produced_appends(&stream, time, connections).await?;
        ratios.push(produced / raw);
        println!("bare sockets {raw:.0}/s, producer {produced:.0}/s: {:.2}", produced / raw);
    }
    ratios.sort_by(f64::total_cmp);
    println!("median {:.2}", ratios.get(ratios.len() / 2).copied().unwrap_or_default());
    Ok(())
}

/// Acknowledged messages a second of a producer whose batches hold one message.
async fn produced_appends(
    stream: &Stream,
    time: Duration,
    in_flight: usize,
) -> Result<f64, BoxError> {
    let builder = stream.producer("speed").max_batch(1).max_in_flight(in_flight);
    // Enough that the next batch is always there, and little enough that the end is near.
    let builder = builder.max_buffered(MESSAGE * in_flight * 4);
    let producer = builder.retry(RetryPolicy::never()).start().await?;
    // A task of its own, as the bare sockets have.
    let produced = tokio::spawn(async move {
        let (began, mut count) = (Instant::now(), 0_u32);
        while began.elapsed() < time {
            producer.append([b'x'; MESSAGE]).await?;
            count += 1;
        }
        producer.close().await?;
        Ok::<_, BoxError>(f64::from(count) / began.elapsed().as_secs_f64())
    });
    produced.await?
}

async fn raw_appends(url: &str, time: Duration, connections: usize) -> Result<f64, BoxError> {
    let (host, path) = host_and_path(url)?;
    let head = format!(
        "POST /{path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/octet-stream\r\n\
         content-length: {MESSAGE}\r\n\r\n"
    );
    let request = [head.as_bytes(), &[b'x'; MESSAGE]].concat();
    let began = Instant::now();
    let mut writers = JoinSet::new();
    for _ in 0..connections {
        let (host, request) = (host.to_owned(), request.clone());
        writers.spawn(async move {
            let mut socket = TcpStream::connect(host).await?;
            socket.set_nodelay(true)?;
            let (mut response, mut count) = ([0; 4096], 0_u32);
            while began.elapsed() < time {
                socket.write_all(&request).await?;
                let mut length = 0;
                // The response has no body.
                while !response.get(..length).unwrap_or_default().ends_with(b"\r\n\r\n") {
                    let read = socket.read(response.get_mut(length..).unwrap_or_default()).await?;
                    if read == 0 {
                        return Err("the connection ended".into());
                    }
                    length += read;
                }
                if !response.starts_with(b"HTTP/1.1 204") {
                    return Err(String::from_utf8_lossy(&response).into_owned().into());
                }
                count += 1;
            }
            Ok::<_, BoxError>(count)
        });
    }
    let mut total = 0.0;
    while let Some(count) = writers.join_next().await {
        total += f64::from(count??);
    }
    Ok(total / began.elapsed().as_secs_f64())
}

fn host_and_path(url: &str) -> Result<(&str, &str), BoxError> {
    let rest = url.strip_prefix("http://").ok_or("http only")?;
    Ok(rest.split_once('/').ok_or("a path")?)
}

async fn produce(client: &Client, numbers: &[u64]) -> Result<(), BoxError> {
    let &[messages, bytes] = numbers else { return Err("MESSAGES MESSAGE_BYTES".into()) };
    let padding = usize::try_from(bytes)?.saturating_sub(24);
    let stream = client.stream(&format!("speed/{:x}", std::process::id()))?;
    stream.create(&CreateOptions::json()).await?;
    let producer = stream.producer("speed").retry(RetryPolicy::never()).start().await?;
    let began = Instant::now();
    for number in 0..messages {
        let text = format!("{{\"n\":{number:>9},\"t\":\"{:x<1$}\"}}", "", padding);
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

async fn follow(client: &Client, numbers: &[u64]) -> Result<(), BoxError> {
    let &[mebibytes] = numbers else { return Err("MEBIBYTES".into()) };
    let stream = client.stream(&format!("speed/{:x}", std::process::id()))?;
    let kind = ContentType::parse("application/octet-stream").unwrap_or_default();
    stream.create(&CreateOptions::of_type(&kind)).await?;
    let total = usize::try_from(mebibytes)? << 20;
    // One chunk an append, several in flight: one after the other would wait for the disk thousands of times.
    let producer = stream.producer("speed").max_batch(CHUNK).max_in_flight(16).start().await?;
    for _ in 0..total / CHUNK {
        producer.append([7; CHUNK]).await?;
    }
    producer.close().await?;
    println!("{mebibytes} MiB are stored");
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let subscription = stream.subscription(StartFrom::Start).mode(FollowMode::Sse);
        let mut subscription = subscription.events_from_the_beginning(&kind).build();
        let mut read = 0;
        while read < total {
            let batch = subscription.next().await?.ok_or("the stream is closed")?;
            read += batch.to_bytes().len();
        }
        let subscribed = began.elapsed();
        let began = Instant::now();
        raw(stream.url(), total).await?;
        let bare = began.elapsed();
        let rate = |took: Duration| total as f64 / took.as_secs_f64() / f64::from(1 << 20);
        let (rate, raw) = (rate(subscribed), rate(bare));
        println!("bare socket {raw:.0} MiB/s, subscription {rate:.0} MiB/s: {:.2}", rate / raw);
    }
    Ok(())
}

/// Reads events until so many bytes have come; decodes base64, and nothing else.
async fn raw(url: &str, total: usize) -> Result<(), BoxError> {
    let (host, path) = host_and_path(url)?;
    let mut socket = TcpStream::connect(host).await?;
    // HTTP/1.0 has no chunks, whose sizes would stand in the middle of a large event.
    let request = format!("GET /{path}?live=sse&offset=-1 HTTP/1.0\r\nhost: {host}\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let (mut buffer, mut read) = (vec![0; 64 << 10], 0);
    let (mut line, mut event) = (Vec::new(), Vec::new());
    while read < total {
        let count = socket.read(&mut buffer).await?;
        if count == 0 {
            return Err("the connection ended".into());
        }
        for part in buffer.get(..count).unwrap_or_default().split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let data = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii);
                // A large event has several lines of data, which are one text in base64.
                if let Some(data) = data.filter(|data| data.first() != Some(&b'{')) {
                    event.extend_from_slice(data);
                } else if line.trim_ascii().is_empty() {
                    read += STANDARD.decode(&event).map_err(|error| error.to_string())?.len();
                    event.clear();
                }
                line.clear();
            }
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let http2 = words.pop_if(|word| word == "http2").is_some();
    let [mode, url, numbers @ ..] = words.as_slice() else { return Err("MODE URL ...".into()) };
    let numbers: Vec<u64> = numbers.iter().map(|word| word.parse()).collect::<Result<_, _>>()?;
    let version = if http2 { HttpVersion::Http2 } else { HttpVersion::Automatic };
    let client = Client::builder(url).http_version(version).build()?;
    match mode.as_str() {
        "appends" => appends(&client, &numbers).await,
        "produce" => produce(&client, &numbers).await,
        "follow" => follow(&client, &numbers).await,
        other => Err(format!("there is no mode {other}").into()),
    }
}
