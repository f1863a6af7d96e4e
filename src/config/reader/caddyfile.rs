//! A Caddyfile where `streams.yaml` belongs: says so, and which key each of its directives is here.
//!
//! docs/migrating-from-caddy.md has the same correspondence in prose.

use std::path::Path;

use super::error::ConfigError;

/// Directives of the Caddyfile, and what to write instead.
const DIRECTIVES: &[(&str, &str)] = &[
    ("admin", "write admin: {listen: \"127.0.0.1:4438\"}"),
    ("data_dir", "write data_dir"),
    ("durable_streams", "leave it out; streams are built in, and `route` says where"),
    ("email", "write acme: {email: …}"),
    ("log", "write log"),
    ("long_poll_timeout", "write long_poll_timeout"),
    ("max_file_handles", "leave it out; streams need no open file each"),
    ("reverse_proxy", "write upstreams: [{path: /, servers: [\"http://…\"]}]"),
    ("sse_reconnect_interval", "write sse_reconnect_interval"),
    ("tls", "write tls of an entry of listen: auto, internal, or {certificates: […]}"),
    ("trusted_proxies", "write trusted_proxies"),
];
/// What a block of a site becomes.
const SITE: &str = "write listen: an address, or {address: \"0.0.0.0:443\", hosts: […], tls: auto}";
/// The most lines that are explained.
const MOST: usize = 32;

/// The error for a file that is a Caddyfile: by its name, or, where YAML could not be read, by its first line.
pub(super) fn refusal(path: &Path, name: &str, text: &str, is_yaml: bool) -> Option<ConfigError> {
    let file = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let named = file.starts_with("caddyfile") || file.ends_with(".caddyfile");
    if !named && (is_yaml || !begins_like_one(text)) {
        return None;
    }
    let mut error = ConfigError::at(
        name,
        0,
        0,
        "is a Caddyfile; this server reads YAML",
        "write a streams.yaml with the keys below; see docs/migrating-from-caddy.md",
    );
    for (line, word, counterpart) in counterparts(text).take(MOST) {
        error.push(line, word, "is a directive of Caddy", counterpart);
    }
    Some(error)
}

/// Lines without comments and blanks, each with its number.
fn lines(text: &str) -> impl Iterator<Item = (u64, &str)> {
    let lines = (1..).zip(text.lines()).map(|(number, line)| (number, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Whether the first line opens a block: `{`, `:4437 {` or `example.com, www.example.com {`.
fn begins_like_one(text: &str) -> bool {
    let first = lines(text).next();
    first.is_some_and(|(_, line)| {
        line.strip_suffix('{').is_some_and(|site| site.is_empty() || site.ends_with(' '))
    })
}

/// Line, word and what to write instead, for each line that has a counterpart.
fn counterparts(text: &str) -> impl Iterator<Item = (u64, &str, &'static str)> {
    let mut depth = 0_usize;
    lines(text).filter_map(move |(number, line)| {
        let outermost = depth == 0;
        depth = if line.ends_with('{') { depth + 1 } else { depth };
        depth = if line == "}" { depth.saturating_sub(1) } else { depth };
        let word = line.split_whitespace().next()?;
        if outermost && line.ends_with('{') && word != "{" {
            return Some((number, word, SITE));
        }
        let known = DIRECTIVES.iter().find(|(directive, _)| *directive == word);
        known.map(|(directive, counterpart)| (number, *directive, *counterpart))
    })
}
