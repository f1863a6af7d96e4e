//! Telemetry: logs, metrics and traces. Imports nothing of the crate, so that every part may
//! count and log.

pub mod build;
mod exposition;
pub mod logging;
pub mod metrics;
pub mod process;
pub mod trace;

pub use exposition::{Exposition, MEDIA_TYPE};
pub use metrics::Metrics;
