//! The rules of docs/design.md that the compiler does not know, one file each. A failure says which rule is broken,
//! where, and why it is a rule. Beside each rule stands a test that the rule can fail.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]

mod circles;
mod crates;
mod lengths;
mod logs;
mod names;
mod paths;
mod rooms;
mod secrets;
mod source;
mod words;

use std::fmt::Write;
use std::path::Path;

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Fails with every problem found.
fn refuse(problems: Vec<String>) {
    let mut list = String::new();
    for problem in &problems {
        let _ = write!(list, "\n  {problem}");
    }
    assert!(problems.is_empty(), "docs/design.md says otherwise:{list}");
}
