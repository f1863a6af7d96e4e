//! What the observer hears, and reports of the store that come late.

use super::*;
use crate::store::CommitSink as _;

#[derive(Default)]
struct Heard(Mutex<Vec<(bool, Tail)>>);

impl StreamObserver for Heard {
    fn on_durable(&self, _: &StreamPath, core: Option<&Arc<StreamCore>>, tail: Tail) {
        self.0.lock().push((core.is_some(), tail));
    }
}

/// Nothing before it is durable, and nothing of touches.
#[test]
fn the_observer_hears_of_every_change_of_the_tail_and_of_what_exists() {
    let mut log = Log::default();
    let cell = cell("a");
    let heard = Arc::<Heard>::default();
    cell.context.observer.set(heard.clone()).ok();
    log.load(&cell);
    let told = |log: &mut Log, event: StreamEvent| {
        log.commit(&cell, 1, event).unwrap();
        assert_eq!(heard.0.lock().len(), 0, "it is not durable");
        log.sync();
        std::mem::take(&mut *heard.0.lock())
    };
    let at = |offset| Tail { offset: Offset::new(offset), ..Tail::default() };
    let event = created(&super::cell("a"), None);
    assert_eq!(told(&mut log, event), [(true, at(0))]);
    assert_eq!(told(&mut log, appended("abc")), [(true, at(3))]);
    assert_eq!(told(&mut log, StreamEvent::Touched { at: NOW }), []);
    assert_eq!(told(&mut log, appended("")), []);
    let gone = Tail { gone: true, ..at(3) };
    assert_eq!(told(&mut log, StreamEvent::SoftDeleted { at: NOW }), [(true, gone)]);
    let none = Tail { gone: true, ..at(0) };
    assert_eq!(told(&mut log, StreamEvent::Deleted { at: NOW }), [(false, none)]);
}

/// The loss of an event takes those with it that were decided on it, and no others.
#[test]
fn a_failure_that_was_reported_before_loses_nothing() {
    let mut log = Log::default();
    let cell = created_stream(&mut log, "a", 1);
    let mut ticket = log.commit(&cell, 1, appended("ab")).unwrap();
    cell.failed(1, StoreError::Superseded);
    assert_eq!(answer(&mut ticket), None);
    assert!(cell.state.lock().loaded);
    log.sync();
    assert_eq!(answer(&mut ticket), Some(Ok(())));
    cell.failed(2, StoreError::Superseded);
    assert!(cell.state.lock().loaded, "it is durable");
    let mut ticket = log.commit(&cell, 1, appended("c")).unwrap();
    cell.failed(3, StoreError::Superseded);
    assert_eq!(answer(&mut ticket), Some(Err(())));
    assert!(!cell.state.lock().loaded);
}
