//! Two closures, one for what changes streams and one for reads: `cargo run --example access -- closures`, then
//! `curl -X PUT -H 'Authorization: Bearer writer' localhost:4437/v1/stream/public/news`, which all may read.

use std::sync::Arc;

use durable_streams_auth::{AccessClosures, AccessGuard, GuardOptions, bearer, secrets_match};

pub(crate) fn guard() -> AccessGuard {
    let is_writer = |token: Option<&str>| token.is_some_and(|token| secrets_match(token, "writer"));
    let closures = AccessClosures::new(
        "closures",
        move |head, _path| bearer(head).is_ok_and(is_writer),
        move |head, path| path.first_segment() == "public" || bearer(head).is_ok_and(is_writer),
    );
    AccessGuard::new(Arc::new(closures), GuardOptions::default())
}
