//! Project tokens: short-lived JWTs that an application signs for its users with its project's secret.
//!
//! | claim | meaning |
//! |---|---|
//! | `sub` | the project, which is the first segment of the paths that the token reaches |
//! | `scope` | `read`, or `write`: reading, create, append, close, delete and subscriptions |
//! | `exp` | when it ends; required |
//! | `stream_id` | optional: the one stream `{sub}/{stream_id}` |
//! | `nbf` | optional: when it begins |
//!
//! The header is `{"alg":"HS256"}`; `kid` may name the secret. The HMAC key is the text of the secret, as
//! JWT libraries take it.

use std::sync::Arc;

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use durable_streams_protocol::{StreamPath, Timestamp};
use ring::hmac;
use serde_json::json;

use crate::{
    AccessControl, AccessError, CredentialFile, CredentialFileError, Grant, Operation,
    OperationSet, PathPattern, Principal, RequestHead, TenantId,
    cache::{KnownToken, TokenCache, token_hash},
    credential::{bearer, cookie, random_base62, random_secret},
    credentials::{ProjectEntry, ProjectRecord, SigningSecret, key_of, named},
    jws::{UnverifiedToken, is_access_token, text_claim, time_claim},
};

/// What every project secret begins with.
pub const PROJECT_SECRET_PREFIX: &str = "dsp_";
/// The most secrets of a project: old tokens stay valid for that many rotations.
pub const MAX_PROJECT_SECRETS: usize = 4;
/// How far the clock of an application may be ahead when it says when a token begins, milliseconds.
const SKEW_MILLIS: u64 = 30_000;

/// What a project token may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProjectScope {
    /// Read streams.
    Read,
    /// Read, create, append, close and delete streams, and subscribe.
    Write,
}

impl ProjectScope {
    /// The word in the token.
    pub const fn name(self) -> &'static str {
        match self {
            ProjectScope::Read => "read",
            ProjectScope::Write => "write",
        }
    }

    /// The scope of a word.
    pub fn parse(word: &str) -> Option<Self> {
        [ProjectScope::Read, ProjectScope::Write].into_iter().find(|one| one.name() == word)
    }

    const fn operations(self) -> OperationSet {
        match self {
            ProjectScope::Read => OperationSet::of(Operation::Read),
            ProjectScope::Write => OperationSet::ALL,
        }
    }
}

/// What a new token may do.
#[derive(Clone, Debug, PartialEq)]
pub struct NewProjectToken<'a> {
    /// The project.
    pub project: &'a str,
    /// What it may do.
    pub scope: ProjectScope,
    /// The one stream that it reaches, below the project; all of the project's without.
    pub stream_id: Option<&'a str>,
    /// When it ends.
    pub expires: Timestamp,
}

impl CredentialFile {
    /// Makes a project and returns its first secret.
    ///
    /// # Errors
    /// When the name is not valid or taken, or the file cannot be changed.
    pub fn create_project(
        &self,
        name: &str,
        now: Timestamp,
    ) -> Result<String, CredentialFileError> {
        let name = named(name)?;
        let secret = new_secret(now)?;
        self.change(|stored| {
            if stored.projects.iter().any(|project| project.name == name) {
                let why = format!("the project {name} exists; `project rotate` adds a secret");
                return Err(CredentialFileError::Refused(why));
            }
            let text = secret.secret.clone();
            stored.projects.push(ProjectRecord { name, created: now, secrets: vec![secret] });
            Ok(text)
        })
    }

    /// Adds a secret to a project and returns it. New tokens are signed with it; tokens of the older
    /// secrets stay valid unless `drop_older`, the oldest beyond [`MAX_PROJECT_SECRETS`] never.
    ///
    /// # Errors
    /// When there is no such project or the file cannot be changed.
    pub fn rotate_project(
        &self,
        name: &str,
        drop_older: bool,
        now: Timestamp,
    ) -> Result<String, CredentialFileError> {
        let secret = new_secret(now)?;
        self.change(|stored| {
            let found = stored.projects.iter_mut().find(|project| project.name.as_str() == name);
            let project = found.ok_or_else(|| no_project(name))?;
            let kept = if drop_older { 0 } else { MAX_PROJECT_SECRETS - 1 };
            let dropped = project.secrets.len().saturating_sub(kept);
            project.secrets.drain(..dropped);
            let text = secret.secret.clone();
            project.secrets.push(secret);
            Ok(text)
        })
    }

