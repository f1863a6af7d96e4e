//! Runs each test once without a mutant: whether it passes, how long it takes, which mutants it reaches.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::Hasher;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::compile::{TestBinary, Tests};
use crate::sites::Sites;
use crate::trial::{Outcome, Switch, Trials};
use crate::{Options, Result};

#[derive(Clone)]
pub(crate) struct Test {
    pub(crate) binary: TestBinary,
    pub(crate) name: String,
    pub(crate) took: Duration,
    /// The numbers of the mutants.
    pub(crate) reached: Vec<u32>,
}

pub(crate) struct Reach<'a> {
    pub(crate) compiled: &'a Tests,
    /// The package's own first, and of those the fastest.
    pub(crate) tests: Vec<Test>,
    pub(crate) trials: Trials,
    /// Says which binaries this is about.
    pub(crate) hash: u64,
}

impl Reach<'_> {
    /// The mutants with a switch that no test reaches, whether they were chosen or not.
    pub(crate) fn unreached(&self, sites: &Sites) -> Vec<usize> {
        let reached: HashSet<u32> =
            self.tests.iter().flat_map(|test| test.reached.iter().copied()).collect();
        let switched = (0..sites.sites.len()).filter(|&one| sites.sites[one].place.has_switch());
        switched.filter(|&one| !reached.contains(&self.compiled.numbers[one])).collect()
    }
}

/// The longest that a test may take without a mutant.
const LONGEST: Duration = Duration::from_secs(600);

pub(crate) fn measure<'a>(options: &Options, compiled: &'a Tests) -> Result<Reach<'a>> {
    let trials = Trials::new(options)?;
    let mut tests = Vec::new();
    let mut all = DefaultHasher::new();
    for binary in &compiled.binaries {
        let mut hasher = DefaultHasher::new();
        hasher.write(&fs::read(&binary.path)?);
        hasher.write(binary.further.as_deref().unwrap_or_default().as_bytes());
        hasher.write(options.tests.join(" ").as_bytes());
        let hash = hasher.finish();
        all.write_u64(hash);
        let kept = options.out.join(format!("reach-{hash:016x}"));
        let of_binary = match fs::read_to_string(&kept) {
            Ok(text) => text.lines().filter_map(|line| parse(binary, line)).collect(),
            Err(_) => {
                let measured = measure_binary(options, &trials, binary)?;
                let lines: Vec<String> = measured.iter().map(line).collect();
                fs::write(&kept, lines.join("\n"))?;
                measured
            }
        };
        tests.extend(of_binary);
    }
    tests.sort_by_key(|test: &Test| (test.binary.further.is_some(), test.took));
    let sum: Duration = tests.iter().map(|test| test.took).sum();
    println!("{} tests, {:.0} s one after the other", tests.len(), sum.as_secs_f64());
    Ok(Reach { compiled, tests, trials, hash: all.finish() })
}

fn line(test: &Test) -> String {
    let reached: Vec<String> = test.reached.iter().map(u32::to_string).collect();
    format!("{}\t{}\t{}", test.name, test.took.as_micros(), reached.join(" "))
}

fn parse(binary: &TestBinary, line: &str) -> Option<Test> {
    let mut parts = line.split('\t');
    Some(Test {
        binary: binary.clone(),
        name: parts.next()?.to_owned(),
        took: Duration::from_micros(parts.next()?.parse().ok()?),
        reached: parts
            .next()?
            .split_whitespace()
            .filter_map(|number| number.parse().ok())
            .collect(),
    })
}

/// The tests of a binary, without those that are ignored.
pub(crate) fn names(options: &Options, binary: &TestBinary) -> Result<Vec<String>> {
    let list = |more: &[&str]| -> Result<Vec<String>> {
        let output =
            Command::new(&binary.path).args(["--list", "--format", "terse"]).args(more).output()?;
        let text = String::from_utf8(output.stdout)?;
        Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    };
    let ignored = list(&["--ignored"])?;
    let part = binary.further.as_deref().unwrap_or_default();
    let is_chosen =
        |name: &String| name.contains(part) && options.runs(name) && !ignored.contains(name);
    Ok(list(&[])?.into_iter().filter(is_chosen).collect())
}

fn measure_binary(options: &Options, trials: &Trials, binary: &TestBinary) -> Result<Vec<Test>> {
    let names = names(options, binary)?;
    println!("{}: {} tests without a mutant", binary.path.display(), names.len());
    let next = AtomicUsize::new(0);
    let (tests, failed) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let began = Instant::now();
    let work = |worker: usize| -> Result<()> {
        let trace = options.out.join(format!("trace-{worker}"));
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut tries = 0;
            loop {
                let _ = fs::remove_file(&trace);
                tries += 1;
                let (outcome, took) = trials.run(binary, name, &Switch::Trace(&trace), LONGEST)?;
                if outcome == Outcome::Passed {
                    let bytes = fs::read(&trace).unwrap_or_default();
                    let numbers =
                        bytes.as_chunks::<4>().0.iter().map(|&one| u32::from_le_bytes(one));
                    let mut reached: Vec<u32> = numbers.collect();
                    // Processes that the test starts write theirs as well.
                    reached.sort_unstable();
                    reached.dedup();
                    let test = Test { binary: binary.clone(), name: name.clone(), took, reached };
                    tests.lock().map_err(|_| "a worker failed")?.push(test);
                    break;
                }
                if tries == 2 {
                    failed.lock().map_err(|_| "a worker failed")?.push(name.clone());
                    break;
                }
            }
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> =
            (0..options.jobs).map(|worker| scope.spawn(move || work(worker))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a worker failed")?)
    })?;
    let failed = failed.into_inner().map_err(|_| "a worker failed")?;
    if !failed.is_empty() {
        let list = failed.join(", ");
        return Err(format!("tests that fail without a mutant, alone in a process: {list}").into());
    }
    println!("  took {:.0} s", began.elapsed().as_secs_f64());
    tests.into_inner().map_err(|_| "a worker failed".into())
}
