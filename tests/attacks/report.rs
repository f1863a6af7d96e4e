//! The table of docs/security.md.

use std::time::Duration;

use crate::observer::{Durations, Observed};

pub(crate) const HEAD: &str = "\
| attack | appends p50 / max | reads p50 / max | health max | machine's sync p50 / max | its wakes max | resident | sockets |
|---|---|---|---|---|---|---|---|";

fn millis(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1000.0)
}

fn both(durations: &Durations) -> String {
    let failed = match durations.failed {
        0 => String::new(),
        failed => format!(" ({failed} failed)"),
    };
    format!("{} / {} ms{failed}", millis(durations.median()), millis(durations.max()))
}

pub(crate) fn row(name: &str, observed: &Observed) -> String {
    format!(
        "| {name} | {} | {} | {} ms | {} | {} ms | {} MiB | {} MiB |",
        both(&observed.appends),
        both(&observed.reads),
        millis(observed.health.max()),
        both(&observed.machine.syncs),
        millis(observed.machine.wakes.max()),
        observed.resident,
        observed.sockets
    )
}
