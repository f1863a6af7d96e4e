//! Rates: how many requests a client address, a principal, a tenant and a path prefix may make, and how many bytes they
//! may send and receive, as token buckets.
//!
//! The buckets of each kind are in a table that never holds more than its bound. A bucket that is not used
//! while half the table fills is forgotten, and begins full again: a client with that many addresses
//! has that many buckets anyway. A bucket is found by a hash that is keyed at random, so its size does not depend on the
//! length of a name: at most 512 bytes.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hash},
    mem,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use durable_streams_protocol::{StreamPath, Timestamp};
use parking_lot::Mutex;
use ratelimit::{Builder, Clock, Ratelimiter, TryWaitError};
use rustc_hash::FxHashMap;

use crate::{
    AccessError, ByteMeter, PathPrefix, Principal, RateRefusal, RateUnit, RequestHead,
    meter::MeteredBucket,
};

/// Locks of a table.
const SHARDS: usize = 16;

/// The size of a bucket and how fast it fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateRule {
    /// Requests in a second, over time; at least 1.
    pub requests: u64,
    /// Requests at once; at least 1.
    pub burst: u64,
    /// Bytes of request and response bodies; `None` is no bound.
    pub bytes: Option<ByteRate>,
}

/// A bucket of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRate {
    /// Bytes in a second, over time; at least 1.
    pub per_second: u64,
    /// Bytes at once; at least 1.
    pub burst: u64,
}

/// Which rates hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RateRules {
    /// For each client address; IPv6 by its /64. It is looked at before credentials are, so it bounds how
    /// fast they can be guessed.
    pub client: Option<RateRule>,
    /// For each principal. Requests without credentials have their client's rate only.
    pub principal: Option<RateRule>,
    /// For each tenant, all its principals together.
    pub tenant: Option<RateRule>,
    /// For streams of no tenant below a prefix, over all clients together.
    pub paths: Vec<(PathPrefix, RateRule)>,
    /// Buckets of each kind that are remembered.
    pub buckets: usize,
}

/// The buckets.
pub(crate) struct RateLimits {
    clock: RateClock,
    keys: RandomState,
    client: Option<BucketTable>,
    principal: Option<BucketTable>,
    tenant: Option<BucketTable>,
    paths: Vec<(PathPrefix, Bucket)>,
}

/// Shows the time of the newest request; never goes back.
#[derive(Clone, Default)]
pub(crate) struct RateClock(Arc<AtomicU64>);

impl Clock for RateClock {
    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

impl RateClock {
    pub(crate) fn tick(&self, now: Timestamp) {
        // Most requests only read it: threads share the line then.
        if self.0.load(Ordering::Relaxed) < now.millis() {
            self.0.fetch_max(now.millis(), Ordering::Relaxed);
        }
    }
}

type Bucket = Arc<RateBucket>;

/// The requests and the bytes of one client, principal, tenant or prefix.
pub(crate) struct RateBucket {
    requests: TokenBucket,
    pub(crate) bytes: Option<TokenBucket>,
}

/// Tokens, and what a response says when there are none.
pub(crate) struct TokenBucket {
    tokens: Ratelimiter<RateClock>,
    policy: &'static str,
    unit: RateUnit,
    rate: u64,
    pub(crate) burst: u64,
}

impl TokenBucket {
    /// A full bucket.
    fn new(policy: &'static str, unit: RateUnit, rate: u64, burst: u64, clock: &RateClock) -> Self {
        let (rate, burst) = (rate.max(1), burst.max(1));
        let full = Builder::with_clock(rate, clock.clone());
        let full = full.max_tokens(burst).initial_available(burst).build();
        // Refused only for sizes that are not these.
        let tokens = full.unwrap_or_else(|_| Ratelimiter::with_clock(rate, clock.clone()));
        TokenBucket { tokens, policy, unit, rate, burst }
    }

    /// Takes `count` tokens, at most as many as the bucket holds.
    pub(crate) fn take(&self, count: u64) -> Result<(), AccessError> {
        self.wait_for(count).map_or(Ok(()), |retry_after| {
            Err(AccessError::RateLimited(RateRefusal {
                policy: self.policy,
                unit: self.unit,
                quota: self.burst,
                window: Some(self.burst.div_ceil(self.rate)),
                retry_after,
            }))
        })
    }

