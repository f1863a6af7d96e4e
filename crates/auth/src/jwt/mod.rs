//! Tokens of an identity provider: JWT (RFC 7519) and the keys of OpenID Connect.
//!
//! `jsonwebtoken` brings the types of keys and algorithms, ring the cryptography. Its `decode` is not used:
//! it panics unless the process installed one provider of cryptography for all its users, reads the clock
//! itself, takes an `iss` that is a list, and passes over `crit`.
//!
//! Invariants
//! - An issuer verifies only with its own keys, and only with the algorithms that its configuration lists.
//!   A shared secret never meets a key set: the two exclude each other in [`KeySource`], so a public key
//!   is never an HMAC secret.
//! - Nothing in a token names a key beyond `kid`, which is only compared.
//! - A token with an unknown `kid` causes at most one fetch per [`REFETCH_PAUSE_SECONDS`].

mod claims;
mod issuer;
mod keys;
mod source;
mod verify;

pub use crate::ClaimTemplate;
pub use claims::{AudienceRule, ClaimRules};
pub use issuer::{IssuerOptions, IssuerOptionsError, JwtIssuer};
pub use jsonwebtoken::Algorithm as JwtAlgorithm;
pub use url::Url;

pub use source::{FetchKeys, KeyFetchError, KeySource, REFETCH_PAUSE_SECONDS};
