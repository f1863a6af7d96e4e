//! The text of the credentials file: JSON, version 1.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use durable_streams_protocol::Timestamp;
use serde::{Deserialize, Serialize};

use super::disk::CredentialFileError;
use crate::{Grant, TenantId};

const VERSION: u32 = 1;

/// All credentials of a server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredCredentials {
    version: u32,
    #[serde(default)]
    pub(crate) api_keys: Vec<ApiKeyRecord>,
    #[serde(default)]
    pub(crate) projects: Vec<ProjectRecord>,
    #[serde(default)]
    pub(crate) url_keys: Vec<UrlKeyRecord>,
    /// Files that were made before there was one have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
}

/// An API key, without the key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ApiKeyRecord {
    /// The public part of the key: the 12 letters and digits after `dsk_`.
    pub id: String,
    /// What the operator calls it.
    pub name: String,
    /// HMAC-SHA256 of the whole key under a fixed label, base64url.
    pub(crate) hash: String,
    /// Whose streams it names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// What it may do.
    pub grants: Vec<Grant>,
    /// When it was made.
    #[serde(with = "rfc3339")]
    pub created: Timestamp,
    /// From when on it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "rfc3339::option")]
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "rfc3339::option")]
    pub revoked: Option<Timestamp>,
}

/// A project and the secrets that sign its tokens, the newest last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ProjectRecord {
    /// The name: the first segment of the paths of its streams.
    pub name: TenantId,
    /// When it was made.
    #[serde(with = "rfc3339")]
    pub created: Timestamp,
    pub(crate) secrets: Vec<SigningSecret>,
}

/// A secret that signs tokens or URLs.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SigningSecret {
    pub(crate) id: String,
    pub(crate) secret: String,
    #[serde(with = "rfc3339")]
    pub(crate) created: Timestamp,
}

impl std::fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningSecret").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A key that signs URLs. A URL can do no more than its key.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct UrlKeyRecord {
    /// The public name of the key, which its URLs carry.
    pub id: String,
    pub(crate) secret: String,
    /// What the operator calls it.
    pub name: String,
    /// When it was made.
    #[serde(with = "rfc3339")]
    pub created: Timestamp,
    /// Whose streams its URLs name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// What its URLs may do at most.
    pub grants: Vec<Grant>,
}

impl std::fmt::Debug for UrlKeyRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let UrlKeyRecord { id, name, tenant, grants, .. } = self;
        let mut text = f.debug_struct("UrlKeyRecord");
        text.field("id", id).field("name", name).field("tenant", tenant).field("grants", grants);
        text.finish_non_exhaustive()
    }
}

impl StoredCredentials {
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, CredentialFileError> {
        let invalid = |reason: String| CredentialFileError::Invalid { path: path.into(), reason };
        let parsed: StoredCredentials =
            serde_json::from_slice(bytes).map_err(|error| invalid(error.to_string()))?;
        if parsed.version != VERSION {
            let version = parsed.version;
            return Err(invalid(format!(
                "version {version} of credentials; this program reads version {VERSION}"
            )));
        }
        if let Some(found) = &parsed.checksum {
            let expected = parsed.checksum().map_err(|error| invalid(error.to_string()))?;
            if *found != expected {
                return Err(invalid(
                    "the file does not match its checksum, so a credential in it may be another one: restore the file; \
                     after a change by hand, remove the field `checksum`"
                        .to_owned(),
                ));
            }
        }
        Ok(parsed)
    }

    /// Base64url of the first 96 bits of SHA-256 of the other fields: compact JSON, in the order of declaration. A bit
    /// that flips in a secret, a grant or a time would make another one, which looks as good.
    fn checksum(&self) -> Result<String, serde_json::Error> {
        let text = serde_json::to_vec(&StoredCredentials { checksum: None, ..self.clone() })?;
        let digest = ring::digest::digest(&ring::digest::SHA256, &text);
        Ok(BASE64URL.encode(digest.as_ref().get(..12).unwrap_or_default()))
    }

    pub(super) fn to_text(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut current = StoredCredentials { version: VERSION, ..self.clone() };
        current.checksum = Some(current.checksum()?);
        let mut text = serde_json::to_vec_pretty(&current)?;
        text.push(b'\n');
        Ok(text)
    }
}

/// Times as people read them.
pub(crate) mod rfc3339 {
    use durable_streams_protocol::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(time)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(from)?;
        Timestamp::parse_rfc3339(&text).ok_or_else(|| D::Error::custom("a time in RFC 3339"))
    }

    pub(crate) mod option {
        use durable_streams_protocol::Timestamp;
        use serde::{Deserializer, Serializer};

        pub(crate) fn serialize<S: Serializer>(
            time: &Option<Timestamp>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => super::serialize(time, to),
                None => to.serialize_none(),
            }
        }

        pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<Timestamp>, D::Error> {
            super::deserialize(from).map(Some)
        }
    }
}
