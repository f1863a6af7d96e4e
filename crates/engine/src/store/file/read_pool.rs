//! Threads that read the index for async callers, so that a page that must come from disk blocks no runtime worker.
//!
//! Measured: one wake-up for several queued reads is worth 1.1 to 1.4 times the appends going round 300,000
//! streams (docs/benchmarks.md).

use std::{
    collections::VecDeque,
    sync::Arc,
    thread::{self, JoinHandle},
};

use parking_lot::{Condvar, Mutex};
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::oneshot,
};

use crate::store::StoreError;

/// Enough to keep a disk busy; reads from the page cache take microseconds each.
const THREADS: usize = 4;
/// Jobs that a thread runs in one go, before it delivers their results: waking a caller costs more than a read.
const JOBS_PER_RUN: usize = 8;
/// Bytes that a thread reads in one go at most, roughly; the rest is left to another thread.
const BYTES_PER_RUN: usize = 64 << 10;

/// Reads, and returns the function that delivers the result to the caller.
type ReadJob = Box<dyn FnOnce() -> DeliverResult + Send>;
type DeliverResult = Box<dyn FnOnce()>;

#[derive(Default)]
struct JobQueue {
    /// Each with the bytes that it reads at most.
    waiting: VecDeque<(usize, ReadJob)>,
    sleeping: usize,
    /// A thread was notified, or is about to be, and has not taken jobs yet.
    waking: bool,
    closed: bool,
}

/// The queue, and the condition on which idle threads sleep.
type PoolShared = (Mutex<JobQueue>, Condvar);

impl JobQueue {
    /// Whether a thread must be notified; the caller then does so.
    fn wakes(&mut self) -> bool {
        let wakes = !self.waiting.is_empty() && self.sleeping > 0 && !self.waking;
        self.waking |= wakes;
        wakes
    }

    /// Takes the jobs of one run.
    fn take(&mut self, mine: &mut Vec<ReadJob>) {
        let mut bytes = 0;
        while mine.len() < JOBS_PER_RUN
            && bytes <= BYTES_PER_RUN
            && let Some((more, job)) = self.waiting.pop_front()
        {
            bytes += more;
            mine.push(job);
        }
    }
}

pub(super) struct ReadPool {
    shared: Arc<PoolShared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Wakes a thread for the queued jobs, after other ready tasks of the runtime have run: they may queue jobs too, and one
/// wake-up serves all. It is a task of its own, since the caller's future may be dropped or never polled again.
///
/// A runtime without threads of its own runs tasks only while a caller blocks on it, so there a thread is woken at once:
/// until that was done no other caller would wake one.
fn wake_soon(shared: &Arc<PoolShared>) {
    let wake = WakeOnDrop(shared.clone());
    if let Ok(runtime) = Handle::try_current()
        && runtime.runtime_flavor() != RuntimeFlavor::CurrentThread
    {
        runtime.spawn(async move {
            tokio::task::yield_now().await;
            drop(wake);
        });
    }
}

/// Wakes a thread when dropped, also without a runtime, or with one that ends.
struct WakeOnDrop(Arc<PoolShared>);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.0.1.notify_one();
    }
}

