//! A handle for one stream: create, append, close, head, delete, and where reads begin.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use durable_streams_protocol::{ContentType, Expiry, headers};
use http::{HeaderValue, Method, StatusCode, Uri, header};
use serde::Serialize;
use url::Url;

use crate::{
    client::Client,
    create::CreateOptions,
    error::ClientError,
    exchange::{StreamCall, StreamResponse},
    fields::put,
    position::{StartFrom, StreamOffset},
    producer::ProducerBuilder,
    reader::StreamReader,
    retry::{FailureCount, RetryPolicy},
    subscription::{Subscription, SubscriptionBuilder},
    target::{shown, target, user_authorization},
    telemetry,
};

/// A stream of a server. Cheap to clone; holds no connection.
#[derive(Clone, Debug)]
pub struct Stream {
    client: Client,
    /// Without a query.
    url: Url,
    /// Where requests go: with the query that the caller gave, such as that of a signed URL, and without a user.
    target: Uri,
    /// `Authorization` of the user that the URL names.
    user: Option<HeaderValue>,
    /// The URL for messages.
    shown: Arc<str>,
}

/// What `HEAD` says of a stream (§5.5).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamMetadata {
    /// The type that the stream was created with, where the response has one.
    pub content_type: Option<ContentType>,
    /// The tail: the offset after the last byte.
    pub tail: StreamOffset,
    /// The first offset that can be read, where the stream was trimmed.
    pub earliest: Option<StreamOffset>,
    /// No append can follow.
    pub closed: bool,
    /// When the stream goes away by itself.
    pub expiry: Expiry,
}

/// A stream after it was created or found to exist.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreatedStream {
    /// `false` when it existed with the same configuration; after a lost response also when this request created it.
    pub created: bool,
    /// The tail.
    pub tail: StreamOffset,
    /// The stream is closed.
    pub closed: bool,
}

/// What an append adds to its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppendOptions {
    /// `Content-Type`; without it what the stream was created with, which costs a `HEAD`.
    pub content_type: Option<ContentType>,
    /// `Stream-Seq`: the writer's own order, checked by the server (§5.2).
    pub stream_seq: Option<String>,
    /// Closes the stream with this append, in one step.
    pub close: bool,
    /// Repeats the append also when it may have been stored, so that it is stored at least once, and perhaps twice.
    /// With `stream_seq` the repetition of a stored one is refused (409).
    pub at_least_once: bool,
}

/// How a repeated request treats a failure.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RepeatRule {
    /// Repeating changes nothing more (§5.1, §5.3 to §5.6), or the caller accepts what it changes.
    Always,
    /// Repeated only when the server has certainly not stored it.
    OnlyWithoutEffect,
}

impl Stream {
    /// # Errors
    /// [`ClientError::InvalidArgument`] for a URL that cannot be requested.
    pub(crate) fn new(client: Client, mut url: Url) -> Result<Self, ClientError> {
        let target = target(&url, &[])?;
        url.set_query(None);
        url.set_fragment(None);
        let shown = shown(&url).into();
        let user = user_authorization(&url);
        Ok(Stream { client, url, target, user, shown })
    }

    /// The stream's URL, without the query that it may have been given.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// The client that it belongs to.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Creates the stream, or finds that it exists with the same configuration (§5.1). Repeated after failures.
    ///
    /// # Errors
    /// A 409 when it exists with another configuration; every other [`ClientError`].
    pub async fn create(&self, options: &CreateOptions) -> Result<CreatedStream, ClientError> {
        let mut call = self.call("create", Method::PUT);
        call.headers.extend(options.headers()?);
        call.body = options.body();
        let response = self.exchange(&call, RepeatRule::Always).await?;
        Ok(CreatedStream {
            created: response.status == StatusCode::CREATED,
            tail: response.next_offset()?,
            closed: response.facts.closed,
        })
    }

    /// Appends `data` and returns the tail after it, once it is durable.
    ///
    /// Not repeated where the server may have stored it: after a lost response it is for the caller to decide. A
    /// [`Producer`](crate::Producer) repeats without duplicating.
    ///
    /// # Errors
    /// A 409 when the stream is closed ([`RefusedRequest::closed`](crate::RefusedRequest::closed)); every other [`ClientError`].
    pub async fn append(
        &self,
        data: impl Into<Bytes>,
        options: &AppendOptions,
    ) -> Result<StreamOffset, ClientError> {
        let mut call = self.call("append", Method::POST);
        call.body = data.into();
        if !call.body.is_empty() {
            let content_type = match &options.content_type {
                Some(content_type) => content_type.clone(),
                None => self.content_type().await?,
            };
            put(&mut call.headers, header::CONTENT_TYPE, content_type.as_str())?;
        }
        if let Some(seq) = &options.stream_seq {
            put(&mut call.headers, headers::STREAM_SEQ, seq)?;
        }
        if options.close {
            call.headers.insert(headers::STREAM_CLOSED, headers::TRUE);
        }
        let rule = match options.at_least_once {
            true => RepeatRule::Always,
            false => RepeatRule::OnlyWithoutEffect,
        };
        self.exchange(&call, rule).await?.next_offset()
    }

