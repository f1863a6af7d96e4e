//! Signed URLs: one operation on one stream until a time, for readers that cannot set headers.
//!
//! ```text
//! /v1/stream/chat/a?offset=-1&live=sse&ds-op=read&ds-exp=1767225600&ds-key=4fT0Qa1b&ds-sig=…
//! ```
//!
//! The signature is HMAC-SHA256, base64url, of
//!
//! ```text
//! ds-url-v1 LF {ds-op} LF {ds-exp} LF {ds-key} LF {decoded stream path}
//! ```
//!
//! with the text of the key's secret as HMAC key. A path has no line feed, so no two requests share the
//! text. `offset`, `live` and `cursor` are free: the reader moves through the stream with them.

use std::{borrow::Cow, sync::Arc};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use durable_streams_protocol::{StreamPath, Timestamp};
use ring::hmac;

use crate::{
    AccessControl, AccessError, CredentialFile, CredentialFileError, Grant, Operation,
    OperationSet, PathPattern, Principal, RequestHead, TenantId,
    credential::{random_base62, random_secret},
    credentials::{UrlKeyRecord, key_of, valid_name},
};

/// What every secret that signs URLs begins with.
pub const URL_SECRET_PREFIX: &str = "dsu_";
/// The query parameter that is a secret.
const SIGNATURE: &str = "ds-sig";

/// What a URL that is to be signed may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UrlGrant<'a> {
    /// [`Operation::Read`] or [`Operation::Append`].
    pub operation: Operation,
    /// The stream.
    pub path: &'a StreamPath,
    /// When the URL ends; whole seconds.
    pub expires: Timestamp,
}

/// What a new key's URLs may do at most.
#[derive(Clone, Debug, PartialEq)]
pub struct NewUrlKey {
    /// What the operator calls it: 1 to 64 bytes.
    pub name: String,
    /// Whose streams its URLs name.
    pub tenant: Option<TenantId>,
    /// What its URLs may do at most.
    pub grants: Vec<Grant>,
}

/// The operations that a URL may carry. Creating, closing and deleting are not among them: a link that is
/// followed by mistake must not be able to.
fn url_operation(word: &str) -> Option<Operation> {
    [Operation::Read, Operation::Append].into_iter().find(|one| one.name() == word)
}

fn signed_text(operation: &str, expires: &str, key: &str, path: &StreamPath) -> String {
    format!("ds-url-v1\n{operation}\n{expires}\n{key}\n{path}")
}

/// The query of a signed URL, without `?`, for a key's id and secret: what an application that holds the
/// secret computes itself. `None` for an operation that URLs do not carry.
pub fn sign_url_query(key_id: &str, secret: &str, url: &UrlGrant<'_>) -> Option<String> {
    let operation = url_operation(url.operation.name())?.name();
    let expires = (url.expires.millis() / 1000).to_string();
    let text = signed_text(operation, &expires, key_id, url.path);
    let signature = BASE64URL.encode(hmac::sign(&key_of(secret), text.as_bytes()));
    Some(format!("ds-op={operation}&ds-exp={expires}&ds-key={key_id}&{SIGNATURE}={signature}"))
}

/// A query without the value of a signature, for logs, traces and problem bodies.
pub fn redacted_query(query: &str) -> Cow<'_, str> {
    let secret = |pair: &str| pair.split('=').next().is_some_and(is_signature_name);
    if !query.split('&').any(secret) {
        return Cow::Borrowed(query);
    }
    let pairs = query.split('&');
    let shown: Vec<&str> =
        pairs.map(|pair| if secret(pair) { "ds-sig=***" } else { pair }).collect();
    Cow::Owned(shown.join("&"))
}

/// However the name is escaped: a server would not take it, but a log must not show it either.
fn is_signature_name(name: &str) -> bool {
    percent_encoding::percent_decode_str(name).eq(SIGNATURE.bytes())
}

impl CredentialFile {
    /// Makes a key that signs URLs and returns its record and secret.
    ///
    /// # Errors
    /// When the name is not valid or the file cannot be changed.
    pub fn create_url_key(
        &self,
        new: NewUrlKey,
        now: Timestamp,
    ) -> Result<(UrlKeyRecord, String), CredentialFileError> {
        valid_name(&new.name)?;
        let secret = random_secret(URL_SECRET_PREFIX)?;
        let record = UrlKeyRecord {
            id: random_base62(8)?,
            secret: secret.clone(),
            name: new.name,
            created: now,
            tenant: new.tenant,
            grants: new.grants,
        };
        self.change(|stored| {
            stored.url_keys.push(record.clone());
            Ok(())
        })?;
        Ok((record, secret))
    }

