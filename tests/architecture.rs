//! The rules of docs/design.md that the compiler does not know: who may import whom, where time, files, pingora and
//! heed may appear, and how long a file may be. Each failure says which rule, and why it is one.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]

use std::{
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

/// Rooms and what each may import (docs/design.md, "Rooms"). `lib.rs` and `main.rs` stand outside.
const ROOMS: &[(&str, &[&str])] = &[
    ("store", &[]),
    ("engine", &["store"]),
    ("telemetry", &[]),
    ("config", &["edge"]),
    ("webhooks", &["telemetry"]),
    ("admin", &["edge", "telemetry"]),
    ("edge", &["telemetry"]),
    ("server", &["edge", "webhooks", "admin", "config", "telemetry"]),
    ("cli", &["server", "config", "telemetry"]),
];

/// Words that only some files may use, and why.
struct Reserved {
    words: &'static [&'static str],
    /// Files, or folders when they end in a slash, in which they may appear.
    places: &'static [&'static str],
    why: &'static str,
}

const RESERVED: &[Reserved] = &[
    Reserved {
        words: &["SystemTime::now", "jiff::Timestamp::now", "Zoned::now"],
        places: &["crates/engine/src/engine/clock.rs", "src/telemetry/"],
        why: "the time of day comes from engine::Clock, so that a test can hold it in its hand",
    },
    Reserved {
        words: &["Instant::now"],
        places: &[
            "src/edge/",
            "src/server/",
            "crates/subscriptions/src/drive.rs",
            "crates/engine/src/store/file/checkpointer.rs",
            "crates/engine/src/store/file/commit_queue.rs",
            "crates/engine/src/store/file/writer.rs",
            "crates/engine/src/store/file/wal/writer.rs",
            "src/cli/operate/progress.rs",
        ],
        why: "only sockets, deliveries, the log writer and long commands measure how long something takes; rules get `now` as an argument",
    },
    Reserved {
        words: &["fs"],
        places: &[
            "crates/auth/src/credentials/disk.rs",
            "crates/engine/src/store/file/disk.rs",
            "src/config/load.rs",
            "src/edge/upstream/ca.rs",
            "src/server/control/mod.rs",
            "crates/subscriptions/src/keys.rs",
            "src/telemetry/process.rs",
        ],
        why: "the store reaches the disk through store/file/disk.rs alone, so that a test can crash it; elsewhere one named file per room reads files",
    },
    Reserved {
        words: &["pingora"],
        places: &["src/edge/", "src/server/", "src/admin/", "src/telemetry/logging.rs"],
        why: "the protocol, the engine and the stores know no HTTP framework",
    },
    Reserved {
        words: &["reqwest"],
        places: &["src/webhooks/", "src/telemetry/trace/"],
        why: "one HTTP client for webhooks, behind a trait and its address guard",
    },
    Reserved {
        words: &["heed"],
        places: &["crates/engine/src/store/file/"],
        why: "LMDB is how one store keeps its index, and nobody else's business",
    },
    Reserved {
        words: &["tokio"],
        places: &[
            "crates/auth/src/jwt/source.rs",
            "crates/engine/src/engine/",
            "src/edge/",
            "src/server/",
            "src/admin/",
            "src/webhooks/",
            "crates/subscriptions/src/",
            "crates/engine/src/store/file/",
            "src/cli/",
        ],
        why: "the protocol and the configuration are plain code that any runtime, test or fuzzer can call",
    },
];

/// The most lines of a file that does not say why it is longer.
const LONG: usize = 400;
/// How such a file says it, among its `//!` lines.
const LONG_REASON: &str = "//! One file because ";

