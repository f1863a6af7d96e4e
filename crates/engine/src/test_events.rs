//! Events that unit tests of several modules begin with.

use bytes::Bytes;
use durable_streams_protocol::{ContentType, Created, Expiry, Offset, StreamPath, Timestamp};

/// The creation of an open binary stream that never expires and is no fork; `data` is its first append.
pub(crate) fn creation(at: Timestamp, path: StreamPath, data: Bytes) -> Created {
    Created {
        at,
        path,
        content_type: ContentType::default(),
        expiry: Expiry::Never,
        expiry_inherited: false,
        fork: None,
        incarnation: 0,
        closed: false,
        public: false,
        earliest: Offset::ZERO,
        data,
    }
}
