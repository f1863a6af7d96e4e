//! Why a producer stopped.

use crate::error::ClientError;

/// Why messages of a producer were not stored, or are not known to be. Cheap to clone.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProducerError {
    /// Another producer of the same id has begun a newer epoch: this one must stop (§5.2.1). What was not acknowledged
    /// before may be stored or not.
    #[error("producer {id:?} with epoch {epoch} is fenced: epoch {current} has begun")]
    Fenced {
        /// The producer's id.
        id: String,
        /// The epoch of this producer.
        epoch: u64,
        /// The epoch that replaced it.
        current: u64,
    },
    /// A request failed for good, or for longer than the retry policy allows. In the second case the messages may be
    /// stored.
    #[error(transparent)]
    Failed(#[from] ClientError),
    /// The server has forgotten batches that it had acknowledged, for example after it was restored from a backup. The
    /// client does not have them any more.
    #[error("the server expects batch {expected}, but had acknowledged all before {acknowledged}")]
    ServerLostBatches {
        /// The sequence number that the server would accept.
        expected: u64,
        /// The first sequence number that was not acknowledged.
        acknowledged: u64,
    },
    /// The message alone is larger than the whole buffer.
    #[error("a message of {bytes} bytes does not fit into a buffer of {limit}")]
    TooLarge {
        /// Of the message.
        bytes: usize,
        /// The buffer's bound.
        limit: usize,
    },
    /// No room is left in the buffer; only [`Producer::try_append`](crate::Producer::try_append) returns it.
    #[error("the producer's buffer is full")]
    BufferFull,
    /// The message is empty, or is no JSON value although the stream is of `application/json`.
    #[error("the message cannot be appended: {0}")]
    InvalidMessage(String),
    /// The producer was closed or dropped before the message was acknowledged. It may be stored.
    #[error("the producer has stopped")]
    Stopped,
}
