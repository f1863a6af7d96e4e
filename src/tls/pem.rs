//! PEM files: certificate chains, private keys and authorities.

use std::{fs, path::Path};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::certificate::CertificateError;

/// The largest PEM file that is read, bytes: hundreds of certificates.
const MAX_FILE: u64 = 1 << 20;

/// The certificates of a file, in its order.
///
/// # Errors
/// The file cannot be read, is not PEM, or holds no certificate.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let text = read(path)?;
    let malformed = |error: rustls::pki_types::pem::Error| CertificateError::NotPem {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let all: Vec<_> =
        CertificateDer::pem_slice_iter(&text).collect::<Result<_, _>>().map_err(malformed)?;
    if all.is_empty() {
        return Err(CertificateError::NoCertificate { path: path.to_owned() });
    }
    Ok(all)
}

/// The first private key of a file.
///
/// # Errors
/// The file can be read by every user, cannot be read, or holds no unencrypted private key.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let text = read(path)?;
    secret(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => {
            let encrypted = String::from_utf8_lossy(&text).contains("ENCRYPTED");
            CertificateError::NoKey { path: path.to_owned(), encrypted }
        }
        other => CertificateError::NotPem { path: path.to_owned(), reason: other.to_string() },
    })
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let unreadable = |source| CertificateError::Unreadable { path: path.to_owned(), source };
    let size = fs::metadata(path).map_err(unreadable)?.len();
    if size > MAX_FILE {
        return Err(CertificateError::TooLarge { path: path.to_owned(), size, limit: MAX_FILE });
    }
    fs::read(path).map_err(unreadable)
}

/// A key that every user may read is no secret. Group-readable is accepted: distributions give keys
/// to a group such as `ssl-cert`.
fn secret(path: &Path) -> Result<(), CertificateError> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let unreadable = |source| CertificateError::Unreadable { path: path.to_owned(), source };
        let mode = fs::metadata(path).map_err(unreadable)?.permissions().mode() & 0o777;
        if mode & 0o004 != 0 {
            return Err(CertificateError::KeyReadableByAll { path: path.to_owned(), mode });
        }
    }
    let _ = path;
    Ok(())
}
