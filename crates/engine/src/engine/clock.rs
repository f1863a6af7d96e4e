//! The only place that reads the time: the wall clock, which may be set, and the steady clock, which may not.
//!
//! | what | which clock |
//! |---|---|
//! | waits of live reads, keep-alives, leases, retries, eviction | steady |
//! | `Stream-Expires-At`, times in events, lifetimes of tokens and keys | wall |
//! | `Stream-TTL` | wall, corrected for steps ([`clock_steps`](super::clock_steps)) |

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use durable_streams_protocol::Timestamp;

/// Where time comes from.
#[derive(Clone, Debug, Default)]
pub enum Clock {
    /// The system's clocks.
    #[default]
    System,
    /// A clock that a test moves by hand.
    Manual(ManualClock),
}

/// A clock that stands still until it is moved. Clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<ManualTime>);

#[derive(Debug, Default)]
struct ManualTime {
    steady: AtomicU64,
    /// Of the wall clock to the steady one, milliseconds.
    offset: AtomicI64,
}

impl Clock {
    /// The wall clock. It goes back when it is set back, and leaps when it is set forward.
    pub fn now(&self) -> Timestamp {
        match self {
            Clock::System => wall(),
            Clock::Manual(ManualClock(time)) => {
                let offset = time.offset.load(Ordering::SeqCst);
                let steady = time.steady.load(Ordering::SeqCst);
                Timestamp::from_millis(steady.saturating_add_signed(offset))
            }
        }
    }

    /// The steady clock: the wall clock when the process began, and the time that has elapsed since. Differences of two
    /// readings are elapsed time, whatever happens to the wall clock; readings mean nothing to another process.
    pub fn steady_now(&self) -> Timestamp {
        static BEGIN: LazyLock<(Instant, u64)> =
            LazyLock::new(|| (Instant::now(), wall().millis()));
        match self {
            Clock::System => {
                let (begin, wall) = *BEGIN;
                Timestamp::from_millis(wall.saturating_add(begin.elapsed().as_millis() as u64))
            }
            Clock::Manual(ManualClock(time)) => {
                Timestamp::from_millis(time.steady.load(Ordering::SeqCst))
            }
        }
    }
}

fn wall() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(since.as_millis() as u64)
}

impl ManualClock {
    /// A clock whose wall and steady clock show `now`.
    pub fn at(now: Timestamp) -> Self {
        let (steady, offset) = (AtomicU64::new(now.millis()), AtomicI64::new(0));
        ManualClock(Arc::new(ManualTime { steady, offset }))
    }

    /// Lets time pass, on both clocks.
    pub fn advance_millis(&self, millis: u64) {
        self.0.steady.fetch_add(millis, Ordering::SeqCst);
    }

    /// Sets the wall clock forward or back, as an operator or NTP does; no time passes.
    pub fn step_wall_millis(&self, millis: i64) {
        self.0.offset.fetch_add(millis, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_moves_the_wall_clock_only() {
        let manual = ManualClock::at(Timestamp::from_millis(1_000));
        let clock = Clock::Manual(manual.clone());
        manual.advance_millis(10);
        manual.step_wall_millis(-500);
        assert_eq!((clock.now().millis(), clock.steady_now().millis()), (510, 1_010));
        manual.step_wall_millis(700);
        assert_eq!((clock.now().millis(), clock.steady_now().millis()), (1_210, 1_010));
    }

    #[test]
    fn the_system_s_clocks_begin_together_and_go_on() {
        let (wall, steady) = (Clock::System.now(), Clock::System.steady_now());
        assert!(wall.millis().abs_diff(steady.millis()) < 1_000);
        let of_2020 = 1_577_836_800_000;
        assert!(wall.millis() > of_2020, "{wall:?}");
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert!(Clock::System.steady_now().millis() >= steady.millis() + 5);
    }
}
