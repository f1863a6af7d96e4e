//! Catch-up and long-poll (§5.6, §5.7).

use bytes::Bytes;
use durable_streams_engine::{READ_PIECE, StreamView, TailWatch};
use durable_streams_protocol::{
    ArrayFramer, Body, Cursor, LiveMode, LongPollStep, Offset, Outcome, Read, ReadFrom, Rejection,
    Response, SliceMeta, StreamPath, Tail, frame_array, long_poll, render,
};
use http::{HeaderValue, StatusCode, Version, header};
use pingora_core::protocols::http::ServerSession;

use super::{
    PendingReply, StreamedBody,
    compress::StreamEncoder,
    rights::{AccessRights, pace, readable, rights_over},
    time::{later, until},
};
use crate::{DurableStreams, StreamOptions, answers::AnswerPayer, counters::LiveKind};

/// Shorter ranges are read: a part of a file takes one more system call than bytes in memory, whose copy costs little then.
const WORTH_A_FILE: u64 = 32 << 10;

/// A request for bytes that the client may read.
#[derive(Clone, Copy)]
pub(super) struct AdmittedRead<'a> {
    pub(super) path: &'a StreamPath,
    pub(super) read: &'a Read,
    pub(super) rights: Option<&'a AccessRights>,
    /// The reply's writer can.
    pub(super) sends_files: bool,
}

impl DurableStreams {
    pub(super) async fn catch_up(
        &self,
        session: &ServerSession,
        options: &StreamOptions,
        request: &AdmittedRead<'_>,
    ) -> Result<(Response, PendingReply), Rejection> {
        let view = self.engine.open(request.path).await?;
        readable(request.rights, &view.core)?;
        let from = view.start(request.read.from)?;
        self.slice(session, options, request, &view, from).await
    }

    pub(super) async fn long_poll(
        &self,
        session: &mut ServerSession,
        options: &StreamOptions,
        request: &AdmittedRead<'_>,
    ) -> Result<(Response, PendingReply), Rejection> {
        let AdmittedRead { path, read, rights, .. } = *request;
        let _client = self.client_reader(session, options)?;
        let _place = self.engine.live_permit()?;
        let _counted = self.counters.live(LiveKind::LongPoll);
        // The watch begins before the tail is read, so no append is missed in between.
        let (mut view, watch) = self.engine.open_live(path).await?;
        readable(rights, &view.core)?;
        let from = view.start(read.from)?;
        if from > view.tail.offset {
            return Err(Rejection::OffsetBeyondTail { tail: view.tail.offset });
        }
        let Some(tail) = self.wait(session, options, watch, from, rights).await? else {
            // Nothing that follows on this connection is a request.
            session.set_keepalive(None);
            let response =
                Response { status: StatusCode::OK, headers: Vec::new(), body: Body::Empty };
            return Ok((response, PendingReply::ClientLeft));
        };
        view.tail = tail;
        if view.tail.offset > from {
            return self.slice(session, options, request, &view, from).await;
        }
        let mut meta = self.meta(session, read, &view, from);
        meta.end = view.tail.offset;
        meta.up_to_date = true;
        meta.closed = view.tail.closed;
        Ok((render(Outcome::NoNews(&meta)), PendingReply::Nothing))
    }

    /// Waits until there is something after `from`, the stream ends, or the time is up. `None`: the client left.
    async fn wait(
        &self,
        session: &mut ServerSession,
        options: &StreamOptions,
        mut watch: TailWatch,
        from: Offset,
        rights: Option<&AccessRights>,
    ) -> Result<Option<Tail>, Rejection> {
        let mut over = rights_over(rights, &self.engine);
        let deadline = later(self.engine.steady_now(), options.long_poll_timeout);
        let mut stopping = self.stopping.clone();
        loop {
            let tail = watch.tail();
            let now = self.engine.steady_now();
            match long_poll(from, tail, deadline, now) {
                LongPollStep::Read | LongPollStep::Empty => return Ok(Some(tail)),
                LongPollStep::Gone => return Err(Rejection::NotFound),
                LongPollStep::Trimmed => {
                    return Err(Rejection::OffsetTrimmed { earliest: tail.earliest });
                }
                LongPollStep::Wait(_) if self.stopping.has_begun() => {
                    return Ok(Some(tail));
                }
                LongPollStep::Wait(then) => tokio::select! {
                    () = watch.changed() => {}
                    () = tokio::time::sleep(until(now, then)) => {}
                    () = stopping.begun() => {}
                    // The client comes back for more, and then needs a credential that is valid.
                    () = &mut over => return Ok(Some(tail)),
                    gone = session.read_body_or_idle(true) => {
                        if gone.is_err() {
                            return Ok(None);
                        }
                    }
                },
            }
        }
    }

