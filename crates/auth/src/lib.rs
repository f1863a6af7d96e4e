#![doc = include_str!("../README.md")]

mod access;
mod api_keys;
mod cache;
mod callbacks;
mod chain;
#[cfg(feature = "client-certificates")]
mod client_certificates;
mod credential;
mod credentials;
mod error;
#[cfg(feature = "forward-auth")]
mod forward;
mod grant;
mod guard;
mod jws;
#[cfg(feature = "jwt")]
pub mod jwt;
mod live_readers;
mod memo;
mod meter;
mod operation;
mod principal;
mod projects;
mod rates;
mod signed_url;
mod template;

pub use access::{AccessControl, RequestHead};
pub use api_keys::{API_KEY_PREFIX, ApiKeys, NewApiKey, api_key_id};
pub use callbacks::{AccessClosures, AnonymousAccess, ApiKeyValidator, BearerValidator};
pub use chain::{DuplicateProvider, ProviderChain};
#[cfg(feature = "client-certificates")]
pub use client_certificates::{
    CertificateName, CertificateRule, CertificateTenant, ClientCertificates, ClientIdentity,
    NamePattern,
};
pub use credential::{
    MAX_CREDENTIAL_BYTES, NoRandomness, X_API_KEY, api_key, bearer, cookie, secrets_match,
};
pub use credentials::{
    ApiKeyRecord, CredentialFile, CredentialFileError, ProjectRecord, UrlKeyRecord,
};
pub use durable_streams_protocol::{
    MAX_TENANT_BYTES, TENANTS_PREFIX, TenantId, TenantIdError, client_path, stored_path,
    stored_prefix, stored_tenant,
};
pub use error::{AccessError, RateRefusal, RateUnit};
#[cfg(feature = "forward-auth")]
pub use forward::{
    ForwardAuth, ForwardClient, ForwardFailure, ForwardOptions, ForwardedAnswer, ForwardedRequest,
};
pub use grant::{Grant, MAX_PATTERNS, PathPattern, PathPrefix};
pub use guard::{AccessGuard, Admitted, GuardOptions, RequestSize};
pub use live_readers::{ReaderPermit, ReaderQuotas};
pub use meter::{ByteMeter, MeteredBytes};
pub use operation::{Operation, OperationSet};
pub use principal::Principal;
pub use projects::{
    MAX_PROJECT_SECRETS, NewProjectToken, PROJECT_SECRET_PREFIX, ProjectScope, ProjectTokens,
};
pub use rates::{ByteRate, RateRule, RateRules};
pub use signed_url::{
    NewUrlKey, SignedUrls, URL_SECRET_PREFIX, UrlGrant, redacted_query, sign_url_query,
};
pub use template::ClaimTemplate;
