//! Subscriptions (§6, §7) as pure code: durable cursors over streams that wake workers.
//!
//! A request is judged by [`Subscription`], which answers with [`SubscriptionEvent`]s; the caller makes
//! them durable, folds them in with [`Subscription::apply`] and only then answers. Recovery is the same
//! `apply` over the log. Time and randomness are arguments.
//!
//! Invariants
//! - Pending work is never stored. A subscription has pending work when a linked stream's durable tail is
//!   past its cursor; both are read back after a crash, so no wake can be lost.
//! - A generation is durable before its wake leaves the server, and never handed to two workers.
//! - The cursor of one stream never moves backwards. A stream that is deleted and created anew is another
//!   stream; its cursor starts at zero.

mod config;
mod decide;
mod delivery;
mod event;
mod glob;
mod link;
mod refusal;
mod signature;
mod state;
mod target;
mod text;
mod token;
mod wake;
mod wire;

pub use config::{CreateRequest, DeliveryConfig, MAX_ID_BYTES, SubscriptionConfig, SubscriptionId};
pub use decide::{Ack, Fence};
pub use delivery::{Attempt, Delivered, Retry, backoff_millis};
pub use event::{EndReason, LinkRecord, SubscriptionEvent, decode_log, encode_batch};
pub use glob::{Glob, GlobIndex};
pub use link::{Cursor as LinkCursor, Link, Live};
pub use refusal::Refusal;
pub use signature::{JwkSet, PublicJwk, SigningKey, verify_signature};
pub use state::Subscription;
pub use target::{HostRule, TargetRules, WebhookTarget, is_public};
pub use token::{Claims, TokenError, TokenKey};
pub use wake::{Phase, Wake, WakeId, Work};
pub use wire::{
    AckRequest, ClaimRequest, ClaimResponse, LinkInfo, ReleaseRequest, SigningInfo, StreamInfo,
    StreamsRequest, SubscriptionView, WakeEvent, WakeNotice, WebhookView, json,
};
