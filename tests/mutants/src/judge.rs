//! Puts each mutant before the tests that reach it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::compile::{self, Built};
use crate::mutant::Mutant;
use crate::reach::{self, Reach, Test};
use crate::sites::{Place, Sites};
use crate::tree::Tree;
use crate::trial::{Outcome, Switch};
use crate::{Options, Result, rewrite};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// The test that failed.
    Caught(String),
    /// By a further test only.
    CaughtElsewhere(String),
    /// The test that did not end.
    Loops(String),
    /// So many tests reach it, and all passed.
    Missed(usize),
    Unviable,
    /// Why not.
    NotTried(String),
}

/// A mutant loops when a test takes longer than this and five times as long as without it.
const LEAST_LIMIT: Duration = Duration::from_secs(10);
/// So many tests that caught a mutant of a file meet the next one of the file first, those that take less than `SHORT`.
const KNOWN: usize = 6;
const SHORT: Duration = Duration::from_secs(1);
/// How often a line says how far it is.
const EVERY: Duration = Duration::from_secs(30);

/// The verdict on each of `selected`. Those of an earlier run that was cut off are taken over.
pub(crate) fn all(
    options: &Options,
    tree: &Tree,
    mutants: &[Mutant],
    sites: &Sites,
    selected: &[usize],
    reach: &Reach<'_>,
) -> Result<Vec<(usize, Verdict)>> {
    let kept = Kept::open(options, reach.hash)?;
    let mut verdicts = Vec::new();
    let (mut switched, mut alone) = (Vec::new(), Vec::new());
    for &one in selected {
        match (kept.before.get(&mutants[one].name), &sites.sites[one].place) {
            (Some(verdict), _) => verdicts.push((one, verdict.clone())),
            (None, Place::Unviable) => verdicts.push((one, Verdict::Unviable)),
            (None, Place::Alone(why)) if !options.alone => {
                verdicts.push((one, Verdict::NotTried((*why).to_owned())));
            }
            (None, Place::Alone(_)) => alone.push(one),
            (None, _) => switched.push(one),
        }
    }
    println!(
        "{} with a switch, {} with a build of their own, {} known",
        switched.len(),
        alone.len(),
        verdicts.len()
    );
    verdicts.extend(with_switch(options, mutants, &switched, reach, &kept)?);
    for (count, &one) in alone.iter().enumerate() {
        println!("build of its own {} of {}: {}", count + 1, alone.len(), mutants[one].name);
        let verdict = with_own_build(options, tree, &mutants[one], &sites.sites[one].cut, reach)?;
        kept.add(&mutants[one].name, &verdict)?;
        verdicts.push((one, verdict));
    }
    verdicts.sort_by_key(|&(one, _)| one);
    Ok(verdicts)
}