/// A source file with comments and unit tests blanked.
struct Source {
    path: String,
    lines: usize,
    header: String,
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = fs::read_dir(root.join("crates")).unwrap();
    let mut folders: Vec<PathBuf> = crates.map(|one| one.unwrap().path().join("src")).collect();
    folders.push(root.join("src"));
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
                found.push(Source::new(name, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 50, "src/ was not found whole");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

impl Source {
    fn new(path: String, text: &str) -> Self {
        // Unit tests stand last in a file, or in a file of their own.
        let tests = path.ends_with("/tests.rs");
        let code = text.lines().take_while(|line| !tests && *line != "#[cfg(test)]");
        let code = code.map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>();
        Source {
            path,
            lines: text.lines().count(),
            header: text
                .lines()
                .take_while(|line| line.starts_with("//!"))
                .collect::<Vec<_>>()
                .join("\n"),
            code: code.join("\n"),
        }
    }

    fn room(&self) -> Option<&str> {
        let (room, _) = self.within_crate().split_once('/')?;
        Some(room)
    }

    /// The path below the `src` of its crate.
    fn within_crate(&self) -> &str {
        self.path.split_once("src/").map_or("", |(_, within)| within)
    }

    /// How many `super::` lead to the root of the crate.
    fn depth(&self) -> usize {
        let steps = self.within_crate().split('/').count();
        if self.path.ends_with("/mod.rs") { steps - 1 } else { steps }
    }

    /// The top-level modules that the file names, as `crate::x`, `crate::{x, y}` or up through `super::`.
    fn imports(&self) -> Vec<&str> {
        let mut found = Vec::new();
        let to_root = "super::".repeat(self.depth());
        for root in ["crate::", to_root.as_str()] {
            for (at, _) in self.code.match_indices(root) {
                let before = self.code[..at].chars().next_back();
                if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                    continue;
                }
                found.extend(heads(&self.code[at + root.len()..]));
            }
        }
        found
    }
}

/// The first name of a path, or of each path in a braced group.
fn heads(rest: &str) -> Vec<&str> {
    let Some(group) = rest.strip_prefix('{') else { return vec![identifier(rest)] };
    let mut depth = 0;
    let mut begin = 0;
    let mut found = Vec::new();
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                found.push(identifier(group[begin..at].trim_start()));
                begin = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    found
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

/// Whether `word` stands in `code` as a word of its own; `std::os::unix::fs` only adds methods to what others open.
fn has_word(code: &str, word: &str) -> bool {
    let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '"');
    code.match_indices(word).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + word.len()..]);
        let own = !inside(before.chars().next_back()) && !inside(after.chars().next());
        own && !before.ends_with("unix::") && !before.ends_with('.')
    })
}

fn misplaced_imports(source: &Source) -> Vec<String> {
    let Some(room) = source.room() else { return Vec::new() };
    if source.path.starts_with("crates/protocol/") || source.path.starts_with("crates/auth/") {
        return Vec::new();
    }
    let Some((_, allowed)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        return vec![format!(
            "{}: src/{room}/ is no room of docs/design.md; say there what it is and what it may import",
            source.path
        )];
    };
    let rooms = ROOMS.iter().map(|(name, _)| *name);
    let other = rooms.filter(|other| *other != room && !allowed.contains(other));
    let used = source.imports();
    other
        .filter(|other| used.contains(other))
        .map(|other| {
            format!(
                "{}: `{room}` must not import `{other}`; it may import {}. Arrows never turn back: \
                 move the shared part down, or hand it in from above",
                source.path,
                if allowed.is_empty() { "nothing of the crate".into() } else { allowed.join(", ") },
            )
        })
        .collect()
}

fn misplaced_words(source: &Source) -> Vec<String> {
    let path = source.path.as_str();
    let at_home = |places: &[&str]| {
        places
            .iter()
            .any(|place| path == *place || (place.ends_with('/') && path.starts_with(place)))
    };
    RESERVED
        .iter()
        .filter(|reserved| !at_home(reserved.places))
        .flat_map(|reserved| reserved.words.iter().map(move |word| (word, reserved)))
        .filter(|(word, _)| has_word(&source.code, word))
        .map(|(word, reserved)| {
            format!(
                "{path}: `{word}` belongs in {} only: {}",
                reserved.places.join(", "),
                reserved.why
            )
        })
        .collect()
}

fn overlong(source: &Source) -> Option<String> {
    let long = source.lines > LONG && !source.header.contains(LONG_REASON);
    long.then(|| {
        format!(
            "{}: {} lines; past {LONG} its header must say why it is one thing, in a line that begins `{LONG_REASON}`",
            source.path, source.lines
        )
    })
}

fn refuse(problems: Vec<String>) {
    let mut list = String::new();
    for problem in &problems {
        let _ = write!(list, "\n  {problem}");
    }
    assert!(problems.is_empty(), "docs/design.md says otherwise:{list}");
}

#[test]
fn rooms_import_only_what_they_may() {
    refuse(sources().iter().flat_map(misplaced_imports).collect());
}

#[test]
fn clocks_files_and_frameworks_stay_where_they_belong() {
    refuse(sources().iter().flat_map(misplaced_words).collect());
}

