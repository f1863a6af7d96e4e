//! Live reads as state machines without I/O: what a long-poll and an SSE reader do next.
//!
//! The caller subscribes to the tail first and asks afterwards, so no append can slip between a check and
//! a wait. Time goes in as `now`; waits come out as values.

use crate::{ControlEvent, Cursor, Offset, Timestamp};

/// The end of a stream as readers may see it: durable, never only decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// The position after the last durable byte.
    pub offset: Offset,
    /// The position of the first byte that readers find: after a trim, not the stream's start.
    pub earliest: Offset,
    /// No byte will follow.
    pub closed: bool,
    /// The stream was deleted or expired while being read.
    pub gone: bool,
}

/// What a waiting long-poll does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LongPollStep {
    /// Answer with the bytes from here.
    Read,
    /// Answer 204: the stream is closed, or the time is up.
    Empty,
    /// The stream is gone.
    Gone,
    /// The bytes from here were trimmed.
    Trimmed,
    /// Wait for the tail to move, until then at most.
    Wait(Timestamp),
}

/// Judges a long-poll that began at `from` and may wait until `deadline` (§5.7).
pub fn long_poll(from: Offset, tail: Tail, deadline: Timestamp, now: Timestamp) -> LongPollStep {
    if tail.gone {
        LongPollStep::Gone
    } else if tail.earliest > from {
        LongPollStep::Trimmed
    } else if tail.offset > from {
        LongPollStep::Read
    } else if tail.closed || now >= deadline {
        LongPollStep::Empty
    } else {
        LongPollStep::Wait(deadline)
    }
}

/// The intervals of an SSE connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SseTiming {
    /// When the connection is recycled (§10.2).
    pub recycle_at: Timestamp,
    /// How long it may be silent before a comment is sent, milliseconds.
    pub keep_alive_millis: u64,
}

/// What an SSE reader does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SseStep {
    /// Read from here up to the tail, send the data event, then call [`SseRead::sent`].
    Read(Offset),
    /// Send this control event.
    Control(ControlEvent),
    /// Send a comment so that idle connections stay open.
    KeepAlive,
    /// Wait for the tail to move, until then at most.
    Wait(Timestamp),
    /// End the response.
    Finish,
}

/// One SSE connection (§5.8).
#[derive(Clone, Debug)]
pub struct SseRead {
    position: Offset,
    /// Bytes up to here were seen and the rest held back: an unfinished character of a text stream.
    held_at: Option<Offset>,
    cursor: Cursor,
    timing: SseTiming,
    keep_alive_at: Timestamp,
    greeted: bool,
    finished: bool,
    stopping: bool,
}

impl SseRead {
    /// A connection that begins at `from`. `random` is any number, see [`Cursor::next`].
    pub fn new(
        from: Offset,
        client: Option<Cursor>,
        timing: SseTiming,
        now: Timestamp,
        random: u64,
    ) -> Self {
        SseRead {
            position: from,
            held_at: None,
            cursor: Cursor::next(client, now, random),
            timing,
            keep_alive_at: now,
            greeted: false,
            finished: false,
            stopping: false,
        }
    }

    /// The server is stopping: say where we are and end.
    pub fn on_shutdown(&mut self) {
        self.stopping = true;
    }

    /// Whether [`on_shutdown`](Self::on_shutdown) was called.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// The next step, given the tail.
    pub fn poll(&mut self, tail: Tail, now: Timestamp) -> SseStep {
        // A client whose next bytes were trimmed gets the status when it comes back.
        if self.finished || tail.gone || tail.earliest > self.position {
            return SseStep::Finish;
        }
        let ending = self.stopping || now >= self.timing.recycle_at;
        let unread =
            tail.offset > self.position && (tail.closed || self.held_at != Some(tail.offset));
        if unread && !(ending && self.greeted) {
            return SseStep::Read(self.position);
        }
        let closed = tail.closed && !unread;
        if ending || closed {
            self.finished = true;
            return SseStep::Control(self.control(tail, closed, now));
        }
        if !self.greeted {
            return SseStep::Control(self.control(tail, false, now));
        }
        if now >= self.keep_alive_at {
            self.rearm(now);
            return SseStep::KeepAlive;
        }
        SseStep::Wait(self.keep_alive_at.min(self.timing.recycle_at))
    }

    /// A data event up to `end` is on its way; the control event that must follow it. `held` says that the
    /// bytes from `end` to the tail are the beginning of a character.
    pub fn sent(&mut self, end: Offset, held: bool, tail: Tail, now: Timestamp) -> ControlEvent {
        self.position = end;
        self.held_at = held.then_some(tail.offset);
        let closed = tail.closed && end == tail.offset;
        self.finished |= closed;
        self.control(tail, closed, now)
    }

    fn control(&mut self, tail: Tail, closed: bool, now: Timestamp) -> ControlEvent {
        self.greeted = true;
        self.rearm(now);
        self.cursor = self.cursor.max(Cursor::next(None, now, 0));
        ControlEvent {
            next_offset: self.position,
            cursor: (!closed).then_some(self.cursor),
            up_to_date: self.position == tail.offset || self.held_at == Some(tail.offset),
            closed,
        }
    }

