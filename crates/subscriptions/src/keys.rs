//! The server's secrets: the Ed25519 key that signs webhooks and the key of bearer tokens.
//!
//! Kept in `{dir}/subscriptions.json`, mode 0600 in a directory of mode 0700, made on first start. The
//! file is replaced whole (written aside, synced, renamed). Rotation retires the active key: its private
//! half is deleted at once, its public half stays published for [`REPLAY_WINDOW_MILLIS`]. A running server
//! checks the file for changes every two seconds.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

#[cfg(unix)]
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::secret;
use durable_streams_protocol::{
    Timestamp,
    subscription::{JwkSet, PublicJwk, SigningKey, TokenKey},
};

/// How long a retired key is published: receivers accept signatures of the last five minutes or so, and
/// caches hold the key set for another five.
pub const REPLAY_WINDOW_MILLIS: u64 = 60 * 60 * 1000;
/// How often a running server checks whether the file has changed, milliseconds.
const LOOK_EVERY: u64 = 2_000;

/// Where the secrets are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// Held in memory and generated at each start. Tokens and signatures do not outlive the process.
    Ephemeral,
    /// Kept in a file in this directory.
    Directory(PathBuf),
}

/// Why the key file cannot be used.
#[allow(missing_docs, reason = "fields whose names say it all")]
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file operation failed.
    #[error("cannot {operation} {path}: {source}")]
    Io {
        /// The operation, as a verb.
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// Group or others may read the file.
    #[error("{path} is readable by others (mode {mode:o}); run chmod 0600 {path}")]
    TooOpen {
        path: PathBuf,
        /// The permission bits of the file.
        mode: u32,
    },
    /// A key in the file is not the one that was written.
    #[error(
        "{path} is damaged: its checksum is wrong; restore it, or move it away to start with new keys"
    )]
    Damaged { path: PathBuf },
    /// The file does not parse as a key file.
    #[error("{path} is not a key file of this server; restore it, or move it away to start anew")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// The content of the key file: JSON. Version 1 had no checksum.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredSecrets {
    version: u32,
    token_secret: String,
    signing_seed: String,
    #[serde(default)]
    retired: Vec<RetiredKey>,
    /// See [`checksum`](StoredSecrets::checksum).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
}

const VERSION: u32 = 2;
/// The version without a checksum.
const VERSION_1: u32 = 1;

#[derive(Clone, Serialize, Deserialize)]
struct RetiredKey {
    key: PublicJwk,
    until: Timestamp,
}

impl StoredSecrets {
    fn generate() -> Self {
        StoredSecrets {
            version: VERSION,
            token_secret: BASE64URL.encode(secret::<32>()),
            signing_seed: BASE64URL.encode(secret::<32>()),
            retired: Vec::new(),
            checksum: None,
        }
    }

    /// Base64url of the first 96 bits of SHA-256 of the other fields: compact JSON, in the order of declaration. A bit
    /// that flips in a key would make another key, which looks as good.
    fn checksum(&self) -> Result<String, serde_json::Error> {
        let text = serde_json::to_vec(&StoredSecrets { checksum: None, ..self.clone() })?;
        let digest = ring::digest::digest(&ring::digest::SHA256, &text);
        Ok(BASE64URL.encode(digest.as_ref().get(..12).unwrap_or_default()))
    }
}

/// The key file, for the commands that work on it.
#[derive(Clone, Debug)]
pub struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// The key file of a directory.
    pub fn in_directory(directory: &Path) -> Self {
        KeyFile { path: directory.join("subscriptions.json") }
    }

    /// Generates a new signing key and makes it the active one. Returns the ids of the old and the new key.
    ///
    /// # Errors
    /// [`KeyError`]; the file is unchanged then.
    pub fn rotate(&self, now: Timestamp) -> Result<(String, String), KeyError> {
        let mut secrets = self.read()?;
        let old = self.usable(&secrets)?.signing.public().clone();
        secrets.signing_seed = BASE64URL.encode(secret::<32>());
        secrets.retired.retain(|retired| retired.until > now);
        let until = Timestamp::from_millis(now.millis().saturating_add(REPLAY_WINDOW_MILLIS));
        secrets.retired.insert(0, RetiredKey { key: old.clone(), until });
        let new = self.usable(&secrets)?.signing.public().kid.clone();
        self.write(&secrets)?;
        Ok((old.kid, new))
    }

    /// Checks the file, if there is one.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn check(&self) -> Result<(), KeyError> {
        match self.read() {
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            read => self.usable(&read?).map(drop),
        }
    }

    fn open(&self) -> Result<StoredSecrets, KeyError> {
        let secrets = match self.read() {
            Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                StoredSecrets::generate()
            }
            read => read?,
        };
        if secrets.checksum.is_none() {
            self.usable(&secrets)?;
            self.write(&secrets)?;
        }
        Ok(secrets)
    }

    fn read(&self) -> Result<StoredSecrets, KeyError> {
        #[cfg(unix)]
        {
            let metadata = fs::metadata(&self.path).map_err(|source| self.io("read", source))?;
            let mode = metadata.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                return Err(KeyError::TooOpen { path: self.path.clone(), mode });
            }
        }
        let bytes = fs::read(&self.path).map_err(|source| self.io("read", source))?;
        let secrets: StoredSecrets =
            serde_json::from_slice(&bytes).map_err(|_| self.malformed())?;
        match (secrets.version, &secrets.checksum) {
            (VERSION_1, None) => Ok(secrets),
            (VERSION, Some(checksum)) if secrets.checksum().is_ok_and(|sum| sum == *checksum) => {
                Ok(secrets)
            }
            (VERSION, Some(_)) => Err(KeyError::Damaged { path: self.path.clone() }),
            _ => Err(self.malformed()),
        }
    }

    fn write(&self, secrets: &StoredSecrets) -> Result<(), KeyError> {
        let directory = self.path.parent().unwrap_or_else(|| Path::new("."));
        let mut builder = fs::DirBuilder::new();
        #[cfg(unix)]
        builder.mode(0o700);
        let made = builder.recursive(true).create(directory);
        made.map_err(|source| self.io("create the directory of", source))?;
        let aside = self.path.with_extension("json.new");
        let write = || -> io::Result<()> {
            // A crash may have left one, perhaps with other permissions.
            match fs::remove_file(&aside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut options = OpenOptions::new();
            #[cfg(unix)]
            options.mode(0o600);
            let mut file = options.write(true).create_new(true).open(&aside)?;
            let mut secrets = StoredSecrets { version: VERSION, ..secrets.clone() };
            secrets.checksum = Some(secrets.checksum()?);
            file.write_all(&serde_json::to_vec_pretty(&secrets)?)?;
            file.sync_all()?;
            fs::rename(&aside, &self.path)?;
            // Makes the rename durable. Windows cannot sync a directory, and writes names through.
            #[cfg(unix)]
            fs::File::open(directory)?.sync_all()?;
            Ok(())
        };
        write().map_err(|source| self.io("write", source))
    }

    fn usable(&self, secrets: &StoredSecrets) -> Result<UsableKeys, KeyError> {
        UsableKeys::of(secrets).ok_or_else(|| self.malformed())
    }

    fn changed(&self) -> Option<SystemTime> {
        fs::metadata(&self.path).and_then(|metadata| metadata.modified()).ok()
    }

    fn io(&self, operation: &'static str, source: io::Error) -> KeyError {
        KeyError::Io { operation, path: self.path.clone(), source }
    }

    fn malformed(&self) -> KeyError {
        KeyError::Malformed { path: self.path.clone() }
    }
}

