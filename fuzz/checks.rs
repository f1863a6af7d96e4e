//! What must hold for any bytes that come from outside: one function per parser or encoder.
//!
//! Taken in by the fuzz targets and, on stable Rust, by tests/fuzz_smoke.

// Each fuzz target uses one of them.
#![allow(dead_code, reason = "shared by targets that need one function each")]

#[path = "globs.rs"]
mod glob_checks;
#[path = "http.rs"]
mod http1;
#[path = "log.rs"]
mod log;

pub use glob_checks::globs;
pub use http1::{chunks, target};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use durable_streams_protocol::{
    Body, ContentType, ControlEvent, Cursor, ETag, Expiry, IfNoneMatch, LiveMode, MAX_PATH_BYTES,
    MESSAGE_END, Offset, Producer, ProducerState, ReadFrom, Request, SseDecoder, SseEncoding,
    SseEvent, StreamEvent, StreamId, StreamPath, StreamState, Timestamp, count_messages,
    encode_control, encode_data, frame_array, render_rejection, store_messages, text_boundary,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::value::RawValue;

/// What must hold for an input; panics when it does not.
pub type Check = fn(&[u8]);

/// Every target by name.
pub const ALL: &[(&str, Check)] = &[
    ("request", request),
    ("path", path),
    ("globs", globs),
    ("target", target),
    ("chunks", chunks),
    ("offset_cursor", offset_cursor),
    ("json_mode", json_mode),
    ("stored", stored),
    ("sse", sse),
    ("sse_decode", sse_decode),
    ("if_none_match", if_none_match),
    ("segment", segment),
    ("recovery", recovery),
];

const ROUTE: &str = "/v1/stream";
const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// A method, a query and headers, one a line.
pub fn request(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let method = lines.next().and_then(|line| Method::from_bytes(line).ok()).unwrap_or(Method::GET);
    let query = lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let mut headers = HeaderMap::new();
    for line in lines.take(64) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) =
            (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
        {
            headers.append(name, value);
        }
    }
    let parsed = Request::parse(&method, query, &headers, ROUTE);
    assert_eq!(parsed, Request::parse(&method, query, &headers, ROUTE), "the same every time");
    if let Ok(request) = &parsed {
        sent_again(request);
    }
    let safe = |producer: &Producer| producer.epoch.max(producer.seq) <= MAX_SAFE_INTEGER;
    match parsed {
        Ok(Request::Create(create)) => {
            assert_eq!(method, Method::PUT);
            let fork_headers = ["stream-fork-offset", "stream-fork-sub-offset"];
            let refined = fork_headers.iter().any(|name| headers.contains_key(*name));
            assert!(create.fork.is_some() || !refined, "a fork's place needs its source");
            if let Some(fork) = create.fork {
                let url = format!("{ROUTE}/{}", fork.source.to_url());
                headers.insert("stream-forked-from", url.parse().unwrap());
                let again = Request::parse(&method, query, &headers, ROUTE);
                let Ok(Request::Create(again)) = again else {
                    panic!("refused its own spelling: {again:?}")
                };
                assert_eq!(again.fork.unwrap().source, fork.source);
            }
        }
        Ok(Request::Append(append)) => assert!(append.producer.as_ref().is_none_or(safe)),
        Ok(Request::Read(read)) => {
            let asked =
                query.unwrap_or("").split('&').any(|pair| pair.split('=').next() == Some("offset"));
            assert!(asked || read.live == LiveMode::CatchUp, "a live read says from where");
        }
        Ok(Request::Head | Request::Delete | Request::Patch(_) | Request::Preflight) => {}
        Err(rejection) => {
            let response = render_rejection(&rejection);
            assert!(response.status.is_client_error(), "{rejection} is the client's mistake");
            let Body::Full(body) = response.body else { panic!("a refusal says why") };
            let problem: serde_json::Value = serde_json::from_slice(&body.concat()).unwrap();
            assert_eq!(problem["status"], response.status.as_u16());
            assert_eq!(problem["code"], rejection.code());
        }
    }
}

