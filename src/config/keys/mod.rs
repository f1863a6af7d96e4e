//! The sections of the configuration, one file each: keys with type, default, bounds and meaning.

pub(super) mod access_words;
pub(super) mod auth;
pub(super) mod browser;
pub(super) mod client_certificates;
pub(super) mod cors;
pub(super) mod forward_auth;
pub(super) mod lifecycle;
pub(super) mod limits;
pub(super) mod listen;
pub(super) mod log;
pub(super) mod quotas;
pub(super) mod retention;
pub(super) mod root;
pub(super) mod storage;
pub(super) mod subscriptions;
pub(super) mod telemetry;
pub(super) mod tier;
pub(super) mod tracing;
pub(super) mod upstream;
