//! Requests and their bytes by prefix of the path and by tenant, as far as the configuration asks for it.
//!
//! A request is placed once, by the path under which its stream is stored, and counted once, when it has ended: additions
//! to the counters of its place, without a lock. Where nothing is to be counted there is no [`UsageCounters`], and a request
//! passes one branch.
//!
//! Bounds: [`MAX_PREFIXES`] prefixes; tenants up to the configured number, at most [`MAX_TENANTS`], which take 300 bytes each
//! with their names. Further tenants are counted together.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use durable_streams_auth::{PathPrefix, TENANTS_PREFIX};
use durable_streams_engine::counters::RelaxedCounter;
use durable_streams_protocol::StreamPath;
use http::StatusCode;

use super::RequestMode;

/// Prefixes that are counted at most: a bit of `UsagePlace` each.
pub const MAX_PREFIXES: usize = 64;
/// Tenants that are counted at most.
pub const MAX_TENANTS: usize = 10_000;

/// What is to be counted.
#[derive(Clone, Debug, Default)]
pub struct UsageOptions {
    /// Prefixes of the paths of streams without a tenant; a request counts for each that its path is under.
    pub prefixes: Vec<PathPrefix>,
    /// The first so many tenants, each for itself.
    pub tenants: usize,
}

/// Requests of one prefix or tenant that were let through and have ended, and the bytes of their bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestUsage {
    /// `POST`.
    pub appends: u64,
    /// `GET` of what is there.
    pub reads: u64,
    /// Long-polls and SSE.
    pub live_reads: u64,
    /// All others: created, deleted, looked at.
    pub others: u64,
    /// Of all these, those that ended with a 4xx.
    pub refused: u64,
    /// Of all these, those that ended with a 5xx.
    pub failed: u64,
    /// Bytes of request bodies.
    pub bytes_in: u64,
    /// Bytes of response bodies.
    pub bytes_out: u64,
}

/// Requests by prefix and by tenant.
pub struct UsageCounters {
    prefixes: Vec<(PathPrefix, UsageRow)>,
    tenants: TenantTable,
}

/// Where a request counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct UsagePlace {
    /// A bit for each prefix.
    prefixes: u64,
    tenant: TenantPlace,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum TenantPlace {
    #[default]
    None,
    Slot(u32),
    Others,
}

/// The counters of one prefix or tenant.
#[derive(Default)]
struct UsageRow([RelaxedCounter; 8]);

/// Tenants by name, in a table of open addressing that only grows: a slot that is taken stays what it is.
struct TenantTable {
    most: usize,
    taken: AtomicUsize,
    /// Keyed: clients may choose the names of tenants.
    hasher: RandomState,
    /// A power of two and twice `most` at least, or empty.
    slots: Box<[OnceLock<Box<TenantRow>>]>,
    others: UsageRow,
}

struct TenantRow {
    name: Box<str>,
    row: UsageRow,
}

impl UsageRow {
    fn count(&self, mode: RequestMode, status: Option<StatusCode>, received: usize, sent: usize) {
        let [appends, reads, live_reads, others, refused, failed, bytes_in, bytes_out] = &self.0;
        let kind = match mode {
            RequestMode::Append => appends,
            RequestMode::CatchUp => reads,
            RequestMode::LongPoll | RequestMode::Sse => live_reads,
            RequestMode::Create
            | RequestMode::Head
            | RequestMode::Delete
            | RequestMode::Patch
            | RequestMode::Preflight
            | RequestMode::Subscriptions
            | RequestMode::Invalid => others,
        };
        kind.add(1);
        match status {
            Some(status) if status.is_client_error() => refused.add(1),
            Some(status) if status.is_server_error() => failed.add(1),
            _ => {}
        }
        for (counter, bytes) in [(bytes_in, received), (bytes_out, sent)] {
            if bytes > 0 {
                counter.add(bytes as u64);
            }
        }
    }

    fn usage(&self) -> RequestUsage {
        let [appends, reads, live_reads, others, refused, failed, bytes_in, bytes_out] =
            self.0.each_ref().map(RelaxedCounter::get);
        RequestUsage { appends, reads, live_reads, others, refused, failed, bytes_in, bytes_out }
    }
}

