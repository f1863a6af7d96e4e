//! YAML text to [`ConfigNode`] and back; the only user of the YAML library.
//!
//! The text may be hostile: size, depth, node count and alias expansion are bounded here, so that
//! the answer to a YAML bomb is an error message.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{Error, Location, Spanned, UserMessageFormatter};

use super::node::{ConfigNode, NodeEntry, NodeValue, ValueSource};

/// Largest configuration file, in bytes. The annotated reference is about 15 KiB.
pub(crate) const MAX_FILE: usize = 1 << 20;

/// Deepest nesting of lists and groups. The deepest known key is at 4.
const MAX_DEPTH: usize = 32;

/// Most values in one file, aliases expanded.
const MAX_NODES: usize = 100_000;

/// Why a text is not a tree: where (0 when unknown) and what.
pub(crate) struct MalformedYaml {
    pub(crate) line: u64,
    pub(crate) column: u64,
    pub(crate) message: String,
    pub(crate) fix: &'static str,
}

/// Reads one YAML document. An empty one is [`NodeValue::Null`].
pub(crate) fn parse(text: &str) -> Result<ConfigNode, MalformedYaml> {
    let options = serde_saphyr::options! {
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_NODES,
            max_replay_stack_depth: MAX_DEPTH,
        },
    };
    match serde_saphyr::from_str_with_options::<Spanned<RawYaml>>(text, options) {
        Ok(root) => Ok(resolve(root, text)),
        Err(error) => {
            let at = error.location().unwrap_or(Location::UNKNOWN);
            let (message, fix) = explain(error.without_snippet());
            Err(MalformedYaml { line: at.line(), column: at.column(), message, fix })
        }
    }
}

/// Writes a tree as YAML that [`parse`] reads back.
pub(crate) fn write(node: &ConfigNode) -> Result<String, serde_saphyr::SerializeError> {
    serde_saphyr::to_string(node)
}

/// The library's sentence for end users, on one line and without the place; and what to do.
fn explain(error: &Error) -> (String, &'static str) {
    if let Error::Budget { breach: BudgetBreach::Documents { .. }, .. } = error {
        return ("there is a second document".to_owned(), "keep one, without `---` in between");
    }
    if let Error::RecursiveReferencesRequireWeakTypes { .. } = error {
        return ("an alias contains itself".to_owned(), "write the value out");
    }
    let fix = match error {
        Error::DuplicateMappingKey { .. } => "keep one of the two",
        Error::UnknownAnchor { .. } => "quote a text that starts with *, or define the anchor",
        Error::Budget { .. } => "is this the right file?",
        _ => "",
    };
    let message = error.render_with_formatter(&UserMessageFormatter).replace('\n', " ");
    match message.rsplit_once(" at line ") {
        Some((sentence, _)) => (sentence.to_owned(), fix),
        None => (message, fix),
    }
}

/// What serde hands over, before places are resolved.
enum RawYaml {
    Null,
    Text(String),
    /// A scalar that YAML took for a number or a truth value, as YAML understood it.
    Typed(String),
    List(Vec<Spanned<RawYaml>>),
    Group(Vec<(Spanned<RawYaml>, Spanned<RawYaml>)>),
}

fn resolve(raw: Spanned<RawYaml>, text: &str) -> ConfigNode {
    let source = source_of(raw.referenced);
    let value = match raw.value {
        RawYaml::Null => NodeValue::Null,
        RawYaml::Text(value) => NodeValue::Text(value),
        RawYaml::Typed(value) => NodeValue::Text(spelling(raw.defined, text).unwrap_or(value)),
        RawYaml::List(items) => {
            NodeValue::List(items.into_iter().map(|i| resolve(i, text)).collect())
        }
        RawYaml::Group(entries) => {
            let entry = |(key, node)| {
                let key: ConfigNode = resolve(key, text);
                let ConfigNode { source, value, .. } = key;
                let key = match value {
                    NodeValue::Text(key) => key,
                    NodeValue::Null => "null".to_owned(),
                    NodeValue::List(_) | NodeValue::Group(_) => {
                        "(a key that is not text)".to_owned()
                    }
                };
                NodeEntry { key, source, node: resolve(node, text) }
            };
            NodeValue::Group(entries.into_iter().map(entry).collect())
        }
    };
    ConfigNode { source, value, secret: false }
}

