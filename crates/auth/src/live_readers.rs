//! Quotas of live readers: how many long-polls and event streams a client address, a principal, a tenant and a path
//! prefix may have at once.
//!
//! A table has an entry for each that has a reader, of at most 64 bytes, so it is bounded by the live readers that
//! the server allows. An entry is found by a hash that is keyed at random.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hash},
    sync::Arc,
};

use durable_streams_protocol::StreamPath;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::{
    AccessError, PathPrefix, Principal, RateRefusal, RateUnit, RequestHead, rates::network,
};

/// Locks of a table.
const SHARDS: usize = 16;

/// How many live readers each may have; `None` is no quota.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReaderQuotas {
    /// Each client address; IPv6 by its /64.
    pub client: Option<u64>,
    /// Each principal. Readers without credentials count for their address only.
    pub principal: Option<u64>,
    /// Each tenant, all its principals together.
    pub tenant: Option<u64>,
    /// Tenants with a quota of their own instead.
    pub tenants: Vec<(String, Option<u64>)>,
    /// Streams of no tenant below a prefix, over all readers together.
    pub paths: Vec<(PathPrefix, u64)>,
}

/// The readers that there are.
pub(crate) struct LiveReaders {
    quotas: ReaderQuotas,
    keys: RandomState,
    table: Arc<ReaderTable>,
}

#[derive(Default)]
struct ReaderTable([Mutex<FxHashMap<u64, u64>>; SHARDS]);

/// The place of one live reader in every quota that is for it; dropping it returns it.
pub struct ReaderPermit {
    table: Arc<ReaderTable>,
    held: Vec<u64>,
}

impl ReaderTable {
    fn shard(&self, key: u64) -> &Mutex<FxHashMap<u64, u64>> {
        let [first, ..] = &self.0;
        // The upper half: the map takes its place from the lower.
        self.0.get((key >> 32) as usize % SHARDS).unwrap_or(first)
    }
}

impl ReaderPermit {
    fn take(&mut self, key: u64, quota: u64) -> bool {
        let mut shard = self.table.shard(key).lock();
        let held = shard.get(&key).copied().unwrap_or(0);
        if held >= quota {
            return false;
        }
        shard.insert(key, held + 1);
        drop(shard);
        self.held.push(key);
        true
    }
}

impl Drop for ReaderPermit {
    fn drop(&mut self) {
        for key in &self.held {
            let mut shard = self.table.shard(*key).lock();
            match shard.get_mut(key) {
                Some(held) if *held > 1 => *held -= 1,
                _ => drop(shard.remove(key)),
            }
        }
    }
}

impl LiveReaders {
    pub(crate) fn new(quotas: ReaderQuotas) -> Self {
        LiveReaders { quotas, keys: RandomState::new(), table: Arc::default() }
    }

    /// A place for one more reader.
    ///
    /// # Errors
    /// [`AccessError::RateLimited`] for the first quota that is used up; no place is held then.
    pub(crate) fn enter(
        &self,
        head: &RequestHead<'_>,
        principal: Option<&Principal>,
        tenantless: Option<&StreamPath>,
    ) -> Result<ReaderPermit, AccessError> {
        let mut permit = ReaderPermit { table: self.table.clone(), held: Vec::new() };
        let mut take = |policy: &'static str, key: u64, quota: Option<u64>| match quota {
            Some(quota) if !permit.take(key, quota) => Err(refusal(policy, quota)),
            _ => Ok(()),
        };
        let quotas = &self.quotas;
        if let Some(address) = head.client {
            take("client-readers", self.key(0, network(address)), quotas.client)?;
        }
        if let Some(one) = principal.filter(|one| !one.anonymous) {
            let key = self.key(1, (&one.provider, &one.identity));
            take("principal-readers", key, quotas.principal)?;
        }
        if let Some(tenant) = principal.and_then(|one| one.tenant.as_ref()) {
            let named = quotas.tenants.iter().find(|(name, _)| name == tenant.as_str());
            let quota = named.map_or(quotas.tenant, |(_, quota)| *quota);
            take("tenant-readers", self.key(2, tenant.as_str()), quota)?;
        }
        for (prefix, quota) in tenantless.into_iter().flat_map(|path| self.prefixes(path)) {
            take("path-readers", self.key(3, prefix.as_str()), Some(*quota))?;
        }
        Ok(permit)
    }

    fn prefixes(&self, path: &StreamPath) -> impl Iterator<Item = &(PathPrefix, u64)> {
        self.quotas.paths.iter().filter(move |(prefix, _)| prefix.covers(path))
    }

    fn key(&self, kind: u8, of: impl Hash) -> u64 {
        self.keys.hash_one((kind, of))
    }
}

