//! A collector on loopback, and as much of protobuf as it needs to read spans.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;

use crate::harness::eventually;
use crate::upstreams::{Upstream, ok};

/// One span as it came.
#[derive(Clone, Debug, Default)]
pub(crate) struct Span {
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) name: String,
    /// 2 is a server, 3 a client.
    pub(crate) kind: u64,
    pub(crate) nanoseconds: u64,
    /// 2 is an error.
    pub(crate) status: u64,
    pub(crate) facts: HashMap<String, String>,
}

impl Span {
    pub(crate) fn fact(&self, key: &str) -> &str {
        self.facts.get(key).map_or("", String::as_str)
    }
}

/// What a collector has received.
#[derive(Clone, Default)]
pub(crate) struct Received {
    pub(crate) spans: Arc<Mutex<Vec<Span>>>,
    /// Facts about the sender.
    pub(crate) resource: Arc<Mutex<HashMap<String, String>>>,
    /// Path, media type and the header `x-team` of the last post.
    pub(crate) post: Arc<Mutex<(String, String, String)>>,
}

pub(crate) struct Collector {
    pub(crate) received: Received,
    pub(crate) url: String,
    _server: Upstream,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let received = Received::default();
        let seen = received.clone();
        let server = Upstream::http(move |request| {
            let seen = seen.clone();
            async move {
                let header = |name: &str| {
                    let value = request.headers().get(name);
                    value.map_or("", |value| value.to_str().unwrap()).to_owned()
                };
                let post =
                    (request.uri().path().to_owned(), header("content-type"), header("x-team"));
                *seen.post.lock().unwrap() = post;
                let body = request.into_body().collect().await.unwrap().to_bytes();
                seen.take(&body);
                ok("")
            }
        })
        .await;
        let url = format!("http://{}", server.addr);
        Collector { received, url, _server: server }
    }

    /// The span with this name, once it is there.
    pub(crate) async fn span(&self, name: &str) -> Span {
        let find = || self.all().into_iter().find(|span| span.name == name);
        eventually(&format!("a span {name}"), || async { find().is_some() }).await;
        find().unwrap()
    }

    pub(crate) fn all(&self) -> Vec<Span> {
        self.received.spans.lock().unwrap().clone()
    }
}

impl Received {
    /// `ExportTraceServiceRequest` of opentelemetry-proto, the fields that matter here.
    fn take(&self, request: &[u8]) {
        for resource_spans in messages(request, 1) {
            for resource in messages(resource_spans, 1) {
                self.resource.lock().unwrap().extend(attributes(resource, 1));
            }
            for scope_spans in messages(resource_spans, 2) {
                let spans = messages(scope_spans, 2).into_iter().map(span);
                self.spans.lock().unwrap().extend(spans);
            }
        }
    }
}

fn span(bytes: &[u8]) -> Span {
    let mut span = Span { facts: attributes(bytes, 9), ..Span::default() };
    let (mut began, mut ended) = (0, 0);
    for (number, field) in fields(bytes) {
        match (number, field) {
            (1, Field::Bytes(id)) => span.trace = hex(id),
            (2, Field::Bytes(id)) => span.id = hex(id),
            (4, Field::Bytes(id)) => span.parent = hex(id),
            (5, Field::Bytes(name)) => span.name = text(name),
            (6, Field::Number(kind)) => span.kind = kind,
            (7, Field::Number(time)) => began = time,
            (8, Field::Number(time)) => ended = time,
            (15, Field::Bytes(status)) => span.status = number_of(status, 3),
            _ => {}
        }
    }
    span.nanoseconds = ended.checked_sub(began).expect("it ends after it began");
    span
}

fn attributes(bytes: &[u8], number: u64) -> HashMap<String, String> {
    let pairs = messages(bytes, number).into_iter().map(|pair| {
        let key = text(messages(pair, 1)[0]);
        let (kind, value) = fields(messages(pair, 2)[0]).remove(0);
        let value = match value {
            Field::Bytes(value) => text(value),
            Field::Number(bits) if kind == 4 => f64::from_bits(bits).to_string(),
            Field::Number(value) => value.to_string(),
        };
        (key, value)
    });
    pairs.collect()
}

enum Field<'b> {
    Number(u64),
    Bytes(&'b [u8]),
}

/// The numbered fields of a message.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let field = match key & 7 {
            0 => Field::Number(varint(&mut bytes)),
            1 => Field::Number(u64::from_le_bytes(split(&mut bytes, 8).try_into().unwrap())),
            2 => {
                let length = varint(&mut bytes) as usize;
                Field::Bytes(split(&mut bytes, length))
            }
            5 => Field::Number(u32::from_le_bytes(split(&mut bytes, 4).try_into().unwrap()).into()),
            other => panic!("no wire type {other}"),
        };
        found.push((key >> 3, field));
    }
    found
}

fn messages(bytes: &[u8], number: u64) -> Vec<&[u8]> {
    let of = |(n, field)| match field {
        Field::Bytes(bytes) if n == number => Some(bytes),
        _ => None,
    };
    fields(bytes).into_iter().filter_map(of).collect()
}

fn number_of(bytes: &[u8], number: u64) -> u64 {
    let of = |(n, field)| match field {
        Field::Number(value) if n == number => Some(value),
        _ => None,
    };
    fields(bytes).into_iter().find_map(of).unwrap_or(0)
}

fn split<'b>(bytes: &mut &'b [u8], at: usize) -> &'b [u8] {
    let (head, rest) = bytes.split_at(at);
    *bytes = rest;
    head
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = split(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
