//! Server-sent events (PROTOCOL §5.8, §10.2): every data event with its control event, through anything
//! that the real world puts between server and browser.

use std::time::Duration;

use base64::Engine as _;

use crate::world::{Kind, ROUTE, SHORT, Sse, World, offset, request, soon};

for_each_kind![
    the_head_says_what_follows,
    history_then_news_each_with_its_control,
    an_empty_stream_is_greeted,
    json_comes_as_arrays,
    binary_comes_as_base64,
    line_ends_in_data_never_break_framing,
    a_line_end_split_over_appends_is_one,
    characters_split_over_appends_come_whole,
    bytes_that_are_no_text_do_not_stop_a_text_stream,
    long_history_comes_in_windows,
    only_the_last_window_of_a_closed_stream_says_that_it_ends,
    a_comment_keeps_idle_connections_open,
    connections_are_recycled_with_a_control_event,
    a_browser_resumes_by_its_last_event_id,
    an_event_source_stops_after_the_end,
    closure_ends_the_events,
    deleting_ends_the_events,
    a_fork_is_not_woken_by_its_source,
    refusals_are_ordinary_answers,
    a_cursor_is_later_than_the_one_that_the_client_sent,
    cursors_move_on_within_a_connection,
    #[only(http1, proxied, embedded; "versions of HTTP/1")]
    http_1_0_gets_events_without_chunks,
    the_connection_serves_on_after_the_events,
    #[only(http1, proxied, http2; "Pingora drops a request sent ahead unless the host lets it in")]
    a_request_sent_ahead_is_answered_after_the_events,
    #[only(http1, proxied, embedded; "versions of HTTP/1")]
    a_connection_to_be_closed_is_closed_after_the_events,
];

async fn text(kind: Kind, body: &str) -> World {
    let world = World::new(kind);
    world.stream("/a", "text/plain", body).await;
    world
}

/// The next data event; asserts that a control event follows, and gives its content as well.
async fn pair(sse: &mut Sse) -> (String, serde_json::Value) {
    let data = soon(sse.event()).await;
    assert_eq!(data.name, "data", "{data:?}");
    let control = soon(sse.event()).await;
    let (id, control) = (control.id.clone().unwrap(), control.control());
    let closed = if control["streamClosed"] == true { ":closed" } else { "" };
    assert_eq!(id, format!("{}{closed}", control["streamNextOffset"].as_str().unwrap()));
    (data.data, control)
}

