//! How a typed value is read from the tree, checked, written back, and found by its name.
//!
//! - [`ScalarSetting`]: one word of text, such as a duration or an address.
//! - [`Setting`]: anything that can stand behind a key: a scalar, a list, an optional, a group.
//! - `settings!` declares a group: its keys, their types, defaults and bounds, in one place.
//! - `choice!` declares a closed set of words.
//!
//! Reading never stops at the first problem. A value that is refused leaves its default in place
//! so that the rest can be judged; the problems then refuse the whole.

use super::error::ConfigProblems;
use super::node::{ConfigNode, NodeValue};

/// Why a text is not the value it should be, and what to write instead.
#[derive(Debug)]
pub(crate) struct InvalidValue {
    pub(crate) rule: String,
    pub(crate) fix: String,
}

/// A value written as one word of text.
pub(crate) trait ScalarSetting: Sized {
    /// What it is, for messages: "a duration such as 30s".
    const WHAT: &'static str;
    /// Whether values of this type hold a secret, which no log and no response shows.
    const SECRET: bool = false;
    /// Reads the text, or says why not.
    fn parse(text: &str) -> Result<Self, InvalidValue>;
    /// Writes the value so that `parse` reads it back.
    fn text(&self) -> String;
}

/// A value that can stand behind a key.
pub(crate) trait Setting: Sized {
    /// Reads the value at `path`; `None` after a problem was reported.
    fn read(node: &ConfigNode, path: &str, problems: &mut ConfigProblems<'_>) -> Option<Self>;
    /// Writes the value as a tree.
    fn write(&self) -> ConfigNode;
    /// Checks the bounds of everything inside.
    fn check(&self, _path: &str, _problems: &mut ConfigProblems<'_>) {}
    /// Adds every key from `path` down, in the form `upstreams[].health_check.path`.
    fn keys(path: &str, keys: &mut Vec<String>) {
        keys.push(path.to_owned());
    }
}

impl InvalidValue {
    pub(crate) fn new(rule: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { rule: rule.into(), fix: fix.into() }
    }

    pub(crate) fn not_a(what: &str) -> Self {
        Self::new(format!("is not {what}"), "")
    }

    pub(crate) fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }
}

/// `path.key`, or `key` at the top.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The candidate that a typing mistake most likely meant. One or two letters resemble everything.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let word = word.to_lowercase();
    let likeness = |candidate: &&str| strsim::jaro_winkler(&word, &candidate.to_lowercase());
    candidates
        .into_iter()
        .map(|candidate| (likeness(&candidate), candidate))
        .filter(|(likeness, _)| word.len() > 2 && *likeness >= 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// Reports the keys of a group that are not in `known`. `false` when the node is no group.
pub(crate) fn open_group(
    node: &ConfigNode,
    path: &str,
    known: &[&str],
    problems: &mut ConfigProblems<'_>,
) -> bool {
    let entries = match &node.value {
        NodeValue::Null => return true,
        NodeValue::Group(entries) => entries,
        NodeValue::Text(_) | NodeValue::List(_) => {
            problems.wrong_shape(node, path_or_file(path), "a group of keys");
            return false;
        }
    };
    for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
        let fix = match nearest(&entry.key, known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => match problems.path_of_key(&entry.key) {
                Some(elsewhere) => format!("did you mean {elsewhere}?"),
                None => format!("the keys here are {}", known.join(", ")),
            },
        };
        problems.unknown(&entry.source, &join(path, &entry.key), "key", fix);
    }
    true
}

fn path_or_file(path: &str) -> &str {
    if path.is_empty() { "the file" } else { path }
}

/// Reports `value` when it is outside `least..=most`.
pub(crate) fn check_range<T: ScalarSetting + PartialOrd>(
    value: &T,
    (least, most): (T, T),
    path: &str,
    problems: &mut ConfigProblems<'_>,
) {
    let (rule, fix) = if *value < least {
        ("is below the least allowed", least.text())
    } else if *value > most {
        ("is above the most allowed", most.text())
    } else {
        return;
    };
    let all = format!("{} to {}", least.text(), most.text());
    problems.broken(
        &[(path, &value.text())],
        format!("{rule}, {fix}"),
        &format!("use a value from {all}"),
    );
}

/// Declares a group of keys: a struct with public fields, its defaults, and how to read it.
///
/// `key: Type = default => least, most;` where the bounds, both included, are optional.
macro_rules! settings {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(
                $(#[$key_meta:meta])*
                $key:ident: $type:ty = $default:expr $(=> $least:expr, $most:expr)?;
            )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $( $(#[$key_meta])* pub $key: $type, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $key: $default, )* }
            }
        }

        impl $crate::config::reader::setting::Setting for $name {
            fn read(
                node: &$crate::config::reader::node::ConfigNode,
                path: &str,
                problems: &mut $crate::config::reader::error::ConfigProblems<'_>,
            ) -> Option<Self> {
                const KEYS: &[&str] = &[$( stringify!($key) ),*];
                if !$crate::config::reader::setting::open_group(node, path, KEYS, problems) {
                    return None;
                }
                let mut value = Self::default();
                $(
                    if let Some(entry) = node.child(stringify!($key)) {
                        let path = $crate::config::reader::setting::join(path, stringify!($key));
                        let read = <$type as $crate::config::reader::setting::Setting>::read;
                        if let Some(read) = read(&entry.node, &path, problems) {
                            value.$key = read;
                        }
                    }
                )*
                Some(value)
            }

            fn write(&self) -> $crate::config::reader::node::ConfigNode {
                $crate::config::reader::node::ConfigNode::group(vec![
                    $( (stringify!($key), $crate::config::reader::setting::Setting::write(&self.$key)), )*
                ])
            }

            fn check(&self, path: &str, problems: &mut $crate::config::reader::error::ConfigProblems<'_>) {
                $({
                    let path = $crate::config::reader::setting::join(path, stringify!($key));
                    $( $crate::config::reader::setting::check_range(
                        &self.$key, ($least, $most), &path, problems); )?
                    $crate::config::reader::setting::Setting::check(&self.$key, &path, problems);
                })*
            }

            fn keys(path: &str, keys: &mut Vec<String>) {
                if !path.is_empty() && !path.ends_with("[]") {
                    keys.push(path.to_owned());
                }
                $(
                    let path_of_key = $crate::config::reader::setting::join(path, stringify!($key));
                    <$type as $crate::config::reader::setting::Setting>::keys(&path_of_key, keys);
                )*
            }
        }
    };
}
pub(crate) use settings;

/// Declares an enum of words. The first one that a mistyped word resembles is suggested.
macro_rules! choice {
    (
        $(#[$meta:meta])*
        pub enum $name:ident: $what:literal {
            $( $(#[$variant_meta:meta])* $variant:ident = $word:literal, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant, )*
        }

        impl $crate::config::reader::setting::ScalarSetting for $name {
            const WHAT: &'static str = $what;

            fn parse(text: &str) -> Result<Self, $crate::config::reader::setting::InvalidValue> {
                const WORDS: &[&str] = &[$( $word ),*];
                match text {
                    $( $word => Ok(Self::$variant), )*
                    _ => Err($crate::config::reader::setting::not_a_choice(text, $what, WORDS)),
                }
            }

            fn text(&self) -> String {
                match self { $( Self::$variant => $word, )* }.to_owned()
            }
        }
    };
}
pub(crate) use choice;

/// The refusal of a word outside a closed set.
pub(crate) fn not_a_choice(text: &str, what: &str, words: &[&str]) -> InvalidValue {
    let all = words.join(", ");
    let fix = match nearest(text, words.iter().copied()) {
        Some(near) => format!("did you mean {near}? (one of {all})"),
        None => format!("use one of {all}"),
    };
    InvalidValue::not_a(what).fix(fix)
}

impl<T: ScalarSetting> Setting for T {
    fn read(node: &ConfigNode, path: &str, problems: &mut ConfigProblems<'_>) -> Option<Self> {
        match &node.value {
            NodeValue::Text(text) => {
                let refused = |why| {
                    let node = ConfigNode { secret: T::SECRET, ..node.clone() };
                    problems.invalid(&node, path, why);
                };
                T::parse(text).map_err(refused).ok()
            }
            NodeValue::Null => {
                let why =
                    InvalidValue::new("is not a value", format!("write {}, or remove it", T::WHAT));
                problems.invalid(node, path, why);
                None
            }
            NodeValue::List(_) | NodeValue::Group(_) => {
                problems.wrong_shape(node, path, T::WHAT);
                None
            }
        }
    }

    fn write(&self) -> ConfigNode {
        ConfigNode { secret: T::SECRET, ..ConfigNode::text(self.text()) }
    }
}

impl<T: Setting> Setting for Option<T> {
    fn read(node: &ConfigNode, path: &str, problems: &mut ConfigProblems<'_>) -> Option<Self> {
        match &node.value {
            NodeValue::Null => Some(None),
            NodeValue::Text(text) if text == "none" => Some(None),
            NodeValue::Text(_) | NodeValue::List(_) | NodeValue::Group(_) => {
                T::read(node, path, problems).map(Some)
            }
        }
    }

    fn write(&self) -> ConfigNode {
        self.as_ref().map(T::write).unwrap_or_default()
    }

    fn check(&self, path: &str, problems: &mut ConfigProblems<'_>) {
        if let Some(value) = self {
            value.check(path, problems);
        }
    }

    fn keys(path: &str, keys: &mut Vec<String>) {
        T::keys(path, keys);
    }
}

impl<T: Setting> Setting for Vec<T> {
    /// One text stands for a list of one; outside the file, commas separate the items.
    fn read(node: &ConfigNode, path: &str, problems: &mut ConfigProblems<'_>) -> Option<Self> {
        let split: Vec<ConfigNode>;
        let items: &[ConfigNode] = match &node.value {
            NodeValue::Null => &[],
            NodeValue::List(items) => items,
            NodeValue::Text(text) if node.source.is_outside_the_file() => {
                let item = |text: &str| ConfigNode {
                    source: node.source.clone(),
                    ..ConfigNode::text(text.trim())
                };
                split = text.split(',').map(item).collect();
                &split
            }
            NodeValue::Text(_) => std::slice::from_ref(node),
            NodeValue::Group(_) => {
                problems.wrong_shape(node, path, "a list");
                return None;
            }
        };
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            values.push(T::read(item, &format!("{path}[{index}]"), problems));
        }
        values.into_iter().collect()
    }

    fn write(&self) -> ConfigNode {
        ConfigNode {
            value: NodeValue::List(self.iter().map(T::write).collect()),
            ..ConfigNode::default()
        }
    }

    fn check(&self, path: &str, problems: &mut ConfigProblems<'_>) {
        for (index, item) in self.iter().enumerate() {
            item.check(&format!("{path}[{index}]"), problems);
        }
    }

    fn keys(path: &str, keys: &mut Vec<String>) {
        keys.push(path.to_owned());
        let mut inner = Vec::new();
        T::keys(&format!("{path}[]"), &mut inner);
        // A list of scalars has no keys of its own below it.
        keys.extend(inner.into_iter().filter(|key| !key.ends_with("[]")));
    }
}
