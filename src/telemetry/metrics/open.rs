//! What is open at this moment: counted when it comes and when it leaves, so that each thread only ever adds.

use durable_streams_engine::counters::Count;

use super::{Counters, Metrics};

/// Something that is counted while it lives.
pub struct Open<'m> {
    metrics: &'m Metrics,
    what: What,
}

/// Of which kind it is.
#[derive(Clone, Copy)]
pub(super) enum What {
    Live(usize),
    Connection,
}

impl What {
    fn pair(self, counters: &Counters) -> Option<&(Count, Count)> {
        match self {
            What::Live(kind) => counters.live.get(kind),
            What::Connection => Some(&counters.connections),
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if let Some((_, left)) = self.what.pair(self.metrics.shards.mine()) {
            left.add(1);
        }
    }
}

impl Metrics {
    pub(super) fn open(&self, what: What) -> Open<'_> {
        if let Some((came, _)) = what.pair(self.shards.mine()) {
            came.add(1);
        }
        Open { metrics: self, what }
    }

    pub(super) fn now_open(&self, what: What) -> u64 {
        // Those that left first: whoever came and left meanwhile is not counted as below zero.
        let left: u64 = self.shards.all().filter_map(|s| what.pair(s)).map(|p| p.1.get()).sum();
        let came: u64 = self.shards.all().filter_map(|s| what.pair(s)).map(|p| p.0.get()).sum();
        came.saturating_sub(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_open_is_counted_while_it_lives() {
        let metrics = Metrics::default();
        let open = (metrics.sse(), metrics.sse(), metrics.long_poll(), metrics.connection());
        assert_eq!(metrics.now_open(What::Live(1)), 2);
        drop(open.0);
        assert_eq!(metrics.now_open(What::Live(1)), 1);
        assert_eq!(metrics.now_open(What::Live(0)), 1);
        drop(open.3);
        assert_eq!(metrics.now_open(What::Connection), 0);
    }
}
