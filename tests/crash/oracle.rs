//! What must be true of a stream after a crash. The judge of every test here.
//!
//! # Rules
//! A stream that one writer has to itself is in one of at most two states after a crash:
//! - *now*: everything that was acknowledged, in order, and nothing else;
//! - *after*: *now* plus the one request that was under way, whole.
//!
//! Whatever is observed must be exactly one of them: bytes, closure, existence, type. A request that was
//! under way and is not stored is sent again and must be accepted; one that is stored and names a producer
//! is sent again and must be answered as a duplicate. Further:
//! - `HEAD` and `GET` agree on tail and closure; a read from any offset handed out before gives the rest.
//! - A producer's last request is a duplicate; a `Stream-Seq` that was used is refused; a closed stream
//!   refuses appends, save the retry that closed it. None of these probes changes the stream.
//! - What was trimmed is gone (410), and what comes behind it is there.
//! - What was deleted is gone (404), or kept for forks that live (410). A fork reads the bytes it inherited.
//! - A stream with a TTL is there until the TTL has passed since the last write, and gone once it has passed
//!   since the last access.
//!
//! Streams with many writers have rules of their own, see `shared`.

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::client::{Client, Fields, Reply};

/// How far the clocks' readings here and in the server may be apart.
const MARGIN: Duration = Duration::from_millis(250);

/// The records of one request; stored all or not at all.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) records: Vec<String>,
}

/// The last request of a producer.
#[derive(Clone, Debug)]
pub(crate) struct Produced {
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    pub(crate) request: Arc<Request>,
    pub(crate) close: bool,
}

/// When a stream with a TTL must be there, and when it must not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    pub(crate) ttl: Duration,
    alive_until: Instant,
    gone_after: Instant,
}

/// A stream as it should be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    pub(crate) json: bool,
    pub(crate) content: Vec<Arc<Request>>,
    /// Offsets that were handed out, with the number of requests before each.
    pub(crate) offsets: Vec<(String, usize)>,
    /// An offset whose bytes were trimmed.
    pub(crate) trimmed: Option<String>,
    pub(crate) closed: bool,
    pub(crate) stream_seq: Option<u64>,
    pub(crate) producers: BTreeMap<String, Produced>,
    pub(crate) lifetime: Option<Lifetime>,
}

/// A request that changes a stream, and what the stream is then.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) method: &'static str,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) after: Option<Stream>,
    /// The status of success.
    pub(crate) status: u16,
}

/// A path of one writer.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) path: String,
    pub(crate) now: Option<Stream>,
    /// Sent, and not answered.
    pub(crate) doubt: Option<Operation>,
    /// The slot of the stream this one was forked from.
    pub(crate) source: Option<usize>,
    pub(crate) had_forks: bool,
}

/// What a server says of a path.
pub(crate) enum Observed {
    Gone(u16),
    Present { closed: bool, json: bool, tail: String, records: Vec<String> },
}

/// What a `GET` from one offset to the tail gives.
pub(crate) struct Rest {
    pub(crate) records: Vec<String>,
    tail: String,
    closed: bool,
}

enum Verdict {
    Right,
    Expired,
    Wrong(String),
}

impl Request {
    /// The body that appends it.
    pub(crate) fn body(&self, json: bool) -> Vec<u8> {
        match (json, self.records.as_slice()) {
            (true, [one]) => serde_json::to_vec(one).unwrap(),
            (true, many) => serde_json::to_vec(many).unwrap(),
            (false, records) => {
                records.iter().flat_map(|r| [r.as_bytes(), b"\n"].concat()).collect()
            }
        }
    }
}

impl Lifetime {
    pub(crate) fn of(ttl: Duration) -> Self {
        let now = Instant::now();
        Lifetime { ttl, alive_until: now + ttl, gone_after: now + ttl }
    }

    /// May it have expired by now?
    pub(crate) fn may_be_over(&self) -> bool {
        Instant::now() + MARGIN > self.alive_until
    }

    /// The last access was at the latest now.
    fn accessed(&mut self) {
        self.gone_after = Instant::now() + self.ttl + MARGIN;
    }
}

impl Stream {
    pub(crate) fn content_type(&self) -> &'static str {
        content_type(self.json)
    }

    /// What it is once everything before the request `count` was trimmed.
    pub(crate) fn trimmed_to(&self, count: usize) -> Self {
        let mut after = self.clone();
        after.content.drain(..count);
        let gone = self.offsets.iter().find(|(_, before)| *before < count);
        after.trimmed = gone.map(|(offset, _)| offset.clone()).or(after.trimmed);
        after.offsets.retain(|(_, before)| *before >= count);
        after.offsets.iter_mut().for_each(|(_, before)| *before -= count);
        after
    }

    fn records(&self) -> Vec<&str> {
        self.content.iter().flat_map(|r| r.records.iter().map(String::as_str)).collect()
    }

    fn accessed(&mut self) {
        if let Some(lifetime) = &mut self.lifetime {
            lifetime.accessed();
        }
    }
}

