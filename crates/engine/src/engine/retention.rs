//! Retention by rules: a background walk trims streams that keep more than they should.
//!
//! The walk goes through the states in the store, some at a time with a pause after each, and never on the way of an
//! append. A stream is loaded only when something is to be done with it: a trim, or a note of where its tail is now, by which
//! its bytes are known to be old later.
//!
//! | file | what it does |
//! |---|---|
//! | here | the walk |
//! | `rule` | what a rule is |
//! | `measure` | what a rule says of one stream |

mod measure;
mod rule;

use std::{ops::Bound, sync::Weak, time::Duration};

use durable_streams_protocol::{Rejection, StreamEvent, StreamPath, StreamState, split_stored};

use super::{Engine, Ticket, cell::DecidedEvent, errors::rejection, here, reloading, ttl::touched};
use crate::store::{LoadFor, Store, StoredStream};

pub use rule::RetentionRule;
use rule::SLACK;

/// Streams that are looked at together.
const PAGE: usize = 128;
/// The pause after each page: 5,000 streams a second are looked at, at most.
const PAGE_PAUSE: Duration = Duration::from_millis(25);
/// Between two walks, at least and at most.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];
/// What the stored paths of all tenants begin with.
const TENANTS: &str = "__ds/t/";

impl Engine {
    /// Applies the rules of [`EngineLimits::retention`](super::EngineLimits::retention), again and again until the engine
    /// is dropped. Spawn it once per engine, on a tokio runtime with time.
    pub async fn retention(engine: Weak<Engine>) {
        loop {
            let Some(pause) = engine.upgrade().map(|engine| engine.retention_pause()) else {
                return;
            };
            tokio::time::sleep(pause).await;
            let mut walk = RetentionWalk::default();
            loop {
                let Some(engine) = engine.upgrade() else { return };
                if !engine.retain_page(&mut walk).await {
                    break;
                }
                drop(engine);
                tokio::time::sleep(PAGE_PAUSE).await;
            }
        }
    }

    /// Applies the rules to all streams once, without pauses.
    pub async fn retain_all(&self) {
        let mut walk = RetentionWalk::default();
        while self.retain_page(&mut walk).await {}
    }

    /// Marks come sixteen to a rule's time, so walks do, too.
    fn retention_pause(&self) -> Duration {
        let [least, most] = PAUSES;
        let limits = self.limits();
        let times = limits.retention.iter().filter_map(|rule| rule.keep_for);
        times.map(|time| time / SLACK).fold(most, Duration::min).max(least)
    }

    /// Applies the rules to the next streams of a walk. Returns whether there are more.
    async fn retain_page(&self, walk: &mut RetentionWalk) -> bool {
        let rules = self.limits().retention.clone();
        let Some(rule) = rules.get(walk.rule) else { return false };
        let prefix = walk.prefix(rule);
        let start = StreamPath::system(&prefix).ok();
        let from = match (&walk.after, &start) {
            (Some(after), _) => Bound::Excluded(after),
            (None, Some(start)) => Bound::Included(start),
            (None, None) => Bound::Unbounded,
        };
        let page = match self.store.list_states(from, &prefix, PAGE).await {
            Ok(page) => page,
            Err(error) => {
                tracing::error!(%error, "retention cannot look at the streams");
                return false;
            }
        };
        let last = page.streams.last().map(|stored| stored.path.clone());
        let mut ticket = None;
        for stored in page.streams {
            let path = stored.path.clone();
            let client = split_stored(path.as_str()).map(|(_, named)| named);
            let first =
                client.and_then(|named| rules.iter().position(|rule| rule.paths.matches(named)));
            if first != Some(walk.rule) {
                continue;
            }
            match self.retain(&stored, rule).await {
                Ok(waits) => ticket = waits.or(ticket),
                Err(Rejection::NotFound | Rejection::Gone) => {}
                Err(error) => {
                    tracing::debug!(path = path.as_str(), %error, "a stream is not trimmed now");
                }
            }
        }
        // Events become durable in the order in which they were decided.
        touched(ticket).await;
        walk.advance(rule, last.filter(|_| page.more))
    }

    /// Trims one stream as a rule says, and notes where its tail is if that is due.
    async fn retain(
        &self,
        stored: &StoredStream,
        rule: &RetentionRule,
    ) -> Result<Option<Ticket>, Rejection> {
        let Ok(state) = &stored.state else { return Ok(None) };
        let now = self.clock.now();
        if state.soft_deleted || state.is_expired(now) {
            return Ok(None);
        }
        let kept = self.kept_by(state, rule, now).await?;
        let releases = stored.forks == 0 && state.keeps_trimmed_bytes();
        let mut ticket = None;
        if kept.from > state.earliest || releases {
            let judged = self.judge_trim_at(&stored.path, &state.core, kept.from, kept.messages);
            ticket = judged.await?.ticket;
        }
        if measure::is_mark_due(state, rule, now) {
            ticket = self.mark(&stored.path, state).await?.or(ticket);
        }
        Ok(ticket)
    }

    /// Notes in the log where a stream's tail is.
    async fn mark(
        &self,
        path: &StreamPath,
        seen: &StreamState,
    ) -> Result<Option<Ticket>, Rejection> {
        self.look(path, LoadFor::State, |cell, state, now| {
            let id = here(state, now)?.core.id;
            if id != seen.core.id {
                return Err(reloading());
            }
            let event = StreamEvent::Marked { at: now };
            let decided = DecidedEvent { id, event, place: None, forks: None, usage: None };
            state.commit(cell, &self.store, decided).map_err(rejection)
        })
        .await
    }
}

/// How far a walk has come: each rule in turn, among the streams of no tenant and then among those of all.
#[derive(Default)]
struct RetentionWalk {
    rule: usize,
    tenants: bool,
    after: Option<StreamPath>,
}

impl RetentionWalk {
    fn prefix(&self, rule: &RetentionRule) -> String {
        if self.tenants { TENANTS.to_owned() } else { rule.paths.literal_prefix() }
    }

    /// Goes on behind `after`, or at the next part.
    fn advance(&mut self, rule: &RetentionRule, after: Option<StreamPath>) -> bool {
        self.after = after;
        if self.after.is_none() {
            // Without a prefix the first part has those of tenants, too.
            let all = self.tenants || rule.paths.literal_prefix().is_empty();
            (self.rule, self.tenants) =
                if all { (self.rule + 1, false) } else { (self.rule, true) };
        }
        true
    }
}

#[cfg(test)]
mod tests;
