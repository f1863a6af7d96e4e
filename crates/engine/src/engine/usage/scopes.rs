//! Streams and payload bytes as decided of parts of the path space, which quotas bound: a prefix, or each of the
//! segments behind it, as tenants are.
//!
//! Invariants
//! - What [`usage`](super) says of the totals holds for each part: no prefix of the log exceeds a quota.
//! - A part without streams and bytes is not kept, so the memory for parts is bounded by the streams that exist: at most
//!   80 bytes and the part's name for one with a stream.
//!
//! Counting costs nothing without quotas, and where there are some one lock for a short time in each event of a stream
//! that one of them is for. The counts are not stored: [`Engine::limit_scopes`](crate::Engine::limit_scopes) takes them from the streams.

use std::hash::{BuildHasher, Hash};

use durable_streams_protocol::{Rejection, StreamPath};
use parking_lot::Mutex;
use rustc_hash::{FxBuildHasher, FxHashMap};

use super::delta::UsageDelta;

/// Locks of the parts of one scope.
const SHARDS: usize = 16;

/// What one part of the path space may hold (507). `None` is no quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScopeQuota {
    /// Streams, soft-deleted ones included.
    pub streams: Option<u64>,
    /// Payload bytes, without what forks inherit.
    pub bytes: Option<u64>,
}

/// Streams whose stored path is `prefix` or begins with it and a slash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageScope {
    /// What metrics call it.
    pub name: String,
    /// Whole segments, without a slash at either end.
    pub prefix: String,
    /// Each segment behind the prefix is a part of its own; the stream at the prefix itself is in none.
    pub each: bool,
    /// The quota of each part.
    pub quota: ScopeQuota,
    /// Segments with a quota of their own instead.
    pub named: Vec<(String, ScopeQuota)>,
}

/// What a part holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeUsage {
    /// The scope's name, and the segment's behind a colon.
    pub name: String,
    /// Streams, soft-deleted ones included.
    pub streams: u64,
    /// Payload bytes.
    pub bytes: u64,
    /// What it may hold.
    pub quota: ScopeQuota,
}

/// The counts of all scopes.
#[derive(Debug)]
pub(super) struct ScopedUsage(pub(super) Vec<CountedScope>);

/// One scope, with what its parts hold.
#[derive(Debug)]
pub(super) struct CountedScope {
    name: String,
    pub(super) prefix: String,
    each: bool,
    quota: ScopeQuota,
    named: FxHashMap<Box<str>, ScopeQuota>,
    parts: [Mutex<FxHashMap<Box<str>, PartUsage>>; SHARDS],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct PartUsage {
    streams: u64,
    bytes: u64,
}

impl ScopedUsage {
    pub(super) fn new(scopes: Vec<UsageScope>) -> Self {
        let counted = |scope: UsageScope| CountedScope {
            name: scope.name,
            prefix: scope.prefix,
            each: scope.each,
            quota: scope.quota,
            named: scope.named.into_iter().map(|(name, quota)| (name.into(), quota)).collect(),
            parts: Default::default(),
        };
        ScopedUsage(scopes.into_iter().map(counted).collect())
    }

    /// Counts a change of the stream at a path if every quota allows what it adds.
    ///
    /// # Errors
    /// [`Rejection::QuotaExceeded`]; nothing is counted then.
    pub(super) fn change(&self, path: &StreamPath, delta: UsageDelta) -> Result<(), Rejection> {
        for (at, scope) in self.0.iter().enumerate() {
            if let Err(refused) = scope.change(path, delta, true) {
                for counted in self.0.iter().take(at) {
                    let _ = counted.change(path, delta.reverted(), false);
                }
                return Err(refused);
            }
        }
        Ok(())
    }

    /// Counts a change whatever the quotas say: one that is taken back, or of a stream that is there.
    pub(super) fn count(&self, path: &StreamPath, delta: UsageDelta) {
        for scope in &self.0 {
            let _ = scope.change(path, delta, false);
        }
    }

    pub(super) fn usage(&self) -> Vec<ScopeUsage> {
        self.0.iter().flat_map(CountedScope::usage).collect()
    }
}

impl CountedScope {
    /// The part that a path is in: a segment, or nothing where the scope is one part.
    fn part<'p>(&self, path: &'p StreamPath) -> Option<&'p str> {
        let rest = path.as_str().strip_prefix(self.prefix.as_str())?;
        if !self.each {
            return (rest.is_empty() || rest.starts_with('/')).then_some("");
        }
        let segment = rest.strip_prefix('/')?.split('/').next()?;
        (!segment.is_empty()).then_some(segment)
    }

    fn quota(&self, part: &str) -> ScopeQuota {
        self.named.get(part).copied().unwrap_or(self.quota)
    }

    fn shard(&self, part: &str) -> &Mutex<FxHashMap<Box<str>, PartUsage>> {
        let [first, ..] = &self.parts;
        // The upper half: the map takes its place from the lower.
        self.parts.get((hash(part) >> 32) as usize % SHARDS).unwrap_or(first)
    }

    pub(super) fn change(
        &self,
        path: &StreamPath,
        delta: UsageDelta,
        bounded: bool,
    ) -> Result<(), Rejection> {
        let Some(part) = self.part(path) else { return Ok(()) };
        let mut shard = self.shard(part).lock();
        let held = shard.get(part).copied().unwrap_or_default();
        let sum = PartUsage {
            streams: held.streams.saturating_add_signed(delta.streams),
            bytes: held.bytes.saturating_add_signed(delta.bytes),
        };
        let quota = self.quota(part);
        for (what, grows, sum, limit) in [
            ("streams", delta.streams > 0, sum.streams, quota.streams),
            ("bytes", delta.bytes > 0, sum.bytes, quota.bytes),
        ] {
            if let Some(limit) = limit.filter(|limit| bounded && grows && sum > *limit) {
                return Err(Rejection::QuotaExceeded { what, limit });
            }
        }
        if sum == PartUsage::default() {
            shard.remove(part);
        } else if let Some(held) = shard.get_mut(part) {
            *held = sum;
        } else {
            shard.insert(part.into(), sum);
        }
        Ok(())
    }

    /// What the parts hold that have a name in the configuration: any number of others may exist.
    fn usage(&self) -> Vec<ScopeUsage> {
        let shown = |part: &str| {
            let held = self.shard(part).lock().get(part).copied().unwrap_or_default();
            let name = if self.each { format!("{}:{part}", self.name) } else { self.name.clone() };
            let quota = self.quota(part);
            ScopeUsage { name, streams: held.streams, bytes: held.bytes, quota }
        };
        if !self.each {
            return vec![shown("")];
        }
        let mut named: Vec<&str> = self.named.keys().map(|name| &**name).collect();
        named.sort_unstable();
        named.into_iter().map(shown).collect()
    }
}

