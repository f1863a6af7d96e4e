//! Forward auth: a service of the operator's own decides about each request, asked by a subrequest.
//!
//! The service sees the method and the URL, and those headers of the client that are copied to it, never a
//! body. 2xx lets the request on, with what the answer's headers say about the client; 401 and 403 are
//! passed on; anything else, or no answer in time, is a 503.
//!
//! Invariants
//! - The provider builds the URL from the decoded path, so that the service and this server read the same one.
//! - Subrequests at one time are bounded, and so is the time of each, the wait for its turn included.
//! - What is remembered of answers is bounded in bytes and age; refusals are not remembered.

use std::{net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use durable_streams_protocol::StreamPath;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header::WWW_AUTHENTICATE};
use serde_json::{Map, Value};
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    AccessControl, AccessError, ClaimTemplate, Grant, MAX_PATTERNS, OperationSet, PathPattern,
    Principal, RequestHead, TenantId,
    cache::{TokenCache, TokenHash, bytes_hash},
};

/// The claim that holds the client's name, from the service's answer.
const USER: &str = "user";
/// The longest header of an answer that is looked at, bytes.
const MAX_HEADER_BYTES: usize = 8 * 1024;
/// Parameters of reads, which change from request to request of one reader and decide about nothing.
const READ_PARAMETERS: [&str; 3] = ["offset", "live", "cursor"];

/// What the service is asked.
#[derive(Clone, Debug)]
pub struct ForwardedRequest {
    /// The client's method.
    pub method: Method,
    /// The path of the URL, from the server's root, and the query as it was sent.
    pub uri: String,
    /// The client's address, when it is known.
    pub client: Option<IpAddr>,
    /// The client's headers that are copied.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// What the service answered, without its body.
#[derive(Clone, Debug)]
pub struct ForwardedAnswer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
}

/// Why there is no answer: a text for the log.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct ForwardFailure(pub String);

/// Sends subrequests. An implementation follows no redirect, sends no body, and bounds what it reads.
#[async_trait]
pub trait ForwardClient: Send + Sync {
    /// Asks the service.
    ///
    /// # Errors
    /// [`ForwardFailure`]; the caller drops a future that takes too long.
    async fn ask(&self, request: ForwardedRequest) -> Result<ForwardedAnswer, ForwardFailure>;
}

/// What is asked, and what answers mean for streams.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ForwardOptions {
    /// The path of the stream route, for the URL that the service sees.
    pub route: String,
    /// The client's headers that are copied to the service.
    pub request_headers: Vec<HeaderName>,
    /// The answer's header that names the client; an answer without it is a 503.
    pub user: HeaderName,
    /// The answer's header that names the tenant; a client whose answer lacks it is refused.
    pub tenant: Option<HeaderName>,
    /// The answer's header that lists operations; `None`: `operations`.
    pub allow: Option<HeaderName>,
    /// What every client may do when it is not read from the answer.
    pub operations: OperationSet,
    /// The answer's header that lists path patterns; `None`: `templates`.
    pub paths: Option<HeaderName>,
    /// The patterns of every client when they are not read from the answer; `{user}` is its name.
    pub templates: Vec<ClaimTemplate>,
    /// The longest wait for an answer, the wait for a turn included.
    pub timeout: Duration,
    /// How long an answer may be used again; zero never.
    pub cache: Duration,
    /// Bytes for answers that are remembered.
    pub cache_bytes: usize,
    /// How long what an answer allows is valid: a live read then ends, and its client comes back.
    pub valid_for: Duration,
    /// The most subrequests at one time.
    pub max_concurrent: usize,
}

impl ForwardOptions {
    /// Options that allow nothing yet, for streams under `route`.
    pub fn new(route: &str, user: HeaderName) -> Self {
        ForwardOptions {
            route: route.into(),
            request_headers: Vec::new(),
            user,
            tenant: None,
            allow: None,
            operations: OperationSet::NONE,
            paths: None,
            templates: Vec::new(),
            timeout: Duration::from_secs(2),
            cache: Duration::ZERO,
            cache_bytes: 8 * 1024 * 1024,
            valid_for: Duration::from_secs(300),
            max_concurrent: 64,
        }
    }
}

