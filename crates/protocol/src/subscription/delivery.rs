//! The outcome of a delivery, and when to try again (§7.1).

use serde::{Deserialize, Serialize};

use super::LinkRecord;
use crate::Timestamp;

/// The first and the longest pause between attempts, milliseconds, before jitter.
const FIRST_MILLIS: u64 = 1_000;
const LONGEST_MILLIS: u64 = 60_000;

/// The longest pause with jitter, milliseconds.
pub(super) const LONGEST_PAUSE_MILLIS: u64 = LONGEST_MILLIS * 6 / 5;

/// Identifies one delivery attempt of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryAttempt {
    pub generation: u64,
    /// Failures before it.
    pub failures: u32,
}

/// The outcome of a webhook attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// `{"done": true}`, which acknowledges these tails of the wake.
    Done(Vec<LinkRecord>),
    /// Another 2xx: the worker holds the wake and will call back.
    Accepted,
    /// No worker holds the wake: no connection, or another status.
    Refused,
    /// Sent, but no complete response came: a worker may have begun.
    Unknown,
}

/// Failed attempts and when the next is due. Durable, so a restart keeps to the schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetrySchedule {
    /// Failures in a row.
    pub failures: u32,
    /// When the next attempt is due.
    pub at: Timestamp,
}

/// The pause after `failures` failures in a row: 1 s, doubled up to 60 s, ±20 % chosen by `random`.
pub fn backoff_millis(failures: u32, random: u32) -> u64 {
    let doublings = failures.saturating_sub(1).min(16);
    let base = (FIRST_MILLIS << doublings).min(LONGEST_MILLIS);
    base * 4 / 5 + base * 2 / 5 * u64::from(random) / u64::from(u32::MAX)
}

impl RetrySchedule {
    /// The retry after one more failure.
    pub(super) fn after(
        previous: Option<RetrySchedule>,
        now: Timestamp,
        random: u32,
    ) -> RetrySchedule {
        let failures = previous.map_or(0, |retry| retry.failures).saturating_add(1);
        let at = now.millis().saturating_add(backoff_millis(failures, random));
        RetrySchedule { failures, at: Timestamp::from_millis(at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_from_one_second_to_a_minute() {
        for (failures, base) in [(1, 1_000), (2, 2_000), (3, 4_000), (6, 32_000), (7, 60_000)] {
            assert_eq!(backoff_millis(failures, 0), base * 8 / 10);
            assert_eq!(backoff_millis(failures, u32::MAX), base * 12 / 10);
            let middle = backoff_millis(failures, u32::MAX / 2);
            assert!(middle.abs_diff(base) <= 1, "{failures}: {middle}");
        }
        assert_eq!(backoff_millis(u32::MAX, 0), 48_000);
    }
}
