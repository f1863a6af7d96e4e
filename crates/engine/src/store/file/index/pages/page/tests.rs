use super::*;
use proptest::prelude::*;

/// By sorting, as the definition says it.
fn fills_sorted(mut nodes: Vec<(usize, usize)>, upper: usize, length: usize) -> bool {
    nodes.sort_unstable();
    let mut next = upper;
    nodes.into_iter().all(|(from, to)| from == std::mem::replace(&mut next, to)) && next == length
}

proptest! {
    #[test]
    fn nodes_that_fill_a_page_are_told_from_all_others(
        sizes in prop::collection::vec(4..20usize, 1..30),
        shuffled in any::<prop::sample::Index>(),
        changed in prop::option::of((any::<prop::sample::Index>(), -3..3_isize, -3..3_isize)),
        doubled in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let (upper, mut at) = (64, 64);
        let mut nodes: Vec<(usize, usize)> = Vec::new();
        for size in sizes {
            nodes.push((at, at + size * 2));
            at += size * 2;
        }
        let length = at;
        if let Some((which, from, to)) = changed {
            let count = nodes.len();
            let node = &mut nodes[which.index(count)];
            let moved = |place: usize, by: isize| place.saturating_add_signed(by * 2);
            *node = (moved(node.0, from).max(upper), moved(node.1, to).min(length));
        }
        if let Some(which) = doubled {
            nodes.push(nodes[which.index(nodes.len())]);
        }
        let middle = shuffled.index(nodes.len());
        nodes.rotate_left(middle);
        let mut ends = vec![0; length / 2];
        for (from, to) in &nodes {
            ends[from / 2] = (to / 2) as u16;
        }
        let expected = fills_sorted(nodes.clone(), upper, length);
        prop_assert_eq!(fills(&ends, upper, length, nodes.len()), expected);
    }
}

const LARGE: u16 = BIG;

/// Nodes as they lie in a page: flags, the low word, key, what follows it.
struct Node(u16, u32, Vec<u8>, Vec<u8>);

fn record(key: &[u8], value: &[u8]) -> Node {
    Node(0, value.len() as u32, key.to_vec(), value.to_vec())
}

fn link(key: &[u8], page: u64) -> Node {
    Node((page >> 32) as u16, page as u32, key.to_vec(), Vec::new())
}

/// A page of `size` bytes as LMDB writes it: nodes from the end, pointers to them in the order of the keys.
fn page(number: u64, flags: u16, nodes: &[Node], size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    bytes[10..12].copy_from_slice(&flags.to_le_bytes());
    let mut upper = size;
    for (at, Node(flags, low, key, rest)) in nodes.iter().enumerate() {
        let len = (NODE_HEADER + key.len() + rest.len()).next_multiple_of(2);
        upper -= len;
        let mut node = Vec::new();
        node.extend_from_slice(&low.to_le_bytes());
        node.extend_from_slice(&flags.to_le_bytes());
        node.extend_from_slice(&(key.len() as u16).to_le_bytes());
        node.extend_from_slice(key);
        node.extend_from_slice(rest);
        bytes[upper..upper + node.len()].copy_from_slice(&node);
        let pointer = PAGE_HEADER + 2 * at;
        bytes[pointer..pointer + 2].copy_from_slice(&(upper as u16).to_le_bytes());
    }
    let lower = PAGE_HEADER + 2 * nodes.len();
    bytes[12..14].copy_from_slice(&(lower as u16).to_le_bytes());
    bytes[14..16].copy_from_slice(&(upper as u16).to_le_bytes());
    bytes
}

fn leaf(bytes: Vec<u8>) -> Result<Page, String> {
    Page::decode(bytes, 7, PageKind::Leaf, false)
}

fn records() -> Vec<Node> {
    vec![record(b"a", b"12345"), record(b"bcd", b""), record(b"be", b"x")]
}

/// What is wrong with a page in which two bytes are others.
fn with(at: usize, value: usize) -> String {
    let mut bytes = page(7, LEAF, &records(), 256);
    bytes[at..at + 2].copy_from_slice(&(value as u16).to_le_bytes());
    leaf(bytes).map(|_| ()).expect_err("it is damaged")
}

