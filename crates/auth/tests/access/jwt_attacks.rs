//! Known attacks on JWTs (RFC 8725), each as a token that must be refused.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use durable_streams_auth::{
    AccessError, AnonymousAccess, ProviderChain,
    jwt::{IssuerOptions, JwtAlgorithm, JwtIssuer, KeySource},
};
use serde_json::{Value, json};

use crate::{
    issuers::{ISSUER, IssuerKey, claims, header, issuer, jwks, rules},
    request::Request,
};

async fn refusal(provider: &JwtIssuer, token: &str) -> Option<AccessError> {
    Request::bearer("users/ada/x", token).authenticate(provider).await.err()
}

fn rsa_issuer() -> JwtIssuer {
    let keys = KeySource::Jwks(jwks(&[(&IssuerKey::rsa(), "1")]));
    issuer(vec![JwtAlgorithm::RS256, JwtAlgorithm::PS256], keys)
}

#[tokio::test]
async fn no_signature_at_all() {
    let provider = rsa_issuer();
    for algorithm in ["none", "None", "NONE", "nOnE", "", "null"] {
        let part = |value: &Value| BASE64URL.encode(value.to_string());
        let unsigned = format!("{}.{}", part(&header(algorithm, "1")), part(&claims()));
        for signature in ["", "AA"] {
            let token = format!("{unsigned}.{signature}");
            assert!(refusal(&provider, &token).await.is_some(), "{algorithm} {signature}");
        }
    }
}

#[tokio::test]
async fn a_public_key_as_an_hmac_secret() {
    let provider = rsa_issuer();
    let rsa = IssuerKey::rsa();
    let jwk = rsa.jwk("1");
    let modulus = BASE64URL.decode(jwk["n"].as_str().unwrap()).unwrap();
    let texts = [modulus, jwk.to_string().into_bytes(), jwks(&[(&rsa, "1")]), Vec::new()];
    for secret in texts {
        for algorithm in ["HS256", "HS384", "HS512"] {
            let token = IssuerKey::Secret(secret.clone()).sign(&header(algorithm, "1"), &claims());
            assert!(refusal(&provider, &token).await.is_some(), "{algorithm}");
        }
    }
}

#[tokio::test]
async fn a_token_that_brings_its_own_key() {
    let provider = rsa_issuer();
    let own = IssuerKey::es256();
    for extra in [
        json!({"jwk": own.jwk("1")}),
        json!({"jku": "https://evil.example/keys"}),
        json!({"x5u": "https://evil.example/cert"}),
        json!({"x5c": ["MIIB"]}),
    ] {
        for algorithm in ["ES256", "RS256"] {
            let mut header = header(algorithm, "1");
            header.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            let token = own.sign(&header, &claims());
            assert!(refusal(&provider, &token).await.is_some(), "{extra}");
        }
    }
}

#[tokio::test]
async fn a_kid_is_only_compared() {
    let key = IssuerKey::es256();
    let provider = issuer(vec![JwtAlgorithm::ES256], KeySource::Jwks(jwks(&[(&key, "1")])));
    let token = key.sign(&header("ES256", "1"), &claims());
    assert_eq!(refusal(&provider, &token).await, None);
    for kid in ["../../../../dev/null", "1' OR '1'='1", "1\0", "", "http://evil.example", "*", "01"]
    {
        let token = key.sign(&header("ES256", kid), &claims());
        assert!(refusal(&provider, &token).await.is_some(), "{kid}");
    }
    for kid in [json!(1), json!(["1"]), json!({"1": 1})] {
        let token = key.sign(&json!({"alg": "ES256", "kid": kid}), &claims());
        assert!(refusal(&provider, &token).await.is_some(), "{kid}");
    }
}

