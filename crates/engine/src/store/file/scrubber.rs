//! The scrubber: one thread that checks the index while it is in use, at a bounded rate.
//!
//! The first round begins soon after the opening, and the next one an interval after its end. Damage is logged, a line for
//! each thing, and counted for metrics.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::{core::StoreCore, index::scrub::ScrubRound, segments::check::SegmentCheck};
use crate::store::StoreError;

/// Slices in a second. A slice holds a read transaction, which keeps LMDB from using pages that are freed meanwhile.
const SLICES: u64 = 20;
/// The pause between the opening and the first round, unless the interval is shorter. The clients of a server that was
/// restarted all come back in its first seconds, and read what is not in the page cache.
///
/// Measured: a round that began at once took 34 of the 270 ms of one core in which 10,000 small streams were read.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// Problems of one round that are logged; further ones are only counted.
const LOGGED: u64 = 1000;

pub(super) struct Scrubber {
    core: Arc<StoreCore>,
    stop: Mutex<bool>,
    wake: Condvar,
    counters: ScrubCounters,
}

struct ScrubCounters {
    /// Since when there was no whole round: its end, or the opening.
    since: Mutex<Instant>,
    rounds: AtomicU64,
    /// Bytes that the present round has read.
    bytes: AtomicU64,
    damaged: AtomicU64,
}

/// What scrubs have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct ScrubStats {
    pub(super) rounds: u64,
    pub(super) age: Duration,
    pub(super) bytes: u64,
    pub(super) damaged: u64,
}

/// Bytes of a slice at a rate.
fn slice_of(rate: u64) -> u64 {
    (rate / SLICES).max(1)
}

/// The least time that reading so many bytes takes.
fn time_for(read: u64, rate: Option<u64>) -> Duration {
    rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(read as f64 / rate as f64))
}

impl Scrubber {
    pub(super) fn new(core: Arc<StoreCore>) -> Self {
        let counters = ScrubCounters {
            since: Mutex::new(Instant::now()),
            rounds: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
        };
        Scrubber { core, stop: Mutex::new(false), wake: Condvar::new(), counters }
    }

    /// The scrubber's thread.
    pub(super) fn run(&self) {
        let Some(interval) = self.core.options.scrub_interval else { return };
        let mut pause = interval.min(FIRST_PAUSE);
        while !self.wait(pause) && self.round(Some(self.core.options.scrub_rate.max(1))).is_some() {
            pause = interval;
        }
    }

