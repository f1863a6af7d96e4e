//! Names of types: one word, one meaning. A reader who meets `Log` or `Entry` in one of four files must not have to
//! look up which of four types it is.

use std::collections::BTreeMap;

use crate::refuse;
use crate::source::{Source, sources};

/// The most types, in thousandths of all, that share their name with another one, [`SHARED`] left out.
const MOST_SHARED: usize = 80;
/// The most types, in thousandths of all, whose name is one word.
const MOST_ONE_WORD: usize = 400;
/// Names that several types may have, and why.
const SHARED: &[(&str, &str)] = &[];

/// The types that a file declares; associated types and `Self`-like aliases inside impls are none.
fn types(source: &Source) -> Vec<&str> {
    source.code.lines().filter_map(declared).collect()
}

/// The type that a line declares.
fn declared(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    if let Some(after) = rest.strip_prefix("pub") {
        let after = if after.starts_with('(') { after.split_once(')')?.1 } else { after };
        rest = after.strip_prefix(' ')?;
    }
    rest = rest.strip_prefix("unsafe ").unwrap_or(rest);
    let (keyword, rest) = rest.split_once(' ')?;
    let known = matches!(keyword, "struct" | "enum" | "trait" | "union" | "type");
    // An indented `type` is an associated one.
    let known = known && !(keyword == "type" && line.starts_with(' '));
    let name = &rest[..rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len())];
    (known && name.starts_with(|c: char| c.is_ascii_uppercase())).then_some(name)
}

/// Whether a name is one word: `Log`, not `LogEpoch`.
fn is_one_word(name: &str) -> bool {
    name.chars().filter(char::is_ascii_uppercase).count() == 1
}

/// Name by name, the files that declare a type of it.
fn by_name(sources: &[Source]) -> BTreeMap<&str, Vec<&str>> {
    let mut found: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for source in sources {
        for name in types(source) {
            found.entry(name).or_default().push(&source.path);
        }
    }
    found
}

/// One problem if more than `most` thousandths of the types share their names.
fn shared_names(sources: &[Source], allowed: &[(&str, &str)], most: usize) -> Option<String> {
    let names = by_name(sources);
    let total: usize = names.values().map(Vec::len).sum();
    let shared = names.iter().filter(|(_, files)| files.len() > 1);
    let shared: Vec<_> =
        shared.filter(|(name, _)| !allowed.iter().any(|(known, _)| *known == **name)).collect();
    let count: usize = shared.iter().map(|(_, files)| files.len()).sum();
    (count * 1000 > most * total).then(|| {
        let list = shared.iter().map(|(name, files)| format!("\n    {name}: {}", files.join(" ")));
        format!(
            "{count} of {total} types share their name with another one ({} of a thousand, the most is {most}); \
             call each by what sets it apart:{}",
            count * 1000 / total,
            list.collect::<String>()
        )
    })
}

/// One problem if more than `most` thousandths of the types have a name of one word.
fn one_word_names(sources: &[Source], most: usize) -> Option<String> {
    let names = by_name(sources);
    let total: usize = names.values().map(Vec::len).sum();
    let one = names.iter().filter(|(name, _)| is_one_word(name));
    let count: usize = one.clone().map(|(_, files)| files.len()).sum();
    (count * 1000 > most * total).then(|| {
        let list: Vec<&str> = one.map(|(name, _)| *name).collect();
        format!(
            "{count} of {total} types are called by one word ({} of a thousand, the most is {most}); \
             add the word that says which kind: {}",
            count * 1000 / total,
            list.join(" ")
        )
    })
}

#[test]
fn few_types_share_a_name() {
    refuse(shared_names(&sources(), SHARED, MOST_SHARED).into_iter().collect());
}

#[test]
fn few_names_are_one_word() {
    refuse(one_word_names(&sources(), MOST_ONE_WORD).into_iter().collect());
}

#[test]
fn shared_and_one_word_names_are_seen() {
    let tree = [
        (
            "src/a.rs",
            "pub(crate) struct Log;\nenum LogEpoch { A }\n#[cfg(test)]\nstruct Tested;\nstruct lower;",
        ),
        (
            "src/b.rs",
            "impl A {\n    type Log = u8;\n}\npub type Log<T> = T;\nunsafe trait WalWriter {}\n// struct C;",
        ),
    ];
    let sources: Vec<Source> = tree.iter().map(|(path, text)| Source::new(path, text)).collect();
    let problem = shared_names(&sources, &[], 499).unwrap();
    assert!(
        problem.starts_with("2 of 4 types share")
            && problem.ends_with("\n    Log: src/a.rs src/b.rs"),
        "{problem}"
    );
    assert_eq!(shared_names(&sources, &[], 500), None);
    assert_eq!(shared_names(&sources, &[("Log", "a reason")], 0), None);
    let problem = one_word_names(&sources, 499).unwrap();
    assert!(
        problem.starts_with("2 of 4 types are called") && problem.ends_with(" Log"),
        "{problem}"
    );
    assert_eq!(one_word_names(&sources, 500), None);
}
