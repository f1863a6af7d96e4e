//! Stream requests: a row for each mode, a column for each status. No label is looked up for a request.

use std::array;

use http::{Method, StatusCode};

use super::{
    names::REQUESTS,
    status::{ByStatus, by_status},
};
use crate::telemetry::Exposition;

/// What a stream request asked for. Those with one method come first, in the order of `MODES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
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
    /// `OPTIONS`.
    Preflight,
    /// Subscriptions, under the reserved segment; counted by method.
    Control,
    /// Could not be understood; counted by method.
    Invalid,
}

/// Label and method of every mode that has one method.
const MODES: [(&str, &str); 8] = [
    ("create", "PUT"),
    ("append", "POST"),
    ("catch_up", "GET"),
    ("long_poll", "GET"),
    ("sse", "GET"),
    ("head", "HEAD"),
    ("delete", "DELETE"),
    ("preflight", "OPTIONS"),
];

/// Labels of the modes that come with any method.
const ANY_METHOD: [&str; 2] = ["control", "invalid"];

/// Methods by which those are told apart.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "other"];

const ROWS: usize = MODES.len() + ANY_METHOD.len() * METHODS.len();

impl Mode {
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
pub(super) struct Requests([ByStatus; ROWS]);

impl Default for Requests {
    fn default() -> Self {
        Requests(array::from_fn(|_| ByStatus::default()))
    }
}

impl Requests {
    pub(super) fn add(&self, mode: Mode, method: &Method, status: Option<StatusCode>) {
        if let Some(row) = self.0.get(mode.row(method)) {
            row.add(status);
        }
    }
}

/// Adds the sums of several places to a scrape.
pub(super) fn write<'a>(places: impl Iterator<Item = &'a Requests> + Clone, out: &mut Exposition) {
    let one_method = MODES.iter().copied();
    let any_method = ANY_METHOD.iter().flat_map(|mode| METHODS.iter().map(|m| (*mode, *m)));
    for (row, (mode, method)) in one_method.chain(any_method).enumerate() {
        for (status, count) in by_status(places.clone().filter_map(|place| place.0.get(row))) {
            out.number(REQUESTS, &[method, mode, &status], count as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_has_its_name_and_its_row() {
        let modes = [
            (Mode::Create, "create"),
            (Mode::Append, "append"),
            (Mode::CatchUp, "catch_up"),
            (Mode::LongPoll, "long_poll"),
            (Mode::Sse, "sse"),
            (Mode::Head, "head"),
            (Mode::Delete, "delete"),
            (Mode::Preflight, "preflight"),
            (Mode::Control, "control"),
            (Mode::Invalid, "invalid"),
        ];
        for (at, (mode, name)) in modes.into_iter().enumerate() {
            assert_eq!((mode.name(), mode as usize), (name, at));
        }
        assert_eq!(Mode::Preflight.row(&Method::OPTIONS), 7);
        assert_eq!(Mode::Control.row(&Method::GET), 8);
        assert_eq!(Mode::Invalid.row(&Method::PATCH), ROWS - 1);
    }
}
