//! Subscriptions of tenants: apart from each other and from those of no tenant, over a restart too.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use durable_streams_protocol::{
    StreamPath, TenantId,
    subscription::{Glob, MAX_FLOATING, Refusal},
};
use durable_streams_subscriptions::{
    ControlAccess, ControlAuthority, ControlRequest, SubscriptionOptions,
};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::rig::{BASE, Rig, code, options};

/// A client that may do everything below its tenant's root.
struct Owner(TenantId);

#[async_trait]
impl ControlAccess for Owner {
    fn tenant(&self) -> Option<&TenantId> {
        Some(&self.0)
    }

    async fn follow_pattern(&self, _: &Glob) -> Result<(), Refusal> {
        Ok(())
    }

    async fn follow_stream(&self, _: &StreamPath) -> Result<(), Refusal> {
        Ok(())
    }

    async fn announce_in(&self, _: &StreamPath) -> Result<(), Refusal> {
        Ok(())
    }

    fn conceals(&self) -> bool {
        true
    }
}

pub(crate) async fn call(
    rig: &Rig,
    tenant: &str,
    method: Method,
    target: &str,
    body: Value,
) -> (StatusCode, Value) {
    let authority = match tenant {
        "" => ControlAuthority::Unrestricted,
        name => ControlAuthority::Client(Arc::new(Owner(TenantId::new(name).unwrap()))),
    };
    let (headers, body) = (HeaderMap::new(), Bytes::from(body.to_string()));
    let request = ControlRequest {
        method: &method,
        target,
        headers: &headers,
        body,
        base_url: BASE,
        authority,
    };
    let (status, _, body) = rig.subs.handle(request).await;
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

/// The stored path of a tenant's stream.
fn stored(tenant: &str, path: &str) -> String {
    if tenant.is_empty() { path.to_owned() } else { format!("__ds/t/{tenant}/{path}") }
}

async fn pending(rig: &Rig, tenant: &str) -> Vec<String> {
    let claim = json!({"worker": "w"});
    let (status, claimed) = call(rig, tenant, Method::POST, "subscriptions/s/claim", claim).await;
    if status != 200 {
        assert_eq!(code(&claimed), "NO_PENDING_WORK", "{claimed}");
        return Vec::new();
    }
    let streams = claimed["streams"].as_array().unwrap().iter();
    let pending = streams.filter(|stream| stream["has_pending"] == true);
    pending.map(|stream| stream["path"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_restart_keeps_tenants_apart() {
    let mut rig = Rig::new(options()).await;
    for tenant in ["", "acme", "globex"] {
        let body = json!({"type": "pull-wake", "pattern": "**", "streams": ["named"],
            "wake_stream": "w"});
        assert_eq!(call(&rig, tenant, Method::PUT, "subscriptions/s", body).await.0, 201);
    }
    rig.restart().await;
    assert_eq!(rig.subs.len(), 3);
    // Streams of one tenant, and the server's own, are work for that tenant alone.
    for (tenant, path) in [("acme", "a/b"), ("acme", "named"), ("acme", "__ds/own")] {
        rig.create_as(&stored(tenant, path), "application/json", "[1]").await;
    }
    for round in 0..2 {
        if round == 1 {
            rig.restart().await;
        }
        assert_eq!(pending(&rig, "").await, Vec::<String>::new(), "round {round}");
        assert_eq!(pending(&rig, "globex").await, Vec::<String>::new(), "round {round}");
    }
    assert_eq!(pending(&rig, "acme").await, ["a/b", "named"]);
    rig.create_as("x", "application/json", "[1]").await;
    assert_eq!(pending(&rig, "").await, ["x"]);
    assert_eq!(pending(&rig, "globex").await, Vec::<String>::new());
    // Deleted for one, there for the others, and after a restart too.
    assert_eq!(call(&rig, "acme", Method::DELETE, "subscriptions/s", Value::Null).await.0, 204);
    rig.restart().await;
    for (tenant, status) in [("", 200), ("acme", 404), ("globex", 200)] {
        let seen = call(&rig, tenant, Method::GET, "subscriptions/s", Value::Null).await;
        assert_eq!(seen.0, status, "{tenant:?}");
    }
}

#[tokio::test]
async fn names_of_tenants_and_ids_do_not_run_into_each_other() {
    let mut rig = Rig::new(options()).await;
    let body = |n: usize| json!({"type": "pull-wake", "pattern": "**", "wake_stream": "w", "description": n.to_string()});
    let names = [
        ("", "a~b"),
        ("a", "b"),
        ("", "a%7Eb"),
        ("a", "b~c"),
        ("a-b", "c"),
        ("a", "-b~c"),
        ("", "b of tenant a"),
    ];
    for (n, (tenant, id)) in names.into_iter().enumerate() {
        let target = format!("subscriptions/{}", id.replace('%', "%25").replace(' ', "%20"));
        assert_eq!(call(&rig, tenant, Method::PUT, &target, body(n)).await.0, 201, "{tenant} {id}");
    }
    rig.restart().await;
    for (n, (tenant, id)) in names.into_iter().enumerate() {
        let target = format!("subscriptions/{}", id.replace('%', "%25").replace(' ', "%20"));
        let (_, seen) = call(&rig, tenant, Method::GET, &target, Value::Null).await;
        assert_eq!(seen["description"], n.to_string(), "{tenant} {id}");
        assert_eq!(seen["id"], id);
    }
}

/// The body of a subscription whose pattern has thirty segments from the first `**` on, shared with no other one.
fn floating(n: usize) -> Value {
    let tail: Vec<String> = (0..29).map(|at| format!("{n}-{at}")).collect();
    let pattern = format!("**/{}", tail.join("/"));
    json!({"type": "pull-wake", "pattern": pattern, "wake_stream": "w"})
}

#[tokio::test]
async fn the_bound_on_patterns_is_for_all_tenants_together() {
    let rig = Rig::new(options()).await;
    let mut refused = None;
    for n in 0..MAX_FLOATING / 20 {
        let body = floating(n);
        let (status, answer) =
            call(&rig, &format!("t{n}"), Method::PUT, "subscriptions/s", body).await;
        if status != 201 {
            refused = Some((n, code(&answer).to_owned()));
            break;
        }
    }
    let (n, code) = refused.expect("a bound");
    assert_eq!(code, "LIMIT_REACHED");
    assert!((130..=137).contains(&n), "{n}");
}

#[tokio::test]
async fn one_tenant_leaves_room_for_the_others() {
    let bounds = SubscriptionOptions { max_subscriptions: 8, max_links: 40, ..options() };
    let mut rig = Rig::new(bounds).await;
    let pull = |pattern: &str| json!({"type": "pull-wake", "pattern": pattern, "wake_stream": "w"});
    let put = async |rig: &Rig, tenant: &str, id: &str, pattern: &str| {
        let target = format!("subscriptions/{id}");
        let (status, answer) = call(rig, tenant, Method::PUT, &target, pull(pattern)).await;
        (status.as_u16(), answer.to_string())
    };
    for restarted in [false, true] {
        if restarted {
            rig.restart().await;
        }
        // A quarter of the subscriptions.
        for id in ["a", "b"] {
            assert_eq!(put(&rig, "acme", id, "x/*").await.0, if restarted { 200 } else { 201 });
        }
        let (status, refused) = put(&rig, "acme", "c", "x/*").await;
        assert!(status == 507 && refused.contains("of one tenant"), "{status} {refused}");
    }
    // And of the links: ten.
    let add =
        |count: usize| json!({"streams": (0..count).map(|n| format!("y/{n}")).collect::<Vec<_>>()});
    let target = "subscriptions/a/streams";
    assert_eq!(call(&rig, "acme", Method::POST, target, add(11)).await.0, 507);
    assert_eq!(call(&rig, "acme", Method::POST, target, add(10)).await.0, 204);
    assert_eq!(call(&rig, "acme", Method::DELETE, "subscriptions/b", Value::Null).await.0, 204);
    assert_eq!(put(&rig, "acme", "c", "x/*").await.0, 201, "deletion makes room");
    // Others have theirs, and those of no tenant have all that is left.
    assert_eq!(put(&rig, "globex", "a", "x/*").await.0, 201);
    assert_eq!(call(&rig, "globex", Method::POST, target, add(10)).await.0, 204);
    for id in ["a", "b", "c", "d", "e"] {
        assert_eq!(put(&rig, "", id, "x/*").await.0, 201, "{id}");
    }
    assert_eq!(call(&rig, "", Method::POST, target, add(20)).await.0, 204);
    assert_eq!(put(&rig, "", "f", "x/*").await.0, 507);
}

#[tokio::test]
async fn the_patterns_of_one_tenant_have_a_bound_of_their_own() {
    let rig = Rig::new(options()).await;
    let mut refused = None;
    for n in 0..MAX_FLOATING / 20 {
        let body = floating(n);
        let target = format!("subscriptions/{n}");
        let (status, answer) = call(&rig, "acme", Method::PUT, &target, body.clone()).await;
        if status != 201 {
            refused = Some((n, answer.to_string()));
            assert_eq!(call(&rig, "globex", Method::PUT, &target, body).await.0, 201);
            break;
        }
    }
    let (n, answer) = refused.expect("a bound");
    assert!(answer.contains("of one tenant"), "{answer}");
    assert!((32..=35).contains(&n), "{n}");
}
