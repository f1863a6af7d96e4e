//! The settings. A request takes them once, at its start, and keeps them to its end; a change takes effect with the
//! next request. Taking them is one atomic operation, never a lock.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::options::EdgeOptions;
use super::upstream::set::{UpstreamError, UpstreamSet};

/// One state of the settings, with the upstreams made from them.
pub(crate) struct EdgeSettings {
    pub(crate) options: EdgeOptions,
    pub(crate) upstreams: UpstreamSet,
}

impl std::fmt::Debug for EdgeSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("EdgeSettings").field(&self.options).finish()
    }
}

/// The settings, and the announcement of their changes.
pub(crate) struct CurrentSettings {
    settings: ArcSwap<EdgeSettings>,
    changed: watch::Sender<()>,
}

impl CurrentSettings {
    pub(crate) fn new(options: EdgeOptions) -> Result<Self, UpstreamError> {
        let upstreams = UpstreamSet::build(&options.upstreams, None)?;
        let settings = ArcSwap::from_pointee(EdgeSettings { options, upstreams });
        Ok(CurrentSettings { settings, changed: watch::Sender::new(()) })
    }

    pub(crate) fn load(&self) -> Arc<EdgeSettings> {
        self.settings.load_full()
    }

    /// Replaces all settings, or none after an error. Upstreams whose options are the same keep their connections and
    /// what is known of their health. May wait for name resolution.
    pub(crate) fn replace(&self, options: EdgeOptions) -> Result<(), UpstreamError> {
        let before = self.load();
        let upstreams = UpstreamSet::build(&options.upstreams, Some(&before.upstreams))?;
        self.settings.store(Arc::new(EdgeSettings { options, upstreams }));
        self.changed.send_replace(());
        Ok(())
    }

    /// Is woken by every change.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
