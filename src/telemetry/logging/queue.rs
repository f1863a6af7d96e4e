//! A bounded queue of log lines between the threads that log and the thread that writes to standard error.
//!
//! Standard error is often a pipe, and a pipe whose reader stalls (a log collector, a container runtime that
//! restarts) blocks every write to it. Only the writing thread may block there.
//!
//! Invariants
//! - [`LineQueue::push`] never waits for standard error; it holds the lock for one copy of the line.
//! - At most [`CAPACITY`] bytes wait, and as many are being written. A line that does not fit is dropped whole
//!   and counted; the writing thread logs the number once lines get through again.

use std::{
    io::{self, Write},
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Bytes of lines that wait to be written: some 4,000 lines of the access log.
pub(super) const CAPACITY: usize = 1 << 20;

/// A buffer that grew beyond this in a burst is given back.
const KEPT_BUFFER: usize = 64 << 10;

/// The pause after standard error, set to non-blocking by another process, took nothing.
const RETRY: Duration = Duration::from_millis(10);

#[derive(Default)]
pub(super) struct LineQueue {
    waiting: Mutex<WaitingLines>,
    /// Wakes the writing thread.
    filled: Condvar,
    /// Wakes [`flush`](Self::flush).
    written: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct WaitingLines {
    lines: Vec<u8>,
    /// The writing thread is busy with lines that it took.
    writing: bool,
}

impl LineQueue {
    /// Queues a line, its line feed included, or drops and counts it when the queue is full.
    pub(super) fn push(&self, line: &[u8]) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.lines.len() + line.len() > CAPACITY {
            drop(waiting);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.lines.extend_from_slice(line);
        let wake = !waiting.writing;
        drop(waiting);
        if wake {
            self.filled.notify_one();
        }
    }

    /// Lines dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until every queued line is written, at most `timeout`.
    pub(super) fn flush(&self, timeout: Duration) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let busy = |waiting: &mut WaitingLines| waiting.writing || !waiting.lines.is_empty();
        let _ = self.written.wait_timeout_while(waiting, timeout, busy);
    }

    /// Writes queued lines to `out` for ever, and calls `report` with the number of lines dropped since its last
    /// call. The body of the writing thread.
    pub(super) fn write_to(&self, out: &mut dyn Write, report: impl Fn(u64)) -> ! {
        let mut batch = Vec::new();
        let mut reported = 0;
        loop {
            self.take(&mut batch);
            // Now, as the queue has just been emptied: a report that did not fit would be lost with its number.
            let dropped = self.dropped();
            if dropped > reported {
                report(dropped - reported);
                reported = dropped;
            }
            write_batch(out, &batch);
            batch.clear();
            batch.shrink_to(KEPT_BUFFER);
        }
    }

    /// Swaps the waiting lines into `batch`, which is empty; waits until there are some.
    fn take(&self, batch: &mut Vec<u8>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.writing = false;
        if waiting.lines.is_empty() {
            self.written.notify_all();
        }
        while waiting.lines.is_empty() {
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.writing = true;
        std::mem::swap(&mut waiting.lines, batch);
    }
}

/// Writes all of it, unless standard error is closed: there is nowhere to report that to.
fn write_batch(out: &mut dyn Write, mut batch: &[u8]) {
    while !batch.is_empty() {
        match out.write(batch) {
            Ok(0) => return,
            Ok(count) => batch = batch.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(_) => return,
        }
    }
}

/// Standard error without the lock of `std::io::Stderr`: while the writing thread is blocked, an `eprintln!` of
/// another thread must not wait for it.
pub(super) struct RawStderr;

impl Write for RawStderr {
    #[cfg(unix)]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(rustix::stdio::stderr(), bytes)?)
    }

    #[cfg(not(unix))]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stderr().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use super::*;

    /// A reader that stalls until it is allowed to go on.
    struct Stalled {
        go_on: mpsc::Receiver<()>,
        seen: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.go_on.recv();
            let _ = self.seen.send(bytes.to_vec());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_and_never_blocks_those_who_log() {
        let queue = Arc::new(LineQueue::default());
        let ((go_on, allowed), (seen, written)) = (mpsc::channel(), mpsc::channel());
        let (queue_of_thread, mut out) = (queue.clone(), Stalled { go_on: allowed, seen });
        thread::spawn(move || {
            let queue = queue_of_thread;
            let report = |lines| queue.push(format!("{lines} dropped\n").as_bytes());
            queue.write_to(&mut out, report);
        });
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        queue.push(&line);
        // Whether or not the writing thread has taken the first line: at most two buffers' worth fit.
        let fitting = 2 * CAPACITY / line.len();
        for _ in 0..fitting + 10 {
            queue.push(&line);
        }
        let dropped = queue.dropped();
        assert!((10..=fitting as u64).contains(&dropped), "{dropped}");
        queue.flush(Duration::from_millis(10));
        drop(go_on);
        let mut text = Vec::new();
        let reports = |text: &[u8]| -> Vec<u64> {
            let text = String::from_utf8_lossy(text);
            let report = |line: &str| line.strip_suffix(" dropped").and_then(|n| n.parse().ok());
            text.lines().filter_map(report).collect()
        };
        // How many reports there are is a matter of the threads' timing; what they add up to is not.
        while reports(&text).iter().sum::<u64>() < dropped {
            text.extend(
                written.recv_timeout(Duration::from_secs(10)).expect("the number is reported"),
            );
        }
        queue.flush(Duration::from_secs(10));
        let lines = text.iter().filter(|byte| **byte == b'\n').count() - reports(&text).len();
        assert_eq!(lines as u64 + dropped, fitting as u64 + 11);
    }
}
