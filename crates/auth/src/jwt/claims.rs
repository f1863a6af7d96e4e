//! From the claims of a verified token to a principal.

use std::time::Duration;

use durable_streams_protocol::Timestamp;
use serde_json::{Map, Value};

use crate::{
    AccessError, ClaimTemplate, Grant, MAX_PATTERNS, OperationSet, PathPattern, Principal,
    TenantId,
    jws::{text_claim, time_claim},
};

/// The longest `sub`, bytes.
const MAX_SUBJECT_BYTES: usize = 256;

/// For whom a token must be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AudienceRule {
    /// `aud` has at least one of these.
    AnyOf(Vec<String>),
    /// `aud` is not looked at: every service of the issuer can present its users' tokens here.
    Unchecked,
}

/// What is read from an issuer's tokens. Claims are found by JSON Pointer (RFC 6901) and may be a string
/// or a list; a string is split at spaces, as `scope` is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ClaimRules {
    /// For whom tokens must be meant.
    pub audience: AudienceRule,
    /// How far the issuer's clock may differ, for `exp` and `nbf`.
    pub leeway: Duration,
    /// The claim that names the tenant. A token without it is refused.
    pub tenant: Option<String>,
    /// The claim that holds scopes or roles, and what each of them allows; a token without any of them may
    /// do nothing. `None`: every token may do `operations`.
    pub scopes: Option<(String, Vec<(String, OperationSet)>)>,
    /// What every token may do when scopes are not read.
    pub operations: OperationSet,
    /// The claim that holds path patterns; a token without it may reach nothing. `None`: `paths`.
    pub patterns: Option<String>,
    /// The patterns of every token when they are not read from it.
    pub paths: Vec<ClaimTemplate>,
}

impl ClaimRules {
    /// Rules that allow nothing yet: 30 seconds of leeway, no tenant, no operations, no paths.
    pub fn new(audience: AudienceRule) -> Self {
        ClaimRules {
            audience,
            leeway: Duration::from_secs(30),
            tenant: None,
            scopes: None,
            operations: OperationSet::NONE,
            patterns: None,
            paths: Vec::new(),
        }
    }

    /// The principal of a token that was signed by the issuer.
    pub(super) fn principal(
        &self,
        claims: Map<String, Value>,
        now: Timestamp,
    ) -> Result<Principal, AccessError> {
        let invalid = AccessError::InvalidCredentials;
        let expires = self.times(&claims, now)?;
        if !self.is_meant_for_us(&claims) {
            return Err(invalid("the token is meant for another service"));
        }
        let subject = text_claim(&claims, "sub").filter(|subject| {
            (1..=MAX_SUBJECT_BYTES).contains(&subject.len())
                && !subject.chars().any(char::is_control)
        });
        let subject = subject.ok_or(invalid("the token has no usable sub"))?;
        let mut principal = Principal::new(subject).with_expiry(Some(expires));
        if let Some(pointer) = &self.tenant {
            let names = texts(&claims, pointer);
            let [name] = names.as_slice() else {
                return Err(invalid("the token does not name one tenant"));
            };
            let tenant =
                TenantId::new(name).map_err(|_| invalid("the token's tenant is no name"))?;
            principal.tenant = Some(tenant);
        }
        let operations = self.operations(&claims);
        let paths = self.patterns(&claims)?;
        if !operations.is_empty() && !paths.is_empty() {
            principal.grants.push(Grant { operations, paths });
        }
        Ok(principal.with_claims(claims))
    }

    fn times(&self, claims: &Map<String, Value>, now: Timestamp) -> Result<Timestamp, AccessError> {
        let invalid = AccessError::InvalidCredentials;
        let malformed = |()| invalid("the token has a time that is no number");
        let leeway = u64::try_from(self.leeway.as_millis()).unwrap_or(u64::MAX);
        let expires = time_claim(claims, "exp").map_err(malformed)?;
        let expires = expires.ok_or(invalid("the token has no exp"))?;
        let expires = Timestamp::from_millis(expires.millis().saturating_add(leeway));
        if now >= expires {
            return Err(invalid("the token has expired"));
        }
        let begins = time_claim(claims, "nbf").map_err(malformed)?.unwrap_or_default();
        if begins.millis() > now.millis().saturating_add(leeway) {
            return Err(invalid("the token is not valid yet"));
        }
        Ok(expires)
    }

    fn is_meant_for_us(&self, claims: &Map<String, Value>) -> bool {
        let AudienceRule::AnyOf(ours) = &self.audience else { return true };
        let is_ours =
            |value: &Value| value.as_str().is_some_and(|one| ours.iter().any(|o| o == one));
        match claims.get("aud") {
            Some(Value::Array(several)) => several.iter().any(is_ours),
            Some(one) => is_ours(one),
            None => false,
        }
    }

    fn operations(&self, claims: &Map<String, Value>) -> OperationSet {
        let Some((pointer, meanings)) = &self.scopes else { return self.operations };
        let held = texts(claims, pointer);
        let allowed = meanings.iter().filter(|(scope, _)| held.contains(&scope.as_str()));
        allowed.fold(OperationSet::NONE, |set, (_, operations)| set.union(*operations))
    }

    fn patterns(&self, claims: &Map<String, Value>) -> Result<Vec<PathPattern>, AccessError> {
        let invalid = AccessError::InvalidCredentials;
        match &self.patterns {
            Some(pointer) => {
                let held = texts(claims, pointer);
                if held.len() > MAX_PATTERNS {
                    return Err(invalid("the token has too many patterns"));
                }
                let parsed = held.into_iter().map(PathPattern::parse).collect::<Result<_, _>>();
                parsed.map_err(|_| invalid("the token has a pattern that is none"))
            }
            None => {
                let filled = self.paths.iter().map(|template| template.fill(claims));
                let filled = filled.collect::<Option<_>>();
                filled.ok_or(invalid("a claim of the token cannot be a path segment"))
            }
        }
    }
}

/// The strings that a pointer leads to: of a list, or of one string split at spaces.
fn texts<'a>(claims: &'a Map<String, Value>, pointer: &str) -> Vec<&'a str> {
    match at_pointer(claims, pointer) {
        Some(Value::String(text)) => text.split(' ').filter(|one| !one.is_empty()).collect(),
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn at_pointer<'a>(claims: &'a Map<String, Value>, pointer: &str) -> Option<&'a Value> {
    let path = pointer.strip_prefix('/')?;
    let (first, rest) = path.find('/').map_or((path, ""), |at| path.split_at(at));
    let first = first.replace("~1", "/").replace("~0", "~");
    claims.get(&first)?.pointer(rest)
}