/// The secrets, decoded.
struct UsableKeys {
    signing: SigningKey,
    tokens: TokenKey,
    retired: Vec<RetiredKey>,
}

impl UsableKeys {
    fn of(secrets: &StoredSecrets) -> Option<Self> {
        let token = BASE64URL.decode(&secrets.token_secret).ok()?;
        let seed = BASE64URL.decode(&secrets.signing_seed).ok()?;
        Some(UsableKeys {
            signing: SigningKey::from_seed(&seed)?,
            tokens: TokenKey::new(token.as_slice().try_into().ok()?),
            retired: secrets.retired.clone(),
        })
    }
}

/// The secrets of a running server, reloaded when their file changes.
pub(super) struct KeyRing {
    file: Option<KeyFile>,
    current: Mutex<LoadedKeys>,
}

struct LoadedKeys {
    usable: Arc<UsableKeys>,
    looked: Timestamp,
    changed: Option<SystemTime>,
}

/// Access to the key that signs bearer tokens.
pub(super) struct TokenKeyGuard(Arc<UsableKeys>);

impl std::ops::Deref for TokenKeyGuard {
    type Target = TokenKey;

    fn deref(&self) -> &TokenKey {
        &self.0.tokens
    }
}

impl KeyRing {
    pub(super) fn open(source: KeySource, now: Timestamp) -> Result<Self, KeyError> {
        let file = match source {
            KeySource::Ephemeral => None,
            KeySource::Directory(directory) => Some(KeyFile::in_directory(&directory)),
        };
        let changed = file.as_ref().and_then(KeyFile::changed);
        let secrets = match &file {
            None => StoredSecrets::generate(),
            Some(file) => file.open()?,
        };
        let path = || file.as_ref().map(|file| file.path.clone()).unwrap_or_default();
        let usable =
            UsableKeys::of(&secrets).ok_or_else(|| KeyError::Malformed { path: path() })?;
        let current = LoadedKeys { usable: Arc::new(usable), looked: now, changed };
        Ok(KeyRing { file, current: Mutex::new(current) })
    }

    /// The key that signs bearer tokens.
    pub(super) fn token_key(&self) -> TokenKeyGuard {
        TokenKeyGuard(self.current.lock().usable.clone())
    }

    /// The `Webhook-Signature` of a body sent now.
    pub(super) fn sign(&self, now: Timestamp, body: &[u8]) -> String {
        self.usable(now).signing.sign(now.millis() / 1000, body)
    }

    /// The id of the active key.
    pub(super) fn active_id(&self, now: Timestamp) -> String {
        self.usable(now).signing.public().kid.clone()
    }

    /// The public keys by which receivers verify signatures: the active one, then retired ones.
    pub(super) fn published(&self, now: Timestamp) -> JwkSet {
        let usable = self.usable(now);
        let retired = usable.retired.iter().filter(|retired| retired.until > now);
        let keys = std::iter::once(usable.signing.public().clone());
        JwkSet { keys: keys.chain(retired.map(|retired| retired.key.clone())).collect() }
    }

    fn usable(&self, now: Timestamp) -> Arc<UsableKeys> {
        let mut current = self.current.lock();
        let Some(file) = &self.file else { return current.usable.clone() };
        if now.millis().abs_diff(current.looked.millis()) >= LOOK_EVERY {
            current.looked = now;
            let changed = file.changed();
            if changed != current.changed {
                match file.read().and_then(|secrets| file.usable(&secrets)) {
                    Ok(usable) => {
                        tracing::info!(
                            key = usable.signing.public().kid,
                            "signing keys read again"
                        );
                        current.usable = Arc::new(usable);
                        current.changed = changed;
                    }
                    Err(error) => tracing::error!(%error, "keeping the signing keys as they were"),
                }
            }
        }
        current.usable.clone()
    }
}
