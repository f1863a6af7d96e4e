//! What is wrong with a configuration: all of it, each with its place, its rule and its fix.

use std::fmt;

use super::mask::without_secrets;
use super::node::{ConfigNode, NodeValue, ValueSource, quoted};
use super::setting::InvalidValue;

/// Everything that is wrong with a configuration, one line each when displayed.
#[derive(Debug, thiserror::Error)]
pub struct ConfigError {
    file: Option<String>,
    problems: Vec<ConfigProblem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ConfigProblem {
    source: ValueSource,
    /// The key, as `limits.max_append`; empty when the whole file is meant.
    path: String,
    value: Option<String>,
    rule: String,
    fix: String,
}

/// Gathers problems while a tree is read and checked.
pub(crate) struct ConfigProblems<'a> {
    root: &'a ConfigNode,
    /// All keys that there are, each with its full path.
    keys: Vec<String>,
    found: Vec<ConfigProblem>,
}

impl ConfigError {
    pub(crate) fn at(file: &str, line: u64, column: u64, rule: &str, fix: &str) -> Self {
        let problem = ConfigProblem {
            source: ValueSource::File { line, column },
            path: String::new(),
            value: None,
            rule: rule.to_owned(),
            fix: fix.to_owned(),
        };
        Self { file: Some(file.to_owned()), problems: vec![problem] }
    }

    /// Adds what is wrong with the word at a line of the file.
    pub(super) fn push(&mut self, line: u64, word: &str, rule: &str, fix: &str) {
        self.problems.push(ConfigProblem {
            source: ValueSource::File { line, column: 0 },
            path: word.to_owned(),
            value: None,
            rule: rule.to_owned(),
            fix: fix.to_owned(),
        });
    }

    /// How many problems there are; at least one.
    pub fn count(&self) -> usize {
        self.problems.len()
    }
}

impl<'a> ConfigProblems<'a> {
    /// An empty collection about the tree under `root`; `keys` are those that it may have.
    pub(crate) fn about(root: &'a ConfigNode, keys: Vec<String>) -> Self {
        Self { root, keys, found: Vec::new() }
    }

    /// The full path of the first key with this last part: `limits.max_append` for `max_append`.
    pub(crate) fn path_of_key(&self, name: &str) -> Option<&str> {
        let name = name.rsplit('.').next()?;
        let mut keys = self.keys.iter().map(String::as_str);
        keys.find(|key| key.rsplit(['.', ']']).next() == Some(name))
    }

    /// A text that its type does not accept.
    pub(crate) fn invalid(&mut self, node: &ConfigNode, path: &str, why: InvalidValue) {
        self.found.push(ConfigProblem {
            source: node.source.clone(),
            path: path.to_owned(),
            value: Some(node.shown()),
            rule: why.rule,
            fix: why.fix,
        });
    }

    /// A group, list or text where another shape belongs.
    pub(crate) fn wrong_shape(&mut self, node: &ConfigNode, path: &str, expected: &str) {
        let rule = format!("must be {expected}, not {}", node.shown());
        self.found.push(ConfigProblem {
            source: node.source.clone(),
            path: path.to_owned(),
            value: None,
            rule,
            fix: String::new(),
        });
    }

    /// A name that means nothing; `fix` names the nearest that does.
    pub(crate) fn unknown(&mut self, source: &ValueSource, path: &str, kind: &str, fix: String) {
        self.found.push(ConfigProblem {
            source: source.clone(),
            path: path.to_owned(),
            value: None,
            rule: format!("is not a known {kind}"),
            fix,
        });
    }

    /// A value of the right type that breaks a rule. `values` are the keys that the rule is about
    /// with their effective values, the one to blame first; the first one that was written is
    /// the place. Says nothing when one of them was already refused.
    pub(crate) fn broken(&mut self, values: &[(&str, &str)], rule: String, fix: &str) {
        let is_refused = |path: &str| {
            self.found.iter().any(|p| {
                p.path.strip_prefix(path).is_some_and(|rest| {
                    rest.is_empty() || rest.starts_with('.') || rest.starts_with('[')
                })
            })
        };
        if values.iter().any(|(path, _)| is_refused(path)) {
            return;
        }
        let written = values.iter().find_map(|(path, _)| self.root.at(path));
        let Some((path, value)) = values.first() else { return };
        // The spelling of the author where there is one: `90s`, not `1m30s`.
        let spelled = self.root.at(path).filter(|node| matches!(node.value, NodeValue::Text(_)));
        let value = match spelled {
            _ if value.is_empty() => None,
            Some(node) => Some(node.shown()),
            None => Some(quoted(value)),
        };
        self.found.push(ConfigProblem {
            source: written.map(|node| node.source.clone()).unwrap_or_default(),
            path: (*path).to_owned(),
            value,
            rule,
            fix: fix.to_owned(),
        });
    }

    /// True when the key at `path` was written anywhere, with a value.
    pub(crate) fn is_written(&self, path: &str) -> bool {
        self.root.at(path).is_some_and(|node| node.value != NodeValue::Null)
    }

    /// The result: `value` when nothing was found.
    pub(crate) fn into_result<T>(mut self, value: T, file: Option<&str>) -> Result<T, ConfigError> {
        if self.found.is_empty() {
            return Ok(value);
        }
        self.found.sort();
        Err(ConfigError { file: file.map(str::to_owned), problems: self.found })
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            let file = self.file.as_deref().unwrap_or("configuration");
            match &problem.source {
                ValueSource::File { line: 0, .. } => write!(f, "{file}: ")?,
                source @ ValueSource::File { .. } => write!(f, "{file}:{source}: ")?,
                ValueSource::Unwritten => f.write_str("configuration: ")?,
                source @ (ValueSource::Environment(_) | ValueSource::Flag(_)) => {
                    write!(f, "{}: ", printable(&source.to_string()))?;
                }
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{} ", printable(&self.path))?;
        }
        if let Some(value) = &self.value {
            write!(f, "= {value} ")?;
        }
        f.write_str(&printable(&self.rule))?;
        if !self.fix.is_empty() {
            write!(f, "; {}", printable(&self.fix))?;
        }
        Ok(())
    }
}

/// `text` as one line of bounded length without control characters and without secrets in URLs: parts of it come from the
/// file, and the line goes to a terminal.
fn printable(text: &str) -> String {
    const LONGEST: usize = 400;
    let text = &*without_secrets(text);
    let mut line: String =
        text.chars().take(LONGEST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line
}
