//! What a comparison gathers, as it is written to `results.json`.

use crate::loads::Unit;
use crate::process;
use crate::servers::Mode;
use hdrhistogram::Histogram;
use serde::Serialize;

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Latency {
    /// Of a histogram of nanoseconds.
    pub(crate) fn of(nanos: &Histogram<u64>) -> Self {
        let at = |quantile| nanos.value_at_quantile(quantile) as f64 / 1e3;
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), p999: at(0.999), max: at(1.0) }
    }
}

/// One run: the row's figure in its unit, and what was seen beside it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) value: f64,
    pub(crate) latency: Option<Latency>,
    /// Server processor time per reply; per delivery in the live rows.
    pub(crate) cpu_us_per_request: Option<f64>,
    /// Of the server when the run ended.
    pub(crate) resident_kib: Option<u64>,
    pub(crate) peak_kib: Option<u64>,
    /// Share of the window the client was on its processor. Near 1 in a closed loop the client,
    /// not the server, may be what was measured.
    pub(crate) client_busy: Option<f64>,
    /// Processors everything else on the machine took during the window.
    pub(crate) others: Option<f64>,
}

impl Outcome {
    /// A bare figure.
    pub(crate) fn of(value: f64) -> Self {
        Self {
            value,
            latency: None,
            cpu_us_per_request: None,
            resident_kib: None,
            peak_kib: None,
            client_busy: None,
            others: None,
        }
    }

    pub(crate) fn with_memory(mut self, pid: u32) -> Self {
        if let Ok(memory) = process::memory(pid) {
            self.resident_kib = Some(memory.resident);
            self.peak_kib = Some(memory.peak);
        }
        self
    }
}

/// The runs of one load on one server.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Cell {
    pub(crate) runs: Vec<Outcome>,
    /// Why there is no (further) figure.
    pub(crate) reason: Option<String>,
}

impl Cell {
    /// The median of what `pick` takes from each run; `None` for a cell that failed.
    pub(crate) fn median_of(&self, pick: impl Fn(&Outcome) -> Option<f64>) -> Option<f64> {
        if self.reason.is_some() {
            return None;
        }
        let mut values: Vec<f64> = self.runs.iter().filter_map(pick).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        match values.len() {
            0 => None,
            n if n % 2 == 1 => Some(values[middle]),
            _ => Some(f64::midpoint(values[middle - 1], values[middle])),
        }
    }

    pub(crate) fn median(&self) -> Option<f64> {
        self.median_of(|run| Some(run.value))
    }
}

/// One load over all servers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) key: String,
    pub(crate) group: &'static str,
    pub(crate) title: String,
    pub(crate) unit: Unit,
    pub(crate) mode: Mode,
    /// In the order of [`History::servers`].
    pub(crate) cells: Vec<Cell>,
}

/// One server of the comparison.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ServerFacts {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    pub(crate) version: String,
    /// The start lines, durable and memory.
    pub(crate) commands: Vec<String>,
    /// Why it could not take part.
    pub(crate) missing: Option<String>,
}

/// `fdatasync` figures of one append size.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DiskRow {
    pub(crate) bytes: usize,
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Everything measured so far.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct History {
    pub(crate) servers: Vec<ServerFacts>,
    pub(crate) rows: Vec<Row>,
    pub(crate) disk: Vec<DiskRow>,
}

impl History {
    /// The median of a load on a server, if both took part.
    pub(crate) fn median(&self, load: &str, server: &str) -> Option<f64> {
        let column = self.column(server)?;
        self.rows.iter().find(|row| row.key == load)?.cells[column].median()
    }

    pub(crate) fn column(&self, server: &str) -> Option<usize> {
        self.servers.iter().position(|facts| facts.key == server)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_a_failed_cell_has_none() {
        let cell = |values: &[f64]| Cell {
            runs: values.iter().map(|v| Outcome::of(*v)).collect(),
            reason: None,
        };
        assert_eq!(cell(&[3.0, 1.0, 2.0]).median(), Some(2.0));
        assert_eq!(cell(&[4.0, 1.0]).median(), Some(2.5));
        assert_eq!(cell(&[]).median(), None);
        let failed = Cell { reason: Some("wrong status".into()), ..cell(&[1.0]) };
        assert_eq!(failed.median(), None);
    }
}
