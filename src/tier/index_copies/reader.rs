//! Finding and fetching a copy of the index, and taking the prefix over for a data directory that is built from it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use durable_streams_engine::store::file::FORMAT;
use durable_streams_engine::store::file::disk::File;
use durable_streams_engine::store::file::segments::cold::{ColdError, ColdStore as _};
use durable_streams_engine::store::file::segments::format::{file_name, number_of};
use durable_streams_engine::store::file::segments::objects::SegmentInfo;
use durable_streams_protocol::Timestamp;
use ring::digest;
use tokio::time::Instant;

use super::manifest::{CopyName, FOLDER, IndexManifest, hex};
use crate::tier::claim::{self, ClaimError, TakeOver, TierClaim};
use crate::tier::connect::{self, TierSetupError};
use crate::tier::counters::TierCounters;
use crate::tier::identity_file::{IdentityError, TierIdentity};
use crate::tier::object_cold_store::ObjectColdStore;
use crate::tier::{TierOptions, files};

/// How often what does not match its checksum is read again: it may have changed on the way.
const TRIES: usize = 3;
/// Bytes that are read at once.
const PIECE: u64 = 4 << 20;

/// The copies of the index in an object store.
pub struct TierCopies {
    store: Arc<ObjectColdStore>,
}

/// A copy cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The client cannot be made.
    #[error(transparent)]
    Setup(#[from] TierSetupError),
    /// The object store failed.
    #[error("{0}")]
    Store(#[from] ColdError),
    /// The manifest is not as it was written, or of a version that this one does not know.
    #[error("its manifest is damaged, or of a newer version")]
    Manifest,
    /// The directory that it is from has another format.
    #[error(
        "it is of format {0}, and this version knows format {FORMAT}; use the version that made it, or a newer one"
    )]
    Format(u64),
    /// Its bytes are not those that were copied.
    #[error("its parts do not match their checksum")]
    Damaged,
    /// The local file failed.
    #[error("cannot write the copy: {0}")]
    File(#[from] io::Error),
    /// It was deleted while it was used, or a part of it is missing.
    #[error(
        "there is no such copy (any more): if the server that makes the copies still runs, stop it and try again"
    )]
    Gone,
    /// Another server has the prefix than the one whose copy is the newest.
    #[error(
        "the newest copy is of the server {copied}, but the prefix belongs to {owner}, which has made none; name the copy \
         with --copy if it is meant"
    )]
    Other {
        /// The identity in the copy.
        copied: String,
        /// The identity in the newest claim.
        owner: String,
    },
    /// The prefix cannot be taken over.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// The file of the identity cannot be written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl TierCopies {
    /// Of an object store; nothing is connected to yet.
    ///
    /// # Errors
    /// When the options or the environment cannot be used.
    pub fn connect(options: TierOptions) -> Result<Self, TierSetupError> {
        let client = connect::connect(&options)?;
        let counters = Arc::new(TierCounters::default());
        Ok(Self::of(Arc::new(ObjectColdStore::new(client, options, counters))))
    }

    pub(in crate::tier) fn of(store: Arc<ObjectColdStore>) -> Self {
        TierCopies { store }
    }

    /// The copies, the newest one first. Those without a manifest do not count.
    ///
    /// # Errors
    /// When the object store does not answer.
    pub async fn newest_first(&self) -> Result<Vec<CopyName>, ColdError> {
        let (mut found, mut after) = (BTreeSet::new(), None::<String>);
        loop {
            let page = self.store.list(FOLDER, after.as_deref()).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            let objects = page.iter().filter_map(|(name, _)| CopyName::of_object(name));
            found.extend(objects.filter(|(_, manifest)| *manifest).map(|(copy, _)| copy));
        }
        Ok(found.into_iter().rev().collect())
    }

    /// What a copy says of itself.
    ///
    /// # Errors
    /// [`CopyError::Manifest`], [`CopyError::Format`], and those of the object store.
    pub async fn manifest(&self, name: CopyName) -> Result<IndexManifest, CopyError> {
        for _ in 0..TRIES {
            let found = self.store.small(&name.manifest()).await?.ok_or(CopyError::Gone)?;
            match IndexManifest::decode(name, &found) {
                Some(manifest) if manifest.format > FORMAT => {
                    return Err(CopyError::Format(manifest.format));
                }
                Some(manifest) => return Ok(manifest),
                None => {}
            }
        }
        Err(CopyError::Manifest)
    }

    /// Writes the copy to a file, whatever it has now. `each` receives the number of bytes so far.
    ///
    /// # Errors
    /// [`CopyError::Damaged`], [`CopyError::File`], and those of the object store.
    pub async fn fetch(
        &self,
        copy: &IndexManifest,
        mut file: &File,
        each: &mut dyn FnMut(u64),
    ) -> Result<(), CopyError> {
        for _ in 0..TRIES {
            files::empty(file)?;
            let mut digest = digest::Context::new(&digest::SHA256);
            let starts = (0..copy.bytes).step_by(copy.part_bytes as usize);
            for (part, from) in starts.enumerate() {
                let len = copy.part_bytes.min(copy.bytes - from);
                let name = copy.name().part(part as u64);
                for at in (0..len).step_by(PIECE as usize) {
                    let piece = at..len.min(at + PIECE);
                    let deadline = Instant::now() + 6 * self.store.options().read_timeout;
                    let bytes = match self.store.range(&name, piece.clone(), deadline).await {
                        // Its manifest may have arrived after its deletion.
                        Err(ColdError::NotFound) => return Err(CopyError::Gone),
                        bytes => bytes?,
                    };
                    digest.update(&bytes);
                    file.write_all(&bytes)?;
                    each(from + piece.end);
                }
            }
            if hex(&digest.finish()) == copy.sha256 {
                return Ok(());
            }
        }
        Err(CopyError::Damaged)
    }

    /// The segments whose objects are not there, or not of their size.
    ///
    /// # Errors
    /// When the object store does not answer.
    pub async fn missing(
        &self,
        copy: &IndexManifest,
        segments: &[SegmentInfo],
    ) -> Result<BTreeSet<u64>, ColdError> {
        let prefix = claim::segment_prefix(&copy.identity);
        let mut missing: BTreeMap<u64, u64> =
            segments.iter().map(|segment| (segment.number, segment.file_len)).collect();
        let mut after = None::<String>;
        loop {
            let page = self.store.list(&prefix, after.as_deref()).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(last.clone());
            for (name, size) in &page {
                let number = name.strip_prefix(&prefix).and_then(number_of);
                if number.is_some_and(|number| missing.get(&number) == Some(size)) {
                    number.map(|number| missing.remove(&number));
                }
            }
        }
        // The list may be late.
        let mut gone = BTreeSet::new();
        for (number, len) in missing {
            let deadline = Instant::now() + self.store.options().read_timeout;
            match self.store.size(&format!("{prefix}{}", file_name(number)), deadline).await {
                Ok(size) if size == len => {}
                Ok(_) | Err(ColdError::NotFound) => {
                    gone.insert(number);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(gone)
    }

    /// The newest claim: its number, and the identity of the server that made it.
    ///
    /// # Errors
    /// [`CopyError::Claim`].
    pub async fn owner(&self) -> Result<Option<(u64, String)>, CopyError> {
        Ok(claim::newest(&self.store).await?)
    }

    /// Checks that a copy is still there: then none of its objects was deleted so far.
    ///
    /// # Errors
    /// [`CopyError::Gone`], and those of the object store.
    pub async fn is_there(&self, copy: &IndexManifest) -> Result<(), CopyError> {
        let found = self.store.small(&copy.name().manifest()).await?;
        found.map(drop).ok_or(CopyError::Gone)
    }
}

impl IndexManifest {
    /// Writes the identity of the server that made the copy into a data directory that is built from it. A server on it is
    /// refused by the prefix until it takes that over.
    ///
    /// # Errors
    /// [`CopyError::Identity`].
    pub fn adopt(&self, data_dir: &Path) -> Result<(), CopyError> {
        let identity = TierIdentity::of(self.identity.clone());
        Ok(identity.write(&TierIdentity::file(data_dir))?)
    }
}

impl TierCopies {
    /// Makes a data directory that has [adopted](IndexManifest::adopt) a copy the owner of the prefix, unless there is a newer
    /// claim than `seen`: the server that has it uploads and deletes nothing any more within a minute.
    ///
    /// # Errors
    /// [`CopyError::Claim`].
    pub async fn take_over(
        &self,
        data_dir: &Path,
        seen: u64,
        now: Timestamp,
    ) -> Result<TierClaim, CopyError> {
        Ok(claim::claim_over(&self.store, data_dir, now, TakeOver::Of(seen)).await?)
    }
}
