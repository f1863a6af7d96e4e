//! Checks of extents: they follow each other, and those of deleted streams count.

use super::{
    super::sealing::{FILE, chunked, extent, segment},
    *,
};

/// Until they are purged, they are among what is there.
#[test]
fn extents_of_a_deleted_stream_are_counted_and_are_no_problem() {
    let mut index = TestIndex::new();
    chunked(&mut index, ONE, "/a", 3);
    chunked(&mut index, TWO, "/b", 1);
    index.hand_over(&segment(FILE, &[(TWO, extent(0, 20_000), None)]));
    index.hand_over(&segment(
        8,
        &[(ONE, extent(0, 20_000), None), (ONE, extent(20_000, 45_000), None)],
    ));
    assert_eq!(problems(&index), [""; 0]);
    index.fold([(ONE, deleted())]);
    assert_eq!(problems(&index), [""; 0]);
    tamper(&index, true, |index, txn| {
        index.extents.delete(txn, &keys::chunk(ONE, Offset::new(20_000)))?;
        Ok(())
    });
    assert_eq!(problems(&index), ["extents have 40000 bytes, and segment files should have 65000"]);
}

#[test]
fn extents_follow_each_other_from_the_first_byte_that_is_kept() {
    let missing = |from| format!("the bytes of stream 1 (/a) from position {from} on are missing");
    for (trim, removed, expected) in [
        (0, None, vec![]),
        (0, Some(0), vec![missing(0)]),
        (0, Some(20_000), vec![missing(20_000)]),
        (10, None, vec![]),
        (20_000, None, vec![]),
        (30_000, None, vec![]),
        (30_000, Some(20_000), vec![missing(20_000)]),
        (50_000, Some(0), vec![]),
    ] {
        let mut index = TestIndex::new();
        chunked(&mut index, ONE, "/a", 4);
        for n in 0..3 {
            let part = extent(n * 20_000, (n + 1) * 20_000);
            index.hand_over(&segment(FILE + n, &[(ONE, part, None)]));
        }
        if trim > 0 {
            index.fold([(ONE, trimmed(trim))]);
        }
        tamper(&index, true, |index, txn| {
            if let Some(at) = removed {
                index.extents.delete(txn, &keys::chunk(ONE, Offset::new(at)))?;
            }
            Ok(())
        });
        let mut found = problems(&index);
        found.retain(|problem| !problem.starts_with("extents have 40000 bytes"));
        assert_eq!(found, expected, "trimmed before {trim}, without {removed:?}");
    }
    // Before the bytes of a fork begin, which was not trimmed.
    let index = filled();
    index.hand_over(&segment(FILE, &[(ONE, extent(0, 20_210), None)]));
    tamper(&index, true, |index, txn| {
        index.put_extent(txn, TWO, &ExtentRecord { file: FILE, ..extent(40, 50) })
    });
    let mut found = problems(&index);
    found.retain(|problem| !problem.starts_with("extents have 20220 bytes"));
    assert_eq!(found, ["the bytes of stream 2 (/b) from position 50 on are missing"]);
}
