//! One subscription: the state that its log holds, and the current heads of its streams.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use super::{
    DeliveryConfig, LinkInfo, LinkRecord, RetrySchedule, StreamInfo, SubscriptionConfig,
    SubscriptionEvent, SubscriptionId, SubscriptionName,
    delivery::LONGEST_PAUSE_MILLIS,
    link::{Link, LinkCursor, StreamHead},
    wake::{Wake, WakePhase},
};
use crate::{StreamPath, TenantId, Timestamp};

/// The most links in one event of a rewritten log.
const LINKS_PER_EVENT: usize = 500;

/// One subscription's state: [`replay`](Self::replay) and [`apply`](Self::apply) fold the log,
/// [`observe`](Self::observe) takes in the streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    name: SubscriptionName,
    config: SubscriptionConfig,
    created_at: Timestamp,
    ready: bool,
    /// An operator stopped its deliveries.
    pub(super) paused: bool,
    pub(super) links: BTreeMap<StreamPath, Link>,
    /// Paths of links with pending work, so that no caller scans all links.
    pub(super) pending: BTreeSet<StreamPath>,
    pub(super) generation: u64,
    pub(super) wake: Option<Wake>,
    pub(super) retry: Option<RetrySchedule>,
}

impl Subscription {
    /// Folds a log; `None` when the log is incomplete.
    pub fn replay(events: impl IntoIterator<Item = SubscriptionEvent>) -> Option<Self> {
        let mut events = events.into_iter();
        let (tenant, id, config, at) = match events.next()? {
            SubscriptionEvent::Created { at, id, config, base_url: _ } => (None, id, config, at),
            SubscriptionEvent::CreatedForTenant { at, tenant, id, config } => {
                (Some(tenant), id, config, at)
            }
            _ => return None,
        };
        let mut subscription = Subscription {
            name: SubscriptionName { tenant, id },
            config,
            created_at: at,
            ready: false,
            paused: false,
            links: BTreeMap::new(),
            pending: BTreeSet::new(),
            generation: 0,
            wake: None,
            retry: None,
        };
        events.for_each(|event| subscription.apply(&event));
        subscription.ready.then_some(subscription)
    }

    /// After a replay: no lease and no retry ends later than `now` and its own length, since the clock may have been set
    /// back after it was stored.
    pub fn bound_deadlines(&mut self, now: Timestamp) {
        let at_most = |at: Timestamp, millis: u64| {
            at.min(Timestamp::from_millis(now.millis().saturating_add(millis)))
        };
        if let Some(wake) = &mut self.wake {
            let lease = self.config.lease_ttl_ms;
            wake.lease_until = wake.lease_until.map(|until| at_most(until, lease));
        }
        if let Some(retry) = &mut self.retry {
            retry.at = at_most(retry.at, LONGEST_PAUSE_MILLIS);
        }
    }

