//! The fuzz targets for a few seconds on stable Rust: every seed as it is, then with seeded random changes.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]

#[path = "../../fuzz/checks.rs"]
#[allow(unreachable_pub, reason = "shared with the fuzz targets")]
mod checks;

use std::{fs, panic, path::Path};

/// Inputs per target.
const INPUTS: usize = 20_000;
/// Inputs per target that opens a store each time.
const STORES: usize = 3_000;

/// What changes like to be made of: what parsers look for.
const WORDS: &[&[u8]] = &[
    b"\n",
    b"\r",
    b"\r\n",
    b":",
    b"%",
    b"%2F",
    b"%2e",
    b"/",
    b"..",
    b"__ds",
    b"0",
    b"-1",
    b"now",
    b"\"",
    b"W/\"",
    b",",
    b"*",
    b"[",
    b"]",
    b"{",
    b"\x1e",
    b"\\u0000",
    b"\xf0\x9f\x98",
    b"\xc3",
    b"\xff",
    b"\0",
    b" ",
    b"offset=",
    b"&live=sse",
    b"0000000000000000_",
    b"9999999999999999",
    b"stream-closed: true",
    b"9007199254740992",
    b"stream-forked-from: /v1/stream/",
];

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut files: Vec<_> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no seeds", folder.display());
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// A seed with one to four changes.
fn change(random: &mut fastrand::Rng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = seeds[random.usize(..seeds.len())].clone();
    for _ in 0..random.usize(1..5) {
        let at = random.usize(..=input.len());
        match random.u8(..6) {
            0 => input.truncate(at),
            1 if at < input.len() => input[at] = random.u8(..),
            2 if at < input.len() => input[at] ^= 1 << random.u8(..8),
            3 if at < input.len() => drop(input.remove(at)),
            4 => {
                let other = &seeds[random.usize(..seeds.len())];
                input.truncate(at);
                input.extend_from_slice(&other[random.usize(..=other.len())..]);
            }
            _ => drop(input.splice(at..at, WORDS[random.usize(..WORDS.len())].iter().copied())),
        }
    }
    input
}

fn run(target: &str, check: checks::Check, input: &[u8]) {
    if panic::catch_unwind(|| check(input)).is_err() {
        let text = input.escape_ascii();
        panic!("{target} fails on b\"{text}\"; keep it in fuzz/seeds/{target}/");
    }
}

#[test]
fn every_target_holds_on_seeds_and_changes_of_them() {
    for (target, check) in checks::ALL {
        let seeds = seeds(target);
        seeds.iter().for_each(|seed| run(target, *check, seed));
        run(target, *check, b"");
        let mut random = fastrand::Rng::with_seed(1);
        let opens = matches!(*target, "segment" | "recovery");
        for _ in 0..if opens { STORES } else { INPUTS } {
            run(target, *check, &change(&mut random, &seeds));
        }
    }
    checks::clean_up();
}
