//! RequestCounts by the status of their answer: one column for each that is usual.

use std::array;

use durable_streams_engine::counters::RelaxedCounter;
use http::StatusCode;

/// Statuses with a column of their own, and one for the rest of each class. 0 is "no answer".
const STATUSES: [u16; 32] = [
    0, 101, 200, 201, 202, 204, 206, 301, 302, 304, 307, 308, 400, 401, 403, 404, 405, 408, 409,
    410, 412, 413, 414, 415, 422, 429, 431, 500, 502, 503, 504, 507,
];

/// Labels of the columns behind [`STATUSES`].
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

const COLUMNS: usize = STATUSES.len() + CLASSES.len();

/// Requests by status.
pub struct StatusCounts([RelaxedCounter; COLUMNS]);

impl Default for StatusCounts {
    fn default() -> Self {
        StatusCounts(array::from_fn(|_| RelaxedCounter::default()))
    }
}

impl StatusCounts {
    /// Counts a request that was answered with `status`, or not at all.
    pub fn add(&self, status: Option<StatusCode>) {
        let code = status.map_or(0, |status| status.as_u16());
        let column = match STATUSES.binary_search(&code) {
            Ok(column) => column,
            Err(_) => STATUSES.len() + usize::from(code / 100).clamp(1, CLASSES.len()) - 1,
        };
        if let Some(count) = self.0.get(column) {
            count.add(1);
        }
    }
}

/// Adds up what was counted in several places: status and number, without the zeros. Server errors are
/// always there, so that the first one is seen as an increase.
pub fn by_status<'a>(places: impl Iterator<Item = &'a StatusCounts>) -> Vec<(String, u64)> {
    let mut sums = [0_u64; COLUMNS];
    for place in places {
        for (sum, count) in sums.iter_mut().zip(&place.0) {
            *sum += count.get();
        }
    }
    let names = STATUSES.iter().map(u16::to_string).chain(CLASSES.map(str::to_owned));
    let always = |name: &str| matches!(name, "500" | "502" | "503" | "504" | "507");
    names.zip(sums).filter(|(name, sum)| *sum > 0 || always(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_column() {
        assert!(STATUSES.is_sorted());
        let seen = StatusCounts::default();
        for code in [100, 200, 299, 404, 418, 503, 599, 999] {
            seen.add(StatusCode::from_u16(code).ok());
        }
        seen.add(None);
        let counted: Vec<_> =
            by_status([&seen].into_iter()).into_iter().filter(|c| c.1 > 0).collect();
        let expected = [
            ("0", 1),
            ("200", 1),
            ("404", 1),
            ("503", 1),
            ("1xx", 1),
            ("2xx", 1),
            ("4xx", 1),
            ("5xx", 2),
        ];
        assert_eq!(counted, expected.map(|(name, count)| (name.to_owned(), count)));
    }
}
