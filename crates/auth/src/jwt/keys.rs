//! The keys of an issuer: a JSON Web Key Set (RFC 7517), or one shared secret.

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde_json::Value;

use super::verify::verifies;

/// The most keys of a set that are looked at.
const MAX_KEYS: usize = 64;

/// Keys that verify tokens.
pub(super) struct VerifyingKeys(Vec<VerifyingKey>);

struct VerifyingKey {
    kid: Option<String>,
    /// The one algorithm that the key is for; `None` for an RSA key that does not say.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

/// How a token fares with a set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyVerdict {
    /// One of the keys signed it.
    Verified,
    /// The key that its `kid` names did not.
    Forged,
    /// No key of the set did, and none has its `kid`: the set may be out of date.
    UnknownKey,
}

impl VerifyingKeys {
    /// The keys of a set that can verify signatures here. Others are passed over (RFC 7517, section 5);
    /// symmetric ones always, since a set is public.
    ///
    /// # Errors
    /// When the text is no key set, or no key of it is usable.
    pub(super) fn from_jwks(text: &[u8]) -> Result<Self, String> {
        let set: Value =
            serde_json::from_slice(text).map_err(|error| format!("no JSON key set: {error}"))?;
        let keys = set.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or("no JSON key set: `keys` is missing")?;
        let usable: Vec<_> = keys.iter().take(MAX_KEYS).filter_map(usable).collect();
        if usable.is_empty() {
            return Err(format!("none of the set's {} keys can verify signatures", keys.len()));
        }
        Ok(VerifyingKeys(usable))
    }

    /// A secret that is shared with the issuer.
    pub(super) fn from_secret(secret: &[u8]) -> Self {
        let key = DecodingKey::from_secret(secret);
        VerifyingKeys(vec![VerifyingKey { kid: None, algorithm: None, key }])
    }

    /// Whether a token with this `kid` may have been verified by a key of the set.
    pub(super) fn may_have_signed(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.kid.as_deref().is_none_or(|own| own == kid))
    }

    /// Verifies a signature with the keys that have the token's `kid` or none; without `kid`, with any.
    pub(super) fn verify(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
        message: &[u8],
        signature: &[u8],
    ) -> KeyVerdict {
        let mut verdict = KeyVerdict::UnknownKey;
        for key in &self.0 {
            let named = kid.is_some() && key.kid.as_deref() == kid;
            if !named && kid.is_some() && key.kid.is_some() {
                continue;
            }
            let suits = key.algorithm.is_none_or(|only| only == algorithm);
            if suits && verifies(algorithm, &key.key, message, signature) {
                return KeyVerdict::Verified;
            }
            if named {
                verdict = KeyVerdict::Forged;
            }
        }
        verdict
    }
}

/// A key of a set, if it can verify signatures.
fn usable(key: &Value) -> Option<VerifyingKey> {
    let jwk: Jwk = serde_json::from_value(key.clone()).ok()?;
    let common = &jwk.common;
    let signs = common.public_key_use.as_ref().is_none_or(|one| *one == PublicKeyUse::Signature);
    let operations = common.key_operations.as_ref();
    let verifies = operations.is_none_or(|some| some.contains(&KeyOperations::Verify));
    if !signs || !verifies {
        return None;
    }
    let stated = match common.key_algorithm {
        None => None,
        // An algorithm that is not known here: a key for something else.
        Some(algorithm) => Some(Algorithm::try_from(algorithm).ok()?),
    };
    let only = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => stated,
        AlgorithmParameters::EllipticCurve(key) => Some(match key.curve {
            EllipticCurve::P256 => Algorithm::ES256,
            EllipticCurve::P384 => Algorithm::ES384,
            _ => return None,
        }),
        AlgorithmParameters::OctetKeyPair(key) => match key.curve {
            EllipticCurve::Ed25519 => Some(Algorithm::EdDSA),
            _ => return None,
        },
        _ => return None,
    };
    if stated.is_some() && stated != only {
        return None;
    }
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    Some(VerifyingKey { kid: jwk.common.key_id, algorithm: only, key })
}