/// What was parsed can be sent, and is the same request then.
fn sent_again(request: &Request) {
    let path = StreamPath::new("a").unwrap();
    // Entity tags may have bytes that a header's value cannot end with.
    let Ok(head) = request.to_http(ROUTE, &path) else { return };
    let query = head.target.split_once('?').map(|(_, query)| query);
    let again = Request::parse(&head.method, query, &head.headers, ROUTE);
    let mut expected = request.clone();
    match &mut expected {
        Request::Append(append) => {
            append.content_type = append.content_type.take().filter(Result::is_ok);
        }
        Request::Create(create) => {
            if let Expiry::At(at) = create.expiry {
                create.expiry = Expiry::At(Timestamp::parse_rfc3339(&at.to_string()).unwrap());
            }
        }
        Request::Patch(patch) => {
            if let Some(Expiry::At(at)) = patch.expiry {
                patch.expiry = Timestamp::parse_rfc3339(&at.to_string()).map(Expiry::At);
            }
        }
        Request::Read(_) | Request::Head | Request::Delete | Request::Preflight => {}
    }
    assert_eq!(again, Ok(expected));
}

/// The part of a URL path after the route.
pub fn path(input: &[u8]) {
    let Ok(raw) = std::str::from_utf8(input) else { return };
    let Ok(path) = StreamPath::from_url(raw) else { return };
    let text = path.as_str();
    assert!(!text.is_empty() && text.len() <= MAX_PATH_BYTES);
    assert!(text.split('/').all(|segment| segment != "." && segment != ".."), "{text:?}");
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert_ne!(text.split('/').next(), Some("__ds"));
    let url = path.to_url();
    assert!(
        url.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte)),
        "{url}"
    );
    assert_eq!(StreamPath::from_url(&url), Ok(path.clone()), "{url}");
    assert!(
        format!("/v1/stream/{url}").parse::<http::Uri>().is_ok_and(|uri| uri.query().is_none())
    );
    assert_eq!(StreamPath::new(text), Ok(path), "decoded once");
}

/// An offset, a cursor.
pub fn offset_cursor(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match ReadFrom::parse(text) {
        None => assert_eq!(Offset::parse(text), None),
        Some(ReadFrom::Start) => assert_eq!(text, "-1"),
        Some(ReadFrom::Now) => assert_eq!(text, "now"),
        Some(ReadFrom::At(offset)) => {
            assert_eq!(offset.to_string(), text, "one spelling");
            assert_eq!(&offset.text(), text.as_bytes());
            let next = offset.advance(1);
            assert!(next.to_string().as_str() > text || offset == Offset::MAX);
            assert_eq!(Offset::parse(&next.to_string()), Some(next));
        }
    }
    if let Some(cursor) = Cursor::parse(text) {
        let random = input.iter().fold(7_u64, |sum, byte| sum.wrapping_mul(31) + u64::from(*byte));
        let now = Timestamp::from_millis(random >> 20);
        assert!(Cursor::next(Some(cursor), now, random) > cursor, "always forward");
    }
}

/// A body in JSON mode.
pub fn json_mode(input: &[u8]) {
    let parsed = serde_json::from_slice::<&RawValue>(input);
    let Ok(stored) = store_messages(input) else {
        assert!(parsed.is_err(), "refused what is JSON");
        return;
    };
    assert!(parsed.is_ok(), "stored what is not JSON");
    assert!(stored.is_empty() || stored.last() == Some(&MESSAGE_END));
    let array = frame_array(std::slice::from_ref(&stored));
    let elements: Vec<&RawValue> = serde_json::from_slice(&array).unwrap();
    assert_eq!(elements.len(), count_messages(&stored));
    let messages = stored.split(|byte| *byte == MESSAGE_END);
    for (message, element) in messages.zip(elements) {
        assert_eq!(message, element.get().as_bytes(), "byte for byte");
    }
    assert_eq!(store_messages(&array).unwrap(), stored, "what is read can be written");
    let cut = stored.len() * input.first().map_or(0, |byte| usize::from(*byte)) / 256;
    assert_eq!(frame_array(&[stored.slice(..cut), stored.slice(cut..)]), array, "in any pieces");
}

