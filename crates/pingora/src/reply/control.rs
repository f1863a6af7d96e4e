//! What a client may do with subscriptions (§6), by its principal's grants.

use std::{net::IpAddr, sync::Arc};

use async_trait::async_trait;
use durable_streams_auth::{
    AccessError, Operation, OperationSet, Principal, RequestHead, TenantId,
};
use durable_streams_protocol::{
    StreamPath, Timestamp,
    subscription::{Glob, Refusal},
};
use durable_streams_subscriptions::{ControlAccess, ControlAuthority};
use http::{HeaderMap, Method};

use super::{
    access::{Denial, StreamAccess},
    rights::AccessRights,
};

/// The client of one control request.
struct ControlClient {
    access: StreamAccess,
    principal: Arc<Principal>,
    head: OwnedHead,
}

/// A request's head, for decisions that outlive the request: its work goes on without the client.
struct OwnedHead {
    method: Method,
    query: Option<String>,
    headers: HeaderMap,
    client: Option<IpAddr>,
    certificate: Option<Vec<u8>>,
    now: Timestamp,
}

impl OwnedHead {
    fn of(head: &RequestHead<'_>) -> Self {
        OwnedHead {
            method: head.method.clone(),
            query: head.query.map(str::to_owned),
            headers: head.headers.clone(),
            client: head.client,
            certificate: head.certificate.map(<[u8]>::to_vec),
            now: head.now,
        }
    }

    fn on<'a>(&'a self, path: Option<&'a StreamPath>) -> RequestHead<'a> {
        RequestHead {
            method: &self.method,
            query: self.query.as_deref(),
            headers: &self.headers,
            path,
            other_path: None,
            client: self.client,
            certificate: self.certificate.as_deref(),
            now: self.now,
        }
    }
}

impl StreamAccess {
    /// By what right a request under the reserved segment is made. `rest` is the raw path behind it.
    pub(super) async fn control(
        &self,
        head: &RequestHead<'_>,
        rest: &str,
    ) -> Result<(ControlAuthority, Option<AccessRights>), Denial> {
        if *head.method == Method::OPTIONS {
            return Ok((ControlAuthority::WakeToken, None));
        }
        let subscribe = OperationSet::of(Operation::Subscribe);
        if needs_no_principal(rest) {
            // The rate bounds how fast the tokens of wakes can be guessed, as it does for credentials.
            let charged = self.guard.charge_client(head);
            charged.inspect_err(|error| self.log(head, None, subscribe, Some(error)))?;
            return Ok((ControlAuthority::WakeToken, None));
        }
        let principal = self.guard.authenticate(head).await;
        let principal =
            principal.inspect_err(|error| self.log(head, None, subscribe, Some(error)))?;
        // A principal without grants is judged by its provider.
        if !principal.grants.is_empty() && !principal.has(Operation::Subscribe) {
            let refused = if principal.anonymous {
                AccessError::NoCredentials
            } else {
                AccessError::NotAllowed
            };
            self.log(head, Some(&principal), subscribe, Some(&refused));
            return Err(refused.into());
        }
        let rights = AccessRights::of(&self.guard, principal.clone());
        let head = OwnedHead::of(head);
        let client = ControlClient { access: self.clone(), principal, head };
        Ok((ControlAuthority::Client(Arc::new(client)), Some(rights)))
    }
}

impl ControlClient {
    async fn admit(&self, operations: OperationSet, path: &StreamPath) -> Result<(), Refusal> {
        let head = self.head.on(Some(path));
        let admitted = self.access.guard.admit_path(&head, &self.principal, operations, path).await;
        self.judge(&head, operations, admitted.map(drop))
    }

    fn judge(
        &self,
        head: &RequestHead<'_>,
        operations: OperationSet,
        verdict: Result<(), AccessError>,
    ) -> Result<(), Refusal> {
        self.access.log(head, Some(&self.principal), operations, verdict.as_ref().err());
        verdict.map_err(|error| match error {
            AccessError::NoCredentials
            | AccessError::UnknownCredentials
            | AccessError::InvalidCredentials(_) => Refusal::Unauthorized,
            AccessError::NotAllowed | AccessError::Hidden => Refusal::Forbidden,
            error => Refusal::Unavailable(error.to_string()),
        })
    }
}

/// Subscribing to a stream needs reading it too.
fn follow() -> OperationSet {
    OperationSet::of(Operation::Subscribe).union(OperationSet::of(Operation::Read))
}

#[async_trait]
impl ControlAccess for ControlClient {
    fn tenant(&self) -> Option<&TenantId> {
        self.principal.tenant.as_ref()
    }

    async fn follow_pattern(&self, pattern: &Glob) -> Result<(), Refusal> {
        let verdict = self.access.guard.admit_pattern(&self.principal, pattern);
        self.judge(&self.head.on(None), follow(), verdict)
    }

    async fn follow_stream(&self, path: &StreamPath) -> Result<(), Refusal> {
        self.admit(follow(), path).await
    }

    async fn announce_in(&self, wake_stream: &StreamPath) -> Result<(), Refusal> {
        self.admit(OperationSet::of(Operation::Append), wake_stream).await
    }

    fn conceals(&self) -> bool {
        self.access.guard.options().hide_unreadable
    }
}

/// The keys that webhooks are verified with, and requests that bring the protocol's own token.
fn needs_no_principal(rest: &str) -> bool {
    if rest == "/jwks.json" {
        return true;
    }
    let Some(rest) = rest.strip_prefix("/subscriptions/") else { return false };
    matches!(rest.split_once('/'), Some((_, "callback" | "ack" | "release")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_protocols_own_tokens_open_control_paths() {
        for open in [
            "/jwks.json",
            "/subscriptions/a/callback",
            "/subscriptions/a/ack",
            "/subscriptions/a%2Fb/release",
        ] {
            assert!(needs_no_principal(open), "{open}");
        }
        for closed in [
            "",
            "/",
            "/jwks.json/",
            "//jwks.json",
            "/subscriptions/a",
            "/subscriptions/a/claim",
            "/subscriptions/a/streams",
            "/subscriptions/a/streams/ack",
            "/subscriptions/a/ack/b",
            "/subscriptions//ack/../a",
        ] {
            assert!(!needs_no_principal(closed), "{closed}");
        }
    }
}
