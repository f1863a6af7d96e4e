//! Log lines as text for people, free of what a client could use to forge or hide one.
//!
//! Values are quoted by `tracing`, the message is not; both may hold what a client chose, such as a path.
//! A line feed inside a line would begin another record, U+202E and its like reorder what a reader sees, U+2028
//! ends a line for some readers.

use std::{borrow::Cow, fmt::Write};

/// The line with escapes in place of control characters and of characters that change direction or end lines.
/// Its own line feed stays; with `ansi` the escape character stays, as the colours of the line need it.
pub(super) fn printable(line: &[u8], ansi: bool) -> Cow<'_, [u8]> {
    let body = line.strip_suffix(b"\n").unwrap_or(line);
    if body.iter().all(|byte| matches!(byte, b' '..=b'~') || (ansi && *byte == ESCAPE)) {
        return Cow::Borrowed(line);
    }
    let mut text = String::with_capacity(line.len() + 16);
    for c in String::from_utf8_lossy(body).chars() {
        if is_misleading(c) && !(ansi && c == char::from(ESCAPE)) {
            let _ = write!(text, "{}", c.escape_default());
        } else {
            text.push(c);
        }
    }
    text.push_str(if body.len() < line.len() { "\n" } else { "" });
    Cow::Owned(text.into_bytes())
}

const ESCAPE: u8 = 0x1b;

fn is_misleading(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line_in_one_direction() {
        for (line, shown) in [
            ("INFO GET /a 200\n", "INFO GET /a 200\n"),
            ("INFO café\n", "INFO café\n"),
            ("a\nINFO forged\n", "a\\nINFO forged\n"),
            ("a\u{202e}b\u{2028}c\u{85}\t\n", "a\\u{202e}b\\u{2028}c\\u{85}\\t\n"),
            ("\u{1b}[2J\n", "\\u{1b}[2J\n"),
        ] {
            assert_eq!(printable(line.as_bytes(), false), shown.as_bytes());
        }
        let coloured = "\u{1b}[32m INFO\u{1b}[0m a\rb\n";
        let shown = "\u{1b}[32m INFO\u{1b}[0m a\\rb\n";
        assert_eq!(printable(coloured.as_bytes(), true), shown.as_bytes());
        assert_eq!(printable(b"\xff\n", false), "\u{fffd}\n".as_bytes());
    }
}
