//! What a response's head says, typed: the reverse of [`render`](crate::render), for clients.

use std::time::Duration;

use http::{HeaderMap, HeaderName, header};

use crate::{
    ContentType, Cursor, Expiry, IfNoneMatch, Offset, Timestamp,
    headers::{self, InvalidHeader, is_true, text},
};

/// The protocol's headers of a response. What the response does not say is `None` or `false`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseFacts {
    /// `Content-Type`: the stream's; `text/event-stream` over SSE; `application/problem+json` on errors.
    pub content_type: Option<ContentType>,
    /// `Stream-Next-Offset`: where to read next, or the tail after an append.
    pub next_offset: Option<Offset>,
    /// `Stream-Earliest-Offset`: where a trimmed stream can be read from.
    pub earliest: Option<Offset>,
    /// `Stream-Up-To-Date`: the response reaches the tail (§5.6).
    pub up_to_date: bool,
    /// `Stream-Closed`: no byte will follow those of this response (§4.1).
    pub closed: bool,
    /// `Stream-Public`: anyone may read the stream.
    pub public: bool,
    /// `Stream-Cursor`, to be sent with the next live read (§10.1); `None` when it is malformed, too.
    pub cursor: Option<Cursor>,
    /// `ETag`: the quoted text without `W/`, as [`IfNoneMatch::Tags`] takes it.
    pub etag: Option<Box<str>>,
    /// `Stream-TTL` or `Stream-Expires-At`, which `HEAD` returns (§5.5).
    pub expiry: Expiry,
    /// `Location`: the URL of a stream that was created.
    pub location: Option<Box<str>>,
    /// `Stream-SSE-Data-Encoding: base64`: what [`SseDecoder::new`](crate::SseDecoder::new) must know.
    pub sse_base64: bool,
    /// `Producer-Epoch`: the newest epoch that the stream knows of the producer (§5.2.1).
    pub producer_epoch: Option<u64>,
    /// `Producer-Seq`: the producer's last accepted sequence number.
    pub producer_seq: Option<u64>,
    /// `Producer-Expected-Seq`: the sequence number that would have been accepted, after a 409.
    pub expected_seq: Option<u64>,
    /// `Producer-Received-Seq`: the sequence number that was sent, after a 409.
    pub received_seq: Option<u64>,
    /// `Retry-After` in whole seconds; its other form, a date, reads as `None`.
    pub retry_after: Option<Duration>,
}

impl ResponseFacts {
    /// Reads the headers of a response of any status.
    ///
    /// # Errors
    /// [`InvalidHeader`] for the first of the protocol's headers that is repeated or malformed: what decides
    /// where to read next or what was stored is refused, never taken as absent.
    pub fn parse(headers: &HeaderMap) -> Result<Self, InvalidHeader> {
        let value = |name: HeaderName| text(headers, &name);
        let number =
            |name| parsed(headers, name, "must be a whole number", |text| text.parse().ok());
        let content_type = value(header::CONTENT_TYPE)?.and_then(ContentType::parse);
        let ttl = parsed(headers, headers::STREAM_TTL, "must be whole seconds", Expiry::parse_ttl)?;
        let at = |text: &str| Timestamp::parse_rfc3339(text).map(Expiry::At);
        let expires = parsed(headers, headers::STREAM_EXPIRES_AT, "must be an RFC 3339 time", at)?;
        let base64 = |text: &str| (text == "base64").then_some(());
        let encoding =
            parsed(headers, headers::STREAM_SSE_DATA_ENCODING, "must be base64", base64)?;
        let retry_after = value(header::RETRY_AFTER)?.and_then(|text| text.parse().ok());
        Ok(ResponseFacts {
            content_type,
            next_offset: parsed(
                headers,
                headers::STREAM_NEXT_OFFSET,
                "must be an offset of a durable-streams server",
                Offset::parse,
            )?,
            earliest: parsed(
                headers,
                headers::STREAM_EARLIEST_OFFSET,
                "must be an offset of a durable-streams server",
                Offset::parse,
            )?,
            up_to_date: is_true(headers, &headers::STREAM_UP_TO_DATE),
            closed: is_true(headers, &headers::STREAM_CLOSED),
            public: is_true(headers, &headers::STREAM_PUBLIC),
            cursor: value(headers::STREAM_CURSOR)?.and_then(Cursor::parse),
            etag: etag(headers),
            expiry: ttl.or(expires).unwrap_or_default(),
            location: value(header::LOCATION)?.map(Into::into),
            sse_base64: encoding.is_some(),
            producer_epoch: number(headers::PRODUCER_EPOCH)?,
            producer_seq: number(headers::PRODUCER_SEQ)?,
            expected_seq: number(headers::PRODUCER_EXPECTED_SEQ)?,
            received_seq: number(headers::PRODUCER_RECEIVED_SEQ)?,
            retry_after: retry_after.map(Duration::from_secs),
        })
    }
}

