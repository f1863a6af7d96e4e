//! Where credentials stand in a request, and how secrets are compared.

use std::sync::LazyLock;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use http::{
    HeaderMap, HeaderName, Method,
    header::{AUTHORIZATION, COOKIE},
};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use subtle::ConstantTimeEq;

use crate::{AccessError, RequestHead};

/// The longest credential that is looked at, bytes.
pub const MAX_CREDENTIAL_BYTES: usize = 8 * 1024;

/// The header for keys besides `Authorization`.
pub const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The token of `Authorization: Bearer`, if the request has that header and scheme.
///
/// # Errors
/// [`AccessError::InvalidCredentials`] when the header is there twice, has a token that is none by its
/// characters (RFC 6750, section 2.1), or one of more than [`MAX_CREDENTIAL_BYTES`].
pub fn bearer<'a>(head: &RequestHead<'a>) -> Result<Option<&'a str>, AccessError> {
    let Some(value) = once(head.headers, &AUTHORIZATION)? else { return Ok(None) };
    let Some((scheme, token)) = value.split_at_checked(BEARER.len()) else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case(BEARER) {
        return Ok(None);
    }
    plausible(without_spaces(token)).map(Some)
}

/// The scheme with the blank behind it.
const BEARER: &str = "bearer ";

/// The text without blanks at its ends.
fn without_spaces(mut text: &str) -> &str {
    while let Some(rest) = text.strip_prefix(' ').or_else(|| text.strip_suffix(' ')) {
        text = rest;
    }
    text
}

/// The key of `X-Api-Key` or, without that header, of `Authorization: Bearer`.
///
/// # Errors
/// As [`bearer`].
pub fn api_key<'a>(head: &RequestHead<'a>) -> Result<Option<&'a str>, AccessError> {
    match once(head.headers, &X_API_KEY)? {
        Some(key) => plausible(without_spaces(key)).map(Some),
        None => bearer(head),
    }
}

/// The value of a cookie, for `GET` and `HEAD` only: a page of another site can make a browser send a
/// cookie, so it must never be what allows a change.
///
/// # Errors
/// [`AccessError::InvalidCredentials`] when the cookie is there twice or has characters of no token.
pub fn cookie<'a>(head: &RequestHead<'a>, name: &str) -> Result<Option<&'a str>, AccessError> {
    if !matches!(*head.method, Method::GET | Method::HEAD) {
        return Ok(None);
    }
    let texts = head.headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = texts.flat_map(|text| text.split(';'));
    let mut values = pairs.filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key.trim() == name).then(|| value.trim())
    });
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(AccessError::InvalidCredentials("the cookie is there twice"));
    }
    plausible(value).map(Some)
}

fn once<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, AccessError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(AccessError::InvalidCredentials("a header with credentials is there twice"));
    }
    // `HeaderValue::to_str` looks at each byte alone, and a token may have some hundred.
    let text = std::str::from_utf8(value.as_bytes()).ok().filter(|text| text.is_ascii());
    text.map(Some).ok_or(AccessError::InvalidCredentials("a header is not ASCII"))
}

/// Whether a token may have this byte. Comparisons of ranges instead of a table, and no branches: the compiler checks
/// sixteen bytes at once.
fn may_be_in_token(byte: u8) -> bool {
    let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    // `-`, `.`, `/` and the digits.
    let digit = byte.wrapping_sub(b'-') <= b'9' - b'-';
    letter | digit | (byte == b'+') | (byte == b'=') | (byte == b'_') | (byte == b'~')
}

/// RFC 6750's `b64token`, bounded.
fn plausible(token: &str) -> Result<&str, AccessError> {
    if token.is_empty() {
        return Err(AccessError::InvalidCredentials("the token is empty"));
    }
    if token.len() > MAX_CREDENTIAL_BYTES {
        return Err(AccessError::InvalidCredentials("the token is too long"));
    }
    let allowed = token.bytes().fold(true, |all, byte| all & may_be_in_token(byte));
    if allowed {
        Ok(token)
    } else {
        Err(AccessError::InvalidCredentials("the token has characters of no token"))
    }
}

