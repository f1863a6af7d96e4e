//! The tree of what was written: text, lists and groups of keys, each with where it stands.
//!
//! File, environment and flags meet here before anything is typed, so that one decoder serves all
//! three and every error can name its source. Scalars keep the spelling of the author: the type
//! that reads a value decides what it means, YAML does not.

use std::fmt;

use super::mask::{MASK, without_secrets};

/// Where a value was written.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ValueSource {
    /// In the file, counted from 1. Column 0 means that it is not known.
    File {
        /// Line.
        line: u64,
        /// Column, in characters.
        column: u64,
    },
    /// In this environment variable.
    Environment(String),
    /// In this command-line flag.
    Flag(String),
    /// Nowhere: a default, or a value set by code.
    #[default]
    Unwritten,
}

/// One value and its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConfigNode {
    pub(crate) source: ValueSource,
    pub(crate) value: NodeValue,
    /// The value is of a type that holds a secret: it is in no log and no response.
    pub(crate) secret: bool,
}

/// The shapes a value can have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum NodeValue {
    #[default]
    Null,
    Text(String),
    List(Vec<ConfigNode>),
    Group(Vec<NodeEntry>),
}

/// One `key: value` of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeEntry {
    pub(crate) key: String,
    /// Where the key stands, which is where an unknown key is reported.
    pub(crate) source: ValueSource,
    pub(crate) node: ConfigNode,
}

impl ValueSource {
    /// True for text that came as one word: commas separate the items of a list there.
    pub(crate) fn is_outside_the_file(&self) -> bool {
        matches!(self, Self::Environment(_) | Self::Flag(_))
    }
}

impl ConfigNode {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self { value: NodeValue::Text(text.into()), ..Self::default() }
    }

    pub(crate) fn group(entries: Vec<(&str, Self)>) -> Self {
        let entry = |(key, node): (&str, Self)| NodeEntry {
            key: key.to_owned(),
            source: ValueSource::Unwritten,
            node,
        };
        let value = NodeValue::Group(entries.into_iter().map(entry).collect());
        Self { value, ..Self::default() }
    }

    /// The child under `key`, when this is a group that has one.
    pub(crate) fn child(&self, key: &str) -> Option<&NodeEntry> {
        match &self.value {
            NodeValue::Group(entries) => entries.iter().find(|entry| entry.key == key),
            NodeValue::Null | NodeValue::Text(_) | NodeValue::List(_) => None,
        }
    }

    /// The node written at `path` (`upstreams[0].path`), if any.
    pub(crate) fn at(&self, path: &str) -> Option<&Self> {
        let mut node = self;
        for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
            node = match (&node.value, step.strip_suffix(']')) {
                (NodeValue::List(items), Some(index)) => items.get(index.parse::<usize>().ok()?)?,
                // A single text stands for a list of one.
                (NodeValue::Text(_), Some("0")) => node,
                _ => &node.child(step)?.node,
            };
        }
        Some(node)
    }

    /// Puts `node` at `path` (group keys only). Where the path runs into a text or a list, nothing
    /// happens: that mistake is still there to be reported.
    pub(crate) fn put(&mut self, path: &str, node: Self) {
        let (key, rest) = match path.split_once('.') {
            Some((key, rest)) => (key, Some(rest)),
            None => (path, None),
        };
        if self.value == NodeValue::Null {
            let value = NodeValue::Group(Vec::new());
            *self = Self { source: node.source.clone(), value, secret: false };
        }
        let NodeValue::Group(entries) = &mut self.value else { return };
        let index = entries.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
            let source = node.source.clone();
            entries.push(NodeEntry { key: key.to_owned(), source, node: Self::default() });
            entries.len() - 1
        });
        let Some(entry) = entries.get_mut(index) else { return };
        match rest {
            Some(rest) => entry.node.put(rest, node),
            None => entry.node = node,
        }
    }

    /// How an error message shows the value.
    pub(crate) fn shown(&self) -> String {
        match &self.value {
            NodeValue::Null => "(empty)".to_owned(),
            NodeValue::Text(_) if self.secret => MASK.to_owned(),
            NodeValue::Text(text) => quoted(text),
            NodeValue::List(_) => "a list".to_owned(),
            NodeValue::Group(_) => "a group of keys".to_owned(),
        }
    }
}

/// `text` in quotes, escaped, without secrets in URLs, and cut after 80 characters.
pub(crate) fn quoted(text: &str) -> String {
    const LONGEST: usize = 80;
    let text = &*without_secrets(text);
    match text.char_indices().nth(LONGEST) {
        None => format!("{text:?}"),
        Some((cut, _)) => format!("{:?}…", text.get(..cut).unwrap_or_default()),
    }
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { line: 0, .. } | Self::Unwritten => Ok(()),
            Self::File { line, column: 0 } => write!(f, "{line}"),
            Self::File { line, column } => write!(f, "{line}:{column}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}
