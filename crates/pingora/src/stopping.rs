//! The start of a stop, which Pingora announces through a watch.

use pingora_core::server::ShutdownWatch;

/// Tells when the server begins to stop.
#[derive(Clone, Debug)]
pub struct Stopping(ShutdownWatch);

impl From<ShutdownWatch> for Stopping {
    fn from(watch: ShutdownWatch) -> Self {
        Stopping(watch)
    }
}

impl Stopping {
    /// Whether the stop has begun.
    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once the stop has begun, or once its sender is gone. Cancel safe.
    pub async fn begun(&mut self) {
        let _ = self.0.wait_for(|stopping| *stopping).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_is_seen_by_every_clone_and_stays() {
        let (begin, watch) = tokio::sync::watch::channel(false);
        let (mut one, mut other) = (Stopping::from(watch.clone()), Stopping::from(watch));
        assert!(!one.has_begun());
        begin.send_replace(true);
        one.begun().await;
        other.begun().await;
        other.begun().await;
        assert!(one.has_begun() && other.has_begun());
    }
}