/// Compares two secrets in time that depends on their lengths alone.
///
/// Both are put through HMAC under a key that this process drew, and ring compares the results in
/// constant time.
pub fn secrets_match(given: &str, expected: &str) -> bool {
    static KEY: LazyLock<hmac::Key> = LazyLock::new(|| {
        // A process without randomness compares under a fixed key: still constant in time.
        let mut seed = [0; 32];
        let _ = SystemRandom::new().fill(&mut seed);
        hmac::Key::new(hmac::HMAC_SHA256, &seed)
    });
    let tag = hmac::sign(&KEY, expected.as_bytes());
    hmac::verify(&KEY, given.as_bytes(), tag.as_ref()).is_ok()
}

/// Compares the bytes of a credential with those of a verified one, in time that depends on their lengths alone.
///
/// Words instead of the bytes that `subtle` would take one by one: no branch depends on them until all are joined.
pub(crate) fn bytes_match(given: &[u8], expected: &[u8]) -> bool {
    if given.len() != expected.len() {
        return false;
    }
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word.get_mut(..bytes.len()).unwrap_or_default().copy_from_slice(bytes);
        u64::from_ne_bytes(word)
    };
    let (given, expected) = (given.chunks_exact(8), expected.chunks_exact(8));
    let mut differing = word(given.remainder()) ^ word(expected.remainder());
    for (given, expected) in given.zip(expected) {
        differing |= word(given) ^ word(expected);
    }
    differing.ct_eq(&0).into()
}

/// Draws 32 secret bytes, as base64url after a prefix that secret scanners can look for.
///
/// # Errors
/// When the system has no randomness.
pub(crate) fn random_secret(prefix: &str) -> Result<String, NoRandomness> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(format!("{prefix}{}", BASE64URL.encode(bytes)))
}

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Draws `count` letters and digits, each equally likely.
///
/// # Errors
/// When the system has no randomness.
pub(crate) fn random_base62(count: usize) -> Result<String, NoRandomness> {
    let mut text = String::with_capacity(count);
    let mut bytes = [0; 64];
    while text.len() < count {
        SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandomness)?;
        // 248 is the largest multiple of 62 in a byte; what lies above it would favour some letters.
        let letters = bytes.iter().filter(|byte| **byte < 248);
        let letters = letters.filter_map(|byte| BASE62.get(usize::from(byte % 62)));
        let missing = count - text.len();
        text.extend(letters.take(missing).map(|letter| char::from(*letter)));
    }
    Ok(text)
}

/// A number as six letters and digits.
pub(crate) fn base62_of(mut number: u32) -> String {
    let mut letters = [b'0'; 6];
    for letter in letters.iter_mut().rev() {
        *letter = BASE62.get((number % 62) as usize).copied().unwrap_or(b'0');
        number /= 62;
    }
    letters.iter().map(|letter| char::from(*letter)).collect()
}

/// The system has no randomness to draw a secret from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system has no randomness to draw a secret from")]
pub struct NoRandomness;

#[cfg(test)]
mod tests {
    use super::*;
    use durable_streams_protocol::Timestamp;
    use http::HeaderValue;

