#![doc = include_str!("../README.md")]

mod model;
pub mod subscription;
mod wire;

pub use model::{
    codec::DecodeError,
    event::{Appended, Created, ForkPoint, StreamEvent, Trimmed},
    expiry::{Expiry, Timestamp},
    lifecycle::{LIFECYCLE_PATH, LifecycleChange},
    live_read::{LongPollStep, SseRead, SseStep, SseTiming, Tail, long_poll},
    producer::{Producer, ProducerAdmission, ProducerId, ProducerState, StreamSeq},
    stream::{
        AppendOutcome, Closure, CreateOutcome, Decision, ForkSource, StreamCore, StreamId,
        StreamState, TimeMark,
    },
};
pub use wire::{
    cache::{CachePolicy, ETag, IfNoneMatch},
    content_type::{ContentType, ContentTypeError},
    cursor::Cursor,
    headers::{self, InvalidHeader},
    json::mode::{
        ArrayFramer, JsonError, MESSAGE_END, count_messages, frame_array, is_message_boundary,
        split_messages, store_messages, with_commas,
    },
    offset::{Offset, ReadFrom},
    path::{MAX_PATH_BYTES, PathError, StreamPath},
    rejection::Rejection,
    request::{
        Append, Create, Fork, HttpRequestHead, LiveMode, Read, Request, StreamPatch,
        UnsendableHeader,
    },
    response::{
        Body, CONTENT_SECURITY_POLICY, HeadMeta, Outcome, ProblemDetails, Response, ResponseFacts,
        SliceMeta, problem_body, render, render_problem, render_rejection,
    },
    sse::{
        ControlEvent, DataEncoder, LastEventId, ReceivedControl, SseDecoder, SseEncoding, SseError,
        SseEvent, encode_control, encode_data, keep_alive, text_boundary,
    },
    tenant::{
        MAX_TENANT_BYTES, TENANTS_PREFIX, TenantId, TenantIdError, client_path, split_stored,
        stored_path, stored_prefix, stored_tenant,
    },
};