fn with_switch(
    options: &Options,
    mutants: &[Mutant],
    switched: &[usize],
    reach: &Reach<'_>,
    kept: &Kept,
) -> Result<Vec<(usize, Verdict)>> {
    let mut reaching: HashMap<u32, Vec<&Test>> = HashMap::new();
    for test in &reach.tests {
        for &number in &test.reached {
            reaching.entry(number).or_default().push(test);
        }
    }
    let next = AtomicUsize::new(0);
    let caught: Mutex<HashMap<String, VecDeque<String>>> = Mutex::default();
    let verdicts = Mutex::new(Vec::new());
    let said = Mutex::new(Instant::now());
    let work = || -> Result<()> {
        loop {
            let count = next.fetch_add(1, Ordering::Relaxed);
            let Some(&one) = switched.get(count) else { return Ok(()) };
            let number = reach.compiled.numbers[one];
            let mut tests = reaching.get(&number).cloned().unwrap_or_default();
            let file = mutants[one].file.as_str();
            // What caught another mutant of this file often catches this one.
            let known = caught.lock().map_err(|_| "a worker failed")?.get(file).cloned();
            let known: HashSet<String> = known.unwrap_or_default().into_iter().collect();
            tests.sort_by_key(|test| {
                let likely = test.took < SHORT && known.contains(&test.name);
                (test.binary.further.is_some(), !likely)
            });
            let verdict = judge(&tests, number, reach)?;
            if let Verdict::Caught(test) | Verdict::CaughtElsewhere(test) = &verdict {
                let mut caught = caught.lock().map_err(|_| "a worker failed")?;
                let of_file = caught.entry(file.to_owned()).or_default();
                of_file.retain(|known| known != test);
                of_file.push_front(test.clone());
                of_file.truncate(KNOWN);
            }
            if let Verdict::Missed(tests) = verdict {
                println!("missed ({tests} tests reach it): {}", mutants[one].name);
            }
            kept.add(&mutants[one].name, &verdict)?;
            verdicts.lock().map_err(|_| "a worker failed")?.push((one, verdict));
            let mut said = said.lock().map_err(|_| "a worker failed")?;
            if said.elapsed() > EVERY {
                println!("{count} of {}", switched.len());
                *said = Instant::now();
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a worker failed")?)
    })?;
    verdicts.into_inner().map_err(|_| "a worker failed".into())
}

fn judge(tests: &[&Test], number: u32, reach: &Reach<'_>) -> Result<Verdict> {
    for test in tests {
        let limit = LEAST_LIMIT.max(test.took * 5);
        let (outcome, _) =
            reach.trials.run(&test.binary, &test.name, &Switch::Mutant(number), limit)?;
        match outcome {
            Outcome::Passed => {}
            Outcome::Failed if test.binary.further.is_some() => {
                return Ok(Verdict::CaughtElsewhere(test.name.clone()));
            }
            Outcome::Failed => return Ok(Verdict::Caught(test.name.clone())),
            Outcome::TimedOut => return Ok(Verdict::Loops(test.name.clone())),
        }
    }
    Ok(Verdict::Missed(tests.len()))
}

/// Compiles a mutant that can have no switch, and runs all tests.
fn with_own_build(
    options: &Options,
    tree: &Tree,
    mutant: &Mutant,
    cut: &std::ops::Range<usize>,
    reach: &Reach<'_>,
) -> Result<Verdict> {
    let mut text = rewrite::mutated(tree.source(&mutant.file)?, cut, &mutant.replacement);
    if mutant.file == tree.library {
        text.push_str(&rewrite::switch(reach.compiled.numbers.len()));
    }
    tree.write(&mutant.file, &text)?;
    let built = compile::own(options, tree);
    let verdict = match built? {
        Built::Errors(_) => Verdict::Unviable,
        Built::Tests(binaries) => {
            let times: HashMap<&str, Duration> =
                reach.tests.iter().map(|test| (test.name.as_str(), test.took)).collect();
            let mut tests = Vec::new();
            for binary in &binaries {
                for name in reach::names(options, binary)? {
                    let took = times.get(name.as_str()).copied().unwrap_or_default();
                    tests.push(Test { binary: binary.clone(), name, took, reached: Vec::new() });
                }
            }
            tests.sort_by_key(|test| test.took);
            let tests: Vec<&Test> = tests.iter().collect();
            judge(&tests, 0, reach)?
        }
    };
    tree.write(&mutant.file, &reach.compiled.sources[&mutant.file].text)?;
    Ok(verdict)
}

/// The verdicts on disk. They hold for the binaries that they were found with.
struct Kept {
    before: HashMap<String, Verdict>,
    file: Mutex<File>,
}

impl Kept {
    fn open(options: &Options, hash: u64) -> Result<Self> {
        let path = options.out.join(format!("verdicts-{hash:016x}"));
        let before = read(&path);
        let file = OpenOptions::new().create(true).append(true).open(&path)?;
        Ok(Kept { before, file: Mutex::new(file) })
    }

    fn add(&self, name: &str, verdict: &Verdict) -> Result<()> {
        let (word, detail) = match verdict {
            Verdict::Caught(test) => ("caught", test.clone()),
            Verdict::CaughtElsewhere(test) => ("caught elsewhere", test.clone()),
            Verdict::Loops(test) => ("loops", test.clone()),
            Verdict::Missed(tests) => ("missed", tests.to_string()),
            Verdict::Unviable => ("unviable", String::new()),
            Verdict::NotTried(why) => ("not tried", why.clone()),
        };
        let line = format!("{word}\t{detail}\t{name}\n");
        Ok(self.file.lock().map_err(|_| "a worker failed")?.write_all(line.as_bytes())?)
    }
}

fn read(path: &Path) -> HashMap<String, Verdict> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, '\t');
        let (word, detail, name) = (parts.next()?, parts.next()?.to_owned(), parts.next()?);
        let verdict = match word {
            "caught" => Verdict::Caught(detail),
            "caught elsewhere" => Verdict::CaughtElsewhere(detail),
            "loops" => Verdict::Loops(detail),
            "missed" => Verdict::Missed(detail.parse().ok()?),
            "unviable" => Verdict::Unviable,
            _ => return None,
        };
        Some((name.to_owned(), verdict))
    });
    lines.collect()
}
