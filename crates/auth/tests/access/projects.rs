//! Project tokens.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use durable_streams_auth::{
    AccessControl, AccessError, MAX_PROJECT_SECRETS, NewProjectToken, Operation, ProjectScope,
    ProjectTokens,
};
use ring::hmac;
use serde_json::{Value, json};

use crate::request::{Request, at, credentials};

/// What an application does with any JWT library.
fn sign(secret: &str, header: Value, claims: Value) -> String {
    let part = |value: Value| BASE64URL.encode(value.to_string());
    let signed = format!("{}.{}", part(header), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    format!("{signed}.{}", BASE64URL.encode(hmac::sign(&key, signed.as_bytes())))
}

fn hs256() -> Value {
    json!({ "alg": "HS256", "typ": "JWT" })
}

#[tokio::test]
async fn a_token_reaches_its_project_with_its_scope_until_it_ends() {
    let (_folder, _, file) = credentials();
    let secret = file.create_project("acme", at(0)).unwrap();
    file.create_project("other", at(0)).unwrap();
    let provider = Arc::new(ProjectTokens::new(file, None, 1 << 20));
    let read = sign(&secret, hs256(), json!({"sub": "acme", "scope": "read", "exp": 100}));
    let write = sign(&secret, hs256(), json!({"sub": "acme", "scope": "write", "exp": 100.5}));
    let one = json!({"sub": "acme", "scope": "write", "exp": 100, "stream_id": "a/*"});
    let one = sign(&secret, hs256(), one);
    for (token, operation, path, now, status) in [
        (&read, Operation::Read, "acme/x", 0, 200),
        (&read, Operation::Read, "acme", 0, 200),
        (&read, Operation::Read, "other/x", 0, 404),
        (&read, Operation::Read, "acme-2/x", 0, 404),
        (&read, Operation::Append, "acme/x", 0, 403),
        (&read, Operation::Read, "acme/x", 99_999, 200),
        (&read, Operation::Read, "acme/x", 100_000, 401),
        (&write, Operation::Read, "acme/x", 100_499, 200),
        (&write, Operation::Create, "acme/x", 0, 200),
        (&write, Operation::Delete, "acme/x/y", 0, 200),
        (&write, Operation::Administer, "acme/x", 0, 403),
        (&write, Operation::Create, "x", 0, 403),
        (&one, Operation::Append, "acme/a/*", 0, 200),
        (&one, Operation::Append, "acme/a/b", 0, 404),
    ] {
        // Twice: verified, and remembered.
        for _ in 0..2 {
            let request = Request::bearer(path, token).at(at(now));
            let found = request.status(provider.clone(), operation).await;
            assert_eq!(found, status, "{operation} {path} at {now}");
        }
    }
}

#[tokio::test]
async fn a_forged_or_malformed_token_is_refused() {
    let (_folder, _, file) = credentials();
    let secret = file.create_project("acme", at(0)).unwrap();
    let other = file.create_project("other", at(0)).unwrap();
    let provider = ProjectTokens::new(file, None, 1 << 20);
    let claims = json!({"sub": "acme", "scope": "read", "exp": 100});
    let good = sign(&secret, hs256(), claims.clone());
    assert!(Request::bearer("acme/x", &good).authenticate(&provider).await.is_ok());

    let unsigned = |alg: &str| {
        let header = BASE64URL.encode(json!({ "alg": alg }).to_string());
        format!("{header}.{}.", BASE64URL.encode(claims.to_string()))
    };
    for (what, token) in [
        ("alg none", unsigned("none")),
        ("no signature", unsigned("HS256")),
        ("another project's secret", sign(&other, hs256(), claims.clone())),
        ("an empty secret", sign("", hs256(), claims.clone())),
        ("a kid of nobody", sign(&secret, json!({"alg": "HS256", "kid": "x"}), claims.clone())),
        (
            "a kid that is a path",
            sign(&secret, json!({"alg": "HS256", "kid": "../../dev/null"}), claims.clone()),
        ),
        ("an extension", sign(&secret, json!({"alg": "HS256", "crit": ["exp"]}), claims.clone())),
        (
            "a logout token",
            sign(&secret, json!({"alg": "HS256", "typ": "logout+jwt"}), claims.clone()),
        ),
        ("HS384", sign(&secret, json!({"alg": "HS384"}), claims.clone())),
        ("no exp", sign(&secret, hs256(), json!({"sub": "acme", "scope": "read"}))),
        (
            "exp as text",
            sign(&secret, hs256(), json!({"sub": "acme", "scope": "read", "exp": "100"})),
        ),
        ("no scope", sign(&secret, hs256(), json!({"sub": "acme", "exp": 100}))),
        (
            "a scope of two words",
            sign(&secret, hs256(), json!({"sub": "acme", "scope": "read write", "exp": 100})),
        ),
        (
            "a project of nobody",
            sign(&secret, hs256(), json!({"sub": "nobody", "scope": "read", "exp": 100})),
        ),
        (
            "a list of projects",
            sign(&secret, hs256(), json!({"sub": ["acme"], "scope": "read", "exp": 100})),
        ),
        (
            "an issuer",
            sign(&secret, hs256(), json!({"iss": "x", "sub": "acme", "scope": "read", "exp": 100})),
        ),
        (
            "a stream above",
            sign(
                &secret,
                hs256(),
                json!({"sub": "acme", "scope": "read", "exp": 100, "stream_id": "../other/x"}),
            ),
        ),
        (
            "a stream that is no text",
            sign(
                &secret,
                hs256(),
                json!({"sub": "acme", "scope": "read", "exp": 100, "stream_id": null}),
            ),
        ),
        (
            "not yet",
            sign(&secret, hs256(), json!({"sub": "acme", "scope": "read", "exp": 100, "nbf": 31})),
        ),
    ] {
        let refused = Request::bearer("acme/x", &token).authenticate(&provider).await;
        assert_eq!(refused.map_err(|error| error.status().as_u16()), Err(401), "{what}");
    }
    let soon = json!({"sub": "acme", "scope": "read", "exp": 100, "nbf": 30});
    let soon = sign(&secret, hs256(), soon);
    assert!(Request::bearer("acme/x", &soon).authenticate(&provider).await.is_ok(), "clock skew");
}

#[tokio::test]
async fn a_changed_byte_breaks_a_token() {
    let (_folder, _, file) = credentials();
    let secret = file.create_project("acme", at(0)).unwrap();
    let provider = ProjectTokens::new(file, None, 1 << 20);
    let token = sign(&secret, hs256(), json!({"sub": "acme", "scope": "read", "exp": 100}));
    assert!(Request::bearer("acme/x", &token).authenticate(&provider).await.is_ok());
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let text = String::from_utf8(bytes).unwrap();
        let refused = Request::bearer("acme/x", &text).authenticate(&provider).await;
        assert!(refused.is_err(), "byte {at}");
    }
}

