//! The tier of a running server: connected, probed and claimed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use durable_streams_engine::Clock;
use durable_streams_engine::store::file::segments::cold::ColdError;
use durable_streams_engine::store::file::segments::format::{SegmentTrailer, TRAILER, file_name};
use durable_streams_engine::store::file::segments::objects::{ColdPlace, SegmentInfo};
use durable_streams_protocol::Timestamp;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};

use super::claim::{self, ClaimError, TierClaim};
use super::connect::{self, TierSetupError};
use super::counters::TierCounters;
use super::failure::unavailable;
use super::object_cold_store::ObjectColdStore;
use super::probe::{self, ProbeError};
use super::segment_reader::SegmentReader;
use super::{TierLocation, TierOptions, files};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Bytes of an object that is read whole that are requested at once.
const PART: u64 = TierOptions::READ_BACK;

/// An object store on which this server alone keeps its segments.
#[derive(Clone)]
pub struct Tier {
    reader: SegmentReader,
    store: Arc<ObjectColdStore>,
    /// The claim of this start, or of an earlier one until `late` is made.
    claim: TierClaim,
    late: Option<Arc<LateClaim>>,
}

/// A claim that could not be made when the server started, as the object store could not be used.
struct LateClaim {
    data_dir: PathBuf,
    /// Rounds and copies of the index ask for it at the same time, and each try would refuse the other.
    one_at_a_time: tokio::sync::Mutex<()>,
    made: OnceLock<TierClaim>,
}

impl LateClaim {
    fn of(data_dir: &Path) -> Self {
        let one_at_a_time = tokio::sync::Mutex::new(());
        LateClaim { data_dir: data_dir.to_owned(), one_at_a_time, made: OnceLock::new() }
    }
}

/// How long the start of a server waits for an object store on which its data directory has a claim already.
const START: Duration = Duration::from_secs(15);

