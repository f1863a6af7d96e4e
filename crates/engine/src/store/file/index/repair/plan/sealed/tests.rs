use std::io;

use super::*;

fn io(kind: io::ErrorKind) -> StoreError {
    StoreError::Io { operation: "read", path: "here".into(), source: io::Error::from(kind).into() }
}

fn damaged() -> StoreError {
    StoreError::Corrupt { path: "here".into(), offset: 0, found: "damage".into() }
}

#[test]
fn a_file_that_is_damaged_or_missing_is_told_from_one_that_cannot_be_read_now() {
    assert!(is_damage(&damaged()) && is_damage(&io(ErrorKind::NotFound)));
    assert!(!is_damage(&io(ErrorKind::PermissionDenied)) && !is_damage(&io(ErrorKind::Other)));
    assert!(!is_damage(&StoreError::Full { path: "here".into() }));
}

#[test]
fn an_object_store_that_does_not_answer_has_lost_nothing() {
    use SegmentReadError::{Failed, Missing};
    let of = |place, error| {
        let record = SegmentRecord {
            file_len: 200,
            data: 9,
            live: 4,
            footer_crc: 1,
            place,
            sealed_at: None,
        };
        unanswered(&record, error).is_ok()
    };
    let other = || io(ErrorKind::Other);
    assert!(!of(SegmentPlace::Object, Failed(other())));
    // What the disk cannot read is lost.
    for place in [SegmentPlace::Local, SegmentPlace::Both] {
        assert!(of(place, Failed(other())), "{place:?}");
    }
    assert!(of(SegmentPlace::Object, Failed(damaged())));
    assert!(of(SegmentPlace::Object, Missing(other())));
}
