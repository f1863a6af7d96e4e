//! The object store of a running server: opened once the data directory is locked, used until the server has stopped.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use durable_streams_engine::store::StoreError;
use durable_streams_engine::store::file::offline::HeldDirectory;
use durable_streams_engine::{Clock, Engine};
use tokio::runtime::Runtime;

use crate::config::{ByteSize, Config, TierEndpoint};
use crate::tier::{SegmentOwner, SegmentUploader, Tier, TierClaim, TierError, TierOptions};

/// How long requests under way may take when the server stops.
const END: Duration = Duration::from_secs(2);

/// The object store, and the threads that talk to it: none of them serves clients.
pub(super) struct RunningTier {
    runtime: Runtime,
    pub(super) tier: Tier,
}

/// A prefix cannot be taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TakeOverError {
    /// Nothing goes to an object store.
    #[error("the configuration has no tier or no data_dir, so there is nothing to take over")]
    NoTier,
    /// The data directory is in use, or is none.
    #[error(transparent)]
    Directory(#[from] StoreError),
    /// The object store cannot be used.
    #[error(transparent)]
    Tier(#[from] TierError),
}

/// The object store that a configuration asks for.
pub fn tier_options(config: &Config) -> Option<TierOptions> {
    let tier = config.tier.as_ref()?;
    let size = |bytes: ByteSize| usize::try_from(bytes.get()).unwrap_or(usize::MAX);
    Some(TierOptions {
        endpoint: tier.endpoint.as_ref().map(TierEndpoint::as_str).map(str::to_owned),
        region: tier.region.clone(),
        allow_http: tier.allow_http,
        read_timeout: tier.read_timeout.get(),
        concurrency: tier.concurrency,
        uploads: tier.uploads,
        cache: size(tier.cache),
        cache_block: size(tier.cache_block),
        after: tier.after.get(),
        interval: tier.interval.get(),
        local: tier.local.map(ByteSize::get),
        index_interval: tier.index_interval.get(),
        ..TierOptions::new(tier.url.clone()?)
    })
}

/// Opens the object store, has the engine read from it, and begins to move segments there.
pub(super) fn start(
    config: &Config,
    engine: &Arc<Engine>,
) -> Result<Option<RunningTier>, TierError> {
    let Some(store) = engine.file_store() else { return Ok(None) };
    let (Some(options), Some(dir)) = (tier_options(config), &config.data_dir) else {
        if store.has_objects().unwrap_or(false) {
            tracing::error!(
                "bytes of streams are in an object store, and the configuration has no `tier`: reads of them are refused"
            );
        }
        return Ok(None);
    };
    let (runtime, tier) = open(options, dir, false)?;
    tracing::info!(
        location = %tier.options().location,
        identity = tier.claim().identity,
        claim = tier.claim().epoch,
        "segments go to the object store"
    );
    store.read_objects_from(tier.cold_place());
    store.number_segments_from(tier.claim().first_segment());
    runtime.spawn(SegmentUploader::new(tier.clone(), engine.clone()).run(Clock::System));
    Ok(Some(RunningTier { runtime, tier }))
}

/// Connects, and claims the prefix for a data directory, which is locked.
fn open(options: TierOptions, dir: &Path, take_over: bool) -> Result<(Runtime, Tier), TierError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("tier")
        .enable_all()
        .build()?;
    let opened = Tier::open(options, dir, Clock::System.now(), take_over, runtime.handle().clone());
    let tier = runtime.block_on(opened)?;
    Ok((runtime, tier))
}

/// Claims the prefix for a data directory that no server has open, whatever other directory has it.
///
/// # Errors
/// [`TakeOverError`]; the claims are as they were then, or this directory's.
pub fn take_over(config: &Config, dir: &Path) -> Result<TierClaim, TakeOverError> {
    let _held = HeldDirectory::lock(dir)?;
    let options = tier_options(config).ok_or(TakeOverError::NoTier)?;
    let (runtime, tier) = open(options, dir, true)?;
    let claim = tier.claim().clone();
    runtime.shutdown_timeout(END);
    Ok(claim)
}

impl RunningTier {
    /// Ends what is under way; what is interrupted is done again after the next start.
    pub(super) fn stop(self) {
        self.runtime.shutdown_timeout(END);
    }
}
