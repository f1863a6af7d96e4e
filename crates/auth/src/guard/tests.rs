use super::*;
use crate::{
    AnonymousAccess, BearerValidator, Grant, PathPattern, ProviderChain, TenantId, client_path,
    stored_tenant,
};
use async_trait::async_trait;
use http::{HeaderMap, Method};
use proptest::prelude::*;

fn path(text: &str) -> StreamPath {
    StreamPath::new(text).unwrap()
}

fn grant(words: &[&str], pattern: &str) -> Grant {
    let set = words.iter().map(|word| OperationSet::from_word(word).unwrap());
    let set = set.fold(OperationSet::NONE, OperationSet::union);
    Grant::on(set, PathPattern::parse(pattern).unwrap())
}

fn operation(word: &str) -> OperationSet {
    OperationSet::from_word(word).unwrap()
}

fn rate_refusal() -> AccessError {
    AccessError::RateLimited(crate::RateRefusal {
        policy: "x",
        unit: crate::RateUnit::Requests,
        quota: 1,
        window: None,
        retry_after: std::time::Duration::ZERO,
    })
}

/// Tokens are names of principals.
fn guard(options: GuardOptions) -> AccessGuard {
    let users = BearerValidator::new("users", |token| async move {
        let tenant = |name: &str| Some(TenantId::new(name).unwrap());
        Ok(match token.as_str() {
            "reader" => Some(Principal::new("reader").with_grant(grant(&["read"], "pub/**"))),
            "writer" => Some(Principal::new("writer").with_grant(grant(&["append"], "pub/**"))),
            "root" => Some(Principal::new("root").with_grant(grant(&["all"], "**"))),
            "acme" => Some(
                Principal::new("a").with_tenant(tenant("acme")).with_grant(grant(&["all"], "**")),
            ),
            "late" => Some(
                Principal::new("l")
                    .with_grant(grant(&["all"], "**"))
                    .with_expiry(Some(Timestamp::from_millis(1_000))),
            ),
            "down" => return Err(AccessError::Unavailable { reason: "test" }),
            _ => None,
        })
    });
    let mut chain = ProviderChain::new();
    chain.push(Arc::new(users)).unwrap();
    chain.push(Arc::new(AnonymousAccess::new(vec![grant(&["read"], "open/**")]))).unwrap();
    AccessGuard::new(Arc::new(chain), options)
}

