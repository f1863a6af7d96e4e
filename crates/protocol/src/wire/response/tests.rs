//! Statuses, caching and the headers that only one kind of response has.

use super::*;
use crate::{ProducerState, ResponseFacts};

fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    let mut found = response.headers.iter().filter(|(of, _)| of == name);
    let value = found.next().map(|(_, value)| value.to_str().unwrap());
    assert!(found.next().is_none(), "{name} is given once");
    value
}

fn slice(start: u64, end: u64) -> SliceMeta<'static> {
    static TEXT: std::sync::LazyLock<ContentType> = std::sync::LazyLock::new(ContentType::default);
    SliceMeta {
        stream: StreamId(1),
        content_type: &TEXT,
        live: LiveMode::CatchUp,
        start: Offset::new(start),
        end: Offset::new(end),
        up_to_date: true,
        closed: false,
        from_now: false,
        from_start: start == 0,
        earliest: Offset::ZERO,
        private: false,
        encoded: false,
        cursor: None,
    }
}

#[test]
fn every_response_is_safe_to_embed() {
    for response in [render(Outcome::Deleted), render_rejection(&Rejection::NotFound)] {
        assert_eq!(header(&response, "x-content-type-options"), Some("nosniff"));
        assert_eq!(header(&response, "cross-origin-resource-policy"), Some("cross-origin"));
    }
}

#[test]
fn what_a_browser_shows_runs_no_script() {
    for response in [
        render(Outcome::Slice(&slice(0, 1), Body::Empty)),
        render(Outcome::Events(&ContentType::default(), Offset::ZERO)),
        render_rejection(&Rejection::NotFound),
    ] {
        let policy = header(&response, "content-security-policy");
        assert_eq!(policy, Some("sandbox; default-src 'none'"));
    }
    assert_eq!(header(&render(Outcome::Deleted), "content-security-policy"), None);
}

#[test]
fn documents_are_saved_instead_of_shown() {
    for (content_type, disposition) in
        [("text/html; charset=utf-8", Some("attachment")), ("text/plain", None)]
    {
        let content_type = &ContentType::parse(content_type).unwrap();
        let meta = SliceMeta { content_type, ..slice(0, 1) };
        let slice = render(Outcome::Slice(&meta, Body::Empty));
        assert_eq!(header(&slice, "content-disposition"), disposition);
        let (tail, earliest, expiry) = (Offset::ZERO, Offset::ZERO, Expiry::Never);
        let head = HeadMeta { content_type, tail, earliest, closed: false, expiry, public: false };
        assert_eq!(header(&render(Outcome::Head(&head)), "content-disposition"), disposition);
        // Events have a type of their own.
        let events = render(Outcome::Events(content_type, Offset::ZERO));
        assert_eq!(header(&events, "content-disposition"), None);
    }
}

#[test]
fn only_some_statuses_have_a_body() {
    assert!(!render(Outcome::Deleted).may_have_body());
    assert!(!render(Outcome::NotModified(&slice(0, 1))).may_have_body());
    assert!(render(Outcome::Slice(&slice(0, 1), Body::Empty)).may_have_body());
    assert!(render_rejection(&Rejection::NotFound).may_have_body());
}

#[test]
fn a_refused_method_comes_with_those_that_are_allowed() {
    for (rejection, allowed) in [
        (Rejection::MethodNotAllowed, "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
        (Rejection::ReadOnly, "GET, HEAD, OPTIONS"),
    ] {
        assert_eq!(header(&render_rejection(&rejection), "allow"), Some(allowed), "{rejection}");
    }
}

#[test]
fn an_append_is_200_only_when_a_producer_added_bytes() {
    let known = Some(ProducerState { epoch: 1, last_seq: 2 });
    for (producer, added, status) in
        [(known, true, 200), (known, false, 204), (None, true, 204), (None, false, 204)]
    {
        let next_offset = Offset::new(5);
        let outcome = AppendOutcome { next_offset, closed: false, producer, added };
        assert_eq!(render(Outcome::Appended(&outcome)).status, status, "{producer:?} {added}");
    }
}

#[test]
fn caches_keep_what_cannot_change_and_ask_for_the_rest() {
    let cache = |meta: &SliceMeta<'_>| {
        let public =
            header(&render(Outcome::Slice(meta, Body::Empty)), "cache-control").unwrap().to_owned();
        let meta = SliceMeta { private: true, ..meta.clone() };
        let held = render(Outcome::NotModified(&meta));
        (public, header(&held, "cache-control").unwrap().to_owned())
    };
    let both = |public: &str, private: &str| (public.to_owned(), private.to_owned());
    let minute = "max-age=60, stale-while-revalidate=300";
    let keep = both(&format!("public, {minute}"), &format!("private, {minute}"));
    let ask = both("no-cache", "private, no-cache");
    let nothing = both("no-store", "no-store");
    let page = SliceMeta { up_to_date: false, ..slice(3, 7) };
    let poll = SliceMeta { live: LiveMode::LongPoll, cursor: Cursor::parse("1"), ..slice(3, 7) };
    for (meta, expected, why) in [
        (page.clone(), &keep, "a page before the tail never changes"),
        (slice(3, 7), &ask, "an append changes what the URL returns"),
        (SliceMeta { closed: true, ..slice(3, 7) }, &keep, "nothing will follow"),
        (slice(0, 7), &ask, "the URL is that of any stream at the path"),
        (SliceMeta { start: Offset::ZERO, ..page.clone() }, &ask, "the same before the tail"),
        (SliceMeta { closed: true, ..slice(0, 7) }, &ask, "and after a closure"),
        (poll.clone(), &keep, "each offset and cursor is asked for once"),
        (SliceMeta { start: Offset::ZERO, ..poll.clone() }, &ask, "whose offset names no stream"),
        (SliceMeta { from_start: true, ..page }, &ask, "a trim moves the beginning"),
        (SliceMeta { from_start: true, ..poll.clone() }, &ask, "also of a long-poll"),
        (SliceMeta { from_now: true, ..poll }, &nothing, "now is another place each time"),
        (slice(7, 7), &nothing, "it would hide what comes next"),
        (SliceMeta { closed: true, ..slice(7, 7) }, &nothing, "or that there is another stream"),
    ] {
        assert_eq!(&cache(&meta), expected, "{why}");
    }
    let weak = render(Outcome::Slice(&SliceMeta { encoded: true, ..slice(0, 1) }, Body::Empty));
    assert_eq!(header(&weak, "etag"), Some("W/\"1:0:1\""));
}

