//! What is committed about a subscription, and how it is written down.
//!
//! One append to the subscription's log holds the events of one decision, one JSON object to a line. A log
//! begins with `created`; until `ready` it is a creation or a rewriting that did not finish, and counts
//! for nothing. Names of events and fields are permanent.

use serde::{Deserialize, Serialize};

use super::{Retry, SubscriptionConfig, SubscriptionId, Wake, WakeId};
use crate::{DecodeError, Offset, StreamId, StreamPath, Timestamp};

/// A link and its cursor, as far as they must be remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRecord {
    /// The stream's path.
    pub path: StreamPath,
    /// Linked by name, not only by the pattern.
    #[serde(default, skip_serializing_if = "is_false")]
    pub explicit: bool,
    /// Which stream at this path, and the cursor in it; `None` is the start of whatever stream is there.
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
    /// The worker is done.
    Done,
    /// The worker gave it back.
    Released,
    /// The worker was silent for too long.
    Expired,
    /// Nobody knows who has it, so the next attempt is a new wake.
    Superseded,
}

/// A committed fact about one subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum SubscriptionEvent {
    /// The first event of a log.
    Created {
        /// When the subscription was created.
        at: Timestamp,
        /// Its name.
        id: SubscriptionId,
        /// What it is.
        config: SubscriptionConfig,
        /// The URL of the stream route as its creator reached it.
        base_url: String,
    },
    /// The log is whole from here on.
    Ready,
    /// Streams are linked. A link that exists keeps its cursor.
    Linked {
        /// The links.
        links: Vec<LinkRecord>,
    },
    /// Explicit links are gone.
    Unlinked {
        /// Their paths.
        paths: Vec<StreamPath>,
    },
    /// A new wake.
    Woken {
        /// Its generation.
        generation: u64,
        /// Its id.
        wake_id: WakeId,
        /// The end of its lease; pull-wake has none until it is claimed.
        lease_until: Option<Timestamp>,
    },
    /// A refused wake is posted once more.
    Redelivering {
        /// The end of its lease, which begins anew: nobody has it.
        lease_until: Timestamp,
    },
    /// A worker has the wake.
    Delivered,
    /// An attempt failed.
    DeliveryFailed {
        /// Whether it is certain that nobody has the wake.
        refused: bool,
        /// When to try again.
        retry: Retry,
    },
    /// The wake is in the wake stream.
    Announced,
    /// The wake is not in the wake stream, or no longer.
    AnnounceFailed {
        /// When to try again.
        retry: Retry,
    },
    /// A worker has claimed the wake.
    Claimed {
        /// Its name.
        worker: String,
        /// The end of its lease.
        lease_until: Timestamp,
    },
    /// The worker is alive and may have moved cursors.
    Acked {
        /// New cursors.
        links: Vec<LinkRecord>,
        /// The end of its lease now; `None` leaves it.
        lease_until: Option<Timestamp>,
    },
    /// The wake is over.
    Ended {
        /// Why.
        reason: EndReason,
    },
    /// In a rewritten log: where the one before it stood.
    Restored {
        /// The last generation.
        generation: u64,
        /// The wake, if there is one.
        wake: Option<Wake>,
        /// The retry, if there is one.
        retry: Option<Retry>,
    },
}

/// The events as one append.
pub fn encode_batch(events: &[SubscriptionEvent]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for event in events {
        bytes.extend_from_slice(&super::json(event));
        bytes.push(b'\n');
    }
    bytes
}

/// The events of a whole log.
///
/// # Errors
/// [`DecodeError`] for anything that [`encode_batch`] cannot give.
pub fn decode_log(bytes: &[u8]) -> Result<Vec<SubscriptionEvent>, DecodeError> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            serde_json::from_slice(line).map_err(|_| DecodeError { what: "subscription event" })
        })
        .collect()
}