async fn the_head_says_what_follows(kind: Kind) {
    let world = text(kind, "").await;
    let sse = world.sse("/a?offset=-1&live=sse", "accept-encoding: gzip, br, zstd\r\n").await;
    let head = &sse.head;
    assert_eq!(head.header("x-accel-buffering"), Some("no"));
    assert_eq!(head.header("cache-control"), Some("no-cache"));
    assert_eq!(head.header("transfer-encoding"), Some("chunked"));
    assert_eq!(head.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(head.header("access-control-allow-origin"), Some("*"));
    for absent in ["content-length", "content-encoding", "etag", "stream-sse-data-encoding"] {
        assert_eq!(head.header(absent), None, "{absent}");
    }
}

async fn history_then_news_each_with_its_control(kind: Kind) {
    let world = text(kind, "history").await;
    let mut sse = world.sse("/a?offset=-1&live=sse", "").await;
    let (data, control) = pair(&mut sse).await;
    assert_eq!(data, "history");
    assert_eq!(control["streamNextOffset"], offset(7));
    assert_eq!(control["upToDate"], true);
    assert!(control["streamCursor"].is_string() && control.get("streamClosed").is_none());
    for (part, end) in [("one", 10), ("two", 13)] {
        world.append("/a", "text/plain", part).await;
        let (data, control) = pair(&mut sse).await;
        assert_eq!((data.as_str(), &control["streamNextOffset"]), (part, &offset(end).into()));
        assert_eq!(control["upToDate"], true);
    }
    drop(sse);
    world.at_rest().await;
}

async fn an_empty_stream_is_greeted(kind: Kind) {
    let world = text(kind, "").await;
    for from in ["-1", "now"] {
        let mut sse = world.sse(&format!("/a?offset={from}&live=sse"), "").await;
        let control = soon(sse.event()).await.control();
        assert_eq!(
            (&control["streamNextOffset"], &control["upToDate"]),
            (&offset(0).into(), &true.into())
        );
    }
}

async fn json_comes_as_arrays(kind: Kind) {
    let world = World::new(kind);
    let pretty = "[{\n  \"a\": 1\r\n}, \"x\\ny\", 12345678901234567890]";
    world.stream("/j", "application/json", pretty).await;
    let mut sse = world.sse("/j?offset=-1&live=sse", "").await;
    assert_eq!(sse.head.header("stream-sse-data-encoding"), None);
    let (data, _) = pair(&mut sse).await;
    let read: Vec<Box<serde_json::value::RawValue>> = serde_json::from_str(&data).unwrap();
    assert_eq!(read[2].get(), "12345678901234567890");
    assert_eq!(read[1].get(), "\"x\\ny\"");
    world.append("/j", "application/json", "[[4],5]").await;
    assert_eq!(pair(&mut sse).await.0, "[[4],5]");
}

async fn binary_comes_as_base64(kind: Kind) {
    let world = World::new(kind);
    for (index, content_type) in
        ["application/octet-stream", "image/png", "application/x-ndjson"].into_iter().enumerate()
    {
        let path = format!("/{index}");
        let bytes: Vec<u8> = (0..=255).chain(*b"\n\nevent: x\n\n").collect();
        world.stream(&path, content_type, &bytes).await;
        let mut sse = world.sse(&format!("{path}?offset=-1&live=sse"), "").await;
        assert_eq!(sse.head.header("stream-sse-data-encoding"), Some("base64"), "{content_type}");
        let (data, _) = pair(&mut sse).await;
        let decoded = base64::engine::general_purpose::STANDARD.decode(data.replace('\n', ""));
        assert_eq!(decoded.unwrap(), bytes);
        world.append(&path, content_type, "\0").await;
        assert_eq!(pair(&mut sse).await.0, "AA==");
    }
}

async fn line_ends_in_data_never_break_framing(kind: Kind) {
    let world = text(kind, "").await;
    let mut sse = world.sse("/a?offset=-1&live=sse", "").await;
    soon(sse.event()).await;
    for body in [
        "a\nb",
        "a\r\nb",
        "a\rb",
        "\n",
        "\r\n\r\n",
        "\r\revent: control\rdata: {\"streamClosed\":true}\r\r",
        "x\n\nevent: control\ndata: {\"streamClosed\":true}\n\n",
        ": comment",
        " one space",
        "  two spaces\n three",
        "id: 7\nretry: 1",
        "data: nested",
        "\u{2028}\u{85}\u{feff}",
    ] {
        world.append("/a", "text/plain", body).await;
        let (data, control) = pair(&mut sse).await;
        assert_eq!(data, body.replace("\r\n", "\n").replace('\r', "\n"), "{body:?}");
        assert!(control.get("streamClosed").is_none(), "{body:?}");
    }
}

/// What the events of a text stream say, joined, is the text with its line ends as LF, wherever it was cut.
async fn a_line_end_split_over_appends_is_one(kind: Kind) {
    let world = text(kind, "").await;
    let mut sse = world.sse("/a?offset=-1&live=sse", "").await;
    soon(sse.event()).await;
    let mut written = String::new();
    for part in ["a\r", "\nb", "\r", "\n", "\n", "c\r", "d\n", "\re\r", "\r", "\nf"] {
        world.append("/a", "text/plain", part).await;
        written.push_str(part);
    }
    let lines = written.replace("\r\n", "\n").replace('\r', "\n");
    let mut read = String::new();
    while read.len() < lines.len() || !read.ends_with('f') {
        let event = soon(sse.event()).await;
        if event.name == "data" {
            read.push_str(&event.data);
            continue;
        }
        // A reader that comes back here misses and repeats as little.
        let next = event.control()["streamNextOffset"].as_str().unwrap().to_owned();
        let mut again = world.sse(&format!("/a?offset={next}&live=sse"), "").await;
        let (rest, _) = soon(again.catch_up()).await;
        assert_eq!(format!("{read}{}", rest.concat()), lines, "from {next}");
    }
    assert_eq!(read, lines);
}

async fn characters_split_over_appends_come_whole(kind: Kind) {
    let world = text(kind, "").await;
    let mut sse = world.sse("/a?offset=-1&live=sse", "").await;
    soon(sse.event()).await;
    let said = "grüße 😀 ende";
    for byte in said.as_bytes() {
        world.append("/a", "text/plain", [*byte]).await;
    }
    world.close("/a").await;
    let mut read = String::new();
    while let Some(event) = soon(sse.next()).await {
        if event.name == "data" {
            assert!(!event.data.contains('\u{fffd}'), "{:?}", event.data);
            read.push_str(&event.data);
        }
    }
    assert_eq!(read, said);
}

async fn bytes_that_are_no_text_do_not_stop_a_text_stream(kind: Kind) {
    let world = text(kind, "").await;
    world.append("/a", "text/plain", b"a\xff\xfeb").await;
    world.append("/a", "text/plain", b"c\xf0\x9f").await;
    let mut sse = world.sse("/a?offset=-1&live=sse", "").await;
    let (data, control) = pair(&mut sse).await;
    assert_eq!(data, "a\u{fffd}\u{fffd}bc");
    assert_eq!(control["streamNextOffset"], offset(5), "half a character is not passed over");
    assert_eq!(control["upToDate"], true);
    world.post("/a", "stream-closed: true\r\n", "").await;
    let (data, control) = pair(&mut sse).await;
    assert_eq!((data.as_str(), &control["streamClosed"]), ("\u{fffd}", &true.into()));
    assert_eq!(control["streamNextOffset"], offset(7));
}

async fn long_history_comes_in_windows(kind: Kind) {
    let world = text(kind, "").await;
    let part = "0123456789äöü€😀\n".repeat(1_000);
    for _ in 0..20 {
        world.append("/a", "text/plain", &part).await;
    }
    let body = part.repeat(20);
    let mut sse = world.sse("/a?offset=-1&live=sse", "").await;
    let (parts, control) = soon(sse.catch_up()).await;
    assert!(parts.len() > 2, "one event of {} bytes", body.len());
    assert!(parts.concat() == body, "not what was written");
    assert_eq!(control["streamNextOffset"], offset(body.len() as u64));
}

/// A client that believes an early `streamClosed` loses the rest.
async fn only_the_last_window_of_a_closed_stream_says_that_it_ends(kind: Kind) {
    let world = text(kind, "").await;
    let part = "0123456789äöü€😀\n".repeat(1_000);
    for _ in 0..20 {
        world.append("/a", "text/plain", &part).await;
    }
    let body = part.repeat(20);
    world.close("/a").await;
    let mut sse = world.sse("/a?offset=-1&live=sse", "").await;
    let (mut read, mut windows) = (String::new(), 0);
    let closed = loop {
        let (data, control) = pair(&mut sse).await;
        read.push_str(&data);
        windows += 1;
        if control.get("streamClosed").is_some() {
            break control;
        }
        assert!(read.len() < body.len(), "the last window does not say that the stream ends");
    };
    assert!(windows > 2, "one event of {} bytes", body.len());
    assert_eq!(read.len(), body.len(), "the end is said after {windows} windows, too early");
    assert!(read == body, "not what was written");
    let end = offset(body.len() as u64);
    assert_eq!((&closed["streamClosed"], &closed["streamNextOffset"]), (&true.into(), &end.into()));
    assert!(soon(sse.next()).await.is_none());
}

async fn a_comment_keeps_idle_connections_open(kind: Kind) {
    let world = World::with(kind, |setup| {
        setup.edge.streams.sse_keep_alive = Duration::from_millis(50);
    });
    world.stream("/a", "text/plain", "").await;
    let mut sse = world.sse("/a?offset=now&live=sse", "").await;
    assert!(sse.block().await.unwrap().contains("upToDate"));
    for _ in 0..3 {
        assert_eq!(soon(sse.block()).await.as_deref(), Some(":\n\n"));
    }
}

async fn connections_are_recycled_with_a_control_event(kind: Kind) {
    let world = World::with(kind, |setup| setup.edge.streams.sse_reconnect_interval = SHORT);
    world.stream("/a", "text/plain", "abc").await;
    let mut sse = world.sse("/a?offset=-1&live=sse", "").await;
    pair(&mut sse).await;
    let control = soon(sse.event()).await.control();
    assert_eq!(
        (&control["streamNextOffset"], &control["upToDate"]),
        (&offset(3).into(), &true.into())
    );
    assert!(control.get("streamClosed").is_none());
    assert!(soon(sse.next()).await.is_none(), "then the response ends as it should");
    // The connection itself goes on.
    sse.client.send(format!("GET {ROUTE}/a HTTP/1.1\r\nhost: t\r\n\r\n")).await;
    assert_eq!(sse.client.reply().await.text(), "abc");
}

async fn a_browser_resumes_by_its_last_event_id(kind: Kind) {
    let world = text(kind, "abcdef").await;
    let mut sse = world.sse("/a?offset=-1&live=sse", "").await;
    let data = soon(sse.event()).await;
    assert_eq!(data.id, None, "the id comes with the control event, when the data is complete");
    let id = soon(sse.event()).await.id.unwrap();
    drop(sse);
    world.append("/a", "text/plain", "ghi").await;
    for url in ["-1", "now"] {
        let fields = format!("last-event-id: {id}\r\n");
        let mut sse = world.sse(&format!("/a?offset={url}&live=sse"), &fields).await;
        assert_eq!(pair(&mut sse).await.0, "ghi", "the id counts, not the URL's {url}");
    }
    for ignored in ["", "7", "now"] {
        let fields = format!("last-event-id: {ignored}\r\n");
        let mut sse = world.sse("/a?offset=-1&live=sse", &fields).await;
        assert_eq!(pair(&mut sse).await.0, "abcdefghi", "{ignored:?} is not ours");
    }
    let beyond = format!("last-event-id: {}\r\n", offset(99));
    let reply = world.ask("GET", "/a?offset=-1&live=sse", &beyond, b"").await;
    assert_eq!(reply.code(), "offset-beyond-tail");
}

/// It reconnects after every end of a response, and only a status other than 200 stops it.
async fn an_event_source_stops_after_the_end(kind: Kind) {
    let world = text(kind, "abc").await;
    world.close("/a").await;
    let url = "/a?offset=-1&live=sse";
    let mut sse = world.sse(url, "").await;
    assert_eq!(soon(sse.event()).await.data, "abc");
    let last = soon(sse.event()).await;
    assert!(last.control()["streamClosed"] == true && soon(sse.next()).await.is_none());
    let reconnect = |id: &str| format!("last-event-id: {id}\r\n");
    let id = last.id.unwrap();
    let stop = world.ask("GET", url, &reconnect(&id), b"").await;
    assert_eq!((stop.status, stop.header("stream-closed")), (204, Some("true")));
    assert_eq!(stop.header("cache-control"), Some("no-store"));
    // Every other reader at the end gets the closure as an event (§5.8).
    for (url, fields) in [
        (format!("/a?offset={}&live=sse", offset(3)), String::new()),
        (url.to_owned(), reconnect(&offset(3))),
        ("/a?offset=now&live=sse".to_owned(), String::new()),
    ] {
        let mut sse = world.sse(&url, &fields).await;
        let event = soon(sse.event()).await;
        assert_eq!(
            (&event.control()["streamClosed"], event.id.as_ref()),
            (&true.into(), Some(&id))
        );
        assert!(soon(sse.next()).await.is_none());
    }
    // An open stream at the same path goes on, wherever the id is from.
    world.stream("/b", "text/plain", "abc").await;
    let mut other = world.sse("/b?offset=-1&live=sse", &reconnect(&id)).await;
    let event = soon(other.event()).await.control();
    assert_eq!((&event["upToDate"], event.get("streamClosed")), (&true.into(), None));
    drop(other);
    world.at_rest().await;
}

async fn closure_ends_the_events(kind: Kind) {
    let world = text(kind, "abc").await;
    let mut sse = world.sse("/a?offset=-1&live=sse", "").await;
    pair(&mut sse).await;
    world.close("/a").await;
    let control = soon(sse.event()).await.control();
    assert_eq!(
        (&control["streamClosed"], &control["streamNextOffset"]),
        (&true.into(), &offset(3).into())
    );
    assert!(control.get("streamCursor").is_none());
    assert!(soon(sse.next()).await.is_none());

    let mut sse = world.sse("/a?offset=-1&live=sse", "").await;
    let (data, control) = pair(&mut sse).await;
    assert_eq!((data.as_str(), &control["streamClosed"]), ("abc", &true.into()));
    assert!(soon(sse.next()).await.is_none());
    world.at_rest().await;
}

async fn deleting_ends_the_events(kind: Kind) {
    let world = text(kind, "abc").await;
    let mut sse = world.sse("/a?offset=-1&live=sse", "").await;
    pair(&mut sse).await;
    world.delete("/a").await;
    world.stream("/a", "text/plain", "another stream").await;
    assert!(soon(sse.next()).await.is_none(), "not a byte of the other stream");
    world.at_rest().await;
}

async fn a_fork_is_not_woken_by_its_source(kind: Kind) {
    let world = text(kind, "abc").await;
    world.put("/fork", "stream-forked-from: /v1/stream/a\r\n", "").await;
    let mut sse = world.sse("/fork?offset=-1&live=sse", "").await;
    assert_eq!(pair(&mut sse).await.0, "abc");
    world.append("/a", "text/plain", "source only").await;
    world.append("/fork", "text/plain", "def").await;
    assert_eq!(pair(&mut sse).await.0, "def");
}

async fn refusals_are_ordinary_answers(kind: Kind) {
    let world = text(kind, "abc").await;
    for (path, status) in [
        ("/none?offset=-1&live=sse".to_owned(), 404),
        (format!("/a?offset={}&live=sse", offset(4)), 400),
        ("/a?live=sse".to_owned(), 400),
    ] {
        let reply = world.get(&path).await;
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
    }
}

fn cursor(control: &serde_json::Value) -> u64 {
    control["streamCursor"].as_str().unwrap().parse().unwrap()
}

async fn a_cursor_is_later_than_the_one_that_the_client_sent(kind: Kind) {
    let (world, _clock) = World::with_clock(kind);
    world.stream("/a", "text/plain", "abc").await;
    let mut sse = world.sse("/a?offset=-1&live=sse", "").await;
    let first = cursor(&pair(&mut sse).await.1);
    let sent = first + 9;
    let mut sse = world.sse(&format!("/a?offset=-1&live=sse&cursor={sent}"), "").await;
    let second = cursor(&pair(&mut sse).await.1);
    assert!(second > sent, "{second} after {sent}");
    world.append("/a", "text/plain", "def").await;
    assert_eq!(cursor(&pair(&mut sse).await.1), second, "the clock has not reached it yet");
}

/// Readers share a cached page for one interval of 20 s, not for as long as a connection lives.
async fn cursors_move_on_within_a_connection(kind: Kind) {
    let (world, clock) = World::with_clock(kind);
    world.stream("/a", "text/plain", "abc").await;
    let mut sse = world.sse("/a?offset=-1&live=sse", "").await;
    let first = cursor(&pair(&mut sse).await.1);
    // Not more than twice: after a minute the connection is recycled.
    for later in 1..=2 {
        clock.advance_millis(20_000);
        world.append("/a", "text/plain", "def").await;
        assert_eq!(cursor(&pair(&mut sse).await.1), first + later, "{later} intervals later");
    }
}

async fn http_1_0_gets_events_without_chunks(kind: Kind) {
    let world = text(kind, "abc").await;
    world.close("/a").await;
    let ask = format!("GET {ROUTE}/a?offset=-1&live=sse HTTP/1.0\r\n\r\n");
    let reply = world.server.ask(ask).await;
    assert_eq!((reply.status, reply.header("transfer-encoding")), (200, None));
    assert!(
        reply.text().starts_with("event: data\ndata:abc\n\nevent: control\n"),
        "{}",
        reply.text()
    );
}

async fn the_connection_serves_on_after_the_events(kind: Kind) {
    let world = text(kind, "abc").await;
    world.close("/a").await;
    let mut client = world.server.connect().await;
    for _ in 0..3 {
        client.send(request("GET", "/a?offset=-1&live=sse", "", b"")).await;
        let head = client.head().await;
        let mut sse = Sse::new(client, head);
        assert_eq!(pair(&mut sse).await.0, "abc");
        assert!(soon(sse.next()).await.is_none());
        client = sse.client;
        client.send(request("GET", "/a", "", b"")).await;
        assert_eq!(soon(client.reply()).await.text(), "abc");
    }
    world.at_rest().await;
}

/// With the first request or after its head, it waits for the events to end and is not lost.
async fn a_request_sent_ahead_is_answered_after_the_events(kind: Kind) {
    for together in [true, false] {
        let world = text(kind, "abc").await;
        let (first, second) =
            (request("GET", "/a?offset=-1&live=sse", "", b""), request("GET", "/a", "", b""));
        let mut client = world.server.connect().await;
        let parts = if together { vec![[first, second].concat()] } else { vec![first, second] };
        let mut parts = parts.into_iter();
        client.send(parts.next().unwrap()).await;
        let head = client.head().await;
        let mut sse = Sse::new(client, head);
        assert_eq!(pair(&mut sse).await.0, "abc");
        // In two pieces: the first is read while events are written, the other after them.
        let rest = parts.next().unwrap_or_default();
        let (begin, end) = rest.split_at(rest.len().min(7));
        sse.client.send(begin).await;
        world.append("/a", "text/plain", "def").await;
        assert_eq!(pair(&mut sse).await.0, "def");
        sse.client.send(end).await;
        world.close("/a").await;
        assert_eq!(soon(sse.event()).await.control()["streamClosed"], true);
        assert!(soon(sse.next()).await.is_none());
        assert_eq!(soon(sse.client.reply()).await.text(), "abcdef", "together: {together}");
    }
}

async fn a_connection_to_be_closed_is_closed_after_the_events(kind: Kind) {
    let world = text(kind, "abc").await;
    world.close("/a").await;
    let mut sse = world.sse("/a?offset=-1&live=sse", "connection: close\r\n").await;
    assert_eq!(sse.head.header("connection"), Some("close"));
    assert_eq!(pair(&mut sse).await.0, "abc");
    assert!(soon(sse.next()).await.is_none());
    assert!(soon(sse.client.is_closed()).await, "nothing follows");
}