    fn head<'a>(method: &'a Method, headers: &'a HeaderMap) -> RequestHead<'a> {
        let now = Timestamp::from_millis(0);
        RequestHead {
            method,
            query: None,
            headers,
            path: None,
            client: None,
            certificate: None,
            other_path: None,
            now,
        }
    }

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn bearer_tokens() {
        for (value, expected) in [
            ("Bearer abc", Ok(Some("abc"))),
            ("bearer abc.def-_~+/=", Ok(Some("abc.def-_~+/="))),
            ("BEARER  abc ", Ok(Some("abc"))),
            ("Basic abc", Ok(None)),
            ("Bearerabc", Ok(None)),
            ("Bearer ", Err(())),
            ("Bearer a b", Err(())),
            ("Bearer a,b", Err(())),
            ("Bearer \"a\"", Err(())),
        ] {
            let headers = headers(&[(AUTHORIZATION, value)]);
            let found = bearer(&head(&Method::GET, &headers)).map_err(|_| ());
            assert_eq!(found, expected, "{value}");
        }
        let twice = headers(&[(AUTHORIZATION, "Bearer a"), (AUTHORIZATION, "Bearer b")]);
        assert!(bearer(&head(&Method::GET, &twice)).is_err(), "which one counts would be a guess");
        for bytes in [&b"Bearer t\xc3\xb6ken"[..], b"Bearer \xff"] {
            let mut foreign = HeaderMap::new();
            foreign.insert(AUTHORIZATION, HeaderValue::from_bytes(bytes).unwrap());
            assert!(bearer(&head(&Method::GET, &foreign)).is_err(), "{bytes:?}");
        }
        let mut long = HeaderMap::new();
        let text = format!("Bearer {}", "x".repeat(MAX_CREDENTIAL_BYTES + 1));
        long.insert(AUTHORIZATION, text.parse().unwrap());
        assert!(bearer(&head(&Method::GET, &long)).is_err());
    }

    #[test]
    fn the_bytes_of_a_token() {
        for byte in 0..=u8::MAX {
            let allowed = byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
            assert_eq!(may_be_in_token(byte), allowed, "{byte}");
        }
    }

    #[test]
    fn a_key_may_have_a_header_of_its_own() {
        let both = headers(&[(X_API_KEY, "k1"), (AUTHORIZATION, "Bearer k2")]);
        assert_eq!(api_key(&head(&Method::GET, &both)), Ok(Some("k1")));
        let one = headers(&[(AUTHORIZATION, "Bearer k2")]);
        assert_eq!(api_key(&head(&Method::GET, &one)), Ok(Some("k2")));
        let twice = headers(&[(X_API_KEY, "k1"), (X_API_KEY, "k1")]);
        assert!(api_key(&head(&Method::GET, &twice)).is_err());
    }

    #[test]
    fn a_cookie_reads_and_never_writes() {
        let sent = headers(&[(COOKIE, "a=b; ds=tok.en; c=d")]);
        assert_eq!(cookie(&head(&Method::GET, &sent), "ds"), Ok(Some("tok.en")));
        assert_eq!(cookie(&head(&Method::GET, &sent), "d"), Ok(None));
        for method in [Method::POST, Method::PUT, Method::DELETE] {
            assert_eq!(cookie(&head(&method, &sent), "ds"), Ok(None), "{method}");
        }
        let twice = headers(&[(COOKIE, "ds=a; ds=b")]);
        assert!(cookie(&head(&Method::GET, &twice), "ds").is_err());
    }

    #[test]
    fn bytes_match_where_none_differs() {
        for length in 0..40 {
            let bytes: Vec<u8> = (0..length).collect();
            assert!(bytes_match(&bytes, &bytes), "{length}");
            assert!(!bytes_match(&bytes, &[&bytes[..], b"x"].concat()), "{length} and one more");
            for at in 0..bytes.len() {
                for bit in 0..8 {
                    let mut other = bytes.clone();
                    other[at] ^= 1 << bit;
                    assert!(!bytes_match(&other, &bytes), "bit {bit} of byte {at} of {length}");
                }
            }
        }
    }

    #[test]
    fn secrets() {
        assert!(secrets_match("abc", "abc"));
        for wrong in ["", "abd", "ab", "abcd"] {
            assert!(!secrets_match(wrong, "abc"), "{wrong}");
        }
        let (one, other) = (random_base62(40).unwrap(), random_base62(40).unwrap());
        assert_eq!(one.len(), 40);
        assert_ne!(one, other);
        assert_eq!(base62_of(0), "000000");
        assert_eq!(base62_of(u32::MAX), "4gfFC3");
    }
}
