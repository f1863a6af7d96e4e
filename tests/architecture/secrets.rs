//! Secrets are compared in time that does not depend on where they differ.
//!
//! `==` on a key, a token or a signature tells a client that measures how much of its guess was right. Every comparison
//! of one goes through ring's `hmac::verify`, `secrets_match`, which is built on it, or `bytes_match`, on `subtle`.

use crate::refuse;
use crate::source::{Source, sources};

/// Where credentials are verified.
const PLACES: [&str; 6] = [
    "crates/auth/src/",
    "crates/protocol/src/subscription/token.rs",
    "crates/protocol/src/subscription/signature.rs",
    "crates/subscriptions/src/keys.rs",
    "src/admin/",
    "src/server/access.rs",
];

/// Names of values that a client must not learn by measuring time.
const SECRETS: [&str; 8] =
    ["secret", "hash", "tag", "mac", "signature", "token", "api_key", "password"];

/// Comparisons of values that have such a name and are no secret.
const PUBLIC: [(&str, &str); 1] = [("crates/auth/src/jwt/source.rs", "*last == Some(hash)")]; // of a set of public keys

/// Files that compare what a client sends with a secret, and by what.
const COMPARED: [(&str, &str); 8] = [
    ("crates/auth/src/credential.rs", "hmac::verify("),
    ("crates/auth/src/credential.rs", ".ct_eq("),
    ("crates/auth/src/memo.rs", "bytes_match(header.value, "),
    ("crates/auth/src/api_keys.rs", "hmac::verify("),
    ("crates/auth/src/projects.rs", "hmac::verify("),
    ("crates/auth/src/signed_url.rs", "hmac::verify("),
    ("crates/auth/src/jwt/verify.rs", "hmac::verify("),
    ("crates/protocol/src/subscription/token.rs", "hmac::verify("),
];

/// The last name of an operand: `hash` of `&entry.hash`, of `Some(hash)` and of `hash.as_ref()`.
fn last_name(operand: &str) -> &str {
    let mut rest = operand;
    loop {
        rest = rest.trim_end_matches(|c: char| !is_name(c));
        let at = rest.rfind(|c: char| !is_name(c)).map_or(0, |at| at + 1);
        let name = &rest[at..];
        if at == 0 || !name.starts_with("as_") {
            return name;
        }
        rest = &rest[..at];
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The operands of the comparisons in a line.
fn operands(line: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices(" == ").chain(line.match_indices(" != ")) {
        let (left, right) = (&line[..at], &line[at + 4..]);
        let is_part = |c: char| is_name(c) || "&*().:?".contains(c);
        let from = left.rfind(|c| !is_part(c)).map_or(0, |at| at + 1);
        let mut open = 0;
        let end = right.find(|c| {
            open += i32::from(c == '(') - i32::from(c == ')');
            open < 0 || !is_part(c)
        });
        found.extend([&left[from..], &right[..end.unwrap_or(right.len())]]);
    }
    found
}

fn compared_early(source: &Source) -> Vec<String> {
    if !PLACES.iter().any(|place| source.path.starts_with(place)) {
        return Vec::new();
    }
    let public =
        |line: &str| PUBLIC.iter().any(|(at, text)| source.path == *at && line.contains(text));
    let lines = source.code.lines().enumerate().filter(|(_, line)| !public(line));
    let secret =
        |line: &str| operands(line).into_iter().any(|one| SECRETS.contains(&last_name(one)));
    lines
        .filter(|(_, line)| secret(line))
        .map(|(at, line)| {
            format!(
                "{}:{}: `{}` ends where the first byte differs; use hmac::verify or secrets_match",
                source.path,
                at + 1,
                line.trim()
            )
        })
        .collect()
}

#[test]
fn secrets_are_compared_in_constant_time() {
    let sources = sources();
    let mut problems: Vec<String> = sources.iter().flat_map(compared_early).collect();
    for (path, by) in COMPARED {
        let found = sources.iter().find(|source| source.path == path);
        if !found.is_some_and(|source| source.code.contains(by)) {
            problems
                .push(format!("{path}: no longer compares by `{by}`; what does it compare by?"));
        }
    }
    for place in PLACES {
        assert!(sources.iter().any(|source| source.path.starts_with(place)), "{place} is gone");
    }
    refuse(problems);
}

#[test]
fn a_comparison_that_ends_early_is_seen() {
    let source = |line: &str| {
        Source::new("crates/auth/src/a.rs", &format!("//! A.\nfn a() {{\n{line}\n}}\n"))
    };
    for line in [
        "if given == secret {",
        "if entry.hash != hash_of(key) {",
        "a.filter(|one| one.signature == sent)",
        "(tag.as_ref() == &expected.tag).then_some(1)",
        "let same = Some(token) == found;",
    ] {
        assert_eq!(compared_early(&source(line)).len(), 1, "{line}");
    }
    for line in ["if key.id == id {", "if hash.len() == 32 {", "let hash = a == b;"] {
        assert!(compared_early(&source(line)).is_empty(), "{line}");
    }
}