#[tokio::test]
async fn large_and_deep_tokens() {
    let key = IssuerKey::es256();
    let provider = issuer(vec![JwtAlgorithm::ES256], KeySource::Jwks(jwks(&[(&key, "1")])));
    let large = json!({"iss": ISSUER, "sub": "ada", "aud": "streams", "exp": 1_000, "x": "y".repeat(8_000)});
    assert!(refusal(&provider, &key.sign(&header("ES256", "1"), &large)).await.is_some());
    let deep = |depth: usize| {
        let nested = format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let text =
            format!(r#"{{"iss":"{ISSUER}","sub":"ada","aud":"streams","exp":1000,"x":{nested}}}"#);
        let claims = BASE64URL.encode(text);
        // Whatever the signature: the bound holds before it is looked at.
        format!("{}.{claims}.AA", BASE64URL.encode(header("ES256", "1").to_string()))
    };
    assert_eq!(refusal(&provider, &deep(1_000)).await, Some(AccessError::UnknownCredentials));
}

#[tokio::test]
async fn a_key_of_one_issuer_signs_for_no_other() {
    let (ours, theirs) = (IssuerKey::es256(), IssuerKey::es256());
    let other = "https://other.example";
    let of = |name: &str, issuer: &str, key: &IssuerKey| {
        let keys = KeySource::Jwks(jwks(&[(key, "same-kid")]));
        let options = IssuerOptions::new(name, issuer, vec![JwtAlgorithm::ES256], keys, rules());
        Arc::new(JwtIssuer::new(options).unwrap())
    };
    let mut chain = ProviderChain::new();
    chain.push(of("ours", ISSUER, &ours)).unwrap();
    chain.push(of("theirs", other, &theirs)).unwrap();
    chain.push(Arc::new(AnonymousAccess::new(Vec::new()))).unwrap();
    let from = |issuer: &str| {
        let mut claims = claims();
        claims["iss"] = issuer.into();
        claims
    };
    for (key, issuer, accepted) in [
        (&ours, ISSUER, Some("ours:ada")),
        (&theirs, other, Some("theirs:ada")),
        (&ours, other, None),
        (&theirs, ISSUER, None),
        (&ours, "https://third.example", None),
    ] {
        let token = key.sign(&header("ES256", "same-kid"), &from(issuer));
        let found = Request::bearer("users/ada/x", &token).authenticate(&chain).await;
        let identity = found.ok().map(|principal| principal.identity.to_string());
        assert_eq!(identity.as_deref(), accepted, "{issuer}");
    }
}

#[tokio::test]
async fn a_key_for_something_else() {
    let key = IssuerKey::es256();
    let rsa = IssuerKey::rsa();
    for (what, key, algorithm, change) in [
        ("an encryption key", &key, "ES256", json!({"use": "enc"})),
        ("a key that signs only", &key, "ES256", json!({"key_ops": ["sign"]})),
        ("a key of another algorithm", &key, "ES256", json!({"alg": "ES384"})),
        ("a curve that is not the key's", &key, "ES256", json!({"crv": "P-384"})),
        ("a key of OAEP", &rsa, "RS256", json!({"alg": "RSA-OAEP"})),
        ("a key of PS256", &rsa, "RS256", json!({"alg": "PS256"})),
    ] {
        let mut jwk = key.jwk("1");
        jwk.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let set = json!({ "keys": [jwk, IssuerKey::es256().jwk("2")] }).to_string().into_bytes();
        let algorithms = vec![algorithm.parse().unwrap()];
        let provider = issuer(algorithms, KeySource::Jwks(set));
        let token = key.sign(&header(algorithm, "1"), &claims());
        assert!(refusal(&provider, &token).await.is_some(), "{what}");
    }
}

#[tokio::test]
async fn tokens_of_other_kinds() {
    let key = IssuerKey::es256();
    let provider = issuer(vec![JwtAlgorithm::ES256], KeySource::Jwks(jwks(&[(&key, "1")])));
    for (typ, accepted) in [
        ("JWT", true),
        ("at+jwt", true),
        ("application/at+jwt", true),
        ("logout+jwt", false),
        ("dpop+jwt", false),
        ("secevent+jwt", false),
    ] {
        let header = json!({"alg": "ES256", "kid": "1", "typ": typ});
        let token = key.sign(&header, &claims());
        assert_eq!(refusal(&provider, &token).await.is_none(), accepted, "{typ}");
    }
    let extended = json!({"alg": "ES256", "kid": "1", "crit": ["b64"], "b64": false});
    let token = key.sign(&extended, &claims());
    assert!(refusal(&provider, &token).await.is_some());
}

#[tokio::test]
async fn a_changed_byte_breaks_a_token() {
    let key = IssuerKey::es256();
    let provider = issuer(vec![JwtAlgorithm::ES256], KeySource::Jwks(jwks(&[(&key, "1")])));
    let token = key.sign(&header("ES256", "1"), &claims());
    assert_eq!(refusal(&provider, &token).await, None);
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let text = String::from_utf8(bytes).unwrap();
        assert!(refusal(&provider, &text).await.is_some(), "byte {at}");
    }
}

/// RFC 7515, appendices A.2 and A.3: the tokens and keys of the standard itself.
#[tokio::test]
async fn the_examples_of_the_standard() {
    let payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let es256 =
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let key = json!({
        "kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    });
    let set = json!({ "keys": [key] }).to_string().into_bytes();
    let mut rules = rules();
    rules.audience = durable_streams_auth::jwt::AudienceRule::Unchecked;
    let keys = KeySource::Jwks(set);
    let options = IssuerOptions::new("rfc", "joe", vec![JwtAlgorithm::ES256], keys, rules);
    let provider = JwtIssuer::new(options).unwrap();
    let token = format!("eyJhbGciOiJFUzI1NiJ9.{payload}.{es256}");
    // The signature is good; only what this server asks for besides is missing.
    let refused = refusal(&provider, &token).await;
    assert_eq!(refused, Some(AccessError::InvalidCredentials("the token has no usable sub")));
    let forged = token.replace(".DtEh", ".DtEi");
    assert_ne!(refusal(&provider, &forged).await, refused);
}
