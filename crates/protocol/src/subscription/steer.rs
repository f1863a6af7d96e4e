//! What an operator does with a subscription: pause it, resume it, not wait for a retry. As in `decide`, nothing here changes
//! state: each method returns the events to commit.

use super::{RetrySchedule, Subscription, SubscriptionEvent, WakePhase};
use crate::Timestamp;

impl Subscription {
    /// Stops deliveries, or lets them go on: no new wake is issued, posted or announced until then. A wake that a worker
    /// holds stays its own.
    pub fn pause(&self, pause: bool) -> Vec<SubscriptionEvent> {
        match (self.paused, pause) {
            (false, true) => vec![SubscriptionEvent::Paused],
            (true, false) => vec![SubscriptionEvent::Resumed],
            _ => Vec::new(),
        }
    }

    /// Makes the scheduled retry due now; the number of failures stays.
    pub fn retry_now(&self, now: Timestamp) -> Vec<SubscriptionEvent> {
        let Some(retry) = self.retry else { return Vec::new() };
        let retry = RetrySchedule { at: now, ..retry };
        match self.wake.as_ref().map(|wake| &wake.phase) {
            None => vec![SubscriptionEvent::DeliveryFailed { refused: false, retry }],
            Some(WakePhase::Failed { refused }) => {
                vec![SubscriptionEvent::DeliveryFailed { refused: *refused, retry }]
            }
            Some(WakePhase::Unannounced) => vec![SubscriptionEvent::AnnounceFailed { retry }],
            Some(
                WakePhase::Delivering
                | WakePhase::Delivered
                | WakePhase::Announced
                | WakePhase::Claimed { .. },
            ) => Vec::new(),
        }
    }
}
