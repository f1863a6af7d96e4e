//! What came out, on the terminal and in files.

use std::fs;

use crate::judge::Verdict;
use crate::mutant::Mutant;
use crate::{Options, Result};

/// Lists what no test reaches, of all mutants.
pub(crate) fn unreached(options: &Options, mutants: &[Mutant], unreached: &[usize]) -> Result<()> {
    let file = options.out.join("unreached.txt");
    println!("{} mutants are reached by no test: {}", unreached.len(), file.display());
    let names = unreached.iter().map(|&one| format!("{}\n", mutants[one].name));
    Ok(fs::write(file, names.collect::<String>())?)
}

/// Writes the lists of what was tried. Returns whether nothing was missed.
pub(crate) fn verdicts(
    options: &Options,
    mutants: &[Mutant],
    verdicts: &[(usize, Verdict)],
) -> Result<bool> {
    let folder = &options.out;
    let list = |file: &str, line: &dyn Fn(&Verdict, &str) -> Option<String>| -> Result<usize> {
        let lines: Vec<String> = verdicts
            .iter()
            .filter_map(|(one, verdict)| line(verdict, &mutants[*one].name))
            .collect();
        fs::write(
            folder.join(file),
            lines.iter().map(|line| format!("{line}\n")).collect::<String>(),
        )?;
        Ok(lines.len())
    };
    let caught = list("caught.txt", &|verdict, name| match verdict {
        Verdict::Caught(test) => Some(format!("{name} [{test}]")),
        _ => None,
    })?;
    let elsewhere = list("caught_elsewhere.txt", &|verdict, name| match verdict {
        Verdict::CaughtElsewhere(test) => Some(format!("{name} [{test}]")),
        _ => None,
    })?;
    let loops = list("loops.txt", &|verdict, name| match verdict {
        Verdict::Loops(test) => Some(format!("{name} [{test}]")),
        _ => None,
    })?;
    let missed = list("missed.txt", &|verdict, name| match verdict {
        Verdict::Missed(_) => Some(name.to_owned()),
        _ => None,
    })?;
    let unviable = list("unviable.txt", &|verdict, name| match verdict {
        Verdict::Unviable => Some(name.to_owned()),
        _ => None,
    })?;
    let not_tried = list("not_tried.txt", &|verdict, name| match verdict {
        Verdict::NotTried(why) => Some(format!("{name} [{why}]")),
        _ => None,
    })?;
    let tried = caught + loops + elsewhere + missed;
    let share = |caught: usize| caught as f64 * 100.0 / tried.max(1) as f64;
    let by_own = share(caught + loops);
    println!(
        "{}: {} mutants, {unviable} do not compile, {not_tried} not tried, {caught} caught, {loops} loop, \
         {missed} missed: {by_own:.1} % caught of those that compile",
        options.package,
        verdicts.len(),
    );
    if !options.further.is_empty() {
        let by_all = share(caught + loops + elsewhere);
        println!("{elsewhere} more are caught by further tests: {by_all:.1} %");
    }
    println!(
        "lists: {}/{{missed,caught,caught_elsewhere,loops,unviable,not_tried}}.txt",
        folder.display()
    );
    Ok(missed == 0)
}
