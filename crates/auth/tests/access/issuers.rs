//! Identity providers: keys, rotation, outages, and what their tokens allow.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use durable_streams_auth::{
    AccessControl, AccessError, Operation, OperationSet, TenantId,
    jwt::{
        AudienceRule, ClaimRules, ClaimTemplate, FetchKeys, IssuerOptions, JwtAlgorithm, JwtIssuer,
        KeyFetchError, KeySource,
    },
};
use parking_lot::Mutex;
use ring::{
    hmac,
    rand::SystemRandom,
    rsa::PublicKeyComponents,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
        RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
    },
};
use serde_json::{Value, json};
use url::Url;

use crate::request::{Request, at};

pub(crate) const ISSUER: &str = "https://id.example/realm";

/// A key of an identity provider.
pub(crate) enum IssuerKey {
    Es256(EcdsaKeyPair),
    Es384(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
    Rsa(Box<RsaKeyPair>),
    Secret(Vec<u8>),
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    let random = SystemRandom::new();
    let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap()
}

impl IssuerKey {
    pub(crate) fn es256() -> Self {
        IssuerKey::Es256(ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING))
    }

    fn es384() -> Self {
        IssuerKey::Es384(ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING))
    }

    fn ed() -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        IssuerKey::Ed(Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap())
    }

    pub(crate) fn rsa() -> Self {
        let bytes = include_bytes!("../fixtures/rsa-2048-for-tests.der");
        IssuerKey::Rsa(Box::new(RsaKeyPair::from_der(bytes).unwrap()))
    }

    /// The public half, as a set shows it.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let point = |pair: &EcdsaKeyPair, curve: &str| {
            let bytes = pair.public_key().as_ref();
            let (x, y) = bytes[1..].split_at((bytes.len() - 1) / 2);
            let (x, y) = (BASE64URL.encode(x), BASE64URL.encode(y));
            json!({"kty": "EC", "crv": curve, "x": x, "y": y, "kid": kid, "use": "sig"})
        };
        match self {
            IssuerKey::Es256(pair) => point(pair, "P-256"),
            IssuerKey::Es384(pair) => point(pair, "P-384"),
            IssuerKey::Ed(pair) => {
                let x = BASE64URL.encode(pair.public_key());
                json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid})
            }
            IssuerKey::Rsa(pair) => {
                let public: PublicKeyComponents<Vec<u8>> = pair.public().into();
                let (n, e) = (BASE64URL.encode(public.n), BASE64URL.encode(public.e));
                json!({"kty": "RSA", "n": n, "e": e, "kid": kid})
            }
            IssuerKey::Secret(secret) => {
                json!({"kty": "oct", "k": BASE64URL.encode(secret), "kid": kid})
            }
        }
    }

    fn signature(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            IssuerKey::Es256(pair) | IssuerKey::Es384(pair) => {
                pair.sign(&random, message).unwrap().as_ref().to_vec()
            }
            IssuerKey::Ed(pair) => pair.sign(message).as_ref().to_vec(),
            IssuerKey::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                let padding: &'static dyn ring::signature::RsaEncoding = match algorithm {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                pair.sign(padding, &random, message, &mut signature).unwrap();
                signature
            }
            IssuerKey::Secret(secret) => {
                let hash = match algorithm {
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    _ => hmac::HMAC_SHA256,
                };
                hmac::sign(&hmac::Key::new(hash, secret), message).as_ref().to_vec()
            }
        }
    }

    /// A token with any header.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64URL.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let algorithm = header.get("alg").and_then(Value::as_str).unwrap_or("");
        format!("{signed}.{}", BASE64URL.encode(self.signature(algorithm, signed.as_bytes())))
    }
}

pub(crate) fn header(algorithm: &str, kid: &str) -> Value {
    json!({ "alg": algorithm, "typ": "at+jwt", "kid": kid })
}

pub(crate) fn claims() -> Value {
    json!({ "iss": ISSUER, "sub": "ada", "aud": "streams", "exp": 1_000 })
}

fn with(mut claims: Value, more: Value) -> Value {
    let (Value::Object(into), Value::Object(more)) = (&mut claims, more) else { unreachable!() };
    into.extend(more);
    claims
}

pub(crate) fn jwks(keys: &[(&IssuerKey, &str)]) -> Vec<u8> {
    let keys: Vec<Value> = keys.iter().map(|(key, kid)| key.jwk(kid)).collect();
    json!({ "keys": keys }).to_string().into_bytes()
}

pub(crate) fn rules() -> ClaimRules {
    let mut rules = ClaimRules::new(AudienceRule::AnyOf(vec!["streams".into()]));
    rules.operations = OperationSet::of(Operation::Read);
    rules.paths = vec![ClaimTemplate::parse("users/{sub}/**").unwrap()];
    rules
}

