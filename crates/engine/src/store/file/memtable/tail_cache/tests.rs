use super::*;

/// Bytes that differ from their neighbours.
fn bytes(from: usize, len: usize) -> Bytes {
    (from..from + len).map(|at| (at % 251) as u8).collect()
}

fn filled(lens: &[usize]) -> TailCache {
    let mut cache = TailCache::default();
    for len in lens {
        cache.push(bytes(cache.end as usize, *len));
    }
    cache
}

fn clean_lens(cache: &TailCache) -> Vec<usize> {
    cache.clean.iter().map(|(_, piece)| piece.len()).collect()
}

fn read(cache: &TailCache) -> Vec<u8> {
    cache.read(Offset::ZERO, Offset::new(cache.end), usize::MAX).unwrap().concat()
}

#[test]
fn small_pieces_are_joined_once_they_are_indexed_and_large_ones_are_not_copied() {
    let lens = [256; 1000];
    let whole = bytes(0, 256_000);
    for step in [1, 3, 64, 1000] {
        let mut cache = filled(&lens);
        let mut clean = 0;
        for indexed in (0..=lens.len()).step_by(step).chain([lens.len()]) {
            clean += cache.mark_indexed(256 * indexed as u64);
            assert_eq!(clean, cache.clean_len());
            assert_eq!(cache.indexed, 256 * indexed as u64);
            assert_eq!(read(&cache), whole);
        }
        let longest = cache.clean.iter().map(|(_, piece)| piece.len()).max();
        assert!(longest <= Some(JOIN));
        // Two neighbours make at least one that is not small.
        assert!(cache.clean.len() <= 2 * whole.len() / SMALL + 1, "{} pieces", cache.clean.len());
    }

    let mut cache = filled(&[10, SMALL, 20, 30, SMALL + 1]);
    let kept: Vec<_> = [0, 1, 4].map(|at: usize| cache.fresh[at].1.as_ptr()).into();
    cache.mark_indexed(u64::MAX);
    assert_eq!(clean_lens(&cache), [10, SMALL, 50, SMALL + 1]);
    assert_eq!([0, 1, 3].map(|at: usize| cache.clean[at].1.as_ptr()), *kept);

    let mut cache = filled(&[256; 1000]);
    cache.mark_indexed(u64::MAX);
    assert_eq!(clean_lens(&cache), [JOIN, JOIN, JOIN, 256_000 - 3 * JOIN]);
    let mut cache = filled(&[300; 1000]);
    cache.mark_indexed(u64::MAX);
    assert_eq!(clean_lens(&cache), [65_400, 65_400, 65_400, 65_400, 38_400]);
}

/// Every answer of [`TailCache::append_end`] against a list of the ends.
fn check_ends(cache: &TailCache, ends: &[u64], known_from: u64) {
    let tail = cache.end;
    for from in (0..tail).step_by(7).chain(ends.iter().copied()).filter(|from| *from < tail) {
        for within in [0, 1, 5, 99, 100, 101, 4000] {
            let (at, limit) = (Offset::new(from), Offset::new(from + within));
            if limit >= Offset::new(tail) {
                continue;
            }
            let (before, after) =
                ends.split_at(ends.partition_point(|end| *end <= limit.position()));
            let last = before.last().filter(|end| **end > from);
            let expected = last.or(after.first()).map(|end| Offset::new(*end));
            let expected = expected.filter(|_| limit >= Offset::new(known_from));
            assert_eq!(cache.append_end(at, Offset::new(tail), limit), expected, "{from} {within}");
        }
    }
}

#[test]
fn ends_of_appends_survive_the_joining_of_pieces() {
    let lens: Vec<usize> = (0..300).map(|n| 1 + n * n % 150).collect();
    let ends: Vec<u64> = lens
        .iter()
        .scan(0, |end, len| {
            *end += *len as u64;
            Some(*end)
        })
        .collect();
    for step in [1, 7, 300] {
        let mut cache = filled(&lens);
        let mut clean = 0;
        check_ends(&cache, &ends, 0);
        for upto in (0..lens.len()).step_by(step).skip(1).chain([lens.len()]) {
            clean += cache.mark_indexed(ends[upto - 1]);
            assert_eq!(clean, cache.clean_len());
            if upto % 50 < step {
                check_ends(&cache, &ends, 0);
            }
        }
        check_ends(&cache, &ends, 0);
        cache.push(bytes(0, 500));
        let dropped_to = cache.indexed;
        cache.drop_clean();
        let ends = [&ends[..], &[cache.end]].concat();
        check_ends(&cache, &ends, dropped_to);
    }
    let mut json = filled(&lens);
    json.note_json();
    json.mark_indexed(ends[150]);
    assert!(json.clean_ends.is_none());
    assert_eq!(json.append_end(Offset::ZERO, Offset::new(9), Offset::new(5)), None);
}

#[test]
fn bytes_of_unknown_appends_have_an_end_where_known_ones_begin() {
    let mut cache = TailCache::default();
    cache.push(bytes(0, 1000));
    cache.mark_indexed(1000);
    cache.clean_ends = Some(Box::new(AppendEnds::beginning_at(1000)));
    (0..10).for_each(|n| cache.push(bytes(n, 100)));
    let ends: Vec<u64> = (10..=20).map(|n| n * 100).collect();
    check_ends(&cache, &ends, 1000);
    cache.mark_indexed(1500);
    check_ends(&cache, &ends, 1000);
}

#[test]
fn a_read_gives_the_bytes_of_its_range_up_to_its_size() {
    let mut cache = filled(&[7, 1, SMALL, 3, 4]);
    cache.mark_indexed(8);
    let whole = read(&cache);
    let tail = cache.end as usize;
    let places = [0, 1, 6, 7, 8, 9, SMALL + 7, SMALL + 8, SMALL + 10, SMALL + 11, tail - 1];
    for from in places {
        for to in places.into_iter().chain([tail]).filter(|to| *to > from) {
            for max in [1, 2, 7, 8, 9, SMALL, tail] {
                let (at, end) = (Offset::new(from as u64), Offset::new(to as u64));
                let pieces = cache.read(at, end, max).unwrap();
                assert!(pieces.iter().all(|piece| !piece.is_empty()));
                assert_eq!(pieces.concat(), whole[from..to.min(from + max)]);
            }
        }
    }
    assert_eq!(cache.read(Offset::new(tail as u64), Offset::new(tail as u64), 9), Some(vec![]));
}

#[test]
fn what_is_dropped_is_not_read_and_what_is_fresh_stays() {
    let mut cache = filled(&[100, 100, 100]);
    // So that only bytes are counted.
    cache.json = true;
    assert_eq!(cache.mark_indexed(199), 100);
    assert_eq!(cache.mark_indexed(200), 100);
    assert_eq!(cache.drop_clean(), 200);
    assert_eq!(cache.drop_clean(), 0);
    assert!(cache.read(Offset::new(199), Offset::new(300), 1000).is_none());
    let rest = cache.read(Offset::new(200), Offset::new(300), 1000).unwrap();
    assert_eq!(rest.concat(), bytes(200, 100));
    assert_eq!(cache.mark_indexed(300), 100);
    assert_eq!(cache.clear(), 100);
    assert!(cache.is_empty() && cache.end() == 300);
    assert_eq!(cache.mark_indexed(300), 0);
}
