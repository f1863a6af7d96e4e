//! Stores a subscription's events: reserved streams `__ds/subscriptions/{id}/{number}`, and
//! `__ds/subscriptions/{tenant}~{id}/{number}` for a tenant's. Ids and tenants are percent-encoded but for
//! letters and digits, so neither holds the `~`.
//!
//! The complete log with the highest number holds the subscription. A log that has grown is rewritten under
//! the next number before the old one is deleted, so a crash in between leaves both, or a new log that is
//! incomplete.

use bytes::Bytes;
use durable_streams_engine::Engine;
use durable_streams_protocol::{
    Append, ContentType, Create, Expiry, Offset, Rejection, StreamPath,
    subscription::{SubscriptionEvent, SubscriptionName, encode_batch},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// The path prefix of all logs.
const ROOT: &str = "__ds/subscriptions/";
/// The most bytes of one append, unless a single event is larger.
const MAX_APPEND: usize = 256 * 1024;
/// Bytes that a log may grow beyond four times its size after the last rewrite.
const SLACK: u64 = 64 * 1024;

/// One subscription's log.
pub(super) struct SubscriptionLog {
    path: StreamPath,
    number: u64,
    /// Replaced logs, deleted before this one is: otherwise the next start would replay one of them.
    older: Vec<StreamPath>,
    /// Bytes after the last rewrite, and now.
    base: u64,
    size: u64,
}

/// A log as the store lists it: the subscription's name in the path, and the number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LogName {
    pub(super) folder: String,
    pub(super) number: u64,
    pub(super) path: StreamPath,
}

impl SubscriptionLog {
    /// Writes a new log, complete on return. Its number follows those of unreadable or incomplete logs that
    /// exist under the same name.
    pub(super) async fn create(
        engine: &Engine,
        owner: &SubscriptionName,
        events: &[SubscriptionEvent],
    ) -> Result<SubscriptionLog, Rejection> {
        let folder = StreamPath::system(&format!("{ROOT}{}/", folder(owner)))?;
        let left = engine.list(Some(&folder), 100).await?.into_iter().filter_map(name);
        let left: Vec<LogName> = left.filter(|log| log.folder == self::folder(owner)).collect();
        let number = left.iter().map(|log| log.number + 1).max().unwrap_or(0);
        let mut log = SubscriptionLog::write(engine, owner, number, events).await?;
        log.older = left.into_iter().map(|log| log.path).collect();
        Ok(log)
    }

    async fn write(
        engine: &Engine,
        owner: &SubscriptionName,
        number: u64,
        events: &[SubscriptionEvent],
    ) -> Result<SubscriptionLog, Rejection> {
        let path = path(owner, number)?;
        // A log under this number is incomplete, or it would be the one in use.
        delete(engine, &path).await?;
        let mut chunks = chunks(events).into_iter();
        let first = chunks.next().unwrap_or_default();
        let create = Create {
            content_type: ContentType::parse("application/octet-stream"),
            expiry: Expiry::Never,
            closed: false,
            fork: None,
            public: false,
        };
        let mut size = first.len() as u64;
        engine.create(&path, &create, Bytes::from(first)).await?;
        for chunk in chunks {
            size += chunk.len() as u64;
            append(engine, &path, chunk).await?;
        }
        Ok(SubscriptionLog { path, number, older: Vec::new(), base: size, size })
    }

    /// Commits the events of one decision in one append: all or none.
    pub(super) async fn commit(
        &mut self,
        engine: &Engine,
        events: &[SubscriptionEvent],
    ) -> Result<(), Rejection> {
        let bytes = encode_batch(events);
        self.size += bytes.len() as u64;
        append(engine, &self.path, bytes).await
    }

    /// Whether the log has grown enough to be rewritten.
    pub(super) fn is_long(&self) -> bool {
        self.size > 4 * self.base + SLACK
    }

    /// Replaces the log by one that holds these events.
    pub(super) async fn rewrite(
        &mut self,
        engine: &Engine,
        owner: &SubscriptionName,
        events: &[SubscriptionEvent],
    ) -> Result<(), Rejection> {
        let new = SubscriptionLog::write(engine, owner, self.number + 1, events).await?;
        let old = std::mem::replace(self, new);
        self.older = old.older;
        self.older.push(old.path);
        self.delete_older(engine).await
    }