pub(crate) fn issuer(algorithms: Vec<JwtAlgorithm>, keys: KeySource) -> JwtIssuer {
    JwtIssuer::new(IssuerOptions::new("id", ISSUER, algorithms, keys, rules())).unwrap()
}

async fn accepts(provider: &JwtIssuer, token: &str, now: u64) -> Result<(), AccessError> {
    let request = Request::bearer("users/ada/x", token).at(at(now));
    request.authenticate(provider).await.map(|_| ())
}

#[tokio::test]
async fn every_algorithm_verifies_its_own_signatures_only() {
    let secret = IssuerKey::Secret(vec![7; 64]);
    for (key, algorithms) in [
        (IssuerKey::rsa(), &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"][..]),
        (IssuerKey::es256(), &["ES256"]),
        (IssuerKey::es384(), &["ES384"]),
        (IssuerKey::ed(), &["EdDSA"]),
        (secret, &["HS256", "HS384", "HS512"]),
    ] {
        let parsed: Vec<JwtAlgorithm> =
            algorithms.iter().map(|name| name.parse().unwrap()).collect();
        let source = match &key {
            IssuerKey::Secret(secret) => KeySource::Secret(secret.clone()),
            _ => KeySource::Jwks(jwks(&[(&key, "1")])),
        };
        let all = issuer(parsed.clone(), source.clone());
        for (name, algorithm) in algorithms.iter().zip(parsed) {
            let token = key.sign(&header(name, "1"), &claims());
            assert_eq!(accepts(&all, &token, 0).await, Ok(()), "{name}");
            let pinned = issuer(vec![algorithm], source.clone());
            for other in algorithms.iter().filter(|other| *other != name) {
                let token = key.sign(&header(other, "1"), &claims());
                assert!(accepts(&pinned, &token, 0).await.is_err(), "{name} is not {other}");
                // Says one algorithm, is signed with another.
                let mut parts: Vec<&str> = token.split('.').collect();
                let said = BASE64URL.encode(header(name, "1").to_string());
                parts[0] = &said;
                assert!(accepts(&all, &parts.join("."), 0).await.is_err(), "{other} as {name}");
            }
        }
    }
}

#[tokio::test]
async fn claims_decide_about_time_audience_and_identity() {
    let key = IssuerKey::es256();
    let provider = issuer(vec![JwtAlgorithm::ES256], KeySource::Jwks(jwks(&[(&key, "1")])));
    for (what, more, now, accepted) in [
        ("plain", json!({}), 0, true),
        ("within the leeway", json!({}), 1_029_999, true),
        ("past it", json!({}), 1_030_000, false),
        ("begins within the leeway", json!({"nbf": 30}), 0, true),
        ("begins later", json!({"nbf": 31}), 0, false),
        ("begins at no time", json!({"nbf": "soon"}), 0, false),
        ("ends at no time", json!({"exp": "1000"}), 0, false),
        ("never ends", json!({"exp": null}), 0, false),
        ("a negative end", json!({"exp": -1}), 0, false),
        ("a far end", json!({"exp": u64::MAX}), 0, true),
        ("among several", json!({"aud": ["account", "streams"]}), 0, true),
        ("another audience", json!({"aud": "account"}), 0, false),
        ("an audience that begins so", json!({"aud": "streams2"}), 0, false),
        ("no audience", json!({"aud": null}), 0, false),
        ("an empty list", json!({"aud": []}), 0, false),
        ("another issuer", json!({"iss": "https://id.example/other"}), 0, false),
        ("a longer issuer", json!({"iss": format!("{ISSUER}/")}), 0, false),
        ("a list of issuers", json!({"iss": [ISSUER]}), 0, false),
        ("no subject", json!({"sub": null}), 0, false),
        ("an empty subject", json!({"sub": ""}), 0, false),
        ("a subject that is a place", json!({"sub": ".."}), 0, false),
        ("a subject with a slash", json!({"sub": "ada/.."}), 0, false),
        ("a subject that spells a star", json!({"sub": "%2A"}), 0, false),
    ] {
        let token = key.sign(&header("ES256", "1"), &with(claims(), more));
        // Twice: verified, and remembered.
        for _ in 0..2 {
            assert_eq!(accepts(&provider, &token, now).await.is_ok(), accepted, "{what}");
        }
    }
    let token = key.sign(&header("ES256", "1"), &with(claims(), json!({"sub": "*"})));
    let star = Request::bearer("users/x", &token).authenticate(&provider).await.unwrap();
    let path = |text: &str| durable_streams_protocol::StreamPath::new(text).unwrap();
    assert!(star.allows(Operation::Read, &path("users/*/x")));
    assert!(!star.allows(Operation::Read, &path("users/ada/x")), "a star is a name here");
}

#[tokio::test]
async fn scopes_tenants_and_patterns_come_from_claims() {
    let key = IssuerKey::es256();
    let mut rules = rules();
    rules.tenant = Some("/org/id".into());
    rules.patterns = Some("/streams".into());
    let read = ("streams:read".to_owned(), OperationSet::of(Operation::Read));
    let write = ("streams:write".to_owned(), OperationSet::WRITE);
    rules.scopes = Some(("/realm_access/roles".into(), vec![read, write]));
    let keys = KeySource::Jwks(jwks(&[(&key, "1")]));
    let options = IssuerOptions::new("id", ISSUER, vec![JwtAlgorithm::ES256], keys, rules);
    let provider = Arc::new(JwtIssuer::new(options).unwrap());
    let full = json!({
        "org": {"id": "acme"},
        "streams": ["chat/**", "logs/*"],
        "realm_access": {"roles": ["offline_access", "streams:read"]},
    });
    for (what, more, status) in [
        ("as it should be", json!({}), 200),
        ("roles in a string", json!({"realm_access": {"roles": "a streams:read"}}), 200),
        ("other roles", json!({"realm_access": {"roles": ["streams:write"]}}), 404),
        ("a role that contains one", json!({"realm_access": {"roles": "xstreams:read"}}), 404),
        ("no roles", json!({"realm_access": {}}), 404),
        ("no patterns", json!({"streams": null}), 404),
        ("a pattern that is none", json!({"streams": "a*"}), 401),
        ("no tenant", json!({"org": {}}), 401),
        ("two tenants", json!({"org": {"id": ["a", "b"]}}), 401),
        ("a tenant that is a place", json!({"org": {"id": "../acme"}}), 401),
        ("an empty tenant", json!({"org": {"id": ""}}), 401),
    ] {
        let claims = with(with(claims(), full.clone()), more);
        let token = key.sign(&header("ES256", "1"), &claims);
        let request = Request::bearer("chat/a", &token);
        assert_eq!(request.status(provider.clone(), Operation::Read).await, status, "{what}");
    }
    let token = key.sign(&header("ES256", "1"), &with(claims(), full));
    let principal = Request::bearer("chat/a", &token).authenticate(&provider).await.unwrap();
    assert_eq!(principal.tenant, TenantId::new("acme").ok());
    assert_eq!(&*principal.identity, "id:ada");
}

/// What an issuer answers, and how often it was asked.
struct IssuerServer {
    answer: Mutex<Result<Vec<u8>, KeyFetchError>>,
    metadata: String,
    fetches: AtomicUsize,
}

#[async_trait]
impl FetchKeys for IssuerServer {
    async fn fetch(&self, url: &Url) -> Result<Vec<u8>, KeyFetchError> {
        if url.path().ends_with("openid-configuration") {
            return Ok(self.metadata.clone().into_bytes());
        }
        assert_eq!(url.as_str(), "https://id.example/keys");
        self.fetches.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(1)).await;
        self.answer.lock().clone()
    }
}

