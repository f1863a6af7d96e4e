//! From a request to its reply: the engine is called here, nothing is written.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use bytes::Bytes;
use durable_streams_protocol::{
    Body, Create, HeadMeta, LiveMode, Offset, Outcome, Rejection, Request, Response, StreamPatch,
    StreamPath, render, render_rejection,
};
use durable_streams_subscriptions::ControlAuthority;
use pingora_core::protocols::http::ServerSession;

use super::{
    PendingReply, StreamReply,
    access::AdmittedRequest,
    body::{self, expects_continue},
    read::AdmittedRead,
    rights::{AccessRights, pace, readable},
};
use crate::{
    DurableStreams, StreamOptions,
    answers::AnswerPayer,
    counters::{RequestMode, UsagePlace},
    forwarded,
    request::{RequestTarget, StreamRequest},
};

/// How long the body of a request that should have none may take.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);

/// The largest body that is read only to keep a connection, bytes.
const SKIPPED: usize = 64 << 10;

/// A stream, under the path where it is stored and under the client's name for it.
#[derive(Clone, Copy)]
struct NamedStream<'a> {
    path: &'a StreamPath,
    named: &'a StreamPath,
}

impl DurableStreams {
    /// Receives the request's body and lets the engine decide. The reply is not written yet.
    ///
    /// Whether the client may do this is decided first, from the head alone.
    pub async fn reply(
        &self,
        session: &mut ServerSession,
        options: &StreamOptions,
        request: StreamRequest,
    ) -> StreamReply {
        let began = Instant::now();
        let mode = request.mode;
        let head = session.req_header();
        let method = head.method.clone();
        let cors = options.cors.fields(&method, &head.headers);
        let mut commit_wait = None;
        let mut admitted = match &self.access {
            None => {
                let control = ControlAuthority::Unrestricted;
                Ok(AdmittedRequest::unprivileged(request.target, control))
            }
            Some(access) => {
                match self.admit_known(access, session.req_header(), request.target) {
                    Ok(admitted) => Ok(admitted),
                    Err(target) => {
                        // Boxed: without access control a connection's future keeps no room for it.
                        Box::pin(self.admit(access, session, options, target)).await
                    }
                }
            }
        };
        // Borrowed, not moved out: a connection's future, which is copied for each request, would have room for both.
        let admitted = match &mut admitted {
            Ok(admitted) => admitted,
            Err(denial) => {
                self.skip_small_body(session).await;
                let (response, code) = denial.response();
                let reply = StreamReply::refusal(response, code);
                return StreamReply { mode: Some(mode), method, cors, ..reply };
            }
        };
        let usage = match (&admitted.target, self.counters.usage()) {
            (RequestTarget::Stream(_, Request::Preflight), _) | (_, None) => UsagePlace::default(),
            (RequestTarget::Stream(path, _), Some(usage)) => usage.place(path),
            (RequestTarget::Subscriptions(_) | RequestTarget::Invalid(_), _) => {
                UsagePlace::default()
            }
        };
        let audience = admitted.rights.as_ref().map(AccessRights::audience);
        let sends_files = request.sends_files;
        let decided =
            self.dispatch(session, options, admitted, sends_files, &mut commit_wait).await;
        let ((response, pending), problem) = match decided {
            Ok(decided) => (decided, None),
            Err(rejection) => {
                if matches!(rejection, Rejection::BodyIncomplete | Rejection::BodyTimeout) {
                    // Where the body ends is not known, so nothing after it can be a request.
                    session.set_keepalive(None);
                }
                ((render_rejection(&rejection), PendingReply::Nothing), Some(rejection.code()))
            }
        };
        let mut response = response;
        if problem.is_none() {
            options.browser.apply(&mut response);
        }
        if let (Some(audience), Some(access)) = (audience, &self.access) {
            access.caching().apply(&mut response, audience, self.engine.now());
        }
        if mode == RequestMode::CatchUp && problem.is_none() {
            self.counters.read(began.elapsed());
        }
        StreamReply {
            response,
            pending,
            problem,
            mode: Some(mode),
            method,
            cors,
            server_timing: options.server_timing.then_some(began),
            commit_wait,
            usage,
        }
    }

    /// Lets the engine decide about a request. Takes what a live read needs longer than this out of `admitted`.
    ///
    /// What is not as frequent as an append or a small read is boxed: a connection's future, which is copied for each
    /// request, has no room for it. Measured: 4,000 -> 2,720 bytes (docs/benchmarks.md).
    async fn dispatch(
        &self,
        session: &mut ServerSession,
        options: &StreamOptions,
        admitted: &mut AdmittedRequest,
        sends_files: bool,
        commit_wait: &mut Option<Duration>,
    ) -> Result<(Response, PendingReply), Rejection> {
        let (path, request) = match &admitted.target {
            RequestTarget::Stream(path, request) => (path, request),
            RequestTarget::Subscriptions(path) => {
                let control = admitted.control.clone();
                let answering = self.subscriptions(session, options, path, control);
                let response = Box::pin(answering).await?;
                return Ok(Box::pin(self.with_room(response, session, options)).await);
            }
            RequestTarget::Invalid(rejection) => {
                self.skip_small_body(session).await;
                return Err(rejection.clone());
            }
        };
        if !matches!(request, Request::Append(_) | Request::Create(_)) {
            self.discard_body(session).await?;
        }
        let response = match request {
            Request::Append(append) => {
                let rights = admitted.rights.as_ref();
                return self.append(session, options, path, append, rights, commit_wait).await;
            }
            Request::Create(create) => {
                let stream = NamedStream { path, named: admitted.named.as_ref().unwrap_or(path) };
                let creating =
                    self.create(session, options, stream, create, admitted.rights.as_ref());
                let (response, waited) = Box::pin(creating).await?;
                *commit_wait = Some(waited);
                response
            }
            Request::Read(read) => match read.live {
                LiveMode::CatchUp => {
                    let rights = admitted.rights.as_ref();
                    let request = AdmittedRead { path, read, rights, sends_files };
                    return self.catch_up(session, options, &request).await;
                }
                LiveMode::LongPoll => {
                    let rights = admitted.rights.as_ref();
                    let request = AdmittedRead { path, read, rights, sends_files };
                    return Box::pin(self.long_poll(session, options, &request)).await;
                }
                LiveMode::Sse => {
                    let client = self.client_reader(session, options)?;
                    let payer = AnswerPayer::of(session, options);
                    let rights = admitted.rights.take();
                    let beginning = self.events(options, path, read, rights, client, payer);
                    return Box::pin(beginning).await;
                }
            },
            Request::Head => Box::pin(self.head(path, admitted.rights.as_ref())).await?,
            Request::Delete => {
                Box::pin(self.engine.delete(path)).await?;
                render(Outcome::Deleted)
            }
            Request::Patch(patch) => Box::pin(self.patch(path, patch)).await?,
            Request::Preflight => render(Outcome::Preflight),
        };
        Ok((response, PendingReply::Nothing))
    }

