//! `copy`: a stream from one server to another, or to another path, resumable and each message once.
//!
//! Every append of the copy is one event of the source, where the source is not text: a server that keeps appends whole
//! in its events then has them whole in the copy. SSE changes the line ends of text, so that text is read in pages; so is
//! the rest of a stream from an event on that is larger than an append may be.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use durable_streams_client::{
    ClientError, ContentType, CreateOptions, Expiry, FollowMode, Producer, Stream, StreamBatch,
    StreamMetadata, StreamPosition, Subscription,
};

use super::arguments::{ServerArguments, run};
use super::copy_map::{CopyMap, PlannedBatch};
use super::error::StreamCommandError;
use super::files;
use super::list::ListingArguments;
use super::progress::StreamProgress;
use crate::cli::error::CliError;

/// Pieces of pages are joined to appends of about this size, bytes.
const JOINED: usize = 1 << 20;
/// A larger event is no append that a server would take: some servers put all that is stored into one. This server's
/// `limits.max_append` unless configured, bytes.
const LARGEST_APPEND: usize = 16 << 20;
/// Between two looks whether the tail is reached.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(in crate::cli) struct CopyCommand {
    /// Path or URL of the source; with --list or --prefix what all paths are below
    from: String,
    /// Path or URL of the copy, likewise
    to: String,
    #[command(flatten)]
    server: ServerArguments,
    /// The key or token for the copy's server, where that is another one
    #[arg(long, value_name = "TOKEN", env = "STREAMS_TO_TOKEN", hide_env_values = true)]
    to_token: Option<String>,
    /// A file with it
    #[arg(long, value_name = "FILE", conflicts_with = "to_token")]
    to_token_file: Option<PathBuf>,
    /// Where to keep old offsets and new ones; with it the copy goes on where it was when it is started again. With
    /// --list or --prefix a directory
    #[arg(long, value_name = "FILE")]
    map: Option<PathBuf>,
    /// A file with the paths of the streams to copy, one a line; - is standard input
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Copy all streams whose paths begin with this, as the source's administration API lists them; "" is all
    #[arg(long, value_name = "PREFIX", conflicts_with = "list")]
    prefix: Option<String>,
    #[command(flatten)]
    admin: ListingArguments,
    /// Go on until the source is closed
    #[arg(long, conflicts_with_all = ["list", "prefix"])]
    follow: bool,
}

/// One stream on its way.
struct StreamCopy<'a> {
    source: &'a Stream,
    target: &'a Stream,
    map: CopyMap,
    json: bool,
    bytes: u64,
    progress: StreamProgress,
}

impl CopyCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        Ok(run(async {
            if let Some(prefix) = &self.prefix {
                let mut listing = self.admin.streams(prefix, self.server.cacert())?;
                while let Some(paths) = listing.next_paths().await? {
                    for path in paths {
                        self.copy_below(&path).await?;
                    }
                }
            } else if let Some(list) = &self.list {
                let list = if list.as_os_str() == "-" {
                    std::io::read_to_string(std::io::stdin()).map_err(StreamCommandError::Input)?
                } else {
                    files::read(list)?
                };
                for path in list.lines().map(str::trim).filter(|path| !path.is_empty()) {
                    self.copy_below(path).await?;
                }
            } else {
                self.copy(&self.from, &self.to, self.map.as_deref()).await?;
            }
            Ok(())
        })?)
    }

    /// Copies the stream at `path` below both ends, with a map of its own.
    async fn copy_below(&self, path: &str) -> Result<(), StreamCommandError> {
        let below =
            |place: &str| format!("{}/{}", place.trim_end_matches('/'), escaped(place, path));
        let map = self.map.as_ref().map(|directory| directory.join(map_name(path)));
        self.copy(&below(&self.from), &below(&self.to), map.as_deref()).await
    }

    async fn copy(
        &self,
        from: &str,
        to: &str,
        map: Option<&Path>,
    ) -> Result<(), StreamCommandError> {
        let source = self.server.stream(from)?;
        let to_token = match (&self.to_token, &self.to_token_file) {
            (Some(token), _) => Some(token.clone()),
            (None, Some(path)) => Some(files::read(path)?.trim().to_owned()),
            // A token is for the server that it was given for.
            (None, None) if is_elsewhere(from, to) => None,
            (None, None) => self.server.token()?,
        };
        let target = self.server.client(to, to_token)?.stream(to)?;
        let map = CopyMap::open(map, source.url(), target.url())?;
        let head = source.head().await?;
        create(&target, &head, &map).await?;
        let content_type = head.content_type.clone().unwrap_or_default();
        let producer = target.producer(&map.producer).content_type(content_type.clone());
        // One batch for each flush, and no other.
        let producer = producer.epoch(0).first_seq(map.next_seq).linger(Duration::from_secs(3600));
        let producer = producer.max_batch(usize::MAX / 2).max_buffered(1 << 30);
        let producer = producer.retry(self.server.retry(Some(Duration::from_secs(30))));
        let producer = producer.start().await?;
        let mut copy = StreamCopy {
            source: &source,
            target: &target,
            map,
            json: content_type.is_json(),
            bytes: 0,
            progress: StreamProgress::begin(false),
        };
        copy.repeat_unsure(&producer).await?;
        let closed = copy.run(&producer, &head, &content_type, self).await?;
        producer.close().await?;
        if closed {
            copy.target.close().await?;
        }
        let StreamCopy { bytes, progress, .. } = copy;
        progress.end(format_args!("copied {bytes} bytes from {from} to {to}"));
        Ok(())
    }
}

