//! The paths that a file names: `use` trees taken apart, and paths in the middle of code.

/// A path of at least two names.
#[derive(Debug, PartialEq)]
pub(crate) struct CodePath<'a> {
    pub(crate) names: Vec<&'a str>,
    /// The name it gets: the last one, or the one after `as`; `*` for a glob.
    pub(crate) known_as: &'a str,
    /// It stands in a `pub use`, of any visibility.
    pub(crate) reexport: bool,
}

/// Every path in `code` (see [`crate::source::Source::code`]).
pub(crate) fn paths(code: &str) -> Vec<CodePath<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(length) = code[at..].find("::") {
        let colons = at + length;
        let begin = code[..colons].trim_end_matches(is_word).len();
        at = colons + 2;
        // A part of a longer path, or what follows `>`.
        if begin == colons || code[..begin].ends_with("::") {
            continue;
        }
        let first = found.len();
        at = at.max(tree(code, begin, &[], &mut found));
        let reexport = is_reexport(&code[..begin]);
        found[first..].iter_mut().for_each(|path| path.reexport = reexport);
    }
    found
}

/// Reads the use tree at `at` below `above`; returns where it ends.
fn tree<'a>(code: &'a str, at: usize, above: &[&'a str], found: &mut Vec<CodePath<'a>>) -> usize {
    let mut names = above.to_vec();
    let mut at = at;
    loop {
        let rest = &code[at..];
        let name = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
        at += name.len();
        if !name.is_empty() {
            names.push(name);
            match code[at..].strip_prefix("::") {
                Some(after) if after.starts_with(|c| is_word(c) || c == '{' || c == '*') => at += 2,
                _ => break,
            }
        } else if rest.starts_with('*') {
            names.push("*");
            at += 1;
            break;
        } else if rest.starts_with('{') {
            return group(code, at + 1, &names, found);
        } else {
            return at;
        }
    }
    let mut known_as = names.last().copied().unwrap_or_default();
    if let Some(alias) = code[at..].strip_prefix(" as ") {
        known_as = &alias[..alias.find(|c| !is_word(c)).unwrap_or(alias.len())];
        at += " as ".len() + known_as.len();
    }
    if names.last() == Some(&"self") {
        names.pop();
        known_as = names.last().copied().unwrap_or_default();
    }
    found.push(CodePath { names, known_as, reexport: false });
    at
}

/// Reads the trees of a braced group from after its brace; returns where it ends.
fn group<'a>(code: &'a str, at: usize, above: &[&'a str], found: &mut Vec<CodePath<'a>>) -> usize {
    let mut at = at;
    loop {
        at += code[at..].len() - code[at..].trim_start_matches([' ', '\n', '\t', ',']).len();
        if at >= code.len() || code[at..].starts_with('}') {
            return (at + 1).min(code.len());
        }
        let end = tree(code, at, above, found);
        // What is no use tree (a macro's pattern, say) is stepped over.
        at = if end == at { at + code[at..].chars().next().map_or(1, char::len_utf8) } else { end };
    }
}

/// Where `word` stands in `code` as a word of its own.
pub(crate) fn words(code: &str, word: &str) -> impl Iterator<Item = usize> {
    let own = move |at: &usize| {
        !code[..*at].ends_with(is_word) && !code[at + word.len()..].starts_with(is_word)
    };
    code.match_indices(word).map(|(at, _)| at).filter(own)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether what ends here is `pub use `, `pub(crate) use ` and the like.
fn is_reexport(before: &str) -> bool {
    let Some(before) = before.strip_suffix("use ") else { return false };
    let before = before.trim_end();
    let line = before.rsplit(['\n', ';', '{', '}']).next().unwrap_or_default().trim_start();
    line.starts_with("pub")
}

#[test]
fn use_trees_are_taken_apart() {
    let code = "pub(crate) use a::{b::{C, d as E}, f::*, self};\nuse super::g;\n\
                fn h() -> crate::i::J<k::L> { m::<n::O>::p(); Self::q { r: 1 }; s::T { u } }";
    let found = paths(code);
    let joined: Vec<String> = found
        .iter()
        .map(|path| {
            let reexport = if path.reexport { "pub " } else { "" };
            format!("{reexport}{} = {}", path.known_as, path.names.join("::"))
        })
        .collect();
    let expected = [
        "pub C = a::b::C",
        "pub E = a::b::d",
        "pub * = a::f::*",
        "pub a = a",
        "g = super::g",
        "J = crate::i::J",
        "L = k::L",
        "m = m",
        "O = n::O",
        "q = Self::q",
        "T = s::T",
    ];
    assert_eq!(joined, expected);
}

#[test]
fn words_are_found_whole() {
    let found: Vec<usize> = words("fs::File; offs, fs_b, std::{fs}", "fs").collect();
    assert_eq!(found, [0, 28]);
}