    /// Applies one committed event.
    pub fn apply(&mut self, event: &SubscriptionEvent) {
        match event {
            SubscriptionEvent::Created { .. } | SubscriptionEvent::CreatedForTenant { .. } => {}
            SubscriptionEvent::Ready => self.ready = true,
            SubscriptionEvent::Paused => self.paused = true,
            SubscriptionEvent::Resumed => self.paused = false,
            SubscriptionEvent::Linked { links } => links.iter().for_each(|link| self.link_in(link)),
            SubscriptionEvent::Unlinked { paths } => {
                paths.iter().for_each(|path| self.unlink_in(path));
            }
            SubscriptionEvent::Woken { generation, wake_id, lease_until } => {
                let phase = match self.config.delivery {
                    DeliveryConfig::Webhook { .. } => WakePhase::Delivering,
                    DeliveryConfig::PullWake { .. } => WakePhase::Unannounced,
                };
                self.generation = *generation;
                self.wake = Some(Wake { id: wake_id.clone(), phase, lease_until: *lease_until });
            }
            SubscriptionEvent::Redelivering { lease_until } => {
                self.advance(WakePhase::Delivering, Some(*lease_until));
            }
            SubscriptionEvent::Delivered => {
                self.advance(WakePhase::Delivered, None);
                self.retry = None;
            }
            SubscriptionEvent::DeliveryFailed { refused, retry } => {
                self.advance(WakePhase::Failed { refused: *refused }, None);
                self.retry = Some(*retry);
            }
            SubscriptionEvent::Announced => {
                self.advance(WakePhase::Announced, None);
                self.retry = None;
            }
            SubscriptionEvent::AnnounceFailed { retry } => {
                self.advance(WakePhase::Unannounced, None);
                self.retry = Some(*retry);
            }
            SubscriptionEvent::Claimed { worker, lease_until } => {
                self.advance(WakePhase::Claimed { worker: worker.clone() }, Some(*lease_until));
                self.retry = None;
            }
            SubscriptionEvent::Acked { links, lease_until } => {
                links.iter().for_each(|link| self.ack_in(link));
                if let (Some(wake), Some(lease_until)) = (&mut self.wake, lease_until) {
                    wake.lease_until = Some(*lease_until);
                }
            }
            SubscriptionEvent::Ended { reason } => {
                self.wake = None;
                if *reason == super::EndReason::Done {
                    self.retry = None;
                }
            }
            SubscriptionEvent::Restored { generation, wake, retry } => {
                self.generation = *generation;
                self.wake.clone_from(wake);
                self.retry = *retry;
            }
        }
    }

    fn advance(&mut self, phase: WakePhase, lease_until: Option<Timestamp>) {
        if let Some(wake) = &mut self.wake {
            wake.phase = phase;
            wake.lease_until = lease_until.or(wake.lease_until);
        }
    }

    fn link_in(&mut self, record: &LinkRecord) {
        let link = self.links.entry(record.path.clone()).or_default();
        link.explicit |= record.explicit;
        self.ack_in(record);
        self.mark(&record.path);
    }

    /// Depends on the log alone, since replay does not know which streams exist.
    fn unlink_in(&mut self, path: &StreamPath) {
        if self.config.matches(path) {
            if let Some(link) = self.links.get_mut(path) {
                link.explicit = false;
            }
        } else {
            self.links.remove(path);
        }
        self.mark(path);
    }

    fn ack_in(&mut self, record: &LinkRecord) {
        let Some((stream, acked)) = record.cursor else { return };
        let link = self.links.entry(record.path.clone()).or_default();
        let before = link.cursor.filter(|cursor| cursor.stream == stream);
        let acked = before.map_or(acked, |cursor| cursor.acked.max(acked));
        link.cursor = Some(LinkCursor { stream, acked });
        self.mark(&record.path);
    }

    /// Takes in the current head of a stream. Changes nothing that the log holds: a stream that the pattern
    /// matches and the log does not name was created after the subscription, so its cursor is zero.
    pub fn observe(&mut self, path: &StreamPath, head: Option<StreamHead>) {
        match self.links.get_mut(path) {
            Some(link) => {
                // Heads may arrive out of order; the tail of one stream only grows.
                let known =
                    link.head.filter(|known| head.is_some_and(|l| l.stream == known.stream));
                link.head = head.map(|head| StreamHead {
                    tail: known.map_or(head.tail, |k| k.tail.max(head.tail)),
                    ..head
                });
            }
            None if head.is_some() && self.config.matches(path) => {
                self.links.insert(path.clone(), Link { head, ..Link::default() });
            }
            None => return,
        }
        self.tidy_link(path);
    }

    /// Removes a link without reason to exist, or records whether it has pending work.
    fn tidy_link(&mut self, path: &StreamPath) {
        let Some(link) = self.links.get(path) else { return };
        if !link.explicit && (link.head.is_none() || !self.config.matches(path)) {
            self.links.remove(path);
        }
        self.mark(path);
    }

    fn mark(&mut self, path: &StreamPath) {
        if self.links.get(path).is_some_and(Link::is_pending) {
            self.pending.insert(path.clone());
        } else {
            self.pending.remove(path);
        }
    }

