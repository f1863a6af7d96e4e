//! Words that only some files may use: clocks, files, frameworks.

use crate::paths::words;
use crate::refuse;
use crate::source::{Source, sources};

/// Words with one place.
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
            "src/tier/",
            "crates/client/src/",
            "crates/pingora/src/",
            "crates/subscriptions/src/delivery.rs",
            "crates/engine/src/engine/clock.rs",
            "crates/engine/src/store/file/checkpointer.rs",
            "crates/engine/src/store/file/scrubber.rs",
            "crates/engine/src/store/file/commit_queue.rs",
            "crates/engine/src/store/file/index/backoff.rs",
            "crates/engine/src/store/file/writer.rs",
            "crates/engine/src/store/file/wal/writer.rs",
            "src/cli/operate/progress.rs",
        ],
        why: "only sockets, clients, deliveries, the log writer and long commands measure how long something takes; \
              rules get `now` as an argument",
    },
    Reserved {
        words: &["fs"],
        places: &[
            "crates/auth/src/credentials/disk.rs",
            "crates/engine/src/store/file/disk.rs",
            "crates/engine/src/store/file_part.rs",
            "src/cli/admin/client.rs",
            "src/cli/streams/files.rs",
            "src/config/reader/load.rs",
            "src/edge/connection/send_file.rs",
            "src/edge/upstream/ca.rs",
            "src/server/access.rs",
            "src/server/backup_socket/mod.rs",
            "crates/subscriptions/src/keys.rs",
            "src/telemetry/process.rs",
            "src/tier/files.rs",
            "src/tls/",
        ],
        why: "the store reaches the disk through store/file/disk.rs alone, so that a test can crash it; \
              elsewhere one named file per room reads files",
    },
    Reserved {
        words: &["pingora", "pingora_core", "pingora_proxy"],
        places: &[
            "src/edge/",
            "src/server/",
            "src/admin/",
            "src/telemetry/logging/",
            "src/tls/service.rs",
            "crates/pingora/src/",
        ],
        why: "the protocol, the engine and the stores know no HTTP framework",
    },
    Reserved {
        words: &["reqwest"],
        places: &[
            "src/webhooks/",
            "src/telemetry/trace/",
            "src/server/access.rs",
            "src/edge/forward_auth/subrequest.rs",
            "src/tls/acme/http_client.rs",
            "src/cli/streams/list.rs",
            "src/cli/admin/client.rs",
        ],
        why: "HTTP requests are made in few places, those of webhooks behind an address guard",
    },
    Reserved {
        words: &["hyper", "hyper_util", "hyper_rustls"],
        places: &["crates/client/src/"],
        why: "the client of streams alone works on connections",
    },
    Reserved {
        words: &["heed"],
        places: &["crates/engine/src/store/file/"],
        why: "LMDB is how one store keeps its index, and nobody else's business",
    },
    Reserved {
        words: &["tokio"],
        places: &[
            "crates/client/src/",
            "crates/auth/src/forward.rs",
            "crates/auth/src/jwt/source.rs",
            "crates/engine/src/engine/",
            "crates/engine/src/store/file/",
            "crates/pingora/src/",
            "crates/subscriptions/src/",
            "src/edge/",
            "src/server/",
            "src/admin/",
            "src/webhooks/",
            "src/tier/",
            "src/tls/",
            "src/cli/",
        ],
        why: "the protocol and the configuration are plain code that any runtime, test or fuzzer can call",
    },
];

/// Whether `word` stands in `code` as a word of its own; `std::os::unix::fs` only adds methods to what others open.
fn has_word(code: &str, word: &str) -> bool {
    words(code, word).any(|at| !code[..at].ends_with("unix::") && !code[..at].ends_with('.'))
}

fn misplaced_words(source: &Source) -> Vec<String> {
    let path = source.path.as_str();
    let at_home =
        |place: &&str| path == *place || (place.ends_with('/') && path.starts_with(place));
    let foreign = RESERVED.iter().filter(|reserved| !reserved.places.iter().any(at_home));
    foreign
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

#[test]
fn clocks_files_and_frameworks_stay_where_they_belong() {
    refuse(sources().iter().flat_map(misplaced_words).collect());
}

#[test]
fn misplaced_words_are_seen() {
    for (path, text) in [
        ("crates/engine/src/engine/mod.rs", "let now = SystemTime::now();"),
        ("crates/engine/src/engine/mod.rs", "let now = tokio::time::Instant::now();"),
        ("crates/engine/src/store/memory.rs", "use std::{fs, io};"),
        ("crates/engine/src/engine/mod.rs", "std::fs::read(path)"),
        (
            "crates/engine/src/engine/mod.rs",
            "#[cfg(test)]\nuse a::B;\nfn f() { std::fs::read(path) }",
        ),
        ("crates/subscriptions/src/lib.rs", "use pingora::http;"),
        ("src/edge/mod.rs", "use reqwest::Client;"),
        ("crates/engine/src/engine/mod.rs", "use heed::Env;"),
        ("crates/protocol/src/mod.rs", "use tokio::sync::watch;"),
    ] {
        assert_eq!(misplaced_words(&Source::new(path, text)).len(), 1, "{path}: {text}");
    }
    for (path, text) in [
        ("crates/engine/src/engine/mod.rs", "use std::os::unix::fs::PermissionsExt; // std::fs"),
        ("crates/engine/src/engine/mod.rs", "#[cfg(test)]\nmod tests { use std::fs; }"),
        ("crates/engine/src/store/file/disk.rs", "use std::fs::File;"),
        ("crates/engine/src/engine/clock.rs", "SystemTime::now()"),
        ("src/config/log.rs", "\"pingora::{} is a target\""),
    ] {
        assert_eq!(misplaced_words(&Source::new(path, text)), [""; 0], "{path}: {text}");
    }
}