#[test]
fn records_and_links_are_read_as_they_lie() {
    let mut nodes = records();
    nodes.push(Node(LARGE, 70_000, b"c".to_vec(), 0x1_0002_u64.to_le_bytes().to_vec()));
    nodes.push(Node(DATABASE, 48, b"d".to_vec(), vec![9; 48]));
    let found = leaf(page(7, LEAF, &nodes, 256)).unwrap();
    assert_eq!(found.number(), 7);
    let read: Vec<_> = found
        .nodes()
        .iter()
        .map(|node| (found.key(node), found.value(node), node.len(), node.page()))
        .collect();
    let place = 0x1_0002_u64.to_le_bytes();
    let expected = [
        (&b"a"[..], &b"12345"[..], 5, None),
        (b"bcd", b"", 0, None),
        (b"be", b"x", 1, None),
        (b"c", &place, 70_000, Some(0x1_0002)),
        (b"d", &[9; 48], 48, None),
    ];
    assert_eq!(read, expected);

    let links = [link(b"zzz", 2), link(b"b", 0x7_8000_1234), link(b"c", 65_536)];
    let found = Page::decode(page(9, BRANCH, &links, 128), 9, PageKind::Branch, false).unwrap();
    let read: Vec<_> = found.nodes().iter().map(|node| (found.key(node), node.page())).collect();
    let expected: [(&[u8], _); 3] =
        [(b"zzz", Some(2)), (b"b", Some(0x7_8000_1234)), (b"c", Some(65_536))];
    assert_eq!(read, expected, "the first key of a branch page has no meaning");
}

/// Its room is used to the last byte.
#[test]
fn a_page_that_is_full_is_whole_and_one_without_nodes_is_not() {
    let nodes = [record(b"a", b"123"), record(b"", b"")];
    let nodes = &nodes[..1];
    assert!(leaf(page(7, LEAF, nodes, PAGE_HEADER + 2 + 12)).is_ok());
    let short = [record(b"", b"")];
    assert!(leaf(page(7, LEAF, &short, 64)).is_ok(), "a node that is its header");
    let found = leaf(page(7, LEAF, &[], 64)).map(|_| ()).unwrap_err();
    assert_eq!(found, "has its free room from 16 to 64");
}

#[test]
fn a_page_says_what_is_wrong_with_it() {
    let number = Page::decode(page(7, LEAF, &records(), 256), 8, PageKind::Leaf, false);
    assert_eq!(number.map(|_| ()).unwrap_err(), "has the number of another page");
    let kind = Page::decode(page(7, LEAF, &records(), 256), 7, PageKind::Branch, false);
    assert_eq!(kind.map(|_| ()).unwrap_err(), "has the flags 0x2 and should have 0x1");
    assert_eq!(with(10, 6), "has the flags 0x6 and should have 0x2");
    // Where the nodes are: 14 bytes up to the end, then 12, then 12.
    let nodes = [256 - 14, 256 - 14 - 12, 256 - 14 - 12 - 12];
    let upper = nodes[2];
    for lower in [0, 14, 16, 21, 23, upper + 2] {
        assert_eq!(with(12, lower), format!("has its free room from {lower} to {upper}"));
    }
    for upper in [20, 257, 258, 60_000] {
        assert_eq!(with(14, upper), format!("has its free room from 22 to {upper}"));
    }
    for at in [0, upper - 2, upper - 1, 249, 250, 256, 60_000] {
        assert_eq!(with(16, at), "has a node outside of its room", "{at}");
    }
    for flags in [4, 5, 8, 0x8000] {
        assert_eq!(with(nodes[1] + 4, flags), "has a node with an unknown flag");
    }
    // The first record has 5 bytes: with one more it ends with the page, with two behind it.
    assert_eq!(with(nodes[0], 7), "has a node that ends outside of it");
    assert_eq!(with(nodes[0] + 6, 3), "has a node that ends outside of it");
    let unlisted = "does not list the nodes that it holds";
    assert_eq!(with(16, nodes[1]), unlisted, "one of them twice");
    assert_eq!(with(12, 20), unlisted, "one too few");
    assert_eq!(with(14, upper - 2), unlisted, "a gap before them");
    assert_eq!(with(nodes[1] + 6, 1), unlisted, "a gap after one");
    assert_eq!(with(nodes[0], 3), unlisted, "a gap at the end");
    let order = "has keys out of order";
    assert_eq!(with(nodes[1] + 8, 0x4141), order);
    for nodes in [[record(b"a", b""), record(b"a", b"")], [record(b"ab", b""), record(b"a", b"")]] {
        assert_eq!(leaf(page(7, LEAF, &nodes, 64)).map(|_| ()).unwrap_err(), order);
    }
    let links = [link(b"a", 2), link(b"c", 3), link(b"b", 4)];
    let branch = Page::decode(page(7, BRANCH, &links, 64), 7, PageKind::Branch, false);
    assert_eq!(branch.map(|_| ()).unwrap_err(), order);
}

/// As in the list of free pages: the bytes of 256 are less than those of 1.
#[test]
fn keys_that_are_numbers_are_in_the_order_of_numbers() {
    let keys = |numbers: [u64; 2]| numbers.map(|number| record(&number.to_le_bytes(), b""));
    for (numbers, ordered) in [([1, 256], true), ([256, 1], false), ([256, 256], false)] {
        let bytes = page(7, LEAF, &keys(numbers), 128);
        let found = Page::decode(bytes, 7, PageKind::Leaf, true);
        assert_eq!(found.is_ok(), ordered, "{numbers:?}");
    }
}
