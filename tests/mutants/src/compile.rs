//! Compiles the tests, and finds out which mutants do not compile.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::mutant::Mutant;
use crate::rewrite::{self, Rewritten};
use crate::sites::{Place, Sites};
use crate::tree::{self, Tree};
use crate::{Options, Result};

/// A compiled test target.
#[derive(Clone)]
pub(crate) struct TestBinary {
    pub(crate) path: PathBuf,
    /// Where cargo would run it: the folder of its package.
    pub(crate) folder: PathBuf,
    /// Of further tests: the part of their names. `None` for the package's own.
    pub(crate) further: Option<String>,
}

/// The compiled tests, with all mutants that have a switch.
pub(crate) struct Tests {
    pub(crate) binaries: Vec<TestBinary>,
    /// What the switch of each mutant reads from the environment.
    pub(crate) numbers: Vec<u32>,
    /// The sources as they were compiled.
    pub(crate) sources: HashMap<String, Rewritten>,
}

/// Compiles all mutants that can have a switch. Where one does not compile its place says so afterwards.
pub(crate) fn all(
    options: &Options,
    tree: &Tree,
    mutants: &[Mutant],
    sites: &mut Sites,
) -> Result<Tests> {
    let known = Known::read(options, tree)?;
    known.apply(mutants, sites);
    if known.is_empty() {
        refuse_what_does_not_parse(tree, mutants, sites)?;
    }
    let numbers = rewrite::numbers(sites);
    for round in 1.. {
        let mut sources = HashMap::new();
        for (file, source) in tree.sources() {
            let mut rewritten = rewrite::rewrite(file, source, mutants, sites, &numbers);
            if file == tree.library {
                rewritten.text.push_str(&rewrite::switch(mutants.len()));
            }
            tree.write(file, &rewritten.text)?;
            sources.insert(file.to_owned(), rewritten);
        }
        let with_switch = sites.sites.iter().filter(|site| site.place.has_switch()).count();
        println!("build {round}: {with_switch} mutants");
        match own(options, tree)? {
            Built::Tests(mut binaries) => {
                known.write(mutants, sites)?;
                binaries.extend(further(options, tree)?);
                return Ok(Tests { binaries, numbers, sources });
            }
            Built::Errors(errors) => leave_out(&errors, &sources, sites)?,
        }
    }
    unreachable!("rounds have no end")
}

/// An operator in place of another may leave what is no expression, such as `a as usize < b`.
fn refuse_what_does_not_parse(tree: &Tree, mutants: &[Mutant], sites: &mut Sites) -> Result<()> {
    for (mutant, site) in mutants.iter().zip(&mut sites.sites) {
        if let Place::Within(group) = site.place {
            let range = &sites.groups[group];
            let source = &tree.source(&mutant.file)?[..range.end];
            let text = rewrite::mutated(source, &site.cut, &mutant.replacement);
            if syn::parse_str::<syn::Expr>(&text[range.start..]).is_err() {
                site.place = Place::Unviable;
            }
        }
    }
    Ok(())
}

pub(crate) enum Built {
    Tests(Vec<TestBinary>),
    /// The compiler's messages.
    Errors(Vec<Value>),
}

/// Compiles the package's tests as `cargo test -p` would.
pub(crate) fn own(options: &Options, tree: &Tree) -> Result<Built> {
    let folder = tree.path.join(&tree.package);
    cargo(options, tree, &["--package", &options.package, "--lib", "--tests"], &folder, None)
}

/// Compiles the further tests, of which the mutants know that they compile.
fn further(options: &Options, tree: &Tree) -> Result<Vec<TestBinary>> {
    let mut binaries = Vec::new();
    for further in &options.further {
        let chosen = ["--package", &further.package, "--test", &further.target];
        let folder = tree.path.join(tree::folder_of(&options.root, &further.package)?);
        match cargo(options, tree, &chosen, &folder, Some(&further.part))? {
            Built::Tests(more) => binaries.extend(more),
            Built::Errors(errors) => {
                let texts: String =
                    errors.iter().filter_map(|error| error["rendered"].as_str()).collect();
                return Err(format!("the further tests do not compile:\n{texts}").into());
            }
        }
    }
    Ok(binaries)
}

