use durable_streams_protocol::MESSAGE_END;
use proptest::prelude::*;

use super::*;

fn example(number: u64, large: usize) -> Vec<u8> {
    let bytes: Vec<u8> = (0..large).map(|at| (at * 31 % 251) as u8).collect();
    SegmentWriter::file(
        number,
        &[(7, 100, &[3, 4], b"onefour"), (9, 0, &[], &bytes), (7, 107, &[1], b"!")],
    )
}

#[test]
fn a_file_is_read_as_it_was_written() {
    for large in [1, BLOCK - 8, BLOCK - 7, BLOCK, 3 * BLOCK + 5] {
        let file = example(4, large);
        let footer = SegmentFooter::of_file(4, &file).unwrap();
        assert_eq!(footer.file_len(), file.len() as u64);
        let places: Vec<_> = footer.extents.iter().map(|e| (e.stream, e.start, e.len)).collect();
        assert_eq!(places, [(7, 100, 7), (9, 0, large as u64), (7, 107, 1)]);
        assert_eq!(footer.extents[0].append_lens, [3, 4]);
        let last = &footer.extents[2];
        assert_eq!(&file[last.offset as usize..][..1], b"!");
        assert_eq!(footer.data_end(), last.offset + 1);
    }
    let empty = SegmentWriter::file(1, &[]);
    assert!(SegmentFooter::of_file(1, &empty).unwrap().block_crcs.is_empty());
}

#[test]
fn pieces_of_any_size_make_the_same_file() {
    let bytes: Vec<u8> = (0..3 * BLOCK + 77).map(|at| (at % 13) as u8).collect();
    let whole = SegmentWriter::file(1, &[(5, 0, &[], &bytes)]);
    for piece in [1000, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK] {
        let mut writer = SegmentWriter::new(1);
        writer.begin_extent(5, 0, Vec::new(), MessageForm::Stored);
        bytes.chunks(piece).for_each(|piece| assert_eq!(writer.push(piece), piece));
        assert_eq!(writer.extent_crc(), crc32c::crc32c(&bytes));
        assert_eq!(writer.finish().0, whole[HEADER + bytes.len()..], "{piece}");
    }
}

/// Every bit of a file, in every part of it.
#[test]
fn a_flipped_bit_anywhere_is_refused() {
    let json = b"1\x1e[2,3]\x1e";
    let array = SegmentWriter::file_as(4, MessageForm::Array, &[(7, 0, &[], json)]);
    for mut file in [example(4, 300), array] {
        SegmentFooter::of_file(4, &file).unwrap();
        for at in 0..file.len() {
            for bit in 0..8 {
                file[at] ^= 1 << bit;
                assert!(SegmentFooter::of_file(4, &file).is_err(), "bit {bit} of byte {at}");
                file[at] ^= 1 << bit;
            }
        }
    }
}

/// Messages of so many bytes, each with its terminator.
fn messages(sizes: impl IntoIterator<Item = usize>) -> Vec<u8> {
    let message = |size| [vec![b','; size], vec![MESSAGE_END]].concat();
    sizes.into_iter().flat_map(message).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever the sizes of messages, of the pieces that are written and of those that are read.
    #[test]
    fn an_array_has_commas_and_gives_the_terminators_back(
        sizes in proptest::collection::vec(prop_oneof![0usize..40, 0usize..9_000, 60_000usize..140_000], 1..40),
        pieces in 1usize..200_000,
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 8),
    ) {
        let stored = messages(sizes);
        let commas: Vec<u8> = vec![b','; stored.len()];
        let mut writer = SegmentWriter::new(1);
        writer.begin_extent(5, 0, Vec::new(), MessageForm::Array);
        let mut data = Vec::new();
        for piece in stored.chunks(pieces) {
            data.extend_from_slice(&writer.push(piece));
        }
        prop_assert!(data == commas);
        prop_assert_eq!(writer.extent_crc(), crc32c::crc32c(&data));
        let (end, written) = writer.finish();
        let file = [&header(1)[..], &data, &end].concat();
        let footer = SegmentFooter::of_file(1, &file).unwrap();
        prop_assert_eq!(&footer, &written);
        prop_assert_eq!(file, SegmentWriter::file_as(1, MessageForm::Array, &[(5, 0, &[], &stored)]));
        for (one, other) in cuts {
            let (one, other) = (one.index(stored.len() + 1), other.index(stored.len() + 1));
            let range = one.min(other)..one.max(other);
            let mut part = data[range.clone()].to_vec();
            footer.restore((HEADER + range.start) as u64, &mut part);
            prop_assert!(part == stored[range.clone()], "{:?}", range);
            let shared = bytes::Bytes::from(data.clone());
            let part = footer.restored((HEADER + range.start) as u64, shared.slice(range.clone()));
            prop_assert!(part == stored[range] && shared == data, "what others have is left as it is");
        }
    }
}

