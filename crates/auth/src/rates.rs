//! Rates: how many requests a client address, a principal and a tenant may make, as token buckets.
//!
//! The buckets of each kind are in a table that never holds more than its bound. A bucket that is not used
//! while half the table fills is forgotten, and begins full again: a client with that many addresses
//! has that many buckets anyway.

use std::{
    mem,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use durable_streams_protocol::Timestamp;
use parking_lot::Mutex;
use ratelimit::{Builder, Clock, Ratelimiter, TryWaitError};
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::{AccessError, Principal, RequestHead};

/// Locks of a table.
const SHARDS: usize = 16;

/// The size of a bucket and how fast it fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateRule {
    /// Requests in a second, over time; at least 1.
    pub requests: u64,
    /// Requests at once; at least 1.
    pub burst: u64,
}

/// Which rates hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateRules {
    /// For each client address; IPv6 by its /64. It is looked at before credentials are, so it bounds how
    /// fast they can be guessed.
    pub client: Option<RateRule>,
    /// For each principal. Requests without credentials have their client's rate only.
    pub principal: Option<RateRule>,
    /// For each tenant, all its principals together.
    pub tenant: Option<RateRule>,
    /// Buckets of each kind that are remembered.
    pub buckets: usize,
}

/// The buckets.
pub(crate) struct RateLimits {
    clock: RateClock,
    client: Option<BucketTable<IpAddr>>,
    principal: Option<BucketTable<(Arc<str>, Arc<str>)>>,
    tenant: Option<BucketTable<Arc<str>>>,
}

/// Shows the time of the newest request; never goes back.
#[derive(Clone, Default)]
struct RateClock(Arc<AtomicU64>);

impl Clock for RateClock {
    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

type Bucket = Arc<Ratelimiter<RateClock>>;

struct BucketTable<K> {
    rule: RateRule,
    clock: RateClock,
    shards: [Mutex<BucketShard<K>>; SHARDS],
    /// Buckets of one generation of one shard.
    half: usize,
}

/// Two generations: what is used moves to the young one, and what was not used while that filled is lost.
struct BucketShard<K> {
    young: FxHashMap<K, Bucket>,
    old: FxHashMap<K, Bucket>,
}

impl<K> Default for BucketShard<K> {
    fn default() -> Self {
        BucketShard { young: FxHashMap::default(), old: FxHashMap::default() }
    }
}

impl RateLimits {
    pub(crate) fn new(rules: RateRules) -> Self {
        let clock = RateClock::default();
        RateLimits {
            client: rules.client.map(|rule| BucketTable::new(rule, rules.buckets, &clock)),
            principal: rules.principal.map(|rule| BucketTable::new(rule, rules.buckets, &clock)),
            tenant: rules.tenant.map(|rule| BucketTable::new(rule, rules.buckets, &clock)),
            clock,
        }
    }

    /// Takes a request off the rate of its client's address.
    pub(crate) fn client(&self, head: &RequestHead<'_>) -> Result<(), AccessError> {
        self.tick(head.now);
        match (&self.client, head.client) {
            (Some(table), Some(address)) => table.take(network(address)),
            _ => Ok(()),
        }
    }

    /// Takes a request off the rates of its principal and its tenant.
    pub(crate) fn principal(&self, principal: &Principal) -> Result<(), AccessError> {
        if let Some(table) = &self.principal
            && !principal.anonymous
        {
            table.take((principal.provider.clone(), principal.identity.clone()))?;
        }
        if let (Some(table), Some(tenant)) = (&self.tenant, &principal.tenant) {
            table.take(tenant.as_str().into())?;
        }
        Ok(())
    }

    fn tick(&self, now: Timestamp) {
        // Most requests only read it: threads share the line then.
        if self.clock.0.load(Ordering::Relaxed) < now.millis() {
            self.clock.0.fetch_max(now.millis(), Ordering::Relaxed);
        }
    }
}

/// The addresses that one subscriber has: an IPv4 address, or the /64 of an IPv6 one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let prefix = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(prefix))
        }
        address => address,
    }
}

impl<K: std::hash::Hash + Eq> BucketTable<K> {
    fn new(rule: RateRule, buckets: usize, clock: &RateClock) -> Self {
        let half = (buckets / SHARDS / 2).max(1);
        BucketTable { rule, clock: clock.clone(), shards: Default::default(), half }
    }

    fn take(&self, key: K) -> Result<(), AccessError> {
        let hash = std::hash::BuildHasher::hash_one(&FxBuildHasher, &key);
        // The upper half: the map takes its place from the lower.
        let shard = (hash >> 32) as usize % SHARDS;
        let bucket = self.shards[shard].lock().bucket(key, self.half, || self.bucket());
        match bucket.try_wait() {
            Ok(()) => Ok(()),
            Err(TryWaitError::Insufficient(retry_after)) => {
                Err(AccessError::RateLimited { retry_after })
            }
            // A bucket holds at least one request.
            Err(_) => Err(AccessError::RateLimited { retry_after: Duration::from_secs(1) }),
        }
    }

