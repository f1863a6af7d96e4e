//! TLS towards clients: certificates, handshakes, client certificates, and the PROXY header before them.
//!
//! | file | what it is |
//! |---|---|
//! | `options` | options of a listener with TLS |
//! | `certificate` | a certificate chain and its key, read and judged |
//! | `pem` | PEM files: chains, keys, authorities |
//! | `resolver` | which certificate answers which server name (SNI) |
//! | `client_auth` | client certificates: who may connect |
//! | `listener` | one listener: its rustls configuration, replaced while it serves |
//! | `handshake` | one connection: the handshake, bounded in time and number |
//! | `proxy_header` | the PROXY protocol header that a load balancer sends first |
//! | `internal` | a certificate authority of the server's own, for development |
//! | `service` | the work beside the handshakes: files, expiry, orders |
//! | `files` | certificates from files, read again when the files change |
//! | `acme` | certificates that the server orders and renews itself |
//!
//! Invariants
//! - A certificate that is refused at reload leaves the one in use in place.
//! - A private key that the operating system lets every user read is refused.
//! - Nothing of a connection is parsed as HTTP before its handshake is complete.

pub mod acme;
mod certificate;
mod client_auth;
mod files;
mod handshake;
mod internal;
mod listener;
mod options;
mod pem;
pub(crate) mod proxy_header;
mod resolver;
mod service;

pub use certificate::{CertificateError, CertificateFacts};
pub use internal::root_pem as internal_root;
pub use listener::TlsListener;
pub use options::{CertificateFiles, CertificateSource, ClientAuthOptions, TlsOptions};
pub use resolver::AlpnChallenges;
pub use service::{TlsError, TlsService};

pub(crate) use handshake::{FirstByte, HandshakeFailure, MAX_HANDSHAKES};

#[cfg(test)]
mod tests;
