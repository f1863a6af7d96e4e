//! The Durable Streams protocol as pure code: parse, decide, apply, render.
//!
//! Nothing here does I/O, reads a clock, draws random numbers or knows a framework; time and randomness
//! are arguments. So every rule can be tested by table, fuzzed and simulated, and every store obeys the
//! same rules, because there is only this one copy of them.
//!
//! A request becomes a command ([`Request::parse`]), [`StreamState`] decides it into at most one
//! [`StreamEvent`], a store commits the event, and [`StreamState::apply`] folds it in, live and in recovery
//! alike. Section numbers (§) are those of PROTOCOL.md.

mod cache;
mod codec;
mod content_type;
mod cursor;
mod event;
mod expiry;
pub mod headers;
mod json_mode;
mod json_scan;
mod offset;
mod path;
mod producer;
mod read;
mod rejection;
mod request;
mod response;
mod sse;
mod stream;
pub mod subscription;

pub use cache::{ETag, IfNoneMatch};
pub use codec::DecodeError;
pub use content_type::ContentType;
pub use cursor::Cursor;
pub use event::{Appended, Created, ForkPoint, StreamEvent};
pub use expiry::{Expiry, Timestamp};
pub use json_mode::{
    JsonError, MESSAGE_END, count_messages, frame_array, is_message_boundary, store_messages,
};
pub use offset::{Offset, ReadFrom};
pub use path::{MAX_PATH_BYTES, PathError, StreamPath};
pub use producer::{Admission, Producer, ProducerId, ProducerState, StreamSeq};
pub use read::{LiveMode, LongPollStep, Read, SseRead, SseStep, SseTiming, Tail, long_poll};
pub use rejection::Rejection;
pub use request::{Append, Create, Fork, Request};
pub use response::{
    Body, HeadMeta, Outcome, Response, SliceMeta, problem_body, render, render_problem,
    render_rejection,
};
pub use sse::{Control, Encoding, encode_control, encode_data, keep_alive, text_boundary};
pub use stream::{
    AppendOutcome, Closure, CreateOutcome, Decision, ForkSource, StreamCore, StreamId, StreamState,
};