    /// Deletes a project with its secrets: its tokens are refused from now on. Its streams stay.
    ///
    /// # Errors
    /// When there is no such project or the file cannot be changed.
    pub fn delete_project(&self, name: &str) -> Result<(), CredentialFileError> {
        self.change(|stored| {
            let before = stored.projects.len();
            stored.projects.retain(|project| project.name.as_str() != name);
            if stored.projects.len() < before { Ok(()) } else { Err(no_project(name)) }
        })
    }

    /// The projects, in the order in which they were made.
    pub fn projects(&self) -> Vec<ProjectRecord> {
        self.with_set(|set| set.stored.projects.clone())
    }

    /// Signs a token with the newest secret of its project.
    ///
    /// # Errors
    /// When there is no such project or `stream_id` names no stream.
    pub fn issue_project_token(
        &self,
        new: &NewProjectToken<'_>,
    ) -> Result<String, CredentialFileError> {
        if let Some(stream) = new.stream_id {
            let path = StreamPath::new(&format!("{}/{stream}", new.project));
            path.map_err(|error| CredentialFileError::Refused(error.to_string()))?;
        }
        let found = self.projects().into_iter().find(|one| one.name.as_str() == new.project);
        let project = found.ok_or_else(|| no_project(new.project))?;
        let secret = project.secrets.last().ok_or_else(|| no_project(new.project))?;
        let mut claims = json!({
            "sub": new.project,
            "scope": new.scope.name(),
            "exp": new.expires.millis() / 1000,
        });
        if let (Some(stream), Some(claims)) = (new.stream_id, claims.as_object_mut()) {
            claims.insert("stream_id".into(), stream.into());
        }
        let header = json!({ "alg": "HS256", "typ": "JWT", "kid": secret.id });
        let (header, claims) =
            (BASE64URL.encode(header.to_string()), BASE64URL.encode(claims.to_string()));
        let signed = format!("{header}.{claims}");
        let tag = hmac::sign(&key_of(&secret.secret), signed.as_bytes());
        Ok(format!("{signed}.{}", BASE64URL.encode(tag)))
    }
}

impl ProjectRecord {
    /// The ids and ages of its secrets, the newest last.
    pub fn secret_ids(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        self.secrets.iter().map(|secret| (secret.id.as_str(), secret.created))
    }
}

fn no_project(name: &str) -> CredentialFileError {
    CredentialFileError::Refused(format!("there is no project {name:?}"))
}

fn new_secret(now: Timestamp) -> Result<SigningSecret, CredentialFileError> {
    let id = random_base62(8)?;
    Ok(SigningSecret { id, secret: random_secret(PROJECT_SECRET_PREFIX)?, created: now })
}

/// Authenticates project tokens: `Authorization: Bearer`, or for reads a cookie.
pub struct ProjectTokens {
    file: Arc<CredentialFile>,
    cookie: Option<String>,
    cache: TokenCache,
}

impl ProjectTokens {
    /// The provider's name.
    pub const NAME: &'static str = "project-tokens";

    /// The projects of a file; `cookie` names the cookie that may carry a token in `GET` and `HEAD`.
    /// Verified tokens are remembered in at most `cache_bytes`.
    pub fn new(file: Arc<CredentialFile>, cookie: Option<String>, cache_bytes: usize) -> Self {
        ProjectTokens { file, cookie, cache: TokenCache::new(cache_bytes) }
    }

    fn verify(&self, token: &str, now: Timestamp) -> Result<Arc<Principal>, AccessError> {
        let set = self.file.set();
        // Most requests of a server with an identity provider: the next provider looks at the token, not this one.
        if set.projects.is_empty() {
            return Err(AccessError::UnknownCredentials);
        }
        let hash = token_hash(token);
        match self.cache.known(&hash, set.revision, now) {
            Some(KnownToken::Verified(principal)) => return Ok(principal),
            Some(KnownToken::Foreign) => return Err(AccessError::UnknownCredentials),
            None => {}
        }
        let parsed = UnverifiedToken::parse(token).ok_or(AccessError::UnknownCredentials)?;
        let foreign = parsed.header.alg != "HS256" || parsed.claims.contains_key("iss");
        let project = text_claim(&parsed.claims, "sub").filter(|_| !foreign);
        let project = project.and_then(|name| Some((name, set.projects.get(name)?)));
        let Some((name, entry)) = project else {
            self.cache.insert_foreign(hash, set.revision);
            return Err(AccessError::UnknownCredentials);
        };
        let secret = signer(entry, &parsed).ok_or(AccessError::InvalidCredentials(
            "the token is not signed with a secret of its project",
        ))?;
        let mut principal = principal(name, secret, &parsed, now)?;
        principal.claims = parsed.claims;
        let principal = Arc::new(principal);
        self.cache.insert(hash, token.len(), set.revision, principal.clone());
        Ok(principal)
    }
}

