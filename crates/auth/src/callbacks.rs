//! Providers that ask the embedding application: validators of keys and tokens, and plain closures.
//!
//! Each is built on [`AccessControl`] alone, so what they can do, a provider of your own can.

use std::{future::Future, pin::Pin, sync::Arc};

use async_trait::async_trait;
use durable_streams_protocol::StreamPath;

use crate::{AccessControl, AccessError, Operation, Principal, RequestHead, api_key, bearer};

type Verdict = Result<Option<Principal>, AccessError>;
type Validator = Box<dyn Fn(String) -> Pin<Box<dyn Future<Output = Verdict> + Send>> + Send + Sync>;

/// Asks a function about the token of `Authorization: Bearer`.
///
/// ```
/// use durable_streams_auth::{BearerValidator, Grant, OperationSet, Principal, secrets_match};
///
/// let provider = BearerValidator::new("sessions", |token| async move {
///     // Look the session up; `None` is a token that is not known.
///     let user = secrets_match(&token, "s3cret").then_some("ada");
///     Ok(user.map(|user| {
///         Principal::new(user).with_grant(Grant::everywhere(OperationSet::ALL))
///     }))
/// });
/// ```
pub struct BearerValidator {
    name: Arc<str>,
    validate: Validator,
}

/// Asks a function about the key of `X-Api-Key` or `Authorization: Bearer`.
///
/// ```
/// use durable_streams_auth::{
///     ApiKeyValidator, Grant, OperationSet, PathPattern, Principal, secrets_match,
/// };
///
/// let provider = ApiKeyValidator::new("partners", |key| async move {
///     let partner = secrets_match(&key, "k-123").then_some("partner-7");
///     let read = OperationSet::from_word("read").unwrap_or_default();
///     Ok(partner.map(|partner| {
///         let feeds = PathPattern::parse("feeds/**").expect("a pattern");
///         Principal::new(partner).with_grant(Grant::on(read, feeds))
///     }))
/// });
/// ```
pub struct ApiKeyValidator {
    name: Arc<str>,
    validate: Validator,
}

fn boxed<F, R>(validate: F) -> Validator
where
    F: Fn(String) -> R + Send + Sync + 'static,
    R: Future<Output = Verdict> + Send + 'static,
{
    Box::new(move |credential| Box::pin(validate(credential)))
}

impl BearerValidator {
    /// `validate` returns the principal of a token, `None` for a token that it does not know, which leaves
    /// the request to the next provider of a chain, or an error.
    pub fn new<F, R>(name: &str, validate: F) -> Self
    where
        F: Fn(String) -> R + Send + Sync + 'static,
        R: Future<Output = Verdict> + Send + 'static,
    {
        BearerValidator { name: name.into(), validate: boxed(validate) }
    }
}

impl ApiKeyValidator {
    /// `validate` returns the principal of a key, `None` for a key that it does not know, which leaves the
    /// request to the next provider of a chain, or an error.
    pub fn new<F, R>(name: &str, validate: F) -> Self
    where
        F: Fn(String) -> R + Send + Sync + 'static,
        R: Future<Output = Verdict> + Send + 'static,
    {
        ApiKeyValidator { name: name.into(), validate: boxed(validate) }
    }
}

async fn ask(
    name: &Arc<str>,
    validate: &Validator,
    credential: Result<Option<&str>, AccessError>,
) -> Result<Arc<Principal>, AccessError> {
    let credential = credential?.ok_or(AccessError::NoCredentials)?;
    let principal = validate(credential.to_owned()).await?;
    let mut principal = principal.ok_or(AccessError::UnknownCredentials)?;
    principal.provider = name.clone();
    Ok(Arc::new(principal))
}

#[async_trait]
impl AccessControl for BearerValidator {
    fn name(&self) -> &str {
        &self.name
    }

    async fn authenticate(&self, head: &RequestHead<'_>) -> Result<Arc<Principal>, AccessError> {
        ask(&self.name, &self.validate, bearer(head)).await
    }
}

#[async_trait]
impl AccessControl for ApiKeyValidator {
    fn name(&self) -> &str {
        &self.name
    }

    async fn authenticate(&self, head: &RequestHead<'_>) -> Result<Arc<Principal>, AccessError> {
        ask(&self.name, &self.validate, api_key(head)).await
    }
}

type Decision = Box<dyn Fn(&RequestHead<'_>, &StreamPath) -> bool + Send + Sync>;

/// Two closures, one for requests that change something and one for reads.
///
/// `Create`, `Append`, `Close`, `Delete`, `Subscribe` and `Administer` go to the first, `Read` to the
/// second. A request that is refused gets a 401.
///
/// ```
/// use durable_streams_auth::{AccessClosures, bearer};
///
/// let provider = AccessClosures::new(
///     "closures",
///     |head, _path| matches!(bearer(head), Ok(Some("writer"))),
///     |_head, path| path.first_segment() == "public",
/// );
/// ```
pub struct AccessClosures {
    name: Arc<str>,
    anyone: Arc<Principal>,
    mutation: Decision,
    read: Decision,
}

impl AccessClosures {
    /// `mutation` and `read` say whether a request may touch a stream.
    pub fn new(
        name: &str,
        mutation: impl Fn(&RequestHead<'_>, &StreamPath) -> bool + Send + Sync + 'static,
        read: impl Fn(&RequestHead<'_>, &StreamPath) -> bool + Send + Sync + 'static,
    ) -> Self {
        let name: Arc<str> = name.into();
        let mut anyone = Principal::new(name.clone());
        anyone.provider = name.clone();
        let (mutation, read) = (Box::new(mutation), Box::new(read));
        AccessClosures { name, anyone: Arc::new(anyone), mutation, read }
    }
}

#[async_trait]
impl AccessControl for AccessClosures {
    fn name(&self) -> &str {
        &self.name
    }

    async fn authenticate(&self, _head: &RequestHead<'_>) -> Result<Arc<Principal>, AccessError> {
        Ok(self.anyone.clone())
    }

    async fn authorize(
        &self,
        head: &RequestHead<'_>,
        _principal: &Principal,
        operation: Operation,
        path: &StreamPath,
    ) -> Result<(), AccessError> {
        let decide = if operation == Operation::Read { &self.read } else { &self.mutation };
        if decide(head, path) { Ok(()) } else { Err(AccessError::UnknownCredentials) }
    }
}

/// Requests without credentials, with grants of their own. It stands last in a chain: a request with a
/// credential that is not known stays refused.
pub struct AnonymousAccess(Arc<Principal>);

impl AnonymousAccess {
    /// What anybody may do.
    pub fn new(grants: Vec<crate::Grant>) -> Self {
        let mut principal = Principal::anonymous(grants);
        principal.provider = "anonymous".into();
        AnonymousAccess(Arc::new(principal))
    }
}

#[async_trait]
impl AccessControl for AnonymousAccess {
    fn name(&self) -> &str {
        "anonymous"
    }

    async fn authenticate(&self, _head: &RequestHead<'_>) -> Result<Arc<Principal>, AccessError> {
        Ok(self.0.clone())
    }
}
