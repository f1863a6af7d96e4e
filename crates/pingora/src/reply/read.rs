//! Catch-up and long-poll (§5.6, §5.7).

use durable_streams_engine::{ReadSlice, StreamView, TailWatch};
use durable_streams_protocol::{
    Body, Cursor, LiveMode, LongPollStep, Offset, Outcome, Read, ReadFrom, Rejection, Response,
    SliceMeta, StreamPath, Tail, frame_array, long_poll, render,
};
use http::{HeaderValue, header};
use pingora_core::protocols::http::ServerSession;

use super::{
    access::{AccessRights, rights_over},
    compress::ContentCoding,
    time::{later, until},
};
use crate::{DurableStreams, StreamOptions, counters::LiveKind};

impl DurableStreams {
    pub(super) async fn read(
        &self,
        session: &mut ServerSession,
        options: &StreamOptions,
        path: &StreamPath,
        read: &Read,
        rights: Option<&AccessRights>,
    ) -> Result<Response, Rejection> {
        if read.live == LiveMode::CatchUp {
            let view = self.engine.open(path).await?;
            let from = start(read.from, view.tail);
            return self.slice(session, read, &view, from).await;
        }
        let _place = self.engine.live_permit()?;
        let _counted = self.counters.live(LiveKind::LongPoll);
        // The watch begins before the tail is read, so no append is missed in between.
        let (mut view, watch) = self.engine.open_live(path).await?;
        let from = start(read.from, view.tail);
        if from > view.tail.offset {
            return Err(Rejection::OffsetBeyondTail { tail: view.tail.offset });
        }
        view.tail = self.wait(session, options, watch, from, rights).await?;
        if view.tail.offset > from {
            return self.slice(session, read, &view, from).await;
        }
        let mut meta = self.meta(session, read, &view, from);
        meta.end = view.tail.offset;
        meta.up_to_date = true;
        meta.closed = view.tail.closed;
        Ok(render(Outcome::NoNews(&meta)))
    }

    /// Waits until there is something after `from`, the stream ends, or the time is up.
    async fn wait(
        &self,
        session: &mut ServerSession,
        options: &StreamOptions,
        mut watch: TailWatch,
        from: Offset,
        rights: Option<&AccessRights>,
    ) -> Result<Tail, Rejection> {
        let mut over = rights_over(rights, &self.engine);
        let deadline = later(self.engine.steady_now(), options.long_poll_timeout);
        let mut stopping = self.stopping.clone();
        loop {
            let tail = watch.tail();
            let now = self.engine.steady_now();
            match long_poll(from, tail, deadline, now) {
                LongPollStep::Read | LongPollStep::Empty => return Ok(tail),
                LongPollStep::Gone => return Err(Rejection::NotFound),
                LongPollStep::Wait(_) if self.stopping.has_begun() => return Ok(tail),
                LongPollStep::Wait(then) => tokio::select! {
                    () = watch.changed() => {}
                    () = tokio::time::sleep(until(now, then)) => {}
                    () = stopping.begun() => {}
                    // The client comes back for more, and then needs a credential that is valid.
                    () = &mut over => return Ok(tail),
                    gone = session.read_body_or_idle(true) => {
                        // The client left; whatever is answered goes nowhere.
                        if gone.is_err() {
                            return Err(Rejection::BodyIncomplete);
                        }
                    }
                },
            }
        }
    }

    /// Answers with the bytes from `from`: 200, or 304 when the client holds them.
    async fn slice(
        &self,
        session: &ServerSession,
        read: &Read,
        view: &StreamView,
        from: Offset,
    ) -> Result<Response, Rejection> {
        let max = self.engine.limits().max_read;
        let slice = self.engine.read(&view.core, from, view.tail.offset, max).await?;
        let mut meta = self.meta(session, read, view, from);
        meta.end = slice.end;
        meta.up_to_date = slice.end == view.tail.offset;
        meta.closed = view.tail.closed && meta.up_to_date;
        let ReadSlice { mut chunks, .. } = slice;
        if meta.content_type.is_json() {
            chunks = vec![frame_array(&chunks)];
        }
        let varies = read.live == LiveMode::CatchUp && meta.content_type.is_compressible();
        let length = chunks.iter().map(bytes::Bytes::len).sum();
        let request = &session.req_header().headers;
        let coding = if varies { ContentCoding::choose(request, length) } else { None };
        meta.encoded = coding.is_some();
        // 304 carries the fields of the 200 it stands for: a cache finds what to refresh by them.
        let held = read.if_none_match.as_ref().zip(meta.etag());
        let mut response = if held.is_some_and(|(tags, etag)| tags.matches(&etag)) {
            render(Outcome::NotModified(&meta))
        } else {
            render(Outcome::Slice(&meta, chunks))
        };
        if varies {
            let on = HeaderValue::from_static("accept-encoding");
            response.headers.push((header::VARY, on));
        }
        if let (Some(coding), Body::Full(chunks)) = (coding, &mut response.body) {
            let encoded = coding.encode(std::mem::take(chunks)).await;
            chunks.push(encoded.map_err(|_| Rejection::Unavailable { reason: "encoding failed" })?);
            response.headers.push((header::CONTENT_ENCODING, coding.header()));
        }
        Ok(response)
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
            private: session.req_header().headers.contains_key(header::AUTHORIZATION),
            encoded: false,
            cursor: live.then(cursor),
        }
    }
}

/// The position where a read begins.
pub(super) fn start(from: ReadFrom, tail: Tail) -> Offset {
    match from {
        ReadFrom::Start => Offset::ZERO,
        ReadFrom::Now => tail.offset,
        ReadFrom::At(offset) => offset,
    }
}
