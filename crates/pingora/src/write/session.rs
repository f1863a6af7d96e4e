//! Replies through a Pingora session: HTTP/2, connections that the proxy serves, and other applications.

use bytes::Bytes;
use durable_streams_protocol::{Body, Response};
use http::{HeaderValue, Method, Version, header};
use pingora_core::{Error, ErrorType, Result, protocols::http::ServerSession};
use pingora_http::ResponseHeader;

use super::{ReplyWriter, WrittenReply, chunk::EventChunk};

impl ReplyWriter for ServerSession {
    async fn whole(&mut self, response: Response) -> Result<()> {
        let head_only = self.req_header().method == Method::HEAD;
        let may_have_body = response.may_have_body();
        let (mut head, body) = parts(response);
        let body = match body {
            Body::Empty | Body::Streamed(_) | Body::Live => {
                if may_have_body && !head_only {
                    head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
                }
                Bytes::new()
            }
            Body::Full(chunks) => {
                let length: usize = chunks.iter().map(Bytes::len).sum();
                head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
                // A copy, even of a single piece: a client that takes nothing must not keep the append in memory
                // of which this is a part.
                if head_only { Bytes::new() } else { chunks.concat().into() }
            }
        };
        if body.is_empty()
            && let ServerSession::H2(session) = self
        {
            // One frame in place of two. A client that drops a response of which a frame is still to come resets the
            // stream, and its library counts those.
            return session.write_response_header(boxed(head), true);
        }
        self.write_response_header(boxed(head)).await?;
        write_parts(self, body, true).await
    }

    async fn head(&mut self, response: Response) -> Result<()> {
        let (mut head, body) = parts(response);
        match (body, self.req_header().version) {
            (Body::Streamed(Some(length)), _) => {
                head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
            (_, Version::HTTP_11) => {
                let chunked = HeaderValue::from_static("chunked");
                head.headers.insert(header::TRANSFER_ENCODING, chunked);
            }
            // HTTP/1.0 has no chunks: there the end of the connection ends the body.
            (_, Version::HTTP_10) => self.set_keepalive(None),
            _ => {}
        }
        self.write_response_header(boxed(head)).await
    }

    async fn piece(&mut self, piece: Bytes) -> Result<()> {
        write_parts(self, piece, false).await
    }

    async fn event(&mut self, event: EventChunk) -> Result<()> {
        self.write_response_body(event.event(), false).await
    }

    async fn end(&mut self) -> Result<()> {
        self.write_response_body(Bytes::new(), true).await
    }

    async fn left(&mut self) -> Box<Error> {
        loop {
            if let Err(gone) = self.read_body_or_idle(true).await {
                // The same on every version of HTTP.
                return Error::because(ErrorType::ConnectionClosed, "while events were sent", gone);
            }
        }
    }

    fn close_after(&mut self) {
        self.set_keepalive(None);
    }

    fn written(&self) -> WrittenReply {
        WrittenReply {
            status: self.response_written().map(|response| response.status),
            received: self.body_bytes_read(),
            sent: self.body_bytes_sent(),
        }
    }
}

/// Bytes that an HTTP/2 client must take in one write timeout: one frame.
const PART: usize = 16 << 10;

/// Writes a piece of a body. Over HTTP/2 Pingora applies one timeout to each write, however much the client takes meanwhile;
/// so a large piece is several writes, and a client that reads slowly is not taken for one that does not read.
async fn write_parts(session: &mut ServerSession, mut piece: Bytes, end: bool) -> Result<()> {
    while session.is_http2() && piece.len() > PART {
        session.write_response_body(piece.split_to(PART), false).await?;
    }
    session.write_response_body(piece, end).await
}

fn parts(response: Response) -> (http::response::Parts, Body) {
    let (mut head, ()) = http::Response::new(()).into_parts();
    head.status = response.status;
    // Filled before the head becomes Pingora's, which would parse each name again.
    head.headers.reserve(response.headers.len() + 2);
    for (name, value) in response.headers {
        head.headers.append(name, value);
    }
    (head, response.body)
}

fn boxed(head: http::response::Parts) -> Box<ResponseHeader> {
    Box::new(ResponseHeader::from(head))
}
