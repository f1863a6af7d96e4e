//! What is kept on disk: the account, certificates with their keys, and attempts that failed.
//!
//! `<storage>/<authority>/account.json`, `<host>.pem` (key, then chain) and `<host>.attempts.json`. The
//! authority is a folder of its own, named by its host and a checksum of its URL, so that a trial with a
//! staging directory leaves the real one alone. Folders are 0700, files 0600.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use durable_streams_protocol::Timestamp;

use super::{AcmeOptions, attempts::Attempts};
use crate::tls::{
    certificate::{CertificateError, LoadedCertificate},
    files::{create_private_directory, write_secret},
    options::CertificateFiles,
};

/// The storage directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {}: {source}", path.display())]
pub struct StorageError {
    path: PathBuf,
    source: io::Error,
}

#[derive(Debug)]
pub(super) struct AcmeStorage {
    folder: PathBuf,
}

impl AcmeStorage {
    /// Makes the folder of the authority where there is none.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn open(options: &AcmeOptions) -> Result<Self, StorageError> {
        let folder = options.storage.join(authority(&options.directory));
        create_private_directory(&folder).map_err(at(&folder))?;
        Ok(AcmeStorage { folder })
    }

    pub(super) fn account(&self) -> Result<Option<Vec<u8>>, StorageError> {
        let path = self.folder.join("account.json");
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&path)(error)),
        }
    }

    pub(super) fn keep_account(&self, credentials: &[u8]) -> Result<(), StorageError> {
        self.write("account.json", credentials)
    }

    /// The kept certificate, if there is one that can be used now.
    pub(super) fn certificate(&self, host: &str, now: Timestamp) -> Option<LoadedCertificate> {
        if !self.pem(host).exists() {
            return None;
        }
        match self.load(host, now) {
            Ok(certificate) => Some(certificate),
            Err(error) => {
                tracing::warn!(host, %error, "the kept certificate is ordered again");
                None
            }
        }
    }

    /// # Errors
    /// What is wrong with the kept certificate.
    pub(super) fn load(
        &self,
        host: &str,
        now: Timestamp,
    ) -> Result<LoadedCertificate, CertificateError> {
        let path = self.pem(host);
        let files = CertificateFiles { certificate: path.clone(), key: path };
        LoadedCertificate::from_files(&files, now)
    }

    pub(super) fn keep_certificate(&self, host: &str, pem: &str) -> Result<(), StorageError> {
        self.write(&format!("{host}.pem"), pem.as_bytes())
    }

    /// A record that cannot be read is none: the authority's own limits remain.
    pub(super) fn attempts(&self, host: &str) -> Attempts {
        let bytes = fs::read(self.folder.join(attempts_file(host))).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    pub(super) fn keep_attempts(
        &self,
        host: &str,
        attempts: &Attempts,
    ) -> Result<(), StorageError> {
        let bytes = serde_json::to_vec(attempts).unwrap_or_default();
        self.write(&attempts_file(host), &bytes)
    }

    pub(super) fn forget_attempts(&self, host: &str) -> Result<(), StorageError> {
        let path = self.folder.join(attempts_file(host));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&path)(error)),
            _ => Ok(()),
        }
    }

    fn pem(&self, host: &str) -> PathBuf {
        self.folder.join(format!("{host}.pem"))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        let path = self.folder.join(name);
        write_secret(&path, bytes).map_err(at(&path))
    }
}

fn attempts_file(host: &str) -> String {
    format!("{host}.attempts.json")
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| StorageError { path, source }
}

/// `acme-v02.api.letsencrypt.org-1a2b3c4d` for its directory URL.
fn authority(directory: &str) -> String {
    let host = directory.split("://").nth(1).unwrap_or(directory).split(['/', ':']).next();
    let digest = ring::digest::digest(&ring::digest::SHA256, directory.as_bytes());
    let mut name = host.unwrap_or_default().to_ascii_lowercase();
    name.retain(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-');
    name.push('-');
    for byte in digest.as_ref().iter().take(4) {
        name.push_str(&format!("{byte:02x}"));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_have_folders_of_their_own() {
        let staging = authority("https://acme-staging-v02.api.letsencrypt.org/directory");
        assert!(staging.starts_with("acme-staging-v02.api.letsencrypt.org-"), "{staging}");
        assert_ne!(
            authority("https://ca.test/a/directory"),
            authority("https://ca.test/b/directory")
        );
        assert!(!authority("https://../../etc").contains('/'));
    }
}
