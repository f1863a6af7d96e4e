//! How a stream is followed.

/// How a subscription follows a stream once it has caught up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FollowMode {
    /// SSE, and long-poll from the moment that SSE does not get through: it is refused, held back, or cut three times
    /// in a row within 10 s. Also long-poll for a `text/*` stream from its first line end on, because SSE does not keep
    /// apart LF, CR and CRLF (§5.8).
    #[default]
    Automatic,
    /// SSE. Line ends of `text/*` streams arrive as LF.
    Sse,
    /// Long-poll.
    LongPoll,
}
