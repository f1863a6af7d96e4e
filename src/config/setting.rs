//! How a typed value is read from the tree, checked, written back, and found by its name.
//!
//! - [`Scalar`]: one word of text, such as a duration or an address.
//! - [`Setting`]: anything that can stand behind a key: a scalar, a list, an optional, a group.
//! - `settings!` declares a group: its keys, their types, defaults and bounds, in one place.
//! - `choice!` declares a closed set of words.
//!
//! Reading never stops at the first problem. A value that is refused leaves its default in place
//! so that the rest can be judged; the problems then refuse the whole.

use super::error::Problems;
use super::node::{Node, Value};

/// Why a text is not the value it should be, and what to write instead.
#[derive(Debug)]
pub(crate) struct Invalid {
    pub(crate) rule: String,
    pub(crate) fix: String,
}

/// A value written as one word of text.
pub(crate) trait Scalar: Sized {
    /// What it is, for messages: "a duration such as 30s".
    const WHAT: &'static str;
    /// Reads the text, or says why not.
    fn parse(text: &str) -> Result<Self, Invalid>;
    /// Writes the value so that `parse` reads it back.
    fn text(&self) -> String;
}

/// A value that can stand behind a key.
pub(crate) trait Setting: Sized {
    /// Reads the value at `path`; `None` after a problem was reported.
    fn read(node: &Node, path: &str, problems: &mut Problems<'_>) -> Option<Self>;
    /// Writes the value as a tree.
    fn write(&self) -> Node;
    /// Checks the bounds of everything inside.
    fn check(&self, _path: &str, _problems: &mut Problems<'_>) {}
    /// Adds every key from `path` down, in the form `upstreams[].health_check.path`.
    fn keys(path: &str, keys: &mut Vec<String>) {
        keys.push(path.to_owned());
    }
}

impl Invalid {
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
    node: &Node,
    path: &str,
    known: &[&str],
    problems: &mut Problems<'_>,
) -> bool {
    let entries = match &node.value {
        Value::Null => return true,
        Value::Group(entries) => entries,
        Value::Text(_) | Value::List(_) => {
            problems.wrong_shape(node, path_or_file(path), "a group of keys");
            return false;
        }
    };
    for entry in entries.iter().filter(|entry| !known.contains(&entry.key.as_str())) {
        let fix = match nearest(&entry.key, known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => match super::path_of_key(&entry.key) {
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
pub(crate) fn check_range<T: Scalar + PartialOrd>(
    value: &T,
    (least, most): (T, T),
    path: &str,
    problems: &mut Problems<'_>,
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

        impl $crate::config::setting::Setting for $name {
            fn read(
                node: &$crate::config::node::Node,
                path: &str,
                problems: &mut $crate::config::error::Problems<'_>,
            ) -> Option<Self> {
                const KEYS: &[&str] = &[$( stringify!($key) ),*];
                if !$crate::config::setting::open_group(node, path, KEYS, problems) {
                    return None;
                }
                let mut value = Self::default();
                $(
                    if let Some(entry) = node.child(stringify!($key)) {
                        let path = $crate::config::setting::join(path, stringify!($key));
                        let read = <$type as $crate::config::setting::Setting>::read;
                        if let Some(read) = read(&entry.node, &path, problems) {
                            value.$key = read;
                        }
                    }
                )*
                Some(value)
            }

            fn write(&self) -> $crate::config::node::Node {
                $crate::config::node::Node::group(vec![
                    $( (stringify!($key), $crate::config::setting::Setting::write(&self.$key)), )*
                ])
            }

            fn check(&self, path: &str, problems: &mut $crate::config::error::Problems<'_>) {
                $({
                    let path = $crate::config::setting::join(path, stringify!($key));
                    $( $crate::config::setting::check_range(
                        &self.$key, ($least, $most), &path, problems); )?
                    $crate::config::setting::Setting::check(&self.$key, &path, problems);
                })*
            }

            fn keys(path: &str, keys: &mut Vec<String>) {
                if !path.is_empty() && !path.ends_with("[]") {
                    keys.push(path.to_owned());
                }
                $(
                    let path_of_key = $crate::config::setting::join(path, stringify!($key));
                    <$type as $crate::config::setting::Setting>::keys(&path_of_key, keys);
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

        impl $crate::config::setting::Scalar for $name {
            const WHAT: &'static str = $what;

            fn parse(text: &str) -> Result<Self, $crate::config::setting::Invalid> {
                const WORDS: &[&str] = &[$( $word ),*];
                match text {
                    $( $word => Ok(Self::$variant), )*
                    _ => Err($crate::config::setting::not_a_choice(text, $what, WORDS)),
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
pub(crate) fn not_a_choice(text: &str, what: &str, words: &[&str]) -> Invalid {
    let all = words.join(", ");
    let fix = match nearest(text, words.iter().copied()) {
        Some(near) => format!("did you mean {near}? (one of {all})"),
        None => format!("use one of {all}"),
    };
    Invalid::not_a(what).fix(fix)
}

impl<T: Scalar> Setting for T {
    fn read(node: &Node, path: &str, problems: &mut Problems<'_>) -> Option<Self> {
        match &node.value {
            Value::Text(text) => {
                T::parse(text).map_err(|why| problems.invalid(node, path, why)).ok()
            }
            Value::Null => {
                let why =
                    Invalid::new("is not a value", format!("write {}, or remove it", T::WHAT));
                problems.invalid(node, path, why);
                None
            }
            Value::List(_) | Value::Group(_) => {
                problems.wrong_shape(node, path, T::WHAT);
                None
            }
        }
    }

    fn write(&self) -> Node {
        Node::text(self.text())
    }
}

impl<T: Setting> Setting for Option<T> {
    fn read(node: &Node, path: &str, problems: &mut Problems<'_>) -> Option<Self> {
        match &node.value {
            Value::Null => Some(None),
            Value::Text(text) if text == "none" => Some(None),
            Value::Text(_) | Value::List(_) | Value::Group(_) => {
                T::read(node, path, problems).map(Some)
            }
        }
    }

    fn write(&self) -> Node {
        self.as_ref().map(T::write).unwrap_or_default()
    }

    fn check(&self, path: &str, problems: &mut Problems<'_>) {
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
    fn read(node: &Node, path: &str, problems: &mut Problems<'_>) -> Option<Self> {
        let split: Vec<Node>;
        let items: &[Node] = match &node.value {
            Value::Null => &[],
            Value::List(items) => items,
            Value::Text(text) if node.source.is_outside_the_file() => {
                let item = |text: &str| Node {
                    source: node.source.clone(),
                    value: Value::Text(text.trim().to_owned()),
                };
                split = text.split(',').map(item).collect();
                &split
            }
            Value::Text(_) => std::slice::from_ref(node),
            Value::Group(_) => {
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

    fn write(&self) -> Node {
        Node { value: Value::List(self.iter().map(T::write).collect()), ..Node::default() }
    }

    fn check(&self, path: &str, problems: &mut Problems<'_>) {
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
