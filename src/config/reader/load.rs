//! File, environment and flags become one tree, and the tree a [`Config`].

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, ConfigProblems};
use super::node::{ConfigNode, ValueSource, quoted};
use super::setting::{Setting, nearest};
use super::{caddyfile, yaml};
use crate::config::keys::{root::Config, tracing};
use crate::config::rules;

/// The prefix of every environment variable of this server.
pub const ENVIRONMENT_PREFIX: &str = "DURABLE_STREAMS_";

/// The variable that names the file; it belongs to the command line, not to the configuration.
const FILE_VARIABLE: &str = "DURABLE_STREAMS_CONFIG";

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct ConfigSources {
    /// The YAML file.
    pub file: Option<PathBuf>,
    /// Environment variables; those without [`ENVIRONMENT_PREFIX`] are ignored.
    pub environment: Vec<(OsString, OsString)>,
    /// Command-line flags that were given.
    pub flags: Vec<ConfigFlag>,
}

impl ConfigSources {
    /// A file, and the environment of this process.
    pub fn of_file(file: Option<PathBuf>) -> Self {
        Self { file, environment: std::env::vars_os().collect(), flags: Vec::new() }
    }
}

/// A command-line flag that sets a key.
#[derive(Clone, Debug)]
pub struct ConfigFlag {
    /// As typed: `--data-dir`.
    pub name: &'static str,
    /// The key it sets: `data_dir`.
    pub key: &'static str,
    /// Its text; commas separate the items of a list.
    pub value: String,
}

/// Loads what `sources` say for a binary that can export traces, or cannot.
pub(in crate::config) fn load(
    sources: &ConfigSources,
    can_trace: bool,
) -> Result<Config, ConfigError> {
    let file = sources.file.as_deref();
    let name = file.map(|file| file.display().to_string());
    let mut root = match (file, &name) {
        (Some(file), Some(name)) => read_file(file, name)?,
        _ => ConfigNode::default(),
    };
    for (name, key, value) in tracing::standard_variables(&sources.environment, &root, can_trace) {
        root.put(
            key,
            ConfigNode { source: ValueSource::Environment(name), ..ConfigNode::text(value) },
        );
    }
    let environment = environment(&sources.environment);
    for (name, key, value) in &environment.set {
        let source = ValueSource::Environment(name.clone());
        if key == "durability.interval" {
            // It replaces the word that may stand there.
            root.put("durability", ConfigNode::default());
        }
        root.put(key, ConfigNode { source, ..ConfigNode::text(value.clone()) });
    }
    for flag in &sources.flags {
        let source = ValueSource::Flag(flag.name.to_owned());
        root.put(flag.key, ConfigNode { source, ..ConfigNode::text(flag.value.clone()) });
    }

    let mut problems = ConfigProblems::about(&root, keys());
    for (name, fix) in environment.unknown {
        problems.unknown(&ValueSource::Environment(name), "", "variable of this server", fix);
    }
    let config = Config::read(&root, "", &mut problems).unwrap_or_default();
    rules::check_all(&config, can_trace, &mut problems);
    problems.into_result(config, name.as_deref())
}

/// Reads and parses the file; a file that is not YAML stops here.
fn read_file(path: &Path, name: &str) -> Result<ConfigNode, ConfigError> {
    let refuse = |rule: String, fix: &str| ConfigError::at(name, 0, 0, &rule, fix);
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(yaml::MAX_FILE as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| {
            let fix = match error.kind() {
                std::io::ErrorKind::NotFound => "check the path; it is taken from where you start",
                std::io::ErrorKind::PermissionDenied => "let the user of this process read it",
                std::io::ErrorKind::IsADirectory => "name the file inside it",
                _ => "",
            };
            refuse(format!("cannot be read: {error}"), fix)
        })?;
    if bytes.len() > yaml::MAX_FILE {
        let rule = format!("is larger than {} bytes", yaml::MAX_FILE);
        return Err(refuse(rule, "is this the right file?"));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count() as u64;
        ConfigError::at(name, line, 0, "is not UTF-8 text", "save the file as UTF-8")
    })?;
    let parsed = yaml::parse(&text);
    if let Some(refusal) = caddyfile::refusal(path, name, &text, parsed.is_ok()) {
        return Err(refusal);
    }
    parsed.map_err(|error| {
        let rule = format!("is not valid YAML: {}", error.message);
        ConfigError::at(name, error.line, error.column, &rule, error.fix)
    })
}

