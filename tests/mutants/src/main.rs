//! Mutation testing in one build: every mutant of a crate is compiled into the same test binaries, and a number in the
//! environment chooses one at run time. docs/testing.md says how to use it, scripts/mutants starts it.
//!
//! 1. cargo-mutants lists the mutants of the package (`mutant`), and the tracked files are copied (`tree`).
//! 2. Each mutant gets its place in the copied sources (`sites`), where the source is rewritten with a switch (`rewrite`).
//! 3. The tests are compiled; mutants that do not compile are left out until the rest does (`compile`).
//! 4. Every test runs once without a mutant, alone, and says which mutants it reaches (`reach`).
//! 5. Each mutant is put before the tests that reach it, the likeliest and the fastest first, until one fails (`judge`).
//! 6. What was missed is printed and written to files (`report`).

mod compile;
mod judge;
mod mutant;
mod reach;
mod report;
mod rewrite;
mod sites;
mod tree;
mod trial;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::ExitCode;
use std::{env, thread};

use crate::mutant::Selection;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What the environment asks for; scripts/mutants describes the variables.
pub(crate) struct Options {
    /// The root of the repository.
    pub(crate) root: PathBuf,
    pub(crate) package: String,
    /// Where everything about this package is written: the copied tree, what is compiled, the reports. Cargo names what it
    /// compiles alike in the trees of two packages, so they share no target directory.
    pub(crate) out: PathBuf,
    pub(crate) jobs: usize,
    pub(crate) selection: Selection,
    /// Whether mutants that need a build of their own are tried.
    pub(crate) alone: bool,
    pub(crate) further: Vec<FurtherTests>,
    /// Parts of names: a test runs whose name holds one of them, and none of those that begin with `!`.
    pub(crate) tests: Vec<String>,
}

impl Options {
    pub(crate) fn runs(&self, test: &str) -> bool {
        let (unwanted, wanted): (Vec<&str>, Vec<&str>) =
            self.tests.iter().map(String::as_str).partition(|part| part.starts_with('!'));
        let holds =
            |parts: &[&str]| parts.iter().any(|part| test.contains(part.trim_start_matches('!')));
        (wanted.is_empty() || holds(&wanted)) && !holds(&unwanted)
    }
}

/// Tests of another package, which meet the mutants that the package's own tests miss.
pub(crate) struct FurtherTests {
    pub(crate) package: String,
    /// Its test target, such as `http`.
    pub(crate) target: String,
    /// The names of the tests hold this; all do if it is empty.
    pub(crate) part: String,
}

impl FurtherTests {
    /// Several are separated by commas.
    fn parse(text: &str) -> Result<Vec<Self>> {
        text.split(',').map(Self::parse_one).collect()
    }

    fn parse_one(text: &str) -> Result<Self> {
        let mut words = text.split_whitespace().map(str::to_owned);
        let (Some(package), Some(target)) = (words.next(), words.next()) else {
            return Err("FURTHER names a package and a test target".into());
        };
        Ok(FurtherTests { package, target, part: words.next().unwrap_or_default() })
    }
}

fn options() -> Result<Options> {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let root = env::current_dir()?;
    let package = set("PACKAGE").unwrap_or_else(|| "durable-streams-protocol".to_owned());
    let cores = thread::available_parallelism().map_or(1, usize::from);
    Ok(Options {
        out: root.join("target/mutants").join(&package),
        jobs: set("JOBS").map_or(Ok(cores), |jobs| jobs.parse())?.max(1),
        selection: Selection::new(set("FILES"), set("SAMPLE"), set("ONLY"))?,
        alone: set("ALONE").is_none_or(|value| value != "0"),
        further: set("FURTHER").map_or(Ok(Vec::new()), |text| FurtherTests::parse(&text))?,
        tests: set("TESTS")
            .map_or(Vec::new(), |text| text.split_whitespace().map(str::to_owned).collect()),
        root,
        package,
    })
}

fn run() -> Result<bool> {
    let options = options()?;
    fs::create_dir_all(&options.out)?;
    let lock = File::create(options.out.join("lock"))?;
    lock.try_lock().map_err(|_| "another run of this package is under way")?;
    let mutants = mutant::list(&options.root, &options.package, None)?;
    let selected = options.selection.choose(&options.root, &options.package, &mutants)?;
    println!("{}: {} mutants, {} chosen", options.package, mutants.len(), selected.len());
    let tree = tree::Tree::copy(&options)?;
    let mut sites = sites::find(&tree.sources(), &mutants)?;
    let tests = compile::all(&options, &tree, &mutants, &mut sites)?;
    let reach = reach::measure(&options, &tests)?;
    report::unreached(&options, &mutants, &reach.unreached(&sites))?;
    let verdicts = judge::all(&options, &tree, &mutants, &sites, &selected, &reach)?;
    report::verdicts(&options, &mutants, &verdicts)
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("mutants: {error}");
            ExitCode::from(2)
        }
    }
}
