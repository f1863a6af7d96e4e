//! A commit in the queue, and whether another one belongs to it.

use super::wal::reserve;
use crate::store::Commit;

/// A commit that waits for the log.
pub(super) struct QueuedCommit {
    pub(super) commit: Commit,
    pub(super) pairing: CommitPairing,
}

/// How a commit belongs to its neighbour in the queue. Both of a pair are in one batch, and recovery finds both or neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommitPairing {
    Alone,
    /// The next commit belongs to this one.
    First,
    /// It belongs to the commit before it.
    Second {
        /// The commit before it frees space, and may use the reserve together with this one.
        frees_space: bool,
    },
}

impl QueuedCommit {
    pub(super) fn alone(commit: Commit) -> Self {
        QueuedCommit { commit, pairing: CommitPairing::Alone }
    }

    pub(super) fn pair(first: Commit, second: Commit) -> [Self; 2] {
        let frees_space = reserve::frees_space(&first.event);
        let second =
            QueuedCommit { commit: second, pairing: CommitPairing::Second { frees_space } };
        [QueuedCommit { commit: first, pairing: CommitPairing::First }, second]
    }

    /// Whether it makes room instead of needing it, or belongs to a commit that does: then it may use the reserve.
    pub(super) fn frees_space(&self) -> bool {
        match self.pairing {
            CommitPairing::Second { frees_space } => frees_space,
            CommitPairing::Alone | CommitPairing::First => reserve::frees_space(&self.commit.event),
        }
    }
}
