//! The credentials file: API keys, projects and URL keys of one server.
//!
//! Commands change it while the server runs; the server calls [`CredentialFile::refresh`] every second or
//! two, which reloads a file that changed. A request sees one whole state of it, by one atomic load.
//!
//! Format: `docs/access.md`, "The credentials file".

mod disk;
mod format;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use durable_streams_protocol::Timestamp;
use parking_lot::Mutex;
use ring::hmac;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::{Principal, TenantId};

pub use disk::CredentialFileError;
pub use format::{ApiKeyRecord, ProjectRecord, UrlKeyRecord};
pub(crate) use format::{SigningSecret, StoredCredentials};

/// How finely the last use of a key is recorded, milliseconds.
const USE_GRAIN_MILLIS: u64 = 1_000;

/// The credentials of one server, in one file.
pub struct CredentialFile {
    path: PathBuf,
    set: ArcSwap<CredentialSet>,
    /// The revision of `set`, written after it.
    revision: AtomicU64,
    /// What the file looked like when it was last read; also keeps two refreshes apart.
    seen: Mutex<Option<disk::FileStamp>>,
}

/// One state of the file, ready for requests.
pub(crate) struct CredentialSet {
    /// Grows with every reload.
    pub(crate) revision: u64,
    pub(crate) api_keys: FxHashMap<Box<str>, ApiKeyEntry>,
    pub(crate) projects: FxHashMap<Box<str>, ProjectEntry>,
    pub(crate) url_keys: FxHashMap<Box<str>, UrlKeyEntry>,
    pub(crate) stored: StoredCredentials,
}

/// An API key.
pub(crate) struct ApiKeyEntry {
    pub(crate) hash: Vec<u8>,
    pub(crate) principal: Arc<Principal>,
    pub(crate) revoked: bool,
    /// Milliseconds since 1970; 0 is never.
    last_used: Arc<AtomicU64>,
}

/// The secrets of a project, the newest last.
pub(crate) struct ProjectEntry {
    pub(crate) secrets: Vec<(Box<str>, hmac::Key)>,
}

/// A key that signs URLs.
pub(crate) struct UrlKeyEntry {
    pub(crate) key: hmac::Key,
    /// What a URL of the key may do at most.
    pub(crate) most: Principal,
}

impl ApiKeyEntry {
    pub(crate) fn mark_used(&self, now: Timestamp) {
        let last = self.last_used.load(Ordering::Relaxed);
        // Most requests only read the counter, which threads that share a key then share too.
        if now.millis() >= last.saturating_add(USE_GRAIN_MILLIS) {
            self.last_used.store(now.millis(), Ordering::Relaxed);
        }
    }
}

/// The file beside the credentials that says when keys were last used; only the server writes it.
#[derive(Default, Serialize, Deserialize)]
struct KeyUsage {
    last_used: HashMap<String, u64>,
}

impl CredentialFile {
    /// Opens the credentials at a path. A file that is not there yet holds none.
    ///
    /// # Errors
    /// When the file cannot be read, is open to other users, or is no credentials file.
    pub fn open(path: &Path) -> Result<Self, CredentialFileError> {
        let (set, seen) = load(path, None)?;
        let file = CredentialFile {
            path: path.into(),
            revision: AtomicU64::new(set.revision),
            set: ArcSwap::from_pointee(set),
            seen: Mutex::new(seen),
        };
        file.read_usage();
        Ok(file)
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reloads the file if it changed; returns whether it did. After an error the credentials that were
    /// read before stay valid, so a file that is gone or broken revokes nothing.
    ///
    /// # Errors
    /// As [`CredentialFile::open`].
    pub fn refresh(&self) -> Result<bool, CredentialFileError> {
        let mut seen = self.seen.lock();
        let found = disk::stamp(&self.path)?;
        if found == *seen {
            return Ok(false);
        }
        if found.is_none() {
            let reason = "the file is gone; the credentials that were read from it stay valid";
            return Err(CredentialFileError::Invalid {
                path: self.path.clone(),
                reason: reason.into(),
            });
        }
        let (set, stamp) = load(&self.path, Some(&self.set.load()))?;
        let revision = set.revision;
        self.set.store(Arc::new(set));
        self.revision.store(revision, Ordering::Release);
        *seen = stamp;
        Ok(true)
    }

    /// When each API key was last used, milliseconds since 1970, by id. Keys that never were are missing.
    pub fn last_used(&self) -> HashMap<String, Timestamp> {
        let set = self.set();
        let used = set.api_keys.iter().filter_map(|(id, entry)| {
            let last = entry.last_used.load(Ordering::Relaxed);
            (last > 0).then(|| (id.to_string(), Timestamp::from_millis(last)))
        });
        used.collect()
    }

    /// Writes when keys were last used to `{file}.used`, for commands to show. The server calls it from
    /// time to time and when it stops.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save_usage(&self) -> Result<(), CredentialFileError> {
        let used = self.last_used().into_iter().map(|(id, at)| (id, at.millis()));
        let usage = KeyUsage { last_used: used.collect() };
        if usage.last_used.is_empty() {
            return Ok(());
        }
        let path = self.usage_path();
        let text = serde_json::to_vec(&usage).map_err(|error| CredentialFileError::Invalid {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        disk::replace(&path, &text)
    }

    /// Takes over when keys were last used. What cannot be read is not worth a failure.
    fn read_usage(&self) {
        let Ok(Some((bytes, _))) = disk::read(&self.usage_path()) else { return };
        let Ok(usage) = serde_json::from_slice::<KeyUsage>(&bytes) else { return };
        let set = self.set();
        for (id, millis) in usage.last_used {
            if let Some(entry) = set.api_keys.get(id.as_str()) {
                entry.last_used.fetch_max(millis, Ordering::Relaxed);
            }
        }
    }

    fn usage_path(&self) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".used");
        PathBuf::from(name)
    }