/// A text stream may have any byte.
#[test]
fn only_extents_of_the_form_have_commas() {
    let stored = messages([5, 70_000, 9]);
    let mut writer = SegmentWriter::new(1);
    let mut data = Vec::new();
    for form in [MessageForm::Stored, MessageForm::Array, MessageForm::Stored] {
        writer.begin_extent(5, 0, Vec::new(), form);
        data.extend_from_slice(&writer.push(&stored));
    }
    let file = [&header(1)[..], &data, &writer.finish().0].concat();
    let footer = SegmentFooter::of_file(1, &file).unwrap();
    let commas = vec![b','; stored.len()];
    assert!(data == [&stored[..], &commas, &stored].concat());
    footer.restore(HEADER as u64, &mut data);
    assert!(data == [&stored[..], &stored, &stored].concat());
    let len = stored.len();
    let first = len + 5;
    for (range, has) in [
        (0..len, false),
        (0..first, false),
        (0..first + 1, true),
        (first..first + 1, true),
        (first + 1..first + 70_001, false),
        (first + 1..first + 70_002, true),
        (2 * len - 1..2 * len, true),
        (2 * len..3 * len, false),
        (first..first, false),
    ] {
        let places = (HEADER + range.start) as u64..(HEADER + range.end) as u64;
        assert_eq!(footer.has_commas(places), has, "{range:?}");
    }
}

#[test]
fn the_stored_form_is_left_as_it_is() {
    let stored = messages([3, 5]);
    let file = SegmentWriter::file(1, &[(5, 0, &[], &stored)]);
    assert_eq!(file[HEADER..][..stored.len()], stored);
    let footer = SegmentFooter::of_file(1, &file).unwrap();
    assert_eq!((footer.trailer.form, footer.size()), (MessageForm::Stored, 4));
    assert_eq!(footer.restored(HEADER as u64, bytes::Bytes::from_static(b",,")), b",,"[..]);
}

#[test]
fn a_list_of_tiny_messages_is_not_worth_its_bytes() {
    let tiny = |count: usize, size: usize| {
        let mut writer = SegmentWriter::new(1);
        writer.begin_extent(5, 0, Vec::new(), MessageForm::Array);
        writer.push(&messages(std::iter::repeat_n(size, count)));
        (writer.has_tiny_messages(), writer.finish().1.size())
    };
    // Up to 64 KiB, or a sixty-fourth of the data, for the list. The size has the checksums, too.
    let checksum = 4;
    let blocks = |bytes: usize| bytes.div_ceil(BLOCK);
    assert_eq!(
        tiny(32_766, 1),
        (false, 2 * 32_766 + blocks(65_532) * 4 + checksum * blocks(65_532))
    );
    assert!(tiny(32_768, 1).0);
    let mut writer = SegmentWriter::new(1);
    writer.begin_extent(5, 0, Vec::new(), MessageForm::Array);
    // 32,766 places, and a block that has ended: 64 KiB.
    writer.push(&messages(std::iter::repeat_n(1, 32_765).chain([10])));
    assert!(!writer.has_tiny_messages());
    writer.push(&messages([1]));
    assert!(writer.has_tiny_messages());
    assert!(!tiny(80_000, 150).0, "12 MB of data");
    assert!(tiny(100_000, 100).0, "10 MB of data");
    let mut writer = SegmentWriter::new(1);
    writer.begin_extent(5, 0, Vec::new(), MessageForm::Stored);
    writer.push(&messages(std::iter::repeat_n(1, 100_000)));
    assert!(!writer.has_tiny_messages(), "it has no list");
}

#[test]
fn a_cut_a_longer_and_another_file_are_refused() {
    let file = example(4, BLOCK + 100);
    for len in 0..file.len() {
        assert!(SegmentFooter::of_file(4, &file[..len]).is_err(), "{len} bytes");
    }
    let mut longer = file.clone();
    longer.push(0);
    assert!(SegmentFooter::of_file(4, &longer).is_err());
    let other = example(5, BLOCK + 100);
    assert!(SegmentFooter::of_file(4, &other).is_err());
    // The data of one file in the frame of another.
    let end = HEADER + BLOCK;
    let mixed = [&file[..HEADER], &other[HEADER..end], &file[end..]].concat();
    assert_eq!(mixed, file, "the same bytes are the same");
    let swapped = example(4, BLOCK + 100);
    let moved = [&swapped[..HEADER], &swapped[HEADER + 1..end + 1], &swapped[end..]].concat();
    assert!(SegmentFooter::of_file(4, &moved).is_err());
}