/// The id of the secret that signed a token: the one that `kid` names, or without `kid` any of them.
fn signer<'a>(entry: &'a ProjectEntry, token: &UnverifiedToken<'_>) -> Option<&'a str> {
    let named = |id: &str| token.header.kid.as_deref().is_none_or(|kid| kid == id);
    let mut secrets = entry.secrets.iter().filter(|(id, _)| named(id));
    let signed = |key| hmac::verify(key, token.signed, &token.signature).is_ok();
    secrets.find(|(_, key)| signed(key)).map(|(id, _)| &**id)
}

/// The principal of a token whose signature was verified.
fn principal(
    project: &str,
    secret: &str,
    token: &UnverifiedToken<'_>,
    now: Timestamp,
) -> Result<Principal, AccessError> {
    let invalid = AccessError::InvalidCredentials;
    if !is_access_token(&token.header) {
        return Err(invalid("the token is of a type that is no access token"));
    }
    let claims = &token.claims;
    let malformed = |()| invalid("the token has a time that is no number");
    let expires = time_claim(claims, "exp").map_err(malformed)?;
    let expires = expires.ok_or(invalid("the token has no exp"))?;
    if now >= expires {
        return Err(invalid("the token has expired"));
    }
    let begins = time_claim(claims, "nbf").map_err(malformed)?.unwrap_or_default();
    if begins.millis() > now.millis().saturating_add(SKEW_MILLIS) {
        return Err(invalid("the token is not valid yet"));
    }
    let scope = text_claim(claims, "scope").and_then(ProjectScope::parse);
    let scope = scope.ok_or(invalid("the token's scope is neither read nor write"))?;
    let name = TenantId::new(project).map_err(|_| invalid("the token's sub is no project"))?;
    let pattern = match claims.get("stream_id") {
        None => PathPattern::parse(&format!("{name}/**")).ok(),
        Some(stream) => {
            let path = stream.as_str().map(|stream| format!("{name}/{stream}"));
            path.and_then(|path| StreamPath::new(&path).ok()).map(PathPattern::Exact)
        }
    };
    let pattern = pattern.ok_or(invalid("the token's stream_id names no stream"))?;
    let mut principal = Principal::new(format!("project:{name}"))
        .with_credential(format!("{name}/{secret}"))
        .with_grant(Grant::on(scope.operations(), pattern))
        .with_expiry(Some(expires));
    principal.provider = ProjectTokens::NAME.into();
    Ok(principal)
}

#[async_trait]
impl AccessControl for ProjectTokens {
    fn name(&self) -> &str {
        Self::NAME
    }

    async fn authenticate(&self, head: &RequestHead<'_>) -> Result<Arc<Principal>, AccessError> {
        let token = match (bearer(head)?, &self.cookie) {
            (Some(token), _) => token,
            (None, Some(name)) => cookie(head, name)?.ok_or(AccessError::NoCredentials)?,
            (None, None) => return Err(AccessError::NoCredentials),
        };
        self.verify(token, head.now)
    }

    fn is_current(&self, principal: &Principal, now: Timestamp) -> bool {
        let credential = principal.credential.as_deref().and_then(|text| text.split_once('/'));
        let Some((project, secret_id)) = credential else { return false };
        let known = self.file.with_set(|set| {
            let entry = set.projects.get(project);
            entry.is_some_and(|entry| entry.secrets.iter().any(|(id, _)| &**id == secret_id))
        });
        known && !principal.is_expired(now)
    }

    fn may_be_remembered(&self, _principal: &Principal) -> bool {
        true
    }

    fn revision(&self) -> u64 {
        self.file.revision()
    }
}
