//! The scan against `serde_json`: they take the same bodies and find the same messages.

use proptest::{collection::vec, prelude::*, sample::select};

use super::{BLOCK, JsonContainer, JsonNesting, messages};
use crate::wire::json::mode::parse_messages;

/// Returns whether both took the body.
fn agree(body: &[u8]) -> bool {
    let mut found = Vec::new();
    let scanned = messages(body, |message| found.push(message)).map(|()| found);
    let parsed = parse_messages(body).ok();
    assert_eq!(scanned, parsed, "{}", body[..body.len().min(300)].escape_ascii());
    parsed.is_some()
}

/// What JSON is made of, and what it is not.
#[rustfmt::skip]
const PIECES: &[&[u8]] = &[
    b"[", b"]", b"{", b"}", b",", b":", b"\"", b"\\", b"u", b"00e9", b"a", b" ", b"\n", b"0", b"12", b"-", b".", b"e",
    b"+", b"true", b"null", b"fals", b"\x1e", b"\0", b"\xc3\xa9", b"\xff",
];

#[test]
fn every_body_of_four_pieces() {
    let mut taken = 0;
    for n in 0..PIECES.len().pow(4) {
        let piece = |place: u32| PIECES[n / PIECES.len().pow(place) % PIECES.len()];
        taken += usize::from(agree(&[piece(0), piece(1), piece(2), piece(3)].concat()));
    }
    assert!(taken > 900, "{taken} were JSON");
}

#[test]
fn every_byte_at_every_place_of_a_block() {
    for (open, fill, special, close) in [
        ("\"", "x", "", "\""),
        ("[{\"", "é", "", "\":1}]"),
        ("\"", "x", "\\", "\""),
        ("\"", "x", "\\u00e", "\""),
        ("", "1", "", ""),
        ("[-0.", "1", "", "]"),
    ] {
        for (before, after) in (0..2 * BLOCK).flat_map(|n| [(n, 0), (n, 3), (n, 2 * BLOCK)]) {
            let start = [open, &fill.repeat(before), special].concat();
            let end = [&fill.repeat(after), close].concat();
            for byte in 0..=u8::MAX {
                agree(&[start.as_bytes(), &[byte], end.as_bytes()].concat());
            }
        }
    }
}

#[test]
fn what_serde_json_takes_and_what_it_refuses() {
    let digits = "7".repeat(1_000);
    for taken in [
        &digits,
        "-0.0E-0",
        "1e400",
        r#""\ud800""#,
        r#""\udc00\ud800 \u0000""#,
        r#"{"a":1,"a":2,"":{}}"#,
        "\t\r\n [ 1 , [ ] , { } ] \n",
        "[]",
        "\"\u{7f}\u{2028}\u{10ffff}\"",
    ] {
        assert!(agree(taken.as_bytes()), "{taken}");
    }
    for refused in [
        "",
        " ",
        "-",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "1e+",
        "0x1",
        "- 1",
        "NaN",
        "nul",
        "truefalse",
        "[1 2]",
        "[,1]",
        "[1,]",
        "[1}",
        "{]",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{a:1}",
        "'a'",
        "\"",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\u1gg4\"",
        "\"\\u123\"",
        "\"\\u",
        "\"\t\"",
        "[",
        "[1",
        "[1,",
        "{\"a\":1",
        "[]]",
        "1,",
        "\u{feff}1",
        "\u{a0}1",
        "\u{b}1",
        "\u{c}[1]",
        "//\n1",
    ] {
        assert!(!agree(refused.as_bytes()), "{refused}");
    }
    for text in [
        &b"\"\xed\xa0\x80\""[..],
        b"\"\xc0\x80\"",
        b"\"\xf4\x90\x80\x80\"",
        b"\"\xe2\x82\"",
        b"[1]\x80",
    ] {
        assert!(!agree(text), "{}", text.escape_ascii());
    }
}

const CONTAINERS: [(&str, &str); 4] =
    [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]"), ("[[{\"\":", "}]]")];

#[test]
fn nesting_of_any_depth() {
    for depth in [1, 2, 62, 63, 64, 65, 126, 127, 1_000, 100_000] {
        for (open, close) in CONTAINERS {
            let (opened, closed) = (open.repeat(depth), close.repeat(depth));
            assert!(agree(format!("{opened}1{closed}").as_bytes()), "{depth} of {open}");
            assert!(!agree(format!("{opened}1{}", &closed[1..]).as_bytes()), "one open of {depth}");
            assert!(!agree(format!("{opened}1{closed}{}", &close[..1]).as_bytes()), "one too many");
        }
    }
}

#[test]
fn an_open_container_takes_a_bit() {
    let mut nesting = JsonNesting::default();
    for _ in 0..6_300 {
        nesting.push(JsonContainer::Array);
    }
    assert!(nesting.outer.len() <= 100, "{} words", nesting.outer.len());
}

#[test]
fn every_level_closes_with_its_own_bracket() {
    for (open, close) in CONTAINERS {
        let body = format!("{}1{}", open.repeat(70), close.repeat(70)).into_bytes();
        for at in body.len() - 70 * close.len()..body.len() {
            let mut wrong = body.clone();
            wrong[at] = if wrong[at] == b']' { b'}' } else { b']' };
            assert!(!agree(&wrong), "{}", wrong.escape_ascii());
        }
    }
}

/// A value, as text, with any space where space may be.
fn json() -> impl Strategy<Value = String> {
    let space = || select(vec!["", "", "", " ", "\n\t", "\r\n                  "]);
    let escape = select(vec!["\\n", "\\\"", "\\\\", "\\u00e9", "\\ud83d", "\\udC00", "\\/"]);
    let text = vec(prop_oneof![4 => "[a-z ]{0,20}", 1 => "[^\\x00-\\x1f\"\\\\]{0,9}", 1 => escape.prop_map(String::from)], 0..4)
        .prop_map(|parts| format!("\"{}\"", parts.concat()));
    let number = "-?(0|[1-9][0-9]{0,40})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?";
    let word = select(vec!["true", "false", "null"]).prop_map(String::from);
    let leaf = prop_oneof![text.clone(), number, word];
    leaf.prop_recursive(6, 60, 6, move |inner| {
        let item = (space(), inner, space()).prop_map(|(a, value, b)| format!("{a}{value}{b}"));
        let member = (space(), text.clone(), space(), item.clone())
            .prop_map(|(a, name, b, value)| format!("{a}{name}{b}:{value}"));
        prop_oneof![
            vec(item, 0..6).prop_map(|items| format!("[{}]", items.join(","))),
            vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(","))),
        ]
    })
}

proptest! {
    #[test]
    fn any_bytes(body in vec(any::<u8>(), 0..100)) {
        agree(&body);
    }

    #[test]
    fn any_pieces(pieces in vec(select(PIECES), 0..30)) {
        agree(&pieces.concat());
    }

    #[test]
    fn any_value_and_what_is_left_when_a_byte_changes(value in json(), at: prop::sample::Index, byte: u8) {
        prop_assert!(agree(value.as_bytes()));
        let at = at.index(value.len());
        let (before, after) = value.as_bytes().split_at(at);
        agree(before);
        agree(after);
        agree(&[before, &[byte], after].concat());
        agree(&[before, &[byte], &after[1..]].concat());
        agree(&[before, &after[1..]].concat());
        for piece in PIECES {
            agree(&[before, piece, after].concat());
        }
    }
}