#[tokio::test]
async fn secrets_are_rotated_and_projects_deleted_while_readers_follow() {
    let (_folder, _, file) = credentials();
    let first = file.create_project("acme", at(0)).unwrap();
    assert!(file.create_project("acme", at(0)).is_err());
    assert!(file.create_project("a/b", at(0)).is_err());
    let provider = ProjectTokens::new(file.clone(), None, 1 << 20);
    let claims = json!({"sub": "acme", "scope": "read", "exp": 100});
    let old = sign(&first, hs256(), claims.clone());
    let reader = Request::bearer("acme/x", &old).authenticate(&provider).await.unwrap();

    let second = file.rotate_project("acme", false, at(1)).unwrap();
    let new = sign(&second, hs256(), claims.clone());
    for token in [&old, &new] {
        assert!(Request::bearer("acme/x", token).authenticate(&provider).await.is_ok());
    }
    assert!(provider.is_current(&reader, at(0)));

    file.rotate_project("acme", true, at(2)).unwrap();
    assert!(!provider.is_current(&reader, at(0)), "its secret is gone");
    for token in [&old, &new] {
        let refused = Request::bearer("acme/x", token).authenticate(&provider).await;
        assert!(refused.is_err(), "a remembered token is forgotten");
    }
    for _ in 0..10 {
        file.rotate_project("acme", false, at(3)).unwrap();
    }
    assert_eq!(file.projects()[0].secret_ids().count(), MAX_PROJECT_SECRETS);

    let token = NewProjectToken {
        project: "acme",
        scope: ProjectScope::Write,
        stream_id: Some("a"),
        expires: at(50_000),
    };
    let issued = file.issue_project_token(&token).unwrap();
    let principal = Request::bearer("acme/a", &issued).authenticate(&provider).await.unwrap();
    assert_eq!(principal.expires, Some(at(50_000)));
    file.delete_project("acme").unwrap();
    assert!(file.delete_project("acme").is_err());
    assert!(!provider.is_current(&principal, at(0)));
    let refused = Request::bearer("acme/a", &issued).authenticate(&provider).await;
    assert_eq!(refused.unwrap_err(), AccessError::UnknownCredentials);
    assert!(file.issue_project_token(&token).is_err());
}
