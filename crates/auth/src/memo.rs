//! Credentials that were verified a moment ago, by the bytes of the header that carries them.
//!
//! A client sends the same header with each request, and verifying it costs two or more hashes and several calls of
//! providers. The guard remembers the principal instead, and compares the header with the one it remembers.
//! Measured: 11,100 -> 2,900 instructions beyond those of an append without `auth` with an API key, 15,100 -> 2,700 with a
//! project token (docs/benchmarks.md).
//!
//! Invariants
//! - A principal is returned only for a request whose one credential header has the very bytes that it was verified
//!   from, compared in constant time.
//! - It is returned only while the providers' revision is the one from before the verification, only before it expires,
//!   and for [`VALID_MILLIS`] at most: then its providers judge again, and note that the credential was used.
//! - At most [`SETS`] times [`WAYS`] headers of [`LONGEST`] bytes are remembered, only those of valid credentials.

use std::{array, hash::Hasher, sync::Arc};

use arc_swap::ArcSwapOption;
use durable_streams_protocol::Timestamp;
use http::{
    HeaderMap,
    header::{AUTHORIZATION, COOKIE},
};
use rustc_hash::FxHasher;

use crate::{
    Principal,
    credential::{X_API_KEY, bytes_match},
};

/// How long a principal is remembered, milliseconds.
const VALID_MILLIS: u64 = 1_000;
/// The longest header that is remembered, bytes.
const LONGEST: usize = 2 * 1024;
const SETS: usize = 512;
/// Headers that share a set, so that two busy clients whose headers fall together do not displace each other.
const WAYS: usize = 2;

/// The header that carries the credential of a request.
#[derive(Clone, Copy)]
pub(crate) struct CredentialHeader<'a> {
    name: CredentialName,
    value: &'a [u8],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CredentialName {
    Authorization,
    ApiKey,
}

/// A principal with the header that it was verified from.
struct RememberedPrincipal {
    name: CredentialName,
    value: Box<[u8]>,
    /// The providers' revision before they verified it.
    revision: u64,
    since: Timestamp,
    principal: Arc<Principal>,
}

/// The credentials that were verified last.
pub(crate) struct CredentialMemo {
    sets: Box<[[ArcSwapOption<RememberedPrincipal>; WAYS]]>,
}

impl<'a> CredentialHeader<'a> {
    /// The only header of a request that can carry a credential; `None` where there is none, or more than one.
    pub(crate) fn of(headers: &'a HeaderMap) -> Option<Self> {
        let mut authorization = headers.get_all(AUTHORIZATION).iter();
        let mut keys = headers.get_all(X_API_KEY).iter();
        let found = (authorization.next(), authorization.next(), keys.next(), keys.next());
        let (name, value) = match found {
            (Some(value), None, None, None) => (CredentialName::Authorization, value),
            // Providers that do not read this header may read a cookie.
            (None, None, Some(value), None) if !headers.contains_key(COOKIE) => {
                (CredentialName::ApiKey, value)
            }
            _ => return None,
        };
        let value = value.as_bytes();
        (value.len() <= LONGEST).then_some(CredentialHeader { name, value })
    }

    fn place(self) -> usize {
        let mut hasher = FxHasher::default();
        hasher.write(self.value);
        hasher.finish() as usize % SETS
    }
}

impl RememberedPrincipal {
    fn is_for(&self, header: CredentialHeader<'_>) -> bool {
        self.name == header.name && bytes_match(header.value, &self.value)
    }

    fn is_valid(&self, revision: u64, now: Timestamp) -> bool {
        // A clock that was set back makes the age huge.
        let age = now.millis().wrapping_sub(self.since.millis());
        self.revision == revision && age < VALID_MILLIS && !self.principal.is_expired(now)
    }
}

impl CredentialMemo {
    pub(crate) fn new() -> Self {
        CredentialMemo { sets: (0..SETS).map(|_| array::from_fn(|_| None.into())).collect() }
    }

    fn set(
        &self,
        header: CredentialHeader<'_>,
    ) -> impl Iterator<Item = &ArcSwapOption<RememberedPrincipal>> {
        self.sets.get(header.place()).into_iter().flatten()
    }

    /// The principal of a request with this header, if it was verified under this revision a moment ago.
    pub(crate) fn find(
        &self,
        header: CredentialHeader<'_>,
        revision: u64,
        now: Timestamp,
    ) -> Option<Arc<Principal>> {
        self.set(header).find_map(|way| {
            let known = way.load();
            let known = known.as_ref()?;
            let valid = known.is_valid(revision, now) && known.is_for(header);
            valid.then(|| known.principal.clone())
        })
    }

