//! A bound on the links of all subscriptions together, which are kept in memory, and on those of one tenant.

use std::{collections::HashMap, sync::Arc};

use durable_streams_protocol::{TenantId, subscription::Refusal};
use parking_lot::Mutex;

use super::options::tenants_part;

/// The number of links over all subscriptions, and over those of each tenant that has any.
#[derive(Default)]
pub(super) struct LinkBudget(Mutex<LinkCounts>);

#[derive(Default)]
struct LinkCounts {
    all: usize,
    tenants: HashMap<TenantId, usize>,
}

impl LinkBudget {
    /// How many links a tenant may add, when `max` are allowed over all.
    pub(super) fn room(&self, tenant: Option<&TenantId>, max: usize) -> usize {
        let counts = self.0.lock();
        let own = tenant.map_or(counts.all, |one| counts.tenants.get(one).copied().unwrap_or(0));
        let left = tenants_part(tenant, max).saturating_sub(own);
        left.min(max.saturating_sub(counts.all))
    }

    /// Refuses `new` links of a tenant beyond its part of `max`.
    ///
    /// # Errors
    /// [`Refusal::TooMany`].
    pub(super) fn check_room(
        &self,
        tenant: Option<&TenantId>,
        new: usize,
        max: usize,
    ) -> Result<(), Refusal> {
        if new <= self.room(tenant, max) {
            return Ok(());
        }
        let part = tenants_part(tenant, max);
        let what = match tenant {
            Some(_) if new <= self.room(None, max) => "linked streams of one tenant",
            _ => return Err(Refusal::TooMany { what: LINKS_OF_ALL, limit: max }),
        };
        Err(Refusal::TooMany { what, limit: part })
    }
}

const LINKS_OF_ALL: &str = "linked streams, over all subscriptions,";

/// One subscription's part of the number.
pub(super) struct CountedLinks {
    budget: Arc<LinkBudget>,
    tenant: Option<TenantId>,
    count: usize,
}

impl CountedLinks {
    pub(super) fn new(budget: &Arc<LinkBudget>, tenant: Option<&TenantId>, count: usize) -> Self {
        let mut links = CountedLinks { budget: budget.clone(), tenant: tenant.cloned(), count: 0 };
        links.set(count);
        links
    }

    /// Replaces the subscription's part.
    pub(super) fn set(&mut self, count: usize) {
        if count == self.count {
            return;
        }
        let mut counts = self.budget.0.lock();
        let changed = |held: usize| (held + count).saturating_sub(self.count);
        counts.all = changed(counts.all);
        if let Some(tenant) = &self.tenant {
            let held = changed(counts.tenants.get(tenant).copied().unwrap_or(0));
            match held {
                0 => counts.tenants.remove(tenant),
                held => counts.tenants.insert(tenant.clone(), held),
            };
        }
        self.count = count;
    }
}

impl Drop for CountedLinks {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_a_part_and_what_it_no_longer_holds_is_forgotten() {
        let budget = Arc::new(LinkBudget::default());
        let acme = TenantId::new("acme").unwrap();
        let mut links = CountedLinks::new(&budget, Some(&acme), 20);
        assert_eq!(budget.room(Some(&acme), 100), 5);
        assert_eq!(budget.room(None, 100), 80);
        assert!(budget.check_room(Some(&acme), 5, 100).is_ok());
        let refused = budget.check_room(Some(&acme), 6, 100).unwrap_err();
        assert!(matches!(refused, Refusal::TooMany { limit: 25, .. }), "{refused:?}");
        let _of_none = CountedLinks::new(&budget, None, 78);
        assert_eq!(budget.room(Some(&acme), 100), 2, "no more than there is for all");
        let refused = budget.check_room(Some(&acme), 3, 100).unwrap_err();
        assert!(matches!(refused, Refusal::TooMany { limit: 100, .. }), "{refused:?}");
        links.set(3);
        assert_eq!(budget.room(Some(&acme), 100), 19);
        drop(links);
        assert!(budget.0.lock().tenants.is_empty());
        assert_eq!(budget.room(None, 100), 22);
    }
}
