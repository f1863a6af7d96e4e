//! Which deliveries wait for each other.
//!
//! A lane holds a fixed number of permits to post. A subscription whose last delivery failed or was slow uses
//! the retry lane, so slow and dead receivers never hold up healthy ones for long. Within a lane
//! - one receiver host holds at most half of the permits, one owner at most three quarters (at least one
//!   each), so that a host that stopped answering leaves permits for the others;
//! - free permits go to owners in turn, then to the owner's hosts in turn, then to deliveries in order.
//!
//! The owner of a subscription is its tenant or, without one, the first segment of what it links.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use durable_streams_protocol::{
    TenantId, stored_prefix,
    subscription::{DeliveryConfig, SubscriptionConfig, WebhookTarget},
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Whose share of a lane a delivery uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LaneKey {
    owner: Arc<str>,
    host: Arc<str>,
}

impl LaneKey {
    /// The key of a subscription's deliveries.
    pub(super) fn of(tenant: Option<&TenantId>, config: &SubscriptionConfig) -> Self {
        let owner: Arc<str> = match tenant {
            // No segment has a slash.
            Some(tenant) => stored_prefix(tenant).into(),
            None => {
                let named = || config.streams.first().map(|path| path.first_segment());
                let first = config.pattern.as_ref().and_then(|p| p.first_literal());
                first.or_else(named).unwrap_or_default().into()
            }
        };
        let host = match &config.delivery {
            DeliveryConfig::Webhook { url } => WebhookTarget::host_of(url),
            DeliveryConfig::PullWake { .. } => None,
        };
        LaneKey { owner, host: host.unwrap_or_default().into() }
    }
}

/// The two lanes.
pub(super) struct DeliveryLanes {
    first: Lane,
    retry: Lane,
}

impl DeliveryLanes {
    pub(super) fn new(max_deliveries: usize, max_retries: usize) -> Self {
        DeliveryLanes { first: Lane::new(max_deliveries), retry: Lane::new(max_retries) }
    }

    /// The lane of a subscription; `suspect` when its last delivery failed or was slow.
    pub(super) fn lane(&self, suspect: bool) -> Lane {
        if suspect { self.retry.clone() } else { self.first.clone() }
    }
}

/// A number of permits, and the deliveries that wait for one.
#[derive(Clone)]
pub(super) struct Lane(Arc<Mutex<LaneQueue>>);

/// The right to make one post; dropping it returns it to its lane.
pub(super) struct DeliveryPermit {
    lane: Lane,
    /// `None` once it is returned.
    key: Option<LaneKey>,
}

struct LaneQueue {
    free: usize,
    max_per_host: usize,
    max_per_owner: usize,
    /// Owners with deliveries in flight or waiting.
    owners: HashMap<Arc<str>, LaneOwner>,
    /// In flight, over all owners.
    hosts_in_flight: HashMap<Arc<str>, usize>,
    /// Owners with waiting deliveries, the next in front.
    turns: VecDeque<Arc<str>>,
}

#[derive(Default)]
struct LaneOwner {
    in_flight: usize,
    waiting: HashMap<Arc<str>, VecDeque<oneshot::Sender<DeliveryPermit>>>,
    /// Hosts with waiting deliveries, the next in front.
    turns: VecDeque<Arc<str>>,
}

impl Lane {
    /// A lane of `permits`, at least one.
    fn new(permits: usize) -> Self {
        let permits = permits.max(1);
        Lane(Arc::new(Mutex::new(LaneQueue {
            free: permits,
            max_per_host: (permits / 2).max(1),
            max_per_owner: (permits * 3 / 4).max(1),
            owners: HashMap::new(),
            hosts_in_flight: HashMap::new(),
            turns: VecDeque::new(),
        })))
    }

    /// Waits for a permit.
    pub(super) async fn acquire(&self, key: LaneKey) -> Option<DeliveryPermit> {
        let (sender, permit) = oneshot::channel();
        self.0.lock().enqueue(key, sender);
        self.hand_out();
        permit.await.ok()
    }

    /// Gives free permits to those whose turn it is.
    fn hand_out(&self) {
        loop {
            let Some((key, sender)) = self.0.lock().next() else { return };
            // Returned here rather than by dropping it, which would call this function again.
            if let Err(mut unused) =
                sender.send(DeliveryPermit { lane: self.clone(), key: Some(key) })
                && let Some(key) = unused.key.take()
            {
                self.0.lock().release(&key);
            }
        }
    }
}

impl Drop for DeliveryPermit {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.lane.0.lock().release(&key);
            self.lane.hand_out();
        }
    }
}

impl LaneQueue {
    fn enqueue(&mut self, key: LaneKey, sender: oneshot::Sender<DeliveryPermit>) {
        let owner = self.owners.entry(key.owner.clone()).or_default();
        if owner.turns.is_empty() {
            self.turns.push_back(key.owner);
        }
        let waiting = owner.waiting.entry(key.host.clone()).or_default();
        if waiting.is_empty() {
            owner.turns.push_back(key.host);
        }
        waiting.push_back(sender);
    }

