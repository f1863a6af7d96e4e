//! What streams keep.

use durable_streams_protocol::subscription::Glob;

use crate::config::reader::error::ConfigProblems;
use crate::config::reader::setting::{InvalidValue, ScalarSetting, settings};
use crate::config::units::{ByteSize, HumanDuration};

/// The most rules: each stream's path is compared with all of them.
const MAX_RULES: usize = 64;

/// Times of appends are known to about a second.
const SHORTEST: HumanDuration = HumanDuration::secs(10);

settings! {
    /// A rule. One without bounds keeps everything. What exceeds any of its bounds is removed from the beginning of the stream.
    pub struct RetentionConfig {
        /// Paths as clients know them, of every tenant too: `*` is one segment, `**` any number.
        paths: GlobText = GlobText::default();
        /// Keep what was appended in this time, and up to a sixteenth more.
        keep_for: Option<HumanDuration> = None;
        /// Keep so many bytes, and up to a sixteenth more.
        keep_bytes: Option<ByteSize> = None;
        /// Keep so many messages (JSON messages, or appends of bytes), and up to a sixteenth more.
        keep_messages: Option<u64> = None;
    }
}

/// A pattern of stream paths.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GlobText(String);

impl GlobText {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ScalarSetting for GlobText {
    const WHAT: &'static str = "a pattern of stream paths such as chat/**";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        let parsed = Glob::parse(text).map(|_| GlobText(text.to_owned()));
        parsed.map_err(|why| InvalidValue::not_a(Self::WHAT).fix(why))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

/// Reports rules that say nothing.
pub(crate) fn check(rules: &[RetentionConfig], problems: &mut ConfigProblems<'_>) {
    for (at, rule) in rules.iter().enumerate() {
        let path = format!("retention[{at}]");
        if rule.paths.as_str().is_empty() {
            let key = format!("{path}.paths");
            problems.broken(
                &[(&key, "")],
                "is missing".to_owned(),
                "name a pattern, such as chat/**",
            );
        }
        if rule.keep_for.is_some_and(|time| time < SHORTEST) {
            let key = format!("{path}.keep_for");
            let (least, text) = (SHORTEST.text(), rule.keep_for.map(|time| time.text()));
            let broken = format!("is too short; the least is {least}");
            problems.broken(&[(&key, &text.unwrap_or_default())], broken, "keep more");
        }
    }
    if rules.len() > MAX_RULES {
        let rule = format!("has more than {MAX_RULES} entries");
        problems.broken(&[("retention", "")], rule, "use patterns with * and **");
    }
}
