//! Stream paths: the name of a stream, relative to the route under which streams live.
//!
//! A path is the percent-decoded text after the route, decoded exactly once: two URL spellings of the same
//! text name the same stream, `%2F` included. Slashes separate segments but mean nothing else; empty
//! segments and a trailing slash are part of the name. Refused, so that nothing can be read as another
//! place: an empty path, `.` and `..` segments however spelled, control characters, text that is not
//! UTF-8, and more than [`MAX_PATH_BYTES`] bytes.

use std::{fmt, sync::Arc};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// The longest path, in bytes of decoded UTF-8.
pub const MAX_PATH_BYTES: usize = 1024;

/// What must be escaped when a path is written into a URL.
const URL_PATH: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'%')
    .add(b'\\')
    .add(b'^')
    .add(b'|')
    .add(b'[')
    .add(b']');

/// A valid stream path. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamPath(Arc<str>);

/// Why a text is not a stream path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// Nothing after the route.
    #[error(
        "the stream path is empty; name a stream after the route, for example /v1/stream/my-stream"
    )]
    Empty,
    /// More than [`MAX_PATH_BYTES`].
    #[error("the stream path is longer than the server allows; use a shorter name")]
    TooLong,
    /// A percent escape is cut off or not hexadecimal.
    #[error("the stream path has a broken percent escape; write a percent sign as %25")]
    BadEscape,
    /// The decoded bytes are not UTF-8.
    #[error("the stream path is not UTF-8 once decoded")]
    NotUtf8,
    /// A control character.
    #[error("the stream path has a control character")]
    Control,
    /// A `.` or `..` segment.
    #[error("the stream path has a '.' or '..' segment; those cannot name a stream")]
    DotSegment,
    /// The first segment is `__ds` (§6).
    #[error("paths under __ds are reserved for control APIs and cannot name a stream")]
    Reserved,
}

impl StreamPath {
    /// The first segment kept for control APIs (§6).
    pub const RESERVED: &'static str = "__ds";

    /// Decodes and checks the part of a URL path after the route and its slash.
    ///
    /// # Errors
    /// Every [`PathError`]; none of them is repaired silently.
    pub fn from_url(raw: &str) -> Result<Self, PathError> {
        if raw.len() > MAX_PATH_BYTES * 3 {
            return Err(PathError::TooLong);
        }
        if !raw.contains('%') {
            return Self::new(raw);
        }
        if !escapes_are_whole(raw.as_bytes()) {
            return Err(PathError::BadEscape);
        }
        let decoded = percent_decode_str(raw).decode_utf8().map_err(|_| PathError::NotUtf8)?;
        Self::new(&decoded)
    }

    /// Checks a decoded path.
    ///
    /// # Errors
    /// Every [`PathError`] but `BadEscape` and `NotUtf8`.
    pub fn new(path: &str) -> Result<Self, PathError> {
        let path = Self::system(path)?;
        if path.first_segment() == Self::RESERVED {
            return Err(PathError::Reserved);
        }
        Ok(path)
    }

    /// Like [`StreamPath::new`] but allows the reserved segment, for the server's own streams.
    ///
    /// # Errors
    /// Every [`PathError`] but `BadEscape`, `NotUtf8` and `Reserved`.
    pub fn system(path: &str) -> Result<Self, PathError> {
        if path.is_empty() {
            return Err(PathError::Empty);
        }
        if path.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong);
        }
        let ascii_control = path.bytes().any(|byte| byte.is_ascii_control());
        if ascii_control || (!path.is_ascii() && path.chars().any(char::is_control)) {
            return Err(PathError::Control);
        }
        let dots = memchr::memchr(b'.', path.as_bytes()).is_some();
        if dots && path.split('/').any(|segment| segment == "." || segment == "..") {
            return Err(PathError::DotSegment);
        }
        Ok(StreamPath(path.into()))
    }

    /// The decoded text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Everything before the first slash.
    pub fn first_segment(&self) -> &str {
        self.0.split('/').next().unwrap_or("")
    }

    /// The path escaped for a URL; slashes stay.
    pub fn to_url(&self) -> String {
        utf8_percent_encode(&self.0, URL_PATH).to_string()
    }
}

fn escapes_are_whole(raw: &[u8]) -> bool {
    let mut rest = raw;
    while let Some(at) = memchr::memchr(b'%', rest) {
        match rest.get(at + 1..at + 3) {
            Some(hex) if hex.iter().all(u8::is_ascii_hexdigit) => {
                rest = rest.get(at + 3..).unwrap_or(&[])
            }
            _ => return false,
        }
    }
    true
}

impl fmt::Display for StreamPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn spellings_of_one_text_are_one_stream() {
        let plain = StreamPath::from_url("chat/room one/é").unwrap();
        let escaped = StreamPath::from_url("chat%2Froom%20one/%C3%A9").unwrap();
        assert_eq!(plain, escaped);
        assert_eq!(StreamPath::from_url("a%252Fb").unwrap().as_str(), "a%2Fb", "decoded once only");
    }

    #[test]
    fn what_could_be_another_place_is_refused() {
        for (raw, why) in [
            ("", PathError::Empty),
            ("a/../b", PathError::DotSegment),
            ("%2e%2e/b", PathError::DotSegment),
            ("a%2f.%2fb", PathError::DotSegment),
            ("a%00b", PathError::Control),
            ("a%0d%0ab", PathError::Control),
            ("a%zz", PathError::BadEscape),
            ("a%2", PathError::BadEscape),
            ("%ff", PathError::NotUtf8),
            ("__ds/subscriptions/x", PathError::Reserved),
            ("%5F_ds", PathError::Reserved),
        ] {
            assert_eq!(StreamPath::from_url(raw), Err(why), "{raw}");
        }
        assert_eq!(StreamPath::from_url(&"x".repeat(1025)), Err(PathError::TooLong));
        assert_eq!(StreamPath::from_url("a%C2%85b"), Err(PathError::Control), "beyond ASCII");
        assert!(StreamPath::from_url("...//a/").is_ok());
    }

    #[test]
    fn a_path_has_1024_bytes_at_most_however_it_is_escaped() {
        for (byte, escaped) in [("x", "x"), ("x", "%78"), ("/", "%2f")] {
            let of = |bytes: usize| StreamPath::from_url(&escaped.repeat(bytes));
            assert_eq!(of(1_024).unwrap().as_str(), byte.repeat(1_024));
            assert_eq!(of(1_025), Err(PathError::TooLong), "{escaped}");
        }
    }

    #[test]
    fn a_path_is_shown_as_it_is() {
        let path = StreamPath::new("chat/room \"one\"").unwrap();
        assert_eq!(path.to_string(), "chat/room \"one\"");
        assert_eq!(format!("{path:?}"), r#""chat/room \"one\"""#);
        assert_eq!(
            (path.first_segment(), path.to_url().as_str()),
            ("chat", "chat/room%20%22one%22")
        );
    }

    proptest! {
        #[test]
        fn url_form_round_trips(text in "\\PC{1,40}") {
            if let Ok(path) = StreamPath::new(&text) {
                prop_assert_eq!(StreamPath::from_url(&path.to_url()).unwrap(), path);
            }
        }
    }
}
