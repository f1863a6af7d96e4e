//! Which room (folder below a `src`) may import which.

use std::fs;

use crate::paths::paths;
use crate::source::{Source, sources};
use crate::{refuse, root};

/// A room's name, and the names of the rooms that it may import.
type Room = (&'static str, &'static [&'static str]);

/// Per crate: its rooms, and what each may import of the same crate (docs/design.md, "Rooms").
const ROOMS: &[(&str, &[Room])] = &[
    ("crates/engine/", &[("store", &[]), ("engine", &["store"])]),
    (
        "",
        &[
            ("telemetry", &[]),
            ("tls", &[]),
            ("config", &["edge", "tier"]),
            ("webhooks", &["telemetry"]),
            ("tier", &[]),
            ("admin", &["edge", "telemetry", "tier", "tls"]),
            ("edge", &["telemetry"]),
            ("server", &["edge", "webhooks", "admin", "config", "telemetry", "tier", "tls"]),
            ("cli", &["server", "config", "telemetry", "tier", "tls"]),
        ],
    ),
];

/// The crate's part of [`ROOMS`]; none for a crate that is one room.
fn rooms_of(source: &Source) -> Option<&'static [Room]> {
    let (_, rooms) = ROOMS.iter().find(|(name, _)| *name == source.crate_root())?;
    Some(rooms)
}

/// The top-level modules of its crate that a file names, as `crate::x` or up through `super::`.
fn imports(source: &Source) -> Vec<&str> {
    let depth = source.module().len();
    let paths = paths(&source.code).into_iter().filter_map(|path| {
        let ups = path.names.iter().take_while(|name| **name == "super").count();
        let at_root = path.names[0] == "crate" || (ups > 0 && ups == depth);
        path.names.get(ups.max(1)).copied().filter(|_| at_root)
    });
    paths.collect()
}

fn misplaced_imports(source: &Source) -> Vec<String> {
    let (Some(rooms), Some(room)) = (rooms_of(source), source.room()) else { return Vec::new() };
    let Some((_, allowed)) = rooms.iter().find(|(name, _)| *name == room) else {
        return vec![format!(
            "{}: `{room}` is no room of docs/design.md; say there what it is and what it may import",
            source.path
        )];
    };
    let used = imports(source);
    let others = rooms.iter().map(|(name, _)| *name).filter(|other| *other != room);
    others
        .filter(|other| !allowed.contains(other) && used.contains(other))
        .map(|other| {
            let may = if allowed.is_empty() { "none".into() } else { allowed.join(", ") };
            format!(
                "{}: `{room}` must not import `{other}`; the rooms it may import: {may}. Arrows never turn back: \
                 move the shared part down, or hand it in from above",
                source.path
            )
        })
        .collect()
}

#[test]
fn rooms_import_only_what_they_may() {
    refuse(sources().iter().flat_map(misplaced_imports).collect());
}

#[test]
fn the_design_names_the_same_rooms() {
    let text = fs::read_to_string(root().join("docs/design.md")).unwrap();
    let rooms = ROOMS.iter().flat_map(|(_, rooms)| rooms.iter());
    let missing = rooms.filter(|(room, _)| !text.contains(&format!("`{room}`")));
    refuse(missing.map(|(room, _)| format!("docs/design.md does not describe `{room}`")).collect());
    let sources = sources();
    for (root, rooms) in ROOMS {
        for (room, _) in *rooms {
            let mut own = sources.iter().filter(|source| source.crate_root() == *root);
            assert!(
                own.any(|source| source.room() == Some(room)),
                "{root}src/{room} is gone: drop its rule"
            );
        }
    }
}

#[test]
fn misplaced_imports_are_seen() {
    for (path, text) in [
        ("src/telemetry/a.rs", "use crate::edge::Edge;"),
        (
            "src/telemetry/a.rs",
            "use crate::{\n    telemetry::{Offset, Tail},\n    config::Config,\n};",
        ),
        ("crates/engine/src/store/file/wal/frame.rs", "fn f() -> crate::engine::Engine {}"),
        ("crates/engine/src/store/mod.rs", "use super::engine::Engine;"),
        ("crates/engine/src/store/memory.rs", "use super::super::{engine::Engine};"),
        ("crates/engine/src/store/a.rs", "#[cfg(test)]\nmod tests {}\nuse crate::engine::Engine;"),
        ("src/attic/mod.rs", ""),
    ] {
        assert_eq!(misplaced_imports(&Source::new(path, text)).len(), 1, "{path}: {text}");
    }
    for (path, text) in [
        ("crates/engine/src/engine/mod.rs", "use crate::store::AnyStore; // not crate::edge"),
        ("crates/engine/src/engine/cell.rs", "use super::edge::Edge; // the engine's own"),
        ("crates/engine/src/store/a.rs", "#[cfg(test)]\nmod tests { use crate::engine::Engine; }"),
        ("src/lib.rs", "pub use crate::edge::Edge;"),
        ("crates/protocol/src/stream/mod.rs", "use crate::edge::Edge; // another crate's room"),
    ] {
        assert_eq!(misplaced_imports(&Source::new(path, text)), [""; 0], "{path}: {text}");
    }
}