/// The file name for the map of a path: one for each, whatever bytes it has, and no longer than file systems take.
fn map_name(path: &str) -> String {
    let encoded = percent_encoding::utf8_percent_encode(path, percent_encoding::NON_ALPHANUMERIC);
    let mut name = encoded.to_string();
    if name.len() > 200 {
        let hash = ring::digest::digest(&ring::digest::SHA256, path.as_bytes());
        name.truncate(150);
        name.extend(hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")));
    }
    name
}

/// `path` as it goes behind `place`: a path as it is, a part of a URL with its escapes.
fn escaped(place: &str, path: &str) -> String {
    if !is_url(place) {
        return path.to_owned();
    }
    const KEPT: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
        .remove(b'/')
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~');
    percent_encoding::utf8_percent_encode(path, KEPT).to_string()
}

fn is_url(place: &str) -> bool {
    place.starts_with("http://") || place.starts_with("https://")
}

/// Whether the two are on different servers.
fn is_elsewhere(from: &str, to: &str) -> bool {
    let origin = |place: &str| {
        let rest =
            place.split_once("://").map(|(_, rest)| rest.split('/').next().map(str::to_owned));
        rest.flatten()
    };
    origin(from) != origin(to)
}

/// Creates the copy, open, with the source's type and expiry.
async fn create(
    target: &Stream,
    head: &StreamMetadata,
    map: &CopyMap,
) -> Result<(), StreamCommandError> {
    let mut options = CreateOptions::of_type(&head.content_type.clone().unwrap_or_default());
    match head.expiry {
        Expiry::Never => {}
        Expiry::Ttl(seconds) => options = options.ttl(Duration::from_secs(seconds)),
        Expiry::At(time) => options = options.expires_at(time),
    }
    let created = match target.create(&options).await {
        Ok(created) => created,
        // A copy that was finished before is closed, which another request to create it contradicts.
        Err(error) if map.resumed && error.status().is_some_and(|status| status == 409) => {
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    if created.created || map.resumed {
        return Ok(());
    }
    let url = target.url();
    Err(StreamCommandError::Copy(format!(
        "{url} exists; copy to a new stream, or give the --map of the copy that made it"
    )))
}

impl StreamCopy<'_> {
    /// Appends what the map does not know to be appended, cut as before.
    async fn repeat_unsure(&mut self, producer: &Producer) -> Result<(), StreamCommandError> {
        let Some(planned) = self.map.unsure.clone() else { return Ok(()) };
        let mut reader = self.source.read(self.map.position.clone());
        let mut joined = JoinedBatch::default();
        while joined.units() < planned.units {
            let Some(batch) = reader.next().await? else {
                let problem = "the source has lost what was being copied".to_owned();
                return Err(StreamCommandError::Copy(problem));
            };
            joined.push(&batch);
        }
        joined.truncate(planned.units);
        self.append(producer, joined, planned.end, true).await
    }

    /// Copies to the tail, or to the end. Returns whether the source is closed.
    async fn run(
        &mut self,
        producer: &Producer,
        head: &StreamMetadata,
        content_type: &ContentType,
        command: &CopyCommand,
    ) -> Result<bool, StreamCommandError> {
        let mut paged = content_type.is_text() && !self.json;
        let retry = command.server.retry((!command.follow).then_some(Duration::from_secs(30)));
        let subscribe = |position: &StreamPosition, paged: bool| {
            let subscription = self.source.subscription(position.clone()).retry(retry.clone());
            match paged {
                true => subscription.mode(FollowMode::LongPoll).build(),
                false => subscription.events_from_the_beginning(content_type).build(),
            }
        };
        let mut subscription = subscribe(&self.map.position, paged);
        loop {
            if subscription.is_closed() {
                return Ok(true);
            }
            if !command.follow && is_reached(&subscription, head) {
                return Ok(head.closed);
            }
            let mut joined = JoinedBatch::default();
            let next = subscription.next_within(LOOK).await;
            let too_large = match &next {
                Ok(Some(batch)) => joined.push(batch) > LARGEST_APPEND,
                Err(error) => matches!(error, ClientError::MessageTooLarge { .. }),
                Ok(None) => false,
            };
            if too_large && !paged {
                paged = true;
                subscription = subscribe(&self.map.position, paged);
                continue;
            }
            let Some(batch) = next? else { continue };
            let mut end = batch.position().clone();
            // Pages have lost where appends end, so that theirs are joined.
            while paged && joined.bytes < JOINED && !subscription.is_closed() {
                let Some(batch) = subscription.next_within(Duration::ZERO).await? else { break };
                joined.push(&batch);
                end = batch.position().clone();
            }
            self.append(producer, joined, end, false).await?;
        }
    }

    async fn append(
        &mut self,
        producer: &Producer,
        joined: JoinedBatch,
        end: StreamPosition,
        planned: bool,
    ) -> Result<(), StreamCommandError> {
        let batch = PlannedBatch { units: joined.units(), end };
        if !planned {
            self.map.plan(&batch)?;
        }
        let mut last = None;
        for message in &joined.parts {
            last = Some(producer.append(message).await?);
        }
        producer.flush().await?;
        if let Some(delivery) = last {
            self.map.done(batch, &delivery.await?)?;
        }
        self.bytes += joined.bytes as u64;
        let total = self.bytes;
        self.progress.passed(joined.bytes as u64, || format!("{total} bytes copied"));
        Ok(())
    }
}

/// Everything that was stored when the copy began is read.
fn is_reached(subscription: &Subscription, head: &StreamMetadata) -> bool {
    let position = subscription.position();
    position.skip() == 0 && position.offset().is_some_and(|offset| *offset >= head.tail)
}

/// What becomes one append: messages, or bytes in pieces.
#[derive(Default)]
struct JoinedBatch {
    parts: Vec<Bytes>,
    messages: bool,
    bytes: usize,
}

impl JoinedBatch {
    /// Adds a batch, and returns the size of all, bytes.
    fn push(&mut self, batch: &StreamBatch) -> usize {
        match batch.messages() {
            Some(messages) => {
                self.messages = true;
                self.parts.extend_from_slice(messages);
                self.bytes += messages.iter().map(Bytes::len).sum::<usize>();
            }
            None => {
                let bytes = batch.to_bytes();
                self.bytes += bytes.len();
                self.parts.push(bytes);
            }
        }
        self.bytes
    }

    /// Messages, or bytes.
    fn units(&self) -> u64 {
        if self.messages { self.parts.len() as u64 } else { self.bytes as u64 }
    }

    fn truncate(&mut self, units: u64) {
        let units = usize::try_from(units).unwrap_or(usize::MAX);
        if self.messages {
            self.parts.truncate(units);
        } else {
            let mut whole = Bytes::from(self.parts.concat());
            whole.truncate(units);
            self.bytes = whole.len();
            self.parts = vec![whole];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_goes_behind_a_url_with_escapes() {
        for (place, path, joined) in [
            ("http://h/v1/stream", "a/b c?d%", "a/b%20c%3Fd%25"),
            ("archive", "a/b c?d%", "a/b c?d%"),
            ("https://h", "é-_.~", "%C3%A9-_.~"),
        ] {
            assert_eq!(escaped(place, path), joined);
        }
    }

    #[test]
    fn every_path_has_a_map_of_its_own() {
        let long = |end: char| format!("{}{end}", "é/".repeat(300));
        let names = ["a/b", "a+b", "a%2Fb", &long('a'), &long('b')].map(map_name);
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(distinct.len(), names.len(), "{names:?}");
        assert!(names.iter().all(|name| name.len() < 200 && !name.contains('/')), "{names:?}");
    }
}
