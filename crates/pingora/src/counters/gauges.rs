//! Live readers at this moment: counted when they come and when they leave, so that each thread only ever adds.

use super::StreamCounters;

/// Which live readers are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LiveKind {
    LongPoll,
    Sse,
}

impl LiveKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            LiveKind::LongPoll => "long_poll",
            LiveKind::Sse => "sse",
        }
    }
}

/// A live reader, counted until this is dropped.
pub(crate) struct LiveGuard<'c> {
    counters: &'c StreamCounters,
    kind: LiveKind,
}

impl Drop for LiveGuard<'_> {
    fn drop(&mut self) {
        if let Some((_, left)) = self.counters.shards.mine().live.get(self.kind as usize) {
            left.add(1);
        }
    }
}

impl StreamCounters {
    pub(crate) fn live(&self, kind: LiveKind) -> LiveGuard<'_> {
        if let Some((came, _)) = self.shards.mine().live.get(kind as usize) {
            came.add(1);
        }
        LiveGuard { counters: self, kind }
    }

    pub(super) fn now_live(&self, kind: LiveKind) -> u64 {
        let pairs = || self.shards.all().filter_map(|shard| shard.live.get(kind as usize));
        // Departures are summed first: a reader that comes and leaves meanwhile must not make the number negative.
        let left: u64 = pairs().map(|pair| pair.1.get()).sum();
        let came: u64 = pairs().map(|pair| pair.0.get()).sum();
        came.saturating_sub(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_reader_is_counted_while_it_lives() {
        let counters = StreamCounters::default();
        let first = counters.live(LiveKind::Sse);
        let _second = (counters.live(LiveKind::Sse), counters.live(LiveKind::LongPoll));
        assert_eq!(counters.live_readers(), [("long_poll", 1), ("sse", 2)]);
        drop(first);
        assert_eq!(counters.live_readers(), [("long_poll", 1), ("sse", 1)]);
    }
}
