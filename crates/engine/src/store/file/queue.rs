//! The queue before the log, and what becomes of it when a write fails.
//!
//! Invariant: whether a commit is accepted, and its place, are decided under one lock. So when events are
//! lost, the epoch moves on before anything that was decided on them can be queued.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::store::{Commit, LogEpoch, StoreError};

/// How often the processor is given up in vain before the writer sleeps: some microseconds where nobody needs it.
const FRUITLESS: u32 = 16;

#[derive(Default)]
struct State {
    waiting: Vec<Commit>,
    epoch: LogEpoch,
    poisoned: Option<Arc<str>>,
    closed: bool,
    /// The writer sleeps.
    idle: bool,
    /// The writer sleeps until this many wait; 0 when it does not.
    gathering: usize,
}

/// See the module.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

impl State {
    fn accepts(&self) -> Result<(), StoreError> {
        match &self.poisoned {
            Some(reason) => Err(StoreError::Poisoned { reason: reason.clone() }),
            None if self.closed => Err(StoreError::Closed),
            None => Ok(()),
        }
    }
}

/// What the writer is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Write,
    /// Nothing came in time.
    Idle,
    /// Nothing will come any more.
    End,
}

impl Queue {
    pub(super) fn push(&self, commit: Commit) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        state.accepts()?;
        if commit.epoch < state.epoch {
            return Err(StoreError::Superseded);
        }
        state.waiting.push(commit);
        let gathered = state.gathering > 0 && state.waiting.len() >= state.gathering;
        let wake = std::mem::take(&mut state.idle) || gathered;
        drop(state);
        if wake {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Whether anything would be accepted.
    pub(super) fn accepts(&self) -> Result<(), StoreError> {
        self.state.lock().accepts()
    }

    /// How many are queued.
    pub(super) fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    pub(super) fn epoch(&self) -> LogEpoch {
        self.state.lock().epoch
    }

    /// Waits until as many as `company` are queued, or the time has come and no more are coming.
    ///
    /// Where one processor serves all, those who are about to ask need it: it is given up as long as that brings
    /// commits, which costs less than being woken. Then the writer sleeps.
    pub(super) fn gather(&self, company: usize, until: Instant) {
        let (mut seen, mut fruitless) = (0, 0);
        while fruitless < FRUITLESS {
            let waiting = self.waiting();
            if waiting >= company {
                return;
            }
            fruitless = if waiting > seen { 0 } else { fruitless + 1 };
            seen = waiting;
            thread::yield_now();
        }
        let mut state = self.state.lock();
        state.gathering = company;
        while state.waiting.len() < company && !state.closed {
            if self.wake.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        state.gathering = 0;
    }

    /// Swaps everything that waits into `batch`, which must be empty; waits up to `patience` for something.
    pub(super) fn next(&self, batch: &mut Vec<Commit>, patience: Option<Duration>) -> Next {
        let mut state = self.state.lock();
        loop {
            if !state.waiting.is_empty() {
                std::mem::swap(&mut state.waiting, batch);
                return Next::Write;
            }
            if state.closed {
                return Next::End;
            }
            state.idle = true;
            let timed_out = match patience {
                Some(patience) => self.wake.wait_for(&mut state, patience).timed_out(),
                None => {
                    self.wake.wait(&mut state);
                    false
                }
            };
            state.idle = false;
            if timed_out && state.waiting.is_empty() && !state.closed {
                return Next::Idle;
            }
        }
    }

    /// The queued events are lost, since one before them is. Gives them, to be told.
    pub(super) fn lose(&self) -> Vec<Commit> {
        let mut state = self.state.lock();
        state.epoch = LogEpoch(state.epoch.0 + 1);
        std::mem::take(&mut state.waiting)
    }

    /// Nothing is accepted any more. Gives what was queued, to be told.
    pub(super) fn poison(&self, reason: &str) -> Vec<Commit> {
        let mut state = self.state.lock();
        state.poisoned.get_or_insert_with(|| reason.into());
        state.epoch = LogEpoch(state.epoch.0 + 1);
        std::mem::take(&mut state.waiting)
    }

    pub(super) fn poisoned(&self) -> Option<Arc<str>> {
        self.state.lock().poisoned.clone()
    }

    /// Refuses commits from now on; what is queued is still to be written.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.wake.notify_all();
    }
}