    /// Deletes the log, and with it the subscription.
    pub(super) async fn delete(&mut self, engine: &Engine) -> Result<(), Rejection> {
        self.delete_older(engine).await?;
        delete(engine, &self.path).await
    }

    /// Deletes replaced logs.
    pub(super) async fn delete_older(&mut self, engine: &Engine) -> Result<(), Rejection> {
        while let Some(path) = self.older.last() {
            delete(engine, path).await?;
            self.older.pop();
        }
        Ok(())
    }

    /// Remembers a log that this one has replaced, for deletion.
    pub(super) fn replaces(&mut self, name: &LogName) {
        self.older.push(name.path.clone());
    }

    /// Opens an existing log and returns its bytes.
    pub(super) async fn open(
        engine: &Engine,
        name: &LogName,
    ) -> Result<(SubscriptionLog, Vec<u8>), Rejection> {
        let bytes = read(engine, &name.path).await?;
        let size = bytes.len() as u64;
        let (path, number) = (name.path.clone(), name.number);
        Ok((SubscriptionLog { path, number, older: Vec::new(), base: size / 2, size }, bytes))
    }

    /// The bytes of this log.
    pub(super) async fn read(&self, engine: &Engine) -> Result<Vec<u8>, Rejection> {
        read(engine, &self.path).await
    }
}

/// Lists all logs, grouped by subscription, newest first.
pub(super) async fn list(engine: &Engine) -> Result<Vec<LogName>, Rejection> {
    let mut logs = Vec::new();
    let mut after = Some(StreamPath::system(ROOT)?);
    while let Some(from) = after {
        let page = engine.list(Some(&from), 1_000).await?;
        after = page.last().filter(|path| path.as_str().starts_with(ROOT)).cloned();
        logs.extend(page.into_iter().filter_map(name));
    }
    logs.sort_by(|a, b| (&a.folder, b.number).cmp(&(&b.folder, a.number)));
    Ok(logs)
}

fn name(path: StreamPath) -> Option<LogName> {
    let (folder, number) = path.as_str().strip_prefix(ROOT)?.split_once('/')?;
    Some(LogName { folder: folder.into(), number: number.parse().ok()?, path: path.clone() })
}

fn path(owner: &SubscriptionName, number: u64) -> Result<StreamPath, Rejection> {
    Ok(StreamPath::system(&format!("{ROOT}{}/{number:016}", folder(owner)))?)
}

/// A subscription's name as one path segment.
fn folder(name: &SubscriptionName) -> String {
    let id = utf8_percent_encode(name.id.as_str(), NON_ALPHANUMERIC);
    match &name.tenant {
        None => id.to_string(),
        Some(tenant) => {
            format!("{}~{id}", utf8_percent_encode(tenant.as_str(), NON_ALPHANUMERIC))
        }
    }
}

async fn delete(engine: &Engine, path: &StreamPath) -> Result<(), Rejection> {
    match engine.delete(path).await {
        Ok(()) | Err(Rejection::NotFound | Rejection::Gone) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Packs events into appends of at most [`MAX_APPEND`] bytes.
fn chunks(events: &[SubscriptionEvent]) -> Vec<Vec<u8>> {
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    for event in events {
        let bytes = encode_batch(std::slice::from_ref(event));
        match chunks.last_mut() {
            Some(last) if last.len() + bytes.len() <= MAX_APPEND => last.extend(bytes),
            _ => chunks.push(bytes),
        }
    }
    chunks
}

async fn append(engine: &Engine, path: &StreamPath, bytes: Vec<u8>) -> Result<(), Rejection> {
    let append = Append {
        content_type: ContentType::parse("application/octet-stream").map(Ok),
        stream_seq: None,
        producer: None,
        close: false,
    };
    engine.append_system(path, &append, Bytes::from(bytes)).await.map(|_| ())
}

async fn read(engine: &Engine, path: &StreamPath) -> Result<Vec<u8>, Rejection> {
    let view = engine.head(path).await?;
    let mut bytes = Vec::new();
    let mut at = Offset::ZERO;
    while at < view.tail.offset {
        let slice = engine.read(&view.core, at, view.tail.offset, 1024 * 1024).await?;
        if slice.end <= at {
            return Err(Rejection::Damaged);
        }
        slice.chunks.iter().for_each(|chunk| bytes.extend_from_slice(chunk));
        at = slice.end;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
