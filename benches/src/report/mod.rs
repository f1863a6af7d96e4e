//! The report: a line per row on the terminal, `results.json`, and `benchmarks.md` with plots.

mod markdown;
mod svg;

use crate::loads::{Scale, Unit};
use crate::machine::Machine;
use crate::results::{History, Row, ServerFacts};
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// A finished comparison.
pub(crate) struct Run<'a> {
    pub(crate) history: &'a History,
    pub(crate) machine: &'a Machine,
    pub(crate) scale: Scale,
    pub(crate) pinned: bool,
    pub(crate) took: Duration,
}

#[derive(Serialize)]
struct Json<'a> {
    machine: &'a Machine,
    quick: bool,
    pinned: bool,
    warm_up_ms: u128,
    window_ms: u128,
    rounds: usize,
    took_s: u64,
    #[serde(flatten)]
    history: &'a History,
}

/// Writes all files into `out`.
pub(crate) fn write(run: &Run<'_>, out: &Path) -> Result<()> {
    let json = Json {
        machine: run.machine,
        quick: run.scale.quick,
        pinned: run.pinned,
        warm_up_ms: run.scale.warm_up.as_millis(),
        window_ms: run.scale.window.as_millis(),
        rounds: run.scale.rounds,
        took_s: run.took.as_secs(),
        history: run.history,
    };
    let save = |name: &str, text: String| {
        let path = out.join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())
    };
    save("results.json", serde_json::to_string_pretty(&json)? + "\n")?;
    let mut plots = Vec::new();
    for group in groups(run.history) {
        let rows: Vec<&Row> = run.history.rows.iter().filter(|row| row.group == group).collect();
        if let Some(plot) = svg::bars(group, &run.history.servers, &rows) {
            let name = format!("benchmarks-{}.svg", slug(group));
            save(&name, plot)?;
            plots.push((group, name));
        }
    }
    save("benchmarks.md", markdown::render(run, &plots))?;
    eprintln!("wrote {}", out.join("benchmarks.md").display());
    Ok(())
}

/// The groups that have rows, in order.
fn groups(history: &History) -> Vec<&'static str> {
    let mut groups: Vec<&'static str> = history.rows.iter().map(|row| row.group).collect();
    groups.dedup();
    let mut seen = Vec::new();
    groups.retain(|group| {
        let new = !seen.contains(group);
        seen.push(*group);
        new
    });
    groups
}

fn slug(text: &str) -> String {
    let words: Vec<String> = text
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    words.join("-")
}

/// A row for the terminal.
pub(crate) fn line(servers: &[ServerFacts], row: &Row) -> String {
    let cells = servers.iter().zip(&row.cells).map(|(server, cell)| match cell.median() {
        Some(value) => format!("{} {}", server.key, figure(value, row.unit)),
        None => format!("{} -", server.key),
    });
    format!("{:<26} {:>7}  {}", row.key, row.unit.label(), cells.collect::<Vec<_>>().join("  "))
}

/// A figure in as many digits as it deserves.
fn figure(value: f64, unit: Unit) -> String {
    match unit {
        Unit::PerSecond | Unit::MibPerSecond | Unit::Bytes => grouped(value),
        _ if value >= 100.0 => grouped(value),
        _ if value >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A whole number with its thousands apart.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!(figure(1_234_567.4, Unit::PerSecond), "1,234,567");
        assert_eq!(figure(999.0, Unit::PerSecond), "999");
        assert_eq!(figure(2.345, Unit::MillisP99), "2.35");
        assert_eq!(figure(45.67, Unit::MillisP99), "45.7");
        assert_eq!(slug("Appends, memory mode"), "appends-memory-mode");
    }
}
