//! The authorities an upstream's certificate must lead to: those of a PEM file, or those of the system.

use std::path::Path;
use std::sync::Arc;

use pingora::Error;
use pingora::protocols::tls::CaType;
use pingora::tls::{RootCertStore, load_native_certs};
use pingora::utils::tls::{WrappedX509, parse_x509};
use x509_parser::pem::Pem;

/// # Errors
/// What is wrong with the file, naming it.
pub(super) fn load(path: &Path) -> Result<Arc<CaType>, String> {
    let shown = path.display();
    let text = std::fs::read(path).map_err(|e| format!("cannot read tls.ca {shown}: {e}"))?;
    let mut authorities = Vec::new();
    for pem in Pem::iter_from_buffer(&text) {
        let pem = pem.map_err(|e| format!("tls.ca {shown} is not PEM: {e}"))?;
        // `parse_x509` panics on what is no certificate, so look first.
        pem.parse_x509().map_err(|e| format!("tls.ca {shown} holds no valid certificate: {e}"))?;
        authorities.push(WrappedX509::new(pem.contents, parse_x509));
    }
    if authorities.is_empty() {
        return Err(format!("tls.ca {shown} holds no certificate"));
    }
    Ok(authorities.into())
}

/// What verifying a server's certificate failed for, and what to do about it.
const ADVICE: [(&str, &str); 2] = [
    (
        "CaUsedAsEndEntity",
        "the server's own certificate is marked as an authority (CA:TRUE), as `openssl req -x509` makes it; make it with \
         -addext basicConstraints=critical,CA:FALSE, or let it sign a certificate for the server",
    ),
    (
        "UnknownIssuer",
        "no authority in tls.ca, or of the system where there is none, has signed the server's certificate",
    ),
];

/// What to change where the reason of a failed handshake does not say it by itself.
pub(super) fn advice(error: &Error) -> Option<&'static str> {
    let text = error.to_string();
    ADVICE.iter().find(|(reason, _)| text.contains(reason)).map(|(_, advice)| *advice)
}

/// What the authorities of the system are taken from instead, where it is set.
const VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// Loads the authorities of the system and lets them go. Pingora does the same for every connector, whether or not it
/// will speak TLS, and panics where it fails.
///
/// # Errors
/// What cannot be loaded, by the variable that names it, and what to change.
pub(super) fn check_system() -> Result<(), String> {
    load_system().map_err(|reason| {
        let set = VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        let set: Vec<String> = set.map(|(name, value)| format!("{name} = {value:?}")).collect();
        match set.as_slice() {
            [] => format!("cannot load the system's certificate authorities: {reason}; repair them, or name a PEM file in SSL_CERT_FILE"),
            set => format!("cannot load certificate authorities, {}: {reason}; name what can be read, or unset it for those of the system", set.join(", ")),
        }
    })
}

fn load_system() -> Result<(), String> {
    let mut store = RootCertStore::empty();
    for certificate in load_native_certs().map_err(|e| e.to_string())? {
        store.add(certificate).map_err(|e| format!("a certificate is not valid: {e}"))?;
    }
    Ok(())
}
