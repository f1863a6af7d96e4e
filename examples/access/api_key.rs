//! API keys of your own: `cargo run --example access -- api_key`, then
//! `curl -X PUT -H 'X-Api-Key: k-backend' localhost:4437/v1/stream/feeds/news`.

use std::{collections::HashMap, sync::Arc};

use durable_streams_auth::{
    AccessGuard, ApiKeyValidator, Grant, GuardOptions, OperationSet, PathPattern, Principal,
    secrets_match,
};

/// What stands for your database: a key's public part, and its secret.
fn partners() -> HashMap<&'static str, (&'static str, &'static str, OperationSet)> {
    let read = OperationSet::from_word("read").unwrap_or_default();
    HashMap::from([
        ("k-backend", ("backend", "k-backend", OperationSet::ALL)),
        ("k-partner", ("partner-7", "k-partner", read)),
    ])
}

pub(crate) fn guard() -> AccessGuard {
    let partners = Arc::new(partners());
    let keys = ApiKeyValidator::new("partners", move |key| {
        let partners = partners.clone();
        async move {
            let Some((name, secret, operations)) = partners.get(key.as_str()) else {
                return Ok(None); // A key that is not known: 401.
            };
            if !secrets_match(&key, secret) {
                return Ok(None);
            }
            let Ok(feeds) = PathPattern::parse("feeds/**") else { return Ok(None) };
            Ok(Some(Principal::new(*name).with_grant(Grant::on(*operations, feeds))))
        }
    });
    AccessGuard::new(Arc::new(keys), GuardOptions::default())
}
