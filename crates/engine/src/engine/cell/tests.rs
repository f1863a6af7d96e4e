//! Cells on a log whose events become durable later, or never: what the store in memory cannot show.

use std::collections::VecDeque;

use bytes::Bytes;
use durable_streams_protocol::{Appended, Created, ForkPoint};
use proptest::prelude::*;

use super::*;
use crate::engine::{EngineLimits, forks::lock_both, usage::UsageDelta};
use crate::test_events;

mod observing;

/// A store's queue. What is durable is kept as states, to load from.
#[derive(Default)]
struct Log {
    epoch: LogEpoch,
    queue: VecDeque<Commit>,
    durable: Vec<(StreamState, Vec<StreamId>)>,
}

impl Log {
    fn take(&mut self, commit: Commit) -> Result<Committed, StoreError> {
        if commit.epoch != self.epoch {
            return Err(StoreError::Superseded);
        }
        self.queue.push_back(commit);
        Ok(Committed::Queued)
    }

    /// Makes the oldest event durable.
    fn sync(&mut self) {
        let Some(commit) = self.queue.pop_front() else { return };
        match &commit.event {
            StreamEvent::Created(created) => {
                if let Some(fork) = &created.fork {
                    self.entry(fork.source).1.push(commit.id);
                }
                self.durable.push((StreamState::created(commit.id, created), Vec::new()));
            }
            StreamEvent::Deleted { .. } => {
                self.durable.retain(|(state, _)| state.core.id != commit.id);
                self.durable.iter_mut().for_each(|(_, forks)| forks.retain(|id| *id != commit.id));
            }
            event => self.entry(commit.id).0.apply(event),
        }
        commit.sink.committed(commit.version);
    }

    fn entry(&mut self, id: StreamId) -> &mut (StreamState, Vec<StreamId>) {
        self.durable.iter_mut().find(|(state, _)| state.core.id == id).unwrap()
    }

    /// Loses everything queued.
    fn lose(&mut self) {
        self.epoch.0 += 1;
        for commit in self.queue.drain(..) {
            commit.sink.failed(commit.version, StoreError::Superseded);
        }
    }

    fn load(&self, cell: &Arc<StreamCell>) {
        let mut state = cell.state.lock();
        if !state.loaded && state.can_load() {
            let found = self.durable.iter().find(|(state, _)| state.core.path == cell.path);
            let loaded = found.map(|(state, forks)| loaded(state.clone(), forks.clone()));
            state.install(loaded, self.epoch);
        }
    }

    fn commit(
        &mut self,
        cell: &Arc<StreamCell>,
        id: u64,
        event: StreamEvent,
    ) -> Result<Option<Ticket>, StoreError> {
        let epoch = self.epoch;
        cell.state.lock().commit_to(
            cell,
            epoch,
            |commit| self.take(commit),
            decided(StreamId(id), event),
        )
    }
}

fn loaded(state: StreamState, forks: Vec<StreamId>) -> LoadedStream {
    LoadedStream { producers: state.producers.len() as u64, state, forks }
}

const NOW: Timestamp = Timestamp::from_millis(1);

fn decided(id: StreamId, event: StreamEvent) -> DecidedEvent<'static> {
    DecidedEvent { id, event, place: None, forks: None, usage: None }
}

fn cell(path: &str) -> Arc<StreamCell> {
    Arc::new(StreamCell::new(StreamPath::new(path).unwrap(), Arc::<CellContext>::default()))
}

fn created(cell: &StreamCell, fork: Option<ForkPoint>) -> StreamEvent {
    StreamEvent::Created(Box::new(Created {
        fork,
        ..test_events::creation(NOW, cell.path.clone(), Bytes::new())
    }))
}

fn appended(data: &'static str) -> StreamEvent {
    let data = Bytes::from_static(data.as_bytes());
    StreamEvent::Appended(Appended {
        at: NOW,
        data,
        terminators: 0,
        producer: None,
        stream_seq: None,
        close: false,
    })
}

/// The resolution of a ticket, or `None` while it waits.
fn answer(ticket: &mut Option<Ticket>) -> Option<Result<(), ()>> {
    ticket.as_mut().unwrap().try_wait()
}

fn created_stream(log: &mut Log, path: &str, id: u64) -> Arc<StreamCell> {
    let cell = cell(path);
    log.load(&cell);
    log.commit(&cell, id, created(&cell, None)).unwrap();
    log.sync();
    cell
}

