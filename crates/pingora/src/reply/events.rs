//! SSE (§5.8): drives an [`SseRead`] against the tail, the timer, the client and the shutdown.

use std::time::Duration;

use durable_streams_engine::{
    LimitPermit, LiveFrame, READ_PIECE, ReadPlan, ReadSlice, StreamView, TailWatch,
};
use durable_streams_protocol::{
    Offset, Outcome, Read, Rejection, Response, SseEncoding, SseRead, SseStep, SseTiming,
    StreamPath, Tail, Timestamp, encode_control, encode_data, keep_alive, render, text_boundary,
};
use tokio::time::Instant;

use super::{
    PendingReply,
    large_event::LargeEvent,
    rights::{AccessRights, pace, readable, rights_over},
    time::{later, millis, until},
};
use crate::{
    DurableStreams, StreamOptions,
    answers::AnswerPayer,
    clients::ClientPermit,
    counters::{LiveKind, SseEvent},
    write::{EventChunk, ReplyWriter},
};

/// Bytes of a stream in one event, unless a single append, or JSON message, is larger: small appends share an event. As
/// base64, and with its control event, it is less than [`WHOLE_EVENT`].
const EVENT_BYTES: usize = 46 << 10;
/// Bytes that an event may have as one buffer: what a stalled reader holds. A larger one is written in pieces.
const WHOLE_EVENT: usize = READ_PIECE;

/// A live read that was accepted. Its head and its events are written by its delivery.
pub(crate) struct LiveRead {
    view: StreamView,
    watch: TailWatch,
    sse: SseRead,
    rights: Option<AccessRights>,
    _place: LimitPermit,
    _client: Option<ClientPermit>,
    payer: AnswerPayer,
}

/// A data event with the control event that must follow it.
enum MadeEvent {
    Whole(EventChunk),
    /// Too large to be made in memory; from this plan it is written in pieces.
    Large(ReadPlan),
}

impl DurableStreams {
    /// Accepts a live read.
    pub(super) async fn events(
        &self,
        options: &StreamOptions,
        path: &StreamPath,
        read: &Read,
        rights: Option<AccessRights>,
        client: Option<ClientPermit>,
        payer: AnswerPayer,
    ) -> Result<(Response, PendingReply), Rejection> {
        let place = self.engine.live_permit()?;
        // The watch begins before the tail is read, so no append is missed in between.
        let (view, watch) = self.engine.open_live(path).await?;
        readable(rights.as_ref(), &view.core)?;
        let from = view.start(read.from)?;
        if read.ended && view.tail.closed && from == view.tail.offset {
            return Ok((render(Outcome::AfterTheEnd(from)), PendingReply::Nothing));
        }
        // Once the head is sent no status can follow, so the offset is judged before.
        self.engine.check_offset(&view.core, from, view.tail.offset).await?;
        let head = render(Outcome::Events(&view.core.content_type, view.tail.earliest));
        let now = self.engine.steady_now();
        let timing = SseTiming {
            recycle_at: later(now, options.sse_reconnect_interval.mul_f64(jitter())),
            keep_alive_millis: millis(options.sse_keep_alive),
        };
        let sse = SseRead::new(from, read.cursor, timing, now, fastrand::u64(..));
        let live = LiveRead { view, watch, sse, rights, _place: place, _client: client, payer };
        Ok((head, PendingReply::Events(Box::new(live))))
    }

