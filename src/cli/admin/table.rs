//! Tables for people: columns as wide as what is in them, and nothing that a terminal would obey.

use std::io::{self, IsTerminal, Write};

use serde_json::Value;

/// A column: its title, and the text that it shows of a value.
pub(super) type Column = (&'static str, fn(&Value) -> String);

/// Whether standard output gets tables.
pub(super) fn for_people(json: bool) -> bool {
    !json && io::stdout().is_terminal()
}

/// Writes values as a table, or as JSON, one a line.
pub(super) fn write(values: &[Value], columns: &[Column], people: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if !people {
        for value in values {
            writeln!(out, "{value}")?;
        }
        return Ok(());
    }
    out.write_all(table(values, columns).as_bytes())
}

fn table(values: &[Value], columns: &[Column]) -> String {
    let titles: Vec<String> = columns.iter().map(|(title, _)| (*title).to_owned()).collect();
    let row = |value: &Value| -> Vec<String> {
        columns.iter().map(|(_, show)| printable(&show(value))).collect()
    };
    let rows: Vec<Vec<String>> = std::iter::once(titles).chain(values.iter().map(row)).collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|at| rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max())
        .map(Option::unwrap_or_default)
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| {
            format!("{cell}{}", " ".repeat(width.saturating_sub(cell.chars().count())))
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Text without characters that steer a terminal or turn the direction of what follows: clients choose names.
fn printable(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let escaped = text.chars().map(|c| match steers(c) {
        true => c.escape_unicode().to_string(),
        false => c.to_string(),
    });
    escaped.collect()
}

/// A member as text; empty for what is not there.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A number of bytes, as `1.5 MiB`.
pub(super) fn bytes(value: &Value) -> String {
    let Some(count) = value.as_f64() else { return String::new() };
    let (mut count, mut units) = (count, ["B", "KiB", "MiB", "GiB", "TiB"].iter());
    let mut unit = units.next().unwrap_or(&"B");
    while count >= 1024.0
        && let Some(next) = units.next()
    {
        (count, unit) = (count / 1024.0, next);
    }
    if *unit == "B" { format!("{count} B") } else { format!("{count:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_has_columns_and_obeys_no_name() {
        let columns: &[Column] =
            &[("PATH", |one| text(&one["path"])), ("SIZE", |one| bytes(&one["bytes"]))];
        let values = [
            json!({ "path": "long/name", "bytes": 12 }),
            json!({ "path": "a\u{1b}[2J\u{202e}", "bytes": 1_572_864 }),
        ];
        let expected = "PATH                  SIZE\n\
                        long/name             12 B\n\
                        a\\u{1b}[2J\\u{202e}  1.5 MiB\n";
        let shown = table(&values, columns);
        let squeeze = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeeze(&shown), squeeze(expected));
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{202e}'));
        let starts: Vec<_> = shown.lines().map(|line| line.rfind("  ").map(|at| at + 2)).collect();
        assert!(starts.iter().all(|start| *start == starts[0]), "{shown}");
    }
}
