//! Which server owns the prefix: objects `claim/<epoch>`, each created once and never deleted. The newest one counts.
//!
//! The creation of the next number is the decision, and only a conditional write can make it, so of two servers that
//! start at once one wins. Lists only say where to look first: a list may be late, a read of a named object is not.

use std::path::Path;

use bytes::Bytes;
use durable_streams_engine::store::file::segments::cold::{ColdError, ColdStore as _};
use durable_streams_protocol::Timestamp;
use serde::{Deserialize, Serialize};

use super::identity_file::{IdentityError, PendingClaim, TierIdentity, random_id};
use super::object_cold_store::{CreatedObject, ObjectColdStore};

pub(super) const FOLDER: &str = "claim/";

/// What a claim says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ClaimObject {
    identity: String,
    epoch: u64,
    nonce: String,
    /// When it was made, milliseconds since 1970, by its server's clock. For people only.
    claimed_at: u64,
}

/// The claim of this server, made when it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierClaim {
    /// Under which its segments are.
    pub identity: String,
    /// Its number.
    pub epoch: u64,
    /// The identity of the claim before it.
    pub replaced: Option<String>,
}

/// The prefix cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another data directory has it.
    #[error(
        "the prefix belongs to another server (identity {identity}, claim {epoch}, made at {claimed_at}); \
         use another prefix, or stop that server for good and run `durable-streams-server tier take-over`"
    )]
    Other {
        /// Of the other one.
        identity: String,
        /// The number of its claim.
        epoch: u64,
        /// When it was made, by that server's clock.
        claimed_at: Timestamp,
    },
    /// A copy of this data directory has claimed the prefix since.
    #[error(
        "the prefix was claimed by another copy of this data directory (claim {epoch}); if that copy is gone for good, \
         run `durable-streams-server tier take-over`"
    )]
    Copy {
        /// The number of its claim.
        epoch: u64,
    },
    /// Another directory has claimed the prefix while this one was made.
    #[error(
        "another server or restore has claimed the prefix meanwhile (claim {epoch}); see which one is to have it, and begin \
         again"
    )]
    Meanwhile {
        /// The number of its claim.
        epoch: u64,
    },
    /// The claims of this data directory are not there.
    #[error(
        "the prefix has no claim {0}, which this data directory made: it is another prefix or bucket, or was emptied; \
         correct tier.url, or run `durable-streams-server tier take-over` if the segments on it are to be given up"
    )]
    Missing(u64),
    /// A claim is not as a server writes it.
    #[error(
        "the object claim/{0:020} is no claim of a server; is the prefix used by something else?"
    )]
    Foreign(u64),
    /// The object store failed.
    #[error("cannot claim the prefix: {0}")]
    Store(#[from] ColdError),
    /// The file of the identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// The name of a claim's object.
pub(super) fn name(epoch: u64) -> String {
    format!("{FOLDER}{epoch:020}")
}

/// Which claims of other directories do not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TakeOver {
    /// All of them do.
    Nothing,
    /// Whatever there is when this begins.
    Anything,
    /// The one with this number, if it is the newest.
    Of(u64),
}

/// Claims the prefix for the data directory. With `take_over` a claim of another one does not count, of the time when
/// this begins; a server that claims it meanwhile wins.
pub(super) async fn claim(
    store: &ObjectColdStore,
    data_dir: &Path,
    now: Timestamp,
    take_over: bool,
) -> Result<TierClaim, ClaimError> {
    let taken = if take_over { TakeOver::Anything } else { TakeOver::Nothing };
    claim_over(store, data_dir, now, taken).await
}

/// Claims the prefix for the data directory; a server that claims it meanwhile wins.
pub(super) async fn claim_over(
    store: &ObjectColdStore,
    data_dir: &Path,
    now: Timestamp,
    taken: TakeOver,
) -> Result<TierClaim, ClaimError> {
    let file = TierIdentity::file(data_dir);
    let io = |source| IdentityError::Io { path: file.clone(), source };
    let mut own = match TierIdentity::read(&file)? {
        Some(own) => own,
        None => TierIdentity::generate().map_err(io)?,
    };
    let latest = latest(store, own.epoch).await?;
    match (taken, &latest) {
        (TakeOver::Nothing, latest) => judge(&own, latest.as_ref())?,
        (TakeOver::Of(epoch), Some(latest)) if latest.epoch != epoch => {
            return Err(ClaimError::Meanwhile { epoch: latest.epoch });
        }
        _ => {}
    }
    let epoch = latest.as_ref().map_or(0, |claim| claim.epoch) + 1;
    let replaced = latest.map(|claim| claim.identity);
    // A creation that was given up may still arrive; then it is this one.
    let tried = own.pending.take().filter(|pending| pending.epoch == epoch);
    let nonce = match tried {
        Some(tried) => tried.nonce,
        None => random_id().map_err(io)?,
    };
    // Before the claim, so that a crash behind it leaves a claim that is known to be one's own.
    own.pending = Some(PendingClaim { epoch, nonce: nonce.clone() });
    own.write(&file)?;
    let identity = own.identity.clone();
    let made = ClaimObject { identity, epoch, nonce, claimed_at: now.millis() };
    let bytes = serde_json::to_vec(&made).map_err(|error| io(error.into()))?;
    match store.try_create(&name(epoch), bytes.into()).await? {
        CreatedObject::Created => {}
        CreatedObject::Existed(bytes) => {
            let found = parse(epoch, &bytes)?;
            if found.nonce != made.nonce {
                return Err(refused(&own, &found));
            }
        }
    }
    (own.epoch, own.nonce, own.pending) = (epoch, made.nonce, None);
    own.write(&file)?;
    Ok(TierClaim { identity: own.identity, epoch, replaced })
}