#[test]
fn readers_see_what_is_durable_and_answers_wait_for_it() {
    let mut log = Log::default();
    let cell = created_stream(&mut log, "a", 1);
    let mut watch = cell.state.lock().watch(StreamId(1));
    let mut first = log.commit(&cell, 1, appended("ab")).unwrap();
    let mut second = log.commit(&cell, 1, appended("c")).unwrap();
    let mut looked = cell.state.lock().ticket();
    assert_eq!(cell.state.lock().assigned.as_ref().unwrap().tail, Offset::new(3));
    assert_eq!(watch.tail().offset, Offset::ZERO);
    assert!(!cell.is_clean(), "what is not durable keeps the cell");
    log.sync();
    assert_eq!((answer(&mut first), answer(&mut second)), (Some(Ok(())), None));
    assert_eq!((answer(&mut looked), watch.tail().offset), (None, Offset::new(2)));
    log.sync();
    assert_eq!((answer(&mut second), answer(&mut looked)), (Some(Ok(())), Some(Ok(()))));
    assert_eq!(watch.tail().offset, Offset::new(3));
    assert!(cell.state.lock().ticket().is_none());
}

/// What the store has is loaded again when it is needed.
#[test]
fn a_cell_may_leave_memory_when_the_store_has_all_of_it_and_nobody_watches() {
    let mut log = Log::default();
    let cell = created_stream(&mut log, "a", 1);
    assert!(cell.is_clean());
    log.commit(&cell, 1, appended("a")).unwrap();
    assert!(!cell.is_clean(), "an event is not durable");
    log.sync();
    assert!(cell.is_clean());
    let watch = cell.state.lock().watch(StreamId(1));
    assert!(!cell.is_clean(), "a reader waits");
    drop(watch);
    assert!(cell.is_clean());
    cell.state.lock().assigned.as_mut().unwrap().touched = Timestamp::from_millis(9);
    assert!(!cell.is_clean(), "the store does not know of a read");
    let locked = cell.state.lock();
    assert!(!cell.is_clean(), "it is in use");
    drop(locked);
    cell.mark_used(Timestamp::from_millis(5_999));
    let idle = [14_999, 15_000].map(|millis| cell.is_idle(Timestamp::from_millis(millis), 10));
    assert_eq!(idle, [false, true]);
    assert!(!cell.is_idle(Timestamp::default(), 1), "a clock that went back");
}

#[test]
fn what_is_lost_is_forgotten_and_the_durable_state_goes_on() {
    let mut log = Log::default();
    let cell = created_stream(&mut log, "a", 1);
    let mut first = log.commit(&cell, 1, appended("ab")).unwrap();
    let mut second = log.commit(&cell, 1, appended("c")).unwrap();
    let mut looked = cell.state.lock().ticket();
    log.sync();
    assert_eq!(answer(&mut first), Some(Ok(())));
    log.lose();
    assert_eq!((answer(&mut second), answer(&mut looked)), (Some(Err(())), Some(Err(()))));
    assert!(!cell.state.lock().loaded);
    log.load(&cell);
    assert_eq!(cell.state.lock().assigned.as_ref().unwrap().tail, Offset::new(2));
    let mut third = log.commit(&cell, 1, appended("d")).unwrap();
    log.sync();
    assert_eq!(answer(&mut third), Some(Ok(())));
    assert_eq!(cell.state.lock().durable.tail, Offset::new(3));
}

#[test]
fn a_refused_commit_leaves_nobody_waiting() {
    let mut log = Log::default();
    let cell = created_stream(&mut log, "a", 1);
    let closed = |_| Err(StoreError::Closed);
    let mut state = cell.state.lock();
    assert!(
        state.commit_to(&cell, LogEpoch(0), closed, decided(StreamId(1), appended("x"))).is_err()
    );
    assert!(state.ticket().is_none(), "there is nothing that could answer");
    assert!(state.can_load() && !state.loaded);
}

#[test]
fn a_lost_or_refused_event_gives_its_room_back() {
    let mut log = Log::default();
    let cell = created_stream(&mut log, "a", 1);
    let context = cell.context.clone();
    let commit = |log: &mut Log, bytes: usize| {
        let usage =
            context.usage.change(&cell.path, UsageDelta::appended(bytes), &EngineLimits::DEFAULT);
        let decided =
            DecidedEvent { usage: usage.ok(), ..decided(StreamId(1), appended("whatever")) };
        let epoch = log.epoch;
        cell.state.lock().commit_to(&cell, epoch, |commit| log.take(commit), decided)
    };
    let (_durable, _lost) = (commit(&mut log, 5).unwrap(), commit(&mut log, 7).unwrap());
    assert_eq!(context.usage.now(), (0, 12));
    log.sync();
    log.lose();
    assert_eq!(context.usage.now(), (0, 5));
    log.load(&cell);
    log.epoch.0 += 1;
    let stale = LogEpoch(log.epoch.0 - 1);
    let usage =
        context.usage.change(&cell.path, UsageDelta::created(9), &EngineLimits::DEFAULT).ok();
    let decided = DecidedEvent { usage, ..decided(StreamId(1), appended("x")) };
    let mut state = cell.state.lock();
    assert!(state.commit_to(&cell, stale, |commit| log.take(commit), decided).is_err());
    assert_eq!(context.usage.now(), (0, 5));
}