#[test]
fn long_files_say_why_and_the_tables_of_contents_stay_short() {
    let sources = sources();
    let mut problems: Vec<String> = sources.iter().filter_map(overlong).collect();
    let main = sources.iter().find(|source| source.path == "src/main.rs").unwrap();
    if main.lines > 60 {
        problems
            .push(format!("src/main.rs: {} lines; past 60 it does a library's work", main.lines));
    }
    let hooks: Vec<_> = sources.iter().filter(|s| s.code.contains("impl ProxyHttp for")).collect();
    assert_eq!(hooks.len(), 1, "one place answers Pingora's hooks");
    for source in hooks {
        let hooks = source.code.lines().skip_while(|line| !line.starts_with("impl ProxyHttp for"));
        let lines = hooks.take_while(|line| *line != "}").count();
        if lines > 200 {
            problems.push(format!(
                "{}: {lines} lines of hooks; the ProxyHttp impl is a table of contents of at most 200: \
                 move the work of a hook into its own file",
                source.path
            ));
        }
    }
    refuse(problems);
}

#[test]
fn the_table_in_the_design_names_the_same_rooms() {
    let text =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/design.md")).unwrap();
    for source in sources() {
        let Some(room) = source.room() else { continue };
        assert!(
            source.path.starts_with("crates/protocol/")
                || source.path.starts_with("crates/auth/")
                || text.contains(&format!("| `{room}` |")),
            "docs/design.md does not describe {room}"
        );
    }
}

/// These checks can fail: one violation of each kind, and what only looks like one.
#[test]
fn violations_are_seen() {
    let source = |path: &str, text: &str| Source::new(path.into(), text);
    for (path, text) in [
        ("src/telemetry/a.rs", "use crate::edge::Edge;"),
        (
            "src/telemetry/a.rs",
            "use crate::{\n    telemetry::{Offset, Tail},\n    config::Config,\n};",
        ),
        ("crates/engine/src/store/file/wal/frame.rs", "fn f() -> crate::engine::Engine {}"),
        ("crates/engine/src/store/mod.rs", "use super::engine::Engine;"),
        ("crates/engine/src/store/memory.rs", "use super::super::{engine::Engine};"),
        ("src/attic/mod.rs", ""),
    ] {
        assert_eq!(misplaced_imports(&source(path, text)).len(), 1, "{path}: {text}");
    }
    for (path, text) in [
        ("crates/engine/src/engine/mod.rs", "use crate::store::AnyStore; // not crate::edge"),
        ("crates/engine/src/engine/cell.rs", "use super::edge::Edge; // the engine's own"),
        ("crates/engine/src/engine/mod.rs", "#[cfg(test)]\nmod tests { use crate::edge::Edge; }"),
        ("src/lib.rs", "pub use crate::edge::Edge;"),
    ] {
        assert_eq!(misplaced_imports(&source(path, text)), [""; 0], "{path}: {text}");
    }
    for (path, text) in [
        ("crates/engine/src/engine/mod.rs", "let now = SystemTime::now();"),
        ("crates/engine/src/engine/mod.rs", "let now = tokio::time::Instant::now();"),
        ("crates/engine/src/store/memory.rs", "use std::{fs, io};"),
        ("crates/engine/src/engine/mod.rs", "std::fs::read(path)"),
        ("crates/subscriptions/src/lib.rs", "use pingora::http;"),
        ("src/edge/mod.rs", "use reqwest::Client;"),
        ("crates/engine/src/engine/mod.rs", "use heed::Env;"),
        ("crates/protocol/src/mod.rs", "use tokio::sync::watch;"),
    ] {
        assert_eq!(misplaced_words(&source(path, text)).len(), 1, "{path}: {text}");
    }
    for (path, text) in [
        ("crates/engine/src/engine/mod.rs", "use std::os::unix::fs::PermissionsExt; // std::fs"),
        ("crates/engine/src/store/file/disk.rs", "use std::fs::File;"),
        ("crates/engine/src/engine/clock.rs", "SystemTime::now()"),
    ] {
        assert_eq!(misplaced_words(&source(path, text)), [""; 0], "{path}: {text}");
    }
    let long = "//! A thing.\n".to_owned() + &"\n".repeat(LONG);
    assert!(overlong(&source("src/a.rs", &long)).is_some());
    assert!(
        overlong(&source("src/a.rs", &format!("//! A.\n{LONG_REASON}it is.\n{long}"))).is_none()
    );
}
