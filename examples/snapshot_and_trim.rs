//! A state that is a stream of changes, kept short: the writer puts a snapshot into the stream and trims what it stands
//! for, and a reader begins with the snapshot. docs/retention.md explains the steps.
//!
//! ```sh
//! cargo run -- dev                       # a server, in another terminal
//! cargo run --example snapshot_and_trim
//! ```

use std::collections::BTreeMap;

use durable_streams_client::{
    Client, ClientError, CreateOptions, StartFrom, Stream, StreamOffset, StreamPosition,
};
use serde::{Deserialize, Serialize};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The state: a number for each name.
pub(crate) type Counts = BTreeMap<String, u64>;

/// A message of the stream.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum StateMessage {
    /// The state up to an offset.
    Snapshot { snapshot: Counts, covers: String },
    /// A change of it.
    Change { name: String, add: u64 },
}

/// A state, and how far in the stream it goes.
pub(crate) struct ReadState {
    pub(crate) counts: Counts,
    pub(crate) upto: StreamOffset,
    /// Messages that were read for it.
    pub(crate) messages: usize,
}

/// The first snapshot in the stream, and the offset that it covers.
async fn first_snapshot(stream: &Stream) -> Result<Option<(Counts, StreamOffset)>, BoxError> {
    let mut reader = stream.read(StartFrom::Start);
    while let Some(batch) = reader.next().await? {
        for message in batch.json::<StateMessage>()? {
            if let StateMessage::Snapshot { snapshot, covers } = message {
                let covers = StreamOffset::new(&covers).ok_or("a snapshot covers an offset")?;
                return Ok(Some((snapshot, covers)));
            }
        }
    }
    Ok(None)
}

/// Reads the state up to the tail: the first snapshot, and the changes behind what it covers. Where the stream is trimmed
/// in between (`ClientError::Trimmed`), the caller begins again.
pub(crate) async fn read_state(stream: &Stream) -> Result<ReadState, BoxError> {
    let (mut counts, from) = match first_snapshot(stream).await? {
        Some((counts, covers)) => (counts, StartFrom::Position(StreamPosition::at(covers))),
        None => (Counts::new(), StartFrom::Start),
    };
    let mut messages = 0;
    let mut reader = stream.read(from);
    while let Some(batch) = reader.next().await? {
        for message in batch.json::<StateMessage>()? {
            messages += 1;
            // The state has what later snapshots have.
            if let StateMessage::Change { name, add } = message {
                *counts.entry(name).or_default() += add;
            }
        }
    }
    let upto = match reader.position().offset() {
        Some(offset) => offset.clone(),
        None => stream.head().await?.tail,
    };
    Ok(ReadState { counts, upto, messages })
}

/// Appends a change, in a request of its own.
pub(crate) async fn change(
    stream: &Stream,
    name: &str,
    add: u64,
) -> Result<StreamOffset, ClientError> {
    stream.append_json(&StateMessage::Change { name: name.to_owned(), add }).await
}

/// Puts a snapshot of the state into the stream and trims what it stands for. Others may append meanwhile.
pub(crate) async fn snapshot_and_trim(stream: &Stream) -> Result<(), BoxError> {
    let ReadState { counts, upto: covers, .. } = read_state(stream).await?;
    let snapshot = StateMessage::Snapshot { snapshot: counts, covers: covers.to_string() };
    stream.append_json(&snapshot).await?;
    stream.trim(&covers).await?;
    Ok(())
}

/// Counts to `changes` and snapshots after every hundredth change. Returns what a new reader reads.
pub(crate) async fn run(url: &str, path: &str, changes: u64) -> Result<ReadState, BoxError> {
    let stream = Client::new(url)?.stream(path)?;
    stream.create(&CreateOptions::json()).await?;
    for number in 1..=changes {
        change(&stream, if number % 3 == 0 { "third" } else { "other" }, 1).await?;
        if number % 100 == 0 {
            snapshot_and_trim(&stream).await?;
        }
    }
    read_state(&stream).await
}

#[tokio::main]
#[allow(dead_code, reason = "the tests include this file")]
async fn main() -> Result<(), BoxError> {
    let url = std::env::args().nth(1).unwrap_or("http://localhost:4437/v1/stream".to_owned());
    let state = run(&url, "counts", 250).await?;
    println!("{:?} from {} messages, up to {}", state.counts, state.messages, state.upto);
    Ok(())
}