    /// Grows with every reload. Credentials that are read after it are of this state or a newer one.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self) -> Arc<CredentialSet> {
        self.set.load_full()
    }

    /// Calls `read` with the present state, without counting a reference.
    pub(crate) fn with_set<T>(&self, read: impl FnOnce(&CredentialSet) -> T) -> T {
        read(&self.set.load())
    }

    /// Changes the file, alone: what another process wrote meanwhile is read first. A change that fails
    /// leaves the file as it is.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut StoredCredentials) -> Result<T, CredentialFileError>,
    ) -> Result<T, CredentialFileError> {
        let _lock = disk::lock(&self.path)?;
        let mut stored = match disk::read(&self.path)? {
            Some((bytes, _)) => StoredCredentials::parse(&self.path, &bytes)?,
            None => StoredCredentials::default(),
        };
        let changed = change(&mut stored)?;
        let invalid = |reason| CredentialFileError::Invalid { path: self.path.clone(), reason };
        let text = stored.to_text().map_err(|error| invalid(error.to_string()))?;
        // What cannot be read back is never written.
        ready(stored, 0, None).map_err(invalid)?;
        disk::replace(&self.path, &text)?;
        self.refresh()?;
        Ok(changed)
    }
}

fn load(
    path: &Path,
    before: Option<&CredentialSet>,
) -> Result<(CredentialSet, Option<disk::FileStamp>), CredentialFileError> {
    let (stored, stamp) = match disk::read(path)? {
        Some((bytes, stamp)) => (StoredCredentials::parse(path, &bytes)?, Some(stamp)),
        None => (StoredCredentials::default(), None),
    };
    let revision = before.map_or(1, |set| set.revision + 1);
    let set = ready(stored, revision, before)
        .map_err(|reason| CredentialFileError::Invalid { path: path.into(), reason })?;
    Ok((set, stamp))
}

/// Makes a state ready for requests; when keys were last used is taken over from the state before.
fn ready(
    stored: StoredCredentials,
    revision: u64,
    before: Option<&CredentialSet>,
) -> Result<CredentialSet, String> {
    let mut api_keys = FxHashMap::default();
    for record in &stored.api_keys {
        let known = before.and_then(|set| set.api_keys.get(record.id.as_str()));
        let entry = ApiKeyEntry {
            hash: crate::api_keys::stored_hash(record)
                .ok_or_else(|| format!("the hash of key {} is damaged", record.id))?,
            principal: Arc::new(crate::api_keys::principal(record)),
            revoked: record.revoked.is_some(),
            last_used: known.map(|entry| entry.last_used.clone()).unwrap_or_default(),
        };
        unique(&mut api_keys, &record.id, entry)?;
    }
    let mut projects = FxHashMap::default();
    for record in &stored.projects {
        let secrets =
            record.secrets.iter().map(|one| (one.id.as_str().into(), key_of(&one.secret)));
        let entry = ProjectEntry { secrets: secrets.collect() };
        unique(&mut projects, record.name.as_str(), entry)?;
    }
    let mut url_keys = FxHashMap::default();
    for record in &stored.url_keys {
        let most = Principal::new(format!("url-key:{}", record.id))
            .with_credential(record.id.as_str())
            .with_tenant(record.tenant.clone())
            .with_grants(record.grants.iter().cloned());
        let entry = UrlKeyEntry { key: key_of(&record.secret), most };
        unique(&mut url_keys, &record.id, entry)?;
    }
    Ok(CredentialSet { revision, api_keys, projects, url_keys, stored })
}

fn unique<T>(map: &mut FxHashMap<Box<str>, T>, id: &str, entry: T) -> Result<(), String> {
    match map.insert(id.into(), entry) {
        None => Ok(()),
        Some(_) => Err(format!("{id} is there twice")),
    }
}

/// The HMAC key of a secret: the bytes of its text, as other libraries take it.
pub(crate) fn key_of(secret: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())
}

/// Checks what an operator calls a credential.
pub(crate) fn valid_name(name: &str) -> Result<(), CredentialFileError> {
    if (1..=64).contains(&name.len()) && !name.chars().any(char::is_control) {
        return Ok(());
    }
    Err(CredentialFileError::Refused("a name has 1 to 64 bytes and no control characters".into()))
}

/// The project or tenant that a text names.
pub(crate) fn named(text: &str) -> Result<TenantId, CredentialFileError> {
    TenantId::new(text).map_err(|error| CredentialFileError::Refused(error.to_string()))
}
