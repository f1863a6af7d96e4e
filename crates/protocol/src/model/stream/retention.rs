//! Trimming: which bytes a stream keeps, and when its tail was where.
//!
//! A trim is logical first: readers find nothing before [`StreamState::earliest`]. Bytes go once no fork needs them: from
//! [`StreamState::kept`] on a stream has all of its own. A fork never needs bytes from before its source's earliest
//! position, since it inherits that.

use super::{Decision, StreamState};
use crate::{Offset, Rejection, StreamEvent, Timestamp, Trimmed};

/// Where a stream's tail was at a time. Retention by age goes by these marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeMark {
    /// The time. It never goes back from one mark to the next.
    pub at: Timestamp,
    /// The tail then.
    pub position: Offset,
    /// The stream's own messages before that, if they were counted.
    pub messages: Option<u64>,
}

/// The most marks of a stream. More are thinned out.
pub(super) const MARKS: usize = 32;

impl StreamState {
    /// The position from which the stream has its own bytes, all of them.
    pub fn first_kept(&self) -> Offset {
        self.kept.max(self.core.own_start())
    }

    /// The bytes that the stream keeps of its own.
    pub fn own_len(&self) -> u64 {
        self.tail.position().saturating_sub(self.first_kept().position())
    }

    /// Whether the stream keeps bytes that only its forks needed.
    pub fn keeps_trimmed_bytes(&self) -> bool {
        self.earliest > self.first_kept()
    }

    /// Judges a trim of everything before `before`, which is where a message or an append begins. `messages` is the number
    /// of the stream's own messages before it, if the caller knows. While there are forks, they may need all bytes that
    /// the stream has now. A trim that was done before changes nothing; the outcome is the earliest position.
    ///
    /// # Errors
    /// [`Rejection::OffsetBeyondTail`].
    pub fn trim(
        &self,
        before: Offset,
        messages: Option<u64>,
        has_forks: bool,
        now: Timestamp,
    ) -> Result<Decision<Offset>, Rejection> {
        if before > self.tail {
            return Err(Rejection::OffsetBeyondTail { tail: self.tail });
        }
        let releases = !has_forks && self.keeps_trimmed_bytes();
        if before <= self.earliest && !releases {
            return Ok(Decision::Reply(self.earliest));
        }
        let known = if before > self.earliest { messages } else { self.messages_before };
        let before = self.core.offset_at(before.max(self.earliest).position());
        let kept = if has_forks { self.kept } else { before };
        let messages = known.or_else(|| self.messages_at(before));
        Ok(Decision::Commit(
            StreamEvent::Trimmed(Trimmed { at: now, before, kept, messages }),
            before,
        ))
    }

    /// The stream's own messages before a position, where it happens to be known.
    fn messages_at(&self, position: Offset) -> Option<u64> {
        if position <= self.core.own_start() {
            return Some(0);
        }
        if position == self.tail {
            return self.messages;
        }
        let mark = self.marks.iter().find(|mark| mark.position == position);
        mark.and_then(|mark| mark.messages)
    }

    /// The newest mark that is not younger than `time`.
    pub fn mark_until(&self, time: Timestamp) -> Option<&TimeMark> {
        self.marks.iter().rev().find(|mark| mark.at <= time)
    }

    /// The newest mark with at least `messages` behind it.
    pub fn mark_before_last(&self, messages: u64) -> Option<&TimeMark> {
        let bound = self.messages?.checked_sub(messages)?;
        self.marks.iter().rev().find(|mark| mark.messages.is_some_and(|before| before <= bound))
    }

    pub(super) fn apply_trim(&mut self, trimmed: &Trimmed) {
        let before = trimmed.before.min(self.tail);
        if before >= self.earliest {
            self.messages_before = trimmed.messages;
        }
        self.earliest = self.core.offset_at(before.max(self.earliest).position());
        self.kept = trimmed.kept.max(self.kept).min(self.earliest);
        self.marks.retain(|mark| mark.position >= before);
    }

    pub(super) fn apply_mark(&mut self, at: Timestamp) {
        let at = self.marks.last().map_or(at, |last| last.at.max(at));
        self.marks.push(TimeMark { at, position: self.tail, messages: self.messages });
        if self.marks.len() > MARKS
            && let Some(least) = least_useful(&self.marks)
        {
            self.marks.remove(least);
        }
    }
}

/// The mark without which the largest gap between its neighbours is the smallest, in time and bytes. The first and the last
/// stay.
fn least_useful(marks: &[TimeMark]) -> Option<usize> {
    let (first, last) = marks.first().zip(marks.last())?;
    let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    let span = |from: &TimeMark, to: &TimeMark| {
        let time = to.at.millis().saturating_sub(from.at.millis());
        (time, to.position.position().saturating_sub(from.position.position()))
    };
    let (age, bytes) = span(first, last);
    let gap = |window: &[TimeMark]| {
        let (time, length) = window.first().zip(window.last()).map_or((0, 0), |(a, b)| span(a, b));
        share(time, age).max(share(length, bytes))
    };
    let gaps = marks.windows(3).map(gap).enumerate();
    gaps.min_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(before, _)| before + 1)
}

#[cfg(test)]
mod tests;
