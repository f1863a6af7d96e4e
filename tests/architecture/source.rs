//! Source files as the rules see them: production code only, without comments, literals and test items.

use std::fs;
use std::path::PathBuf;

use crate::root;

/// A source file of `src/` or of `crates/*/src/`.
pub(crate) struct Source {
    /// Relative to the root of the repository, with `/` between folders.
    pub(crate) path: String,
    pub(crate) lines: usize,
    /// Its leading `//!` lines.
    pub(crate) header: String,
    /// Its code, byte for byte in place; comments, literals and items under `#[cfg(test)]` are blanks.
    pub(crate) code: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let header: Vec<&str> = text.lines().take_while(|line| line.starts_with("//!")).collect();
        // A file of this name is taken in by `#[cfg(test)] mod tests;`.
        let tests = path.ends_with("/tests.rs") || path.contains("/tests/");
        Source {
            path: path.to_owned(),
            lines: text.lines().count(),
            header: header.join("\n"),
            code: if tests { String::new() } else { without_tests(without_literals(text)) },
        }
    }

    /// The folder of its `src`, which names its crate.
    pub(crate) fn crate_root(&self) -> &str {
        self.path.split_once("src/").map_or("", |(root, _)| root)
    }

    /// The path below the `src` of its crate.
    pub(crate) fn within_crate(&self) -> &str {
        self.path.split_once("src/").map_or("", |(_, within)| within)
    }

    /// The first folder below `src`; none for what lies directly in `src`.
    pub(crate) fn room(&self) -> Option<&str> {
        self.within_crate().split_once('/').map(|(room, _)| room)
    }

    /// The module that the file is, from the root of its crate.
    pub(crate) fn module(&self) -> Vec<&str> {
        let path = self.within_crate().trim_end_matches(".rs");
        let path = path.strip_suffix("/mod").unwrap_or(path);
        if path == "lib" { Vec::new() } else { path.split('/').collect() }
    }
}

/// Every source file of the workspace that ships.
pub(crate) fn sources() -> Vec<Source> {
    let crates = fs::read_dir(root().join("crates")).unwrap();
    let mut folders: Vec<PathBuf> = crates.map(|one| one.unwrap().path().join("src")).collect();
    folders.push(root().join("src"));
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
                found.push(Source::new(&name, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 150, "the sources were not found whole");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// `text` with comments and the insides of literals blanked.
fn without_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = at + literal(&text[at..], bytes[..at].last().copied());
        if end == at {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
            continue;
        }
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    String::from_utf8(code).unwrap()
}

/// How long the comment or literal is that `rest` begins with, in bytes; 0 if it begins with neither.
fn literal(rest: &str, before: Option<u8>) -> usize {
    let find = |from: usize, end: &str| {
        rest[from..].find(end).map_or(rest.len(), |found| from + found + end.len())
    };
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return find(2, "*/");
    }
    if rest.starts_with('"') {
        return escaped(rest, '"');
    }
    if let Some(after) = rest.strip_prefix('\'') {
        let one = after.chars().next().map_or(0, char::len_utf8);
        return match after[one..].starts_with('\'') {
            _ if after.starts_with('\\') => escaped(rest, '\''),
            true => one + 2,
            false => 0, // A lifetime.
        };
    }
    let word = before.is_some_and(|c| c.is_ascii_alphanumeric() && c != b'b' || c == b'_');
    if rest.starts_with('r') && !word {
        let hashes = rest[1..].len() - rest[1..].trim_start_matches('#').len();
        if rest[1 + hashes..].starts_with('"') {
            return find(2 + hashes, &format!("\"{}", "#".repeat(hashes)));
        }
    }
    0
}

/// The length of a literal that begins and ends with `quote`.
fn escaped(rest: &str, quote: char) -> usize {
    let mut escape = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escape => escape = false,
            '\\' => escape = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `code`, in which literals are blanks, with the items under `#[cfg(test)]` blanked, and nothing else.
fn without_tests(mut code: String) -> String {
    for mark in ["#[cfg(test)]", "#[cfg(all(test"] {
        while let Some(begin) = code.find(mark) {
            let end = begin + item(&code[begin..]);
            let blank = code[begin..end].chars().map(|c| if c == '\n' { '\n' } else { ' ' });
            let blank: String = blank.collect();
            code.replace_range(begin..end, &blank);
        }
    }
    code
}

/// The length of an item with its attributes: to its `;`, to the end of its block, or to the end of what it is in.
fn item(code: &str) -> usize {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            ';' if depth == 0 => return at + 1,
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth < 0 {
            return at;
        }
        if c == '}' && depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

#[test]
fn only_test_items_comments_and_literals_are_blanked() {
    let text = r##"
use a::One;
#[cfg(test)]
use b::Two;
#[cfg(test)]
#[path = "x.rs"]
mod tests { fn f(x: [u8; 3]) { "}"; '}'; } }
fn g<'a>(c: char) -> &'a str { r#"Three " "# /* Four */ } // Five
#[cfg(all(test, unix))]
fn only_tested() -> [u8; 3] { let six = b"\"Six"; [0; 3] }
struct Seven { #[cfg(test)] eight: u8 }
fn last() { b'\''; "Nine\\" }
"##;
    let code = Source::new("src/a.rs", text).code;
    assert_eq!(code.len(), text.len());
    let words: Vec<&str> = code.split_whitespace().collect();
    let left = "use a::One; fn g<'a>(c: char) -> &'a str { } struct Seven { } fn last() { b ; }";
    assert_eq!(words.join(" "), left);
    assert_eq!(Source::new("src/a/tests.rs", text).code, "");
}

#[test]
fn files_are_modules() {
    for (path, module, room) in [
        ("src/lib.rs", &[][..], None),
        ("src/edge/mod.rs", &["edge"][..], Some("edge")),
        ("crates/engine/src/store/file/disk.rs", &["store", "file", "disk"][..], Some("store")),
    ] {
        let source = Source::new(path, "");
        assert_eq!((source.module(), source.room()), (module.to_vec(), room), "{path}");
    }
}
