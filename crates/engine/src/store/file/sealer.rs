//! The sealer: one thread that moves bytes from the index into segment files, and keeps those files worth their room.
//!
//! Invariants
//! - A file is written, synced, checked and renamed before the commit that references it, and removed only after a commit
//!   that does not. So a crash at any moment leaves the bytes in the chunks, or in the file, and at most an orphan, which
//!   the next start removes.
//! - What a file gets was read in transactions of their own; the hand-over's transaction checks that it is still so.
//! - After a failed hand-over, which may have been committed, the directory is swept by what the index says.
//!
//! | module | what it is |
//! |---|---|
//! | here | the thread; the walk over the streams |
//! | `plan` | what of a stream is to be sealed |
//! | `write` | one file, and the hand-over of the bytes to it |
//! | `ahead` | what a checkpoint seals, so that it never enters the index |
//! | `rewrite`, `recall` | files that are not worth their room; bringing them back from the object store |

pub(super) mod ahead;
mod plan;
mod recall;
mod rewrite;
mod write;

use std::{
    cell::RefCell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use durable_streams_protocol::Timestamp;
use parking_lot::{Condvar, Mutex, MutexGuard};

use self::plan::SealPlan;
use super::{core::StoreCore, index::extents::SegmentPlace, options::SegmentOptions, stats::add};
use crate::store::StoreError;

/// Streams that one step of the walk looks at, in one read transaction.
const STREAMS_PER_STEP: usize = 256;
/// The pause after a step.
const STEP_PAUSE: Duration = Duration::from_millis(50);
/// The pause after a failure: a disk that is full now is full a moment later.
const FAILURE_PAUSE: Duration = Duration::from_secs(60);
/// Nothing is sealed while the disk has less room than for so many segments.
const ROOM: u64 = 4;
/// Bytes a second that are sealed at most, so that the log keeps its share of the disk.
const RATE: u64 = 64 << 20;
/// Streams that share a file at most, which bounds its footer and the commit that references it.
const STREAMS_PER_FILE: usize = 4096;

pub(super) struct Sealer {
    core: Arc<StoreCore>,
    /// Held by a walk, which hands it to those that wait for it after each file.
    one_at_a_time: Mutex<()>,
    stop: Mutex<bool>,
    wake: Condvar,
    counters: SealCounters,
}

#[derive(Default)]
struct SealCounters {
    files: AtomicU64,
    bytes: AtomicU64,
    failures: AtomicU64,
}

/// What was sealed since the opening.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SealStats {
    pub(super) files: u64,
    /// Bytes written to segment files.
    pub(super) bytes: u64,
    pub(super) failures: u64,
}

/// A walk over the streams, in the order of their ids.
#[derive(Default)]
struct SealWalk {
    next: u64,
    /// Streams that are to share a file, and their bytes together.
    shared: Vec<SealPlan>,
    shared_bytes: u64,
}

/// Why a walk ended early.
enum SealStop {
    /// The thread is to end.
    Stopped,
    Failed(StoreError),
}

impl From<StoreError> for SealStop {
    fn from(error: StoreError) -> Self {
        SealStop::Failed(error)
    }
}

/// The pause after a walk that has sealed so many bytes: twice the one before while nothing is due, up to thirty intervals. In
/// a limited index appends may wait for the room that sealing makes, so there each pause is one interval.
fn pause_after(sealed: u64, before: Duration, interval: Duration, limited: bool) -> Duration {
    if sealed > 0 || limited {
        return interval;
    }
    (before * 2).clamp(interval, interval.saturating_mul(SegmentOptions::LONGEST_PAUSE))
}

impl Sealer {
    pub(super) fn new(core: Arc<StoreCore>) -> Self {
        Sealer {
            core,
            one_at_a_time: Mutex::default(),
            stop: Mutex::new(false),
            wake: Condvar::new(),
            counters: SealCounters::default(),
        }
    }

