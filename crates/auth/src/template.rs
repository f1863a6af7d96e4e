//! Path patterns with blanks that a credential fills, as in `users/{sub}/**`.

use durable_streams_protocol::StreamPath;
use serde_json::{Map, Value};

use crate::PathPattern;

/// A path pattern in which a segment `{claim}` stands for the value of a claim, as in `users/{sub}/**`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimTemplate(Vec<TemplateSegment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum TemplateSegment {
    Text(String),
    Claim(String),
}

impl ClaimTemplate {
    /// Parses a pattern with claims in it.
    ///
    /// # Errors
    /// A text that says what is wrong with the pattern or claim.
    pub fn parse(text: &str) -> Result<Self, String> {
        let segments: Vec<TemplateSegment> = text
            .split('/')
            .map(|segment| {
                match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                    Some(claim) if !claim.is_empty() && !claim.contains(['{', '}']) => {
                        Ok(TemplateSegment::Claim(claim.into()))
                    }
                    None if !segment.contains(['{', '}']) => {
                        Ok(TemplateSegment::Text(segment.into()))
                    }
                    _ => Err(format!("{segment:?}: a claim such as {{sub}} is a whole segment")),
                }
            })
            .collect::<Result<_, _>>()?;
        let template = ClaimTemplate(segments);
        let sample = template.filled(|_| Some("x".into())).unwrap_or_default();
        PathPattern::parse(&sample).map(|_| template)
    }

    /// The pattern for a token's claims; `None` when a claim is missing or cannot be one literal segment.
    #[cfg_attr(not(feature = "jwt"), allow(dead_code, reason = "tokens and tests use it"))]
    pub(crate) fn fill(&self, claims: &Map<String, Value>) -> Option<PathPattern> {
        let text = self.filled(|claim| {
            let value = claims.get(claim)?.as_str()?;
            // A percent sign could spell a star, and these could be several segments or none.
            let literal = !value.is_empty() && !matches!(value, "." | "..");
            // A claim must not name a stream of the server's own.
            let literal = literal && value != StreamPath::RESERVED;
            let literal = literal && !value.contains(['/', '%']);
            let literal = literal && !value.chars().any(char::is_control);
            literal.then(|| value.replace('*', "%2A"))
        })?;
        PathPattern::parse(&text).ok()
    }

    /// The claims that it names.
    pub fn claims(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|segment| match segment {
            TemplateSegment::Claim(claim) => Some(claim.as_str()),
            TemplateSegment::Text(_) => None,
        })
    }

    fn filled(&self, value: impl Fn(&str) -> Option<String>) -> Option<String> {
        let segments = self.0.iter().map(|segment| match segment {
            TemplateSegment::Text(text) => Some(text.clone()),
            TemplateSegment::Claim(claim) => value(claim),
        });
        Some(segments.collect::<Option<Vec<_>>>()?.join("/"))
    }
}