    /// A full bucket.
    fn bucket(&self) -> Bucket {
        let (rate, burst) = (self.rule.requests.max(1), self.rule.burst.max(1));
        let full = Builder::with_clock(rate, self.clock.clone());
        let full = full.max_tokens(burst).initial_available(burst).build();
        // Refused only for sizes that are not these.
        Arc::new(full.unwrap_or_else(|_| Ratelimiter::with_clock(rate, self.clock.clone())))
    }
}

impl<K: std::hash::Hash + Eq> BucketShard<K> {
    fn bucket(&mut self, key: K, half: usize, new: impl FnOnce() -> Bucket) -> Bucket {
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
mod tests {
    use super::*;
    use http::{HeaderMap, Method};

    const RULE: RateRule = RateRule { requests: 10, burst: 3 };

    fn rules() -> RateRules {
        let rule = Some(RULE);
        RateRules { client: rule, principal: rule, tenant: rule, buckets: 64 }
    }

    fn from(limits: &RateLimits, address: &str, now: u64) -> Result<(), AccessError> {
        let headers = HeaderMap::new();
        limits.client(&RequestHead {
            method: &Method::GET,
            query: None,
            headers: &headers,
            path: None,
            client: address.parse().ok(),
            now: Timestamp::from_millis(now),
        })
    }

    #[test]
    fn a_burst_then_the_rate() {
        let limits = RateLimits::new(rules());
        for _ in 0..3 {
            assert_eq!(from(&limits, "192.0.2.1", 1_000), Ok(()));
        }
        let Err(AccessError::RateLimited { retry_after }) = from(&limits, "192.0.2.1", 1_000)
        else {
            panic!("the bucket is empty")
        };
        assert!(retry_after <= Duration::from_millis(100), "{retry_after:?}");
        assert_eq!(from(&limits, "192.0.2.2", 1_000), Ok(()), "another address");
        assert_eq!(from(&limits, "192.0.2.1", 1_100), Ok(()), "one more after a tenth of a second");
        assert!(from(&limits, "192.0.2.1", 1_100).is_err());
        assert!(from(&limits, "192.0.2.1", 900).is_err(), "a clock that goes back gives nothing");
        for _ in 0..3 {
            assert_eq!(from(&limits, "192.0.2.1", 60_000), Ok(()), "never more than the burst");
        }
        assert!(from(&limits, "192.0.2.1", 60_000).is_err());
    }

    #[test]
    fn one_subscriber_is_one_client() {
        let limits = RateLimits::new(rules());
        for number in 1..=3 {
            assert_eq!(from(&limits, &format!("2001:db8:0:1::{number}"), 1_000), Ok(()));
        }
        assert!(from(&limits, "2001:db8:0:1::9", 1_000).is_err());
        assert_eq!(from(&limits, "2001:db8:0:2::1", 1_000), Ok(()));
        assert_eq!(from(&limits, "::ffff:192.0.2.1", 1_000), Ok(()));
    }

    #[test]
    fn principals_of_a_tenant_share_its_rate() {
        let limits = RateLimits::new(RateRules {
            tenant: Some(RateRule { requests: 1, burst: 4 }),
            ..rules()
        });
        limits.tick(Timestamp::from_millis(1_000));
        let tenant = crate::TenantId::new("acme").ok();
        let (one, other) = (
            Principal::new("one").with_tenant(tenant.clone()),
            Principal::new("other").with_tenant(tenant),
        );
        for principal in [&one, &one, &one, &other] {
            assert_eq!(limits.principal(principal), Ok(()));
        }
        assert!(limits.principal(&one).is_err(), "its own rate");
        assert!(limits.principal(&other).is_err(), "its tenant's");
        assert!(limits.principal(&Principal::new("one")).is_err(), "in whatever tenant");
        for _ in 0..9 {
            assert_eq!(limits.principal(&Principal::anonymous(Vec::new())), Ok(()));
        }
    }

    #[test]
    fn a_flood_of_addresses_stays_within_the_bound() {
        let limits = RateLimits::new(rules());
        for number in 0..10_000_u32 {
            let _ = from(&limits, &std::net::Ipv4Addr::from(number).to_string(), 1_000);
        }
        let table = limits.client.as_ref().unwrap();
        let held: usize = table
            .shards
            .iter()
            .map(|shard| {
                let shard = shard.lock();
                shard.young.len() + shard.old.len()
            })
            .sum();
        assert!(held <= 64, "{held}");
    }
}
