//! A client that has finished sending in a tunnel, and still reads (TCP half-close).
//!
//! Pingora 0.9 ends a tunnel when the client's side ends. So the end is not shown to it: the client's socket and the
//! upstream's share a [`HalfClose`]. Once the upstream has every byte that came before the end, its socket ends
//! sending, too, and the tunnel lives on until the upstream ends it.
//!
//! Cleartext upstreams only: under TLS the end is said inside the encryption, which is Pingora's.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::task::Waker;

/// What the two sockets of a tunnel know of each other.
#[derive(Debug, Default)]
pub(crate) struct HalfClose {
    /// Bytes of the tunnel that the client has sent.
    sent: AtomicU64,
    /// Bytes of the tunnel that the upstream's socket has taken.
    taken: AtomicU64,
    /// The client has finished.
    finished: AtomicBool,
    /// Of the task that reads from the upstream.
    upstream: Mutex<Option<Waker>>,
}

impl HalfClose {
    /// The client has sent `bytes`.
    pub(super) fn sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::AcqRel);
    }

    /// The client will send nothing more.
    pub(super) fn finish(&self) {
        self.finished.store(true, Ordering::Release);
        self.wake();
    }

    /// The upstream's socket has taken `bytes`.
    pub(crate) fn taken(&self, bytes: usize) {
        self.taken.fetch_add(bytes as u64, Ordering::AcqRel);
        if self.finished.load(Ordering::Acquire) {
            self.wake();
        }
    }

    /// Whether the upstream's socket has everything that the client will ever send. Until then `waker` is woken when
    /// that may have changed.
    pub(crate) fn is_due(&self, waker: &Waker) -> bool {
        let mut place = self.upstream.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *place {
            Some(known) => known.clone_from(waker),
            empty => *empty = Some(waker.clone()),
        }
        drop(place);
        self.finished.load(Ordering::Acquire)
            && self.taken.load(Ordering::Acquire) == self.sent.load(Ordering::Acquire)
    }

    fn wake(&self) {
        let waker = self.upstream.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
