//! Connections at this moment: counted when they open and when they close, so that each thread only ever adds.

use super::Metrics;

/// A connection, counted as open until this is dropped.
pub struct ConnectionGuard<'m> {
    metrics: &'m Metrics,
}

impl Drop for ConnectionGuard<'_> {
    fn drop(&mut self) {
        self.metrics.shards.mine().connections.1.add(1);
    }
}

impl Metrics {
    pub(super) fn connection_opened(&self) -> ConnectionGuard<'_> {
        self.shards.mine().connections.0.add(1);
        ConnectionGuard { metrics: self }
    }

    pub(super) fn open_connections(&self) -> u64 {
        // Closed ones are summed first: one that opens and closes meanwhile must not make the number negative.
        let closed = self.shards.sum(|shard| &shard.connections.1);
        self.shards.sum(|shard| &shard.connections.0).saturating_sub(closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_counted_while_it_is_open() {
        let metrics = Metrics::default();
        let first = metrics.connection();
        let _second = metrics.connection();
        assert_eq!(metrics.open_connections(), 2);
        drop(first);
        assert_eq!(metrics.open_connections(), 1);
    }
}
