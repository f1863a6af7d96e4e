//! Names that the index does not have yet.

use std::ops::Bound;

use super::*;

fn path(path: &str) -> StreamPath {
    StreamPath::new(path).unwrap()
}

const fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn fork(name: &str, source: u64) -> StreamEvent {
    let fork = ForkPoint {
        source: StreamId(source),
        source_path: path("/source"),
        position: Offset::ZERO,
        requested: None,
        sub_offset: 0,
        ancestors: Vec::new(),
    };
    StreamEvent::Created(Box::new(Created { fork: Some(fork), ..creation(name, b"") }))
}

fn expiring(name: &str, deadline: u64) -> StreamEvent {
    let expiry = Expiry::At(at(deadline));
    StreamEvent::Created(Box::new(Created { expiry, ..creation(name, b"") }))
}

fn ids(ids: &[u64]) -> Vec<StreamId> {
    ids.iter().map(|id| StreamId(*id)).collect()
}

#[test]
fn a_path_leads_to_its_newest_stream_until_the_index_has_it() {
    let memtable = Memtable::new(0, 1, 0, 0, 0);
    let found = |name: &str| memtable.names.lock().at(&path(name));
    publish(&memtable, [(1, created("/a", b""))]);
    let first = memtable.seal();
    publish(&memtable, [(1, deleted()), (2, created("/a", b""))]);
    assert_eq!((found("/a"), found("/b")), (Some(StreamId(2)), None));
    assert!(memtable.names.lock().is_deleted(StreamId(1)));
    assert!(!memtable.names.lock().is_deleted(StreamId(2)));
    memtable.evict_folded(&first.dirty, &[], first.lsn, 0);
    assert_eq!(found("/a"), Some(StreamId(2)), "of the next checkpoint");
    checkpoint(&memtable);
    assert_eq!(found("/a"), None);
    assert!(!memtable.names.lock().is_deleted(StreamId(1)));
}

#[test]
fn paths_are_listed_in_order_without_those_of_deleted_streams() {
    let memtable = Memtable::new(0, 1, 0, 0, 0);
    let names = ["/a", "/b", "/b/c", "/b/d", "/c"];
    publish(&memtable, (1..).zip(names).map(|(id, name)| (id, created(name, b""))));
    publish(&memtable, [(3, deleted())]);
    let list = |after: Option<&str>, max| {
        let found = memtable.names.lock().list(after.map(path).as_ref(), max);
        found.iter().map(|path| path.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list(None, 9), ["/a", "/b", "/b/d", "/c"]);
    assert_eq!(list(Some("/b"), 9), ["/b/d", "/c"]);
    assert_eq!(list(Some("/b"), 1), ["/b/d"]);
    let range = |from: Bound<&StreamPath>, prefix, max| {
        let found = memtable.names.lock().range(from, prefix, max);
        found.iter().map(|(path, id)| (path.as_str().to_owned(), id.0)).collect::<Vec<_>>()
    };
    let found = |names: &[(&str, u64)]| {
        names.iter().map(|(name, id)| ((*name).to_owned(), *id)).collect::<Vec<_>>()
    };
    assert_eq!(range(Bound::Included(&path("/b")), "/b", 9), found(&[("/b", 2), ("/b/d", 4)]));
    assert_eq!(range(Bound::Excluded(&path("/b")), "/b", 9), found(&[("/b/d", 4)]));
    assert_eq!(range(Bound::Included(&path("/b")), "/b", 1), found(&[("/b", 2)]));
    assert_eq!(range(Bound::Included(&path("/b")), "/c", 9), []);
}

#[test]
fn forks_are_those_of_the_index_and_the_new_ones_without_the_deleted() {
    let memtable = Memtable::new(0, 1, 0, 0, 0);
    publish(&memtable, [(5, fork("/f", 1)), (6, fork("/g", 1)), (7, fork("/h", 2))]);
    let forks =
        |source, indexed: &[u64]| memtable.names.lock().forks(StreamId(source), ids(indexed));
    assert_eq!(forks(1, &[3, 6]), ids(&[3, 5, 6]));
    assert_eq!((forks(2, &[]), forks(3, &[4])), (ids(&[7]), ids(&[4])));
    let sealed = memtable.seal();
    publish(&memtable, [(3, deleted()), (5, deleted()), (8, fork("/i", 1))]);
    assert_eq!(forks(1, &[3]), ids(&[6, 8]));
    memtable.evict_folded(&sealed.dirty, &[], sealed.lsn, 0);
    assert_eq!((forks(1, &[]), forks(2, &[])), (ids(&[8]), vec![]));
    checkpoint(&memtable);
    assert_eq!(forks(1, &[]), []);
}

#[test]
fn a_stream_is_due_at_its_deadline_and_at_once_when_it_waits_for_its_forks_only() {
    let memtable = Memtable::new(0, 1, 0, 0, 0);
    publish(
        &memtable,
        [(1, expiring("/a", 5000)), (2, created("/b", b"")), (3, expiring("/c", 7000))],
    );
    let due = |now| memtable.names.lock().maybe_due(at(now));
    assert_eq!([4999, 5000, 6999].map(due), [vec![], ids(&[1]), ids(&[1])]);
    assert_eq!(due(7000), ids(&[1, 3]));
    assert_eq!(memtable.names.lock().expiring(), ids(&[1, 3]));
    let changed = |expiry| StreamEvent::ExpiryChanged { at: at(1), expiry };
    publish(&memtable, [(2, changed(Expiry::At(at(6000)))), (1, changed(Expiry::Never))]);
    assert_eq!(due(6000), ids(&[1, 2]));
    publish(&memtable, [(3, StreamEvent::SoftDeleted { at: at(2) })]);
    assert_eq!(due(0), ids(&[3]));
    checkpoint(&memtable);
    assert_eq!((due(9000), memtable.names.lock().expiring()), (vec![], vec![]));
}

/// A checkpoint may use the index's last pages for them.
#[test]
fn deletions_and_trims_are_known_until_a_checkpoint_has_folded_them_in() {
    let trimmed = || {
        let (before, kept) = (Offset::new(1), Offset::new(1));
        StreamEvent::Trimmed(Trimmed { at: at(2), before, kept, messages: None })
    };
    let memtable = Memtable::new(0, 1, 0, 0, 0);
    let has = || memtable.names.lock().has_deletions();
    publish(&memtable, [(1, created("/a", b"abc")), (2, created("/b", b"abc"))]);
    assert!(!has());
    publish(&memtable, [(1, trimmed()), (2, trimmed())]);
    let sealed = memtable.seal();
    assert!(has());
    publish(&memtable, [(2, trimmed())]);
    memtable.evict_folded(&sealed.dirty, &[], sealed.lsn, 0);
    assert!(has(), "one is left");
    checkpoint(&memtable);
    assert!(!has());
    publish(&memtable, [(2, deleted())]);
    assert!(has());
    checkpoint(&memtable);
    assert!(!has());
}