#[test]
fn blocks_are_checked_one_by_one() {
    let mut file = example(4, 3 * BLOCK);
    let footer = SegmentFooter::of_file(4, &file).unwrap();
    let end = footer.data_end();
    let first = HEADER as u64;
    let block = BLOCK as u64;
    file[HEADER + BLOCK + 5] ^= 1;
    for (range, blocks, whole) in [
        (first..first + 1, first..first + block, true),
        (first + 5..first + block, first..first + block, true),
        (first + block - 1..first + block + 1, first..first + 2 * block, false),
        (first + 2 * block..first + 2 * block + 1, first + 2 * block..first + 3 * block, true),
        (end - 1..end, first + 3 * block..end, true),
        (first..end, first..end, false),
    ] {
        let found = blocks_around(range.clone(), end);
        assert_eq!(found, blocks, "{range:?}");
        let bytes = &file[found.start as usize..found.end as usize];
        assert_eq!(footer.check(found.start, bytes).is_ok(), whole, "{range:?}");
    }
    // A part of a block, or bytes behind the data.
    for part in
        [HEADER..HEADER + 10, HEADER + 1..HEADER + BLOCK + 1, HEADER + 3 * BLOCK..file.len()]
    {
        let found = footer.check(part.start as u64, &file[part.clone()]).unwrap_err();
        assert_eq!(found.what, "a part of a block cannot be checked", "{part:?}");
    }
    assert_eq!(footer.size(), 16, "four checksums");
}

#[test]
fn a_trailer_names_a_footer_between_the_data_and_itself() {
    let parse = |footer_offset: u64, footer_len: u64, file_len: u64| {
        let trailer = SegmentTrailer {
            number: 4,
            footer_offset,
            footer_len,
            footer_crc: 0,
            form: MessageForm::Stored,
        };
        SegmentTrailer::parse(&trailer.encode(), 4, file_len).map(|found| found == trailer)
    };
    let len = |footer_end: u64| footer_end + TRAILER as u64;
    assert_eq!(parse(32, 16, len(48)), Ok(true));
    assert_eq!(parse(40, 0, len(40)), Ok(true));
    assert_eq!(parse(32, MAX_FOOTER, len(32 + MAX_FOOTER)), Ok(true));
    for (offset, footer, file) in [
        (31, 17, len(48)),
        (32, 17, len(48)),
        (33, 16, len(48)),
        (32, 15, len(48)),
        (32, MAX_FOOTER + 1, len(33 + MAX_FOOTER)),
        (u64::MAX, 49, len(48)),
    ] {
        let found = parse(offset, footer, file).unwrap_err();
        assert_eq!(found.what, "its trailer names a place outside of it", "{offset} {footer}");
    }
}

/// Behind a right checksum: a defect of a writer must not make a reader take one place for another.
#[test]
fn a_footer_that_does_not_describe_its_data_is_refused() {
    // 100,000 bytes of data, two blocks.
    let parse = |form, len: u64, count: u64, extents: &[[u64; 5]], rest: usize| {
        let mut footer: Vec<u8> =
            [len, count].iter().flat_map(|field| field.to_le_bytes()).collect();
        footer.extend(extents.iter().flatten().flat_map(|field| field.to_le_bytes()));
        footer.resize(footer.len() + rest, 0);
        let trailer = SegmentTrailer {
            number: 4,
            footer_offset: 100_032,
            footer_len: footer.len() as u64,
            footer_crc: footer_crc(4, &footer),
            form,
        };
        SegmentFooter::parse(trailer, &footer).map_err(|found| found.what)
    };
    let (stored, array) = (MessageForm::Stored, MessageForm::Array);
    let (one, two) = ([7, 5, 60_000, 32, 0], [8, 0, 40_000, 60_032, 0]);
    let whole = parse(stored, 100_000, 2, &[one, two], 8).unwrap();
    assert_eq!((whole.extents.len(), whole.block_crcs.len()), (2, 2));
    assert!(parse(array, 100_000, 2, &[one, two], 16).is_ok());
    for (form, len, count, extents, rest, why) in [
        (stored, 99_999, 2, &[one, two][..], 8, "another length"),
        (stored, 100_000, 1 << 60, &[one, two], 8, "more extents than bytes"),
        (stored, 100_000, 1, &[one], 8, "an extent too few"),
        (stored, 100_000, 2, &[one, [8, 0, 40_000, 60_031, 0]], 8, "one that overlaps"),
        (stored, 100_000, 2, &[one, [8, 0, 40_001, 60_032, 0]], 8, "one that is too long"),
        (stored, 100_000, 3, &[one, [9, 0, 0, 60_032, 0], two], 8, "an empty one"),
        (stored, 100_000, 2, &[one, [8, u64::MAX, 40_000, 60_032, 0]], 8, "one without an end"),
        (stored, 100_000, 2, &[one, two], 4, "a checksum too few"),
        (stored, 100_000, 2, &[one, two], 12, "one too many"),
        (array, 100_000, 2, &[one, two], 8, "no list"),
        (array, 100_000, 2, &[one, two], 18, "a terminator that is not counted"),
        (stored, 100_000, 2, &[one], 0, "an end within an extent"),
    ] {
        let found = parse(form, len, count, extents, rest).unwrap_err();
        assert_eq!(found, "its footer does not describe its data", "{why}");
    }
}

#[test]
fn names_have_twenty_digits() {
    assert_eq!(file_name(7), "00000000000000000007.seg");
    assert_eq!(number_of(&file_name(u64::MAX)), Some(u64::MAX));
    for other in ["7.seg", "00000000000000000007.new", "0000000000000000000x.seg", ""] {
        assert_eq!(number_of(other), None, "{other}");
    }
}
