//! Reads the PEM file with the authorities an upstream's certificate must lead to.

use std::path::Path;
use std::sync::Arc;

use pingora::protocols::tls::CaType;
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
