//! What a request or the passing of time does to a subscription. Nothing here changes state: each answer
//! is the events to commit.

use serde::Deserialize;

use super::{
    Attempt, Claims, Delivered, DeliveryConfig, EndReason, LinkRecord, Live, Phase, Refusal, Retry,
    Subscription, SubscriptionEvent, Work, wake::WakeId,
};
use crate::{Offset, StreamPath, Timestamp};

/// One cursor to move.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Ack {
    /// The stream.
    #[serde(alias = "path")]
    pub stream: String,
    /// Its last processed offset, inclusive.
    pub offset: String,
}

/// What a callback, ack or release must match (§7.3).
#[derive(Clone, Copy, Debug)]
pub struct Fence<'a> {
    /// From the token, already verified.
    pub claims: &'a Claims,
    /// From the body.
    pub wake_id: &'a str,
    /// From the body.
    pub generation: u64,
}

/// What is due now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// The lease is over.
    Expire,
    /// A wake that nobody has is without work: its streams were deleted or unlinked.
    Drop,
    /// A new wake; the present one, if any, ends.
    Wake,
    /// The refused wake once more.
    Redeliver,
}

impl Subscription {
    /// Links streams by name (§6.4), new ones at their present tail.
    pub fn link_explicit(&self, streams: &[(StreamPath, Option<Live>)]) -> Vec<SubscriptionEvent> {
        let new = streams.iter().filter(|(path, _)| self.link(path).is_none_or(|l| !l.explicit));
        let links: Vec<LinkRecord> = new
            .map(|(path, live)| {
                // An existing link keeps its cursor.
                let live = live.filter(|_| self.link(path).is_none());
                let cursor = live.map(|live| (live.stream, live.tail));
                LinkRecord { path: path.clone(), explicit: true, cursor }
            })
            .collect();
        if links.is_empty() { Vec::new() } else { vec![SubscriptionEvent::Linked { links }] }
    }

    /// Removes an explicit link; the pattern's stays.
    pub fn unlink(&self, path: &StreamPath) -> Vec<SubscriptionEvent> {
        if self.link(path).is_some_and(|link| link.explicit) {
            vec![SubscriptionEvent::Unlinked { paths: vec![path.clone()] }]
        } else {
            Vec::new()
        }
    }

    /// A worker's claim (§7.2). What is due must be done first.
    ///
    /// # Errors
    /// [`Refusal::InvalidRequest`] for a webhook, [`Refusal::AlreadyClaimed`], [`Refusal::NoPendingWork`].
    pub fn claim(&self, worker: String, now: Timestamp) -> Result<Vec<SubscriptionEvent>, Refusal> {
        self.expect_pull_wake()?;
        match &self.wake {
            Some(wake) => match &wake.phase {
                Phase::Claimed { worker } => Err(Refusal::AlreadyClaimed {
                    holder: worker.clone(),
                    generation: self.generation,
                }),
                _ => Ok(vec![SubscriptionEvent::Claimed { worker, lease_until: self.lease(now) }]),
            },
            None => Err(Refusal::NoPendingWork),
        }
    }