    /// Deletes a key: every URL that it signed is refused from now on.
    ///
    /// # Errors
    /// When there is no such key or the file cannot be changed.
    pub fn delete_url_key(&self, id: &str) -> Result<(), CredentialFileError> {
        self.change(|stored| {
            let before = stored.url_keys.len();
            stored.url_keys.retain(|key| key.id != id);
            if stored.url_keys.len() < before {
                return Ok(());
            }
            Err(CredentialFileError::Refused(format!("there is no URL key {id:?}")))
        })
    }

    /// The keys that sign URLs, in the order in which they were made.
    pub fn url_keys(&self) -> Vec<UrlKeyRecord> {
        self.with_set(|set| set.stored.url_keys.clone())
    }

    /// The query of a signed URL, without `?`.
    ///
    /// # Errors
    /// When there is no such key, or it may not sign this.
    pub fn sign_url(&self, id: &str, url: &UrlGrant<'_>) -> Result<String, CredentialFileError> {
        let refused = |why: String| CredentialFileError::Refused(why);
        let found = self.url_keys().into_iter().find(|key| key.id == id);
        let key = found.ok_or_else(|| refused(format!("there is no URL key {id:?}")))?;
        if !key.grants.iter().any(|grant| grant.allows(url.operation, url.path)) {
            return Err(refused(format!("the URL key {id} may not sign this")));
        }
        let signed = sign_url_query(&key.id, &key.secret, url);
        signed.ok_or_else(|| refused("a signed URL can read or append".into()))
    }
}

/// Authenticates signed URLs.
pub struct SignedUrls {
    file: Arc<CredentialFile>,
}

/// The parameters of a signed URL, as they were sent.
struct UrlSignature<'a> {
    operation: &'a str,
    expires: &'a str,
    key: &'a str,
    signature: &'a str,
}

impl<'a> UrlSignature<'a> {
    /// `Ok(None)` for a query without any of the parameters.
    fn parse(query: &'a str) -> Result<Option<Self>, AccessError> {
        let mut found: [Option<&str>; 4] = [None; 4];
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let at = ["ds-op", "ds-exp", "ds-key", SIGNATURE].iter().position(|one| *one == name);
            if let Some(slot) = at.and_then(|at| found.get_mut(at))
                && slot.replace(value).is_some()
            {
                return Err(AccessError::InvalidCredentials("a URL parameter is there twice"));
            }
        }
        match found {
            [None, None, None, None] => Ok(None),
            [Some(operation), Some(expires), Some(key), Some(signature)] => {
                Ok(Some(UrlSignature { operation, expires, key, signature }))
            }
            _ => Err(AccessError::InvalidCredentials("a part of the URL's signature is missing")),
        }
    }
}

impl SignedUrls {
    /// The provider's name.
    pub const NAME: &'static str = "signed-urls";

    /// The URL keys of a file.
    pub fn new(file: Arc<CredentialFile>) -> Self {
        SignedUrls { file }
    }
}

#[async_trait]
impl AccessControl for SignedUrls {
    fn name(&self) -> &str {
        Self::NAME
    }

    async fn authenticate(&self, head: &RequestHead<'_>) -> Result<Arc<Principal>, AccessError> {
        let parsed = head.query.map_or(Ok(None), UrlSignature::parse)?;
        let url = parsed.ok_or(AccessError::NoCredentials)?;
        let invalid = AccessError::InvalidCredentials("the URL is not signed for this");
        let Some(path) = head.path else { return Err(invalid) };
        let Some(operation) = url_operation(url.operation) else { return Err(invalid) };
        // Only the digits that the signer wrote: other spellings of a number are other texts.
        let Ok(seconds) = url.expires.parse::<u64>() else { return Err(invalid) };
        let Ok(signature) = BASE64URL.decode(url.signature) else { return Err(invalid) };
        self.file.with_set(|set| {
            let Some(entry) = set.url_keys.get(url.key) else { return Err(invalid) };
            let text = signed_text(url.operation, url.expires, url.key, path);
            if hmac::verify(&entry.key, text.as_bytes(), &signature).is_err() {
                return Err(invalid);
            }
            let expires = Timestamp::from_millis(seconds.saturating_mul(1000));
            if head.now >= expires {
                return Err(AccessError::InvalidCredentials("the URL has expired"));
            }
            if !entry.most.allows(operation, path) {
                return Err(AccessError::NotAllowed);
            }
            let only = Grant::on(OperationSet::of(operation), PathPattern::Exact(path.clone()));
            let mut principal = entry.most.clone().with_expiry(Some(expires));
            principal.grants = vec![only];
            principal.provider = Self::NAME.into();
            principal.by_url = true;
            Ok(Arc::new(principal))
        })
    }

    fn is_current(&self, principal: &Principal, now: Timestamp) -> bool {
        let Some(id) = principal.credential.as_deref() else { return false };
        self.file.with_set(|set| set.url_keys.contains_key(id)) && !principal.is_expired(now)
    }
}