    /// Writes the events of a live read, to its end.
    ///
    /// # Errors
    /// The client can no longer be written to.
    pub(crate) async fn drive(
        &self,
        live: &mut LiveRead,
        out: &mut impl ReplyWriter,
    ) -> pingora_core::Result<()> {
        let _counted = self.counters.live(LiveKind::Sse);
        let LiveRead { view, watch, sse, rights, payer, .. } = live;
        let mut over = rights_over(rights.as_ref(), &self.engine);
        let mut stopping = self.stopping.clone();
        let stop = stopping.begun();
        tokio::pin!(stop);
        let timer = tokio::time::sleep(Duration::ZERO);
        tokio::pin!(timer);
        // When the timer fires, on the engine's clock. It may fire early, never late.
        let mut fires = Timestamp::default();
        loop {
            let tail = watch.tail();
            let now = self.engine.steady_now();
            if let Some(rights) = &*rights
                && !sse.is_stopping()
                && rights.are_over(self.engine.now())
            {
                sse.on_shutdown();
            }
            let mut room = None;
            let (kind, event) = match sse.poll(tail, now) {
                SseStep::Read(from) => {
                    let event = match self.shared(watch, sse, from, tail) {
                        Some(event) => {
                            room = self.answers.room(event.len(), *payer).await;
                            Ok(MadeEvent::Whole(event))
                        }
                        // Boxed: of many readers one makes the event.
                        None => {
                            let left = tail.offset.position().saturating_sub(from.position());
                            let bytes =
                                usize::try_from(left).unwrap_or(EVENT_BYTES).min(EVENT_BYTES);
                            room = self.answers.room(bytes, *payer).await;
                            Box::pin(self.data(view, watch, sse, from, tail)).await
                        }
                    };
                    match event {
                        Ok(MadeEvent::Whole(event)) => (SseEvent::Data, event),
                        // It keeps the room of one piece to its end.
                        Ok(MadeEvent::Large(plan)) => {
                            let bytes = usize::try_from(plan.len()).unwrap_or(usize::MAX);
                            self.metered(rights.as_ref(), bytes, out).await?;
                            let large = LargeEvent { view, from, plan };
                            let bytes = Box::pin(self.write_large(large, watch, sse, out)).await?;
                            self.counters.sse_event(SseEvent::Data, bytes);
                            continue;
                        }
                        // Deleted or damaged since: the client reconnects and gets the status.
                        Err(rejection) => {
                            tracing::debug!(path = view.core.path.as_str(), %rejection, "live read ends early");
                            break;
                        }
                    }
                }
                SseStep::Control(control) => {
                    let event = EventChunk::new(192, |out| encode_control(out, &control));
                    (SseEvent::Control, event)
                }
                SseStep::KeepAlive => {
                    let event = EventChunk::new(8, |out| out.extend_from_slice(keep_alive()));
                    (SseEvent::KeepAlive, event)
                }
                SseStep::Finish => break,
                SseStep::Wait(then) => {
                    if fires <= now || fires > then {
                        timer.as_mut().reset(Instant::now() + until(now, then));
                        fires = then;
                    }
                    tokio::select! {
                        () = watch.changed() => {}
                        () = &mut timer => fires = Timestamp::default(),
                        () = &mut stop, if !sse.is_stopping() => sse.on_shutdown(),
                        () = &mut over, if !sse.is_stopping() => sse.on_shutdown(),
                        gone = out.left() => return Err(gone),
                    }
                    continue;
                }
            };
            let bytes = event.len();
            self.metered(rights.as_ref(), bytes, out).await?;
            out.event(event).await?;
            drop(room);
            self.counters.sse_event(kind, bytes);
        }
        out.end().await
    }

    /// Waits until the rates of bytes allow an event, the server stops, or the client leaves.
    async fn metered(
        &self,
        rights: Option<&AccessRights>,
        bytes: usize,
        out: &mut impl ReplyWriter,
    ) -> pingora_core::Result<()> {
        let Some(meter) = rights.and_then(AccessRights::meter) else { return Ok(()) };
        let mut stopping = self.stopping.clone();
        // Boxed: a reader's future would have room for it as long as it lives.
        Box::pin(async move {
            tokio::select! {
                () = pace(meter, &self.engine, bytes) => Ok(()),
                () = stopping.begun() => Ok(()),
                gone = out.left() => Err(gone),
            }
        })
        .await
    }

    /// What another reader left, if that is just what this one needs.
    fn shared(
        &self,
        watch: &TailWatch,
        sse: &mut SseRead,
        from: Offset,
        tail: Tail,
    ) -> Option<EventChunk> {
        let frame = watch.frame(from, tail)?;
        let mut ahead = sse.clone();
        let control = ahead.sent(frame.end, frame.held, tail, self.engine.steady_now());
        (control == frame.control).then(|| {
            *sse = ahead;
            EventChunk::framed(frame.bytes)
        })
    }

