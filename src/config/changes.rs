//! What differs between the running configuration and a new one, and what of it waits for a restart.

use std::collections::BTreeMap;

use serde_json::Value;

use super::keys::limits::LimitsConfig;
use super::keys::log::LogConfig;
use super::keys::root::Config;
use super::keys::telemetry::TelemetryConfig;
use super::reader::mask::{MASK, without_secrets};
use super::reader::node::{ConfigNode, NodeEntry, NodeValue};
use super::reader::setting::Setting;

/// One key whose value differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigChange {
    /// The key, as `limits.max_append`; a list counts as one.
    pub key: String,
    /// The running value.
    pub from: String,
    /// The new value.
    pub to: String,
    /// Whether it takes effect only after a restart.
    pub needs_restart: bool,
}

impl Config {
    /// What `new` changes in this running configuration, in the order of the keys.
    pub fn changes(&self, new: &Self) -> Vec<ConfigChange> {
        let (running, wanted) = (leaves(self), leaves(new));
        let in_force = leaves(&new.clone().keeping_fixed(self));
        let keys = running.keys().chain(wanted.keys().filter(|key| !running.contains_key(*key)));
        let value = |of: &BTreeMap<String, ConfigLeaf>, key: &String| {
            of.get(key).map_or_else(|| "none".to_owned(), |leaf| leaf.shown.clone())
        };
        let mut changes: Vec<ConfigChange> = keys
            .filter(|key| running.get(*key) != wanted.get(*key))
            .map(|key| ConfigChange {
                key: key.clone(),
                from: value(&running, key),
                to: value(&wanted, key),
                needs_restart: in_force.get(key) != wanted.get(key),
            })
            .collect();
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        changes
    }

    /// This configuration with the values of `running` where they cannot change without a restart: what is
    /// bound, opened or started once.
    #[must_use]
    pub fn keeping_fixed(self, running: &Self) -> Self {
        let fixed = running.clone();
        Self {
            listen: fixed.listen,
            redirect_http: fixed.redirect_http,
            acme: fixed.acme,
            route: fixed.route,
            data_dir: fixed.data_dir,
            durability: fixed.durability,
            storage: fixed.storage,
            tier: fixed.tier,
            shutdown_timeout: fixed.shutdown_timeout,
            threads: fixed.threads,
            admin: fixed.admin,
            auth: fixed.auth,
            subscriptions: fixed.subscriptions,
            log: LogConfig { format: fixed.log.format, ..self.log },
            telemetry: TelemetryConfig {
                tracing: fixed.telemetry.tracing,
                usage: fixed.telemetry.usage,
                ..self.telemetry
            },
            limits: LimitsConfig {
                max_connections: fixed.limits.max_connections,
                max_inflight_read: fixed.limits.max_inflight_read,
                send_buffer: fixed.limits.send_buffer,
                ..self.limits
            },
            ..self
        }
    }
}

/// One value: how it is shown, and what it is.
#[derive(PartialEq)]
struct ConfigLeaf {
    shown: String,
    value: NodeValue,
}

impl Config {
    /// The whole configuration as JSON. Values of types that hold secrets are `***`, and so is what may be secret in a URL.
    pub fn masked(&self) -> Value {
        masked(&self.write())
    }
}

fn masked(node: &ConfigNode) -> Value {
    if node.secret {
        return MASK.into();
    }
    match &node.value {
        NodeValue::Null => Value::Null,
        NodeValue::Text(text) => without_secrets(text).into(),
        NodeValue::List(items) => items.iter().map(masked).collect(),
        NodeValue::Group(entries) => {
            let one = |entry: &NodeEntry| (entry.key.clone(), masked(&entry.node));
            Value::Object(entries.iter().map(one).collect())
        }
    }
}

/// Every value by its key; lists and what is in them are one value.
fn leaves(config: &Config) -> BTreeMap<String, ConfigLeaf> {
    let mut found = BTreeMap::new();
    collect(&config.write(), "", &mut found);
    found
}

fn collect(node: &ConfigNode, path: &str, found: &mut BTreeMap<String, ConfigLeaf>) {
    match &node.value {
        NodeValue::Group(entries) => {
            for entry in entries {
                collect(&entry.node, &super::reader::setting::join(path, &entry.key), found);
            }
        }
        NodeValue::Null => {}
        NodeValue::Text(_) | NodeValue::List(_) => {
            let leaf = ConfigLeaf { shown: shown(node), value: node.value.clone() };
            found.insert(path.to_owned(), leaf);
        }
    }
}

/// On one line, as YAML could be written.
fn shown(node: &ConfigNode) -> String {
    if node.secret {
        return MASK.to_owned();
    }
    match &node.value {
        NodeValue::Null => "none".to_owned(),
        NodeValue::Text(text) => without_secrets(text).into_owned(),
        NodeValue::List(items) => {
            format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", "))
        }
        NodeValue::Group(entries) => {
            let entry = |e: &NodeEntry| format!("{}: {}", e.key, shown(&e.node));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{AdminConfig, ByteSize, LogLevel};

    #[test]
    fn each_difference_is_named_once_and_says_if_it_waits() {
        let running = Config::default();
        assert_eq!(running.changes(&running), []);
        let mut new = Config { threads: running.threads + 1, ..running.clone() };
        new.limits.max_append = ByteSize::mib(1);
        new.limits.max_streams = Some(7);
        new.log.level = LogLevel::Debug;
        new.admin = Some(AdminConfig::default());
        let change = |key: &str, from: &str, to: &str, needs_restart| ConfigChange {
            key: key.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            needs_restart,
        };
        let threads = (running.threads.to_string(), new.threads.to_string());
        assert_eq!(
            running.changes(&new),
            [
                change("admin.listen", "none", "127.0.0.1:4438", true),
                change("admin.page", "none", "false", true),
                change("limits.max_append", "16MiB", "1MiB", false),
                change("limits.max_streams", "none", "7", false),
                change("log.level", "info", "debug", false),
                change("threads", &threads.0, &threads.1, true),
            ]
        );
    }

    #[test]
    fn what_is_kept_is_no_change_any_more() {
        let running = Config::default();
        let new = Config { threads: running.threads + 1, ..running.clone() };
        assert_eq!(running.changes(&new.keeping_fixed(&running)), []);
    }

    #[test]
    fn secrets_are_masked_and_their_changes_reported() {
        use crate::config::{TraceHeader, TracingConfig};
        let header = |value: &str| TraceHeader {
            name: http::HeaderName::from_static("x-token"),
            value: value.to_owned(),
        };
        let with = |value: &str| {
            let tracing = TracingConfig { headers: vec![header(value)], ..Default::default() };
            let mut config = Config::default();
            config.telemetry.tracing = Some(tracing);
            config
        };
        let (one, other) = (with("first-secret"), with("second-secret"));
        let masked = one.masked();
        assert_eq!(masked["telemetry"]["tracing"]["headers"], serde_json::json!(["***"]));
        assert_eq!(masked["limits"]["max_append"], "16MiB");
        assert!(!masked.to_string().contains("secret"));
        let changes = one.changes(&other);
        assert_eq!(changes.len(), 1, "{changes:?}");
        assert!(!format!("{changes:?}").contains("-secret"), "{changes:?}");
    }
}
