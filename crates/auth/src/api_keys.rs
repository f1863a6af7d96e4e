//! API keys: made by the operator, recognised by their text, stored as hashes.
//!
//! ```text
//! dsk_ {id: 12} {secret: 32} {check: 6}        letters and digits, 54 characters
//! ```
//!
//! The id is public. The secret has 190 bits, so a fast hash protects it: the file holds HMAC-SHA256 of the
//! whole key under a fixed label. The check is the first 32 bits of SHA-256 of all before it, in base 62: a
//! scanner that finds `dsk_` and 50 letters and digits can tell a key from noise without asking anybody.

use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use durable_streams_protocol::Timestamp;
use ring::{digest, hmac};

use crate::{
    AccessControl, AccessError, CredentialFile, CredentialFileError, Grant, Principal, RequestHead,
    TenantId,
    credential::{api_key, base62_of, cookie, random_base62},
    credentials::{ApiKeyRecord, valid_name},
};

/// What every API key begins with.
pub const API_KEY_PREFIX: &str = "dsk_";
const ID_LETTERS: usize = 12;
const SECRET_LETTERS: usize = 32;
const CHECK_LETTERS: usize = 6;
const KEY_LETTERS: usize = API_KEY_PREFIX.len() + ID_LETTERS + SECRET_LETTERS + CHECK_LETTERS;

/// Keeps the hashes of API keys apart from any other use of HMAC; no secret.
static LABEL: LazyLock<hmac::Key> =
    LazyLock::new(|| hmac::Key::new(hmac::HMAC_SHA256, b"durable-streams api key v1"));

/// What a new key may do.
#[derive(Clone, Debug, PartialEq)]
pub struct NewApiKey {
    /// What the operator calls it: 1 to 64 bytes.
    pub name: String,
    /// Whose streams it names.
    pub tenant: Option<TenantId>,
    /// What it may do.
    pub grants: Vec<Grant>,
    /// From when on it is refused.
    pub expires: Option<Timestamp>,
}

/// The id of a text that has the form of an API key, its check included.
pub fn api_key_id(text: &str) -> Option<&str> {
    formed_id(text).filter(|_| has_its_check(text))
}

/// The id of a text with the letters of an API key, whatever its check is.
fn formed_id(text: &str) -> Option<&str> {
    let body = text.strip_prefix(API_KEY_PREFIX).filter(|_| text.len() == KEY_LETTERS)?;
    // Without a branch for each letter, so that the compiler takes many at once.
    let letters = body.bytes().fold(true, |all, byte| all & byte.is_ascii_alphanumeric());
    if letters { body.get(..ID_LETTERS) } else { None }
}

fn has_its_check(text: &str) -> bool {
    let parts = text.split_at_checked(KEY_LETTERS - CHECK_LETTERS);
    parts.is_some_and(|(rest, check)| check_of(rest) == check)
}

fn check_of(text: &str) -> String {
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    let first = hash.as_ref().first_chunk::<4>().copied().unwrap_or_default();
    base62_of(u32::from_be_bytes(first))
}

fn hash_of(key: &str) -> hmac::Tag {
    hmac::sign(&LABEL, key.as_bytes())
}

pub(crate) fn stored_hash(record: &ApiKeyRecord) -> Option<Vec<u8>> {
    BASE64URL.decode(&record.hash).ok().filter(|hash| hash.len() == 32)
}

pub(crate) fn principal(record: &ApiKeyRecord) -> Principal {
    let mut principal = Principal::new(format!("key:{}", record.id))
        .with_credential(record.id.as_str())
        .with_tenant(record.tenant.clone())
        .with_grants(record.grants.iter().cloned())
        .with_expiry(record.expires);
    principal.provider = ApiKeys::NAME.into();
    principal
}

impl CredentialFile {
    /// Makes an API key and returns it with its record. The key itself is stored nowhere.
    ///
    /// # Errors
    /// When the name is not valid or the file cannot be changed.
    pub fn create_api_key(
        &self,
        new: NewApiKey,
        now: Timestamp,
    ) -> Result<(ApiKeyRecord, String), CredentialFileError> {
        valid_name(&new.name)?;
        let id = random_base62(ID_LETTERS)?;
        let body = format!("{API_KEY_PREFIX}{id}{}", random_base62(SECRET_LETTERS)?);
        let key = format!("{body}{}", check_of(&body));
        let record = ApiKeyRecord {
            id,
            name: new.name,
            hash: BASE64URL.encode(hash_of(&key)),
            tenant: new.tenant,
            grants: new.grants,
            created: now,
            expires: new.expires,
            revoked: None,
        };
        self.change(|stored| {
            stored.api_keys.push(record.clone());
            Ok(())
        })?;
        Ok((record, key))
    }