    fn rearm(&mut self, now: Timestamp) {
        let next = now.millis().saturating_add(self.timing.keep_alive_millis);
        self.keep_alive_at = Timestamp::from_millis(next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn open(offset: u64) -> Tail {
        Tail { offset: Offset::new(offset), ..Tail::default() }
    }

    fn reader(from: u64) -> SseRead {
        let timing = SseTiming { recycle_at: ms(60_000), keep_alive_millis: 15_000 };
        SseRead::new(Offset::new(from), None, timing, ms(0), 7)
    }

    #[test]
    fn long_poll_table() {
        let at = |tail, now| long_poll(Offset::new(5), tail, ms(30_000), ms(now));
        assert_eq!(at(open(5), 0), LongPollStep::Wait(ms(30_000)));
        assert_eq!(at(open(6), 0), LongPollStep::Read);
        assert_eq!(at(open(5), 30_000), LongPollStep::Empty);
        assert_eq!(at(Tail { closed: true, ..open(5) }, 0), LongPollStep::Empty);
        assert_eq!(at(Tail { closed: true, ..open(6) }, 0), LongPollStep::Read);
        assert_eq!(at(Tail { gone: true, ..open(6) }, 0), LongPollStep::Gone);
        let trimmed = |earliest| Tail { earliest: Offset::new(earliest), ..open(6) };
        assert_eq!(at(trimmed(5), 0), LongPollStep::Read);
        assert_eq!(at(trimmed(6), 0), LongPollStep::Trimmed);
    }

    #[test]
    fn a_reader_at_the_tail_is_greeted_waits_and_is_kept_alive() {
        let mut sse = reader(0);
        let SseStep::Control(control) = sse.poll(open(0), ms(0)) else { panic!("no greeting") };
        assert!(control.up_to_date && !control.closed && control.cursor.is_some());
        assert_eq!(sse.poll(open(0), ms(1)), SseStep::Wait(ms(15_000)));
        assert_eq!(sse.poll(open(0), ms(15_000)), SseStep::KeepAlive);
        assert_eq!(sse.poll(open(0), ms(15_000)), SseStep::Wait(ms(30_000)));
    }

    #[test]
    fn data_is_followed_by_its_control_event() {
        let mut sse = reader(0);
        assert_eq!(sse.poll(open(9), ms(0)), SseStep::Read(Offset::ZERO));
        let control = sse.sent(Offset::new(4), false, open(9), ms(0));
        assert!(!control.up_to_date, "more is there");
        assert_eq!(sse.poll(open(9), ms(0)), SseStep::Read(Offset::new(4)));
        let control = sse.sent(Offset::new(9), false, open(9), ms(0));
        assert!(control.up_to_date);
        assert!(matches!(sse.poll(open(9), ms(0)), SseStep::Wait(_)), "no second greeting");
    }

    #[test]
    fn closure_ends_with_one_closed_control_event() {
        let closed = Tail { closed: true, ..open(3) };
        let mut sse = reader(0);
        assert_eq!(sse.poll(closed, ms(0)), SseStep::Read(Offset::ZERO));
        let control = sse.sent(Offset::new(3), false, closed, ms(0));
        assert!(control.closed && control.up_to_date && control.cursor.is_none());
        assert_eq!(sse.poll(closed, ms(0)), SseStep::Finish);

        let mut sse = reader(3);
        let SseStep::Control(control) = sse.poll(closed, ms(0)) else { panic!("no control") };
        assert!(control.closed && control.up_to_date);
        assert_eq!(sse.poll(closed, ms(0)), SseStep::Finish);
    }

    #[test]
    fn recycling_and_shutdown_end_with_a_control_event() {
        for stop in [false, true] {
            let mut sse = reader(0);
            sse.poll(open(0), ms(0));
            if stop {
                sse.on_shutdown();
            }
            assert_eq!(sse.is_stopping(), stop);
            let now = if stop { ms(1) } else { ms(60_000) };
            let SseStep::Control(control) = sse.poll(open(5), now) else { panic!("no control") };
            assert!(!control.closed && !control.up_to_date && control.next_offset == Offset::ZERO);
            assert_eq!(sse.poll(open(5), now), SseStep::Finish);
        }
    }

    #[test]
    fn an_unfinished_character_waits_for_its_rest_or_the_end() {
        let mut sse = reader(0);
        sse.poll(open(3), ms(0));
        let control = sse.sent(Offset::new(2), true, open(3), ms(0));
        assert!(control.up_to_date && control.next_offset == Offset::new(2));
        assert!(matches!(sse.poll(open(3), ms(1)), SseStep::Wait(_)));
        assert_eq!(sse.poll(open(4), ms(1)), SseStep::Read(Offset::new(2)));
        let closed = Tail { closed: true, ..open(3) };
        assert_eq!(sse.poll(closed, ms(1)), SseStep::Read(Offset::new(2)));
    }

    #[test]
    fn a_reader_whose_next_bytes_were_trimmed_ends_and_one_behind_the_trim_goes_on() {
        let trimmed = Tail { earliest: Offset::new(2), ..open(3) };
        assert_eq!(reader(1).poll(trimmed, ms(0)), SseStep::Finish);
        assert_eq!(reader(2).poll(trimmed, ms(0)), SseStep::Read(Offset::new(2)));
        let mut at_the_tail = reader(3);
        at_the_tail.poll(open(3), ms(0));
        let all = Tail { earliest: Offset::new(3), ..open(3) };
        assert!(matches!(at_the_tail.poll(all, ms(1)), SseStep::Wait(_)));
    }

    #[test]
    fn a_deleted_stream_ends_the_read() {
        let mut sse = reader(0);
        assert_eq!(sse.poll(Tail { gone: true, ..open(3) }, ms(0)), SseStep::Finish);
    }
}