    /// Creates a stream. Returns the response, and how long the creation took to be durable.
    async fn create(
        &self,
        session: &mut ServerSession,
        options: &StreamOptions,
        stream: NamedStream<'_>,
        create: &Create,
        rights: Option<&AccessRights>,
    ) -> Result<(Response, Duration), Rejection> {
        let body = self.receive(session, options).await?;
        self.meter_body(session, rights, body.bytes.len()).await;
        let received = Instant::now();
        let created = self.engine.create(stream.path, create, body.bytes).await;
        let waited = received.elapsed();
        let location = location(options, session, stream.named);
        Ok((render(Outcome::Created(&created?, Cow::Owned(location))), waited))
    }

    /// A response that was made at once, with room for its body.
    async fn with_room(
        &self,
        response: Response,
        session: &ServerSession,
        options: &StreamOptions,
    ) -> (Response, PendingReply) {
        let bytes = match &response.body {
            Body::Full(chunks) => chunks.iter().map(Bytes::len).sum(),
            Body::Empty | Body::Streamed(_) | Body::Live => 0,
        };
        let room = self.answers.room(bytes, AnswerPayer::of(session, options)).await;
        (response, PendingReply::holding(room))
    }

    /// Trims a stream, then changes its expiry.
    async fn patch(&self, path: &StreamPath, patch: &StreamPatch) -> Result<Response, Rejection> {
        if let Some(before) = patch.trim_before {
            self.engine.trim(path, before).await?;
        }
        if let Some(expiry) = patch.expiry {
            self.engine.change_expiry(path, expiry).await?;
        }
        let earliest = match self.engine.head(path).await {
            Ok(view) => view.tail.earliest,
            // The new expiry is in the past.
            Err(Rejection::NotFound | Rejection::Gone) => Offset::ZERO,
            Err(rejection) => return Err(rejection),
        };
        Ok(render(Outcome::Patched(earliest)))
    }

    async fn head(
        &self,
        path: &StreamPath,
        rights: Option<&AccessRights>,
    ) -> Result<Response, Rejection> {
        let view = self.engine.head(path).await?;
        readable(rights, &view.core)?;
        Ok(render(Outcome::Head(&HeadMeta {
            content_type: &view.core.content_type,
            tail: view.tail.offset,
            earliest: view.tail.earliest,
            closed: view.tail.closed,
            expiry: view.core.expiry,
            public: view.core.public,
        })))
    }

    /// Receives and drops the body of a request that should have none: left unread, it would be taken for
    /// the client's next request.
    async fn discard_body(&self, session: &mut ServerSession) -> Result<(), Rejection> {
        if session.is_body_done() {
            return Ok(());
        }
        let drained = tokio::time::timeout(DISCARD_TIMEOUT, session.drain_request_body()).await;
        match drained {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Rejection::BodyIncomplete),
            Err(_) => {
                session.set_keepalive(None);
                Err(Rejection::BodyTimeout)
            }
        }
    }

    /// Takes a body whose length its head did not tell off the rates of bytes: it waits until they allow it.
    pub(super) async fn meter_body(
        &self,
        session: &ServerSession,
        rights: Option<&AccessRights>,
        bytes: usize,
    ) {
        if let Some(meter) = rights.and_then(AccessRights::meter)
            && body::declared_length(session).is_none()
        {
            // Boxed: rare.
            Box::pin(pace(meter, &self.engine, bytes)).await;
        }
    }

    /// Reads past a body that is on its way anyway, so that the connection outlives a refusal.
    async fn skip_small_body(&self, session: &mut ServerSession) {
        let small = body::declared_length(session).is_some_and(|length| length <= SKIPPED);
        if small && !expects_continue(session.req_header()) {
            // If it does not come, the refusal ends the connection instead.
            let _ = self.discard_body(session).await;
        }
    }
}

/// The stream's absolute URL as the client knows it; just the path when no host is known.
fn location(options: &StreamOptions, session: &ServerSession, path: &StreamPath) -> String {
    let (scheme, host) = forwarded::external_url(session, &options.trusted_proxies);
    let path = format!("{}/{}", options.route, path.to_url());
    match host {
        Some(host) => format!("{scheme}://{host}{path}"),
        None => path,
    }
}
