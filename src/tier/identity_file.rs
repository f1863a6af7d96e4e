//! The identity of a data directory on an object store: `keys/tier.json`. Format: docs/storage.md.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use durable_streams_engine::store::file::{TIER_IDENTITY, keys_dir};
use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

use super::files;

const VERSION: u32 = 1;

/// The identity under which a data directory keeps its segments, and the claim that it holds on the prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TierIdentity {
    version: u32,
    /// 32 hexadecimal digits; part of the names of its objects.
    pub(super) identity: String,
    /// The claim that it holds; 0 for none.
    pub(super) epoch: u64,
    /// What tells its claim from one of another copy of this directory.
    pub(super) nonce: String,
    /// A claim that it has tried to make; a crash may have hidden what came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) pending: Option<PendingClaim>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
}

/// A claim whose creation may have happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PendingClaim {
    pub(super) epoch: u64,
    pub(super) nonce: String,
}

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Reading or writing failed.
    #[error("cannot use {path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not as it was written.
    #[error("{path} is damaged; restore it from a backup", path = .0.display())]
    Damaged(PathBuf),
}

/// 128 random bits in hexadecimal digits.
///
/// # Errors
/// When the system has no random numbers.
pub(super) fn random_id() -> io::Result<String> {
    let mut bytes = [0; 16];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| io::Error::other("the system has no random numbers"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl TierIdentity {
    /// A new one, which holds no claim.
    pub(super) fn generate() -> io::Result<Self> {
        random_id().map(Self::of)
    }

    /// One that holds no claim.
    pub(super) fn of(identity: String) -> Self {
        let nonce = String::new();
        TierIdentity { version: VERSION, identity, epoch: 0, nonce, pending: None, checksum: None }
    }

    /// Where a data directory has it.
    pub(super) fn file(data_dir: &Path) -> PathBuf {
        keys_dir(data_dir).join(TIER_IDENTITY)
    }

    /// `None` where there is no file.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, IdentityError> {
        let text = match files::read_text(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(IdentityError::Io { path: path.to_owned(), source }),
        };
        let damaged = || IdentityError::Damaged(path.to_owned());
        let mut read: Self = serde_json::from_str(&text).map_err(|_| damaged())?;
        let checksum = read.checksum.take();
        if read.version != VERSION || checksum.is_none() || checksum != read.computed_checksum() {
            return Err(damaged());
        }
        Ok(Some(read))
    }

    pub(super) fn write(&self, path: &Path) -> Result<(), IdentityError> {
        let with = TierIdentity { checksum: self.computed_checksum(), ..self.clone() };
        let text = serde_json::to_string_pretty(&with).map_err(io::Error::from);
        let written = text.and_then(|text| files::replace(path, &text));
        written.map_err(|source| IdentityError::Io { path: path.to_owned(), source })
    }

    /// Of the rest, as compact JSON in this order.
    fn computed_checksum(&self) -> Option<String> {
        let rest = serde_json::to_vec(&TierIdentity { checksum: None, ..self.clone() }).ok()?;
        let digest = digest::digest(&digest::SHA256, &rest);
        Some(BASE64URL.encode(&digest.as_ref()[..12]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_for_the_owner_only_and_no_changed_byte_passes() {
        let dir = tempfile::tempdir().unwrap();
        let path = TierIdentity::file(dir.path());
        assert_eq!(TierIdentity::read(&path).unwrap(), None);
        let mut identity = TierIdentity::generate().unwrap();
        identity.pending = Some(PendingClaim { epoch: 3, nonce: "n".into() });
        identity.write(&path).unwrap();
        assert_eq!(TierIdentity::read(&path).unwrap(), Some(identity));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let whole = std::fs::read(&path).unwrap();
        for at in (0..whole.len()).filter(|at| whole[*at].is_ascii_hexdigit()) {
            let mut changed = whole.clone();
            changed[at] = if changed[at] == b'0' { b'1' } else { b'0' };
            std::fs::write(&path, changed).unwrap();
            assert!(TierIdentity::read(&path).is_err(), "byte {at}");
        }
    }
}