/// Asks a service about every request. It stands behind the providers that know their own credentials, and
/// nothing stands behind it.
pub struct ForwardAuth {
    options: ForwardOptions,
    client: Arc<dyn ForwardClient>,
    turns: Semaphore,
    cache: TokenCache,
}

impl ForwardAuth {
    /// The provider's name.
    pub const NAME: &'static str = "forward";

    /// A provider that asks through `client`.
    pub fn new(options: ForwardOptions, client: Arc<dyn ForwardClient>) -> Self {
        let cache = TokenCache::new(options.cache_bytes);
        let turns = Semaphore::new(options.max_concurrent.max(1));
        ForwardAuth { options, client, turns, cache }
    }

    fn request(&self, head: &RequestHead<'_>) -> ForwardedRequest {
        let route = &self.options.route;
        let path = match (head.path, head.other_path) {
            (Some(path), _) => format!("{route}/{}", path.to_url()),
            (None, Some(other)) => other.to_owned(),
            // A control request names no stream; what it may do is decided by what the answer allows.
            (None, None) => format!("{route}/{}", StreamPath::RESERVED),
        };
        let query = head.query.map(|query| format!("?{query}")).unwrap_or_default();
        let copied = self.options.request_headers.iter().flat_map(|name| {
            head.headers.get_all(name).iter().map(|value| (name.clone(), value.clone()))
        });
        ForwardedRequest {
            method: head.method.clone(),
            uri: format!("{path}{query}"),
            client: head.client,
            headers: copied.collect(),
        }
    }

    async fn ask(&self, request: ForwardedRequest) -> Result<ForwardedAnswer, AccessError> {
        let unavailable = AccessError::Unavailable { reason: "the authorization service is away" };
        let asked = async {
            let turn = self.turns.acquire().await;
            let _turn = turn.map_err(|error| ForwardFailure(error.to_string()))?;
            self.client.ask(request).await
        };
        match timeout(self.options.timeout, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => Err(unavailable),
        }
    }

    /// The principal of a 2xx.
    fn principal(
        &self,
        answer: &ForwardedAnswer,
        head: &RequestHead<'_>,
    ) -> Result<Principal, AccessError> {
        let unusable =
            AccessError::Unavailable { reason: "the authorization service says nothing" };
        let options = &self.options;
        let user = text(&answer.headers, &options.user)?.ok_or(unusable.clone())?;
        let mut principal = Principal::new(user.clone());
        principal.provider = Self::NAME.into();
        if let Some(name) = &options.tenant {
            let tenant = text(&answer.headers, name)?.ok_or(AccessError::NotAllowed)?;
            principal.tenant = Some(TenantId::new(&tenant).map_err(|_| unusable.clone())?);
        }
        principal.claims = Map::from_iter([(USER.to_owned(), Value::String(user))]);
        let operations = match &options.allow {
            None => options.operations,
            Some(name) => {
                let words = text(&answer.headers, name)?.unwrap_or_default();
                let sets = list(&words).map(OperationSet::from_word).collect::<Option<Vec<_>>>();
                let sets = sets.ok_or(unusable.clone())?;
                sets.into_iter().fold(OperationSet::NONE, OperationSet::union)
            }
        };
        let paths = match &options.paths {
            None => {
                let filled = options.templates.iter().map(|one| one.fill(&principal.claims));
                filled.collect::<Option<Vec<_>>>().ok_or(AccessError::NotAllowed)?
            }
            Some(name) => {
                let patterns = text(&answer.headers, name)?.unwrap_or_default();
                let parsed: Vec<_> = list(&patterns).map(PathPattern::parse).collect();
                if parsed.len() > MAX_PATTERNS {
                    return Err(unusable);
                }
                parsed.into_iter().collect::<Result<_, _>>().map_err(|_| unusable)?
            }
        };
        principal.grants.push(Grant { operations, paths });
        let valid = u64::try_from(options.valid_for.as_millis()).unwrap_or(u64::MAX);
        let end = head.now.millis().saturating_add(valid);
        Ok(principal.with_expiry(Some(durable_streams_protocol::Timestamp::from_millis(end))))
    }

