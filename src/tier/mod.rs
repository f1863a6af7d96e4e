//! Segments on object storage: any S3-compatible store, Google Cloud Storage, Azure, or a directory.
//!
//! | file | what it is |
//! |---|---|
//! | `location`, `options` | which bucket, and how it is used |
//! | `connect`, `environment`, `aws_profile` | the client, with the environment's credentials |
//! | `object_cold_store`, `payload`, `listing` | objects: created once, read in ranges, listed, deleted |
//! | `failure`, `retry`, `outage` | what an error means; attempts and pauses; whether reads fail |
//! | `probe` | whether the object store does what segments need |
//! | `identity_file`, `claim` | which server owns the prefix |
//! | `opened` | all of it, connected, probed and claimed |
//! | `segment_reader`, `segment_footer`, `block_cache`, `cached_part` | checked and cached reads of segments |
//! | `index_copies` | copies of the index, from which a lost data directory is built again |
//! | `object_files` | segments as files, for commands |
//! | `uploader`, `upload_context`, `upload_error`, `segment_owner`, `search`, `recall` | moves segments, deletes objects; brings back those that are mostly of no use |
//! | `counters`, `upload_backlog` | what is counted; what waits for its upload |
//! | `segment_json` | segments as an operator sees them |
//! | `files` | the only file that touches the file system |
//!
//! The engine knows only the trait `ColdStore`.

mod aws_profile;
mod block_cache;
mod cached_part;
mod claim;
mod connect;
mod counters;
mod environment;
mod failure;
mod files;
mod identity_file;
mod index_copies;
mod listing;
mod location;
mod object_cold_store;
mod object_files;
mod opened;
mod options;
mod outage;
mod payload;
mod probe;
mod recall;
mod retry;
mod search;
mod segment_footer;
mod segment_json;
mod segment_owner;
mod segment_reader;
#[cfg(test)]
mod tests;
mod upload_backlog;
mod upload_context;
mod upload_error;
mod uploader;

pub use claim::{ClaimError, TierClaim};
pub use connect::TierSetupError;
pub use counters::{OutcomeCounters, TierCounters, TierOperation};
pub use environment::TierEnvironment;
pub use identity_file::IdentityError;
pub use index_copies::{CopyError, CopyName, IndexManifest, TierCopies};
pub use location::{InvalidLocation, TierLocation};
pub use object_cold_store::ObjectColdStore;
pub use object_files::{ObjectFiles, ObjectFilesError};
pub use opened::{Tier, TierError};
pub use options::{RetryOptions, TierOptions};
pub use probe::ProbeError;
pub use segment_json::{segment_json, segment_totals_json};
pub use segment_owner::SegmentOwner;
pub use segment_reader::SegmentReader;
pub use upload_backlog::{BacklogTotals, UploadBacklog};
pub use upload_error::UploadError;
pub use uploader::SegmentUploader;
