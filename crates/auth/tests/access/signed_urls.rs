//! Signed URLs.

use std::sync::Arc;

use durable_streams_auth::{
    AccessControl, AccessError, NewUrlKey, Operation, SignedUrls, TenantId, UrlGrant,
    redacted_query, sign_url_query,
};
use durable_streams_protocol::StreamPath;

use crate::request::{Request, at, credentials, grant};

fn url(path: &StreamPath) -> UrlGrant<'_> {
    UrlGrant { operation: Operation::Read, path, expires: at(100_000) }
}

fn new_key() -> NewUrlKey {
    NewUrlKey {
        name: "site".into(),
        tenant: None,
        grants: vec![grant(&["read", "append"], "chat/**")],
    }
}

#[tokio::test]
async fn a_url_opens_one_stream_for_one_operation_until_it_ends() {
    let (_folder, _, file) = credentials();
    let (key, _) = file.create_url_key(new_key(), at(0)).unwrap();
    let path = StreamPath::from_url("chat/room%20one").unwrap();
    let signed = file.sign_url(&key.id, &url(&path)).unwrap();
    let provider = Arc::new(SignedUrls::new(file));
    let free = format!("offset=-1&live=sse&{signed}&cursor=7");
    for (query, operation, path, now, status) in [
        (&signed, Operation::Read, "chat/room%20one", 0, 200),
        (&free, Operation::Read, "chat/room%20on%65", 99_999, 200),
        (&signed, Operation::Read, "chat/room%20one", 100_000, 401),
        (&signed, Operation::Append, "chat/room%20one", 0, 403),
        (&signed, Operation::Delete, "chat/room%20one", 0, 403),
        (&signed, Operation::Read, "chat/other", 0, 401),
        (&signed, Operation::Read, "chat/room%2520one", 0, 401),
        (&signed, Operation::Read, "chat/room%20one/", 0, 401),
    ] {
        let request = Request::new(path).query(query).at(at(now));
        let found = request.status(provider.clone(), operation).await;
        assert_eq!(found, status, "{operation} {path} at {now}");
    }
}

#[tokio::test]
async fn no_part_of_a_url_can_be_changed() {
    let (_folder, _, file) = credentials();
    let (key, _) = file.create_url_key(new_key(), at(0)).unwrap();
    let (other, _) = file.create_url_key(new_key(), at(0)).unwrap();
    let path = StreamPath::new("chat/a").unwrap();
    let signed = file.sign_url(&key.id, &url(&path)).unwrap();
    let provider = SignedUrls::new(file);
    assert!(Request::new("chat/a").query(&signed).authenticate(&provider).await.is_ok());
    let without = |name: &str| {
        let kept: Vec<&str> = signed.split('&').filter(|pair| !pair.starts_with(name)).collect();
        kept.join("&")
    };
    for changed in [
        signed.replace("ds-op=read", "ds-op=append"),
        signed.replace("ds-op=read", "ds-op=delete"),
        signed.replace("ds-op=read", "ds-op=READ"),
        signed.replace("ds-exp=100", "ds-exp=200"),
        signed.replace("ds-exp=100", "ds-exp=0100"),
        signed.replace("ds-exp=100", "ds-exp=+100"),
        signed.replace("ds-exp=100", "ds-exp=99999999999999999999"),
        signed.replace(&key.id, &other.id),
        signed.replace(&key.id, "nobody"),
        signed.replace("ds-sig=", "ds-sig=A"),
        format!("{signed}A"),
        format!("{signed}="),
        format!("{signed}&ds-op=append"),
        format!("ds-exp=999&{signed}"),
        without("ds-op"),
        without("ds-exp"),
        without("ds-key"),
        without("ds-sig"),
    ] {
        let refused = Request::new("chat/a").query(&changed).authenticate(&provider).await;
        assert!(matches!(refused, Err(AccessError::InvalidCredentials(_))), "{changed}");
    }
    let none = Request::new("chat/a").query("offset=-1").authenticate(&provider).await;
    assert_eq!(none.unwrap_err(), AccessError::NoCredentials);
    let mut control = Request::new("chat/a").query(&signed);
    control.path = None;
    assert!(control.authenticate(&provider).await.is_err(), "no control request");
}

#[tokio::test]
async fn a_url_can_do_no_more_than_its_key() {
    let (_folder, _, file) = credentials();
    let tenant = TenantId::new("acme").ok();
    let new = NewUrlKey { tenant: tenant.clone(), ..new_key() };
    let (key, secret) = file.create_url_key(new, at(0)).unwrap();
    let outside = StreamPath::new("private/a").unwrap();
    assert!(file.sign_url(&key.id, &url(&outside)).is_err());
    // An application that has the secret signs by itself.
    let provider = SignedUrls::new(file.clone());
    let signed = sign_url_query(&key.id, &secret, &url(&outside)).unwrap();
    let refused = Request::new("private/a").query(&signed).authenticate(&provider).await;
    assert_eq!(refused.unwrap_err(), AccessError::NotAllowed);
    let inside = StreamPath::new("chat/a").unwrap();
    let signed = sign_url_query(&key.id, &secret, &url(&inside)).unwrap();
    let principal = Request::new("chat/a").query(&signed).authenticate(&provider).await.unwrap();
    assert_eq!(principal.tenant, tenant);
    let delete = UrlGrant { operation: Operation::Delete, ..url(&inside) };
    assert_eq!(sign_url_query(&key.id, &secret, &delete), None);

    file.delete_url_key(&key.id).unwrap();
    assert!(!provider.is_current(&principal, at(0)), "a live read ends");
    let refused = Request::new("chat/a").query(&signed).authenticate(&provider).await;
    assert!(matches!(refused, Err(AccessError::InvalidCredentials(_))));
}

#[test]
fn a_log_never_shows_a_signature() {
    assert_eq!(redacted_query("offset=-1&live=sse"), "offset=-1&live=sse");
    for query in ["a=1&ds-sig=secret&b=2", "a=1&ds%2dsig=secret&b=2", "a=1&d%73-sig=secret&b=2"] {
        assert_eq!(redacted_query(query), "a=1&ds-sig=***&b=2");
    }
}

/// The signature as docs/access.md describes it, so that other languages can make one.
#[test]
fn a_known_url() {
    let path = StreamPath::new("chat/room one").unwrap();
    let signed = sign_url_query("4fT0Qa1b", "dsu_example", &url(&path)).unwrap();
    assert_eq!(
        signed,
        "ds-op=read&ds-exp=100&ds-key=4fT0Qa1b&ds-sig=TEGvdUyTBWqVk2Fsjw3dRAhi7JVdSCLav9syY5OTmS4"
    );
}