fn hash(part: &str) -> u64 {
    let mut hasher = FxBuildHasher.build_hasher();
    part.hash(&mut hasher);
    std::hash::Hasher::finish(&hasher)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> StreamPath {
        StreamPath::system(text).unwrap()
    }

    fn quota(streams: u64, bytes: u64) -> ScopeQuota {
        ScopeQuota { streams: Some(streams), bytes: Some(bytes) }
    }

    fn scopes() -> ScopedUsage {
        let chat = UsageScope {
            name: "path:chat".into(),
            prefix: "chat".into(),
            quota: quota(2, 10),
            ..UsageScope::default()
        };
        let tenants = UsageScope {
            name: "tenant".into(),
            prefix: "__ds/t".into(),
            each: true,
            quota: quota(1, 5),
            named: vec![("acme".into(), quota(3, 50))],
        };
        ScopedUsage::new(vec![chat, tenants])
    }

    fn held(usage: &ScopedUsage) -> Vec<(String, u64, u64)> {
        usage.usage().into_iter().map(|one| (one.name, one.streams, one.bytes)).collect()
    }

    #[test]
    fn whole_segments_decide_what_a_path_counts_for() {
        let usage = scopes();
        for (text, parts) in [
            ("chat", [Some(""), None]),
            ("chat/a", [Some(""), None]),
            ("chat/", [Some(""), None]),
            ("chats/a", [None, None]),
            ("a/chat/b", [None, None]),
            ("Chat/a", [None, None]),
            ("__ds/t", [None, None]),
            ("__ds/t/acme", [None, Some("acme")]),
            ("__ds/t/acme/chat/a", [None, Some("acme")]),
            ("__ds/t/acme-2/a", [None, Some("acme-2")]),
            ("__ds/t//a", [None, None]),
            ("__ds/subscriptions/a", [None, None]),
        ] {
            let path = path(text);
            let seen: Vec<_> = usage.0.iter().map(|scope| scope.part(&path)).collect();
            assert_eq!(seen, parts, "{text}");
        }
    }

    #[test]
    fn what_is_refused_by_one_scope_is_counted_in_none() {
        let twice = UsageScope {
            name: "twice".into(),
            prefix: "chat/a".into(),
            quota: quota(1, 100),
            ..UsageScope::default()
        };
        let mut usage = scopes();
        usage.0.extend(ScopedUsage::new(vec![twice]).0);
        let created = UsageDelta::created(4);
        assert_eq!(usage.change(&path("chat/a/1"), created), Ok(()));
        let refused = Err(Rejection::QuotaExceeded { what: "streams", limit: 1 });
        assert_eq!(usage.change(&path("chat/a/2"), created), refused);
        let counts = |name: &str, streams, bytes| (name.to_owned(), streams, bytes);
        let expected =
            vec![counts("path:chat", 1, 4), counts("tenant:acme", 0, 0), counts("twice", 1, 4)];
        assert_eq!(held(&usage), expected);
        let full = Err(Rejection::QuotaExceeded { what: "bytes", limit: 10 });
        assert_eq!(usage.change(&path("chat/b"), UsageDelta::created(7)), full);
        assert_eq!(usage.change(&path("chat/a/1"), UsageDelta::appended(0)), Ok(()), "a close");
        assert_eq!(held(&usage), expected);
    }

    #[test]
    fn a_part_that_holds_nothing_takes_no_memory() {
        let usage = scopes();
        for number in 0..10_000 {
            let path = path(&format!("__ds/t/tenant-{number}/a"));
            assert_eq!(usage.change(&path, UsageDelta::created(1)), Ok(()));
            usage.count(&path, UsageDelta::created(1).reverted());
        }
        let kept: usize =
            usage.0.iter().flat_map(|scope| &scope.parts).map(|part| part.lock().len()).sum();
        assert_eq!(kept, 0);
        // With the byte that the map keeps for each, in one that has just grown.
        let bytes = (std::mem::size_of::<(Box<str>, PartUsage)>() + 1) * 16 / 7;
        assert!(bytes <= 80, "{bytes}");
        assert_eq!(usage.usage().len(), 2, "metrics have what the configuration names");
    }
}
