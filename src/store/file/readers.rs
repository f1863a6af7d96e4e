//! Threads that read the index for others, so that a page that must come from disk blocks no worker.

use std::{
    collections::VecDeque,
    sync::Arc,
    thread::{self, JoinHandle},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::store::StoreError;

/// Enough to keep a disk busy; reads from the page cache take microseconds each.
const THREADS: usize = 4;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<Job>,
    closed: bool,
}

/// See the module.
pub(super) struct Readers {
    shared: Arc<(Mutex<Jobs>, Condvar)>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Readers {
    pub(super) fn start() -> Self {
        let shared: Arc<(Mutex<Jobs>, Condvar)> = Arc::default();
        let threads = (0..THREADS)
            .filter_map(|_| {
                let shared = shared.clone();
                let named = thread::Builder::new().name("store-read".into());
                named.spawn(move || work(&shared)).ok()
            })
            .collect();
        Readers { shared, threads: Mutex::new(threads) }
    }

    /// Runs `job` on one of the threads.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, result) = oneshot::channel();
        let (jobs, wake) = &*self.shared;
        {
            let mut jobs = jobs.lock();
            if jobs.closed {
                return Err(StoreError::Closed);
            }
            jobs.waiting.push_back(Box::new(move || {
                // Who asked may have left meanwhile.
                let _ = done.send(job());
            }));
        }
        wake.notify_one();
        result.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Ends the threads once they are done with what waits.
    pub(super) fn close(&self) {
        let (jobs, wake) = &*self.shared;
        jobs.lock().closed = true;
        wake.notify_all();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
    }
}

fn work(shared: &(Mutex<Jobs>, Condvar)) {
    let (jobs, wake) = shared;
    loop {
        let mut guard = jobs.lock();
        let job = loop {
            if let Some(job) = guard.waiting.pop_front() {
                break job;
            }
            if guard.closed {
                return;
            }
            wake.wait(&mut guard);
        };
        drop(guard);
        job();
    }
}