    /// Remembers a principal that was verified from a header, by providers of this revision or a newer one.
    pub(crate) fn insert(
        &self,
        header: CredentialHeader<'_>,
        revision: u64,
        principal: &Arc<Principal>,
        now: Timestamp,
    ) {
        let replaceable = |way: &&ArcSwapOption<RememberedPrincipal>| {
            way.load().as_ref().is_none_or(|one| !one.is_valid(revision, now) || one.is_for(header))
        };
        let way = self.set(header).find(replaceable).or_else(|| self.set(header).next());
        if let Some(way) = way {
            way.store(Some(Arc::new(RememberedPrincipal {
                name: header.name,
                value: header.value.into(),
                revision,
                since: now,
                principal: principal.clone(),
            })));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    const NOW: Timestamp = Timestamp::from_millis(50_000);

    fn later(millis: u64) -> Timestamp {
        Timestamp::from_millis(50_000 + millis)
    }

    fn header(name: CredentialName, value: &str) -> CredentialHeader<'_> {
        CredentialHeader { name, value: value.as_bytes() }
    }

    fn authorization(value: &str) -> CredentialHeader<'_> {
        header(CredentialName::Authorization, value)
    }

    fn principal(name: &str) -> Arc<Principal> {
        Arc::new(Principal::new(name))
    }

    #[test]
    fn a_header_is_remembered_for_its_very_bytes_revision_and_time() {
        let memo = CredentialMemo::new();
        let one = authorization("Bearer one");
        memo.insert(one, 7, &principal("one"), NOW);
        let found = |header, revision, now| memo.find(header, revision, now).is_some();
        assert!(found(one, 7, NOW) && found(one, 7, later(999)));
        assert!(!found(one, 8, NOW), "a key was revoked");
        assert!(!found(one, 7, later(1_000)), "its provider judges again");
        assert!(!found(one, 7, Timestamp::from_millis(49_999)), "the clock was set back");
        for other in ["Bearer on", "Bearer onE", "bearer one", "Bearer one ", ""] {
            assert!(!found(authorization(other), 7, NOW), "{other:?}");
        }
        assert!(!found(header(CredentialName::ApiKey, "Bearer one"), 7, NOW));
    }

    #[test]
    fn a_principal_that_expires_is_not_returned() {
        let memo = CredentialMemo::new();
        let one = authorization("Bearer one");
        let principal = Arc::new(Principal::new("one").with_expiry(Some(later(10))));
        memo.insert(one, 1, &principal, NOW);
        assert!(memo.find(one, 1, later(9)).is_some());
        assert!(memo.find(one, 1, later(10)).is_none());
    }

    #[test]
    fn headers_of_one_set_are_told_apart_and_a_flood_stays_within_the_bound() {
        let memo = CredentialMemo::new();
        let values: Vec<String> = (0..20_000).map(|number| format!("Bearer {number}")).collect();
        for value in &values {
            memo.insert(authorization(value), 1, &principal(value), NOW);
            let found = memo.find(authorization(value), 1, NOW).unwrap();
            assert_eq!(*found.identity, **value);
        }
        let held = values.iter().filter_map(|value| {
            let found = memo.find(authorization(value), 1, NOW)?;
            assert_eq!(*found.identity, **value);
            Some(())
        });
        let held = held.count();
        assert!((SETS..=SETS * WAYS).contains(&held), "{held}");
    }

    #[test]
    fn two_headers_of_one_set_stay_both() {
        let memo = CredentialMemo::new();
        let first = "Bearer 0".to_owned();
        let place = authorization(&first).place();
        let second = (1..).map(|number| format!("Bearer {number}"));
        let second = second.into_iter().find(|one| authorization(one).place() == place).unwrap();
        for _ in 0..2 {
            for one in [&first, &second] {
                memo.insert(authorization(one), 1, &principal(one), NOW);
            }
        }
        assert!(memo.find(authorization(&first), 1, NOW).is_some());
        assert!(memo.find(authorization(&second), 1, NOW).is_some());
    }

    #[test]
    fn only_a_request_with_one_credential_header_is_remembered() {
        let long = "x".repeat(LONGEST + 1);
        for (fields, remembered) in [
            (&[("authorization", "Bearer a")][..], true),
            (&[("authorization", "Bearer a"), ("cookie", "ds=b")], true),
            (&[("x-api-key", "a")], true),
            (&[("x-api-key", "a"), ("cookie", "ds=b")], false),
            (&[("authorization", "Bearer a"), ("x-api-key", "b")], false),
            (&[("authorization", "Bearer a"), ("authorization", "Bearer b")], false),
            (&[("x-api-key", "a"), ("x-api-key", "a")], false),
            (&[("cookie", "ds=b")], false),
            (&[("authorization", long.as_str())], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(CredentialHeader::of(&headers).is_some(), remembered, "{fields:?}");
        }
    }
}