    /// `None` when nothing is sealed.
    pub(super) fn options(&self) -> Option<SegmentOptions> {
        let limited = self.core.limit.is_some();
        self.core.options.segments.filter(|options| !limited || options.max_local.is_some())
    }

    /// The sealer's thread.
    pub(super) fn run(&self) {
        let mut calm = Duration::ZERO;
        while let Some(options) = self.options() {
            let pause = match self.walk(&options, true) {
                Ok(sealed) => {
                    calm = pause_after(sealed, calm, options.interval, self.core.limit.is_some());
                    calm
                }
                Err(SealStop::Stopped) => return,
                Err(SealStop::Failed(error)) => {
                    tracing::warn!(%error, "cannot seal bytes of streams; they stay in the index, and it will be tried again");
                    FAILURE_PAUSE
                }
            };
            if self.wait(pause) {
                return;
            }
        }
    }

    /// Seals everything that is due now; returns how many bytes. For a store without threads, and for tests.
    pub(super) fn seal_due(&self) -> Result<u64, StoreError> {
        let Some(options) = self.options() else { return Ok(0) };
        match self.walk(&options, false) {
            Ok(sealed) => Ok(sealed),
            Err(SealStop::Stopped) => Ok(0),
            Err(SealStop::Failed(error)) => Err(error),
        }
    }

    /// Walks over all streams; seals what is due, and rewrites what is not worth its room. Returns the bytes sealed.
    fn walk(&self, options: &SegmentOptions, paced: bool) -> Result<u64, SealStop> {
        let mut one = self.one_at_a_time.lock();
        let walked = self.walk_streams(options, paced, &mut one).and_then(|sealed| {
            self.rewrite_sparse(paced, &mut one)?;
            Ok(sealed)
        });
        if let Err(SealStop::Failed(_)) = &walked {
            add(&self.counters.failures, 1);
            // The failed commit may have been made.
            let _ = self.sweep();
        }
        walked
    }

    fn walk_streams(
        &self,
        options: &SegmentOptions,
        paced: bool,
        one: &mut MutexGuard<'_, ()>,
    ) -> Result<u64, SealStop> {
        let (mut walk, mut sealed) = (SealWalk::default(), 0);
        let now = (self.core.options.clock.0)();
        loop {
            let step =
                self.core.index.read()?.seal_plans(walk.next, STREAMS_PER_STEP, options, now)?;
            for plan in step.plans {
                if !self.has_use(options)? {
                    return Ok(sealed);
                }
                MutexGuard::bump(one);
                sealed += self.seal_plan(options, &mut walk, plan, (paced, one))?;
            }
            let Some(next) = step.next else { break };
            walk.next = next;
            if paced && self.wait(STEP_PAUSE) {
                return Err(SealStop::Stopped);
            }
        }
        if walk.shared_bytes >= options.share.max(1) {
            sealed += self.seal(&std::mem::take(&mut walk.shared), paced)?;
        }
        Ok(sealed)
    }

    /// Whether sealing now is worth its room. The index does not shrink: what leaves it is room for later records, of which
    /// it needs only so much, and until then the bytes take their room twice.
    fn has_use(&self, options: &SegmentOptions) -> Result<bool, StoreError> {
        let (used, grown) = self.core.index.extent()?;
        let free = grown.saturating_sub(used);
        Ok(self.has_room(options) && free <= options.most_free.max(grown / 4))
    }

    /// Whether the disk has room for some segments.
    fn has_room(&self, options: &SegmentOptions) -> bool {
        let room = self.core.disk.room(self.core.segments.dir());
        room.is_none_or(|room| room >= options.size.saturating_mul(ROOM))
    }

    /// The time to note in the record of a segment; `None` by a clock that stands still at zero, which is none.
    fn now(&self) -> Option<Timestamp> {
        Some((self.core.options.clock.0)()).filter(|at| at.millis() > 0)
    }

