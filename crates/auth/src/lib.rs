#![doc = include_str!("../README.md")]

mod access;
mod callbacks;
mod chain;
mod credential;
mod error;
mod grant;
mod guard;
mod operation;
mod principal;
mod tenant;

pub use access::{AccessControl, RequestHead};
pub use callbacks::{AccessClosures, AnonymousAccess, ApiKeyValidator, BearerValidator};
pub use chain::{DuplicateProvider, ProviderChain};
pub use credential::{MAX_CREDENTIAL_BYTES, X_API_KEY, api_key, bearer, cookie, secrets_match};
pub use error::AccessError;
pub use grant::{Grant, MAX_PATTERNS, PathPattern};
pub use guard::{AccessGuard, Admitted, GuardOptions, stored_pattern};
pub use operation::{Operation, OperationSet};
pub use principal::Principal;
pub use tenant::{
    MAX_TENANT_BYTES, TenantId, TenantIdError, client_path, stored_path, stored_prefix,
    stored_tenant,
};