/// A record of the log, a snapshot, a producer, as they might be found on a disk.
pub fn stored(input: &[u8]) {
    let record = Bytes::copy_from_slice(input);
    if let Ok(event) = StreamEvent::decode(&record) {
        let mut again = Vec::new();
        event.encode_head(&mut again);
        again.extend_from_slice(event.data().map_or(&[], |data| data));
        assert_eq!(again, input, "one spelling of every event");
    }
    if let Ok(state) = StreamState::decode(StreamId(1), input) {
        let mut again = Vec::new();
        state.encode(&mut again);
        // A snapshot of an earlier format is written in the present one.
        if input.first() == again.first() {
            assert_eq!(again, input, "one spelling of every snapshot");
        }
        let read = StreamState::decode(StreamId(1), &again).expect("its own spelling is read");
        let mut twice = Vec::new();
        read.encode(&mut twice);
        assert_eq!(twice, again, "a snapshot is the same after it was read");
    }
    if let Ok(producer) = ProducerState::decode(input) {
        assert_eq!(producer.encode(), input);
    }
}

/// An event as a client reads it.
#[derive(Default)]
struct Event {
    name: String,
    data: Vec<String>,
    id: String,
}

/// Server-sent events as the HTML standard parses them.
fn events(stream: &str) -> Vec<Event> {
    let text = stream.replace("\r\n", "\n").replace('\r', "\n");
    let mut found = Vec::new();
    let mut event = Event::default();
    for line in text.strip_suffix('\n').unwrap_or(&text).split('\n') {
        if line.is_empty() {
            found.push(std::mem::take(&mut event));
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "event" => event.name = value,
            "data" => event.data.push(value),
            "id" => event.id = value,
            other => panic!("an unknown field, {other:?}"),
        }
    }
    assert!(event.name.is_empty() && event.data.is_empty(), "the last event is finished");
    found
}

/// Any bytes of a stream in any pieces, with the control event that follows them.
pub fn sse(input: &[u8]) {
    let (Some(kind), Some(at)) = (input.first(), input.get(1)) else { return };
    let bytes = Bytes::copy_from_slice(&input[2..]);
    let cut = bytes.len() * usize::from(*at) / 256;
    let chunks = [bytes.slice(..cut), bytes.slice(cut..)];
    let content_type = ["text/plain", "application/x-any"][usize::from(*kind) % 2];
    let encoding = SseEncoding::of(&ContentType::parse(content_type).unwrap());
    let offset = Offset::new(bytes.len() as u64);
    let cursor = Cursor::parse(&kind.to_string()).filter(|_| kind % 4 > 1);
    let control = ControlEvent {
        next_offset: offset,
        cursor,
        up_to_date: kind % 8 > 3,
        closed: kind % 16 > 7,
    };
    let mut out = Vec::new();
    encode_data(&mut out, encoding, &chunks);
    encode_control(&mut out, &control);
    let events = events(std::str::from_utf8(&out).expect("events are UTF-8"));
    let [data, said] = events.as_slice() else { panic!("{} events instead of two", events.len()) };
    assert_eq!((data.name.as_str(), said.name.as_str()), ("data", "control"));
    let text = data.data.join("\n");
    if encoding == SseEncoding::Base64 {
        assert_eq!(STANDARD.decode(text).unwrap(), bytes);
    } else {
        let sent = String::from_utf8_lossy(&bytes).replace("\r\n", "\n").replace('\r', "\n");
        assert_eq!(text, sent);
    }
    decoded(&out, encoding, &bytes, usize::from(*at) + 1);
    let end = if control.closed { ":closed" } else { "" };
    assert_eq!(said.id, format!("{offset}{end}"));
    let fields: serde_json::Value = serde_json::from_str(&said.data.join("\n")).unwrap();
    assert_eq!(fields["streamNextOffset"], offset.to_string());
    assert_eq!(fields["streamCursor"].as_str(), cursor.map(|c| c.value().to_string()).as_deref());
    assert_eq!(fields["upToDate"].as_bool().unwrap_or(false), control.up_to_date);
    assert_eq!(fields["streamClosed"].as_bool().unwrap_or(false), control.closed);
    boundary(&bytes, cut);
}