fn cargo(
    options: &Options,
    tree: &Tree,
    chosen: &[&str],
    folder: &Path,
    further: Option<&str>,
) -> Result<Built> {
    let mut command = Command::new("cargo");
    command.args(["test", "--no-run", "--locked", "--message-format", "json"]).args(chosen);
    command.arg("--target-dir").arg(options.out.join("target"));
    // The compiler warns of what mutants leave unused. What is an error by default stays one.
    command.env("RUSTFLAGS", "-Awarnings").env("CARGO_PROFILE_DEV_DEBUG", "false");
    command.env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("RUSTC_WORKSPACE_WRAPPER");
    let log = options.out.join("build.log");
    let output =
        command.current_dir(&tree.path).stderr(Stdio::from(fs::File::create(&log)?)).output()?;
    let (mut binaries, mut errors) = (Vec::new(), Vec::new());
    for line in output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let message: Value = serde_json::from_slice(line)?;
        if message["reason"] == "compiler-message" && message["message"]["level"] == "error" {
            errors.push(message["message"].clone());
        }
        if message["reason"] == "compiler-artifact" && message["profile"]["test"] == true {
            let path = message["executable"].as_str().map(PathBuf::from);
            let (folder, further) = (folder.to_owned(), further.map(str::to_owned));
            binaries.extend(path.map(|path| TestBinary { path, folder, further }));
        }
    }
    match output.status.success() {
        true => Ok(Built::Tests(binaries)),
        false if errors.is_empty() => {
            Err(format!("the build failed, see {}", log.display()).into())
        }
        false => Ok(Built::Errors(errors)),
    }
}

/// Takes the mutants out that these errors are about.
fn leave_out(
    errors: &[Value],
    sources: &HashMap<String, Rewritten>,
    sites: &mut Sites,
) -> Result<()> {
    let (mut unviable, mut alone, mut others) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for error in errors {
        let places = places(error);
        let in_mutants: Vec<usize> = places
            .iter()
            .filter_map(|(file, at)| {
                let mutated = &sources.get(file.as_str())?.mutated;
                Some(mutated.iter().find(|(range, _)| range.contains(at))?.1)
            })
            .collect();
        if let Some(&first) = in_mutants.first() {
            unviable.insert(first);
            continue;
        }
        // In the original, but perhaps because of the switch around it. The innermost group ends first.
        let group = places.iter().find_map(|(file, at)| {
            let grouped = &sources.get(file.as_str())?.grouped;
            grouped.iter().find(|(range, _)| range.contains(at))
        });
        match group {
            Some((_, members)) => alone.extend(members.iter().copied()),
            None => others.push(error["rendered"].as_str().unwrap_or_default()),
        }
    }
    for &one in &unviable {
        sites.sites[one].place = Place::Unviable;
    }
    // Once the other errors are gone, these may be gone.
    if unviable.is_empty() {
        for &one in &alone {
            sites.sites[one].place = Place::Alone("does not compile beside the original");
        }
        if alone.is_empty() {
            return Err(format!("errors that belong to no mutant:\n{}", others.join("\n")).into());
        }
    }
    Ok(())
}

/// Where an error is: its main places first, then what it points to besides.
fn places(error: &Value) -> Vec<(String, usize)> {
    fn add(span: &Value, places: &mut Vec<(String, usize)>) {
        let at = span["byte_start"].as_u64().unwrap_or(0) as usize;
        places.push((span["file_name"].as_str().unwrap_or_default().to_owned(), at));
        // A macro's inside is elsewhere; where it is called follows.
        if span["expansion"].is_object() {
            add(&span["expansion"]["span"], places);
        }
    }
    let mut places = Vec::new();
    let spans = error["spans"].as_array().into_iter().flatten();
    let (main, besides): (Vec<&Value>, Vec<&Value>) =
        spans.partition(|span| span["is_primary"] == true);
    let children = error["children"].as_array().into_iter().flatten();
    let below = children.flat_map(|child| child["spans"].as_array().into_iter().flatten());
    for span in main.into_iter().chain(besides).chain(below) {
        add(span, &mut places);
    }
    places
}

/// What earlier runs found out about these very sources.
struct Known {
    path: PathBuf,
    lines: Vec<String>,
}

impl Known {
    fn read(options: &Options, tree: &Tree) -> Result<Self> {
        let mut hasher = DefaultHasher::new();
        tree.sources().hash(&mut hasher);
        let path = options.out.join(format!("left-out-{:016x}", hasher.finish()));
        let text = fs::read_to_string(&path).unwrap_or_default();
        Ok(Known { path, lines: text.lines().map(str::to_owned).collect() })
    }

    fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn apply(&self, mutants: &[Mutant], sites: &mut Sites) {
        let lines: HashMap<&str, &str> = self
            .lines
            .iter()
            .filter_map(|line| line.split_once('\t'))
            .map(|(a, b)| (b, a))
            .collect();
        for (mutant, site) in mutants.iter().zip(&mut sites.sites) {
            match lines.get(mutant.name.as_str()) {
                Some(&"unviable") => site.place = Place::Unviable,
                Some(_) => site.place = Place::Alone("does not compile beside the original"),
                None => {}
            }
        }
    }

    fn write(&self, mutants: &[Mutant], sites: &Sites) -> Result<()> {
        let mut text = String::new();
        for (mutant, site) in mutants.iter().zip(&sites.sites) {
            match site.place {
                Place::Unviable => text.push_str(&format!("unviable\t{}\n", mutant.name)),
                Place::Alone(_) => text.push_str(&format!("alone\t{}\n", mutant.name)),
                _ => {}
            }
        }
        Ok(fs::write(&self.path, text)?)
    }
}