    /// Answers with the bytes from `from`: 200, or 304 when the client holds them.
    ///
    /// A body of one piece is in the response, which costs a small read nothing; a longer one is read while it is
    /// written.
    async fn slice(
        &self,
        session: &ServerSession,
        options: &StreamOptions,
        request: &AdmittedRead<'_>,
        view: &StreamView,
        from: Offset,
    ) -> Result<(Response, PendingReply), Rejection> {
        let AdmittedRead { read, rights, .. } = *request;
        let page = self.engine.limits().max_read;
        let payer = AnswerPayer::of(session, options);
        let tail = view.tail.offset;
        let left = tail.position().saturating_sub(from.position());
        let first = usize::try_from(left).unwrap_or(READ_PIECE).min(READ_PIECE);
        let mut room = self.answers.room(first, payer).await;
        let sends = left >= WORTH_A_FILE && self.sends_stored(session, request, view, left);
        let mut plan = if sends {
            // Boxed: a small read's future has no room for it.
            let planning = self.engine.plan_to_send(&view.core, from, tail, page);
            Box::pin(planning).await?
        } else {
            self.engine.plan(&view.core, from, tail, page).await?
        };
        if plan.is_in_file() {
            room = None;
        }
        let mut meta = self.meta(session, read, view, from);
        meta.end = plan.end();
        meta.up_to_date = meta.end == tail;
        meta.closed = view.tail.closed && meta.up_to_date;
        let framer = meta.content_type.is_json().then(|| ArrayFramer::new(plan.len()));
        let meter = rights.and_then(AccessRights::meter);
        let length = framer.as_ref().map_or(plan.len(), ArrayFramer::len);
        let streamed = !plan.is_one_piece();
        let varies = read.live == LiveMode::CatchUp && meta.content_type.is_compressible();
        let request = session.req_header();
        // On HTTP/1.0 a body of unknown length that is cut off looks complete.
        let may_encode = varies && !(streamed && request.version == Version::HTTP_10);
        let coding = self.encoders.choose(&request.headers, length).filter(|_| may_encode);
        let encoder = coding.filter(|_| streamed).and_then(|coding| self.encoders.get(coding));
        let coding = if streamed { encoder.as_ref().map(StreamEncoder::coding) } else { coding };
        meta.encoded = coding.is_some();
        // 304 carries the fields of the 200 it stands for: a cache finds what to refresh by them.
        let held = read.if_none_match.as_ref().zip(meta.etag());
        let (mut response, pending) = if held.is_some_and(|(tags, etag)| tags.matches(&etag)) {
            (render(Outcome::NotModified(&meta)), PendingReply::Nothing)
        } else if streamed {
            let body = Body::Streamed(encoder.is_none().then_some(length));
            let (core, counted) = (view.core.clone(), self.answers.streamed());
            let mut streamed = StreamedBody::new(core, plan, framer, encoder, payer, room, counted);
            streamed.meter(meter);
            (render(Outcome::Slice(&meta, body)), PendingReply::Body(Box::new(streamed)))
        } else {
            let mut chunks = plan.take_first().chunks;
            if let Some(meter) = meter {
                let bytes = chunks.iter().map(Bytes::len).sum();
                // Boxed: rare.
                Box::pin(pace(meter, &self.engine, bytes)).await;
            }
            if framer.is_some() {
                chunks = vec![frame_array(&chunks)];
            }
            if let Some(coding) = coding {
                // Boxed: rare where reads are small.
                chunks = vec![Box::pin(coding.encode(chunks, &self.encoders.threads)).await?];
            }
            (render(Outcome::Slice(&meta, Body::Full(chunks))), PendingReply::holding(room))
        };
        if varies {
            let on = HeaderValue::from_static("accept-encoding");
            response.headers.push((header::VARY, on));
        }
        if let Some(coding) = coding.filter(|_| response.may_have_body()) {
            response.headers.push((header::CONTENT_ENCODING, coding.header()));
        }
        Ok((response, pending))
    }

    /// Whether the client receives the very bytes that are stored, as fast as it takes them, from a writer of files.
    fn sends_stored(
        &self,
        session: &ServerSession,
        request: &AdmittedRead<'_>,
        view: &StreamView,
        length: u64,
    ) -> bool {
        let kind = &view.core.content_type;
        let may_encode = request.read.live == LiveMode::CatchUp && kind.is_compressible();
        request.sends_files
            && request.rights.and_then(AccessRights::meter).is_none()
            && !(may_encode
                && self.encoders.choose(&session.req_header().headers, length).is_some())
    }

    fn meta<'v>(
        &self,
        session: &ServerSession,
        read: &Read,
        view: &'v StreamView,
        start: Offset,
    ) -> SliceMeta<'v> {
        let live = read.live == LiveMode::LongPoll;
        let cursor = || Cursor::next(read.cursor, self.engine.steady_now(), fastrand::u64(..));
        SliceMeta {
            stream: view.core.id,
            content_type: &view.core.content_type,
            live: read.live,
            start,
            end: start,
            up_to_date: false,
            closed: false,
            from_now: read.from == ReadFrom::Now,
            from_start: read.from == ReadFrom::Start,
            earliest: view.tail.earliest,
            private: [header::AUTHORIZATION, header::COOKIE]
                .iter()
                .any(|credential| session.req_header().headers.contains_key(credential)),
            encoded: false,
            cursor: live.then(cursor),
        }
    }
}
