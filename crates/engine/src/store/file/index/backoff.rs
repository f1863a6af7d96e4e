//! When an index that failed is opened again: at once, then after pauses that double.

use std::time::{Duration, Instant};

use crate::store::StoreError;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

#[derive(Default)]
pub(super) struct ReopenBackoff {
    /// Why the last try failed, and when.
    failure: Option<(StoreError, Instant)>,
    pause: Duration,
}

impl ReopenBackoff {
    /// The last failure, until its pause has passed.
    pub(super) fn refusal(&self) -> Option<StoreError> {
        let (error, at) = self.failure.as_ref()?;
        (at.elapsed() < self.pause).then(|| error.clone())
    }

    pub(super) fn failed(&mut self, error: StoreError) {
        self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.failure = Some((error, Instant::now()));
    }

    pub(super) fn succeeded(&mut self) {
        *self = ReopenBackoff::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let error = || StoreError::Closed;
        let mut backoff = ReopenBackoff::default();
        assert!(backoff.refusal().is_none());
        for millis in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            backoff.failed(error());
            assert_eq!(backoff.pause, Duration::from_millis(millis));
            assert!(matches!(backoff.refusal(), Some(StoreError::Closed)));
            let Some((_, at)) = &mut backoff.failure else { panic!("it has failed") };
            *at -= backoff.pause;
            assert!(backoff.refusal().is_none(), "the pause has passed");
        }
        backoff.succeeded();
        assert_eq!((backoff.pause, backoff.refusal().is_none()), (Duration::ZERO, true));
    }
}