fn source_of(at: Location) -> ValueSource {
    ValueSource::File { line: at.line(), column: at.column() }
}

/// The scalar as its author wrote it: `off` and `0x10`, not `false` and `16`.
fn spelling(at: Location, text: &str) -> Option<String> {
    let start = usize::try_from(at.span().byte_offset()?).ok()?;
    let length = usize::try_from(at.span().byte_len()?).ok()?;
    let written = text.get(start..start.checked_add(length)?)?.trim();
    (!written.is_empty() && !written.contains(['\n', '"', '\''])).then(|| written.to_owned())
}

impl<'de> Deserialize<'de> for RawYaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyShape;

        impl<'de> Visitor<'de> for AnyShape {
            type Value = RawYaml;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<RawYaml, E> {
                Ok(RawYaml::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<RawYaml, E> {
                Ok(RawYaml::Typed(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<RawYaml, E> {
                Ok(RawYaml::Typed(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<RawYaml, E> {
                Ok(RawYaml::Typed(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<RawYaml, E> {
                Ok(RawYaml::Typed(value.to_string()))
            }

            fn visit_str<E>(self, value: &str) -> Result<RawYaml, E> {
                Ok(RawYaml::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<RawYaml, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = access.next_element()? {
                    items.push(item);
                }
                Ok(RawYaml::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<RawYaml, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = access.next_entry()? {
                    entries.push(entry);
                }
                Ok(RawYaml::Group(entries))
            }
        }

        deserializer.deserialize_any(AnyShape)
    }
}

impl Serialize for ConfigNode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.value {
            NodeValue::Null => serializer.serialize_unit(),
            NodeValue::Text(text) if text == "true" || text == "false" => {
                serializer.serialize_bool(text == "true")
            }
            NodeValue::Text(text) => match text.parse::<u64>() {
                Ok(number) if number.to_string() == *text => serializer.serialize_u64(number),
                _ => serializer.serialize_str(text),
            },
            NodeValue::List(items) => serializer.collect_seq(items),
            NodeValue::Group(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for entry in entries {
                    map.serialize_entry(&entry.key, &entry.node)?;
                }
                map.end()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, path: &str) -> ConfigNode {
        parse(text).unwrap_or_else(|e| panic!("{}", e.message)).at(path).cloned().unwrap()
    }

    #[test]
    fn scalars_keep_their_spelling_and_place() {
        let text = "# ü\na:\n  b: [0x10, off, 1e3, 007, 'yes', -5]\n  c: 30s\n";
        for (index, spelled) in ["0x10", "off", "1e3", "007", "yes", "-5"].into_iter().enumerate() {
            assert_eq!(at(text, &format!("a.b[{index}]")).shown(), format!("{spelled:?}"));
        }
        assert_eq!(at(text, "a.c").source, ValueSource::File { line: 4, column: 6 });
        let group = at(text, "a");
        assert_eq!(group.child("b").unwrap().source, ValueSource::File { line: 3, column: 3 });
    }

    #[test]
    fn an_alias_is_read_as_what_it_names() {
        let text = "a: &x 5\nb: *x\n";
        assert_eq!(at(text, "b").shown(), "\"5\"");
        assert_eq!(at(text, "b").source, ValueSource::File { line: 2, column: 4 });
    }

    #[test]
    fn bombs_are_refused() {
        let mut laughs = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for n in 1..12 {
            let before = vec![format!("*a{}", n - 1); 9].join(", ");
            laughs.push_str(&format!("a{n}: &a{n} [{before}]\n"));
        }
        let deep_flow = "[".repeat(50_000);
        let deep_block: String = (0..2_000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        let many = "- x\n".repeat(MAX_NODES + 1);
        for text in [laughs, deep_flow, deep_block, many] {
            assert!(parse(&text).is_err(), "must be refused: {}…", text.get(..20).unwrap());
        }
    }

    #[test]
    fn a_malformed_text_names_its_line() {
        for (text, line) in [("a: 1\nb: [1\nc: 2\n", 3), ("a: 1\na: 2\n", 2), ("a: 1\n\tb: 2\n", 2)]
        {
            let error = parse(text).err().unwrap();
            assert!(error.line.abs_diff(line) <= 1, "{text:?}: line {}", error.line);
            assert!(!error.message.contains('\n'), "{}", error.message);
        }
    }
}
