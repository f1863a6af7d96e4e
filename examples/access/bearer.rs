//! Sessions of your own application as bearer tokens, one tenant for each organisation:
//! `cargo run --example access -- bearer`, then
//! `curl -X PUT -H 'Authorization: Bearer ada-session' localhost:4437/v1/stream/inbox/ada`.

use std::{sync::Arc, time::Duration};

use durable_streams_auth::{
    AccessError, AccessGuard, BearerValidator, Grant, GuardOptions, OperationSet, PathPattern,
    Principal, TenantId,
};

/// What stands for a lookup in your session store: the user and the organisation.
async fn find_session(token: &str) -> Result<Option<(&'static str, &'static str)>, AccessError> {
    tokio::time::sleep(Duration::from_millis(1)).await;
    match token {
        "ada-session" => Ok(Some(("ada", "acme"))),
        "bob-session" => Ok(Some(("bob", "globex"))),
        // 503: the client tries again.
        "store-is-down" => Err(AccessError::Unavailable { reason: "the session store is away" }),
        _ => Ok(None),
    }
}

pub(crate) fn guard() -> AccessGuard {
    let sessions = BearerValidator::new("sessions", |token| async move {
        let Some((user, organisation)) = find_session(&token).await? else { return Ok(None) };
        let own = PathPattern::parse(&format!("inbox/{user}"));
        let (Ok(own), Ok(tenant)) = (own, TenantId::new(organisation)) else { return Ok(None) };
        Ok(Some(
            Principal::new(user)
                .with_tenant(Some(tenant))
                .with_grant(Grant::on(OperationSet::ALL, own)),
        ))
    });
    AccessGuard::new(Arc::new(sessions), GuardOptions::default())
}
