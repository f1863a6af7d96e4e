//! What the events of the memtable say of producers.

use std::collections::{HashMap, VecDeque};

use durable_streams_protocol::{ProducerId, ProducerState, StreamEvent, StreamId};

use super::{Memtable, shard::PendingEvent};
use crate::store::file::wal::Lsn;

/// The newest state of each producer of a stream's pending events, from the first search for one of them until no event is
/// pending. A stream whose producers are all in the engine's memory never has it.
///
/// It takes less than the pending events do: their ids are shared.
#[derive(Default)]
pub(super) struct PendingProducers(Option<Box<NewestProducers>>);

/// In a box, since most streams have none.
#[derive(Default)]
struct NewestProducers {
    by_id: HashMap<ProducerId, (Lsn, ProducerState)>,
}

impl PendingProducers {
    /// Takes in an event that becomes pending.
    pub(super) fn note(&mut self, lsn: Lsn, event: &StreamEvent) {
        if let Some(table) = &mut self.0
            && let Some((id, known)) = produced(event)
        {
            table.by_id.insert(id.clone(), (lsn, known));
        }
    }

    /// Forgets events that are pending no more, `all` of them or the oldest.
    pub(super) fn forget(&mut self, some: &[PendingEvent], all: bool) {
        if all {
            self.0 = None;
        }
        let Some(table) = &mut self.0 else { return };
        for pending in some {
            if let Some((id, _)) = produced(&pending.event)
                && table.by_id.get(id).is_some_and(|(newest, _)| *newest == pending.lsn)
            {
                table.by_id.remove(id);
            }
        }
    }

    fn of(
        &mut self,
        events: &VecDeque<PendingEvent>,
    ) -> &HashMap<ProducerId, (Lsn, ProducerState)> {
        let table = self.0.get_or_insert_with(|| {
            let produced = events.iter().filter_map(|pending| {
                let (id, known) = produced(&pending.event)?;
                Some((id.clone(), (pending.lsn, known)))
            });
            Box::new(NewestProducers { by_id: produced.collect() })
        });
        &table.by_id
    }
}

fn produced(event: &StreamEvent) -> Option<(&ProducerId, ProducerState)> {
    let StreamEvent::Appended(appended) = event else { return None };
    appended.producer.as_ref().map(|producer| (&producer.id, producer.accepted()))
}

impl Memtable {
    /// A producer's state, if an event of it is here.
    pub(in crate::store::file) fn producer(
        &self,
        id: StreamId,
        producer: &ProducerId,
    ) -> Option<ProducerState> {
        let mut shard = self.shard(id).lock();
        let entry = shard.entries.get_mut(&id).filter(|entry| !entry.pending.is_empty())?;
        entry.producers.of(&entry.pending).get(producer).map(|(_, known)| *known)
    }

    /// Producers after `after` with an event here, in no order.
    pub(in crate::store::file) fn producers(
        &self,
        id: StreamId,
        after: Option<&ProducerId>,
    ) -> Vec<(ProducerId, ProducerState)> {
        let mut shard = self.shard(id).lock();
        let entry = shard.entries.get_mut(&id).filter(|entry| !entry.pending.is_empty());
        let Some(entry) = entry else { return Vec::new() };
        let all = entry.producers.of(&entry.pending).iter();
        let following = all.filter(|(id, _)| after.is_none_or(|after| *id > after));
        following.map(|(id, (_, known))| (id.clone(), *known)).collect()
    }
}
