//! What the library crates may depend on: arrows between them go down only, and an embedder gets none of the server's
//! own dependencies.

use std::fs;

use crate::{refuse, root};

/// The library crates, and which of each other they may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("engine", &["protocol"]),
    ("auth", &["protocol"]),
    ("subscriptions", &["engine", "protocol"]),
    ("pingora", &["engine", "protocol", "subscriptions", "auth"]),
    ("client", &["protocol"]),
];

/// The library crates have these names with `durable-streams-` before.
const PREFIX: &str = "durable-streams-";

/// Packages that no library crate may bring: whoever embeds the streams chooses these alone.
const SERVER_ONLY: &[&str] = &[
    "clap",
    "prometheus",
    "opentelemetry",
    "serde-saphyr",
    "pingora",
    "mimalloc",
    "tikv-jemallocator",
];

/// Packages that one crate alone may depend on, and why.
const ONE_CRATE_ONLY: &[(&str, &[&str], &str)] = &[
    ("hyper", &["client"], "whoever embeds the streams chooses an HTTP client alone"),
    ("reqwest", &[], "whoever embeds the streams chooses an HTTP client alone"),
    ("heed", &["engine"], "LMDB is how one store keeps its index"),
    ("pingora-core", &["pingora"], "the rest knows no HTTP framework"),
    ("pingora-proxy", &["pingora"], "the rest knows no HTTP framework"),
    (
        "tokio",
        &["engine", "auth", "subscriptions", "pingora", "client"],
        "the protocol is plain code that any runtime, test or fuzzer can call",
    ),
];

/// What a manifest depends on outside its tests, packages under their own names.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut section = "";
    for line in manifest.lines() {
        if let Some(name) = line.trim().strip_prefix('[') {
            section = name.trim_end_matches(']');
            if let Some((table, package)) = section.rsplit_once("dependencies.")
                && !table.ends_with("dev-")
            {
                found.push(package.to_owned());
            }
        } else if section.ends_with("dependencies") && !section.ends_with("dev-dependencies") {
            let Some((key, value)) = line.split_once('=') else { continue };
            let renamed =
                value.split_once("package = \"").and_then(|(_, rest)| rest.split('"').next());
            let key = key.trim().trim_end_matches(".workspace");
            if !key.is_empty() && !key.starts_with('#') {
                found.push(renamed.unwrap_or(key).to_owned());
            }
        }
    }
    found
}

fn misplaced_dependencies(name: &str, manifest: &str) -> Vec<String> {
    let Some((_, allowed)) = CRATES.iter().find(|(known, _)| *known == name) else {
        return vec![format!(
            "crates/{name}: say in docs/design.md what it is and what it may depend on"
        )];
    };
    let mut problems = Vec::new();
    for package in dependencies(manifest) {
        let of_server = SERVER_ONLY
            .iter()
            .any(|only| package == *only || package.starts_with(&format!("{only}_")))
            || package.starts_with("opentelemetry-");
        if of_server || package == "durable-streams-server" {
            problems.push(format!(
                "crates/{name}: `{package}` is the server's; a library crate must not bring it"
            ));
        }
        if let Some(other) = package.strip_prefix(PREFIX)
            && CRATES.iter().any(|(known, _)| *known == other)
            && !allowed.contains(&other)
        {
            problems.push(format!(
                "crates/{name}: must not depend on `{package}`: arrows go down only"
            ));
        }
        for (only, places, why) in ONE_CRATE_ONLY {
            if package == *only && !places.contains(&name) {
                problems.push(format!(
                    "crates/{name}: `{package}` belongs in {} only: {why}",
                    places.join(", ")
                ));
            }
        }
    }
    problems
}

#[test]
fn crates_depend_only_on_what_they_may() {
    let mut problems = Vec::new();
    let mut seen = 0;
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let folder = entry.unwrap().path();
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        assert!(
            !dependencies(&manifest).is_empty(),
            "{}: no dependency was read",
            folder.display()
        );
        problems.extend(misplaced_dependencies(
            folder.file_name().unwrap().to_str().unwrap(),
            &manifest,
        ));
        seen += 1;
    }
    assert!(seen >= 2, "the crates were not found");
    refuse(problems);
}

#[test]
fn misplaced_dependencies_are_seen() {
    for (name, manifest) in [
        ("protocol", "[dependencies]\nclap = \"4\""),
        ("engine", "[dependencies.reqwest]\nversion = \"0.13\""),
        (
            "engine",
            "[target.'cfg(unix)'.dependencies]\nmetrics = { version = \"1\", package = \"prometheus\" }",
        ),
        ("engine", "[build-dependencies]\nserde-saphyr.workspace = true"),
        ("pingora", "[dependencies]\nopentelemetry_sdk = \"1\""),
        ("pingora", "[dependencies]\npingora = \"0.9\""),
        ("protocol", "[dependencies]\ndurable-streams-engine.workspace = true"),
        ("protocol", "[dependencies]\ntokio = { workspace = true }"),
        ("subscriptions", "[dependencies]\nheed = \"1\""),
        ("attic", ""),
    ] {
        assert_eq!(misplaced_dependencies(name, manifest).len(), 1, "{name}: {manifest}");
    }
    let fine = "[package]\nname = \"clap\"\n[dependencies]\nbytes = \"1\"\ntokio = \"1\"\n# clap = \"4\"\n\
                durable-streams-protocol.workspace = true\n[dev-dependencies]\nreqwest = \"1\"\n[dev-dependencies.clap]\n";
    assert_eq!(misplaced_dependencies("engine", fine), [""; 0]);
}
