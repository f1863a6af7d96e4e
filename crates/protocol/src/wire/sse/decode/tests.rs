//! The decoder against hand-written streams, and against the encoder in pieces of any size.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    LastEventId, SseEncoding, encode_control, encode_data, frame_array, keep_alive, store_messages,
};

const LIMIT: usize = 1 << 20;

/// Every event of a body that arrives in pieces of `piece` bytes.
fn decode(decoder: &mut SseDecoder, body: &[u8], piece: usize) -> Result<Vec<SseEvent>, SseError> {
    let mut events = Vec::new();
    for mut rest in body.chunks(piece) {
        while let Some(event) = decoder.next_event(&mut rest)? {
            events.push(event);
        }
        assert!(rest.is_empty(), "all of a piece is taken");
    }
    Ok(events)
}

fn texts(body: &str) -> Vec<String> {
    let mut found = Vec::new();
    for piece in [1, 2, 3, body.len().max(1)] {
        let mut decoder = SseDecoder::new(false, LIMIT);
        let events = decode(&mut decoder, body.as_bytes(), piece).unwrap();
        let texts: Vec<String> = events.into_iter().map(text).collect();
        assert!(found.is_empty() || found == [texts.clone()], "in pieces of {piece}");
        found = vec![texts];
    }
    found.pop().unwrap()
}

fn text(event: SseEvent) -> String {
    match event {
        SseEvent::Data(data) => String::from_utf8(data.to_vec()).unwrap(),
        SseEvent::Control(control) => panic!("{control:?}"),
    }
}

#[test]
fn lines_end_with_any_line_end() {
    assert_eq!(texts("event: data\ndata:a\ndata:b\n\n"), ["a\nb"]);
    assert_eq!(texts("event: data\r\ndata:a\r\ndata:b\r\n\r\n"), ["a\nb"]);
    assert_eq!(texts("event: data\rdata:a\rdata:b\r\r"), ["a\nb"]);
    assert_eq!(texts("event: data\r\ndata:a\r\n\r\nevent: data\ndata:b\n\n"), ["a", "b"]);
    assert_eq!(texts("event: data\rdata:a\r\revent: data\rdata:b\r\r\n"), ["a", "b"]);
}

#[test]
fn fields_are_read_as_the_html_standard_says() {
    assert_eq!(texts("\u{feff}event: data\ndata:a\n\n"), ["a"], "a byte order mark");
    assert_eq!(texts("event: data\ndata:\u{feff}\n\n"), ["\u{feff}"], "only at the beginning");
    assert_eq!(texts("event:data\ndata: a\n\n"), ["a"], "one space after the colon goes");
    assert_eq!(texts("event: data\ndata:  a\n\n"), [" a"], "and only one");
    assert_eq!(texts("event: data\ndata\n\n"), [""], "no colon, no value");
    assert_eq!(texts("event: data\ndata:\ndata:\n\n"), ["\n"]);
    assert_eq!(texts(": note\nevent: data\n:\nretry: 5\nother: x\ndata:a\n\n"), ["a"]);
    assert_eq!(texts("data:a\nevent: data\n\n"), ["a"], "in any order");
    assert_eq!(texts("event: control\nevent: data\ndata:a\n\n"), ["a"], "the last name counts");
}

#[test]
fn what_is_no_event_of_the_protocol_is_skipped() {
    assert!(texts("data:a\n\n").is_empty(), "no name");
    assert!(texts("event: other\ndata:a\n\n").is_empty());
    assert!(texts("event: data\n\n").is_empty(), "no data");
    assert!(texts("event: data\ndata:a\n").is_empty(), "not finished");
    assert_eq!(
        texts("event: data\n\ndata:a\n\nevent: data\ndata:b\n\n"),
        ["b"],
        "no name is left over"
    );
    assert_eq!(texts(":\n\n:\n\nevent: data\ndata:b\n\n"), ["b"], "keep-alives");
}

#[test]
fn an_id_counts_when_its_event_is_whole() {
    let mut decoder = SseDecoder::new(false, LIMIT);
    let mut id_after = |body: &str| {
        decode(&mut decoder, body.as_bytes(), 2).unwrap();
        decoder.last_event_id().map(str::to_owned)
    };
    assert_eq!(id_after("id: 1\n"), None);
    assert_eq!(id_after("\n"), Some("1".to_owned()));
    assert_eq!(id_after("event: data\ndata: x\n\n"), Some("1".to_owned()));
    assert_eq!(id_after("id: a\0b\n\n"), Some("1".to_owned()), "a null character voids it");
    assert_eq!(id_after("id: 2\nid\n\n"), Some(String::new()));
}

