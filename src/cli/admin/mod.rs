//! `streams`, `usage`, `status`, `segments` and `subscriptions`: a running server, through its administration API. `segments`
//! reads the data directory of a stopped one, too.
//!
//! Standard output is a table on a terminal; in a pipe, or with `--json`, one JSON object a line, as the API has it.

pub(super) mod client;
mod commands;
mod segments;
mod table;

pub use client::AdminCommandError;
pub(super) use commands::{StatusCommand, StreamsCommand, SubscriptionsCommand, UsageCommand};
pub(super) use segments::SegmentsCommand;
