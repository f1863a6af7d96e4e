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