pub(crate) fn content_type(json: bool) -> &'static str {
    if json { "application/json" } else { "text/plain" }
}

/// Reads from `offset` to the tail.
pub(crate) fn rest(client: &mut Client, path: &str, offset: &str, json: bool) -> io::Result<Rest> {
    let (mut at, mut bytes, mut records) = (offset.to_owned(), Vec::new(), Vec::new());
    loop {
        let reply = client.ask("GET", &format!("{path}?offset={at}"), &[], b"")?;
        assert_eq!(reply.status, 200, "GET {path} from {at}: {reply:?}");
        let next = reply.next_offset();
        assert!(next >= at || at == "-1", "{path}: {next} comes before {at}");
        if json {
            let page: Vec<String> = serde_json::from_slice(&reply.body)
                .unwrap_or_else(|error| panic!("GET {path} from {at}: {error}"));
            records.extend(page);
        } else {
            bytes.extend_from_slice(&reply.body);
        }
        if reply.has("stream-up-to-date", "true") {
            if !json {
                records = lines(path, &bytes);
            }
            return Ok(Rest { records, tail: next, closed: reply.has("stream-closed", "true") });
        }
        assert!(next > at || at == "-1", "{path}: the read stands still at {at}");
        at = next;
    }
}

/// The records in a text stream. Half a record is a violation.
pub(crate) fn lines(path: &str, bytes: &[u8]) -> Vec<String> {
    let text = std::str::from_utf8(bytes).unwrap_or_else(|e| panic!("{path}: foreign bytes: {e}"));
    assert!(text.is_empty() || text.ends_with('\n'), "{path} ends with half a record");
    text.lines().map(str::to_owned).collect()
}

/// Looks at a path with `HEAD` and, when something is there, `GET`.
pub(crate) fn observe(client: &mut Client, path: &str) -> io::Result<Observed> {
    let head = client.ask("HEAD", path, &[], b"")?;
    match head.status {
        404 | 410 => return Ok(Observed::Gone(head.status)),
        200 => {}
        _ => panic!("HEAD {path}: {head:?}"),
    }
    let json = head.has("content-type", "application/json");
    let rest = rest(client, path, "-1", json)?;
    let closed = head.has("stream-closed", "true");
    assert_eq!(head.next_offset(), rest.tail, "{path}: HEAD and GET disagree on the tail");
    assert_eq!(closed, rest.closed, "{path}: HEAD and GET disagree on closure");
    Ok(Observed::Present { closed, json, tail: rest.tail, records: rest.records })
}

fn judge(expected: Option<&Stream>, observed: &Observed, began: Instant) -> Verdict {
    match (expected, observed) {
        (None, Observed::Gone(_)) => Verdict::Right,
        (None, Observed::Present { .. }) => Verdict::Wrong("is there and must not be".into()),
        (Some(stream), Observed::Gone(status)) => match stream.lifetime {
            Some(lifetime) if lifetime.may_be_over() => Verdict::Expired,
            _ => Verdict::Wrong(format!("is gone ({status}) and must be there")),
        },
        (Some(stream), Observed::Present { closed, json, records, .. }) => {
            let expected = stream.records();
            let same = expected.iter().zip(records).take_while(|(a, b)| *a == b).count();
            if stream.lifetime.is_some_and(|lifetime| began > lifetime.gone_after) {
                Verdict::Wrong("has outlived its TTL".into())
            } else if same < expected.len() || same < records.len() {
                Verdict::Wrong(format!(
                    "has {} records instead of {}; from record {same} on it has {:?} instead of {:?}",
                    records.len(),
                    expected.len(),
                    brief(records.get(same).map(String::as_str)),
                    brief(expected.get(same).copied()),
                ))
            } else if (*closed, *json) != (stream.closed, stream.json) {
                Verdict::Wrong(format!("closed: {closed} instead of {}", stream.closed))
            } else {
                Verdict::Right
            }
        }
    }
}

fn brief(record: Option<&str>) -> Option<&str> {
    record.map(|record| record.split('|').next().unwrap_or(record))
}

impl Slot {
    pub(crate) fn new(path: String, source: Option<usize>) -> Self {
        Slot { path, now: None, doubt: None, source, had_forks: false }
    }

    /// Sends a request that changes the stream. On `Err` it stays in doubt.
    pub(crate) fn perform(&mut self, client: &mut Client, operation: Operation) -> io::Result<()> {
        let Operation { method, fields, body, after, status } = self.doubt.insert(operation);
        let reply = client.ask(method, &self.path, fields, body);
        if let Some(after) = after {
            after.accessed();
        }
        let reply = reply?;
        let lifetime = self.now.as_ref().and_then(|stream| stream.lifetime);
        if reply.status == 404 && lifetime.is_some_and(|lifetime| lifetime.may_be_over()) {
            self.now = None;
        } else {
            assert_eq!(reply.status, *status, "{method} {} {fields:?}: {reply:?}", self.path);
            self.now = after.take();
            self.learn_tail(&reply);
        }
        self.doubt = None;
        Ok(())
    }

