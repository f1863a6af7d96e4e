//! The wake in flight.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::DeliveryAttempt;
use crate::Timestamp;

/// The unguessable id of one wake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WakeId(String);

impl WakeId {
    /// An id from 96 random bits.
    pub fn from_random(bytes: [u8; 12]) -> Self {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        WakeId(format!("w_{hex}"))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WakeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far a wake has got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum WakePhase {
    /// Webhook: being posted.
    Delivering,
    /// Webhook: a worker accepted it.
    Delivered,
    /// Webhook: the attempt failed; the retry schedule holds the next time.
    Failed {
        /// Whether certainly no worker holds the wake.
        refused: bool,
    },
    /// Pull-wake: not in the wake stream.
    Unannounced,
    /// Pull-wake: in the wake stream, not claimed.
    Announced,
    /// Pull-wake: a worker claimed it.
    Claimed { worker: String },
}

/// The wake in flight. Its generation is that of the subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wake {
    pub id: WakeId,
    #[serde(flatten)]
    pub phase: WakePhase,
    /// The end of the lease; `None` for a pull-wake that is not claimed.
    pub lease_until: Option<Timestamp>,
}

/// What the server should be doing for the wake in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeAction {
    /// Post the wake.
    Post(DeliveryAttempt),
    /// Append the wake to the wake stream.
    Announce(DeliveryAttempt),
}
