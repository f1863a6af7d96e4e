//! Decides what a request or the passing of time does to a subscription. Nothing here changes state: each
//! method returns the events to commit.

use serde::Deserialize;

use super::{
    DeliveryAttempt, DeliveryConfig, DeliveryOutcome, EndReason, LinkRecord, Refusal,
    RetrySchedule, StreamHead, Subscription, SubscriptionEvent, TokenClaims, WakeAction, WakePhase,
    wake::WakeId,
};
use crate::{Offset, StreamPath, Timestamp};

/// One cursor to move.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Ack {
    /// The path of the stream.
    #[serde(alias = "path")]
    pub stream: String,
    /// Its last processed offset, inclusive.
    pub offset: String,
}

/// What a callback, ack or release must match (§7.3).
#[derive(Clone, Copy, Debug)]
pub struct Fence<'a> {
    /// From the token, already verified.
    pub claims: &'a TokenClaims,
    /// From the body.
    pub wake_id: &'a str,
    /// From the body.
    pub generation: u64,
}

/// What the passing of time requires now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DueAction {
    Nothing,
    /// The lease is over.
    Expire,
    /// The wake, which no worker holds, has no work left: its streams were deleted or unlinked.
    Drop,
    /// Issue a new wake; the current one, if any, ends.
    Wake,
    /// Post the refused wake again.
    Redeliver,
}

