//! Tokens that were verified already, or found to be another provider's, by their hash.
//!
//! Invariants
//! - A principal is returned only for the very token that it was verified from (SHA-256), only before it
//!   expires, and only while the revision it was verified under is the current one: a reload of the keys
//!   or secrets makes all that they verified unknown.
//! - The bytes held never exceed the bound, however many tokens are sent.

use std::{mem, sync::Arc};

use durable_streams_protocol::Timestamp;
use parking_lot::Mutex;
use ring::digest;
use rustc_hash::FxHashMap;

use crate::Principal;

/// Locks, so that connections do not wait for each other.
const SHARDS: usize = 16;
/// What an entry is taken to need besides its principal's strings, bytes.
const ENTRY_BYTES: usize = 512;

/// What an entry without a principal takes, bytes.
const FOREIGN_BYTES: usize = 160;

/// The hash of a token.
pub(crate) type TokenHash = [u8; 32];

/// The hash under which a token is looked up.
pub(crate) fn token_hash(token: &str) -> TokenHash {
    bytes_hash(token.as_bytes())
}

/// SHA-256.
pub(crate) fn bytes_hash(bytes: &[u8]) -> TokenHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    hash
}

/// Verified tokens, bounded in bytes.
pub(crate) struct TokenCache {
    shards: [Mutex<CacheShard>; SHARDS],
    /// Bytes of one generation of one shard.
    half: usize,
}

/// Two generations: what is used moves to the young one, and what was not used while that filled is lost.
#[derive(Default)]
struct CacheShard {
    young: FxHashMap<TokenHash, CachedToken>,
    old: FxHashMap<TokenHash, CachedToken>,
    young_bytes: usize,
}

struct CachedToken {
    /// `None`: the token is not this provider's.
    principal: Option<Arc<Principal>>,
    revision: u64,
    bytes: usize,
}

/// What is known of a token.
#[derive(Clone, Debug)]
pub(crate) enum KnownToken {
    Verified(Arc<Principal>),
    /// It is not this provider's.
    Foreign,
}

impl TokenCache {
    /// A cache of at most `bytes`; 0 keeps nothing.
    pub(crate) fn new(bytes: usize) -> Self {
        TokenCache { shards: Default::default(), half: bytes / SHARDS / 2 }
    }

    /// The principal of a token that was verified under this revision and has not expired.
    #[cfg_attr(not(feature = "jwt"), allow(dead_code, reason = "tokens and tests use it"))]
    pub(crate) fn get(
        &self,
        token: &TokenHash,
        revision: u64,
        now: Timestamp,
    ) -> Option<Arc<Principal>> {
        match self.known(token, revision, now)? {
            KnownToken::Verified(principal) => Some(principal),
            KnownToken::Foreign => None,
        }
    }

    /// What is known of a token under this revision; nothing once it has expired.
    pub(crate) fn known(
        &self,
        token: &TokenHash,
        revision: u64,
        now: Timestamp,
    ) -> Option<KnownToken> {
        let mut shard = self.shard(token).lock();
        let found = match shard.young.get(token) {
            Some(found) => found.principal.clone(),
            None => {
                let found = shard.old.remove(token)?;
                let principal = found.principal.clone();
                if found.revision == revision {
                    shard.insert(*token, found, self.half);
                }
                principal
            }
        };
        let current = shard.young.get(token).is_some_and(|entry| entry.revision == revision);
        match found.filter(|_| current) {
            Some(principal) => {
                (!principal.is_expired(now)).then_some(KnownToken::Verified(principal))
            }
            None => current.then_some(KnownToken::Foreign),
        }
    }

    /// Remembers that a token is not this provider's.
    pub(crate) fn insert_foreign(&self, token: TokenHash, revision: u64) {
        let entry = CachedToken { principal: None, revision, bytes: FOREIGN_BYTES };
        if FOREIGN_BYTES <= self.half {
            self.shard(&token).lock().insert(token, entry, self.half);
        }
    }

    /// Remembers a verified token, which had `length` bytes.
    pub(crate) fn insert(
        &self,
        token: TokenHash,
        length: usize,
        revision: u64,
        principal: Arc<Principal>,
    ) {
        // A token's claims are held decoded, as JSON values: a few times its length.
        let bytes = ENTRY_BYTES + length.saturating_mul(4);
        if bytes <= self.half {
            let entry = CachedToken { principal: Some(principal), revision, bytes };
            self.shard(&token).lock().insert(token, entry, self.half);
        }
    }

    fn shard(&self, token: &TokenHash) -> &Mutex<CacheShard> {
        // Masked, so within bounds.
        &self.shards[usize::from(token[0]) % SHARDS]
    }

    #[cfg(test)]
    fn bytes(&self) -> usize {
        let held = |entries: &FxHashMap<TokenHash, CachedToken>| {
            entries.values().map(|entry| entry.bytes).sum::<usize>()
        };
        let shards = self.shards.iter().map(|shard| {
            let shard = shard.lock();
            held(&shard.young) + held(&shard.old)
        });
        shards.sum()
    }
}

impl CacheShard {
    fn insert(&mut self, token: TokenHash, entry: CachedToken, half: usize) {
        if self.young_bytes + entry.bytes > half {
            self.old = mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += entry.bytes;
        if let Some(replaced) = self.young.insert(token, entry) {
            self.young_bytes -= replaced.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(expires: Option<u64>) -> Arc<Principal> {
        let principal = Principal::new("x").with_expiry(expires.map(Timestamp::from_millis));
        Arc::new(principal)
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_token_is_known_until_it_expires_or_the_revision_changes() {
        let cache = TokenCache::new(1 << 20);
        let token = token_hash("a");
        assert!(cache.get(&token, 1, at(0)).is_none());
        cache.insert(token, 100, 1, principal(Some(50)));
        assert!(cache.get(&token, 1, at(49)).is_some());
        assert!(cache.get(&token, 1, at(50)).is_none(), "expired");
        assert!(cache.get(&token, 2, at(0)).is_none(), "the secrets were reloaded");
        assert!(cache.get(&token_hash("b"), 1, at(0)).is_none());
    }

    #[test]
    fn what_is_another_providers_is_so_under_one_revision() {
        let cache = TokenCache::new(1 << 20);
        let token = token_hash("a");
        cache.insert_foreign(token, 1);
        assert!(matches!(cache.known(&token, 1, at(0)), Some(KnownToken::Foreign)));
        assert!(cache.get(&token, 1, at(0)).is_none());
        assert!(cache.known(&token, 2, at(0)).is_none(), "a project was made since");
        cache.insert(token, 100, 2, principal(None));
        assert!(cache.get(&token, 2, at(0)).is_some());
        let bytes = (mem::size_of::<(TokenHash, CachedToken)>() + 1) * 16 / 7;
        assert!(bytes <= FOREIGN_BYTES, "{bytes}");
    }

    #[test]
    fn a_flood_of_tokens_stays_within_the_bound_and_used_ones_stay() {
        let bound = 256 * 1024;
        let cache = TokenCache::new(bound);
        let used = token_hash("used");
        cache.insert(used, 100, 1, principal(None));
        for number in 0..20_000 {
            cache.insert(token_hash(&number.to_string()), 100, 1, principal(None));
            if number % 4 == 0 {
                assert!(cache.get(&used, 1, at(0)).is_some(), "{number}");
            }
        }
        assert!(cache.bytes() <= bound, "{}", cache.bytes());
        assert!(cache.bytes() > bound / 4, "the room is used");
        TokenCache::new(0).insert(used, 1, 1, principal(None));
    }
}
