//! What clients send and are sent: bodies, their limits, refusals, ids, patterns and hosts.

use durable_streams_protocol::{
    TenantId,
    subscription::{
        AckRequest, ClaimRequest, Glob, HostRule, MAX_ID_BYTES, Refusal, ReleaseRequest,
        StreamsRequest, SubscriptionId, SubscriptionName, TargetRules, TokenClaims, WakeId,
        WebhookTarget,
    },
};
use http::StatusCode;
use serde_json::{Value, json};

use crate::{at, config, path, pull_wake, subscription, webhook};

fn parse<T: serde::de::DeserializeOwned>(body: Value) -> T {
    serde_json::from_value(body).unwrap()
}

#[test]
fn a_worker_has_a_name_of_256_bytes_at_most() {
    let worker = |body| parse::<ClaimRequest>(body).worker().map_err(|refusal| refusal.code());
    let long = "w".repeat(256);
    assert_eq!(worker(json!({"worker": "w"})), Ok("w".into()));
    assert_eq!(worker(json!({"worker": long})), Ok(long.clone()));
    for bad in [json!({}), json!({"worker": ""}), json!({"worker": format!("{long}w")})] {
        assert_eq!(worker(bad.clone()), Err("INVALID_REQUEST"), "{bad}");
    }
}

#[test]
fn an_ack_and_a_release_name_the_wake_and_its_generation() {
    let claims = TokenClaims {
        tenant: TenantId::new("acme").ok(),
        subscription: SubscriptionId::new("s").unwrap(),
        generation: 3,
        wake: WakeId::from_random([1; 12]),
        expires: at(9),
    };
    let name =
        SubscriptionName { tenant: TenantId::new("acme").ok(), id: claims.subscription.clone() };
    assert_eq!(claims.name(), name);
    for (body, whole) in [
        (json!({"wake_id": "w_1", "generation": 3}), true),
        (json!({"wake_id": "w_1"}), false),
        (json!({"generation": 3}), false),
        (json!({}), false),
    ] {
        let ack: AckRequest = parse(body.clone());
        let release: ReleaseRequest = parse(body.clone());
        for fence in [ack.fence(&claims), release.fence(&claims)] {
            match fence {
                Ok(fence) => {
                    assert!(whole, "{body}");
                    assert_eq!((fence.wake_id, fence.generation), ("w_1", 3));
                    assert_eq!(fence.claims, &claims);
                }
                Err(refusal) => assert!(!whole && refusal.code() == "INVALID_REQUEST", "{body}"),
            }
        }
    }
}

