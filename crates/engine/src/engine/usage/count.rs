//! Takes the counts of parts of the path space from the streams that there are.

use durable_streams_protocol::{Rejection, StreamPath};
use futures_util::StreamExt;

use super::{
    ScopeUsage, UsageScope,
    delta::UsageDelta,
    scopes::{CountedScope, ScopedUsage},
};
use crate::{
    engine::{Engine, errors::rejection},
    store::{LoadFor, Store},
};

/// Paths that are listed at once.
const PAGE: usize = 1_024;
/// Streams that are loaded at once.
const LOADS: usize = 64;

impl Engine {
    /// Bounds what parts of the path space hold, from now on. Counts what they hold first, so nothing may be created,
    /// appended or deleted meanwhile: it is called before the engine serves, and once.
    ///
    /// Time: it loads the state of every stream in a scope.
    ///
    /// # Errors
    /// The store's errors; nothing is bounded then.
    pub async fn limit_scopes(&self, scopes: Vec<UsageScope>) -> Result<(), Rejection> {
        if scopes.is_empty() {
            return Ok(());
        }
        let usage = ScopedUsage::new(scopes);
        for at in 0..usage.0.len() {
            self.count_scope(&usage, at).await?;
        }
        let _ = self.context.usage.scopes.set(usage);
        Ok(())
    }

    /// What the scopes hold that the configuration names.
    pub fn scope_usage(&self) -> Vec<ScopeUsage> {
        self.context.usage.scopes.get().map(ScopedUsage::usage).unwrap_or_default()
    }

    async fn count_scope(&self, usage: &ScopedUsage, at: usize) -> Result<(), Rejection> {
        let Some(scope) = usage.0.get(at) else { return Ok(()) };
        // The stream at the prefix, and one at the prefix and a slash, come before those that are listed behind it.
        let Ok(prefix) = StreamPath::system(&scope.prefix) else { return Ok(()) };
        let Ok(mut after) = StreamPath::system(&format!("{}/", scope.prefix)) else {
            return self.count_streams(scope, vec![prefix]).await;
        };
        let inside = after.clone();
        self.count_streams(scope, vec![prefix, after.clone()]).await?;
        loop {
            let mut page = self.store.list(Some(&after), PAGE).await.map_err(rejection)?;
            let Some(last) = page.last().cloned() else { return Ok(()) };
            page.retain(|path| path.as_str().starts_with(inside.as_str()));
            self.count_streams(scope, page).await?;
            if !last.as_str().starts_with(inside.as_str()) {
                return Ok(());
            }
            after = last;
        }
    }

    async fn count_streams(
        &self,
        scope: &CountedScope,
        paths: Vec<StreamPath>,
    ) -> Result<(), Rejection> {
        let loads = paths.into_iter().map(async |path| {
            let loaded = self.store.load(&path, LoadFor::State).await;
            (path, loaded)
        });
        let mut loads = futures_util::stream::iter(loads).buffer_unordered(LOADS);
        while let Some((path, loaded)) = loads.next().await {
            if let Some(loaded) = loaded.map_err(rejection)? {
                let there = UsageDelta::deleted(&loaded.state).reverted();
                let _ = scope.change(&path, there, false);
            }
        }
        Ok(())
    }
}
