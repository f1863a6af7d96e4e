//! The process's file descriptors: the limit on them, and a reserve for the admin listener.
//!
//! Each connection takes one descriptor, a proxied request a second one. A process that has used up its limit
//! can neither accept nor open anything, health checks included.

/// Descriptors left for everything but client connections: the store's files, upstreams, webhooks, the admin
/// listener. At most half of a small limit.
#[cfg(unix)]
const HEADROOM: u64 = 256;

/// Raises the soft limit, as far as the hard limit allows, to what `max_connections` needs. Returns how many
/// connections the limit has room for, at most `max_connections`.
#[cfg(unix)]
pub(super) fn room_for(max_connections: usize) -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let wanted = (max_connections as u64).saturating_add(HEADROOM);
    let Some(mut soft) = limit.current.filter(|soft| *soft < wanted) else {
        return max_connections;
    };
    let most = limit.maximum.map_or(wanted, |hard| hard.min(wanted));
    if most > soft {
        let raised = Rlimit { current: Some(most), maximum: limit.maximum };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => soft = most,
            Err(error) => tracing::debug!(%error, "the limit of file descriptors stays"),
        }
    }
    let room = soft - HEADROOM.min(soft / 2);
    usize::try_from(room).unwrap_or(usize::MAX).min(max_connections)
}

#[cfg(not(unix))]
pub(super) fn room_for(max_connections: usize) -> usize {
    max_connections
}

/// Descriptors that are open and unused, so that one of them can be given up where `accept` finds none free.
pub(super) struct DescriptorReserve {
    #[cfg(unix)]
    spare: Vec<std::os::fd::OwnedFd>,
}

impl DescriptorReserve {
    #[cfg(unix)]
    const SIZE: usize = 8;

    pub(super) fn new() -> Self {
        let mut reserve = DescriptorReserve {
            #[cfg(unix)]
            spare: Vec::new(),
        };
        reserve.refill();
        reserve
    }

    /// Takes descriptors that have become free, up to the reserve's size.
    pub(super) fn refill(&mut self) {
        #[cfg(unix)]
        while self.spare.len() < Self::SIZE
            && let Ok(spare) = rustix::io::dup(rustix::stdio::stderr())
        {
            self.spare.push(spare);
        }
    }

    /// Closes one descriptor when `error` says that none is free. `true`: trying again makes sense now.
    pub(super) fn make_room(&mut self, error: &std::io::Error) -> bool {
        #[cfg(unix)]
        if let Some(code) = error.raw_os_error()
            && code == rustix::io::Errno::MFILE.raw_os_error()
        {
            return self.spare.pop().is_some();
        }
        let _ = error;
        false
    }
}