    /// Appends one JSON message to a stream of `application/json`. See [`append`](Self::append).
    ///
    /// # Errors
    /// [`ClientError::Json`] when `message` does not serialize; those of [`append`](Self::append).
    pub async fn append_json<T: Serialize + ?Sized>(
        &self,
        message: &T,
    ) -> Result<StreamOffset, ClientError> {
        let options =
            AppendOptions { content_type: ContentType::parse(JSON), ..AppendOptions::default() };
        self.append(json_array(std::iter::once(message))?, &options).await
    }

    /// Appends several JSON messages in one request, which the server stores whole or not at all.
    ///
    /// # Errors
    /// [`ClientError::Json`] when a message does not serialize; those of [`append`](Self::append), with a 400 for no
    /// message at all.
    pub async fn append_json_messages<T: Serialize>(
        &self,
        messages: impl IntoIterator<Item = T>,
    ) -> Result<StreamOffset, ClientError> {
        let options =
            AppendOptions { content_type: ContentType::parse(JSON), ..AppendOptions::default() };
        self.append(json_array(messages)?, &options).await
    }

    /// Closes the stream: no append can follow (§5.3). Repeated after failures; closing a closed stream succeeds.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn close(&self) -> Result<StreamOffset, ClientError> {
        let mut call = self.call("close", Method::POST);
        call.headers.insert(headers::STREAM_CLOSED, headers::TRUE);
        self.exchange(&call, RepeatRule::Always).await?.next_offset()
    }

    /// Asks for the stream's tail, type, expiry and closure. Repeated after failures.
    ///
    /// # Errors
    /// A 404 when there is no such stream, a 410 when it is deleted but has forks; every other [`ClientError`].
    pub async fn head(&self) -> Result<StreamMetadata, ClientError> {
        let call = self.call("head", Method::HEAD);
        let response = self.exchange(&call, RepeatRule::Always).await?;
        Ok(StreamMetadata {
            content_type: response.facts.content_type.clone(),
            tail: response.next_offset()?,
            earliest: response.earliest.clone(),
            closed: response.facts.closed,
            expiry: response.facts.expiry,
        })
    }

    /// Deletes the stream (§5.4). Repeated after failures.
    ///
    /// # Errors
    /// A 404 when there is no such stream, unless an attempt before may have deleted it; every other [`ClientError`].
    pub async fn delete(&self) -> Result<(), ClientError> {
        let call = self.call("delete", Method::DELETE);
        let mut maybe_deleted = false;
        let deleted = self.repeat(
            "delete",
            RepeatRule::Always,
            || self.client.inner.transport.send_for_head(call.clone()),
            |error| maybe_deleted |= !error.is_without_effect(),
        );
        match deleted.await {
            Ok(_) => Ok(()),
            Err(error) if maybe_deleted && matches!(status_of(&error), 404 | 410) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes everything before `before`, an offset that the server returned. Returns the earliest offset from then on: of
    /// a stream of bytes the beginning of the append that `before` lies in. Repeated after failures. An extension of
    /// durable-streams-server; others answer 405.
    ///
    /// # Errors
    /// A 400 for an offset beyond the tail, or inside a JSON message; every other [`ClientError`].
    pub async fn trim(&self, before: &StreamOffset) -> Result<StreamOffset, ClientError> {
        let mut call = self.call("trim", Method::PATCH);
        put(&mut call.headers, headers::STREAM_TRIM_BEFORE, before.as_str())?;
        let response = self.exchange(&call, RepeatRule::Always).await?;
        // A stream from which nothing was removed begins at its first offset.
        Ok(response.earliest.clone().unwrap_or_else(|| before.clone()))
    }

    /// Changes when the stream goes away by itself; a TTL begins again. Repeated after failures. An extension of
    /// durable-streams-server; others answer 405.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub async fn change_expiry(&self, expiry: Expiry) -> Result<(), ClientError> {
        let mut call = self.call("change_expiry", Method::PATCH);
        let (name, value) = match expiry {
            Expiry::Never => (headers::STREAM_EXPIRES_AT, "never".to_owned()),
            Expiry::Ttl(seconds) => (headers::STREAM_TTL, seconds.to_string()),
            Expiry::At(time) => (headers::STREAM_EXPIRES_AT, time.to_string()),
        };
        put(&mut call.headers, name, &value)?;
        self.exchange(&call, RepeatRule::Always).await.map(|_| ())
    }

    /// Reads what is stored from `from` to the tail. Sends nothing yet.
    pub fn read(&self, from: impl Into<StartFrom>) -> StreamReader {
        StreamReader::new(self.clone(), from.into())
    }

    /// Reads from `from` on and follows what is appended, until the stream is closed. Sends nothing yet.
    pub fn subscribe(&self, from: impl Into<StartFrom>) -> Subscription {
        self.subscription(from).build()
    }

    /// Settings of a [`Subscription`].
    pub fn subscription(&self, from: impl Into<StartFrom>) -> SubscriptionBuilder {
        SubscriptionBuilder::new(self.clone(), from.into())
    }

    /// Settings of an idempotent [`Producer`](crate::Producer) with this id.
    pub fn producer(&self, id: &str) -> ProducerBuilder {
        ProducerBuilder::new(self.clone(), id)
    }

    /// The type that the stream was created with.
    pub(crate) async fn content_type(&self) -> Result<ContentType, ClientError> {
        Ok(self.head().await?.content_type.unwrap_or_default())
    }

    pub(crate) fn call(&self, operation: &'static str, method: Method) -> StreamCall {
        let mut headers = self.client.inner.transport.headers.clone();
        if let Some(user) = &self.user {
            headers.insert(header::AUTHORIZATION, user.clone());
        }
        StreamCall {
            operation,
            method,
            uri: self.target.clone(),
            shown: self.shown.clone(),
            headers,
            body: Bytes::new(),
            timeout: self.client.inner.request_timeout,
        }
    }

    /// A `GET` with these parameters added to the query.
    pub(crate) fn read_call(
        &self,
        operation: &'static str,
        parameters: &[(&str, &str)],
    ) -> Result<StreamCall, ClientError> {
        let mut call = self.call(operation, Method::GET);
        let mut url = self.url.clone();
        url.set_query(self.target.query());
        call.uri = target(&url, parameters)?;
        Ok(call)
    }

    async fn exchange(
        &self,
        call: &StreamCall,
        rule: RepeatRule,
    ) -> Result<StreamResponse, ClientError> {
        let transport = &self.client.inner.transport;
        self.repeat(call.operation, rule, || transport.send_for_head(call.clone()), |_| ()).await
    }

    /// Runs `attempt` until it succeeds, fails for good, or patience ends; shows `failed` every failure.
    async fn repeat<Fut>(
        &self,
        operation: &'static str,
        rule: RepeatRule,
        attempt: impl Fn() -> Fut,
        mut failed: impl FnMut(&ClientError),
    ) -> Result<StreamResponse, ClientError>
    where
        Fut: Future<Output = Result<StreamResponse, ClientError>>,
    {
        let policy: &RetryPolicy = &self.client.inner.retry;
        let mut failures = FailureCount::default();
        loop {
            let error = match attempt().await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let safe = rule == RepeatRule::Always || error.is_without_effect();
            let next = failures.next_try(policy, &error).filter(|_| safe);
            let Some(at) = next else { return Err(error) };
            failed(&error);
            telemetry::retried(operation);
            tracing::debug!(%error, operation, url = &*self.shown, "repeated after a pause");
            tokio::time::sleep_until(at).await;
        }
    }

    /// How long one attempt of a live read waits for its head.
    pub(crate) fn live_timeout(&self) -> Duration {
        self.client.inner.live_timeout
    }
}

/// The type of JSON mode (§9.1).
pub(crate) const JSON: &str = "application/json";

fn status_of(error: &ClientError) -> u16 {
    error.status().map_or(0, |status| status.as_u16())
}

/// An array of messages: the server flattens one level, so that a message that is an array itself stays one (§9.1.2).
fn json_array<T: Serialize>(messages: impl IntoIterator<Item = T>) -> Result<Vec<u8>, ClientError> {
    let mut body = vec![b'['];
    for message in messages {
        if body.len() > 1 {
            body.push(b',');
        }
        serde_json::to_writer(&mut body, &message)
            .map_err(|error| ClientError::Json(error.to_string()))?;
    }
    body.push(b']');
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_array() {
        let array = |messages: &[&[u8]]| json_array(messages).unwrap();
        assert_eq!(array(&[]), b"[]");
        assert_eq!(array(&[b"a", b"bc"]), b"[[97],[98,99]]", "arrays stay messages");
        let odd = std::collections::BTreeMap::from([((1, 2), 3)]);
        assert!(matches!(json_array([odd]), Err(ClientError::Json(_))), "its keys are no strings");
    }
}