#[test]
fn a_trimmed_stream_says_where_it_begins_and_no_other_does() {
    let earliest = Offset::new(4).in_incarnation(7);
    let content_type = &ContentType::default();
    let head = HeadMeta {
        content_type,
        tail: Offset::new(9),
        earliest,
        closed: false,
        expiry: Expiry::Never,
        public: false,
    };
    let meta = SliceMeta { earliest, ..slice(4, 9) };
    let said = Some("0000000000000007_0000000000000004");
    for response in [
        render(Outcome::Head(&head)),
        render(Outcome::Slice(&meta, Body::Empty)),
        render(Outcome::NotModified(&meta)),
        render(Outcome::NoNews(&meta)),
        render(Outcome::Events(content_type, earliest)),
        render(Outcome::Patched(earliest)),
        render_rejection(&Rejection::OffsetTrimmed { earliest }),
    ] {
        assert_eq!(header(&response, "stream-earliest-offset"), said, "{response:?}");
    }
    let head = HeadMeta { earliest: Offset::ZERO, ..head };
    for response in [
        render(Outcome::Head(&head)),
        render(Outcome::Slice(&slice(0, 9), Body::Empty)),
        render(Outcome::Events(content_type, Offset::ZERO)),
        render(Outcome::Patched(Offset::ZERO)),
    ] {
        assert_eq!(header(&response, "stream-earliest-offset"), None, "{response:?}");
    }
    let gone = render_rejection(&Rejection::OffsetTrimmed { earliest });
    assert_eq!((gone.status.as_u16(), header(&gone, "cache-control")), (410, Some("no-store")));
}

#[test]
fn a_refusal_carries_its_headers_and_a_problem() {
    let response = render_rejection(&Rejection::MethodNotAllowed);
    assert_eq!(header(&response, "allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    assert_eq!(header(&response, "cache-control"), Some("no-store"));
    let mismatch = |closed_at| Rejection::ConfigMismatch { field: "Content-Type", closed_at };
    let closed = render_rejection(&mismatch(Some(Offset::new(3))));
    let facts = ResponseFacts::parse(&closed.headers.iter().cloned().collect()).unwrap();
    assert_eq!((facts.closed, facts.next_offset), (true, Some(Offset::new(3))));
    let open = render_rejection(&mismatch(None));
    assert_eq!((header(&open, "stream-closed"), header(&open, "stream-next-offset")), (None, None));
    let Body::Full(body) = closed.body else { panic!("a refusal says why") };
    let problem = ProblemDetails::parse(&body.concat()).unwrap();
    assert_eq!((problem.status, &*problem.code), (409, "config-mismatch"));
    assert_eq!(problem.detail, "the stream exists with a different Content-Type");
}

#[test]
fn a_refusal_says_when_to_try_again() {
    let after = |rejection: Rejection| rejection.retry_after().map(|after| after.as_secs());
    assert_eq!(after(Rejection::TooManyReaders { limit: 1 }), Some(1));
    assert_eq!(after(Rejection::ShuttingDown), Some(1));
    assert_eq!(after(Rejection::StorageFull), Some(30));
    let cold = Rejection::ObjectStoreUnavailable { retry_after: Duration::from_secs(7) };
    assert_eq!((cold.status().as_u16(), after(cold)), (503, Some(7)));
    assert_eq!(after(Rejection::NotFound), None);
}

#[test]
fn an_event_response_is_not_buffered_on_its_way() {
    let response = render(Outcome::Events(&ContentType::default(), Offset::ZERO));
    assert_eq!(header(&response, "x-accel-buffering"), Some("no"));
    assert_eq!(header(&response, "cache-control"), Some("no-cache"));
    assert_eq!(response.body, Body::Live);
}
