//! The Durable Streams protocol as pure code: parse, decide, apply, render.
//!
//! Nothing here does I/O, reads a clock, draws random numbers or knows a framework; time and randomness
//! are arguments. So every rule can be tested by table, fuzzed and simulated, and every store obeys the
//! same rules, because there is only this one copy of them.
//!
//! A request becomes a command ([`Request::parse`]), [`StreamState`] decides it into at most one
//! [`StreamEvent`], a store commits the event, and [`StreamState::fold`] folds it in, live and in recovery
//! alike. Section numbers (§) are those of PROTOCOL.md.

mod model;
pub mod subscription;
mod wire;

pub use model::{
    codec::DecodeError,
    event::{Appended, Created, ForkPoint, StreamEvent},
    expiry::{Expiry, Timestamp},
    live_read::{LongPollStep, SseRead, SseStep, SseTiming, Tail, long_poll},
    producer::{Admission, Producer, ProducerId, ProducerState, StreamSeq},
    stream::{
        AppendOutcome, Closure, CreateOutcome, Decision, ForkSource, StreamCore, StreamId,
        StreamState,
    },
};
pub use wire::{
    cache::{ETag, IfNoneMatch},
    content_type::{ContentType, ContentTypeError},
    cursor::Cursor,
    headers::{self, InvalidHeader},
    json::mode::{
        JsonError, MESSAGE_END, count_messages, frame_array, is_message_boundary, split_messages,
        store_messages,
    },
    offset::{Offset, ReadFrom},
    path::{MAX_PATH_BYTES, PathError, StreamPath},
    rejection::Rejection,
    request::{Append, Create, Fork, LiveMode, Read, Request, RequestHead, UnsendableHeader},
    response::{
        Body, HeadMeta, Outcome, ProblemDetails, Response, ResponseFacts, SliceMeta, problem_body,
        render, render_problem, render_rejection,
    },
    sse::{
        Control, Encoding, SseDecoder, SseError, SseEvent, encode_control, encode_data, keep_alive,
        text_boundary,
    },
};
