//! Horizontal bars, one plot per group: each row scaled to its own best, so that rows of different
//! size and unit can stand below each other.

use super::figure;
use crate::results::{Row, ServerFacts};
use std::fmt::Write as _;

const WIDTH: usize = 860;
const LABEL: usize = 190;
const BARS: usize = 500;
const BAR: usize = 16;
const ROW_HEAD: usize = 26;
const COLOURS: [&str; 8] =
    ["#0b6e4f", "#d1495b", "#edae49", "#66a182", "#2e86ab", "#8d99ae", "#adb5bd", "#5c4d7d"];

/// `None` if no server has a figure.
pub(super) fn bars(group: &str, servers: &[ServerFacts], rows: &[&Row]) -> Option<String> {
    let mut body = String::new();
    let mut y = 40;
    for row in rows {
        let medians: Vec<(usize, f64)> = row
            .cells
            .iter()
            .enumerate()
            .filter_map(|(column, cell)| Some((column, cell.median()?)))
            .collect();
        let longest = medians.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        if longest <= 0.0 {
            continue;
        }
        let note =
            if row.unit.higher_is_better() { "longer is better" } else { "shorter is better" };
        let _ = writeln!(
            body,
            r#"<text x="8" y="{}" font-weight="bold">{}, {} ({note})</text>"#,
            y + 14,
            escape(&row.title),
            row.unit.label(),
        );
        y += ROW_HEAD;
        for (column, value) in medians {
            let length = (value / longest * BARS as f64).max(1.0);
            let _ = writeln!(
                body,
                r#"<text x="{}" y="{}" text-anchor="end">{}</text><rect x="{LABEL}" y="{y}" width="{length:.1}" height="{}" fill="{}"/><text x="{:.1}" y="{}">{}</text>"#,
                LABEL - 8,
                y + 11,
                escape(servers[column].title.split(" (").next().unwrap_or_default()),
                BAR - 3,
                COLOURS[column % COLOURS.len()],
                LABEL as f64 + length + 6.0,
                y + 11,
                figure(value, row.unit),
            );
            y += BAR;
        }
        y += 10;
    }
    (!body.is_empty()).then(|| {
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" font-family="sans-serif" font-size="12">
<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>
<text x="8" y="22" font-size="16" font-weight="bold">{}</text>
{body}</svg>
"##,
            escape(group)
        )
    })
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
