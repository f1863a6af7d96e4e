//! An identity provider, as configured: its metadata and keys over HTTP, rotation, outage, a key set in a file.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use crate::access::Running;
use crate::support::Scene;

/// A key that signs tokens.
struct TokenKey {
    pair: EcdsaKeyPair,
    kid: &'static str,
}

impl TokenKey {
    fn new(kid: &'static str) -> Self {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        TokenKey {
            pair: EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap(),
            kid,
        }
    }

    fn jwk(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (BASE64URL.encode(x), BASE64URL.encode(y));
        json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self.kid, "use": "sig"})
    }

    /// A token of `issuer`, valid for an hour.
    fn token(&self, issuer: &str, more: &[(&str, &str)]) -> String {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        let mut claims = json!({"iss": issuer, "aud": "streams", "sub": "ada", "exp": now + 3600});
        for (name, value) in more {
            claims[*name] = (*value).into();
        }
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": self.kid});
        let part = |value: &Value| BASE64URL.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64URL.encode(signature))
    }
}

/// A provider that answers with what `keys` holds; `None` is an outage.
struct Provider {
    address: SocketAddr,
    keys: Arc<Mutex<Option<Value>>>,
}

impl Provider {
    fn start(keys: &[&TokenKey]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let keys = Arc::new(Mutex::new(Some(set(keys))));
        let answers = keys.clone();
        std::thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                let mut request = [0; 4096];
                let read = socket.read(&mut request).unwrap_or(0);
                let asked = String::from_utf8_lossy(&request[..read]).into_owned();
                let keys = answers.lock().unwrap().clone();
                let body = if asked.contains("/.well-known/openid-configuration ") {
                    let issuer = format!("http://{address}");
                    Some(json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys")}))
                } else {
                    keys
                };
                let (status, body) = match body {
                    Some(body) => ("200 OK", body.to_string()),
                    None => ("503 Service Unavailable", String::new()),
                };
                let length = body.len();
                let _ = write!(
                    socket,
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
            }
        });
        Provider { address, keys }
    }

    fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn set(keys: &[&TokenKey]) -> Value {
    json!({ "keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>() })
}

fn config(issuer: &str, more: &str) -> Scene {
    Scene::with(format!(
        "listen: [\"127.0.0.1:0\"]
auth:
  issuers:
    - name: id
      issuer: \"{issuer}\"
      audience: [streams]
      algorithms: [ES256]
      scope_claim: /scope
      scopes:
        - {{scope: \"streams:read\", allow: [read]}}
        - {{scope: \"streams:write\", allow: [read, write]}}
      paths: [\"users/{{sub}}/**\"]
{more}"
    ))
}

#[test]
fn tokens_of_a_provider_are_accepted_by_the_keys_that_its_metadata_names() {
    let (old, new) = (TokenKey::new("old"), TokenKey::new("new"));
    let provider = Provider::start(&[&old]);
    let issuer = provider.issuer();
    let server = Running::start(&config(&issuer, ""));
    let write = old.token(&issuer, &[("scope", "openid streams:write")]);
    let read = old.token(&issuer, &[("scope", "streams:read")]);
    for (method, path, token, status) in [
        ("PUT", "users/ada/a", write.as_str(), 201),
        ("PUT", "users/bob/a", &write, 403),
        ("GET", "users/ada/a", &read, 200),
        ("DELETE", "users/ada/a", &read, 403),
        ("GET", "users/bob/a", &read, 404),
        ("GET", "users/ada/a", &old.token(&issuer, &[]), 404),
        (
            "GET",
            "users/ada/a",
            &old.token("http://other.example", &[("scope", "streams:read")]),
            401,
        ),
        (
            "GET",
            "users/ada/a",
            &old.token(&issuer, &[("scope", "streams:read"), ("aud", "x")]),
            401,
        ),
        (
            "GET",
            "users/ada/a",
            &TokenKey::new("old").token(&issuer, &[("scope", "streams:read")]),
            401,
        ),
        // A key that the provider does not have: looked for at most twice a minute, so not now.
        ("GET", "users/ada/a", &new.token(&issuer, &[("scope", "streams:read")]), 401),
    ] {
        assert_eq!(server.status(method, path, token), status, "{method} {path}");
    }
    // An outage takes nothing away.
    *provider.keys.lock().unwrap() = None;
    assert_eq!(server.status("GET", "users/ada/a", &read), 200);
    let later = old.token(&issuer, &[("scope", "streams:read"), ("jti", "2")]);
    assert_eq!(server.status("GET", "users/ada/a", &later), 200);
}

#[test]
fn a_provider_that_was_never_reached_makes_clients_wait() {
    let key = TokenKey::new("1");
    let provider = Provider::start(&[]);
    *provider.keys.lock().unwrap() = None;
    let issuer = provider.issuer();
    let server = Running::start(&config(&issuer, ""));
    let token = key.token(&issuer, &[("scope", "streams:read")]);
    assert_eq!(server.status("GET", "users/ada/a", &token), 503);
    assert_eq!(server.status("GET", "users/ada/a", ""), 401);
}

#[test]
fn a_key_set_in_a_file_and_a_tenant_in_a_claim() {
    let key = TokenKey::new("1");
    let issuer = "https://id.example";
    let scene = config(issuer, "      jwks_file: keys.json\n      tenant_claim: /org\n");
    let folder = scene.file().parent().unwrap().to_owned();
    fs::write(folder.join("keys.json"), set(&[&key]).to_string()).unwrap();
    let server = Running::start(&scene);
    let of = |org: &str| key.token(issuer, &[("scope", "streams:write"), ("org", org)]);
    assert_eq!(server.status("PUT", "users/ada/a", &of("acme")), 201);
    assert_eq!(server.status("GET", "users/ada/a", &of("acme")), 200);
    assert_eq!(server.status("GET", "users/ada/a", &of("globex")), 404);
    for org in ["", "../acme", "a/b", "acme.x"] {
        assert_eq!(server.status("GET", "users/ada/a", &of(org)), 401, "{org:?}");
    }
    let without = key.token(issuer, &[("scope", "streams:write")]);
    assert_eq!(server.status("GET", "users/ada/a", &without), 401, "no tenant is not every tenant");
}