fn server(keys: &[(&IssuerKey, &str)]) -> Arc<IssuerServer> {
    let metadata = json!({"issuer": ISSUER, "jwks_uri": "https://id.example/keys"}).to_string();
    let (answer, fetches) = (Mutex::new(Ok(jwks(keys))), AtomicUsize::new(0));
    Arc::new(IssuerServer { answer, metadata, fetches })
}

#[tokio::test]
async fn keys_are_fetched_when_needed_rotated_and_kept_through_an_outage() {
    let (old, new) = (IssuerKey::es256(), IssuerKey::es256());
    let server = server(&[(&old, "old")]);
    let provider = issuer(vec![JwtAlgorithm::ES256], KeySource::Discovery(server.clone()));
    let old_token = old.sign(&header("ES256", "old"), &with(claims(), json!({"exp": 10_000})));
    let new_token = new.sign(&header("ES256", "new"), &with(claims(), json!({"exp": 10_000})));

    // The first token fetches the keys.
    let mut now = 1_000_000;
    assert_eq!(accepts(&provider, &old_token, now).await, Ok(()));
    assert_eq!(server.fetches.load(Ordering::SeqCst), 1);

    // A flood of tokens with unknown keys fetches once per pause.
    for number in 0..50 {
        let stranger = IssuerKey::es256().sign(&header("ES256", &format!("k{number}")), &claims());
        assert!(accepts(&provider, &stranger, now + 1).await.is_err());
    }
    assert_eq!(server.fetches.load(Ordering::SeqCst), 1);

    // Rotation: the new key is found as soon as the pause is over, the old one stays.
    *server.answer.lock() = Ok(jwks(&[(&old, "old"), (&new, "new")]));
    now += 30_000;
    assert_eq!(accepts(&provider, &new_token, now).await, Ok(()));
    assert_eq!(accepts(&provider, &old_token, now).await, Ok(()));
    assert_eq!(server.fetches.load(Ordering::SeqCst), 2);

    // An outage, and an answer that is no key set: the keys stay.
    for answer in
        [Err(KeyFetchError("down".into())), Ok(b"<html>".to_vec()), Ok(b"{\"keys\":[]}".to_vec())]
    {
        *server.answer.lock() = answer;
        now += 11 * 60_000;
        assert!(provider.refresh(at(now)).await.is_err());
        for token in [&old_token, &new_token] {
            assert_eq!(accepts(&provider, token, now).await, Ok(()));
        }
    }

    // The issuer withdraws the old key: its tokens end, remembered ones too.
    let request = Request::bearer("users/ada/x", &old_token).at(at(now));
    let reader = request.authenticate(&provider).await.unwrap();
    assert!(provider.is_current(&reader, at(now)));
    *server.answer.lock() = Ok(jwks(&[(&new, "new")]));
    now += 11 * 60_000;
    assert_eq!(provider.refresh(at(now)).await, Ok(true));
    assert!(!provider.is_current(&reader, at(now)));
    assert!(accepts(&provider, &old_token, now).await.is_err());
    assert_eq!(accepts(&provider, &new_token, now).await, Ok(()));
}