impl Subscription {
    /// Links streams by name (§6.4); streams that were not linked start at their current tail.
    pub fn link_explicit(
        &self,
        streams: &[(StreamPath, Option<StreamHead>)],
    ) -> Vec<SubscriptionEvent> {
        let new = streams.iter().filter(|(path, _)| self.link(path).is_none_or(|l| !l.explicit));
        let links: Vec<LinkRecord> = new
            .map(|(path, head)| {
                // An existing link keeps its cursor.
                let head = head.filter(|_| self.link(path).is_none());
                let cursor = head.map(|head| (head.stream, head.tail));
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

    /// A worker's claim (§7.2). The caller has committed what [`poll`](Self::poll) returned before.
    ///
    /// # Errors
    /// [`Refusal::InvalidRequest`] for a webhook, [`Refusal::AlreadyClaimed`], [`Refusal::NoPendingWork`].
    pub fn claim(&self, worker: String, now: Timestamp) -> Result<Vec<SubscriptionEvent>, Refusal> {
        self.expect_pull_wake()?;
        match &self.wake {
            Some(wake) => match &wake.phase {
                WakePhase::Claimed { worker } => Err(Refusal::AlreadyClaimed {
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
    /// [`Refusal::Fenced`], [`Refusal::InvalidOffset`]. No cursor moves then.
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
        // A worker that calls back holds the wake, even when the response to the post was lost.
        let taken = self.wake.as_ref().map(|wake| &wake.phase);
        if !done && matches!(taken, Some(WakePhase::Delivering | WakePhase::Failed { .. })) {
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

    /// Records the outcome of a post. Returns no events when the wake or its lease has already ended.
    pub fn posted(
        &self,
        generation: u64,
        delivered: DeliveryOutcome,
        now: Timestamp,
        random: u32,
    ) -> Vec<SubscriptionEvent> {
        let Some(wake) = self.wake.as_ref().filter(|_| generation == self.generation) else {
            return Vec::new();
        };
        let expired = wake.lease_until.is_some_and(|until| until <= now);
        let failed = |refused| {
            let retry = RetrySchedule::after(self.retry, now, random);
            vec![SubscriptionEvent::DeliveryFailed { refused, retry }]
        };
        match (delivered, &wake.phase) {
            _ if expired => Vec::new(),
            (DeliveryOutcome::Done(mut links), WakePhase::Delivering | WakePhase::Delivered) => {
                links.retain(|link| self.is_there(link));
                vec![
                    SubscriptionEvent::Acked { links, lease_until: None },
                    SubscriptionEvent::Ended { reason: EndReason::Done },
                ]
            }
            (DeliveryOutcome::Accepted, WakePhase::Delivering) => {
                vec![SubscriptionEvent::Delivered]
            }
            (DeliveryOutcome::Refused, WakePhase::Delivering) => failed(true),
            (DeliveryOutcome::Unknown, WakePhase::Delivering) => failed(false),
            _ => Vec::new(),
        }
    }

    /// Records the outcome of an append to the wake stream.
    pub fn announced(
        &self,
        generation: u64,
        done: bool,
        now: Timestamp,
        random: u32,
    ) -> Vec<SubscriptionEvent> {
        let unannounced =
            self.wake.as_ref().is_some_and(|wake| wake.phase == WakePhase::Unannounced);
        match (generation == self.generation && unannounced, done) {
            (false, _) => Vec::new(),
            (true, true) => vec![SubscriptionEvent::Announced],
            (true, false) => vec![SubscriptionEvent::AnnounceFailed {
                retry: RetrySchedule::after(self.retry, now, random),
            }],
        }
    }

    /// The wake stream was deleted, and the wake in it.
    pub fn wake_stream_gone(&self, now: Timestamp, random: u32) -> Vec<SubscriptionEvent> {
        let announced = self.wake.as_ref().is_some_and(|wake| wake.phase == WakePhase::Announced);
        if !announced {
            return Vec::new();
        }
        let retry = RetrySchedule::after(self.retry, now, random);
        vec![SubscriptionEvent::AnnounceFailed { retry }]
    }

    /// After a restart: a post that was in flight has an unknown outcome, and only a new generation fences a
    /// worker that may have received it.
    pub fn recovered(&self) -> Vec<SubscriptionEvent> {
        match &self.wake {
            Some(wake) if wake.phase == WakePhase::Delivering => {
                vec![SubscriptionEvent::Ended { reason: EndReason::Superseded }]
            }
            _ => Vec::new(),
        }
    }

    /// The events that are due at `now`; the caller applies them and calls again until there are none.
    /// Without `may_post`, which says that the caller holds a permit to post, no event that leads to a post
    /// is due.
    pub fn poll(
        &self,
        now: Timestamp,
        may_post: bool,
        wake_id: impl FnOnce() -> WakeId,
        random: u32,
    ) -> Vec<SubscriptionEvent> {
        let ended = |reason| SubscriptionEvent::Ended { reason };
        match self.due(now) {
            DueAction::Nothing => Vec::new(),
            DueAction::Expire => {
                let mut events = Vec::new();
                let phase = self.wake.as_ref().map(|wake| &wake.phase);
                if phase == Some(&WakePhase::Delivering) {
                    // No response within the whole lease is a failure. Without a pause the server would
                    // post to a hanging receiver without end.
                    let retry = RetrySchedule::after(self.retry, now, random);
                    events.push(SubscriptionEvent::DeliveryFailed { refused: false, retry });
                }
                events.push(ended(EndReason::Expired));
                events
            }
            DueAction::Drop => vec![ended(EndReason::Done)],
            DueAction::Wake | DueAction::Redeliver if self.is_webhook() && !may_post => Vec::new(),
            DueAction::Redeliver => {
                vec![SubscriptionEvent::Redelivering { lease_until: self.lease(now) }]
            }
            DueAction::Wake => {
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

    /// Whether a post is due and only a permit is missing.
    pub fn wants_permit(&self, now: Timestamp) -> bool {
        self.is_webhook() && matches!(self.due(now), DueAction::Wake | DueAction::Redeliver)
    }

    /// What the server should be doing now.
    pub fn work(&self, now: Timestamp) -> Option<WakeAction> {
        let failures = self.retry.map_or(0, |retry| retry.failures);
        let attempt = DeliveryAttempt { generation: self.generation, failures };
        match &self.wake.as_ref()?.phase {
            WakePhase::Delivering => Some(WakeAction::Post(attempt)),
            WakePhase::Unannounced if self.retry_due(now) && !self.paused => {
                Some(WakeAction::Announce(attempt))
            }
            _ => None,
        }
    }

    /// When the next event becomes due by time alone.
    pub fn deadline(&self) -> Option<Timestamp> {
        let lease = self.wake.as_ref().and_then(|wake| wake.lease_until);
        let waiting = match &self.wake {
            None => self.is_webhook() && self.has_pending(),
            Some(wake) => matches!(wake.phase, WakePhase::Failed { .. } | WakePhase::Unannounced),
        };
        let retry = self.retry.filter(|_| waiting && !self.paused).map(|retry| retry.at);
        lease.into_iter().chain(retry).min()
    }

    fn due(&self, now: Timestamp) -> DueAction {
        let Some(wake) = &self.wake else {
            let held_back = self.is_webhook() && !self.retry_due(now);
            return if self.has_pending() && !held_back && !self.paused {
                DueAction::Wake
            } else {
                DueAction::Nothing
            };
        };
        if wake.lease_until.is_some_and(|until| until <= now) {
            return DueAction::Expire;
        }
        match wake.phase {
            // No work is left. A wake that stayed would be claimed in vain, and would delay the next.
            WakePhase::Failed { .. } | WakePhase::Unannounced | WakePhase::Announced
                if !self.has_pending() =>
            {
                DueAction::Drop
            }
            WakePhase::Failed { refused } if self.retry_due(now) && !self.paused => {
                if refused {
                    DueAction::Redeliver
                } else {
                    DueAction::Wake
                }
            }
            _ => DueAction::Nothing,
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

    /// The four conditions of §7.3; the token's signature was checked before. A lease that has ended
    /// fences even before its end is committed.
    fn check(&self, fence: Fence<'_>, now: Timestamp) -> Result<(), Refusal> {
        let current = self.wake.as_ref().is_some_and(|wake| {
            let held = match wake.phase {
                WakePhase::Delivering | WakePhase::Delivered | WakePhase::Failed { .. } => true,
                WakePhase::Claimed { .. } => true,
                WakePhase::Unannounced | WakePhase::Announced => false,
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

    /// Whether the stream of a cursor is still the one at its path.
    fn is_there(&self, record: &LinkRecord) -> bool {
        let head = self.link(&record.path).and_then(|link| link.head);
        head.map(|head| head.stream) == record.cursor.map(|(stream, _)| stream)
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
        // Without a stream only zero can be acked, and that moves no cursor.
        let cursor = link.head.map(|head| (head.stream, offset));
        Ok(LinkRecord { path, explicit: false, cursor })
    }
}