    fn learn_tail(&mut self, reply: &Reply) {
        if let (Some(stream), Some(offset)) = (&mut self.now, reply.header("stream-next-offset")) {
            let count = stream.content.len();
            if let Some((last, before)) = stream.offsets.last() {
                let moved = count.cmp(before);
                assert_eq!(
                    offset.cmp(last.as_str()),
                    moved,
                    "{}: after {last} {offset}",
                    self.path
                );
            }
            stream.offsets.push((offset.to_owned(), count));
        }
    }

    /// Compares the server with the rules, and settles what is in doubt. `forked`: a fork of it lives.
    pub(crate) fn check(&mut self, client: &mut Client, forked: bool) -> io::Result<()> {
        let began = Instant::now();
        let observed = observe(client, &self.path)?;
        if let Observed::Gone(status) = observed {
            assert!(!forked || status == 410, "{}: {status}, but a fork of it lives", self.path);
        }
        let now = judge(self.now.as_ref(), &observed, began);
        let after = self.doubt.as_ref().map(|doubt| judge(doubt.after.as_ref(), &observed, began));
        match (now, after) {
            (Verdict::Right, None) => {}
            (Verdict::Expired, _) | (_, Some(Verdict::Expired)) => {
                self.now = None;
                self.doubt = None;
            }
            (_, Some(Verdict::Right)) => {
                let doubt = self.doubt.take().expect("it was judged");
                self.now = doubt.after;
            }
            // Not stored: sent again, it must be accepted.
            (Verdict::Right, Some(_)) => {
                let doubt = self.doubt.take().expect("it was judged");
                self.perform(client, doubt)?;
                return self.check(client, forked);
            }
            (Verdict::Wrong(why), None) => panic!("{} {why}", self.path),
            (Verdict::Wrong(why), Some(Verdict::Wrong(or))) => {
                panic!("{}: without the request in doubt it {why}; with it, it {or}", self.path)
            }
        }
        let Some(stream) = &mut self.now else { return Ok(()) };
        stream.accessed();
        // The probes read and append; they would make a short life longer.
        if stream.lifetime.is_some() {
            return Ok(());
        }
        probe(client, &self.path, stream)?;
        let again = client.ask("HEAD", &self.path, &[], b"")?;
        let Observed::Present { tail, .. } = observed else { return Ok(()) };
        assert_eq!(again.next_offset(), tail, "{}: a probe has changed it", self.path);
        Ok(())
    }
}

/// Requests that must be answered from what the stream remembers.
fn probe(client: &mut Client, path: &str, stream: &Stream) -> io::Result<()> {
    if let Some((offset, count)) = fastrand::choice(&stream.offsets) {
        let rest = rest(client, path, offset, stream.json)?;
        let expected = stream.content[*count..].iter().flat_map(|r| &r.records);
        assert!(expected.eq(&rest.records), "{path}: reads wrong from {offset}");
    }
    if let Some(trimmed) = &stream.trimmed {
        let gone = client.ask("GET", &format!("{path}?offset={trimmed}"), &[], b"")?;
        assert_eq!((gone.status, gone.code()), (410, "offset-trimmed".into()), "{path}: {trimmed}");
    }
    let post = |client: &mut Client, mut fields: Fields, body: &[u8]| {
        fields.push(("content-type", stream.content_type().into()));
        client.ask("POST", path, &fields, body)
    };
    for (id, last) in &stream.producers {
        let fields = producer_fields(id, last);
        let reply = post(client, fields, &last.request.body(stream.json))?;
        if !stream.closed || last.close {
            assert_eq!(reply.status, 204, "{path}: a retry of {id} is no duplicate: {reply:?}");
            assert!(reply.has("producer-seq", &last.seq.to_string()), "{path}: {reply:?}");
            assert!(reply.has("producer-epoch", &last.epoch.to_string()), "{path}: {reply:?}");
        } else {
            assert_eq!((reply.status, reply.code()), (409, "stream-closed".into()), "{path}");
        }
    }
    let body = Request { records: vec!["must not be stored".into()] }.body(stream.json);
    if stream.closed {
        let reply = post(client, Fields::new(), &body)?;
        assert_eq!((reply.status, reply.code()), (409, "stream-closed".into()), "{path}");
        assert!(reply.has("stream-closed", "true"), "{path}: {reply:?}");
    } else if let Some(seq) = stream.stream_seq {
        let reply = post(client, vec![("stream-seq", format!("{seq:08}"))], &body)?;
        assert_eq!((reply.status, reply.code()), (409, "sequence-regression".into()), "{path}");
    }
    Ok(())
}

pub(crate) fn producer_fields(id: &str, produced: &Produced) -> Fields {
    let mut fields = vec![
        ("producer-id", id.to_owned()),
        ("producer-epoch", produced.epoch.to_string()),
        ("producer-seq", produced.seq.to_string()),
    ];
    if produced.close {
        fields.push(("stream-closed", "true".into()));
    }
    fields
}