    /// Checks the whole index, at `rate` bytes a second if there is one. Returns the number of damaged things; `None` when
    /// it was stopped.
    pub(super) fn round(&self, rate: Option<u64>) -> Option<u64> {
        let (mut round, mut logged) = (ScrubRound::default(), 0);
        let most = rate.map_or(u64::MAX, slice_of);
        let mut report = |error: StoreError| {
            logged += 1;
            if logged <= LOGGED {
                tracing::error!(%error, "the scrub of the index found damage");
            }
        };
        loop {
            let (began, before) = (Instant::now(), round.bytes());
            let slice = self.core.index.scrub_slice(&mut round, most, &mut report);
            self.counters.bytes.store(round.bytes(), Ordering::Relaxed);
            match slice {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::error!(%error, "the scrub cannot read the index; it begins again after its interval");
                    return Some(round.damaged());
                }
            }
            let read = round.bytes() - before;
            if self.wait(time_for(read, rate).saturating_sub(began.elapsed())) {
                return None;
            }
        }
        let damaged = round.damaged() + self.scrub_segments(rate, &mut report)?;
        *self.counters.since.lock() = Instant::now();
        self.counters.rounds.fetch_add(1, Ordering::Relaxed);
        self.counters.damaged.store(damaged, Ordering::Relaxed);
        if damaged == 0 {
            tracing::debug!(bytes = round.bytes(), "scrubbed the index");
        } else {
            tracing::error!(
                damaged,
                index = %self.core.index.path().display(),
                "the index is damaged; restore a backup, or see what `repair` would drop"
            );
        }
        Some(damaged)
    }

    /// Checks all segment files. Returns the number of damaged things; `None` when it was stopped.
    fn scrub_segments(&self, rate: Option<u64>, report: &mut dyn FnMut(StoreError)) -> Option<u64> {
        let (index, segments) = (&self.core.index, &self.core.segments);
        let (mut after, mut damaged) = (None, 0);
        // A record that cannot be read was reported with the others.
        while let Some((number, record)) =
            index.segments_after(after, 1).ok().and_then(|mut step| step.pop())
        {
            after = Some(number);
            let Some(record) = record.ok().filter(|record| record.place.is_local()) else {
                continue;
            };
            let path = segments.path(number);
            let mut wrong = |error: StoreError| {
                // It may have been removed since its record was read.
                let there = index.read().and_then(|reading| reading.segment(number));
                if !matches!(there, Ok(None)) {
                    damaged += 1;
                    report(error);
                }
            };
            let mut check = match SegmentCheck::begin(segments.disk(), &path, number, &record) {
                Ok(check) => check,
                Err(error) => {
                    wrong(error);
                    continue;
                }
            };
            loop {
                let began = Instant::now();
                let read = match check.slice(&path) {
                    Ok(0) => break,
                    Ok(read) => read,
                    Err(error @ StoreError::Corrupt { .. }) => {
                        wrong(error);
                        0
                    }
                    Err(error) => {
                        wrong(error);
                        break;
                    }
                };
                self.counters.bytes.fetch_add(read as u64, Ordering::Relaxed);
                let time = time_for(read as u64, rate);
                if self.wait(time.saturating_sub(began.elapsed())) {
                    return None;
                }
            }
        }
        Some(damaged)
    }

    /// Waits; returns whether the thread is to end.
    fn wait(&self, time: Duration) -> bool {
        let mut stop = self.stop.lock();
        let until = Instant::now() + time;
        while !*stop && !self.wake.wait_until(&mut stop, until).timed_out() {}
        *stop
    }

    /// Makes the thread end.
    pub(super) fn stop(&self) {
        *self.stop.lock() = true;
        self.wake.notify_all();
    }

    pub(super) fn stats(&self) -> ScrubStats {
        ScrubStats {
            rounds: self.counters.rounds.load(Ordering::Relaxed),
            age: self.counters.since.lock().elapsed(),
            bytes: self.counters.bytes.load(Ordering::Relaxed),
            damaged: self.counters.damaged.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::store::{
        FileStoreOptions,
        file::{FileStore, disk::RealDisk},
    };

    fn scrubber(scrub_interval: Option<Duration>) -> (tempfile::TempDir, Arc<Scrubber>) {
        let dir = tempfile::tempdir().unwrap();
        let options = FileStoreOptions {
            map_size: 8 << 20,
            scrub_interval,
            ..FileStoreOptions::new(dir.path())
        };
        let store = FileStore::open_on(Arc::new(RealDisk), options).unwrap();
        (dir, Arc::new(Scrubber::new(store.core.clone())))
    }

    #[test]
    fn a_rate_is_kept_in_twenty_slices_a_second() {
        assert_eq!((slice_of(8_000_001), slice_of(7)), (400_000, 1));
        assert_eq!(time_for(400_000, Some(8_000_000)), Duration::from_millis(50));
        assert_eq!(time_for(400_000, None), Duration::ZERO);
    }

    #[test]
    fn a_pause_lasts_until_its_end_or_the_stop() {
        let (_dir, scrubber) = scrubber(None);
        assert!(!scrubber.wait(Duration::ZERO));
        let waiting = thread::spawn({
            let scrubber = scrubber.clone();
            move || scrubber.wait(Duration::from_secs(3600))
        });
        thread::sleep(Duration::from_millis(10));
        assert!(!waiting.is_finished());
        scrubber.stop();
        assert!(waiting.join().unwrap());
        assert!(scrubber.wait(Duration::ZERO), "for good");
        assert_eq!(scrubber.round(Some(1)), None);
    }

    #[test]
    fn rounds_follow_each_other_until_the_stop_if_there_is_an_interval() {
        let (_dir, never) = scrubber(None);
        never.run();
        assert_eq!(never.stats().rounds, 0);
        let (_dir, scrubber) = scrubber(Some(Duration::from_millis(1)));
        let running = thread::spawn({
            let scrubber = scrubber.clone();
            move || scrubber.run()
        });
        while scrubber.stats().rounds < 2 {
            assert!(!running.is_finished());
            thread::yield_now();
        }
        scrubber.stop();
        running.join().unwrap();
    }
}
