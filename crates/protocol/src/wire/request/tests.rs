//! What a request parses into, and that every typed request survives the way over HTTP.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use proptest::{option, prelude::*};

use super::*;
use crate::{ProducerId, Rejection, Timestamp, headers};

const ROUTE: &str = "/v1/stream";

fn parse(
    method: &Method,
    query: Option<&str>,
    lines: &[(&'static str, &str)],
) -> Result<Request, Rejection> {
    let lines = lines.iter().map(|(name, value)| {
        (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    });
    let mut headers = HeaderMap::new();
    lines.for_each(|(name, value)| {
        headers.append(name, value);
    });
    Request::parse(method, query, &headers, ROUTE)
}

fn create(lines: &[(&'static str, &str)]) -> Result<Create, Rejection> {
    match parse(&Method::PUT, None, lines)? {
        Request::Create(create) => Ok(create),
        other => panic!("{other:?}"),
    }
}

fn append(lines: &[(&'static str, &str)]) -> Result<Append, Rejection> {
    match parse(&Method::POST, None, lines)? {
        Request::Append(append) => Ok(append),
        other => panic!("{other:?}"),
    }
}

fn read(query: Option<&str>, lines: &[(&'static str, &str)]) -> Result<Read, Rejection> {
    match parse(&Method::GET, query, lines)? {
        Request::Read(read) => Ok(read),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_method_chooses() {
    assert_eq!(parse(&Method::HEAD, None, &[]), Ok(Request::Head));
    assert_eq!(parse(&Method::DELETE, None, &[]), Ok(Request::Delete));
    assert_eq!(parse(&Method::OPTIONS, None, &[]), Ok(Request::Preflight));
    assert_eq!(parse(&Method::TRACE, None, &[]), Err(Rejection::MethodNotAllowed));
}

#[test]
fn a_patch_trims_or_changes_the_expiry() {
    let patch = |lines: &[(&'static str, &str)]| match parse(&Method::PATCH, None, lines) {
        Ok(Request::Patch(patch)) => Ok((patch.trim_before, patch.expiry)),
        Ok(other) => panic!("{other:?}"),
        Err(rejection) => Err(rejection.code()),
    };
    let offset = "0000000000000003_0000000000000007";
    let at = Some(Offset::parse(offset).unwrap());
    assert_eq!(patch(&[("stream-trim-before", offset)]), Ok((at, None)));
    assert_eq!(patch(&[("stream-ttl", "60")]), Ok((None, Some(Expiry::Ttl(60)))));
    assert_eq!(patch(&[("stream-expires-at", "never")]), Ok((None, Some(Expiry::Never))));
    let both = [("stream-trim-before", offset), ("stream-ttl", "1")];
    assert_eq!(patch(&both), Ok((at, Some(Expiry::Ttl(1)))));
    assert_eq!(patch(&[]), Err("empty-patch"));
    for bad in ["-1", "now", "7", ""] {
        assert_eq!(patch(&[("stream-trim-before", bad)]), Err("invalid-header"), "{bad}");
    }
    assert_eq!(patch(&[("stream-ttl", "never")]), Err("invalid-header"));
    let two = [("stream-ttl", "1"), ("stream-expires-at", "never")];
    assert_eq!(patch(&two), Err("two-expiries"));
    assert_eq!(create(&[("stream-expires-at", "never")]).unwrap_err().code(), "invalid-header");
}

#[test]
fn only_identity_is_no_content_encoding() {
    for plain in ["", "identity", "IDENTITY", "Identity"] {
        assert!(create(&[("content-encoding", plain)]).is_ok(), "{plain}");
        assert!(append(&[("content-encoding", plain)]).is_ok(), "{plain}");
    }
    for encoded in ["gzip", "identity, gzip", "identity;q=1"] {
        assert_eq!(create(&[("content-encoding", encoded)]), Err(Rejection::EncodedBody));
        assert_eq!(append(&[("content-encoding", encoded)]), Err(Rejection::EncodedBody));
    }
}

#[test]
fn a_create_says_type_closure_and_one_expiry() {
    let plain = create(&[]).unwrap();
    assert_eq!(plain, Create::default());
    let json = ContentType::parse("application/json");
    assert_eq!(create(&[("content-type", "application/json")]).unwrap().content_type, json);
    assert_eq!(create(&[("content-type", "")]).unwrap().content_type, None);
    assert_eq!(create(&[("content-type", "x")]).unwrap_err().code(), "invalid-content-type");
    let long = format!("text/plain;{}", "a".repeat(256));
    let refused = create(&[("content-type", &long)]).unwrap_err();
    assert_eq!(refused.to_string(), "Content-Type must be at most 256 bytes long");
    for (value, closed) in [("true", true), ("TRUE", true), ("false", false), ("1", false)] {
        assert_eq!(create(&[("stream-closed", value)]).unwrap().closed, closed, "{value}");
    }
    let several = [("stream-closed", "true"), ("stream-closed", "no")];
    assert!(!create(&several).unwrap().closed);

    assert_eq!(create(&[("stream-ttl", "60")]).unwrap().expiry, Expiry::Ttl(60));
    assert_eq!(create(&[("stream-ttl", "060")]).unwrap_err().code(), "invalid-header");
    let end = create(&[("stream-expires-at", "9999-12-31T23:59:59Z")]).unwrap().expiry;
    assert_eq!(end, Expiry::At(Timestamp::from_millis(253_402_300_799_000)));
    for bad in ["2030-01-01T00:00Z", "2030-01-01T00:00:00,5Z", "2030-01-01T00:00:00+02"] {
        assert_eq!(create(&[("stream-expires-at", bad)]).unwrap_err().code(), "invalid-header");
    }
    let both = [("stream-ttl", "60"), ("stream-expires-at", "2030-01-01T00:00:00Z")];
    assert_eq!(create(&both), Err(Rejection::TwoExpiries));
}

#[test]
fn a_fork_names_its_source_by_url_path() {
    let from = ("stream-forked-from", "/v1/stream/a%20b");
    let source = StreamPath::new("a b").unwrap();
    let forked = |lines: &[_]| create(lines).unwrap().fork.unwrap();
    assert_eq!(forked(&[from]), Fork { source: source.clone(), offset: None, sub_offset: 0 });
    let at = "0000000000000000_0000000000000007";
    let placed = forked(&[from, ("stream-fork-offset", at), ("stream-fork-sub-offset", "3")]);
    assert_eq!(placed, Fork { source, offset: Some(Offset::new(7)), sub_offset: 3 });
    assert_eq!(forked(&[from, ("stream-fork-offset", "-1")]).offset, Some(Offset::ZERO));
    for (name, bad) in [
        ("stream-forked-from", "/other/a"),
        ("stream-forked-from", "/v1/streams/a"),
        ("stream-forked-from", "/v1/stream/"),
        ("stream-fork-offset", "now"),
        ("stream-fork-offset", "7"),
        ("stream-fork-sub-offset", "-1"),
        ("stream-fork-sub-offset", "+1"),
        ("stream-fork-sub-offset", "01"),
        ("stream-fork-sub-offset", ""),
        ("stream-fork-sub-offset", "9007199254740992"),
    ] {
        let mut lines = vec![(name, bad)];
        if name != from.0 {
            lines.push(from);
        }
        let refused = create(&lines).unwrap_err();
        assert!(
            matches!(&refused, Rejection::InvalidHeader { name: of, .. } if of == name),
            "{name}: {bad}: {refused}"
        );
    }
    for alone in ["stream-fork-offset", "stream-fork-sub-offset"] {
        assert_eq!(create(&[(alone, "0")]), Err(Rejection::ForkWithoutSource), "{alone}");
    }
}

#[test]
fn an_append_has_all_producer_headers_or_none() {
    let (id, epoch, seq) = (("producer-id", "p"), ("producer-epoch", "2"), ("producer-seq", "0"));
    let parsed = append(&[id, epoch, seq]).unwrap().producer.unwrap();
    assert_eq!((parsed.id.as_str(), parsed.epoch, parsed.seq), ("p", 2, 0));
    for part in [vec![id], vec![epoch], vec![seq], vec![id, epoch], vec![id, seq], vec![epoch, seq]]
    {
        assert_eq!(append(&part), Err(Rejection::PartialProducer), "{part:?}");
    }
    let largest = append(&[id, epoch, ("producer-seq", "9007199254740991")]).unwrap();
    assert_eq!(largest.producer.unwrap().seq, (1 << 53) - 1);
    for bad in ["9007199254740992", "00", "-1", "+1", "1.0", "x", "18446744073709551616"] {
        for name in ["producer-epoch", "producer-seq"] {
            let other = if name == "producer-seq" { epoch } else { seq };
            let refused = append(&[id, other, (name, bad)]).unwrap_err();
            assert_eq!(refused.code(), "invalid-header", "{name}: {bad}");
        }
    }
    let long = "x".repeat(257);
    for bad in ["", &long] {
        assert!(append(&[("producer-id", bad), epoch, seq]).is_err(), "{bad}");
        assert!(append(&[("stream-seq", bad)]).is_err(), "{bad}");
    }
    assert_eq!(append(&[("stream-seq", "5")]).unwrap().stream_seq, StreamSeq::new("5"));
}

#[test]
fn a_malformed_type_of_an_append_is_judged_with_its_body() {
    let malformed = append(&[("content-type", "x")]).unwrap().content_type;
    assert_eq!(malformed, Some(Err(ContentTypeError::Form)));
    let twice = [("content-type", "a/b"), ("content-type", "a/b")];
    assert_eq!(append(&twice).unwrap().content_type, Some(Err(ContentTypeError::Form)));
}

#[test]
fn a_header_that_cannot_be_read_is_refused() {
    let mut headers = HeaderMap::new();
    headers.insert(headers::STREAM_SEQ, HeaderValue::from_bytes(b"\xc3\xa9").unwrap());
    let refused = Request::parse(&Method::POST, None, &headers, ROUTE).unwrap_err();
    assert_eq!(refused.to_string(), "stream-seq must be visible ASCII text");
    let refused = append(&[("stream-seq", "1"), ("stream-seq", "2")]).unwrap_err();
    assert_eq!(refused.to_string(), "stream-seq must be given once");
}

#[test]
fn a_read_says_from_where_and_how() {
    let from = |query| read(query, &[]).map(|read| (read.from, read.live));
    let seven = "0000000000000000_0000000000000007";
    assert_eq!(from(None), Ok((ReadFrom::Start, LiveMode::CatchUp)));
    assert_eq!(from(Some("offset=now")), Ok((ReadFrom::Now, LiveMode::CatchUp)));
    let at = ReadFrom::At(Offset::new(7));
    let sse = format!("live=sse&offset={seven}&other=1");
    assert_eq!(from(Some(&sse)), Ok((at, LiveMode::Sse)));
    assert_eq!(from(Some("offset=%2d1&live=long-poll")), Ok((ReadFrom::Start, LiveMode::LongPoll)));
    for (bad, what) in [
        ("offset=", "offset must be"),
        ("offset", "offset must be"),
        ("offset=7", "offset must be"),
        ("offset=-1&offset=-1", "offset must be given once"),
        ("offset=%ff", "offset must be UTF-8"),
        ("offset=-1&live=yes", "live must be"),
        ("live=sse", "offset is required"),
    ] {
        let refused = read(Some(bad), &[]).unwrap_err().to_string();
        assert!(refused.contains(what), "{bad}: {refused}");
    }
    let cursor = |query| read(Some(query), &[]).unwrap().cursor;
    assert_eq!(cursor("cursor=5"), Cursor::parse("5"));
    assert_eq!(cursor("cursor=x"), None);
    assert_eq!(cursor("cursors=5"), None);
}

#[test]
fn only_an_event_source_resumes_by_header() {
    let id = [("last-event-id", "0000000000000000_0000000000000007")];
    let from = |query, lines| read(Some(query), lines).unwrap().from;
    assert_eq!(from("offset=-1&live=sse", &id[..]), ReadFrom::At(Offset::new(7)));
    assert_eq!(from("offset=-1&live=long-poll", &id[..]), ReadFrom::Start);
    assert_eq!(from("offset=-1&live=sse", &[("last-event-id", "7")][..]), ReadFrom::Start);
    let closed = [("last-event-id", "0000000000000000_0000000000000007:closed")];
    assert_eq!(from("offset=-1&live=sse", &closed[..]), ReadFrom::At(Offset::new(7)));
    for (query, lines, ended) in [
        ("offset=-1&live=sse", &closed, true),
        ("offset=-1&live=sse", &id, false),
        ("offset=-1&live=long-poll", &closed, false),
    ] {
        assert_eq!(read(Some(query), &lines[..]).unwrap().ended, ended, "{query} {lines:?}");
    }
}

#[test]
fn what_a_header_cannot_carry_is_refused() {
    let path = StreamPath::new("a").unwrap();
    for bad in ["é", " a", "a ", "a\tb", "a\nb"] {
        let seq = Append { stream_seq: StreamSeq::new(bad), ..Append::default() };
        let refused = Request::Append(seq).to_http(ROUTE, &path).unwrap_err();
        assert_eq!(refused, UnsendableHeader { name: headers::STREAM_SEQ }, "{bad:?}");
    }
}

#[test]
fn a_request_looks_as_the_protocol_writes_it() {
    let path = StreamPath::new("a b").unwrap();
    let read = Request::Read(Read {
        from: ReadFrom::At(Offset::new(7)),
        live: LiveMode::LongPoll,
        cursor: Cursor::parse("9"),
        if_none_match: Some(IfNoneMatch::Tags(vec!["\"x\"".into(), "\"y\"".into()])),
        ended: false,
    });
    let head = read.to_http(ROUTE, &path).unwrap();
    assert_eq!(head.method, Method::GET);
    let target =
        "/v1/stream/a%20b?offset=0000000000000000_0000000000000007&live=long-poll&cursor=9";
    assert_eq!(head.target, target);
    assert_eq!(head.headers[header::IF_NONE_MATCH], "\"x\", \"y\"");
    for (request, method) in [
        (Request::Head, Method::HEAD),
        (Request::Delete, Method::DELETE),
        (Request::Preflight, Method::OPTIONS),
    ] {
        let head = request.to_http(ROUTE, &path).unwrap();
        assert_eq!((head.method, head.target.as_str()), (method, "/v1/stream/a%20b"));
        assert!(head.headers.is_empty());
    }
}

fn a_path() -> impl Strategy<Value = StreamPath> {
    "[a-z%? é/]{1,12}".prop_filter_map("a path", |text| StreamPath::new(&text).ok())
}

fn an_offset() -> impl Strategy<Value = Offset> {
    (0..=Offset::MAX.position()).prop_map(Offset::new)
}

fn a_type() -> impl Strategy<Value = ContentType> {
    "[a-z]{1,8}/[a-z+]{1,8}(; a=[ -~]{0,8}[a-z])?"
        .prop_map(|text| ContentType::parse(&text).unwrap())
}

fn an_expiry() -> impl Strategy<Value = Expiry> {
    prop_oneof![
        Just(Expiry::Never),
        any::<u64>().prop_map(Expiry::Ttl),
        (0..=253_402_300_799_999u64).prop_map(|millis| Expiry::At(Timestamp::from_millis(millis))),
    ]
}

fn a_patch() -> impl Strategy<Value = StreamPatch> {
    (option::of(an_offset()), option::of(an_expiry()))
        .prop_map(|(trim_before, expiry)| StreamPatch { trim_before, expiry })
        .prop_filter("it changes something", |patch| *patch != StreamPatch::default())
}

fn a_create() -> impl Strategy<Value = Create> {
    let fork = (a_path(), option::of(an_offset()), 0..1u64 << 53)
        .prop_map(|(source, offset, sub_offset)| Fork { source, offset, sub_offset });
    (option::of(a_type()), an_expiry(), any::<bool>(), option::of(fork), any::<bool>()).prop_map(
        |(content_type, expiry, closed, fork, public)| Create {
            content_type,
            expiry,
            closed,
            fork,
            public,
        },
    )
}

fn an_append() -> impl Strategy<Value = Append> {
    let text = "[!-~]([ -~]{0,30}[!-~])?";
    let producer = (text, 0..1u64 << 53, 0..1u64 << 53).prop_map(|(id, epoch, seq)| Producer {
        id: ProducerId::new(&id).unwrap(),
        epoch,
        seq,
    });
    (option::of(a_type()), option::of(text), option::of(producer), any::<bool>()).prop_map(
        |(content_type, seq, producer, close)| Append {
            content_type: content_type.map(Ok),
            stream_seq: seq.and_then(|seq| StreamSeq::new(&seq)),
            producer,
            close,
        },
    )
}

fn a_read() -> impl Strategy<Value = Read> {
    let from =
        prop_oneof![Just(ReadFrom::Start), Just(ReadFrom::Now), an_offset().prop_map(ReadFrom::At)];
    let live = prop_oneof![Just(LiveMode::CatchUp), Just(LiveMode::LongPoll), Just(LiveMode::Sse)];
    let cursor = (0..1u64 << 52).prop_map(|number| Cursor::parse(&number.to_string()).unwrap());
    let tag = "\"[!#-~]{0,12}\"".prop_map(Into::into);
    let tags = prop_oneof![
        Just(IfNoneMatch::Any),
        proptest::collection::vec(tag, 0..4).prop_map(IfNoneMatch::Tags),
    ];
    (from, live, option::of(cursor), option::of(tags), any::<bool>()).prop_map(
        |(from, live, cursor, if_none_match, ended)| {
            let ended = ended && live == LiveMode::Sse && matches!(from, ReadFrom::At(_));
            Read { from, live, cursor, if_none_match, ended }
        },
    )
}

fn a_request() -> impl Strategy<Value = Request> {
    prop_oneof![
        a_create().prop_map(Request::Create),
        an_append().prop_map(Request::Append),
        a_read().prop_map(Request::Read),
        Just(Request::Head),
        Just(Request::Delete),
        a_patch().prop_map(Request::Patch),
        Just(Request::Preflight),
    ]
}

proptest! {
    #[test]
    fn a_request_survives_the_way_over_http(request in a_request(), path in a_path()) {
        let head = request.to_http(ROUTE, &path).unwrap();
        let uri: http::Uri = head.target.parse().unwrap();
        let rest = uri.path().strip_prefix("/v1/stream/").unwrap();
        prop_assert_eq!(StreamPath::from_url(rest), Ok(path));
        prop_assert_eq!(Request::parse(&head.method, uri.query(), &head.headers, ROUTE), Ok(request));
    }
}
