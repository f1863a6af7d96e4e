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

use durable_streams_protocol::{ProducerId, ProducerState, StreamId};

use super::{CellState, Version};

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
    older_version: Version,
    /// Counts the moments at which records left memory.
    round: EvictionRound,
}

/// A record that was loaded in one round is outdated in the next: the producer may have appended, and its new record may
/// have left memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::engine) struct EvictionRound(u64);

/// The store's record of a producer.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct LoadedProducer {
    pub(in crate::engine) known: Option<ProducerState>,
    /// The round before the store was asked.
    pub(in crate::engine) round: EvictionRound,
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
}

impl CellState {
    /// Producers in memory.
    #[cfg(test)]
    pub(in crate::engine) fn producers_in_memory(&self) -> usize {
        let state = self.assigned.as_ref().map_or(0, |stream| stream.producers.len());
        state + self.producers.older.len()
    }

    /// How many producers the assigned stream has.
    pub(in crate::engine) fn producers(&self) -> u64 {
        self.producers.total
    }

    /// What the assigned stream remembers of a producer. Returns `None` when the store must be asked, and `loaded` is not
    /// its answer.
    pub(in crate::engine) fn producer(
        &mut self,
        id: &ProducerId,
        loaded: Option<LoadedProducer>,
    ) -> Option<Option<ProducerState>> {
        let stream = self.assigned.as_mut()?;
        match stream.producers.get(id) {
            Some(known) => Some(Some(*known)),
            None => self.recall(id, loaded),
        }
    }

    /// A producer that is not in the state.
    #[cold]
    fn recall(
        &mut self,
        id: &ProducerId,
        loaded: Option<LoadedProducer>,
    ) -> Option<Option<ProducerState>> {
        let stream = self.assigned.as_mut()?;
        let CellProducers { total, older, older_version, round } = &mut self.producers;
        let known = if let Some(known) = older.remove(id) {
            Some(known)
        } else if (stream.producers.len() + older.len()) as u64 == *total {
            None
        } else {
            loaded.filter(|loaded| loaded.round == *round)?.known
        };
        if stream.producers.len() >= TABLE && self.durable_version >= *older_version {
            *older = std::mem::take(&mut stream.producers);
            *older_version = self.version;
            round.0 += 1;
        }
        if let Some(known) = known {
            stream.producers.insert(id.clone(), known);
        }
        Some(known)
    }

    /// Where to look for a producer's record.
    pub(in crate::engine) fn producer_lookup(&self) -> Option<(StreamId, EvictionRound)> {
        let stream = self.assigned.as_ref()?;
        Some((stream.core.id, self.producers.round))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::cell::tests::stream_of_producers;

    fn id(n: usize) -> ProducerId {
        ProducerId::new(&format!("p{n}")).unwrap()
    }

    const FIRST: ProducerState = ProducerState { epoch: 0, last_seq: 0 };

    #[test]
    fn what_was_loaded_before_an_eviction_counts_no_more() {
        let mut state = stream_of_producers(3 * TABLE as u64);
        let (_, round) = state.producer_lookup().unwrap();
        for n in 0..TABLE {
            assert_eq!(state.producer(&id(n), None), None, "the store must be asked");
            let loaded = LoadedProducer { known: Some(FIRST), round };
            assert_eq!(state.producer(&id(n), Some(loaded)), Some(Some(FIRST)));
        }
        let loaded = LoadedProducer { known: None, round };
        assert_eq!(state.producer(&id(TABLE), Some(loaded)), Some(None), "it makes room, too");
        assert_eq!(state.producer(&id(TABLE), Some(loaded)), None, "{round:?} is over");
        assert_eq!(
            state.producer(&id(TABLE - 1), None),
            Some(Some(FIRST)),
            "older ones are in memory"
        );
    }

    #[test]
    fn a_record_stays_in_memory_until_its_events_are_durable() {
        let mut state = stream_of_producers(u64::MAX);
        let fill = |state: &mut CellState, range: std::ops::Range<usize>| {
            for n in range {
                let (_, round) = state.producer_lookup().unwrap();
                let loaded = LoadedProducer { known: Some(FIRST), round };
                assert_eq!(state.producer(&id(n), Some(loaded)), Some(Some(FIRST)));
            }
        };
        state.version = Version(1);
        fill(&mut state, 0..TABLE + 1);
        assert_eq!(state.producers.older.len(), TABLE);
        fill(&mut state, TABLE + 1..4 * TABLE);
        assert_eq!(state.producers.older.len(), TABLE, "version 1 is not durable");
        state.durable_version = Version(1);
        fill(&mut state, 4 * TABLE..4 * TABLE + 1);
        assert_eq!(state.producers.older.len(), 3 * TABLE);
        assert_eq!(state.producer(&id(0), None), None, "out of memory");
    }
}