    /// One data event of whole appends, with the control event that must follow it.
    async fn data(
        &self,
        view: &StreamView,
        watch: &TailWatch,
        sse: &mut SseRead,
        from: Offset,
        tail: Tail,
    ) -> Result<MadeEvent, Rejection> {
        let encoding = SseEncoding::of(&view.core.content_type);
        let mut whole = self.plan_event(view, from, tail).await?;
        if !whole.is_one_piece() {
            whole.drop_first();
            return Ok(MadeEvent::Large(whole));
        }
        let mut slice = whole.take_first();
        let held = match encoding {
            SseEncoding::Text => {
                if slice.starts_with(b'\n') && self.ends_with_cr(view, from).await? {
                    slice.skip_first();
                }
                hold_back(&mut slice, tail)
            }
            SseEncoding::Json | SseEncoding::Base64 => false,
        };
        // The end of a slice is a position; clients get offsets, which name the incarnation.
        let end = view.core.offset_at(slice.end.position());
        let mut ahead = sse.clone();
        let control = ahead.sent(end, held, tail, self.engine.steady_now());
        let room = match encoding {
            SseEncoding::Base64 => slice.len().div_ceil(3) * 4,
            SseEncoding::Text | SseEncoding::Json => slice.len() + slice.len() / 32,
        };
        let event = EventChunk::new(room + 256, |out| {
            if !slice.is_empty() {
                encode_data(out, encoding, &slice.chunks);
            }
            encode_control(out, &control);
        });
        if event.len() > WHOLE_EVENT {
            let mut whole = self.plan_event(view, from, tail).await?;
            whole.drop_first();
            return Ok(MadeEvent::Large(whole));
        }
        *sse = ahead;
        // Only frames that reach the tail are of use to others; a reader that catches up is alone. One that
        // another left, with another cursor, stays: most have that one.
        if control.up_to_date && watch.frame(from, tail).is_none() {
            watch.leave_frame(LiveFrame {
                id: watch.id(),
                from,
                tail,
                end,
                held,
                control,
                bytes: event.bytes().clone(),
            });
        }
        Ok(MadeEvent::Whole(event))
    }
}

impl DurableStreams {
    /// Plans the event that begins at `from`.
    async fn plan_event(
        &self,
        view: &StreamView,
        from: Offset,
        tail: Tail,
    ) -> Result<ReadPlan, Rejection> {
        let (core, page) = (&view.core, Some(EVENT_BYTES));
        let mut plan = self.engine.plan(core, from, tail.offset, page).await?;
        if !core.content_type.is_text() || plan.len() > 3 || plan.end() == tail.offset {
            return Ok(plan);
        }
        // If all of it is the beginning of a character, the event goes on with the append that has the rest.
        let bytes = plan.take_first().chunks.concat();
        let end = match text_boundary(&bytes) == bytes.len() {
            true => self.engine.plan(core, plan.end(), tail.offset, page).await?.end(),
            false => plan.end(),
        };
        self.engine.plan(core, from, end, None).await
    }

    /// Whether the byte before `from` is a CR. It has ended its line already, in an event of its own, so
    /// an LF that follows it is the other half of one line end and not a second one.
    pub(super) async fn ends_with_cr(
        &self,
        view: &StreamView,
        from: Offset,
    ) -> Result<bool, Rejection> {
        let Some(before) = from.position().checked_sub(1) else { return Ok(false) };
        match self.engine.read(&view.core, Offset::new(before), from, 1).await {
            Ok(last) => Ok(last.starts_with(b'\r')),
            // The client that got it has no use for the other half.
            Err(Rejection::OffsetTrimmed { .. }) => Ok(false),
            Err(rejection) => Err(rejection),
        }
    }
}

/// Leaves the beginning of a character for the next event. Says whether that is all that is left.
fn hold_back(slice: &mut ReadSlice, tail: Tail) -> bool {
    let at_tail = slice.end == tail.offset;
    if at_tail && tail.closed {
        return false;
    }
    let mut last = [0; 3];
    let mut have = 0;
    for byte in slice.chunks.iter().rev().flat_map(|chunk| chunk.iter().rev()).take(3) {
        have += 1;
        if let Some(slot) = last.get_mut(3 - have) {
            *slot = *byte;
        }
    }
    let unfinished = text_boundary(last.get(3 - have..).unwrap_or(&[]));
    slice.cut(unfinished);
    unfinished > 0 && at_tail
}

/// From nine to eleven tenths.
fn jitter() -> f64 {
    0.9 + fastrand::f64() * 0.2
}