/// The object store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TierError {
    /// Its threads cannot be started.
    #[error("cannot start the threads that talk to the object store: {0}")]
    Start(#[from] std::io::Error),
    /// The client cannot be made.
    #[error(transparent)]
    Setup(#[from] TierSetupError),
    /// It does not do what segments need.
    #[error("the object store {location} cannot keep segments: {error}")]
    Probe {
        /// The bucket or directory.
        location: String,
        /// What it did.
        error: ProbeError,
    },
    /// The prefix is not this server's.
    #[error("the object store {location}: {error}")]
    Claim {
        /// The bucket or directory.
        location: String,
        /// Why.
        error: ClaimError,
    },
    /// It is not known in time whether it can be used.
    #[error("the object store {location} does not answer")]
    Slow {
        /// The bucket or directory.
        location: String,
    },
}

impl TierError {
    /// Whether the object store may do what segments need, and only cannot be used now.
    fn may_pass(&self) -> bool {
        let cold = match self {
            TierError::Probe { error: ProbeError::Failed { error, .. }, .. } => error,
            TierError::Claim { error: ClaimError::Store(error), .. } => error,
            TierError::Slow { .. } => return true,
            _ => return false,
        };
        matches!(cold, ColdError::Unavailable { .. } | ColdError::Refused(_))
    }

    /// The error of the object store; for those that [may pass](Self::may_pass).
    fn into_cold(self) -> ColdError {
        match self {
            TierError::Probe { error: ProbeError::Failed { error, .. }, .. }
            | TierError::Claim { error: ClaimError::Store(error), .. } => error,
            other => unavailable(other.to_string()),
        }
    }
}

impl Tier {
    /// Connects, probes the object store, and claims the prefix for the data directory. Reads run on `runtime`.
    ///
    /// `take_over`: the claim of another server does not count.
    ///
    /// A data directory that has claimed the prefix before starts without the object store while that cannot be used: what
    /// is local is served, reads of objects are refused until they work, and the claim is made before anything is uploaded
    /// or deleted.
    ///
    /// # Errors
    /// [`TierError`], which says what to do.
    pub async fn open(
        options: TierOptions,
        data_dir: &Path,
        now: Timestamp,
        take_over: bool,
        runtime: Handle,
    ) -> Result<Self, TierError> {
        let client = connect::connect(&options)?;
        let store =
            Arc::new(ObjectColdStore::new(client, options, Arc::new(TierCounters::default())));
        let known = TierClaim::of_directory(data_dir).filter(|_| !take_over);
        let Some(known) = known else {
            let claim = Self::probe_and_claim(&store, data_dir, now, take_over).await?;
            return Ok(Tier::of(store, claim, runtime));
        };
        let claimed = Self::probe_and_claim(&store, data_dir, now, false);
        let slow = |_| TierError::Slow { location: store.options().location.to_string() };
        match timeout(START, claimed).await.map_err(slow).flatten() {
            Ok(claim) => Ok(Tier::of(store, claim, runtime)),
            Err(error) if error.may_pass() => {
                tracing::error!(
                    %error,
                    "the object store cannot be used: reads of older data are refused, and nothing is uploaded, until it can"
                );
                let late = LateClaim::of(data_dir);
                Ok(Tier { late: Some(Arc::new(late)), ..Tier::of(store, known, runtime) })
            }
            Err(error) => Err(error),
        }
    }

    async fn probe_and_claim(
        store: &ObjectColdStore,
        data_dir: &Path,
        now: Timestamp,
        take_over: bool,
    ) -> Result<TierClaim, TierError> {
        let location = store.options().location.to_string();
        let probed = probe::probe(store, now).await;
        probed.map_err(|error| TierError::Probe { location: location.clone(), error })?;
        let claimed = claim::claim(store, data_dir, now, take_over).await;
        let claim = claimed.map_err(|error| TierError::Claim { location, error })?;
        if let TierLocation::Directory(dir) = &store.options().location {
            // No other server writes objects of this identity.
            files::remove_staged(&dir.join("segments").join(&claim.identity), Duration::ZERO);
            [claim::FOLDER, probe::FOLDER]
                .into_iter()
                .for_each(|folder| files::remove_staged(&dir.join(folder), DAY));
        }
        Ok(claim)
    }

    /// Of an object store on which this server has this claim.
    pub(super) fn of(store: Arc<ObjectColdStore>, claim: TierClaim, runtime: Handle) -> Self {
        store.expect(claim.object_name());
        Tier { reader: SegmentReader::new(store.clone(), runtime), store, claim, late: None }
    }

    /// The same, of a start that could not make its claim.
    #[cfg(test)]
    pub(super) fn unclaimed(
        store: Arc<ObjectColdStore>,
        known: TierClaim,
        data_dir: &Path,
        runtime: Handle,
    ) -> Self {
        let late = Some(Arc::new(LateClaim::of(data_dir)));
        Tier { late, ..Tier::of(store, known, runtime) }
    }

    #[cfg(test)]
    pub(super) fn store(&self) -> &Arc<ObjectColdStore> {
        &self.store
    }

    /// Objects that are no segments.
    pub(super) fn objects(&self) -> &ObjectColdStore {
        &self.store
    }

    /// Where the engine keeps its segments.
    pub fn cold_store(&self) -> &SegmentReader {
        &self.reader
    }

    /// The claim of this server. Of an earlier start while this one could not make its own.
    pub fn claim(&self) -> &TierClaim {
        self.late.as_ref().and_then(|late| late.made.get()).unwrap_or(&self.claim)
    }

    /// Whether no other server has claimed the prefix since. A server without it must neither upload nor delete. Makes a
    /// claim that could not be made at the start.
    ///
    /// # Errors
    /// When the object store does not answer.
    pub async fn holds_claim(&self) -> Result<bool, ColdError> {
        if let Some(late) = &self.late
            && !self.make_late_claim(late).await?
        {
            return Ok(false);
        }
        self.claim().holds(&self.store).await
    }

    /// Makes the claim of this start, unless that was done. Returns false when another server has the prefix.
    async fn make_late_claim(&self, late: &LateClaim) -> Result<bool, ColdError> {
        let _one = late.one_at_a_time.lock().await;
        if late.made.get().is_some() {
            return Ok(true);
        }
        match Self::probe_and_claim(&self.store, &late.data_dir, Clock::System.now(), false).await {
            Ok(claim) => {
                tracing::info!(claim = claim.epoch, "the object store can be used now");
                let _ = late.made.set(claim);
                Ok(true)
            }
            Err(error) if error.may_pass() => Err(error.into_cold()),
            Err(error) => {
                tracing::error!(%error, "the object store cannot be claimed");
                Ok(false)
            }
        }
    }

    /// What the names of this server's objects begin with.
    pub fn segment_prefix(&self) -> String {
        claim::segment_prefix(&self.claim.identity)
    }

    /// The name of a segment's object.
    pub fn segment_name(&self, number: u64) -> String {
        format!("{}{}", self.segment_prefix(), file_name(number))
    }

    /// Whether the object of a segment is there, and no other one under its name: its end is read, which has the checksum of
    /// its footer.
    ///
    /// # Errors
    /// When the object store does not answer.
    pub(super) async fn has_object(&self, segment: &SegmentInfo) -> Result<bool, ColdError> {
        let (number, len) = (segment.number, segment.file_len);
        let deadline = Instant::now() + self.options().read_timeout;
        let end = len.saturating_sub(TRAILER as u64)..len;
        match self.store.range(&self.segment_name(number), end, deadline).await {
            Ok(end) => {
                let trailer = SegmentTrailer::parse(&end, number, len);
                Ok(trailer.is_ok_and(|trailer| trailer.footer_crc == segment.footer_crc))
            }
            Err(ColdError::NotFound | ColdError::Damaged(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// All bytes of a segment's object, which has `len` bytes, in parts. They are not checked, and not kept.
    ///
    /// # Errors
    /// [`ColdError`]. Each part has the time of a read.
    pub(super) async fn whole_object(
        &self,
        number: u64,
        len: u64,
    ) -> Result<Vec<Bytes>, ColdError> {
        let name = self.segment_name(number);
        let mut parts = Vec::new();
        for from in (0..len).step_by(PART as usize) {
            let deadline = Instant::now() + self.options().read_timeout;
            parts.push(self.store.range(&name, from..(from + PART).min(len), deadline).await?);
        }
        Ok(parts)
    }

    /// What the engine reads objects from.
    pub fn cold_place(&self) -> ColdPlace {
        ColdPlace { store: Arc::new(self.reader.clone()), prefix: self.segment_prefix() }
    }

    /// What is counted.
    pub fn counters(&self) -> &TierCounters {
        self.store.counters()
    }

    /// As it was opened.
    pub fn options(&self) -> &TierOptions {
        self.store.options()
    }
}