impl UsageCounters {
    pub(crate) fn new(options: UsageOptions) -> Self {
        let prefixes = options.prefixes.into_iter().take(MAX_PREFIXES);
        UsageCounters {
            prefixes: prefixes.map(|prefix| (prefix, UsageRow::default())).collect(),
            tenants: TenantTable::new(options.tenants.min(MAX_TENANTS)),
        }
    }

    /// Where a request for the stream that is stored at `stored` counts.
    pub(crate) fn place(&self, stored: &StreamPath) -> UsagePlace {
        if let Some(tenant) = tenant_of(stored) {
            return UsagePlace { prefixes: 0, tenant: self.tenants.place(tenant) };
        }
        let mut prefixes = 0;
        for (bit, (prefix, _)) in self.prefixes.iter().enumerate() {
            prefixes |= u64::from(prefix.covers(stored)) << bit;
        }
        UsagePlace { prefixes, tenant: TenantPlace::None }
    }

    pub(crate) fn count(
        &self,
        place: UsagePlace,
        mode: RequestMode,
        status: Option<StatusCode>,
        received: usize,
        sent: usize,
    ) {
        let mut left = place.prefixes;
        while left != 0 {
            if let Some((_, row)) = self.prefixes.get(left.trailing_zeros() as usize) {
                row.count(mode, status, received, sent);
            }
            left &= left - 1;
        }
        if let Some(row) = self.tenants.row(place.tenant) {
            row.count(mode, status, received, sent);
        }
    }

    /// Each counted prefix.
    pub fn prefixes(&self) -> impl Iterator<Item = (&PathPrefix, RequestUsage)> {
        self.prefixes.iter().map(|(prefix, row)| (prefix, row.usage()))
    }

    /// The tenants that have requests, in no order.
    pub fn tenants(&self) -> impl Iterator<Item = (&str, RequestUsage)> {
        let rows = self.tenants.slots.iter().filter_map(OnceLock::get);
        rows.map(|tenant| (&*tenant.name, tenant.row.usage()))
    }

    /// The tenants that there was no room for, together; `None` where no tenants are counted.
    pub fn other_tenants(&self) -> Option<RequestUsage> {
        (self.tenants.most > 0).then(|| self.tenants.others.usage())
    }

    /// The requests of one tenant; `None` where they are not counted by themselves.
    pub fn tenant(&self, name: &str) -> Option<RequestUsage> {
        self.tenants().find(|(one, _)| *one == name).map(|(_, usage)| usage)
    }

    /// The requests below one of the counted prefixes.
    pub fn prefix(&self, name: &str) -> Option<RequestUsage> {
        self.prefixes().find(|(one, _)| one.as_str() == name).map(|(_, usage)| usage)
    }
}

/// The tenant whose stream is stored at a path.
fn tenant_of(stored: &StreamPath) -> Option<&str> {
    let rest = stored.as_str().strip_prefix(TENANTS_PREFIX)?.strip_prefix('/')?;
    rest.split('/').next()
}

impl TenantTable {
    fn new(most: usize) -> Self {
        let slots = if most == 0 { 0 } else { (most * 2).next_power_of_two() };
        TenantTable {
            most,
            taken: AtomicUsize::new(0),
            hasher: RandomState::new(),
            slots: (0..slots).map(|_| OnceLock::new()).collect(),
            others: UsageRow::default(),
        }
    }

    /// The place of a tenant, which gets one while there is room.
    fn place(&self, name: &str) -> TenantPlace {
        let Some(mask) = self.slots.len().checked_sub(1) else { return TenantPlace::None };
        let mut at = self.hasher.hash_one(name) as usize;
        // Half of the slots stay free, so that this ends.
        loop {
            at &= mask;
            let Some(slot) = self.slots.get(at) else { return TenantPlace::Others };
            let held = match slot.get() {
                Some(held) => held,
                None if !self.reserve() => return TenantPlace::Others,
                None => self.take(slot, name),
            };
            if &*held.name == name {
                return TenantPlace::Slot(at as u32);
            }
            at += 1;
        }
    }

    fn reserve(&self) -> bool {
        let more = |taken: usize| (taken < self.most).then_some(taken + 1);
        self.taken.fetch_update(Relaxed, Relaxed, more).is_ok()
    }