#[test]
fn a_stream_that_lost_nothing_goes_on_at_once() {
    let mut log = Log::default();
    let cell = created_stream(&mut log, "a", 1);
    log.lose();
    let mut reply = log.commit(&cell, 1, appended("x")).unwrap();
    log.sync();
    assert_eq!(answer(&mut reply), Some(Ok(())));
}

#[test]
fn an_event_decided_on_lost_state_is_refused() {
    let mut log = Log::default();
    let cell = created_stream(&mut log, "a", 1);
    let _lost = log.commit(&cell, 1, appended("x")).unwrap();
    // The log has moved on; the cell has not heard of it yet.
    log.epoch.0 += 1;
    assert!(matches!(log.commit(&cell, 1, appended("y")), Err(StoreError::Superseded)));
}

/// Forks, or deletes a fork of, stream 1 as the engine does.
fn change(log: &mut Log, source: &Arc<StreamCell>, fork: &Arc<StreamCell>, id: u64, added: bool) {
    let point = ForkPoint {
        source: StreamId(1),
        source_path: source.path.clone(),
        position: Offset::ZERO,
        requested: None,
        sub_offset: 0,
        ancestors: Vec::new(),
    };
    let event = if added { created(fork, Some(point)) } else { StreamEvent::Deleted { at: NOW } };
    let (source, source_id, fork_id) = (source.clone(), StreamId(1), StreamId(id));
    let (mut state, locked) = lock_both(fork, Some(&source));
    let forks = ForkChange { source: source.clone(), source_id, fork: fork_id, added };
    let epoch = log.epoch;
    let decided = DecidedEvent { forks: Some(forks), ..decided(fork_id, event) };
    state.commit_to(fork, epoch, |commit| log.take(commit), decided).unwrap();
    ForkChange::enter(&mut locked.unwrap(), fork_id, added);
}

#[test]
fn a_source_keeps_count_of_forks_that_are_lost() {
    let mut log = Log::default();
    let source = created_stream(&mut log, "m", 1);
    let count = |source: &StreamCell| source.state.lock().forks.len();
    for path in ["a", "z"] {
        let fork = cell(path);
        log.load(&fork);
        change(&mut log, &source, &fork, 2, true);
        change(&mut log, &source, &fork, 2, false);
        log.lose();
        assert_eq!(count(&source), 0, "neither came nor went");
        log.load(&fork);
        change(&mut log, &source, &fork, 3, true);
        log.sync();
        change(&mut log, &source, &fork, 3, false);
        assert_eq!(count(&source), 0);
        log.lose();
        assert_eq!(count(&source), 1, "the fork is still there");
        log.load(&fork);
        change(&mut log, &source, &fork, 3, false);
        log.sync();
        assert_eq!(count(&source), 0);
    }
}

proptest! {
    /// Appends, syncs and losses in any order: what was acknowledged is durable, in order, and nothing else is.
    #[test]
    fn acknowledged_is_durable(steps in proptest::collection::vec(0u8..8, 0..80)) {
        let mut log = Log::default();
        let cell = created_stream(&mut log, "a", 1);
        let mut waiting: Vec<(u64, Option<Ticket>)> = Vec::new();
        let mut acknowledged = 0;
        let mut seen = 0;
        for step in steps {
            match step {
                0..=3 => {
                    log.load(&cell);
                    let before = cell.state.lock().assigned.as_ref().unwrap().tail.position();
                    let reply = log.commit(&cell, 1, appended("x")).unwrap();
                    waiting.push((before + 1, reply));
                }
                4..=6 => log.sync(),
                _ => log.lose(),
            }
            waiting.retain_mut(|(tail, reply)| match answer(reply) {
                None => true,
                Some(Ok(())) => {
                    assert_eq!(*tail, acknowledged + 1, "in order, without a gap");
                    acknowledged = *tail;
                    false
                }
                Some(Err(())) => false,
            });
            let durable = log.durable.first().unwrap().0.tail.position();
            prop_assert_eq!(acknowledged, durable);
            let published = cell.state.lock().durable.tail.position();
            prop_assert_eq!(published, durable);
            prop_assert!(published >= seen, "a reader's tail never goes back");
            seen = published;
        }
    }
}
