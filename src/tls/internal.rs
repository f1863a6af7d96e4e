//! A certificate authority of the server's own, for development: browsers trust it once its root is
//! installed (`durable-streams-server tls root`).
//!
//! The root and its key are made once and kept; the certificate of a listener is made at each start, for
//! thirty days.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use durable_streams_protocol::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::{
    certificate::{CertificateError, LoadedCertificate},
    files::{create_private_directory, write_secret},
    pem,
};

/// How long the root is valid.
const ROOT_DAYS: u64 = 3650;
/// How long a listener's certificate is valid; browsers refuse more than 398 days.
const LEAF_DAYS: u64 = 30;
/// Clocks of clients may be behind.
const SLACK: Duration = Duration::from_secs(3600);

/// The names of a development listener that names none.
const DEFAULT_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Where the root's certificate is kept below `directory`.
fn root_file(directory: &Path) -> PathBuf {
    directory.join("root.pem")
}

/// The root's certificate as PEM. Made where there is none yet.
///
/// # Errors
/// The directory cannot be written, or the root in it cannot be used.
pub fn root_pem(directory: &Path, now: Timestamp) -> Result<String, CertificateError> {
    root(directory, now).map(|(certificate, _)| certificate)
}

/// A certificate for `hosts`, issued by the root in `directory`, which is made where there is none.
///
/// # Errors
/// The directory cannot be written, or the root in it cannot be used.
pub(super) fn certificate(
    directory: &Path,
    hosts: &[String],
    now: Timestamp,
) -> Result<LoadedCertificate, CertificateError> {
    let setup = |error: rcgen::Error| CertificateError::Setup { reason: error.to_string() };
    let (_, key) = root(directory, now)?;
    // The root's name and key are all that a leaf takes from it.
    let issuer = Issuer::new(root_params(now), key);
    let hosts: Vec<String> = match hosts {
        [] => DEFAULT_HOSTS.map(str::to_owned).to_vec(),
        hosts => hosts.to_vec(),
    };
    let mut params = CertificateParams::new(hosts).map_err(setup)?;
    params.distinguished_name.push(DnType::CommonName, "durable-streams-server (development)");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    validity(&mut params, now, LEAF_DAYS);
    let leaf_key = KeyPair::generate().map_err(setup)?;
    let leaf = params.signed_by(&leaf_key, &issuer).map_err(setup)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
    let origin = format!("the internal authority in {}", directory.display());
    LoadedCertificate::new(vec![leaf.der().clone()], key, &origin, now)
}

/// The root's certificate as PEM, and its key.
fn root(directory: &Path, now: Timestamp) -> Result<(String, KeyPair), CertificateError> {
    let (certificate, key) = (root_file(directory), directory.join("root.key"));
    let setup = |error: rcgen::Error| CertificateError::Setup { reason: error.to_string() };
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| CertificateError::Unreadable { path, source }
    };
    match fs::read_to_string(&certificate) {
        Ok(root) => {
            let der = pem::private_key(&key)?;
            let key = KeyPair::try_from(&der).map_err(setup)?;
            Ok((root, key))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = KeyPair::generate().map_err(setup)?;
            let root = root_params(now).self_signed(&made).map_err(setup)?.pem();
            create_private_directory(directory).map_err(unreadable(directory))?;
            // The key first: a crash in between leaves a key that the next start replaces.
            write_secret(&key, made.serialize_pem().as_bytes()).map_err(unreadable(&key))?;
            write_secret(&certificate, root.as_bytes()).map_err(unreadable(&certificate))?;
            Ok((root, made))
        }
        Err(error) => Err(unreadable(&certificate)(error)),
    }
}

/// What a root says of itself. Its name must stay: certificates of later versions are issued in it.
fn root_params(now: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    let name = "durable-streams-server development root";
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, now, ROOT_DAYS);
    params
}

fn validity(params: &mut CertificateParams, now: Timestamp, days: u64) {
    let now = std::time::UNIX_EPOCH + Duration::from_millis(now.millis());
    params.not_before = (now - SLACK).into();
    params.not_after = (now + Duration::from_secs(days * 86_400)).into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_stays_and_each_start_has_a_certificate_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path().join("tls");
        let now = Timestamp::from_millis(1_800_000_000_000);
        let first = certificate(&at, &[], now).unwrap();
        assert_eq!(first.facts.names, DEFAULT_HOSTS);
        let root = fs::read_to_string(root_file(&at)).unwrap();
        let second = certificate(&at, &["streams.test".to_owned()], now).unwrap();
        assert_eq!(second.facts.names, ["streams.test"]);
        assert_eq!(fs::read_to_string(root_file(&at)).unwrap(), root);
        let expired = Timestamp::from_millis(now.millis() + ROOT_DAYS * 86_400_000 + 1);
        assert!(certificate(&at, &[], expired).is_ok(), "the leaf is of the day");
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_may_read_the_key() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        certificate(directory.path(), &[], Timestamp::from_millis(1_800_000_000_000)).unwrap();
        let key = fs::metadata(directory.path().join("root.key")).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
    }
}