    /// Takes out the next delivery that may go, and counts it as in flight.
    fn next(&mut self) -> Option<(LaneKey, oneshot::Sender<DeliveryPermit>)> {
        if self.free == 0 {
            return None;
        }
        // At most one owner and two hosts are at their share in a lane of four and more, so this is short.
        for _ in 0..self.turns.len() {
            let name = self.turns.pop_front()?;
            let owner = self.owners.get_mut(&name)?;
            let found = if owner.in_flight < self.max_per_owner {
                owner.next(&self.hosts_in_flight, self.max_per_host)
            } else {
                None
            };
            if !owner.turns.is_empty() {
                self.turns.push_back(name.clone());
            }
            let Some((host, sender)) = found else { continue };
            owner.in_flight += 1;
            *self.hosts_in_flight.entry(host.clone()).or_default() += 1;
            self.free -= 1;
            return Some((LaneKey { owner: name, host }, sender));
        }
        None
    }

    fn release(&mut self, key: &LaneKey) {
        self.free += 1;
        if let Some(owner) = self.owners.get_mut(&key.owner) {
            owner.in_flight -= 1;
            if owner.in_flight == 0 && owner.turns.is_empty() {
                self.owners.remove(&key.owner);
            }
        }
        if let Some(in_flight) = self.hosts_in_flight.get_mut(&key.host) {
            *in_flight -= 1;
            if *in_flight == 0 {
                self.hosts_in_flight.remove(&key.host);
            }
        }
    }
}

impl LaneOwner {
    fn next(
        &mut self,
        in_flight: &HashMap<Arc<str>, usize>,
        max_per_host: usize,
    ) -> Option<(Arc<str>, oneshot::Sender<DeliveryPermit>)> {
        for _ in 0..self.turns.len() {
            let host = self.turns.pop_front()?;
            if in_flight.get(&host).is_some_and(|posts| *posts >= max_per_host) {
                self.turns.push_back(host);
                continue;
            }
            let waiting = self.waiting.get_mut(&host)?;
            let sender = waiting.pop_front();
            if waiting.is_empty() {
                self.waiting.remove(&host);
            } else {
                self.turns.push_back(host.clone());
            }
            return Some((host, sender?));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(owner: &str, host: &str) -> LaneKey {
        LaneKey { owner: owner.into(), host: host.into() }
    }

    /// Enqueues deliveries and returns a receiver for each.
    fn wait(lane: &Lane, key: &LaneKey, count: usize) -> Vec<oneshot::Receiver<DeliveryPermit>> {
        let receivers = (0..count).map(|_| {
            let (sender, receiver) = oneshot::channel();
            lane.0.lock().enqueue(key.clone(), sender);
            lane.hand_out();
            receiver
        });
        receivers.collect()
    }

    fn permits(receivers: &mut Vec<oneshot::Receiver<DeliveryPermit>>) -> Vec<DeliveryPermit> {
        let mut permits = Vec::new();
        receivers.retain_mut(|receiver| match receiver.try_recv() {
            Ok(permit) => {
                permits.push(permit);
                false
            }
            Err(_) => true,
        });
        permits
    }

    #[test]
    fn a_host_holds_half_and_an_owner_three_quarters() {
        let lane = Lane::new(8);
        let mut hanging = wait(&lane, &key("a", "hangs.example"), 100);
        let held = permits(&mut hanging);
        assert_eq!(held.len(), 4, "half");
        let mut second = wait(&lane, &key("a", "also.example"), 100);
        let also_held = permits(&mut second);
        assert_eq!(also_held.len(), 2, "its owner has three quarters");
        let mut third = wait(&lane, &key("b", "hangs.example"), 1);
        assert!(permits(&mut third).is_empty(), "the share of a host counts over all owners");
        let mut other = wait(&lane, &key("b", "other.example"), 1);
        let other_held = permits(&mut other);
        assert_eq!(other_held.len(), 1, "another owner and host does not wait");
        drop(held);
        let handed_on = [&mut third, &mut hanging, &mut second].map(permits);
        let handed_on_in_all = handed_on.iter().map(Vec::len).sum::<usize>();
        assert_eq!(handed_on_in_all, 5, "the four, and the one that nobody could have before");
        assert_eq!(handed_on[0].len(), 1, "the other owner has its turn");
    }

    #[test]
    fn permits_go_around_owners_and_then_hosts() {
        let lane = Lane::new(1);
        let mut first = wait(&lane, &key("a", "one"), 1);
        let mut permit = permits(&mut first).pop();
        let mut queues = vec![
            ("a one", wait(&lane, &key("a", "one"), 3)),
            ("a two", wait(&lane, &key("a", "two"), 3)),
            ("b one", wait(&lane, &key("b", "three"), 3)),
        ];
        let mut order = Vec::new();
        while let Some(held) = permit.take() {
            drop(held);
            for (name, queue) in &mut queues {
                if let Some(next) = permits(queue).pop() {
                    order.push(*name);
                    permit = Some(next);
                }
            }
        }
        assert_eq!(
            order,
            ["a one", "b one", "a two", "b one", "a one", "b one", "a two", "a one", "a two"]
        );
    }

    #[test]
    fn nothing_is_kept_of_what_has_left() {
        let lane = Lane::new(2);
        let mut all = wait(&lane, &key("a", "one"), 3);
        let held = permits(&mut all);
        drop(all);
        drop(held);
        let queue = lane.0.lock();
        assert_eq!((queue.free, queue.owners.len(), queue.turns.len()), (2, 0, 0));
        assert!(queue.hosts_in_flight.is_empty());
    }
}
