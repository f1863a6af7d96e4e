//! Callback and claim tokens (§12.9): `<claims>.<mac>`, both base64url; the MAC is HMAC-SHA256.
//!
//! A token is valid for one wake of one subscription. It proves only that this server issued it;
//! [`Subscription::ack`](super::Subscription::ack) checks whether the wake is still the current one.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::{SubscriptionId, SubscriptionName, WakeId};
use crate::{TenantId, Timestamp};

/// How long a token is valid, milliseconds. It bounds how long a worker can extend one wake by heartbeats.
pub(super) const TOKEN_LIFE_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// The longest token that is verified, bytes.
const MAX_TOKEN_BYTES: usize = 4096;

/// What a token is valid for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenClaims {
    /// The subscription.
    #[serde(rename = "sub")]
    pub subscription: SubscriptionId,
    /// Whose subscription it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// The generation.
    #[serde(rename = "gen")]
    pub generation: u64,
    /// The wake.
    pub wake: WakeId,
    /// When the token expires.
    #[serde(rename = "exp")]
    pub expires: Timestamp,
}

impl TokenClaims {
    /// The subscription whose wake the token is for.
    pub fn name(&self) -> SubscriptionName {
        SubscriptionName { tenant: self.tenant.clone(), id: self.subscription.clone() }
    }
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Not signed with this key, for another subscription, or no token at all.
    Invalid,
    /// Expired.
    Expired,
}

/// The secret that signs tokens.
pub struct TokenKey(hmac::Key);

impl TokenKey {
    /// A key from 32 secret bytes.
    pub fn new(secret: &[u8; 32]) -> Self {
        TokenKey(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// Issues a token at `now` for one wake.
    pub fn issue(
        &self,
        subscription: &SubscriptionName,
        generation: u64,
        wake: &WakeId,
        now: Timestamp,
    ) -> String {
        let claims = TokenClaims {
            subscription: subscription.id.clone(),
            tenant: subscription.tenant.clone(),
            generation,
            wake: wake.clone(),
            expires: Timestamp::from_millis(now.millis().saturating_add(TOKEN_LIFE_MILLIS)),
        };
        let payload = BASE64URL.encode(super::json(&claims));
        let mac = hmac::sign(&self.0, payload.as_bytes());
        format!("{payload}.{}", BASE64URL.encode(mac.as_ref()))
    }

    /// Verifies a token: first the MAC, in constant time, then the subscription and the time. Whose
    /// subscription it is for is in the claims.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn verify(
        &self,
        token: &str,
        subscription: &SubscriptionId,
        now: Timestamp,
    ) -> Result<TokenClaims, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Invalid);
        }
        let (payload, mac) = token.split_once('.').ok_or(TokenError::Invalid)?;
        let mac = BASE64URL.decode(mac).map_err(|_| TokenError::Invalid)?;
        hmac::verify(&self.0, payload.as_bytes(), &mac).map_err(|_| TokenError::Invalid)?;
        let claims = BASE64URL.decode(payload).map_err(|_| TokenError::Invalid)?;
        let claims: TokenClaims =
            serde_json::from_slice(&claims).map_err(|_| TokenError::Invalid)?;
        if claims.subscription != *subscription {
            return Err(TokenError::Invalid);
        }
        if claims.expires <= now {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(tenant: Option<&str>, text: &str) -> SubscriptionName {
        SubscriptionName { tenant: tenant.map(|name| TenantId::new(name).unwrap()), id: id(text) }
    }

    fn id(text: &str) -> SubscriptionId {
        SubscriptionId::new(text).unwrap()
    }

    #[test]
    fn a_token_is_good_for_its_subscription_and_time_only() {
        let key = TokenKey::new(&[7; 32]);
        let now = Timestamp::from_millis(1_000);
        let wake = WakeId::from_random([1; 12]);
        let token = key.issue(&named(None, "a"), 3, &wake, now);
        let claims = key.verify(&token, &id("a"), now).unwrap();
        assert_eq!((claims.generation, &claims.wake, &claims.tenant), (3, &wake, &None));
        let tenants = key.issue(&named(Some("acme"), "a"), 3, &wake, now);
        let claims = key.verify(&tenants, &id("a"), now).unwrap();
        assert_eq!(claims.tenant, TenantId::new("acme").ok());
        assert_eq!(key.verify(&token, &id("b"), now), Err(TokenError::Invalid));
        let last = Timestamp::from_millis(1_000 + 86_400_000 - 1);
        assert!(key.verify(&token, &id("a"), last).is_ok(), "a day");
        let end = Timestamp::from_millis(1_000 + 86_400_000);
        assert_eq!(key.verify(&token, &id("a"), end), Err(TokenError::Expired));
        assert_eq!(TokenKey::new(&[8; 32]).verify(&token, &id("a"), now), Err(TokenError::Invalid));
    }

    #[test]
    fn a_token_longer_than_4096_bytes_is_not_verified() {
        let key = TokenKey::new(&[7; 32]);
        let now = Timestamp::from_millis(1_000);
        let signed = |bytes: usize| {
            let token = key.issue(&named(None, "a"), 3, &WakeId::from_random([1; 12]), now);
            let mut claims = BASE64URL.decode(token.split('.').next().unwrap()).unwrap();
            claims.resize(bytes, b' ');
            let payload = BASE64URL.encode(&claims);
            let mac = hmac::sign(&key.0, payload.as_bytes());
            format!("{payload}.{}", BASE64URL.encode(mac.as_ref()))
        };
        let (longest, longer) = (signed(3_039), signed(3_040));
        assert_eq!((longest.len(), longer.len()), (4_096, 4_098));
        assert!(key.verify(&longest, &id("a"), now).is_ok());
        assert_eq!(key.verify(&longer, &id("a"), now), Err(TokenError::Invalid));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let key = TokenKey::new(&[7; 32]);
        let now = Timestamp::from_millis(1_000);
        let token = key.issue(&named(None, "a"), 3, &WakeId::from_random([1; 12]), now);
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(key.verify(&changed, &id("a"), now), Err(TokenError::Invalid), "byte {at}");
        }
        for bad in ["", ".", "a.b", "no-dot", "e30.e30"] {
            assert_eq!(key.verify(bad, &id("a"), now), Err(TokenError::Invalid));
        }
    }
}
