//! HTTPS of the real binary: certificates from files, from a local authority and from an ACME server, client
//! certificates, the PROXY protocol, redirects.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]

mod acme;
mod authority;
mod certificates;
mod client_certificates;
mod listeners;
mod memory;
mod pebble;
mod process;
mod secure;
#[path = "../support/skips.rs"]
mod skips;
