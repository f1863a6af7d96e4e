//! The producers of an active stream (§5.2.1): some are in memory, the store has all.
//!
//! A stream remembers its producers as long as its data, and clients choose their ids. So a cell loads a producer's record
//! with the first append of that producer, and evicts records that were not used lately.
//!
//! Invariants
//! - A producer with an event that is not durable is in memory, so the store's record of any other one is the newest.
//! - No producer is in both tables: `StreamState::producers` and `older`.
//! - When as many are in memory as the stream has, one that is not there does not exist.

use std::collections::HashMap;

use durable_streams_protocol::{ProducerId, ProducerState};

/// Producers in one of the two tables of a cell. A producer costs about 100 bytes and its id, of 256 bytes at most. So a
/// cell has 2 * 1024 * 356 bytes of them at most, and those whose events are not durable yet.
const TABLE: usize = if cfg!(test) { 4 } else { 1024 };

/// What a cell knows of its stream's producers, beside those in the state.
#[derive(Debug, Default)]
pub(super) struct CellProducers {
    /// How many the stream has.
    total: u64,
    /// Those that were in the state when it last had [`TABLE`] of them, and were not used since.
    older: HashMap<ProducerId, ProducerState>,
    /// All events of those in `older` have this version or a lower one.
    older_version: u64,
    /// Counts the moments at which records left memory.
    round: EvictionRound,
}

/// A record that was loaded in one round is outdated in the next: the producer may have appended, and its new record may
/// have left memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EvictionRound(u64);

/// The store's record of a producer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadedProducer {
    pub(crate) known: Option<ProducerState>,
    /// The round before the store was asked.
    pub(crate) round: EvictionRound,
}

impl CellProducers {
    /// Of another stream, or of the same one loaded again.
    pub(super) fn begin(&mut self, total: u64) {
        *self = CellProducers {
            total,
            round: EvictionRound(self.round.0 + 1),
            ..CellProducers::default()
        };
    }

    /// An append has brought so many new ones.
    pub(super) fn count_new(&mut self, new: usize) {
        self.total += new as u64;
    }

    /// How many the stream has.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    pub(super) fn round(&self) -> EvictionRound {
        self.round
    }

    /// Those in memory beside the ones in the state.
    #[cfg(test)]
    pub(super) fn older(&self) -> usize {
        self.older.len()
    }

    /// Finds a producer that is not in the state, and puts it there; the state is of version `versions.0`, of which
    /// `versions.1` is durable. Returns `None` when the store must be asked, and `loaded` is not its answer.
    #[cold]
    pub(super) fn recall(
        &mut self,
        in_state: &mut HashMap<ProducerId, ProducerState>,
        versions: (u64, u64),
        id: &ProducerId,
        loaded: Option<LoadedProducer>,
    ) -> Option<Option<ProducerState>> {
        let known = if let Some(known) = self.older.remove(id) {
            Some(known)
        } else if (in_state.len() + self.older.len()) as u64 == self.total {
            None
        } else {
            loaded.filter(|loaded| loaded.round == self.round)?.known
        };
        let (version, durable) = versions;
        if in_state.len() >= TABLE && durable >= self.older_version {
            self.older = std::mem::take(in_state);
            self.older_version = version;
            self.round.0 += 1;
        }
        if let Some(known) = known {
            in_state.insert(id.clone(), known);
        }
        Some(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> ProducerId {
        ProducerId::new(&format!("p{n}")).unwrap()
    }

    const FIRST: ProducerState = ProducerState { epoch: 0, last_seq: 0 };

    /// A stream with so many producers, none of which is in memory.
    fn stream(total: u64) -> (CellProducers, HashMap<ProducerId, ProducerState>) {
        let mut producers = CellProducers::default();
        producers.begin(total);
        (producers, HashMap::new())
    }

    #[test]
    fn what_was_loaded_before_an_eviction_counts_no_more() {
        let (mut producers, mut in_state) = stream(3 * TABLE as u64);
        let mut recall = |n: usize, loaded| producers.recall(&mut in_state, (0, 0), &id(n), loaded);
        let round = EvictionRound(1);
        for n in 0..TABLE {
            assert_eq!(recall(n, None), None, "the store must be asked");
            let loaded = LoadedProducer { known: Some(FIRST), round };
            assert_eq!(recall(n, Some(loaded)), Some(Some(FIRST)));
        }
        let loaded = LoadedProducer { known: None, round };
        assert_eq!(recall(TABLE, Some(loaded)), Some(None), "it makes room, too");
        assert_eq!(recall(TABLE, Some(loaded)), None, "{round:?} is over");
        assert_eq!(recall(TABLE - 1, None), Some(Some(FIRST)), "older ones are in memory");
    }

    #[test]
    fn a_record_stays_in_memory_until_its_events_are_durable() {
        let (mut producers, mut in_state) = stream(u64::MAX);
        let mut fill = |durable, range: std::ops::Range<usize>| {
            for n in range {
                let loaded = LoadedProducer { known: Some(FIRST), round: producers.round };
                let found = producers.recall(&mut in_state, (1, durable), &id(n), Some(loaded));
                assert_eq!(found, Some(Some(FIRST)));
            }
            producers.older.len()
        };
        assert_eq!(fill(0, 0..TABLE + 1), TABLE);
        assert_eq!(fill(0, TABLE + 1..4 * TABLE), TABLE, "version 1 is not durable");
        assert_eq!(fill(1, 4 * TABLE..4 * TABLE + 1), 3 * TABLE);
        assert_eq!(producers.recall(&mut in_state, (1, 1), &id(0), None), None, "out of memory");
    }
}