fn refusal(policy: &'static str, quota: u64) -> AccessError {
    AccessError::RateLimited(RateRefusal {
        policy,
        unit: RateUnit::ConcurrentRequests,
        quota,
        window: None,
        retry_after: std::time::Duration::from_secs(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TenantId;
    use durable_streams_protocol::Timestamp;
    use http::{HeaderMap, Method};

    fn enter(
        readers: &LiveReaders,
        address: &str,
        principal: Option<&Principal>,
        path: Option<&str>,
    ) -> Result<ReaderPermit, &'static str> {
        let headers = HeaderMap::new();
        let path = path.map(|text| StreamPath::new(text).unwrap());
        let head = RequestHead {
            method: &Method::GET,
            query: None,
            headers: &headers,
            path: path.as_ref(),
            client: address.parse().ok(),
            certificate: None,
            other_path: None,
            now: Timestamp::from_millis(0),
        };
        readers.enter(&head, principal, path.as_ref()).map_err(|error| match error {
            AccessError::RateLimited(refusal) => refusal.policy,
            other => panic!("{other:?}"),
        })
    }

    fn held(readers: &LiveReaders) -> usize {
        readers.table.0.iter().map(|shard| shard.lock().len()).sum()
    }

    #[test]
    fn each_quota_is_for_its_own_and_nothing_is_kept_of_a_refusal() {
        let readers = LiveReaders::new(ReaderQuotas {
            client: Some(3),
            principal: Some(2),
            tenant: Some(1),
            tenants: vec![("acme".into(), Some(3)), ("free".into(), None)],
            paths: vec![(PathPrefix::new("chat").unwrap(), 1)],
        });
        let tenant = |name: &str| TenantId::new(name).ok();
        let (one, other) = (Principal::new("one"), Principal::new("other"));
        let first = enter(&readers, "192.0.2.1", Some(&one), Some("chat/a")).ok().unwrap();
        assert_eq!(
            enter(&readers, "192.0.2.1", Some(&one), Some("chat/b")).err(),
            Some("path-readers")
        );
        let second = enter(&readers, "192.0.2.1", Some(&one), Some("chats/b")).ok().unwrap();
        assert_eq!(enter(&readers, "192.0.2.9", Some(&one), None).err(), Some("principal-readers"));
        let third = enter(&readers, "192.0.2.1", None, None).ok().unwrap();
        assert_eq!(enter(&readers, "192.0.2.1", Some(&other), None).err(), Some("client-readers"));
        drop((first, second, third));
        assert_eq!(held(&readers), 0, "what is given back takes no memory");
        for (name, places) in [("acme", 3), ("globex", 1), ("free", 9)] {
            let of = |number: usize| Principal::new(number.to_string()).with_tenant(tenant(name));
            let permits: Vec<_> = (0..places)
                .map(|number| {
                    enter(&readers, &format!("198.51.100.{number}"), Some(&of(number)), None)
                })
                .collect();
            assert!(permits.iter().all(Result::is_ok), "{name}");
            let more = enter(&readers, "203.0.113.1", Some(&of(99)), None).err();
            assert_eq!(more, (name != "free").then_some("tenant-readers"), "{name}");
        }
        assert_eq!(held(&readers), 0);
        assert!(2 * (std::mem::size_of::<(u64, u64)>() + 1) <= 64);
    }
}