impl ReadPool {
    pub(super) fn start() -> Self {
        let shared: Arc<PoolShared> = Arc::default();
        let threads = (0..THREADS)
            .filter_map(|_| {
                let shared = shared.clone();
                let named = thread::Builder::new().name("store-read".into());
                named.spawn(move || work(&shared)).ok()
            })
            .collect();
        ReadPool { shared, threads: Mutex::new(threads) }
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
            let job: ReadJob = Box::new(move || {
                let read = job();
                // The caller may have gone away.
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

    /// Ends the threads once the queued jobs are done.
    pub(super) fn close(&self) {
        let (jobs, wake) = &*self.shared;
        jobs.lock().closed = true;
        wake.notify_all();
        for thread in self.threads.lock().drain(..) {
            let _ = thread.join();
        }
    }
}

fn work(shared: &PoolShared) {
    let (jobs, wake) = shared;
    let mut mine = Vec::with_capacity(JOBS_PER_RUN);
    let mut deliveries = Vec::with_capacity(JOBS_PER_RUN);
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
        guard.take(&mut mine);
        let wakes = guard.wakes();
        drop(guard);
        if wakes {
            wake.notify_one();
        }
        deliveries.extend(mine.drain(..).map(|job| job()));
        deliveries.drain(..).for_each(|deliver| deliver());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A queue with jobs that read so many bytes each.
    fn queue(jobs: &[usize]) -> JobQueue {
        let job = |bytes: &usize| -> (usize, ReadJob) { (*bytes, Box::new(|| Box::new(|| ()))) };
        JobQueue { waiting: jobs.iter().map(job).collect(), ..JobQueue::default() }
    }

    #[test]
    fn a_thread_takes_eight_jobs_or_so_many_bytes() {
        let left = |jobs: &[usize]| {
            let mut queue = queue(jobs);
            queue.take(&mut Vec::new());
            queue.waiting.len()
        };
        assert_eq!(left(&[0; 3]), 0);
        assert_eq!(left(&[0; 20]), 12);
        assert_eq!(left(&[40 << 10, 24 << 10, 1, 1, 1]), 2, "what is begun at 64 KiB is the last");
        assert_eq!(left(&[1 << 20, 1, 1]), 2);
    }

    #[test]
    fn one_sleeping_thread_is_woken_at_a_time() {
        let mut jobs = queue(&[1]);
        assert!(!jobs.wakes(), "none sleeps");
        jobs.sleeping = 2;
        assert!(jobs.wakes());
        assert!(!jobs.wakes(), "one is on its way");
        jobs.waking = false;
        assert!(jobs.wakes());
        (jobs.waking, jobs.waiting) = (false, VecDeque::new());
        assert!(!jobs.wakes(), "there is nothing to do");
    }

    #[tokio::test]
    async fn a_job_is_done_though_other_callers_stall_or_leave() {
        let pool = ReadPool::start();
        // Polled once and then stalled or dropped, at the point where a thread must be woken.
        let mut idle = Box::pin(pool.run(0, || Ok(1)));
        assert!(futures_util::poll!(&mut idle).is_pending());
        let mut gone = Box::pin(pool.run(0, || Ok(2)));
        assert!(futures_util::poll!(&mut gone).is_pending());
        drop(gone);
        assert_eq!(pool.run(0, || Ok(3)).await.unwrap(), 3);
        assert_eq!(idle.await.unwrap(), 1);
        pool.close();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn every_job_runs_once() {
        let pool = Arc::new(ReadPool::start());
        let done = Arc::new(AtomicUsize::new(0));
        let ask = |n: usize| {
            let (pool, done) = (pool.clone(), done.clone());
            tokio::spawn(async move {
                let job = move || Ok(done.fetch_add(1, Ordering::Relaxed));
                pool.run(n * 1000, job).await.unwrap();
            })
        };
        let asked: Vec<_> = (0..1000).map(|n| ask(n % 100)).collect();
        for one in asked {
            one.await.unwrap();
        }
        assert_eq!(done.load(Ordering::Relaxed), 1000);
        pool.close();
    }

    #[tokio::test]
    async fn a_closed_pool_ends_its_threads_and_takes_no_job() {
        let pool = ReadPool::start();
        pool.close();
        assert!(pool.threads.lock().is_empty());
        assert_eq!(Arc::strong_count(&pool.shared), 1, "no thread has the queue");
        assert!(matches!(pool.run(0, || Ok(1)).await, Err(StoreError::Closed)));
    }

    /// A server starts on such a runtime, and goes on with others.
    #[test]
    fn a_runtime_that_is_not_driven_any_more_keeps_no_thread_from_being_woken() {
        let pool = ReadPool::start();
        while pool.shared.0.lock().sleeping < THREADS {
            thread::yield_now();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let _ = futures_util::poll!(std::pin::pin!(pool.run(0, || Ok(1))));
        });
        let mut later = std::pin::pin!(pool.run(0, || Ok(2)));
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            if let Some(done) = (&mut later).now_or_never() {
                assert_eq!(done.unwrap(), 2);
                break;
            }
            assert!(std::time::Instant::now() < deadline, "no thread is woken");
            thread::yield_now();
        }
        pool.close();
    }

    #[test]
    fn it_needs_no_runtime() {
        let pool = ReadPool::start();
        let mut asked = Box::pin(pool.run(0, || Ok(1)));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let mut poll = || asked.as_mut().poll(&mut context).is_pending();
        while poll() {
            thread::yield_now();
        }
        pool.close();
    }
}