async fn admit(
    guard: &AccessGuard,
    token: &str,
    operations: OperationSet,
    path: &StreamPath,
    now: u64,
) -> Result<Admitted, AccessError> {
    let mut headers = HeaderMap::new();
    if !token.is_empty() {
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let head = RequestHead {
        method: &Method::GET,
        query: None,
        headers: &headers,
        path: Some(path),
        client: None,
        certificate: None,
        other_path: None,
        now: Timestamp::from_millis(now),
    };
    guard.admit(&head, operations, path).await
}

#[tokio::test]
async fn every_principal_gets_what_its_grants_say() {
    let guard = guard(GuardOptions::default());
    for (token, word, stream, expected) in [
        ("reader", "read", "pub/a", None),
        ("reader", "append", "pub/a", Some(AccessError::NotAllowed)),
        ("reader", "read", "private/a", Some(AccessError::Hidden)),
        ("writer", "append", "pub/a", None),
        ("writer", "close", "pub/a", Some(AccessError::Hidden)),
        ("writer", "read", "pub/a", Some(AccessError::Hidden)),
        ("root", "delete", "t/acme/x", None),
        ("root", "administer", "x", Some(AccessError::NotAllowed)),
        ("", "read", "open/a", None),
        ("", "append", "open/a", Some(AccessError::NoCredentials)),
        ("", "read", "pub/a", Some(AccessError::NoCredentials)),
        ("unknown", "read", "open/a", Some(AccessError::UnknownCredentials)),
        ("down", "read", "open/a", Some(AccessError::Unavailable { reason: "test" })),
    ] {
        let verdict = admit(&guard, token, operation(word), &path(stream), 0).await;
        assert_eq!(verdict.err(), expected, "{token} {word} {stream}");
    }
}

#[tokio::test]
async fn hiding_can_be_switched_off() {
    let guard = guard(GuardOptions { hide_unreadable: false, ..GuardOptions::default() });
    let verdict = admit(&guard, "reader", operation("read"), &path("private/a"), 0).await;
    assert_eq!(verdict.unwrap_err(), AccessError::NotAllowed);
}

#[tokio::test]
async fn publishing_can_be_forbidden_to_all() {
    let path = path("pub/a");
    let publish = operation("create").union(operation("publish"));
    let allowed = guard(GuardOptions::default());
    assert!(admit(&allowed, "root", publish, &path, 0).await.is_ok());
    let forbidden = guard(GuardOptions { public_streams: false, ..GuardOptions::default() });
    assert_eq!(
        admit(&forbidden, "root", publish, &path, 0).await.err(),
        Some(AccessError::NotAllowed)
    );
    assert_eq!(
        admit(&forbidden, "", publish, &path, 0).await.err(),
        Some(AccessError::NoCredentials)
    );
    assert!(admit(&forbidden, "root", operation("create"), &path, 0).await.is_ok());
    for (refused, public) in [
        (AccessError::NoCredentials, true),
        (AccessError::UnknownCredentials, false),
        (AccessError::InvalidCredentials("x"), false),
        (AccessError::Unavailable { reason: "x" }, false),
        (rate_refusal(), false),
    ] {
        assert_eq!(allowed.public_path(None, &path, &refused).is_some(), public, "{refused:?}");
        assert_eq!(forbidden.public_path(None, &path, &refused), None);
    }
}

#[tokio::test]
async fn all_operations_of_a_request_are_needed() {
    let guard = guard(GuardOptions::default());
    let both = operation("append").union(operation("close"));
    assert!(admit(&guard, "writer", both, &path("pub/a"), 0).await.is_err());
    assert!(admit(&guard, "root", both, &path("pub/a"), 0).await.is_ok());
    let none = admit(&guard, "root", OperationSet::NONE, &path("pub/a"), 0).await;
    assert_eq!(none.unwrap_err(), AccessError::NotAllowed, "a request does something");
}

#[tokio::test]
async fn a_principal_whose_time_has_come_is_refused() {
    let guard = guard(GuardOptions::default());
    let admitted = admit(&guard, "late", operation("read"), &path("a"), 999).await.unwrap();
    assert!(!guard.is_current(&admitted.principal, Timestamp::from_millis(1_000)));
    let late = admit(&guard, "late", operation("read"), &path("a"), 1_000).await;
    assert!(matches!(late, Err(AccessError::InvalidCredentials(_))));
}

#[tokio::test]
async fn a_tenant_lives_in_its_own_place() {
    let guard = guard(GuardOptions::default());
    let admitted = admit(&guard, "acme", operation("read"), &path("t/other/x"), 0).await.unwrap();
    assert_eq!(admitted.stored.as_str(), "__ds/t/acme/t/other/x");
    let own = StreamPath::system("__ds/t/acme/x").unwrap();
    for token in ["acme", "root"] {
        let verdict = admit(&guard, token, operation("read"), &own, 0).await;
        assert_eq!(verdict.unwrap_err(), AccessError::NotAllowed, "{token}");
    }
}

#[tokio::test]
async fn a_pattern_needs_a_grant_on_all_that_it_can_match() {
    let guard = guard(GuardOptions::default());
    let mut principal = Principal::new("x")
        .with_grant(grant(&["read", "subscribe"], "chat/**"))
        .with_grant(grant(&["read"], "logs/**"));
    principal.provider = "users".into();
    let pattern = |text: &str| Glob::parse(text).unwrap();
    assert!(guard.admit_pattern(&principal, &pattern("chat/*/messages")).is_ok());
    for refused in ["**", "*/room", "logs/a", "chats/**"] {
        let verdict = guard.admit_pattern(&principal, &pattern(refused));
        assert_eq!(verdict, Err(AccessError::NotAllowed), "{refused}");
    }
    principal.provider = "nobody".into();
    let verdict = guard.admit_pattern(&principal, &pattern("chat/a"));
    assert_eq!(verdict, Err(AccessError::NotAllowed), "its provider decides, and there is none");
}

#[tokio::test]
async fn names_lead_a_principal_back_to_its_provider() {
    struct Refusing;
    #[async_trait]
    impl AccessControl for Refusing {
        fn name(&self) -> &str {
            "refusing"
        }
        async fn authenticate(&self, _: &RequestHead<'_>) -> Result<Arc<Principal>, AccessError> {
            // With all grants, and a name that is not its own.
            let mut principal = Principal::new("x").with_grant(grant(&["all"], "**"));
            principal.provider = "anonymous".into();
            Ok(Arc::new(principal))
        }
        async fn authorize(
            &self,
            _: &RequestHead<'_>,
            _: &Principal,
            _: Operation,
            _: &StreamPath,
        ) -> Result<(), AccessError> {
            Err(AccessError::NotAllowed)
        }
    }
    let mut chain = ProviderChain::new();
    chain.push(Arc::new(Refusing)).unwrap();
    assert!(chain.push(Arc::new(Refusing)).is_err(), "a name leads to one provider");
    chain.push(Arc::new(AnonymousAccess::new(vec![grant(&["all"], "**")]))).unwrap();
    let guard = AccessGuard::new(
        Arc::new(chain),
        GuardOptions { hide_unreadable: false, ..GuardOptions::default() },
    );
    let verdict = admit(&guard, "", operation("read"), &path("a"), 0).await;
    assert_eq!(verdict.unwrap_err(), AccessError::NotAllowed);
}

fn any_url() -> impl Strategy<Value = String> {
    let piece = proptest::sample::select(vec![
        "users", "ada", "bob", "__ds", "%5F_ds", "t", "acme", "/", "/", "/", "%2F", "//", ".",
        "..", "%2e%2e", "\\", "%5c", "%25", "%252e", "%00", "*", "**", "%2A", "é", "?", "#", ";",
        "%61da",
    ]);
    proptest::collection::vec(piece, 1..9).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Whatever a principal writes, it reaches only streams whose stored path lies where its grants and
    /// its tenant say, by the plainest reading of that stored path.
    #[test]
    fn no_spelling_leads_outside_the_grants(
        url in any_url(),
        tenant in proptest::option::of(proptest::sample::select(vec!["acme", "t", "users"])),
        word in proptest::sample::select(vec!["create", "append", "close", "read", "delete"]),
    ) {
        let Ok(named) = StreamPath::from_url(&url) else { return Ok(()) };
        let tenant = tenant.map(|name| TenantId::new(name).unwrap());
        let principal = Principal::new("ada")
            .with_tenant(tenant.clone())
            .with_grant(grant(&["read", "append"], "users/ada/**"));
        let guard = guard(GuardOptions::default());
        let headers = HeaderMap::new();
        let head = RequestHead {
            method: &Method::GET,
            query: None,
            headers: &headers,
            path: Some(&named),
            client: None,
            certificate: None,
            other_path: None,
            now: Timestamp::from_millis(0),
        };
        struct ByGrants;
        #[async_trait]
        impl AccessControl for ByGrants {
            fn name(&self) -> &str { "by-grants" }
            async fn authenticate(&self, _: &RequestHead<'_>) -> Result<Arc<Principal>, AccessError> {
                Err(AccessError::NoCredentials)
            }
        }
        let guard = AccessGuard { control: Arc::new(ByGrants), ..guard };
        // What may be read because it is public is found where the client's own streams are, if any is.
        for who in [None, Some(&principal)] {
            let refused = AccessError::NotAllowed;
            let Some(public) = guard.public_path(who, &named, &refused) else { continue };
            let owner = who.and_then(|who| who.tenant.as_ref());
            prop_assert_eq!(stored_tenant(&public), owner.cloned());
            prop_assert_eq!(client_path(owner, &public), Some(named.clone()));
        }
        let admitted = pollster(guard.admit_principal(
            &head, Arc::new(principal), operation(word), &named,
        ));
        let place = match &tenant {
            Some(tenant) => format!("__ds/t/{tenant}/users/ada"),
            None => "users/ada".to_owned(),
        };
        match admitted {
            Ok(admitted) => {
                let stored = admitted.stored.as_str();
                let below = stored.strip_prefix(&place);
                let below = below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
                prop_assert!(below, "{url} reached {stored}");
                prop_assert!(!stored.split('/').any(|segment| segment == "." || segment == ".."));
                prop_assert!(matches!(word, "read" | "append"));
                prop_assert_eq!(client_path(tenant.as_ref(), &admitted.stored), Some(named));
            }
            Err(_) => {
                let inside = named.as_str() == "users/ada" || named.as_str().starts_with("users/ada/");
                prop_assert!(!inside || !matches!(word, "read" | "append"), "{url} was refused");
            }
        }
    }
}

/// Runs a future that never waits.
fn pollster<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("the future waits"),
    }
}
