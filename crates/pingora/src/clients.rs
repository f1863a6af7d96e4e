//! What one client address holds of a limit: of all connections, live readers, or bytes of appends.
//!
//! A limit of the whole server alone lets one client take all of it. A [`ClientGauge`] counts by address; an address
//! is in its table only while it holds something, so the table is as small as the limit that it guards.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use durable_streams_protocol::Rejection;
use ipnet::IpNet;
use parking_lot::Mutex;
use pingora_core::protocols::http::ServerSession;

use crate::{DurableStreams, StreamOptions, forwarded};

/// Locks of a table.
const SHARDS: usize = 16;

/// A client: an IPv4 address, or the /64 of an IPv6 address, which one subscriber has to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientAddress(IpAddr);

impl ClientAddress {
    /// `None` for an address behind which there are many clients or none: loopback, and `trusted` proxies.
    pub fn new(ip: IpAddr, trusted: &[IpNet]) -> Option<Self> {
        let ip = ip.to_canonical();
        if ip.is_loopback() || forwarded::is_trusted_ip(ip, trusted) {
            return None;
        }
        Some(ClientAddress(match ip {
            IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) & !u128::from(u64::MAX)).into(),
            ip => ip,
        }))
    }

    /// The client behind a request, as far as trusted proxies in front name it.
    pub(crate) fn of(session: &ServerSession, options: &StreamOptions) -> Option<Self> {
        let (peer, trusted) = (forwarded::peer_addr(session), &options.trusted_proxies);
        ClientAddress::new(forwarded::client_ip(session.req_header(), peer, trusted)?, trusted)
    }
}

/// The part of a limit that one client address may hold, percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClientShare(u8);

impl ClientShare {
    /// Everything: no bound on one client.
    pub const ALL: Self = ClientShare(100);

    /// A quarter.
    pub const DEFAULT: Self = ClientShare(25);

    /// A part of 1 to 100 percent; what is outside becomes the nearest of these.
    pub const fn percent(percent: u8) -> Self {
        ClientShare(if percent == 0 {
            1
        } else if percent > 100 {
            100
        } else {
            percent
        })
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The part of `limit`, at least 1.
    pub fn of(self, limit: usize) -> usize {
        let part = limit / 100 * usize::from(self.0) + limit % 100 * usize::from(self.0) / 100;
        part.max(1)
    }
}

impl Default for ClientShare {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The units of one limit in use, by client. Clones share the counts.
#[derive(Clone, Default)]
pub struct ClientGauge(Arc<ClientTable>);

#[derive(Default)]
struct ClientTable {
    hasher: RandomState,
    shards: [Mutex<HashMap<ClientAddress, usize>>; SHARDS],
}

/// Units that a client holds; dropping this returns them.
pub struct ClientPermit {
    table: Arc<ClientTable>,
    client: ClientAddress,
    units: usize,
}

impl ClientGauge {
    /// Takes `units` for `client` unless it would then hold more than `limit`.
    pub fn take(&self, client: ClientAddress, units: usize, limit: usize) -> Option<ClientPermit> {
        let mut permit = ClientPermit { table: self.0.clone(), client, units: 0 };
        permit.grow(units, limit).then_some(permit)
    }
}

impl DurableStreams {
    /// A place among the live readers of the client behind a request; `None` where no client is counted.
    ///
    /// # Errors
    /// [`Rejection::TooManyClientReaders`].
    pub(crate) fn client_reader(
        &self,
        session: &ServerSession,
        options: &StreamOptions,
    ) -> Result<Option<ClientPermit>, Rejection> {
        let Some(client) = ClientAddress::of(session, options) else { return Ok(None) };
        let limit = options.client_share.of(self.engine.limits().max_live_readers);
        let permit = self.client_readers.take(client, 1, limit);
        permit.map(Some).ok_or(Rejection::TooManyClientReaders { limit })
    }
}

impl ClientTable {
    fn shard(&self, client: ClientAddress) -> &Mutex<HashMap<ClientAddress, usize>> {
        let [first, ..] = &self.shards;
        self.shards.get(self.hasher.hash_one(client) as usize % SHARDS).unwrap_or(first)
    }
}

impl ClientPermit {
    /// Takes `units` more unless the client would then hold more than `limit`.
    pub fn grow(&mut self, units: usize, limit: usize) -> bool {
        let mut shard = self.table.shard(self.client).lock();
        let held = shard.get(&self.client).copied().unwrap_or(0);
        if held.saturating_add(units) > limit {
            return false;
        }
        if units > 0 {
            shard.insert(self.client, held + units);
            self.units += units;
        }
        true
    }
}

impl ClientPermit {
    /// Returns all but `units` of what is held.
    pub fn shrink(&mut self, units: usize) {
        let returned = self.units.saturating_sub(units);
        if let Some(held) = self.table.shard(self.client).lock().get_mut(&self.client)
            && returned > 0
        {
            *held -= returned;
            self.units -= returned;
        }
    }

    /// Units held.
    pub fn units(&self) -> usize {
        self.units
    }
}

impl Drop for ClientPermit {
    fn drop(&mut self) {
        if self.units == 0 {
            return;
        }
        let mut shard = self.table.shard(self.client).lock();
        match shard.get_mut(&self.client) {
            Some(held) if *held > self.units => *held -= self.units,
            _ => drop(shard.remove(&self.client)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(ip: &str) -> ClientAddress {
        ClientAddress::new(ip.parse().unwrap(), &[]).unwrap()
    }

    fn known(gauge: &ClientGauge) -> usize {
        gauge.0.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    #[test]
    fn a_subscriber_is_one_client_and_a_proxy_is_none() {
        assert_eq!(client("2001:db8::1"), client("2001:db8::2:3:4:5"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        for none in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "10.1.2.3"] {
            assert_eq!(ClientAddress::new(none.parse().unwrap(), &trusted), None, "{none}");
        }
    }

    #[test]
    fn a_client_holds_its_limit_and_no_more() {
        let gauge = ClientGauge::default();
        let (one, other) = (client("192.0.2.1"), client("192.0.2.2"));
        let mut first = gauge.take(one, 3, 5).unwrap();
        assert!(gauge.take(one, 3, 5).is_none());
        assert!(first.grow(2, 5) && !first.grow(1, 5));
        assert!(gauge.take(other, 5, 5).is_some(), "another client has its own");
        let second = gauge.take(one, 1, 6).unwrap();
        drop(first);
        assert!(gauge.take(one, 5, 5).is_none(), "the second permit holds one");
        drop(second);
        assert!(gauge.take(one, 5, 5).is_some());
        assert_eq!(known(&gauge), 0, "an address that holds nothing is not kept");
    }

    #[test]
    fn a_share_is_a_part_of_every_limit() {
        let quarter = ClientShare::default();
        assert_eq!([1, 3, 50, 65_536].map(|limit| quarter.of(limit)), [1, 1, 12, 16_384]);
        assert_eq!(ClientShare::ALL.of(usize::MAX), usize::MAX);
        assert_eq!(ClientShare::percent(0).get(), 1);
        assert_eq!(ClientShare::percent(101), ClientShare::ALL);
    }
}
