//! Subscriptions (§6, §7) as pure code: durable cursors over streams that wake workers.
//!
//! [`Subscription`] judges a request and returns [`SubscriptionEvent`]s; the caller makes them durable,
//! applies them with [`Subscription::apply`] and only then responds. Recovery is the same
//! `apply` over the log. Time and randomness are arguments.
//!
//! Invariants
//! - Pending work is never stored. A subscription has pending work when a linked stream's durable tail is
//!   past its cursor; recovery reads both again, so a crash loses no wake.
//! - A generation is durable before its wake leaves the server, and never handed to two workers.
//! - The cursor of one stream never moves backwards. A stream that is deleted and created again is another
//!   stream; its cursor starts at zero.

#![allow(missing_docs, reason = "fields and accessors whose names say it all")]

mod config;
mod decide;
mod delivery;
mod event;
mod glob;
mod glob_index;
mod link;
mod refusal;
mod signature;
mod state;
mod steer;
mod target;
mod text;
mod token;
mod wake;
mod wire;

pub use config::{
    CreateRequest, DeliveryConfig, MAX_ID_BYTES, SubscriptionConfig, SubscriptionId,
    SubscriptionName,
};
pub use decide::{Ack, Fence};
pub use delivery::{DeliveryAttempt, DeliveryOutcome, RetrySchedule, backoff_millis};
pub use event::{EndReason, LinkRecord, SubscriptionEvent, decode_log, encode_batch};
pub use glob::Glob;
pub use glob_index::{GlobIndex, MAX_FLOATING};
pub use link::{Link, LinkCursor, StreamHead};
pub use refusal::Refusal;
pub use signature::{JwkSet, PublicJwk, SigningKey, verify_signature};
pub use state::Subscription;
pub use target::{HostRule, TargetRules, WebhookTarget, is_public};
pub use token::{TokenClaims, TokenError, TokenKey};
pub use wake::{Wake, WakeAction, WakeId, WakePhase};
pub use wire::{
    AckRequest, ClaimRequest, ClaimResponse, LinkInfo, ReleaseRequest, SigningInfo, StreamInfo,
    StreamsRequest, SubscriptionView, WakeEvent, WakeNotice, WebhookView, json,
};
