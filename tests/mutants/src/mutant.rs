//! The mutants, as cargo-mutants lists them, and the choice among them.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Result;

/// First line and column, last line and column; both begin at 1, and columns count characters.
pub(crate) type Span = (usize, usize, usize, usize);

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Genre {
    /// A function returns a value at once.
    FnValue,
    /// An operator is another one.
    BinaryOperator,
    /// `!` or `-` is not there.
    UnaryOperator,
    /// An arm of a `match` that has a `_` arm is not there.
    MatchArm,
    /// The guard of an arm is `true` or `false`.
    MatchArmGuard,
    /// A field before `..base` is not there.
    StructField,
}

pub(crate) struct Mutant {
    /// File, line, column and description.
    pub(crate) name: String,
    /// Relative to the root of the repository.
    pub(crate) file: String,
    /// What is replaced.
    pub(crate) span: Span,
    pub(crate) replacement: String,
    pub(crate) genre: Genre,
}

/// All mutants of `package`, or those in the files that `files`, a glob, matches.
pub(crate) fn list(root: &Path, package: &str, files: Option<&str>) -> Result<Vec<Mutant>> {
    let mut command = Command::new("cargo");
    command.args(["mutants", "--list", "--json", "--package", package]).current_dir(root);
    if let Some(files) = files {
        command.args(["--file", files]);
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(
            "`cargo mutants --list` failed; install it with: cargo install cargo-mutants --locked"
                .into(),
        );
    }
    let listed: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    listed
        .iter()
        .map(|one| parse(one).ok_or_else(|| format!("not understood: {one}").into()))
        .collect()
}

fn parse(one: &Value) -> Option<Mutant> {
    let text = |key: &str| Some(one[key].as_str()?.to_owned());
    let number = |end: &str, key: &str| Some(one["span"][end][key].as_u64()? as usize);
    let genre = match one["genre"].as_str()? {
        "FnValue" => Genre::FnValue,
        "BinaryOperator" => Genre::BinaryOperator,
        "UnaryOperator" => Genre::UnaryOperator,
        "MatchArm" => Genre::MatchArm,
        "MatchArmGuard" => Genre::MatchArmGuard,
        "StructField" => Genre::StructField,
        _ => return None,
    };
    let first = (number("start", "line")?, number("start", "column")?);
    let last = (number("end", "line")?, number("end", "column")?);
    Some(Mutant {
        // Some descriptions hold a piece of source with line ends.
        name: text("name")?.split_whitespace().collect::<Vec<_>>().join(" "),
        file: text("file")?,
        span: (first.0, first.1, last.0, last.1),
        replacement: text("replacement")?,
        genre,
    })
}

/// Which mutants are tried. All are compiled.
pub(crate) struct Selection {
    files: Option<String>,
    /// Every `n`th from the `k`th on, as `--sharding round-robin` of cargo-mutants has it.
    sample: Option<(usize, usize)>,
    /// Parts of names.
    only: Vec<String>,
}

impl Selection {
    /// `only` is a part of names, or `@` and a file with such parts in lines.
    pub(crate) fn new(
        files: Option<String>,
        sample: Option<String>,
        only: Option<String>,
    ) -> Result<Self> {
        let sample = match sample {
            Some(sample) => {
                let (k, n) = sample.split_once('/').unwrap_or(("0", &sample));
                let (k, n): (usize, usize) = (k.parse()?, n.parse()?);
                if k >= n {
                    return Err("SAMPLE=k/n needs a k below n".into());
                }
                Some((k, n))
            }
            None => None,
        };
        let only = match only {
            Some(only) => match only.strip_prefix('@') {
                Some(file) => fs::read_to_string(file)?
                    .lines()
                    .filter(|line| !line.is_empty())
                    .map(str::to_owned)
                    .collect(),
                None => vec![only],
            },
            None => Vec::new(),
        };
        Ok(Selection { files, sample, only })
    }

    /// The chosen ones, as places in `mutants`.
    pub(crate) fn choose(
        &self,
        root: &Path,
        package: &str,
        mutants: &[Mutant],
    ) -> Result<Vec<usize>> {
        let mut chosen: Vec<usize> = (0..mutants.len()).collect();
        if let Some(files) = &self.files {
            let within = list(root, package, Some(files))?;
            let within: HashSet<&str> = within.iter().map(|mutant| mutant.name.as_str()).collect();
            chosen.retain(|&one| within.contains(mutants[one].name.as_str()));
        }
        if let Some((k, n)) = self.sample {
            chosen = chosen.into_iter().skip(k).step_by(n).collect();
        }
        if !self.only.is_empty() {
            chosen.retain(|&one| {
                self.only.iter().any(|part| mutants[one].name.contains(part.as_str()))
            });
        }
        Ok(chosen)
    }
}
