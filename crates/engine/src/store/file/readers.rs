//! Threads that read the index for others, so that a page that must come from disk blocks no worker.

use std::{
    collections::VecDeque,
    sync::Arc,
    thread::{self, JoinHandle},
};

use parking_lot::{Condvar, Mutex};
use tokio::{runtime::Handle, sync::oneshot};

use crate::store::StoreError;

/// Enough to keep a disk busy; reads from the page cache take microseconds each.
const THREADS: usize = 4;
/// Jobs that a thread does in one go, before it answers them: to wake those who asked costs more than a read.
const AT_ONCE: usize = 8;
/// Bytes that it reads in one go at most; more is for another thread.
const BYTES_AT_ONCE: usize = 64 << 10;

/// Reads, and gives what tells the one who asked.
type Job = Box<dyn FnOnce() -> Tell + Send>;
type Tell = Box<dyn FnOnce()>;

#[derive(Default)]
struct Jobs {
    /// With what each reads at most, bytes.
    waiting: VecDeque<(usize, Job)>,
    sleeping: usize,
    /// A thread was woken, or is about to be, and has not looked yet.
    waking: bool,
    closed: bool,
}

/// The jobs, and who sleeps until there are some.
type Shared = (Mutex<Jobs>, Condvar);

impl Jobs {
    /// Whether a thread is to be woken for what waits; then it must be.
    fn wakes(&mut self) -> bool {
        let wakes = !self.waiting.is_empty() && self.sleeping > 0 && !self.waking;
        self.waking |= wakes;
        wakes
    }
}

/// See the module.
pub(super) struct Readers {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Wakes a thread for what waits. Others who are about to ask come first, where a runtime runs them: one wake-up serves
/// them all. A task of its own does it, as nobody must depend on whether who asked goes on.
fn wake_soon(shared: &Arc<Shared>) {
    let wake = Wake(shared.clone());
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(async move {
            tokio::task::yield_now().await;
            drop(wake);
        });
    }
}

/// Wakes a thread when dropped, also without a runtime, or with one that ends.
struct Wake(Arc<Shared>);

impl Drop for Wake {
    fn drop(&mut self) {
        self.0.1.notify_one();
    }
}

impl Readers {
    pub(super) fn start() -> Self {
        let shared: Arc<Shared> = Arc::default();
        let threads = (0..THREADS)
            .filter_map(|_| {
                let shared = shared.clone();
                let named = thread::Builder::new().name("store-read".into());
                named.spawn(move || work(&shared)).ok()
            })
            .collect();
        Readers { shared, threads: Mutex::new(threads) }
    }

    /// Runs `job`, which reads about `bytes` at most, on one of the threads.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (done, result) = oneshot::channel();
        let wakes = {
            let mut jobs = self.shared.0.lock();
            if jobs.closed {
                return Err(StoreError::Closed);
            }
            let job: Job = Box::new(move || {
                let read = job();
                // Who asked may have left meanwhile.
                Box::new(move || drop(done.send(read)))
            });
            jobs.waiting.push_back((bytes, job));
            jobs.wakes()
        };
        if wakes {
            wake_soon(&self.shared);
        }
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

fn work(shared: &Shared) {
    let (jobs, wake) = shared;
    let mut mine = Vec::with_capacity(AT_ONCE);
    let mut tell = Vec::with_capacity(AT_ONCE);
    loop {
        let mut guard = jobs.lock();
        while guard.waiting.is_empty() {
            if guard.closed {
                return;
            }
            guard.sleeping += 1;
            wake.wait(&mut guard);
            guard.sleeping -= 1;
            guard.waking = false;
        }
        let mut bytes = 0;
        while mine.len() < AT_ONCE
            && bytes <= BYTES_AT_ONCE
            && let Some((more, job)) = guard.waiting.pop_front()
        {
            bytes += more;
            mine.push(job);
        }
        let wakes = guard.wakes();
        drop(guard);
        if wakes {
            wake.notify_one();
        }
        tell.extend(mine.drain(..).map(|job| job()));
        tell.drain(..).for_each(|tell| tell());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[tokio::test]
    async fn a_job_is_done_though_others_who_asked_do_not_go_on() {
        let readers = Readers::start();
        // Asked, and then left alone or dropped, at the place where a thread is to be woken.
        let mut idle = Box::pin(readers.run(0, || Ok(1)));
        assert!(futures_util::poll!(&mut idle).is_pending());
        let mut gone = Box::pin(readers.run(0, || Ok(2)));
        assert!(futures_util::poll!(&mut gone).is_pending());
        drop(gone);
        assert_eq!(readers.run(0, || Ok(3)).await.unwrap(), 3);
        assert_eq!(idle.await.unwrap(), 1);
        readers.close();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_job_is_answered_once() {
        let readers = Arc::new(Readers::start());
        let done = Arc::new(AtomicUsize::new(0));
        let ask = |n: usize| {
            let (readers, done) = (readers.clone(), done.clone());
            tokio::spawn(async move {
                let job = move || Ok(done.fetch_add(1, Ordering::Relaxed));
                readers.run(n * 1000, job).await.unwrap();
            })
        };
        let asked: Vec<_> = (0..1000).map(|n| ask(n % 100)).collect();
        for one in asked {
            one.await.unwrap();
        }
        assert_eq!(done.load(Ordering::Relaxed), 1000);
        readers.close();
    }

    #[test]
    fn it_needs_no_runtime() {
        let readers = Readers::start();
        let mut asked = Box::pin(readers.run(0, || Ok(1)));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut poll = || asked.as_mut().poll(&mut context).is_pending();
        while poll() {
            thread::yield_now();
        }
        readers.close();
    }
}
