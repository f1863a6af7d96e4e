//! Webhook signatures (§7.1) and the keys that receivers verify them with (§6.5).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use ring::{
    digest,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
use serde::{Deserialize, Serialize};

/// A public key as a JSON Web Key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicJwk {
    /// Always `OKP`.
    pub kty: String,
    /// Always `Ed25519`.
    pub crv: String,
    /// `ds_` and the key's RFC 7638 thumbprint.
    pub kid: String,
    /// Always `sig`.
    #[serde(rename = "use")]
    pub usage: String,
    /// Always `EdDSA`.
    pub alg: String,
    /// The key, base64url.
    pub x: String,
}

/// The content of `jwks.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwkSet {
    /// The active key first, then retired ones within the replay window.
    pub keys: Vec<PublicJwk>,
}

/// An Ed25519 key that signs webhooks.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicJwk,
}

impl SigningKey {
    /// The key of a 32-byte seed; `None` for any other length.
    pub fn from_seed(seed: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        let x = BASE64URL.encode(pair.public_key().as_ref());
        // RFC 7638: the required members in alphabetical order, no space.
        let thumbprint = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        let thumbprint = digest::digest(&digest::SHA256, thumbprint.as_bytes());
        let public = PublicJwk {
            kty: "OKP".into(),
            crv: "Ed25519".into(),
            kid: format!("ds_{}", BASE64URL.encode(thumbprint.as_ref())),
            usage: "sig".into(),
            alg: "EdDSA".into(),
            x,
        };
        Some(SigningKey { pair, public })
    }

    /// The public half.
    pub fn public(&self) -> &PublicJwk {
        &self.public
    }

    /// The `Webhook-Signature` header for a body sent at `seconds` since 1970.
    pub fn sign(&self, seconds: u64, body: &[u8]) -> String {
        let signature = self.pair.sign(&signed_bytes(seconds, body));
        let signature = BASE64URL.encode(signature.as_ref());
        format!("t={seconds},kid={},ed25519={signature}", self.public.kid)
    }
}

fn signed_bytes(seconds: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{seconds}.").into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Verifies a header as a receiver does, against the published keys and a replay window in seconds.
pub fn verify_signature(
    header: &str,
    body: &[u8],
    keys: &JwkSet,
    now_seconds: u64,
    window_seconds: u64,
) -> bool {
    let field =
        |name: &str| header.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let (Some(seconds), Some(kid), Some(signature)) = (field("t"), field("kid"), field("ed25519"))
    else {
        return false;
    };
    let Ok(seconds) = seconds.parse::<u64>() else { return false };
    let Some(key) = keys.keys.iter().find(|key| key.kid == kid) else { return false };
    let (Ok(x), Ok(signature)) = (BASE64URL.decode(&key.x), BASE64URL.decode(signature)) else {
        return false;
    };
    seconds.abs_diff(now_seconds) <= window_seconds
        && UnparsedPublicKey::new(&ED25519, x)
            .verify(&signed_bytes(seconds, body), &signature)
            .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_id_is_the_thumbprint_of_rfc_8037() {
        // Appendix A.1 to A.3: this seed, this public key, this thumbprint.
        let seed = BASE64URL.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let key = SigningKey::from_seed(&seed).unwrap();
        assert_eq!(key.public().x, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(key.public().kid, "ds_kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_signature_covers_time_and_body() {
        let key = SigningKey::from_seed(&[3; 32]).unwrap();
        let keys = JwkSet { keys: vec![key.public().clone()] };
        let header = key.sign(1_000, b"{}");
        assert!(verify_signature(&header, b"{}", &keys, 1_300, 300));
        assert!(verify_signature(&header, b"{}", &keys, 700, 300), "clocks differ");
        assert!(!verify_signature(&header, b"{}", &keys, 699, 300));
        assert!(!verify_signature(&header, b"{ }", &keys, 1_000, 300));
        assert!(!verify_signature(&header, b"{}", &keys, 1_301, 300), "outside the window");
        assert!(!verify_signature(&header.replace("t=1000", "t=1001"), b"{}", &keys, 1_000, 300));
        assert!(!verify_signature(&header, b"{}", &JwkSet::default(), 1_000, 300));
    }
}
