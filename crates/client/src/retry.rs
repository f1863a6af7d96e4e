//! When to try again: exponential backoff with jitter, never sooner than `Retry-After`.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::ClientError;

/// How failures that a retry can help are repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// About how long the first pause is. Each next one is twice as long.
    pub first_pause: Duration,
    /// About how long a pause grows; `Retry-After` may ask for a longer one.
    pub longest_pause: Duration,
    /// How long failures may follow each other before the last one is returned; `None` is for ever.
    pub give_up_after: Option<Duration>,
    /// After how many damaged bodies in a row ([`ClientError::DamagedBody`]) the last one is returned: by then it is no
    /// accident of the network.
    pub damaged_bodies: u32,
}

impl RetryPolicy {
    /// Returns the first failure.
    pub fn never() -> Self {
        RetryPolicy { give_up_after: Some(Duration::ZERO), ..RetryPolicy::default() }
    }

    /// Goes on until it succeeds or fails with what no retry can help.
    pub fn forever() -> Self {
        RetryPolicy { give_up_after: None, ..RetryPolicy::default() }
    }
}

impl Default for RetryPolicy {
    /// Pauses from 100 ms to 5 s, for 30 s; five damaged bodies.
    fn default() -> Self {
        RetryPolicy {
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
            give_up_after: Some(Duration::from_secs(30)),
            damaged_bodies: 5,
        }
    }
}

/// Failures in a row.
#[derive(Debug, Default)]
pub(crate) struct FailureCount {
    since: Option<Instant>,
    count: u32,
    damaged: u32,
}

impl FailureCount {
    /// Forgets the failures after a success.
    pub(crate) fn clear(&mut self) {
        *self = FailureCount::default();
    }

    /// Counts `error`, and returns when to try again; `None` when it is final.
    pub(crate) fn next_try(
        &mut self,
        policy: &RetryPolicy,
        error: &ClientError,
    ) -> Option<Instant> {
        if !error.is_retryable() {
            return None;
        }
        let damaged = matches!(error, ClientError::DamagedBody { .. });
        self.damaged = if damaged { self.damaged + 1 } else { 0 };
        if damaged && self.damaged >= policy.damaged_bodies {
            return None;
        }
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let doublings = self.count.min(16);
        self.count += 1;
        let pause = policy.first_pause.saturating_mul(1 << doublings).min(policy.longest_pause);
        // Between a half and the whole: clients that failed together do not come back together.
        let pause = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
        let asked = error.retry_after().unwrap_or_default();
        // A server may ask many clients for the same pause.
        let asked = asked.mul_f64(1.0 + fastrand::f64() / 10.0);
        let at = now + pause.max(asked);
        match policy.give_up_after {
            Some(patience) if at.duration_since(since) > patience => None,
            _ => Some(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::RefusedRequest;

    fn busy(retry_after: Option<Duration>) -> ClientError {
        ClientError::Refused(Box::new(RefusedRequest {
            url: String::new(),
            status: http::StatusCode::SERVICE_UNAVAILABLE,
            code: String::new(),
            detail: String::new(),
            retry_after,
            closed: false,
            next_offset: None,
            producer_epoch: None,
            expected_seq: None,
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_a_bound_and_honour_retry_after() {
        let policy = RetryPolicy::forever();
        let mut failures = FailureCount::default();
        for expected in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let at = failures.next_try(&policy, &busy(None)).unwrap();
            let pause = at.duration_since(Instant::now()).as_millis();
            assert!((expected / 2..=expected).contains(&pause), "{pause} of {expected}");
        }
        let at = failures.next_try(&policy, &busy(Some(Duration::from_secs(60)))).unwrap();
        let pause = at.duration_since(Instant::now()).as_secs();
        assert!((60..67).contains(&pause), "{pause}");
        failures.clear();
        let at = failures.next_try(&policy, &busy(None)).unwrap();
        assert!(at.duration_since(Instant::now()).as_millis() <= 100, "it starts again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stays_damaged_is_an_error() {
        let damaged = ClientError::DamagedBody { url: String::new(), reason: String::new() };
        let mut failures = FailureCount::default();
        for error in [&damaged, &damaged, &damaged, &damaged, &busy(None), &damaged] {
            assert!(failures.next_try(&RetryPolicy::forever(), error).is_some());
        }
        let last = (0..4).map(|_| failures.next_try(&RetryPolicy::forever(), &damaged).is_some());
        assert_eq!(last.collect::<Vec<_>>(), [true, true, true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends() {
        let mut failures = FailureCount::default();
        assert_eq!(failures.next_try(&RetryPolicy::never(), &busy(None)), None);
        let policy = RetryPolicy::default();
        let mut failures = FailureCount::default();
        let mut tries = 0;
        while let Some(at) = failures.next_try(&policy, &busy(None)) {
            tokio::time::sleep_until(at).await;
            tries += 1;
        }
        assert!((8..25).contains(&tries), "{tries} tries in 30 s");
        let long = Some(Duration::from_secs(31));
        assert_eq!(
            FailureCount::default().next_try(&policy, &busy(long)),
            None,
            "asked for too long"
        );
    }
}
