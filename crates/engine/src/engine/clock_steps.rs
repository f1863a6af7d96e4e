//! Steps of the wall clock, and what becomes of a TTL that was counted across one.
//!
//! The store keeps when a stream was last used by the wall clock, and its deadline. The rule:
//! - A step does not count as time. A stream with `Stream-TTL` keeps the time that it had left before a step forward;
//!   its deadline is corrected before it is judged, and the sweeper commits the corrected one.
//! - No last use lies in the future, so no deadline is later than the present and the TTL: after a step back, and after
//!   every start, the sweeper looks for such streams in the store and commits the present as their last use; for a stream
//!   in memory its eviction does so. A request that comes earlier finds its stream corrected.
//! - `Stream-Expires-At` goes by the clock, whatever that shows.
//! - While the server is stopped, time is what the wall clock says.
//!
//! A step is noticed when the wall clock and the steady one disagree by a second more or less than before.

use durable_streams_protocol::{Expiry, Timestamp};
use parking_lot::Mutex;

use super::{Clock, Engine, cell::CellState};
use crate::store::{DeadlineCursor, Store};

/// A smaller difference is not corrected, milliseconds.
const MIN_STEP_MILLIS: u64 = 1_000;
/// Streams with a deadline that [`Engine::sweep_future_uses`] examines at a time.
const BATCH: usize = 256;
/// Two readings further apart were interrupted in between, milliseconds.
const READING_MILLIS: u64 = 100;

/// The steps of the wall clock since the engine was made.
pub(super) struct ClockSteps {
    state: Mutex<StepState>,
}

struct StepState {
    /// Of the wall clock to the steady one when last compared, milliseconds.
    offset: i64,
    forward: Vec<ForwardStep>,
    /// Where the search for last uses in the future goes on; `None` when it is complete.
    search: Option<DeadlineCursor>,
}

/// The wall clock went from `before` to `before` plus `by`, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ForwardStep {
    before: u64,
    by: u64,
}

impl ClockSteps {
    pub(super) fn new(clock: &Clock) -> Self {
        let (wall, steady) = readings(clock);
        let state = StepState {
            offset: wall as i64 - steady as i64,
            forward: Vec::new(),
            // The clock may have gone back while the server was stopped.
            search: Some(DeadlineCursor::default()),
        };
        ClockSteps { state: Mutex::new(state) }
    }

    /// Compares the clocks. Returns the step since the last call, milliseconds; 0 for none.
    pub(super) fn check(&self, clock: &Clock) -> i64 {
        let mut state = self.state.lock();
        let (wall, steady) = readings(clock);
        let step = wall as i64 - steady as i64 - state.offset;
        if step.unsigned_abs() < MIN_STEP_MILLIS {
            return 0;
        }
        state.offset += step;
        if step > 0 {
            let by = step.unsigned_abs();
            state.forward.push(ForwardStep { before: wall.saturating_sub(by), by });
        } else {
            state.take_back(step.unsigned_abs());
            state.search = Some(DeadlineCursor::default());
        }
        drop(state);
        report(step);
        step
    }

    fn search(&self) -> Option<DeadlineCursor> {
        self.state.lock().search
    }

    /// Moves the search on, unless a step back has begun another one.
    fn search_on(&self, from: DeadlineCursor, next: Option<DeadlineCursor>) {
        let mut state = self.state.lock();
        if state.search == Some(from) {
            state.search = next;
        }
    }

    /// A last use as it would be had the clock shown today's time then.
    fn corrected(&self, used: Timestamp) -> Timestamp {
        let state = self.state.lock();
        let correct = |used: u64, step: &ForwardStep| {
            if used <= step.before { used.saturating_add(step.by) } else { used }
        };
        Timestamp::from_millis(state.forward.iter().fold(used.millis(), correct))
    }
}

impl StepState {
    /// A step back undoes the steps forward before it, newest first.
    fn take_back(&mut self, mut millis: u64) {
        while millis > 0
            && let Some(last) = self.forward.last_mut()
        {
            let undone = last.by.min(millis);
            (last.by, millis) = (last.by - undone, millis - undone);
            if last.by == 0 {
                self.forward.pop();
            }
        }
    }
}

