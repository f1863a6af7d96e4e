//! Content types (§9): kept as given, compared by media type, sorted into the three kinds that matter.

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

/// A stream's content type. Cheap to clone.
///
/// Two content types match when their media types are equal without regard to case; parameters such as
/// `charset` are kept and returned but not compared.
#[derive(Clone, PartialEq, Eq)]
pub struct ContentType {
    text: Arc<str>,
    json: bool,
    compressible: bool,
    document: bool,
}

/// Why a header value is not a content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ContentTypeError {
    /// Not `type/subtype`, or with bytes that are not visible ASCII.
    #[error("Content-Type must have the form type/subtype")]
    Form,
    /// More than [`ContentType::MAX_BYTES`].
    #[error("Content-Type must be at most {} bytes long", ContentType::MAX_BYTES)]
    TooLong,
}

/// What nearly every request names; cloned instead of checked.
static COMMON: LazyLock<[ContentType; 3]> = LazyLock::new(|| {
    [ContentType::DEFAULT, "application/json", "text/plain"].map(ContentType::checked)
});

impl ContentType {
    /// What a stream has when nobody says.
    pub const DEFAULT: &'static str = "application/octet-stream";

    /// The longest content type, bytes, parameters included.
    pub const MAX_BYTES: usize = 256;

    /// Accepts a header value of the form `type/subtype[; parameters]`; `None` for anything else.
    pub fn parse(value: &str) -> Option<Self> {
        Self::from_header(value).ok()
    }

    /// [`parse`](Self::parse), with the reason for a refusal.
    ///
    /// # Errors
    /// Every [`ContentTypeError`].
    pub fn from_header(value: &str) -> Result<Self, ContentTypeError> {
        if let Some(common) = COMMON.iter().find(|common| &*common.text == value) {
            return Ok(common.clone());
        }
        if value.len() > Self::MAX_BYTES {
            return Err(ContentTypeError::TooLong);
        }
        let token = |part: &str| !part.is_empty() && part.bytes().all(is_token_byte);
        let media_type = media_type(value).split_once('/');
        let formed = media_type.is_some_and(|(kind, subtype)| token(kind) && token(subtype));
        let printable = value.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b));
        if formed && printable {
            Ok(Self::checked(value.trim()))
        } else {
            Err(ContentTypeError::Form)
        }
    }

    fn checked(text: &str) -> Self {
        let json = media_type(text).eq_ignore_ascii_case("application/json");
        let compressible = json || is_compressible(text);
        let document = !json && is_document(text);
        ContentType { text: text.into(), json, compressible, document }
    }

    /// The text as the creator gave it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Same media type, parameters and case aside.
    pub fn matches(&self, other: &ContentType) -> bool {
        self.text == other.text
            || media_type(&self.text).eq_ignore_ascii_case(media_type(&other.text))
    }

    /// JSON mode (§9.1): exactly `application/json`.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Sent as text over SSE (§5.8): `text/*` and JSON. Everything else is base64.
    pub fn is_text(&self) -> bool {
        let starts_text = self.text.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("text/"));
        starts_text || self.is_json()
    }

    /// Worth compressing: text, JSON, XML, JavaScript and their `+json`/`+xml` kin.
    pub fn is_compressible(&self) -> bool {
        self.compressible
    }

    /// Shown by browsers as a document that may hold script: HTML, and XML with its kin such as SVG.
    pub fn is_document(&self) -> bool {
        self.document
    }
}

impl Default for ContentType {
    fn default() -> Self {
        Self::checked(Self::DEFAULT)
    }
}

impl fmt::Debug for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.text)
    }
}

fn is_compressible(text: &str) -> bool {
    let media = media_type(text).to_ascii_lowercase();
    let tails = ["json", "xml", "javascript", "x-www-form-urlencoded", "wasm"];
    media.starts_with("text/") || tails.iter().any(|tail| media.ends_with(tail))
}

fn is_document(text: &str) -> bool {
    let media = media_type(text).to_ascii_lowercase();
    media == "text/html" || media.ends_with("/xml") || media.ends_with("+xml")
}

fn media_type(value: &str) -> &str {
    value.split(';').next().unwrap_or("").trim()
}

fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_compare_without_case_and_parameters() {
        let a = ContentType::parse("Application/JSON; charset=utf-8").unwrap();
        let b = ContentType::parse("application/json").unwrap();
        assert!(a.matches(&b) && a.is_json() && a.is_text());
        assert_eq!(a.as_str(), "Application/JSON; charset=utf-8");
        assert!(!ContentType::parse("application/ndjson").unwrap().is_json());
        assert!(ContentType::parse("TEXT/plain").unwrap().is_text());
        assert!(!ContentType::default().is_text());
    }

    #[test]
    fn malformed_types_are_refused() {
        for bad in ["", "text", "/", "text/", "a b/c", "text/plain\r\nx: y", "te\u{301}xt/plain"] {
            assert_eq!(ContentType::from_header(bad), Err(ContentTypeError::Form), "{bad:?}");
        }
        for bad in ["text/plain; a=\u{7f}", "a/b\u{1}", "text /plain", "text/ plain"] {
            assert!(ContentType::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_long_type_is_refused_for_its_length() {
        let of = |len: usize| format!("text/plain; x={}", "a".repeat(len - 14));
        assert_eq!(ContentType::from_header(&of(256)).unwrap().as_str().len(), 256);
        let refused = ContentType::from_header(&of(257)).unwrap_err();
        assert_eq!(refused, ContentTypeError::TooLong);
        assert_eq!(refused.to_string(), "Content-Type must be at most 256 bytes long");
    }

    #[test]
    fn a_log_shows_the_text() {
        assert_eq!(format!("{:?}", ContentType::parse("a/b; c=d").unwrap()), r#""a/b; c=d""#);
    }

    #[test]
    fn documents_are_html_and_xml() {
        for yes in [
            "text/html",
            "Text/HTML; charset=utf-8",
            "application/xhtml+xml",
            "image/svg+xml",
            "text/xml",
            "application/xml",
        ] {
            assert!(ContentType::parse(yes).unwrap().is_document(), "{yes}");
        }
        for no in ["text/plain", "application/json", "text/htmlx", "image/png"] {
            assert!(!ContentType::parse(no).unwrap().is_document(), "{no}");
        }
    }

    #[test]
    fn what_is_worth_compressing() {
        for yes in [
            "text/css",
            "Application/JSON",
            "image/svg+xml",
            "application/ld+json; a=b",
            "application/javascript",
            "application/x-www-form-urlencoded",
            "application/wasm",
        ] {
            assert!(ContentType::parse(yes).unwrap().is_compressible(), "{yes}");
        }
        for no in ["image/png", "application/octet-stream", "video/mp4"] {
            assert!(!ContentType::parse(no).unwrap().is_compressible(), "{no}");
        }
    }
}