#[test]
fn a_request_links_1_to_10_000_streams() {
    let paths = |streams: Value| parse::<StreamsRequest>(json!({ "streams": streams })).paths();
    assert_eq!(paths(json!(["b", "/a", "b"])), Ok(vec![path("a"), path("b")]));
    for bad in [json!([]), json!(null), json!(["a/../b"])] {
        assert_eq!(paths(bad.clone()).unwrap_err().code(), "INVALID_REQUEST", "{bad}");
    }
    let many = |count: usize| json!((0..count).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(paths(many(10_000)).unwrap().len(), 10_000);
    let refusal = paths(many(10_001)).unwrap_err();
    assert_eq!(refusal, Refusal::TooMany { what: "streams per request", limit: 10_000 });
}

#[test]
fn every_refusal_has_its_status_and_code() {
    let text = String::new;
    for (refusal, status, code) in [
        (Refusal::InvalidRequest(text()), 400, "INVALID_REQUEST"),
        (Refusal::RouteNotFound, 404, "ROUTE_NOT_FOUND"),
        (Refusal::MethodNotAllowed { allow: "GET" }, 405, "METHOD_NOT_ALLOWED"),
        (Refusal::NotFound, 404, "SUBSCRIPTION_NOT_FOUND"),
        (Refusal::Unauthorized, 401, "UNAUTHORIZED"),
        (Refusal::Forbidden, 403, "FORBIDDEN"),
        (Refusal::AlreadyExists, 409, "SUBSCRIPTION_ALREADY_EXISTS"),
        (Refusal::UrlRejected(text()), 400, "WEBHOOK_URL_REJECTED"),
        (Refusal::WebhooksNotConfigured, 501, "WEBHOOKS_NOT_CONFIGURED"),
        (Refusal::TokenInvalid, 401, "TOKEN_INVALID"),
        (Refusal::TokenExpired, 401, "TOKEN_EXPIRED"),
        (Refusal::Fenced, 409, "FENCED"),
        (Refusal::NoPendingWork, 409, "NO_PENDING_WORK"),
        (Refusal::InvalidOffset(text()), 409, "INVALID_OFFSET"),
        (Refusal::TooMany { what: "links", limit: 1 }, 507, "LIMIT_REACHED"),
        (Refusal::TooLarge { limit: 1 }, 413, "BODY_TOO_LARGE"),
        (Refusal::Unavailable(text()), 503, "UNAVAILABLE"),
    ] {
        assert_eq!(refusal.status(), StatusCode::from_u16(status).unwrap(), "{code}");
        let expected = json!({"error": {"code": code, "message": refusal.to_string()}});
        assert_eq!(refusal.body(), expected);
    }
    let refusal = Refusal::AlreadyClaimed { holder: "w".into(), generation: 7 };
    assert_eq!(refusal.status(), StatusCode::CONFLICT);
    let error = json!({"code": "ALREADY_CLAIMED", "message": refusal.to_string(),
        "current_holder": "w", "generation": 7});
    assert_eq!(refusal.body(), json!({ "error": error }));
}

#[test]
fn ids_are_shown_as_they_are() {
    let id = SubscriptionId::new("a b/é").unwrap();
    assert_eq!((id.as_str(), id.to_string()), ("a b/é", "a b/é".into()));
    let wake = WakeId::from_random([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xab, 0xff]);
    let text = "w_00010203040506070809abff";
    assert_eq!((wake.as_str(), wake.to_string()), (text, text.into()));
}

#[test]
fn a_subscription_id_has_256_bytes_at_most_and_no_control_character() {
    assert!(SubscriptionId::new(&"i".repeat(MAX_ID_BYTES)).is_ok());
    for bad in ["", "a\nb", "a\u{85}b", &"i".repeat(MAX_ID_BYTES + 1)] {
        assert_eq!(SubscriptionId::new(bad).unwrap_err().code(), "INVALID_REQUEST", "{bad:?}");
    }
}

#[test]
fn the_lease_is_a_second_to_ten_minutes() {
    let lease = |millis: u64| {
        config(&format!(r#""type":"pull-wake","wake_stream":"w","lease_ttl_ms":{millis}"#))
            .map(|config| config.lease_ttl_ms)
    };
    assert_eq!((lease(1_000), lease(600_000)), (Ok(1_000), Ok(600_000)));
    assert!(lease(999).is_err() && lease(600_001).is_err());
    assert_eq!(pull_wake().lease_ttl_ms, 30_000);
}

/// Every wake would cause the next.
#[test]
fn a_pattern_does_not_link_its_own_wake_stream() {
    let body = json!({"type": "pull-wake", "wake_stream": "wake/x", "pattern": "**"});
    let request: durable_streams_protocol::subscription::CreateRequest = parse(body);
    let config = request.into_config().unwrap();
    assert!(config.matches(&path("wake/y")) && !config.matches(&path("wake/x")));
    assert!(!pull_wake().matches(&path("wake/y")), "outside of its pattern");
}

#[test]
fn a_pattern_has_1_to_1024_bytes() {
    let of = |bytes: usize| Glob::parse(&"p".repeat(bytes));
    assert_eq!(of(1_024).unwrap().to_string().len(), 1_024);
    assert!(of(1_025).unwrap_err().contains("1024") && of(0).is_err());
    assert!(Glob::parse("a\nb").is_err());
}

#[test]
fn a_pattern_knows_the_text_that_all_its_paths_begin_with() {
    for (pattern, prefix, first) in [
        ("a/b/c", "a/b/c", Some("a")),
        ("a/b/*/c", "a/b", Some("a")),
        ("a/**", "a", Some("a")),
        ("*/a", "", None),
        ("**", "", None),
    ] {
        let glob = Glob::parse(pattern).unwrap();
        assert_eq!((glob.literal_prefix().as_str(), glob.first_literal()), (prefix, first));
        assert_eq!((glob.as_str(), glob.to_string()), (pattern, pattern.into()));
        assert_eq!(serde_json::to_value(&glob).unwrap(), json!(pattern));
    }
}

#[test]
fn a_webhook_url_has_2048_bytes_at_most() {
    let of = |bytes: usize| {
        let url = format!("https://w.example/{}", "x".repeat(bytes - 18));
        WebhookTarget::parse(&url, &TargetRules::default())
    };
    assert_eq!(of(2_048).unwrap().url.as_str().len(), 2_048);
    assert!(of(2_049).unwrap_err().contains("2048 bytes"));
}

/// A refusal that says what to change, so that the operator or the client knows whose turn it is.
#[test]
fn a_refused_webhook_url_says_why() {
    let list = TargetRules {
        allow_http_localhost: false,
        allowed_hosts: vec![HostRule::parse("*.w.example."), HostRule::parse("*x.example")],
    };
    let all = TargetRules::default();
    for (url, rules, why) in [
        ("https://u@w.example/", &all, "user name"),
        ("https://u:p@w.example/", &all, "user name"),
        ("https://:p@w.example/", &all, "user name"),
        ("https://w.example:0/", &all, "port 0"),
        ("mailto:a@w.example", &all, "no host"),
        ("ftp://w.example/", &all, "https://"),
        ("http://w.example/", &all, "https://"),
        ("http://localhost/", &all, "development"),
        ("https://localhost/", &all, "private"),
        ("https://a.internal/", &all, "private"),
        ("https://10.0.0.1/", &all, "private"),
        ("https://[fd00::1]/", &all, "private"),
        ("https://./", &all, "private"),
        ("https://w.example/", &list, "allows"),
        ("https://.w.example/", &list, "allows"),
        ("https://ax.example/", &list, "allows"),
    ] {
        let refusal = WebhookTarget::parse(url, rules).unwrap_err();
        assert!(refusal.contains(why), "{url}: {refusal}");
    }
    let target = WebhookTarget::parse("https://A.w.example/x?y#z", &list).unwrap();
    assert_eq!((target.url.as_str(), target.local), ("https://a.w.example/x?y", false));
    assert!(
        target.allows("8.8.8.8".parse().unwrap()) && !target.allows("10.0.0.1".parse().unwrap())
    );
    assert!(!target.allows("127.0.0.1".parse().unwrap()));
}

#[test]
fn the_callback_is_for_webhooks_and_the_claim_for_pull_wake() {
    let (post, pull) = (subscription(webhook()), subscription(pull_wake()));
    assert_eq!((post.expect_webhook(), pull.expect_pull_wake()), (Ok(()), Ok(())));
    assert_eq!(pull.expect_webhook().unwrap_err().code(), "INVALID_REQUEST");
    assert_eq!(post.expect_pull_wake().unwrap_err().code(), "INVALID_REQUEST");
}