/// Wall and steady clock at one moment, milliseconds.
fn readings(clock: &Clock) -> (u64, u64) {
    let mut steady = clock.steady_now().millis();
    loop {
        let wall = clock.now().millis();
        let after = clock.steady_now().millis();
        if after.saturating_sub(steady) <= READING_MILLIS {
            return (wall, after);
        }
        steady = after;
    }
}

fn report(step: i64) {
    let seconds = step.unsigned_abs() / 1000;
    if step > 0 {
        tracing::warn!(
            seconds,
            "the system clock went forward: streams with Stream-TTL keep the time they had left, Stream-Expires-At \
             goes by the clock"
        );
    } else {
        tracing::warn!(
            seconds,
            "the system clock went back: waits go on, a Stream-TTL runs for its own length at most from now on, \
             Stream-Expires-At goes by the clock"
        );
    }
}

impl Engine {
    /// Examines the next streams with a deadline for a last use in the future, and commits the present as their last use.
    /// Returns whether there may be more: a search begins with the engine and with each step of the clock back.
    pub async fn sweep_future_uses(&self) -> bool {
        self.clock_steps.check(&self.clock);
        let Some(from) = self.clock_steps.search() else { return false };
        if self.store.writable().is_err() {
            return true;
        }
        let now = self.clock.now();
        let time = Timestamp::from_millis(now.millis().saturating_add(MIN_STEP_MILLIS));
        // A last use in the future makes a deadline in the future, but until the next checkpoint the index has the stream's former
        // deadline, which may be past. So the search begins at the first deadline.
        match self.store.used_after(time, from, BATCH).await {
            Ok(found) => {
                self.sweep_each(&found.paths).await;
                self.clock_steps.search_on(from, found.next);
            }
            Err(error) => tracing::error!(%error, "cannot look for last uses in the future"),
        }
        self.clock_steps.search().is_some()
    }
}

impl CellState {
    /// Whether the stream was last used in the future.
    pub(super) fn is_used_in_future(&self, now: Timestamp) -> bool {
        let time = Timestamp::from_millis(now.millis().saturating_add(MIN_STEP_MILLIS));
        self.assigned.as_ref().is_some_and(|stream| stream.is_used_after(time))
    }

    /// Corrects the last use of a stream with a TTL for steps of the clock, before anything is judged at `now`.
    /// Costs two comparisons while the stream has not expired.
    pub(super) fn follow_clock(&mut self, engine: &Engine, now: Timestamp) {
        let future = self.is_used_in_future(now);
        let Some(stream) = &mut self.assigned else { return };
        if !matches!(stream.core.expiry, Expiry::Ttl(_)) {
            return;
        }
        if future {
            stream.touched = now;
        } else if stream.is_expired(now) {
            engine.clock_steps.check(&engine.clock);
            stream.touched =
                engine.clock_steps.corrected(stream.touched).min(now).max(stream.touched);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ManualClock;

    #[test]
    fn uses_before_a_step_forward_move_with_it_and_a_step_back_undoes_it() {
        let manual = ManualClock::at(Timestamp::from_millis(1_000_000));
        let clock = Clock::Manual(manual.clone());
        let steps = ClockSteps::new(&clock);
        let corrected = |at: u64| steps.corrected(Timestamp::from_millis(at)).millis();
        manual.step_wall_millis(999);
        assert_eq!(steps.check(&clock), 0, "too small");
        manual.step_wall_millis(9_001);
        assert_eq!(steps.check(&clock), 10_000);
        assert_eq!(steps.check(&clock), 0, "noticed once");
        assert_eq!((corrected(1_000_000), corrected(1_000_001)), (1_010_000, 1_000_001));
        manual.advance_millis(50_000);
        manual.step_wall_millis(5_000);
        assert_eq!(steps.check(&clock), 5_000);
        assert_eq!((corrected(900_000), corrected(1_060_000)), (915_000, 1_065_000));
        assert_eq!(corrected(1_060_001), 1_060_001, "after both");
        for step in [1_000, -1_000] {
            manual.step_wall_millis(step);
            assert_eq!(steps.check(&clock), step, "just enough");
        }
        manual.step_wall_millis(-7_000);
        assert_eq!(steps.check(&clock), -7_000);
        assert_eq!(corrected(900_000), 908_000);
        manual.step_wall_millis(-100_000);
        assert_eq!(steps.check(&clock), -100_000);
        assert_eq!(corrected(900_000), 900_000);
    }
}