    /// A refusal, with the challenges of its `WWW-Authenticate`. `asked_with` are the client's headers that the service
    /// saw.
    fn refusal(
        &self,
        answer: &ForwardedAnswer,
        asked_with: &[(HeaderName, HeaderValue)],
    ) -> AccessError {
        let mut challenges: Vec<&[u8]> = Vec::new();
        for value in answer.headers.get_all(WWW_AUTHENTICATE) {
            if value.len() <= MAX_HEADER_BYTES {
                challenges.push(value.as_bytes());
            }
        }
        let challenge = HeaderValue::from_bytes(&challenges.join(&b", "[..])).ok();
        let challenge = challenge.filter(|value| !value.is_empty());
        let reads_public = self.options.tenant.is_none() || asked_with.is_empty();
        AccessError::Forwarded { status: answer.status, challenge, reads_public }
    }

    /// Answers of one window of the cache's time; `None` when nothing is remembered.
    fn window(&self, head: &RequestHead<'_>) -> Option<u64> {
        let span = u64::try_from(self.options.cache.as_millis()).ok()?;
        head.now.millis().checked_div(span)
    }
}

/// What two requests have in common that the service would answer alike.
fn likeness(request: &ForwardedRequest) -> (TokenHash, usize) {
    let mut bytes = Vec::new();
    let mut add = |part: &[u8]| {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part);
    };
    add(request.method.as_str().as_bytes());
    let (path, query) = request.uri.split_once('?').unwrap_or((&request.uri, ""));
    add(path.as_bytes());
    for field in query.split('&') {
        let name = field.split_once('=').map_or(field, |(name, _)| name);
        if !field.is_empty() && !READ_PARAMETERS.contains(&name) {
            add(field.as_bytes());
        }
    }
    add(request.client.map(|client| client.to_string()).unwrap_or_default().as_bytes());
    for (name, value) in &request.headers {
        add(name.as_str().as_bytes());
        add(value.as_bytes());
    }
    (bytes_hash(&bytes), bytes.len())
}

/// The one value of a header, without control characters; `None` when it is missing or empty.
fn text(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, AccessError> {
    let unusable = AccessError::Unavailable { reason: "the authorization service is unclear" };
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() || value.len() > MAX_HEADER_BYTES {
        return Err(unusable);
    }
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| unusable.clone())?.trim();
    if text.chars().any(char::is_control) {
        return Err(unusable);
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// The elements of a list that is separated by commas or spaces.
fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ']).filter(|one| !one.is_empty())
}

#[async_trait]
impl AccessControl for ForwardAuth {
    fn name(&self) -> &str {
        Self::NAME
    }

    async fn authenticate(&self, head: &RequestHead<'_>) -> Result<Arc<Principal>, AccessError> {
        let request = self.request(head);
        let window = self.window(head);
        let (hash, bytes) = likeness(&request);
        if let Some(window) = window
            && let Some(known) = self.cache.get(&hash, window, head.now)
        {
            return Ok(known);
        }
        let asked_with = request.headers.clone();
        let answer = self.ask(request).await?;
        match answer.status {
            status if status.is_success() => {
                let principal = Arc::new(self.principal(&answer, head)?);
                if let Some(window) = window {
                    self.cache.insert(hash, bytes, window, principal.clone());
                }
                Ok(principal)
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(self.refusal(&answer, &asked_with))
            }
            _ => Err(AccessError::Unavailable { reason: "the authorization service is unclear" }),
        }
    }
}
