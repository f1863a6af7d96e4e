//! The built-in providers, through their public interface.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops where it fails")]

mod api_keys;
#[cfg(feature = "forward-auth")]
mod forward;
#[cfg(feature = "jwt")]
mod issuers;
#[cfg(feature = "jwt")]
mod jwt_attacks;
mod known;
mod projects;
mod request;
mod signed_urls;
#[cfg(feature = "jwt")]
mod token_shapes;
