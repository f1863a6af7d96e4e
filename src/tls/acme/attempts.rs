//! When an order may be tried again: the wait doubles with each failure in a row, and is kept on disk.

use std::time::Duration;

use durable_streams_protocol::Timestamp;
use serde::{Deserialize, Serialize};

/// After the first failure. Five attempts fall into the first hour then, the number of failed validations
/// that Let's Encrypt allows for a name in an hour.
const FIRST_WAIT: Duration = Duration::from_secs(120);
/// At most.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);

/// The attempts for one name since its last certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Attempts {
    /// Failed ones, in a row. One that was begun counts as failed until it succeeds.
    pub(super) failures: u32,
    /// Not before this.
    pub(super) next: Option<Timestamp>,
}

impl Attempts {
    /// The record of an attempt that begins now: should the process end during it, the next one waits as
    /// long as after a failure.
    pub(super) fn begin(&self, now: Timestamp) -> Self {
        let failures = self.failures.saturating_add(1);
        Attempts { failures, next: Some(later(now, wait(failures))) }
    }

    /// The same after it failed; the authority may have named a longer wait.
    pub(super) fn postponed(self, now: Timestamp, at_least: Option<Duration>) -> Self {
        let wait = wait(self.failures).max(at_least.unwrap_or_default());
        Attempts { next: Some(later(now, wait)), ..self }
    }
}

fn wait(failures: u32) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(LONGEST_WAIT)
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_millis(now.millis().saturating_add(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_day() {
        let waits: Vec<u64> = (1..=12).map(|n| wait(n).as_secs() / 60).collect();
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1440, 1440]);
        assert_eq!(wait(u32::MAX), LONGEST_WAIT);
    }

    #[test]
    fn no_more_than_five_attempts_fall_into_the_first_hour() {
        let (mut now, mut attempts, mut made) = (Timestamp::from_millis(0), Attempts::default(), 0);
        while now.millis() < 3_600_000 {
            made += 1;
            attempts = attempts.begin(now).postponed(now, None);
            now = attempts.next.unwrap();
        }
        assert_eq!(made, 5);
    }

    #[test]
    fn a_crash_during_an_attempt_counts_as_a_failure() {
        let now = Timestamp::from_millis(1_000);
        let begun = Attempts::default().begin(now);
        assert_eq!(begun.failures, 1);
        assert_eq!(begun.next, Some(Timestamp::from_millis(121_000)));
        assert_eq!(begun.begin(now).next, Some(Timestamp::from_millis(241_000)));
    }

    #[test]
    fn the_authority_may_ask_for_a_longer_wait() {
        let now = Timestamp::from_millis(0);
        let begun = Attempts::default().begin(now);
        let hour = Some(Duration::from_secs(3600));
        assert_eq!(
            begun.clone().postponed(now, hour).next,
            Some(Timestamp::from_millis(3_600_000))
        );
        assert_eq!(
            begun.postponed(now, Some(Duration::ZERO)).next,
            Some(Timestamp::from_millis(120_000))
        );
    }
}
