//! The wake in flight.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Attempt;
use crate::Timestamp;

/// The unguessable name of one wake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WakeId(String);

impl WakeId {
    /// A name from 96 random bits.
    pub fn from_random(bytes: [u8; 12]) -> Self {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        WakeId(format!("w_{hex}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WakeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a wake is on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Webhook: being posted.
    Delivering,
    /// Webhook: a worker has it.
    Delivered,
    /// Webhook: the attempt failed; the retry says when to go on.
    Failed {
        /// It is certain that nobody has it.
        refused: bool,
    },
    /// Pull-wake: not in the wake stream.
    Unannounced,
    /// Pull-wake: in the wake stream, not claimed.
    Announced,
    /// Pull-wake: a worker has it.
    Claimed {
        /// Its name.
        worker: String,
    },
}

/// The wake in flight. Its generation is the subscription's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wake {
    /// Its name.
    pub id: WakeId,
    /// Where it is.
    #[serde(flatten)]
    pub phase: Phase,
    /// The end of the lease.
    pub lease_until: Option<Timestamp>,
}

/// What the server should be doing for a subscription, besides waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Post the wake.
    Post(Attempt),
    /// Append the wake to the wake stream.
    Announce(Attempt),
}