/// The decoder reads the two events that the encoder wrote, in pieces of any size.
fn decoded(body: &[u8], encoding: SseEncoding, stored: &Bytes, piece: usize) {
    let mut decoder = SseDecoder::new(encoding == SseEncoding::Base64, 1 << 20);
    let events = decode(&mut decoder, body, piece).unwrap();
    let [SseEvent::Data(data), SseEvent::Control(_)] = events.as_slice() else {
        panic!("{events:?} instead of data and its control event")
    };
    match encoding {
        SseEncoding::Base64 => assert_eq!(data, stored),
        SseEncoding::Text | SseEncoding::Json => {
            let text = String::from_utf8_lossy(stored).replace("\r\n", "\n").replace('\r', "\n");
            assert_eq!(data, text.as_bytes());
        }
    }
}

fn decode(
    decoder: &mut SseDecoder,
    body: &[u8],
    piece: usize,
) -> Result<Vec<SseEvent>, durable_streams_protocol::SseError> {
    let mut events = Vec::new();
    for mut rest in body.chunks(piece) {
        while let Some(event) = decoder.next_event(&mut rest)? {
            events.push(event);
        }
    }
    Ok(events)
}

/// Any bytes as a body of events: the size of its pieces, then the body.
pub fn sse_decode(input: &[u8]) {
    let Some((piece, body)) = input.split_first() else { return };
    for base64 in [false, true] {
        let read = |piece| decode(&mut SseDecoder::new(base64, 200), body, piece);
        let (whole, cut) = (read(usize::MAX), read(usize::from(*piece) + 1));
        match (whole, cut) {
            (Ok(whole), Ok(cut)) => assert_eq!(whole, cut),
            (Err(_), Ok(_)) => panic!("only the whole body is refused"),
            // A line that arrives in pieces is held, so its field's name counts against the bound, too.
            (_, Err(_)) => {}
        }
    }
}

/// A text cut anywhere can be sent up to its boundary, and the rest later.
fn boundary(bytes: &[u8], cut: usize) {
    assert!(text_boundary(bytes) <= 3.min(bytes.len()));
    let text = String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text_boundary(text.as_bytes()), 0, "a whole text is sent whole");
    let part = &text.as_bytes()[..cut.min(text.len())];
    let kept = part.len() - text_boundary(part);
    assert!(std::str::from_utf8(&part[..kept]).is_ok(), "no character is cut");
}

/// The lines of `If-None-Match`.
pub fn if_none_match(input: &[u8]) {
    let etag =
        ETag { stream: StreamId(31), start: Offset::ZERO, end: Offset::new(12), closed: false };
    let lines: Vec<HeaderValue> = input
        .split(|byte| *byte == b'\n')
        .filter_map(|line| HeaderValue::from_bytes(line).ok())
        .collect();
    let parsed = IfNoneMatch::parse(lines.iter());
    assert_eq!(parsed.is_none(), lines.is_empty());
    let own = etag.value(false);
    let named = |line: &HeaderValue| {
        let tag = own.as_bytes();
        line.as_bytes().windows(tag.len()).any(|part| part == tag)
    };
    let star = |line: &HeaderValue| line.as_bytes().trim_ascii() == b"*";
    let matches = parsed.as_ref().is_some_and(|parsed| parsed.matches(&etag));
    assert!(
        !matches || lines.iter().any(|line| named(line) || star(line)),
        "matches what was not named"
    );
    assert!(matches || !lines.iter().any(star), "a star matches");
    // Whatever other lines say, a line of its own is found.
    for weak in [false, true] {
        let own = etag.value(weak);
        let found = IfNoneMatch::parse(lines.iter().chain([&own]));
        assert!(found.is_some_and(|found| found.matches(&etag)));
    }
}

/// Any bytes where the store expects a segment of its log, or its version.
pub fn segment(input: &[u8]) {
    log::segment(input);
}

/// Damage to a good log.
pub fn recovery(input: &[u8]) {
    log::recovery(input);
}

/// To be called when all checks are done.
pub fn clean_up() {
    log::clean_up();
}
