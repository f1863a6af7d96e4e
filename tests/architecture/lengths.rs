//! How long a file may be.

use crate::refuse;
use crate::source::{Source, sources};

/// The most lines of a file that does not say why it is longer.
const LONG: usize = 400;
/// How such a file says it, among its `//!` lines.
const LONG_REASON: &str = "//! One file because ";
/// The most lines of an `impl ProxyHttp`, and of src/main.rs.
const HOOKS: usize = 200;
const MAIN: usize = 60;

fn overlong(source: &Source) -> Option<String> {
    let long = source.lines > LONG && !source.header.contains(LONG_REASON);
    long.then(|| {
        format!(
            "{}: {} lines; past {LONG} its header must say why it is one thing, in a line that begins `{LONG_REASON}`",
            source.path, source.lines
        )
    })
}

/// `impl ProxyHttp` is a table of contents: each hook calls a function of another file.
fn overlong_hooks(source: &Source) -> Option<String> {
    let mut lines = source.code.lines().skip_while(|line| !line.starts_with("impl ProxyHttp for"));
    let count = lines.by_ref().take_while(|line| *line != "}").count();
    (count > HOOKS).then(|| {
        format!(
            "{}: {count} lines of hooks; past {HOOKS} move the work of a hook into its own file",
            source.path
        )
    })
}

#[test]
fn long_files_say_why_and_the_tables_of_contents_stay_short() {
    let sources = sources();
    let mut problems: Vec<String> = sources.iter().filter_map(overlong).collect();
    problems.extend(sources.iter().filter_map(overlong_hooks));
    let main = sources.iter().find(|source| source.path == "src/main.rs").unwrap();
    if main.lines > MAIN {
        problems.push(format!(
            "src/main.rs: {} lines; past {MAIN} it does a library's work",
            main.lines
        ));
    }
    refuse(problems);
    let hooks = sources.iter().filter(|source| source.code.contains("impl ProxyHttp for"));
    assert_eq!(hooks.count(), 1, "one place answers Pingora's hooks");
}

#[test]
fn long_files_are_seen() {
    let long = "//! A thing.\n".to_owned() + &"\n".repeat(LONG);
    assert!(overlong(&Source::new("src/a.rs", &long)).is_some());
    let reason = format!("//! A.\n{LONG_REASON}it is.\n{long}");
    assert!(overlong(&Source::new("src/a.rs", &reason)).is_none());
    let hooks =
        |lines: usize| format!("impl ProxyHttp for A {{\n{}}}\n{long}", "x\n".repeat(lines));
    assert!(overlong_hooks(&Source::new("src/a.rs", &hooks(HOOKS))).is_some());
    assert!(overlong_hooks(&Source::new("src/a.rs", &hooks(HOOKS - 1))).is_none());
}
