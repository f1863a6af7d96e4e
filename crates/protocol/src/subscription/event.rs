//! The events of a subscription's log, and their encoding.
//!
//! One append to the subscription's log holds the events of one decision, one JSON object to a line. A log
//! begins with `created` and is complete from `ready` on; an incomplete one is ignored. Names of events and
//! fields are permanent.

use serde::{Deserialize, Serialize};

use super::{RetrySchedule, SubscriptionConfig, SubscriptionId, SubscriptionName, Wake, WakeId};
use crate::{DecodeError, Offset, StreamId, StreamPath, TenantId, Timestamp};

/// A link and its cursor, as the log holds them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRecord {
    pub path: StreamPath,
    /// Whether it is linked by name, not only by the pattern.
    #[serde(default, skip_serializing_if = "is_false")]
    pub explicit: bool,
    /// The stream at this path, and the cursor in it; `None` is the start of whichever stream exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<(StreamId, Offset)>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature serde asks for")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Why a wake is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// The worker acknowledged with `done`, or no work was left.
    Done,
    /// The worker released it.
    Released,
    /// The lease ended.
    Expired,
    /// Its delivery has an unknown outcome, so the next attempt is a new wake.
    Superseded,
}

/// A committed fact about one subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum SubscriptionEvent {
    /// The first event of a log.
    Created {
        at: Timestamp,
        id: SubscriptionId,
        config: SubscriptionConfig,
        /// Written empty and ignored. Earlier versions kept the stream route as the creator's `Host` header
        /// named it, which let that client choose where later workers send their tokens.
        #[serde(default)]
        base_url: String,
    },
    /// The first event of a log of a tenant's subscription, whose paths and pattern are in the tenant's words.
    /// A name of its own, so that a version without tenants leaves the log alone.
    CreatedForTenant {
        at: Timestamp,
        tenant: TenantId,
        id: SubscriptionId,
        config: SubscriptionConfig,
    },
    /// The log is complete from here on.
    Ready,
    /// Streams are linked. A link that exists keeps its cursor.
    Linked { links: Vec<LinkRecord> },
    /// Explicit links are gone.
    Unlinked { paths: Vec<StreamPath> },
    /// A new wake.
    Woken {
        generation: u64,
        wake_id: WakeId,
        /// The end of its lease; pull-wake has none until it is claimed.
        lease_until: Option<Timestamp>,
    },
    /// A refused wake is posted again.
    Redelivering {
        /// The end of its new lease: no worker held the wake.
        lease_until: Timestamp,
    },
    /// A worker accepted the wake.
    Delivered,
    /// An attempt failed.
    DeliveryFailed {
        /// Whether certainly no worker holds the wake.
        refused: bool,
        retry: RetrySchedule,
    },
    /// The wake is in the wake stream.
    Announced,
    /// The wake is not in the wake stream, or no longer.
    AnnounceFailed {
        /// When to try again.
        retry: RetrySchedule,
    },
    /// A worker has claimed the wake.
    Claimed {
        worker: String,
        /// The end of its lease.
        lease_until: Timestamp,
    },
    /// The worker acknowledged: cursors may move, the lease may grow.
    Acked {
        /// The new cursors.
        links: Vec<LinkRecord>,
        /// The end of its lease now; `None` leaves it.
        lease_until: Option<Timestamp>,
    },
    /// The wake ended.
    Ended { reason: EndReason },
    /// An operator stopped its deliveries. Versions that do not know this event leave the whole log alone.
    Paused,
    /// Its deliveries go on.
    Resumed,
    /// In a rewritten log: generation, wake and retry of the log before it.
    Restored { generation: u64, wake: Option<Wake>, retry: Option<RetrySchedule> },
}

impl SubscriptionEvent {
    /// The first event of a log.
    pub fn created(name: SubscriptionName, config: SubscriptionConfig, at: Timestamp) -> Self {
        let SubscriptionName { tenant, id } = name;
        match tenant {
            None => SubscriptionEvent::Created { at, id, config, base_url: String::new() },
            Some(tenant) => SubscriptionEvent::CreatedForTenant { at, tenant, id, config },
        }
    }
}

/// Encodes events as the bytes of one append.
pub fn encode_batch(events: &[SubscriptionEvent]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for event in events {
        bytes.extend_from_slice(&super::json(event));
        bytes.push(b'\n');
    }
    bytes
}

/// Decodes the bytes of a log.
///
/// # Errors
/// [`DecodeError`] for bytes that [`encode_batch`] does not produce.
pub fn decode_log(bytes: &[u8]) -> Result<Vec<SubscriptionEvent>, DecodeError> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            serde_json::from_slice(line).map_err(|_| DecodeError { what: "subscription event" })
        })
        .collect()
}