#[tokio::test]
async fn many_requests_share_one_fetch_and_none_is_let_through_without_keys() {
    let key = IssuerKey::es256();
    let server = server(&[(&key, "1")]);
    let provider =
        Arc::new(issuer(vec![JwtAlgorithm::ES256], KeySource::Discovery(server.clone())));
    let token = key.sign(&header("ES256", "1"), &claims());
    let mut tasks = Vec::new();
    for _ in 0..20 {
        let (provider, token) = (provider.clone(), token.clone());
        tasks.push(tokio::spawn(async move { accepts(&provider, &token, 1).await }));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap(), Ok(()));
    }
    assert_eq!(server.fetches.load(Ordering::SeqCst), 1);

    *server.answer.lock() = Err(KeyFetchError("down".into()));
    let down = issuer(vec![JwtAlgorithm::ES256], KeySource::Discovery(server));
    assert!(matches!(accepts(&down, &token, 1).await, Err(AccessError::Unavailable { .. })));
}

#[tokio::test]
async fn metadata_of_another_issuer_or_without_tls_is_refused() {
    let key = IssuerKey::es256();
    for metadata in [
        json!({"issuer": "https://evil.example", "jwks_uri": "https://id.example/keys"}),
        json!({"issuer": ISSUER, "jwks_uri": "http://id.example/keys"}),
        json!({"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"}),
        json!({"issuer": ISSUER}),
    ] {
        let mut server = server(&[(&key, "1")]);
        Arc::get_mut(&mut server).unwrap().metadata = metadata.to_string();
        let provider = issuer(vec![JwtAlgorithm::ES256], KeySource::Discovery(server));
        assert!(provider.refresh(at(1_000_000)).await.is_err(), "{metadata}");
    }
}

#[test]
fn options_that_would_confuse_keys_are_refused() {
    let key = IssuerKey::es256();
    let set = || KeySource::Jwks(jwks(&[(&key, "1")]));
    let oct = || KeySource::Jwks(jwks(&[(&IssuerKey::Secret(vec![1; 32]), "1")]));
    for (algorithms, keys) in [
        (vec![], set()),
        (vec![JwtAlgorithm::ES256, JwtAlgorithm::HS256], set()),
        (vec![JwtAlgorithm::HS256, JwtAlgorithm::RS256], KeySource::Secret(vec![1; 32])),
        (vec![JwtAlgorithm::HS256], KeySource::Secret(vec![1; 31])),
        (vec![JwtAlgorithm::ES256], oct()),
        (vec![JwtAlgorithm::ES256], KeySource::Jwks(b"{}".to_vec())),
    ] {
        let options = IssuerOptions::new("id", ISSUER, algorithms.clone(), keys, rules());
        assert!(JwtIssuer::new(options).is_err(), "{algorithms:?}");
    }
    for bad in ["users/{sub}x", "users/{}", "{a}{b}", "a*", "", "users/{sub"] {
        assert!(ClaimTemplate::parse(bad).is_err(), "{bad}");
    }
}
