//! The stream of lifecycle events.

use crate::config::reader::setting::settings;
use crate::config::units::ByteSize;

settings! {
    /// A stream of the server's own that says which streams were created, closed, trimmed, deleted and expired.
    pub struct LifecycleConfig {
        /// Keep so many bytes of events, and up to twice as many.
        keep_bytes: ByteSize = ByteSize::mib(16) => ByteSize::kib(64), ByteSize::gib(1);
    }
}