    /// A worker's ack or callback: moves cursors, extends the lease or ends the wake (§7.1, §7.2).
    ///
    /// # Errors
    /// [`Refusal::Fenced`], [`Refusal::InvalidOffset`]. Nothing is applied then.
    pub fn ack(
        &self,
        fence: Fence<'_>,
        acks: &[Ack],
        done: bool,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionEvent>, Refusal> {
        self.check(fence, now)?;
        let links = acks.iter().map(|ack| self.judge(ack)).collect::<Result<Vec<_>, _>>()?;
        let mut events = Vec::new();
        // Whoever calls back has the wake, whatever became of the answer to the post.
        let taken = self.wake.as_ref().map(|wake| &wake.phase);
        if !done && matches!(taken, Some(Phase::Delivering | Phase::Failed { .. })) {
            events.push(SubscriptionEvent::Delivered);
        }
        let lease_until = (!done).then(|| self.lease(now));
        events.push(SubscriptionEvent::Acked { links, lease_until });
        if done {
            events.push(SubscriptionEvent::Ended { reason: EndReason::Done });
        }
        Ok(events)
    }

    /// A worker gives the wake back (§7.2).
    ///
    /// # Errors
    /// [`Refusal::InvalidRequest`] for a webhook, [`Refusal::Fenced`].
    pub fn release(
        &self,
        fence: Fence<'_>,
        now: Timestamp,
    ) -> Result<Vec<SubscriptionEvent>, Refusal> {
        self.expect_pull_wake()?;
        self.check(fence, now)?;
        Ok(vec![SubscriptionEvent::Ended { reason: EndReason::Released }])
    }

    /// Refuses the endpoints of pull-wake for webhooks.
    ///
    /// # Errors
    /// [`Refusal::InvalidRequest`].
    pub fn expect_pull_wake(&self) -> Result<(), Refusal> {
        match self.config().delivery {
            DeliveryConfig::PullWake { .. } => Ok(()),
            DeliveryConfig::Webhook { .. } => Err(Refusal::InvalidRequest(
                "this is a webhook subscription; use its callback_url".into(),
            )),
        }
    }

    /// Refuses the callback for pull-wake.
    ///
    /// # Errors
    /// [`Refusal::InvalidRequest`].
    pub fn expect_webhook(&self) -> Result<(), Refusal> {
        match self.config().delivery {
            DeliveryConfig::Webhook { .. } => Ok(()),
            DeliveryConfig::PullWake { .. } => Err(Refusal::InvalidRequest(
                "this is a pull-wake subscription; use claim, ack and release".into(),
            )),
        }
    }

    /// What became of a post. Says nothing when the wake is over already.
    pub fn posted(
        &self,
        generation: u64,
        delivered: Delivered,
        now: Timestamp,
        random: u32,
    ) -> Vec<SubscriptionEvent> {
        let Some(wake) = self.wake.as_ref().filter(|_| generation == self.generation) else {
            return Vec::new();
        };
        let expired = wake.lease_until.is_some_and(|until| until <= now);
        let failed = |refused| {
            let retry = Retry::after(self.retry, now, random);
            vec![SubscriptionEvent::DeliveryFailed { refused, retry }]
        };
        match (delivered, &wake.phase) {
            _ if expired => Vec::new(),
            (Delivered::Done(mut links), Phase::Delivering | Phase::Delivered) => {
                links.retain(|link| self.is_there(link));
                vec![
                    SubscriptionEvent::Acked { links, lease_until: None },
                    SubscriptionEvent::Ended { reason: EndReason::Done },
                ]
            }
            (Delivered::Accepted, Phase::Delivering) => vec![SubscriptionEvent::Delivered],
            (Delivered::Refused, Phase::Delivering) => failed(true),
            (Delivered::Unknown, Phase::Delivering) => failed(false),
            _ => Vec::new(),
        }
    }

    /// What became of an append to the wake stream.
    pub fn announced(
        &self,
        generation: u64,
        done: bool,
        now: Timestamp,
        random: u32,
    ) -> Vec<SubscriptionEvent> {
        let unannounced = self.wake.as_ref().is_some_and(|wake| wake.phase == Phase::Unannounced);
        match (generation == self.generation && unannounced, done) {
            (false, _) => Vec::new(),
            (true, true) => vec![SubscriptionEvent::Announced],
            (true, false) => vec![SubscriptionEvent::AnnounceFailed {
                retry: Retry::after(self.retry, now, random),
            }],
        }
    }

    /// The wake stream was deleted, and the wake in it.
    pub fn wake_stream_gone(&self, now: Timestamp, random: u32) -> Vec<SubscriptionEvent> {
        let announced = self.wake.as_ref().is_some_and(|wake| wake.phase == Phase::Announced);
        if !announced {
            return Vec::new();
        }
        let retry = Retry::after(self.retry, now, random);
        vec![SubscriptionEvent::AnnounceFailed { retry }]
    }

    /// After a restart: a post that was under way has an unknown outcome, and only a new generation
    /// fences whoever may have it.
    pub fn recovered(&self) -> Vec<SubscriptionEvent> {
        match &self.wake {
            Some(wake) if wake.phase == Phase::Delivering => {
                vec![SubscriptionEvent::Ended { reason: EndReason::Superseded }]
            }
            _ => Vec::new(),
        }
    }

    /// What is due at `now`; call again after applying it, until nothing is. Posting needs a slot, so
    /// what leads to a post is left out unless `may_post`.
    pub fn poll(
        &self,
        now: Timestamp,
        may_post: bool,
        wake_id: impl FnOnce() -> WakeId,
        random: u32,
    ) -> Vec<SubscriptionEvent> {
        let ended = |reason| SubscriptionEvent::Ended { reason };
        match self.due(now) {
            Due::Nothing => Vec::new(),
            Due::Expire => {
                let mut events = Vec::new();
                let phase = self.wake.as_ref().map(|wake| &wake.phase);
                if phase == Some(&Phase::Delivering) {
                    // No answer within the whole lease is a failure; without a pause a receiver that
                    // hangs would be posted to without end.
                    let retry = Retry::after(self.retry, now, random);
                    events.push(SubscriptionEvent::DeliveryFailed { refused: false, retry });
                }
                events.push(ended(EndReason::Expired));
                events
            }
            Due::Drop => vec![ended(EndReason::Done)],
            Due::Wake | Due::Redeliver if self.is_webhook() && !may_post => Vec::new(),
            Due::Redeliver => {
                vec![SubscriptionEvent::Redelivering { lease_until: self.lease(now) }]
            }
            Due::Wake => {
                let mut events = Vec::new();
                if self.wake.is_some() {
                    events.push(ended(EndReason::Superseded));
                }
                events.push(SubscriptionEvent::Woken {
                    generation: self.generation + 1,
                    wake_id: wake_id(),
                    lease_until: self.is_webhook().then(|| self.lease(now)),
                });
                events
            }
        }
    }

    /// Whether a slot for a post is all that is missing.
    pub fn wants_slot(&self, now: Timestamp) -> bool {
        self.is_webhook() && matches!(self.due(now), Due::Wake | Due::Redeliver)
    }

    /// What should be under way.
    pub fn work(&self, now: Timestamp) -> Option<Work> {
        let failures = self.retry.map_or(0, |retry| retry.failures);
        let attempt = Attempt { generation: self.generation, failures };
        match &self.wake.as_ref()?.phase {
            Phase::Delivering => Some(Work::Post(attempt)),
            Phase::Unannounced if self.retry_due(now) => Some(Work::Announce(attempt)),
            _ => None,
        }
    }

    /// When something will be due without anybody's doing.
    pub fn deadline(&self) -> Option<Timestamp> {
        let lease = self.wake.as_ref().and_then(|wake| wake.lease_until);
        let waiting = match &self.wake {
            None => self.is_webhook() && self.has_pending(),
            Some(wake) => matches!(wake.phase, Phase::Failed { .. } | Phase::Unannounced),
        };
        let retry = self.retry.filter(|_| waiting).map(|retry| retry.at);
        lease.into_iter().chain(retry).min()
    }

    fn due(&self, now: Timestamp) -> Due {
        let Some(wake) = &self.wake else {
            let held_back = self.is_webhook() && !self.retry_due(now);
            return if self.has_pending() && !held_back { Due::Wake } else { Due::Nothing };
        };
        if wake.lease_until.is_some_and(|until| until <= now) {
            return Due::Expire;
        }
        match wake.phase {
            // Nothing to do any more. A wake that stayed would be claimed in vain, and hold back the next.
            Phase::Failed { .. } | Phase::Unannounced | Phase::Announced if !self.has_pending() => {
                Due::Drop
            }
            Phase::Failed { refused } if self.retry_due(now) => {
                if refused {
                    Due::Redeliver
                } else {
                    Due::Wake
                }
            }
            _ => Due::Nothing,
        }
    }

    fn retry_due(&self, now: Timestamp) -> bool {
        self.retry.is_none_or(|retry| retry.at <= now)
    }

    fn is_webhook(&self) -> bool {
        matches!(self.config().delivery, DeliveryConfig::Webhook { .. })
    }

    fn lease(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_millis(now.millis().saturating_add(self.config().lease_ttl_ms))
    }

    /// The four conditions of §7.3; the token's signature was checked before. A lease is over at its end,
    /// whether or not anybody has noticed yet.
    fn check(&self, fence: Fence<'_>, now: Timestamp) -> Result<(), Refusal> {
        let current = self.wake.as_ref().is_some_and(|wake| {
            let held = match wake.phase {
                Phase::Delivering | Phase::Delivered | Phase::Failed { .. } => true,
                Phase::Claimed { .. } => true,
                Phase::Unannounced | Phase::Announced => false,
            };
            held && wake.id.as_str() == fence.wake_id
                && wake.id == fence.claims.wake
                && wake.lease_until.is_none_or(|until| until > now)
        });
        let generation = self.generation;
        if current && fence.generation == generation && fence.claims.generation == generation {
            Ok(())
        } else {
            Err(Refusal::Fenced)
        }
    }

    /// Whether the stream of a cursor is still the one that is linked.
    fn is_there(&self, record: &LinkRecord) -> bool {
        let live = self.link(&record.path).and_then(|link| link.live);
        live.map(|live| live.stream) == record.cursor.map(|(stream, _)| stream)
    }

    fn judge(&self, ack: &Ack) -> Result<LinkRecord, Refusal> {
        let invalid = |why: String| {
            Refusal::InvalidOffset(format!("ack of {:?} at {:?}: {why}", ack.stream, ack.offset))
        };
        let offset = Offset::parse(&ack.offset)
            .ok_or_else(|| invalid("not an offset that this server returned".into()))?;
        let path = StreamPath::new(ack.stream.trim_start_matches('/'))
            .map_err(|error| invalid(error.to_string()))?;
        let link = self.link(&path).ok_or_else(|| invalid("not linked".into()))?;
        if offset < link.acked() {
            return Err(invalid(format!("the cursor is at {} already", link.acked())));
        }
        if offset > link.tail() {
            return Err(invalid(format!("the stream ends at {}", link.tail())));
        }
        // Where no stream is, zero is all that can be acked, and it says nothing.
        let cursor = link.live.map(|live| (live.stream, offset));
        Ok(LinkRecord { path, explicit: false, cursor })
    }
}