#[test]
fn offsets_and_cursors_of_other_servers_are_opaque() {
    let body = b"event: control\ndata:{\"streamNextOffset\":\"7-a\",\"streamCursor\":\"abc\"}\n\n";
    let events = decode(&mut SseDecoder::new(false, LIMIT), body, 5).unwrap();
    let [SseEvent::Control(control)] = &events[..] else { panic!("{events:?}") };
    assert_eq!((&*control.next_offset, control.cursor.as_deref()), ("7-a", Some("abc")));
    assert_eq!(control.parse(), None);
}

#[test]
fn a_control_event_is_its_json() {
    let control = |json: &str| {
        let body = format!("event: control\ndata:{json}\n\n");
        decode(&mut SseDecoder::new(true, LIMIT), body.as_bytes(), 7).map(|mut events| {
            let Some(SseEvent::Control(control)) = events.pop() else { panic!("no control event") };
            control.parse().unwrap()
        })
    };
    let at = r#""streamNextOffset":"0000000000000000_0000000000000007""#;
    let plain = ControlEvent {
        next_offset: Offset::new(7),
        cursor: None,
        up_to_date: false,
        closed: false,
    };
    assert_eq!(control(&format!("{{{at}}}")).unwrap(), plain);
    let cursor = Cursor::parse("5");
    assert_eq!(
        control(&format!(r#"{{{at},"streamCursor":"5","other":[1],"upToDate":true}}"#)).unwrap(),
        ControlEvent { cursor, up_to_date: true, ..plain }
    );
    assert_eq!(
        control(&format!(r#"{{{at},"streamClosed":true}}"#)).unwrap(),
        ControlEvent { up_to_date: true, closed: true, ..plain },
        "the end of a closed stream is its tail"
    );
    for bad in ["", "{}", "[]", r#"{"streamNextOffset":""}"#, r#"{"streamNextOffset":7}"#, "{"] {
        assert!(matches!(control(bad), Err(SseError::InvalidControl { .. })), "{bad}");
    }
}

#[test]
fn base64_may_be_broken_into_lines() {
    let body = b"event: data\ndata:YW\ndata:Jj\n\n";
    let events = decode(&mut SseDecoder::new(true, LIMIT), body, 4).unwrap();
    assert_eq!(events, [SseEvent::Data(Bytes::from_static(b"abc"))]);
    for bad in ["Y", "YWJj!", "YWJ"] {
        let body = format!("event: data\ndata:{bad}\n\n");
        let refused = decode(&mut SseDecoder::new(true, LIMIT), body.as_bytes(), 4);
        assert!(matches!(refused, Err(SseError::InvalidBase64(_))), "{bad}");
    }
}

#[test]
fn one_event_is_bounded_in_every_part() {
    let fits =
        |body: &str, piece| decode(&mut SseDecoder::new(false, 20), body.as_bytes(), piece).is_ok();
    for piece in [1, 7, 1000] {
        assert!(fits(&format!("event: data\ndata:{}\n\n", "x".repeat(10)), piece));
        assert!(!fits(&format!("event: data\ndata:{}\n\n", "x".repeat(20)), piece), "{piece}");
        assert!(!fits(&format!("event: data\n{}\n", "data:x\n".repeat(11)), piece), "many lines");
        assert!(!fits(&format!("id:{}\n", "x".repeat(21)), piece), "an id");
        let many = "event: data\ndata:xxxx\n\n".repeat(50);
        assert!(fits(&many, piece), "one event at a time, {piece}");
    }
    assert!(!fits(&"x".repeat(21), 1), "an unfinished line");
    assert!(fits(&"x".repeat(20), 1));
    assert!(
        fits(&format!("event: data\n{}\n", "data:x\n".repeat(10)), 1000),
        "20 bytes with line ends"
    );
    let with_id =
        |data: usize| format!("event: data\nid:{}\ndata:{}\n\n", "i".repeat(8), "d".repeat(data));
    assert!(fits(&with_id(11), 1000));
    assert!(!fits(&with_id(12), 1000), "the id counts, too");
}

#[test]
fn the_memory_of_a_line_is_used_again_unless_the_line_was_large() {
    let mut decoder = SseDecoder::new(false, LIMIT);
    for (length, kept) in [(1_000, true), (60_000, true), (300_000, false), (1_000, true)] {
        let body = format!("event: data\ndata:{}\n\n", "x".repeat(length));
        decode(&mut decoder, body.as_bytes(), 700).unwrap();
        assert_eq!(decoder.line.capacity() >= length, kept, "{length}");
        assert!(decoder.line.capacity() <= 128 << 10);
    }
}

#[test]
fn the_body_may_end_between_events_only() {
    let mut decoder = SseDecoder::new(false, LIMIT);
    let mut after = |body: &str| {
        decode(&mut decoder, body.as_bytes(), 100).unwrap();
        decoder.is_between_events()
    };
    assert!(after(""));
    assert!(!after("event: d"));
    assert!(!after("ata\n"));
    assert!(!after("data:x\n"));
    assert!(after("\n"));
    assert!(after(":\n\n"));
    assert!(!after("data:x\n"), "data without a name");
}

fn a_control() -> impl Strategy<Value = ControlEvent> {
    let cursor =
        proptest::option::of((0..1u64 << 52).prop_map(|n| Cursor::parse(&n.to_string()).unwrap()));
    (0..=Offset::MAX.position(), cursor, any::<bool>(), any::<bool>()).prop_map(
        |(offset, cursor, up_to_date, closed)| ControlEvent {
            next_offset: Offset::new(offset),
            cursor,
            up_to_date: up_to_date || closed,
            closed,
        },
    )
}

/// What a reader of an encoded control event gets.
fn sent(control: &ControlEvent) -> ReceivedControl {
    ReceivedControl {
        next_offset: control.next_offset.to_string().into(),
        cursor: control.cursor.map(|cursor| cursor.value().to_string().into()),
        up_to_date: control.up_to_date,
        closed: control.closed,
    }
}

/// What a reader of an encoded event gets.
fn received(encoding: SseEncoding, stored: &Bytes) -> Bytes {
    match encoding {
        SseEncoding::Base64 => stored.clone(),
        SseEncoding::Json => frame_array(std::slice::from_ref(stored)),
        SseEncoding::Text => {
            let text = String::from_utf8_lossy(stored);
            text.replace("\r\n", "\n").replace('\r', "\n").into()
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_in_any_pieces(
        events in vec((vec(any::<u8>(), 0..60), "[ \r\n:a-c\u{feff}é]{0,12}", any::<u32>(), a_control()), 0..5),
        encoding in prop_oneof![Just(SseEncoding::Text), Just(SseEncoding::Json), Just(SseEncoding::Base64)],
        piece in 1..50usize,
    ) {
        let (mut body, mut expected) = (Vec::new(), Vec::new());
        for (bytes, text, number, control) in events {
            let stored = match encoding {
                SseEncoding::Base64 => Bytes::from(bytes),
                SseEncoding::Text => Bytes::from(text),
                SseEncoding::Json => store_messages(format!("[\n {number},\r\n{{ \"a\" :\n1}}]").as_bytes()).unwrap(),
            };
            encode_data(&mut body, encoding, std::slice::from_ref(&stored));
            encode_control(&mut body, &control);
            body.extend_from_slice(keep_alive());
            expected.push(SseEvent::Data(received(encoding, &stored)));
            expected.push(SseEvent::Control(sent(&control)));
        }
        let mut decoder = SseDecoder::new(encoding == SseEncoding::Base64, LIMIT);
        let decoded = decode(&mut decoder, &body, piece).unwrap();
        prop_assert!(decoder.is_between_events());
        let last = expected.last().map(|event| match event {
            SseEvent::Control(control) => {
                let parsed = control.parse().unwrap();
                LastEventId { offset: parsed.next_offset, closed: parsed.closed }.to_string()
            }
            SseEvent::Data(_) => panic!("a control event is last"),
        });
        prop_assert_eq!(decoder.last_event_id(), last.as_deref());
        prop_assert_eq!(decoded, expected);
    }

    #[test]
    fn any_bytes_decode_the_same_in_any_pieces(
        body in vec(prop_oneof![
            Just(&b"event: data\n"[..]), Just(&b"event: control\r\n"[..]), Just(&b"data:"[..]), Just(&b"\r"[..]),
            Just(&b"\n"[..]), Just(&b"id: 1"[..]), Just(&b"\xff"[..]), Just(&b":x"[..]), Just(&b"YWJj"[..]),
        ], 0..30),
        base64: bool,
        piece in 1..9usize,
    ) {
        let body = body.concat();
        let whole = decode(&mut SseDecoder::new(base64, 40), &body, usize::MAX);
        let cut = decode(&mut SseDecoder::new(base64, 40), &body, piece);
        if let (Ok(whole), Ok(cut)) = (&whole, &cut) {
            prop_assert_eq!(whole, cut);
        }
        // A whole line need not be held, so a line that arrives whole may be longer by its field's name.
        prop_assert!(whole.is_ok() || cut.is_err());
    }
}
