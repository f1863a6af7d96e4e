//! What the sections about access have in common: operations, patterns and URLs as they are written.

use durable_streams_auth::jwt::Url;
use durable_streams_auth::{ClaimTemplate, OperationSet, PathPattern};

use crate::config::reader::error::ConfigProblems;
use crate::config::reader::setting::{InvalidValue, ScalarSetting};

/// One of the words of [`OperationSet`].
#[derive(Clone, Debug, PartialEq)]
pub struct OperationWord(String);

/// A path pattern.
#[derive(Clone, Debug, PartialEq)]
pub struct PatternText(String);

/// A path pattern with claims in it.
#[derive(Clone, Debug, PartialEq)]
pub struct TemplateText(String);

/// Where a key set is.
#[derive(Clone, Debug, PartialEq)]
pub struct KeysUrl(pub Url);

macro_rules! text_of {
    ($($name:ident),*) => {$(
        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    )*};
}
text_of!(PatternText, TemplateText);

/// The operations that words stand for.
pub fn operations(words: &[OperationWord]) -> OperationSet {
    let sets = words.iter().filter_map(|word| OperationSet::from_word(&word.0));
    sets.fold(OperationSet::NONE, OperationSet::union)
}

impl ScalarSetting for OperationWord {
    const WHAT: &'static str = "an operation";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        if OperationSet::from_word(text).is_some() {
            return Ok(OperationWord(text.to_owned()));
        }
        let fix = "use create, publish, append, close, read, delete, subscribe, write or all";
        Err(InvalidValue::not_a(Self::WHAT).fix(fix))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

impl ScalarSetting for PatternText {
    const WHAT: &'static str = "a path pattern";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        let parsed = PathPattern::parse(text).map(|_| PatternText(text.to_owned()));
        parsed.map_err(|why| InvalidValue::not_a(Self::WHAT).fix(why))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

impl ScalarSetting for TemplateText {
    const WHAT: &'static str = "a path pattern such as users/{sub}/**";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        let parsed = ClaimTemplate::parse(text).map(|_| TemplateText(text.to_owned()));
        parsed.map_err(|why| InvalidValue::not_a(Self::WHAT).fix(why))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

impl ScalarSetting for KeysUrl {
    const WHAT: &'static str = "a URL such as https://id.example.com/keys";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "https" | "http") && url.has_host() => {
                Ok(KeysUrl(url))
            }
            _ => Err(InvalidValue::not_a(Self::WHAT)),
        }
    }

    fn text(&self) -> String {
        self.0.to_string()
    }
}

/// Reports a list that must not be empty.
pub(super) fn some<T>(
    list: &[T],
    path: &str,
    key: &str,
    rule: &str,
    problems: &mut ConfigProblems<'_>,
) {
    if list.is_empty() {
        problems.broken(&[(&format!("{path}.{key}"), "")], rule.to_owned(), "name some");
    }
}