/// Whether a directory may go on after the latest claim.
fn judge(own: &TierIdentity, latest: Option<&ClaimObject>) -> Result<(), ClaimError> {
    let Some(latest) = latest else {
        return if own.epoch == 0 { Ok(()) } else { Err(ClaimError::Missing(own.epoch)) };
    };
    let is = |epoch, nonce: &str| latest.epoch == epoch && latest.nonce == nonce;
    let pending = own.pending.as_ref().is_some_and(|pending| is(pending.epoch, &pending.nonce));
    if latest.identity == own.identity && (pending || is(own.epoch, &own.nonce)) {
        return Ok(());
    }
    Err(refused(own, latest))
}

fn refused(own: &TierIdentity, latest: &ClaimObject) -> ClaimError {
    let epoch = latest.epoch;
    if latest.identity != own.identity {
        let claimed_at = Timestamp::from_millis(latest.claimed_at);
        return ClaimError::Other { identity: latest.identity.clone(), epoch, claimed_at };
    }
    if epoch < own.epoch { ClaimError::Missing(own.epoch) } else { ClaimError::Copy { epoch } }
}

/// The newest claim. Claims have no gaps, so behind the last one there is none.
async fn latest(store: &ObjectColdStore, known: u64) -> Result<Option<ClaimObject>, ClaimError> {
    let mut epoch = known;
    if known > 0 && read(store, known).await?.is_none() {
        // Another prefix, or an emptied one.
        epoch = 0;
    }
    let mut after = (epoch > 0).then(|| name(epoch));
    loop {
        let page = store.list(FOLDER, after.as_deref()).await?;
        let Some((last, _)) = page.last() else { break };
        let numbers = page.iter().filter_map(|(name, _)| name.strip_prefix(FOLDER)?.parse().ok());
        epoch = epoch.max(numbers.max().unwrap_or(0));
        after = Some(last.clone());
    }
    let mut found = match epoch {
        0 => None,
        _ => read(store, epoch).await?,
    };
    while let Some(next) = read(store, epoch + 1).await? {
        (found, epoch) = (Some(next), epoch + 1);
    }
    Ok(found)
}

/// The newest claim: its number and its server's identity; `None` where there is no claim.
pub(super) async fn newest(store: &ObjectColdStore) -> Result<Option<(u64, String)>, ClaimError> {
    Ok(latest(store, 0).await?.map(|claim| (claim.epoch, claim.identity)))
}

/// The identity of the server that made a claim; `None` where there is no such claim.
pub(super) async fn identity_of(
    store: &ObjectColdStore,
    epoch: u64,
) -> Result<Option<String>, ColdError> {
    match read(store, epoch).await {
        Ok(claim) => Ok(claim.map(|claim| claim.identity)),
        Err(ClaimError::Store(error)) => Err(error),
        Err(_) => Ok(None),
    }
}

async fn read(store: &ObjectColdStore, epoch: u64) -> Result<Option<ClaimObject>, ClaimError> {
    let found = store.small(&name(epoch)).await?;
    found.map(|bytes| parse(epoch, &bytes)).transpose()
}

fn parse(epoch: u64, bytes: &Bytes) -> Result<ClaimObject, ClaimError> {
    let claim: Option<ClaimObject> = serde_json::from_slice(bytes).ok();
    claim.filter(|claim| claim.epoch == epoch).ok_or(ClaimError::Foreign(epoch))
}

/// What the names of the objects of a server's segments begin with.
pub(super) fn segment_prefix(identity: &str) -> String {
    format!("segments/{identity}/")
}

/// Numbers that a claim has: a server makes less than half as many segments between two starts.
const SEGMENTS_PER_CLAIM: u64 = 1 << 32;

impl TierClaim {
    /// The last claim of a data directory; `None` when it has made none, or its file cannot be used.
    pub(super) fn of_directory(data_dir: &Path) -> Option<Self> {
        let own = TierIdentity::read(&TierIdentity::file(data_dir)).ok().flatten()?;
        (own.epoch > 0).then_some(TierClaim {
            identity: own.identity,
            epoch: own.epoch,
            replaced: None,
        })
    }

    /// The first number of the segments that are made with this claim. No other claim has it, so no two segments of a
    /// prefix have the same name, whatever copy of a data directory a server goes on from.
    pub fn first_segment(&self) -> u64 {
        self.epoch.saturating_mul(SEGMENTS_PER_CLAIM)
    }

    /// The name of its object, which is there as long as the prefix is what it was.
    pub(super) fn object_name(&self) -> String {
        name(self.epoch)
    }

    /// Whether no other server has claimed the prefix since.
    pub(super) async fn holds(&self, store: &ObjectColdStore) -> Result<bool, ColdError> {
        Ok(store.small(&name(self.epoch + 1)).await?.is_none())
    }
}
