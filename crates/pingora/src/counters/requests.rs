//! Stream requests: a row for each mode, a column for each status. No label is looked up for a request.

use std::array;

use http::{Method, StatusCode};

use super::{
    RequestCount,
    status::{StatusCounts, by_status},
};

/// The operation of a stream request. Those with one method come first, in the order of `MODES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestMode {
    /// `PUT`.
    Create,
    /// `POST`.
    Append,
    /// `GET` of what is there.
    CatchUp,
    /// `GET` that waits for one answer.
    LongPoll,
    /// `GET` that stays.
    Sse,
    /// `HEAD`.
    Head,
    /// `DELETE`.
    Delete,
    /// `PATCH`.
    Patch,
    /// `OPTIONS`.
    Preflight,
    /// Subscriptions, under the reserved segment; counted by method.
    Subscriptions,
    /// Could not be understood; counted by method.
    Invalid,
}

/// Label and method of every mode that has one method.
const MODES: [(&str, &str); 9] = [
    ("create", "PUT"),
    ("append", "POST"),
    ("catch_up", "GET"),
    ("long_poll", "GET"),
    ("sse", "GET"),
    ("head", "HEAD"),
    ("delete", "DELETE"),
    ("patch", "PATCH"),
    ("preflight", "OPTIONS"),
];

/// Labels of the modes that come with any method.
const ANY_METHOD: [&str; 2] = ["control", "invalid"];

/// The methods by which those modes are counted.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"];

const ROWS: usize = MODES.len() + ANY_METHOD.len() * METHODS.len();

impl RequestMode {
    /// As the label says it.
    pub fn name(self) -> &'static str {
        let labels = MODES.iter().map(|(name, _)| *name).chain(ANY_METHOD);
        labels.into_iter().nth(self as usize).unwrap_or("other")
    }

    fn row(self, method: &Method) -> usize {
        match (self as usize).checked_sub(MODES.len()) {
            None => self as usize,
            Some(group) => {
                let method = METHODS.iter().position(|name| *name == method.as_str());
                MODES.len() + group * METHODS.len() + method.unwrap_or(METHODS.len() - 1)
            }
        }
    }
}

/// Stream requests that ended.
pub(super) struct RequestCounts([StatusCounts; ROWS]);

impl Default for RequestCounts {
    fn default() -> Self {
        RequestCounts(array::from_fn(|_| StatusCounts::default()))
    }
}

impl RequestCounts {
    pub(super) fn add(&self, mode: RequestMode, method: &Method, status: Option<StatusCode>) {
        if let Some(row) = self.0.get(mode.row(method)) {
            row.add(status);
        }
    }
}

/// The sums of several places.
pub(super) fn sums<'a>(
    places: impl Iterator<Item = &'a RequestCounts> + Clone,
) -> Vec<RequestCount> {
    let one_method = MODES.iter().copied();
    let any_method = ANY_METHOD.iter().flat_map(|mode| METHODS.iter().map(|m| (*mode, *m)));
    let mut sums = Vec::new();
    for (row, (mode, method)) in one_method.chain(any_method).enumerate() {
        for (status, count) in by_status(places.clone().filter_map(|place| place.0.get(row))) {
            sums.push(RequestCount { method, mode, status, count });
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_has_its_name_and_its_row() {
        let modes = [
            (RequestMode::Create, "create"),
            (RequestMode::Append, "append"),
            (RequestMode::CatchUp, "catch_up"),
            (RequestMode::LongPoll, "long_poll"),
            (RequestMode::Sse, "sse"),
            (RequestMode::Head, "head"),
            (RequestMode::Delete, "delete"),
            (RequestMode::Patch, "patch"),
            (RequestMode::Preflight, "preflight"),
            (RequestMode::Subscriptions, "control"),
            (RequestMode::Invalid, "invalid"),
        ];
        for (at, (mode, name)) in modes.into_iter().enumerate() {
            assert_eq!((mode.name(), mode as usize), (name, at));
        }
        assert_eq!(RequestMode::Preflight.row(&Method::OPTIONS), 8);
        assert_eq!(RequestMode::Subscriptions.row(&Method::GET), 9);
        assert_eq!(RequestMode::Invalid.row(&Method::TRACE), ROWS - 1);
    }
}
