//! What operators do with a data directory: `backup`, `restore`, `verify`, `compact`, `repair`.
//!
//! Each ends with one line of figures on standard output and exit code 0, or with what is wrong on standard error and
//! exit code 1. Progress goes to standard error.

mod backup;
mod compact;
pub(super) mod error;
mod from_tier;
mod keys;
mod place;
mod progress;
mod repair;
mod restore;
mod verify;

pub(super) use backup::BackupCommand;
pub(super) use compact::CompactCommand;
pub(super) use place::data_directory;
pub(super) use repair::RepairCommand;
pub(super) use restore::RestoreCommand;
pub(super) use verify::VerifyCommand;