/// A header's value in the form that `parse` reads; `None` when absent.
fn parsed<T>(
    headers: &HeaderMap,
    name: HeaderName,
    rule: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>, InvalidHeader> {
    let Some(text) = text(headers, &name)? else { return Ok(None) };
    parse(text).map(Some).ok_or(InvalidHeader { name, rule })
}

fn etag(headers: &HeaderMap) -> Option<Box<str>> {
    match IfNoneMatch::parse(headers.get_all(header::ETAG).iter())? {
        IfNoneMatch::Tags(tags) => tags.into_iter().next(),
        IfNoneMatch::Any => None,
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use http::HeaderValue;
    use proptest::{option, prelude::*};

    use super::*;
    use crate::{
        AppendOutcome, CreateOutcome, ETag, HeadMeta, LiveMode, Outcome, ProducerState, Rejection,
        Response, SliceMeta, StreamId, StreamSeq, render, render_rejection,
    };

    fn facts(response: &Response) -> ResponseFacts {
        ResponseFacts::parse(&response.headers.iter().cloned().collect()).unwrap()
    }

    fn parse(lines: &[(&'static str, &'static str)]) -> Result<ResponseFacts, InvalidHeader> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        ResponseFacts::parse(&headers)
    }

    #[test]
    fn an_empty_head_says_nothing() {
        assert_eq!(parse(&[]), Ok(ResponseFacts::default()));
    }

    #[test]
    fn what_decides_something_is_refused_when_malformed() {
        for (name, bad) in [
            ("stream-next-offset", "7"),
            ("stream-next-offset", ""),
            ("stream-earliest-offset", "7"),
            ("producer-epoch", "x"),
            ("producer-seq", "-1"),
            ("producer-expected-seq", "1.0"),
            ("producer-received-seq", ""),
            ("stream-ttl", "01"),
            ("stream-expires-at", "tomorrow"),
            ("stream-sse-data-encoding", "hex"),
        ] {
            assert_eq!(parse(&[(name, bad)]).unwrap_err().name, name, "{bad}");
        }
        let offset = "0000000000000000_0000000000000007";
        let twice = parse(&[("stream-next-offset", offset), ("stream-next-offset", offset)]);
        assert_eq!(twice.unwrap_err().to_string(), "stream-next-offset must be given once");
    }

    #[test]
    fn what_only_helps_is_absent_when_malformed() {
        let odd = [
            ("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT"),
            ("stream-cursor", "x"),
            ("etag", "x"),
            ("stream-up-to-date", "yes"),
            ("content-type", "x"),
        ];
        assert_eq!(parse(&odd), Ok(ResponseFacts::default()));
        assert_eq!(parse(&[("etag", "*")]), Ok(ResponseFacts::default()));
        let weak = parse(&[("etag", "W/\"a\"")]).unwrap();
        assert_eq!(weak.etag.as_deref(), Some("\"a\""));
    }

    #[test]
    fn refusals_carry_what_a_writer_needs() {
        let tail = Offset::new(9);
        let stale = facts(&render_rejection(&Rejection::StaleEpoch { current: 4, tail }));
        assert_eq!((stale.producer_epoch, stale.next_offset), (Some(4), Some(tail)));
        let gap = Rejection::SequenceGap { expected: 2, received: 5, tail };
        let gap = facts(&render_rejection(&gap));
        let numbers = (gap.expected_seq, gap.received_seq, gap.next_offset);
        assert_eq!(numbers, (Some(2), Some(5), Some(tail)));
        let last = StreamSeq::new("7").unwrap();
        let conflict = facts(&render_rejection(&Rejection::SequenceRegression { last, tail }));
        assert_eq!(conflict.next_offset, Some(tail));
        let closed = facts(&render_rejection(&Rejection::StreamClosed { tail }));
        assert_eq!((closed.closed, closed.next_offset), (true, Some(tail)));
        let busy = facts(&render_rejection(&Rejection::TooManyAppends));
        assert_eq!(busy.retry_after, Some(Duration::from_secs(1)));
        assert_eq!(busy.content_type.unwrap().as_str(), "application/problem+json");
    }

    #[test]
    fn events_say_how_they_are_encoded() {
        for (of, base64) in
            [("image/png", true), ("text/plain", false), ("application/json", false)]
        {
            let head =
                facts(&render(Outcome::Events(&ContentType::parse(of).unwrap(), Offset::ZERO)));
            assert_eq!(head.sse_base64, base64, "{of}");
            assert_eq!(head.content_type.unwrap().as_str(), "text/event-stream");
        }
    }

    fn an_offset() -> impl Strategy<Value = Offset> {
        (0..=Offset::MAX.position()).prop_map(Offset::new)
    }

    proptest! {
        #[test]
        fn a_create_round_trips(created: bool, closed: bool, public: bool, next_offset in an_offset()) {
            let content_type = ContentType::parse("text/plain; charset=utf-8").unwrap();
            let outcome = CreateOutcome {
                created, content_type: content_type.clone(), next_offset, closed, public,
            };
            let response = render(Outcome::Created(&outcome, Cow::Borrowed("http://h/v1/stream/a")));
            prop_assert_eq!(facts(&response), ResponseFacts {
                content_type: Some(content_type),
                next_offset: Some(next_offset),
                closed,
                public,
                location: created.then(|| "http://h/v1/stream/a".into()),
                ..ResponseFacts::default()
            });
        }

        #[test]
        fn an_append_round_trips(
            closed: bool, added: bool, next_offset in an_offset(),
            producer in option::of((any::<u64>(), any::<u64>())),
        ) {
            let state = producer.map(|(epoch, last_seq)| ProducerState { epoch, last_seq });
            let outcome = AppendOutcome { next_offset, closed, producer: state, added };
            prop_assert_eq!(facts(&render(Outcome::Appended(&outcome))), ResponseFacts {
                next_offset: Some(next_offset),
                closed,
                producer_epoch: producer.map(|(epoch, _)| epoch),
                producer_seq: producer.map(|(_, seq)| seq),
                ..ResponseFacts::default()
            });
        }

        #[test]
        fn a_head_round_trips(
            closed: bool, public: bool, tail in an_offset(),
            expiry in prop_oneof![
                Just(Expiry::Never),
                any::<u64>().prop_map(Expiry::Ttl),
                (0..=253_402_300_799_999u64).prop_map(|at| Expiry::At(Timestamp::from_millis(at))),
            ],
        ) {
            let content_type = ContentType::default();
            let earliest = tail;
            let head = HeadMeta { content_type: &content_type, tail, earliest, closed, expiry, public };
            prop_assert_eq!(facts(&render(Outcome::Head(&head))), ResponseFacts {
                content_type: Some(content_type.clone()),
                next_offset: Some(tail),
                earliest: (tail > Offset::ZERO).then_some(tail),
                closed,
                public,
                expiry,
                ..ResponseFacts::default()
            });
        }

        #[test]
        fn a_slice_round_trips(
            start in an_offset(), end in an_offset(), flags: (bool, bool, bool, bool),
            cursor in option::of(0..1u64 << 52), stream: u64,
        ) {
            let (up_to_date, closed, encoded, from_now) = flags;
            let content_type = ContentType::default();
            let cursor = cursor.and_then(|number| Cursor::parse(&number.to_string()));
            let meta = SliceMeta {
                stream: StreamId(stream), content_type: &content_type, live: LiveMode::LongPoll,
                start, end, up_to_date, closed, from_now, from_start: !from_now, earliest: start,
                private: false, encoded, cursor,
            };
            let etag = ETag { stream: StreamId(stream), start, end, closed };
            let text: Box<str> = etag.value(false).to_str().unwrap().into();
            let tag = (!from_now).then_some(text);
            let expected = ResponseFacts {
                content_type: Some(content_type.clone()),
                earliest: (start > Offset::ZERO).then_some(start),
                next_offset: Some(end), up_to_date, closed, cursor, etag: tag.clone(),
                ..ResponseFacts::default()
            };
            prop_assert_eq!(facts(&render(Outcome::Slice(&meta, crate::Body::Empty))), expected.clone());
            let held = ResponseFacts { content_type: None, ..expected.clone() };
            prop_assert_eq!(facts(&render(Outcome::NotModified(&meta))), held.clone());
            let silent = ResponseFacts { etag: None, ..held };
            prop_assert_eq!(facts(&render(Outcome::NoNews(&meta))), silent);
            if let Some(tag) = tag {
                prop_assert!(IfNoneMatch::Tags(vec![tag]).matches(&etag), "sent back, it matches");
            }
        }
    }
}
