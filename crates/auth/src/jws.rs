//! Compact JWS (RFC 7515): three base64url parts, taken apart within bounds and before any trust.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use durable_streams_protocol::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

/// A token taken apart; nothing of it is verified.
pub(crate) struct UnverifiedToken<'a> {
    pub(crate) header: TokenHeader,
    pub(crate) claims: Map<String, Value>,
    /// What the signature covers: both parts and the dot between them.
    pub(crate) signed: &'a [u8],
    pub(crate) signature: Vec<u8>,
}

/// The members of a header that decide how a token is verified. Members that would bring a key along
/// (`jwk`, `jku`, `x5u`, `x5c`) are not read.
#[derive(Debug, Deserialize)]
pub(crate) struct TokenHeader {
    pub(crate) alg: String,
    pub(crate) typ: Option<String>,
    pub(crate) kid: Option<String>,
    /// Extensions that must be understood (RFC 7515, section 4.1.11): none is.
    crit: Option<Value>,
    enc: Option<Value>,
    zip: Option<Value>,
}

/// The longest key id, bytes.
const MAX_KID_BYTES: usize = 256;

impl<'a> UnverifiedToken<'a> {
    /// Takes a token apart; `None` when the text is not a JWS with a JSON object in it that is signed and
    /// neither encrypted nor extended. JSON nests at most 128 deep (serde_json's bound).
    pub(crate) fn parse(token: &'a str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        if claims.contains('.') {
            return None;
        }
        let header: TokenHeader = serde_json::from_slice(&BASE64URL.decode(header).ok()?).ok()?;
        let extended = header.crit.is_some() || header.enc.is_some() || header.zip.is_some();
        let long = header.kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID_BYTES);
        if extended || long {
            return None;
        }
        let claims = serde_json::from_slice(&BASE64URL.decode(claims).ok()?).ok()?;
        let signature = BASE64URL.decode(signature).ok()?;
        Some(UnverifiedToken { header, claims, signed: signed.as_bytes(), signature })
    }
}

/// Whether the `typ` of a header is one of access tokens (RFC 9068), or is not there. Logout tokens, proofs
/// of possession and security events have types of their own and are not credentials.
pub(crate) fn is_access_token(header: &TokenHeader) -> bool {
    let Some(typ) = &header.typ else { return true };
    let typ = typ.to_ascii_lowercase();
    matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
}

/// A claim that must be a string.
pub(crate) fn text_claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    claims.get(name)?.as_str()
}

/// A `NumericDate` (RFC 7519, section 2): seconds since 1970, whole or not. `Err` for anything else that
/// is there, so that a malformed `exp` is not taken for none.
pub(crate) fn time_claim(claims: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>, ()> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    if let Some(seconds) = value.as_u64() {
        return Ok(Some(Timestamp::from_millis(seconds.saturating_mul(1000))));
    }
    let seconds =
        value.as_f64().filter(|seconds| seconds.is_finite() && *seconds >= 0.0).ok_or(())?;
    // Saturates; a fraction of a millisecond never prolongs.
    Ok(Some(Timestamp::from_millis((seconds * 1000.0) as u64)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn token(header: &str, claims: &str) -> String {
        format!("{}.{}.c2ln", BASE64URL.encode(header), BASE64URL.encode(claims))
    }

    #[test]
    fn what_is_no_plain_signed_token_is_refused() {
        let good = token(r#"{"alg":"HS256","kid":"1"}"#, r#"{"sub":"a"}"#);
        assert!(UnverifiedToken::parse(&good).is_some());
        let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
        for bad in [
            "".to_owned(),
            "a.b".into(),
            "..".into(),
            format!("{good}.x"),
            good.replace("c2ln", "c2ln="),
            token(r#"{"kid":"1"}"#, "{}"),
            token(r#"{"alg":"HS256","crit":["b64"]}"#, "{}"),
            token(r#"{"alg":"HS256","crit":[]}"#, "{}"),
            token(r#"{"alg":"HS256","zip":"DEF"}"#, "{}"),
            token(r#"{"alg":"RSA-OAEP","enc":"A256GCM"}"#, "{}"),
            token(r#"{"alg":"HS256","alg":"none"}"#, "{}"),
            token(r#"{"alg":1}"#, "{}"),
            token("[]", "{}"),
            token(r#"{"alg":"HS256"}"#, "[]"),
            token(r#"{"alg":"HS256"}"#, &format!(r#"{{"a":{deep}}}"#)),
            token(&format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "x".repeat(257)), "{}"),
        ] {
            assert!(UnverifiedToken::parse(&bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn times_are_numbers() {
        let claims = |value: Value| json!({ "exp": value }).as_object().unwrap().clone();
        let millis = |value| time_claim(&claims(value), "exp").map(|at| at.unwrap().millis());
        assert_eq!(millis(json!(10)), Ok(10_000));
        assert_eq!(millis(json!(10.5)), Ok(10_500));
        assert_eq!(millis(json!(u64::MAX)), Ok(u64::MAX));
        assert_eq!(millis(json!(1e300)), Ok(u64::MAX));
        for bad in [json!("10"), json!(-1), json!(null), json!([10]), json!(true)] {
            assert_eq!(millis(bad.clone()), Err(()), "{bad}");
        }
        assert_eq!(time_claim(&Map::new(), "exp"), Ok(None));
    }
}
