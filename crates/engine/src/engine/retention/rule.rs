//! What a rule of retention is.

use std::time::Duration;

use durable_streams_protocol::subscription::Glob;

/// A rule's time, bytes or messages are exceeded by this part before a trim, so that trims are few.
pub(crate) const SLACK: u32 = 16;
/// What streams keep. The first rule whose pattern matches a stream's path counts; what is older or more goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionRule {
    /// The paths, as clients know them; those of every tenant, too.
    pub paths: Glob,
    /// Keep what was appended in this time.
    pub keep_for: Option<Duration>,
    /// Keep so many bytes.
    pub keep_bytes: Option<u64>,
    /// Keep so many messages: JSON messages, or appends of bytes.
    pub keep_messages: Option<u64>,
}
