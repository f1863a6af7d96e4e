//! Tests that need more than every machine has: root, a C compiler, a shell. Where that is missing they say so; a test
//! that passes in no time without a word would be taken for one that ran.

use std::fs::OpenOptions;
use std::io::Write;

/// Notes that the running test is skipped, and why.
///
/// With `TEST_SKIPS=<file>` a line is added to that file, which scripts/test shows at its end. With `NO_SKIPS=1` the
/// test fails: CI sets it where nothing may be missing.
pub(crate) fn skipped<T>(reason: &str) -> Option<T> {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(std::env::var_os("NO_SKIPS").is_none(), "{test} must not be skipped: {reason}");
    eprintln!("skipped: {test}: {reason}");
    if let Some(file) = std::env::var_os("TEST_SKIPS") {
        let mut file = OpenOptions::new().create(true).append(true).open(file).expect("it opens");
        // One write: other tests append at the same time.
        file.write_all(format!("{test}: {reason}\n").as_bytes()).expect("it is written");
    }
    None
}
