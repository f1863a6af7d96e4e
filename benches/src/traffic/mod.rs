//! The kinds of traffic loads are made of. Each checks every response it gets.

mod append;
mod create;
mod live;
mod read;

pub(crate) use append::{Appends, Kind};
pub(crate) use create::Creates;
pub(crate) use live::{Fan, Via};
pub(crate) use read::{Gets, Heads, Replay};

use crate::client::Head;

/// Size of one binary append and of one single JSON message, in bytes.
pub(crate) const MESSAGE: usize = 256;

/// The name of stream `index`, the same width for all that occur in a run.
pub(crate) fn name(prefix: &str, index: usize) -> String {
    format!("{prefix}{index:07}")
}

/// Refuses a status other than `wanted`.
fn expect_status(head: &Head, wanted: u16, what: &str) -> Result<(), String> {
    if head.status == wanted {
        return Ok(());
    }
    Err(format!("{what}: status {}, not {wanted}", head.status))
}

/// Refuses a response without `Stream-Next-Offset`.
fn expect_offset(head: &Head, what: &str) -> Result<(), String> {
    if head.next_offset.is_none() {
        return Err(format!("{what}: no Stream-Next-Offset"));
    }
    Ok(())
}