    /// The API keys, in the order in which they were made.
    pub fn api_keys(&self) -> Vec<ApiKeyRecord> {
        self.with_set(|set| set.stored.api_keys.clone())
    }

    /// Revokes the API key with this id, or with this name when only one has it and is not revoked yet.
    ///
    /// # Errors
    /// When there is no such key, several have the name, or the file cannot be changed.
    pub fn revoke_api_key(
        &self,
        id_or_name: &str,
        now: Timestamp,
    ) -> Result<ApiKeyRecord, CredentialFileError> {
        let refused = |why: &str| CredentialFileError::Refused(why.into());
        self.change(|stored| {
            let by_id = stored.api_keys.iter().position(|key| key.id == id_or_name);
            let named = |key: &ApiKeyRecord| key.name == id_or_name && key.revoked.is_none();
            let at = match by_id {
                Some(at) => at,
                None => {
                    let mut found = stored.api_keys.iter().enumerate().filter(|(_, k)| named(k));
                    match (found.next(), found.next()) {
                        (Some((at, _)), None) => at,
                        (None, _) => return Err(refused("no key has this id or name")),
                        _ => return Err(refused("several keys have this name; use the id")),
                    }
                }
            };
            let key = stored.api_keys.get_mut(at).ok_or_else(|| refused("no such key"))?;
            key.revoked = key.revoked.or(Some(now));
            Ok(key.clone())
        })
    }
}

/// Authenticates API keys of a [`CredentialFile`]: `X-Api-Key`, `Authorization: Bearer`, or for reads a
/// cookie.
pub struct ApiKeys {
    file: Arc<CredentialFile>,
    cookie: Option<String>,
}

impl ApiKeys {
    /// The provider's name.
    pub const NAME: &'static str = "api-keys";

    /// The keys of a file; `cookie` names the cookie that may carry one in `GET` and `HEAD`.
    pub fn new(file: Arc<CredentialFile>, cookie: Option<String>) -> Self {
        ApiKeys { file, cookie }
    }
}

#[async_trait]
impl AccessControl for ApiKeys {
    fn name(&self) -> &str {
        Self::NAME
    }

    async fn authenticate(&self, head: &RequestHead<'_>) -> Result<Arc<Principal>, AccessError> {
        let text = match (api_key(head)?, &self.cookie) {
            (Some(text), _) => text,
            (None, Some(name)) => cookie(head, name)?.ok_or(AccessError::NoCredentials)?,
            (None, None) => return Err(AccessError::NoCredentials),
        };
        if !text.starts_with(API_KEY_PREFIX) {
            return Err(AccessError::UnknownCredentials);
        }
        let mistyped = AccessError::InvalidCredentials("the API key is not written as it was made");
        let id = formed_id(text).ok_or(mistyped.clone())?;
        self.file.with_set(|set| {
            // One refusal and one amount of work, whether the id exists or the secret is wrong.
            let nobody = [0; 32];
            let entry = set.api_keys.get(id);
            let hash = entry.map_or(nobody.as_slice(), |entry| entry.hash.as_slice());
            let matches = hmac::verify(&LABEL, text.as_bytes(), hash).is_ok();
            let entry = entry.filter(|_| matches).ok_or_else(|| {
                // A key that matches has its check, so only a refusal looks at it.
                let unknown = AccessError::InvalidCredentials("the API key is not known");
                if has_its_check(text) { unknown } else { mistyped }
            })?;
            if entry.revoked || entry.principal.is_expired(head.now) {
                return Err(AccessError::InvalidCredentials("the API key expired or was revoked"));
            }
            entry.mark_used(head.now);
            Ok(entry.principal.clone())
        })
    }

    fn is_current(&self, principal: &Principal, now: Timestamp) -> bool {
        let Some(id) = principal.credential.as_deref() else { return false };
        self.file.with_set(|set| {
            let unchanged = set.api_keys.get(id).is_some_and(|entry| {
                // A request's principal is the entry's own; one that was loaded since is compared.
                let same = std::ptr::eq(&*entry.principal, principal);
                !entry.revoked && (same || *entry.principal == *principal)
            });
            unchanged && !principal.is_expired(now)
        })
    }

    fn may_be_remembered(&self, _principal: &Principal) -> bool {
        true
    }

    fn revision(&self) -> u64 {
        self.file.revision()
    }
}