    /// Takes `count` tokens, at most as many as the bucket holds, or says when there will be so many.
    pub(crate) fn wait_for(&self, count: u64) -> Option<Duration> {
        match self.tokens.try_wait_n(count.min(self.burst)) {
            Ok(()) => None,
            Err(TryWaitError::Insufficient(wait)) => Some(wait),
            Err(_) => Some(Duration::from_secs(1)),
        }
    }
}

impl RateBucket {
    fn new(names: [&'static str; 2], rule: RateRule, clock: &RateClock) -> Bucket {
        let [requests, bytes] = names;
        Arc::new(RateBucket {
            requests: TokenBucket::new(
                requests,
                RateUnit::Requests,
                rule.requests,
                rule.burst,
                clock,
            ),
            bytes: rule.bytes.map(|rate| {
                TokenBucket::new(bytes, RateUnit::ContentBytes, rate.per_second, rate.burst, clock)
            }),
        })
    }
}

struct BucketTable {
    names: [&'static str; 2],
    rule: RateRule,
    clock: RateClock,
    shards: [Mutex<BucketShard>; SHARDS],
    /// Buckets of one generation of one shard.
    half: usize,
}

/// Two generations: what is used moves to the young one, and what was not used while that filled is lost.
#[derive(Default)]
struct BucketShard {
    young: FxHashMap<u64, Bucket>,
    old: FxHashMap<u64, Bucket>,
}

impl RateLimits {
    pub(crate) fn new(rules: RateRules) -> Self {
        let clock = RateClock::default();
        let table = |names, rule: Option<RateRule>| {
            rule.map(|rule| BucketTable::new(names, rule, rules.buckets, &clock))
        };
        RateLimits {
            keys: RandomState::new(),
            client: table(["client", "client-bytes"], rules.client),
            principal: table(["principal", "principal-bytes"], rules.principal),
            tenant: table(["tenant", "tenant-bytes"], rules.tenant),
            paths: rules
                .paths
                .iter()
                .map(|(prefix, rule)| {
                    (prefix.clone(), RateBucket::new(["path", "path-bytes"], *rule, &clock))
                })
                .collect(),
            clock,
        }
    }

    /// Takes a request off the rate of its client's address.
    pub(crate) fn client(&self, head: &RequestHead<'_>) -> Result<(), AccessError> {
        self.clock.tick(head.now);
        self.client_bucket(head).map_or(Ok(()), |bucket| bucket.requests.take(1))
    }

    /// Takes a request off the rates of its principal and its tenant.
    pub(crate) fn principal(&self, principal: &Principal) -> Result<(), AccessError> {
        if let Some(bucket) = self.principal_bucket(principal) {
            bucket.requests.take(1)?;
        }
        self.tenant_bucket(principal).map_or(Ok(()), |bucket| bucket.requests.take(1))
    }

    /// Takes a request off the rates of the prefixes that a stream of no tenant is below.
    pub(crate) fn path(&self, tenantless: &StreamPath) -> Result<(), AccessError> {
        let mut buckets = self.path_buckets(tenantless);
        buckets.try_for_each(|bucket| bucket.requests.take(1))
    }

    /// What meters the bytes of a request that was let through; `None` where no rate of bytes is for it.
    pub(crate) fn meter(
        &self,
        head: &RequestHead<'_>,
        principal: Option<&Principal>,
        tenantless: Option<&StreamPath>,
    ) -> Option<ByteMeter> {
        let own = principal.and_then(|one| self.principal_bucket(one));
        let tenant = principal.and_then(|one| self.tenant_bucket(one));
        let found = self.client_bucket(head).into_iter().chain(own).chain(tenant);
        let paths = tenantless.into_iter().flat_map(|path| self.path_buckets(path).cloned());
        let metered = found.chain(paths).filter(|bucket| bucket.bytes.is_some());
        ByteMeter::of(self.clock.clone(), metered.map(MeteredBucket).collect())
    }

    fn client_bucket(&self, head: &RequestHead<'_>) -> Option<Bucket> {
        let (table, address) = self.client.as_ref().zip(head.client)?;
        Some(table.bucket(self.key(network(address))))
    }

    fn principal_bucket(&self, principal: &Principal) -> Option<Bucket> {
        let table = self.principal.as_ref().filter(|_| !principal.anonymous)?;
        Some(table.bucket(self.key((&principal.provider, &principal.identity))))
    }

    fn tenant_bucket(&self, principal: &Principal) -> Option<Bucket> {
        let (table, tenant) = self.tenant.as_ref().zip(principal.tenant.as_ref())?;
        Some(table.bucket(self.key(tenant.as_str())))
    }

    fn path_buckets(&self, path: &StreamPath) -> impl Iterator<Item = &Bucket> {
        let below = self.paths.iter().filter(move |(prefix, _)| prefix.covers(path));
        below.map(|(_, bucket)| bucket)
    }

    fn key(&self, of: impl Hash) -> u64 {
        self.keys.hash_one(of)
    }
}

/// The addresses that one subscriber has: an IPv4 address, or the /64 of an IPv6 one.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
        address => address,
    }
}

impl BucketTable {
    fn new(names: [&'static str; 2], rule: RateRule, buckets: usize, clock: &RateClock) -> Self {
        let half = (buckets / SHARDS / 2).max(1);
        BucketTable { names, rule, clock: clock.clone(), shards: Default::default(), half }
    }

    fn bucket(&self, key: u64) -> Bucket {
        let [first, ..] = &self.shards;
        // The upper half: the map takes its place from the lower.
        let shard = self.shards.get((key >> 32) as usize % SHARDS).unwrap_or(first);
        let full = || RateBucket::new(self.names, self.rule, &self.clock);
        shard.lock().bucket(key, self.half, full)
    }
}

impl BucketShard {
    fn bucket(&mut self, key: u64, half: usize, new: impl FnOnce() -> Bucket) -> Bucket {
        if let Some(bucket) = self.young.get(&key) {
            return bucket.clone();
        }
        let bucket = self.old.remove(&key).unwrap_or_else(new);
        if self.young.len() >= half {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, bucket.clone());
        bucket
    }
}

#[cfg(test)]
mod tests;