    /// A shorter log with the same state.
    pub fn rewritten(&self) -> Vec<SubscriptionEvent> {
        let records: Vec<LinkRecord> =
            self.links.iter().filter_map(|(path, link)| link.record(path)).collect();
        let (name, config) = (self.name.clone(), self.config.clone());
        let mut events = vec![SubscriptionEvent::created(name, config, self.created_at)];
        events.extend(
            records
                .chunks(LINKS_PER_EVENT)
                .map(|links| SubscriptionEvent::Linked { links: links.to_vec() }),
        );
        events.push(SubscriptionEvent::Restored {
            generation: self.generation,
            wake: self.wake.clone(),
            retry: self.retry,
        });
        if self.paused {
            events.push(SubscriptionEvent::Paused);
        }
        events.push(SubscriptionEvent::Ready);
        events
    }

    pub fn name(&self) -> &SubscriptionName {
        &self.name
    }

    pub fn id(&self) -> &SubscriptionId {
        &self.name.id
    }

    pub fn tenant(&self) -> Option<&TenantId> {
        self.name.tenant.as_ref()
    }

    /// The streams that are linked by name.
    pub fn explicit_paths(&self) -> impl Iterator<Item = &StreamPath> {
        self.links.iter().filter(|(_, link)| link.explicit).map(|(path, _)| path)
    }

    pub fn config(&self) -> &SubscriptionConfig {
        &self.config
    }

    pub fn created_at(&self) -> Timestamp {
        self.created_at
    }

    /// The last generation; zero before the first wake.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The wake in flight.
    pub fn wake(&self) -> Option<&Wake> {
        self.wake.as_ref()
    }

    /// The retry that is scheduled after failures.
    pub fn retry(&self) -> Option<RetrySchedule> {
        self.retry
    }

    /// `active`, or `failed` while a retry is scheduled (§6.3).
    pub fn status(&self) -> &'static str {
        if self.retry.is_some() { "failed" } else { "active" }
    }

    /// Whether an operator stopped its deliveries.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Streams with pending work, and the bytes from their cursors to their tails.
    pub fn lag(&self) -> (usize, u64) {
        let links = self.pending.iter().filter_map(|path| self.links.get(path));
        let behind =
            links.map(|link| link.tail().position().saturating_sub(link.acked().position()));
        (self.pending.len(), behind.sum())
    }

    /// Whether any linked stream has pending work.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The first stream with pending work, in path order.
    pub fn first_pending(&self) -> Option<&StreamPath> {
        self.pending.first()
    }

    pub fn link(&self, path: &StreamPath) -> Option<&Link> {
        self.links.get(path)
    }

    pub fn linked_paths(&self) -> impl Iterator<Item = &StreamPath> {
        self.links.keys()
    }

    /// The number of links.
    pub fn link_count(&self) -> usize {
        self.links.len()
    }

    /// At most `max` links in path order, those behind `after`.
    pub fn link_infos(&self, after: Option<&StreamPath>, max: usize) -> Vec<LinkInfo> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.links
            .range((from, Bound::Unbounded))
            .take(max)
            .map(|(path, link)| LinkInfo {
                path: path.clone(),
                link_type: link.link_type(),
                acked_offset: link.acked(),
            })
            .collect()
    }

    /// At most `max` links as a wake shows them, those with pending work first.
    pub fn stream_infos(&self, max: usize) -> Vec<StreamInfo> {
        let pending = self.pending.iter().filter_map(|path| Some((path, self.links.get(path)?)));
        let idle = self.links.iter().filter(|(_, link)| !link.is_pending());
        let infos = pending.chain(idle).take(max).map(|(path, link)| StreamInfo {
            path: path.clone(),
            link_type: link.link_type(),
            acked_offset: link.acked(),
            tail_offset: link.tail(),
            has_pending: link.is_pending(),
            stream: link.head.map(|head| head.stream),
        });
        infos.collect()
    }
}