    /// Fills a slot that was free, unless another thread was faster, for this tenant or for another.
    fn take<'t>(&self, slot: &'t OnceLock<Box<TenantRow>>, name: &str) -> &'t TenantRow {
        let mut taken = false;
        let held = slot.get_or_init(|| {
            taken = true;
            Box::new(TenantRow { name: name.into(), row: UsageRow::default() })
        });
        if !taken {
            self.taken.fetch_sub(1, Relaxed);
        }
        held
    }

    fn row(&self, place: TenantPlace) -> Option<&UsageRow> {
        match place {
            TenantPlace::None => None,
            TenantPlace::Others => Some(&self.others),
            TenantPlace::Slot(at) => Some(&self.slots.get(at as usize)?.get()?.row),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(prefixes: &[&str], tenants: usize) -> UsageCounters {
        let prefixes = prefixes.iter().map(|text| PathPrefix::new(text).unwrap()).collect();
        UsageCounters::new(UsageOptions { prefixes, tenants })
    }

    fn count(counters: &UsageCounters, path: &str) {
        let place = counters.place(&StreamPath::system(path).unwrap());
        counters.count(place, RequestMode::Append, Some(StatusCode::NO_CONTENT), 10, 0);
    }

    #[test]
    fn a_request_counts_for_every_prefix_that_its_path_is_under() {
        let counters = counters(&["chat", "chat/rooms", "other"], 0);
        for path in ["chat", "chat/1", "chat/rooms/1", "chatter", "__ds/t/acme/chat/1"] {
            count(&counters, path);
        }
        let appends = |name| counters.prefix(name).unwrap().appends;
        assert_eq!((appends("chat"), appends("chat/rooms"), appends("other")), (3, 1, 0));
        assert_eq!(counters.prefix("chat").unwrap().bytes_in, 30);
        assert_eq!(counters.prefix("chatter"), None);
        assert_eq!((counters.tenants().count(), counters.other_tenants()), (0, None));
    }

    #[test]
    fn a_request_counts_by_kind_and_by_outcome() {
        let counters = counters(&["a"], 0);
        let place = counters.place(&StreamPath::new("a/1").unwrap());
        for (mode, status, sent) in [
            (RequestMode::CatchUp, Some(StatusCode::OK), 7),
            (RequestMode::Sse, None, 5),
            (RequestMode::LongPoll, Some(StatusCode::NO_CONTENT), 0),
            (RequestMode::Create, Some(StatusCode::CONFLICT), 3),
            (RequestMode::Append, Some(StatusCode::INSUFFICIENT_STORAGE), 0),
        ] {
            counters.count(place, mode, status, 1, sent);
        }
        let expected = RequestUsage {
            appends: 1,
            reads: 1,
            live_reads: 2,
            others: 1,
            refused: 1,
            failed: 1,
            bytes_in: 5,
            bytes_out: 15,
        };
        assert_eq!(counters.prefix("a"), Some(expected));
    }

    /// 64 prefixes, and the first tenants that come; what comes on top takes no memory.
    #[test]
    fn what_is_counted_is_bounded() {
        let many: Vec<String> = (0..100).map(|number| format!("p{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let counters = counters(&many, 100);
        for name in &many {
            count(&counters, &format!("{name}/stream"));
        }
        assert_eq!(counters.prefixes().count(), MAX_PREFIXES);
        assert!(counters.prefixes().all(|(_, usage)| usage.appends == 1));
        for _ in 0..2 {
            for tenant in 0..1_000 {
                count(&counters, &format!("__ds/t/tenant-{}/stream", tenant));
            }
        }
        assert_eq!(counters.tenants().count(), 100);
        assert!(counters.tenants().all(|(_, usage)| usage.appends == 2));
        assert_eq!(counters.other_tenants().unwrap().appends, 1_800);
        assert_eq!(counters.tenants.slots.len(), 256);
        assert_eq!(counters.tenant("tenant-5").unwrap().bytes_in, 20);
        let row = size_of::<TenantRow>() + durable_streams_protocol::MAX_TENANT_BYTES;
        let slots = 4 * size_of::<OnceLock<Box<TenantRow>>>();
        assert!(row + slots <= 300, "{row} and {slots}");
    }

    #[test]
    fn threads_that_bring_the_same_tenants_count_each_once() {
        let counters = counters(&[], 50);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..200 {
                        count(&counters, &format!("__ds/t/tenant-{}/s", round % 25));
                    }
                });
            }
        });
        assert_eq!(counters.tenants().count(), 25);
        assert!(counters.tenants().all(|(_, usage)| usage.appends == 32));
        assert_eq!(counters.tenants.taken.load(Relaxed), 25, "no place is lost to a race");
    }
}