    /// Whether the local segments of a limited store are within their own limit; one more may exceed it.
    /// Looks at the records of all segments.
    fn may_take_more(&self) -> Result<bool, StoreError> {
        let most = self.core.options.segments.and_then(|options| options.max_local);
        let (Some(_), Some(most)) = (self.core.limit, most) else { return Ok(true) };
        let totals = self.core.index.segment_totals()?;
        let local = SegmentPlace::ALL.iter().zip(totals).filter(|(place, _)| place.is_local());
        Ok(local.map(|(_, of_place)| of_place.bytes).sum::<u64>() <= most)
    }

    /// Seals a stream that gets files of its own; others are collected until they fill one.
    fn seal_plan(
        &self,
        options: &SegmentOptions,
        walk: &mut SealWalk,
        plan: SealPlan,
        (paced, one): (bool, &mut MutexGuard<'_, ()>),
    ) -> Result<u64, SealStop> {
        let mut sealed = 0;
        if plan.shares {
            walk.shared_bytes += plan.end - plan.start;
            walk.shared.push(plan);
            if walk.shared_bytes >= options.size || walk.shared.len() >= STREAMS_PER_FILE {
                walk.shared_bytes = 0;
                sealed += self.seal(&std::mem::take(&mut walk.shared), paced)?;
            }
            return Ok(sealed);
        }
        let (id, mut next) = (plan.id, Some(plan));
        // A stream that is far behind gets one file after the other.
        while let Some(plan) = next.take() {
            MutexGuard::bump(one);
            let bytes = self.seal(&[plan], paced)?;
            sealed += bytes;
            if bytes > 0 && self.has_use(options)? {
                let now = (self.core.options.clock.0)();
                let again = self.core.index.read()?.seal_plan(id, options, now)?;
                next = again.filter(|plan| !plan.shares);
            }
        }
        Ok(sealed)
    }

    /// Removes what the index does not reference.
    pub(super) fn sweep(&self) -> Result<(), StoreError> {
        let core = &*self.core;
        // A crash came between the commit that has them in the object store only and the removal of their files.
        let doubled = RefCell::new(Vec::new());
        core.segments.sweep(&|number, footer| {
            let reading = core.index.read()?;
            let known = match reading.segment(number) {
                Err(StoreError::Corrupt { .. }) => true,
                record => {
                    let record = record?;
                    if record.is_some_and(|record| !record.place.is_local()) {
                        doubled.borrow_mut().push(number);
                    }
                    record.is_some()
                }
            };
            Ok(known || footer.is_some_and(|footer| reading.is_in_use(number, &footer.extents)))
        })?;
        core.segments.remove_local(&doubled.into_inner());
        Ok(())
    }

    /// Waits as long as the rate calls for.
    fn pace(&self, paced: bool, bytes: usize) -> Result<(), SealStop> {
        let due = Duration::from_secs_f64(bytes as f64 / RATE as f64);
        let stopped = paced && self.wait(due);
        if stopped { Err(SealStop::Stopped) } else { Ok(()) }
    }

    /// Waits; returns whether the thread is to end.
    fn wait(&self, time: Duration) -> bool {
        let mut stop = self.stop.lock();
        self.wake.wait_while_for(&mut stop, |stop| !*stop, time);
        *stop
    }

    /// Nothing is sealed and no segment rewritten until the guard is dropped.
    pub(super) fn pause(&self) -> MutexGuard<'_, ()> {
        self.one_at_a_time.lock()
    }

    /// Makes the thread end.
    pub(super) fn stop(&self) {
        *self.stop.lock() = true;
        self.wake.notify_all();
    }

    pub(super) fn stats(&self) -> SealStats {
        SealStats {
            files: self.counters.files.load(Ordering::Relaxed),
            bytes: self.counters.bytes.load(Ordering::Relaxed),
            failures: self.counters.failures.load(Ordering::Relaxed),
        }
    }
}

#[cfg(test)]
mod tests;
