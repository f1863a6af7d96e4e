//! What a client can choose is quoted in text logs.
//!
//! `tracing` quotes values that are strings and writes those that are `Display` (`%`) as they are: an id such as
//! `x error="disk full"` would forge a field of its line. Line ends and changes of direction are escaped for all values.

use crate::refuse;
use crate::source::{Source, sources};

/// Names of values that clients choose, as they are logged.
const CHOSEN: [&str; 6] =
    ["subscription = %", "path = %", "wake_stream = %", "(%path", " %path", " %wake_stream"];

fn unquoted(source: &Source) -> Vec<String> {
    let lines = source.code.lines().enumerate();
    let found = lines.filter(|(_, line)| CHOSEN.iter().any(|chosen| line.contains(chosen)));
    found
        .map(|(at, _)| {
            format!(
                "{}:{}: what a client chose is logged with `%`, unquoted; log it as a string (`as_str()`)",
                source.path,
                at + 1
            )
        })
        .collect()
}

#[test]
fn what_a_client_chose_is_logged_as_a_string() {
    refuse(sources().iter().flat_map(unquoted).collect());
}

#[test]
fn an_unquoted_name_is_seen() {
    let source = |line: &str| Source::new("src/a.rs", &format!("//! A.\nfn a() {{\n{line}\n}}\n"));
    for line in [
        "tracing::warn!(subscription = %cell.id, \"x\");",
        "tracing::warn!(%path, \"x\");",
        "tracing::warn!(error, %wake_stream);",
    ] {
        assert_eq!(unquoted(&source(line)).len(), 1, "{line}");
    }
    assert!(unquoted(&source("tracing::warn!(path = path.as_str(), %error);")).is_empty());
}
