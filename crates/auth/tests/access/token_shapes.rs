//! Access tokens as three identity providers shape them, with the settings that `docs/access.md` recommends.

use std::sync::Arc;

use durable_streams_auth::jwt::{
    AudienceRule, ClaimRules, ClaimTemplate, IssuerOptions, JwtAlgorithm, JwtIssuer, KeySource,
};
use durable_streams_auth::{Operation, OperationSet, TenantId};
use serde_json::{Value, json};

use crate::issuers::{IssuerKey, jwks};
use crate::request::Request;

/// Where a provider is, and for whom its tokens are.
struct Shape {
    issuer: &'static str,
    audience: &'static str,
    scopes: &'static str,
    tenant: Option<&'static str>,
}

fn provider(shape: &Shape, key: &IssuerKey) -> Arc<JwtIssuer> {
    let mut rules = ClaimRules::new(AudienceRule::AnyOf(vec![shape.audience.into()]));
    let read = ("streams.read".to_owned(), OperationSet::of(Operation::Read));
    let write = ("streams.write".to_owned(), OperationSet::WRITE);
    rules.scopes = Some((shape.scopes.into(), vec![read, write]));
    rules.tenant = shape.tenant.map(str::to_owned);
    rules.paths = vec![ClaimTemplate::parse("**").unwrap()];
    let keys = KeySource::Jwks(jwks(&[(key, "1")]));
    let algorithms = vec![JwtAlgorithm::RS256];
    Arc::new(
        JwtIssuer::new(IssuerOptions::new("id", shape.issuer, algorithms, keys, rules)).unwrap(),
    )
}

fn with(mut claims: Value, change: &Value) -> Value {
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

/// Reads with tokens of the shape, changed as each line says.
async fn expect(shape: &Shape, typ: &str, token: Value, changes: &[(&str, Value, u16)]) {
    let key = IssuerKey::rsa();
    let provider = provider(shape, &key);
    let header = json!({"alg": "RS256", "typ": typ, "kid": "1"});
    for (what, change, status) in changes {
        let signed = key.sign(&header, &with(token.clone(), change));
        let request = Request::bearer("chat/a", &signed);
        let seen = request.status(provider.clone(), Operation::Read).await;
        assert_eq!(seen, *status, "{}: {what}", shape.issuer);
    }
}

#[tokio::test]
async fn keycloak() {
    let shape = Shape {
        issuer: "https://id.example.com/realms/app",
        audience: "streams",
        scopes: "/realm_access/roles",
        tenant: None,
    };
    let token = json!({
        "exp": 300, "iat": 0, "auth_time": 0, "jti": "onrtac:2c4d7d0c-0d0f-4f4c-9f0e-2b3b3c4d5e6f",
        "iss": "https://id.example.com/realms/app", "aud": ["streams", "account"],
        "sub": "f:5b7c2f64:ada", "typ": "Bearer", "azp": "web", "sid": "0f0d3c1a", "acr": "1",
        "allowed-origins": ["https://app.example.com"],
        "realm_access": {"roles": ["default-roles-app", "offline_access", "streams.read"]},
        "resource_access": {"account": {"roles": ["manage-account", "view-profile"]}},
        "scope": "openid email profile", "email_verified": true, "preferred_username": "ada"
    });
    let roles = |roles: Value| json!({"realm_access": {"roles": roles}});
    expect(
        &shape,
        "JWT",
        token,
        &[
            ("as it comes with an audience mapper", json!({}), 200),
            ("its default audience", json!({"aud": "account"}), 401),
            ("roles that mean nothing here", roles(json!(["offline_access"])), 404),
            ("a role that is a text", roles(json!("streams.read")), 200),
            ("another realm", json!({"iss": "https://id.example.com/realms/other"}), 401),
            ("the realm with a slash", json!({"iss": "https://id.example.com/realms/app/"}), 401),
        ],
    )
    .await;
}

#[tokio::test]
async fn entra_id() {
    let tenant = "72f988bf-86f1-41af-91ab-2d7cd011db47";
    let shape = Shape {
        issuer: "https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0",
        audience: "6e74172b-be56-4843-9ff4-e66a39bb12e3",
        scopes: "/scp",
        tenant: Some("/tid"),
    };
    let token = json!({
        "aud": "6e74172b-be56-4843-9ff4-e66a39bb12e3", "iss": shape.issuer, "iat": 0, "nbf": 0,
        "exp": 300, "aio": "AXQAi/8IAAAA", "azp": "3ff8a2c2", "azpacr": "0", "name": "Ada",
        "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474", "rh": "0.AAAA", "scp": "profile streams.read",
        "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ", "tid": tenant, "uti": "fqiBqXLPj0eQa",
        "ver": "2.0"
    });
    expect(
        &shape,
        "JWT",
        token.clone(),
        &[
            ("a user's", json!({}), 200),
            ("without the scope", json!({"scp": "profile"}), 404),
            ("a scope within another", json!({"scp": "xstreams.read"}), 404),
            (
                "an application's, which has roles",
                json!({"scp": null, "roles": ["streams.read"]}),
                404,
            ),
            (
                "the first version's issuer",
                json!({"iss": format!("https://sts.windows.net/{tenant}/")}),
                401,
            ),
            ("another application", json!({"aud": "00000003-0000-0000-c000-000000000000"}), 401),
            ("no tenant", json!({"tid": null}), 401),
        ],
    )
    .await;
    // With `scope_claim: /roles`, applications come in and users do not.
    let roles = Shape { scopes: "/roles", ..shape };
    let application = json!({"scp": null, "roles": ["streams.read"]});
    expect(
        &roles,
        "JWT",
        token,
        &[("an application's", application, 200), ("a user's", json!({}), 404)],
    )
    .await;
    let key = IssuerKey::rsa();
    let header = json!({"alg": "RS256", "typ": "JWT", "kid": "1"});
    let claims = json!({"iss": roles.issuer, "aud": roles.audience, "sub": "a", "exp": 300,
        "tid": tenant, "roles": []});
    let token = key.sign(&header, &claims);
    let principal = Request::bearer("a", &token).authenticate(&*provider(&roles, &key)).await;
    assert_eq!(principal.unwrap().tenant, TenantId::new(tenant).ok());
}

#[tokio::test]
async fn auth0() {
    let shape = Shape {
        issuer: "https://app.eu.auth0.com/",
        audience: "https://streams.example.com",
        scopes: "/permissions",
        tenant: None,
    };
    let token = json!({
        "iss": "https://app.eu.auth0.com/", "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
        "aud": ["https://streams.example.com", "https://app.eu.auth0.com/userinfo"],
        "iat": 0, "exp": 300, "azp": "my_client_id", "scope": "openid profile streams.write",
        "permissions": ["streams.read"]
    });
    expect(
        &shape,
        "at+jwt",
        token.clone(),
        &[
            ("with RBAC", json!({}), 200),
            ("no permission", json!({"permissions": []}), 404),
            ("without RBAC", json!({"permissions": null}), 404),
            ("the issuer without its slash", json!({"iss": "https://app.eu.auth0.com"}), 401),
            ("for userinfo alone", json!({"aud": "https://app.eu.auth0.com/userinfo"}), 401),
        ],
    )
    .await;
    let scope = Shape { scopes: "/scope", ..shape };
    let granted = json!({"scope": "openid streams.read"});
    expect(&scope, "at+jwt", token, &[("the scope", granted, 200), ("another", json!({}), 404)])
        .await;
}