#[derive(Default)]
struct EnvironmentKeys {
    /// Variable, key, text.
    set: Vec<(String, String, String)>,
    /// Variable, advice.
    unknown: Vec<(String, String)>,
}

/// This server's variables, in the order of their names, so that `DURABILITY_INTERVAL` refines
/// `DURABILITY` wherever the two stand in the environment. An empty one counts as not set.
fn environment(variables: &[(OsString, OsString)]) -> EnvironmentKeys {
    let names = environment_names();
    let mut ours: Vec<(String, &OsString)> = variables
        .iter()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value))
        .filter(|(name, value)| {
            name.starts_with(ENVIRONMENT_PREFIX) && name != FILE_VARIABLE && !value.is_empty()
        })
        .collect();
    ours.sort();
    let mut found = EnvironmentKeys::default();
    for (name, value) in ours {
        let suffix = name.strip_prefix(ENVIRONMENT_PREFIX).unwrap_or_default();
        match (names.iter().find(|(known, _)| *known == name), value.to_str()) {
            (Some(_), None) => found.unknown.push((name, "its value is not UTF-8".to_owned())),
            (Some((_, key)), Some(value)) => {
                found.set.push((name, key.clone(), value.to_owned()));
            }
            (None, _) if is_service_link(suffix) => {}
            (None, _) => {
                let fix = advice(suffix, &names);
                found.unknown.push((name, fix));
            }
        }
    }
    found
}

fn advice(suffix: &str, names: &[(String, String)]) -> String {
    let group = suffix.to_ascii_lowercase();
    if group == "upstreams" || group.starts_with("upstreams_") {
        return "upstreams are set in the file".to_owned();
    }
    let known = names.iter().filter_map(|(name, _)| name.strip_prefix(ENVIRONMENT_PREFIX));
    match nearest(suffix, known) {
        Some(near) => format!("did you mean {ENVIRONMENT_PREFIX}{near}?"),
        None => format!("no key is called {}; unset it", quoted(&group)),
    }
}

/// Kubernetes announces a service named `durable-streams` to every pod beside it in variables that
/// start like ours: `_SERVICE_HOST`, `_SERVICE_PORT…`, `_PORT`, `_PORT_4437_TCP…`.
fn is_service_link(suffix: &str) -> bool {
    suffix == "SERVICE_HOST"
        || suffix == "PORT"
        || suffix == "SERVICE_PORT"
        || suffix.starts_with("SERVICE_PORT_")
        || suffix
            .strip_prefix("PORT_")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// All keys, each with its full path.
fn keys() -> Vec<String> {
    let mut keys = Vec::new();
    Config::keys("", &mut keys);
    keys
}

/// Each variable and its key. Lists of groups, and groups as a whole, are left to the file,
/// save the two that may be one word.
pub(in crate::config) fn environment_names() -> Vec<(String, String)> {
    let keys = keys();
    let is_group = |key: &String| {
        !["durability", "listen"].contains(&key.as_str())
            && keys
                .iter()
                .any(|k| k.strip_prefix(key.as_str()).is_some_and(|r| r.starts_with(['.', '['])))
    };
    keys.iter()
        .filter(|key| !key.contains('[') && !is_group(key))
        .map(|key| {
            let name = key.replace('.', "_").to_ascii_uppercase();
            (format!("{ENVIRONMENT_PREFIX}{name}"), key.clone())
        })
        .collect()
}
