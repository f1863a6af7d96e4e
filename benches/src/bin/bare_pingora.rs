//! A bare Pingora responder with no store: the ceiling of the HTTP layer used plainly.
//!
//! `bare-pingora ADDR THREADS`. PUT answers 201, POST reads the body and answers 204 with an
//! offset, HEAD answers 200, GET answers as many bytes as the last POST carried.

use async_trait::async_trait;
use bytes::Bytes;
use pingora::http::ResponseHeader;
use pingora::prelude::{Error, ErrorType, HttpPeer, Opt, ProxyHttp, Result, Server, Session};
use pingora::proxy::http_proxy_service;
use pingora::server::configuration::ServerConf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The largest GET answer.
const LARGEST: usize = 8 * 1024 * 1024;

struct Responder {
    appended: AtomicU64,
    last_body: AtomicUsize,
    zeros: Bytes,
}

#[async_trait]
impl ProxyHttp for Responder {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> Result<Box<HttpPeer>> {
        Err(Error::explain(ErrorType::InternalError, "every request is answered here"))
    }

    async fn request_filter(&self, session: &mut Session, (): &mut ()) -> Result<bool> {
        let method = session.req_header().method.clone();
        let mut body = Bytes::new();
        let status = match method.as_str() {
            "POST" | "PUT" => {
                let mut length = 0;
                while let Some(piece) = session.read_request_body().await? {
                    length += piece.len();
                }
                if method == "POST" {
                    self.appended.fetch_add(1, Ordering::Relaxed);
                    self.last_body.store(length.min(LARGEST), Ordering::Relaxed);
                    204
                } else {
                    201
                }
            }
            "GET" => {
                body = self.zeros.slice(..self.last_body.load(Ordering::Relaxed));
                200
            }
            _ => 200,
        };
        let mut head = ResponseHeader::build(status, Some(4))?;
        let offset = format!("{:020}", self.appended.load(Ordering::Relaxed));
        head.insert_header("stream-next-offset", offset)?;
        if status != 204 {
            head.insert_header("content-length", body.len())?;
        }
        if method == "GET" {
            head.insert_header("stream-up-to-date", "true")?;
        }
        let ends = body.is_empty();
        session.write_response_header(Box::new(head), ends).await?;
        if !ends {
            session.write_response_body(Some(body), true).await?;
        }
        Ok(true)
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let (Some(addr), Some(threads)) = (args.next(), args.next().and_then(|n| n.parse().ok()))
    else {
        eprintln!("usage: bare-pingora ADDR THREADS");
        std::process::exit(2);
    };
    let conf = ServerConf { threads, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None::<Opt>, conf);
    server.bootstrap();
    let responder = Responder {
        appended: AtomicU64::new(0),
        last_body: AtomicUsize::new(0),
        zeros: Bytes::from(vec![0; LARGEST]),
    };
    let mut service = http_proxy_service(&server.configuration, responder);
    service.add_tcp(&addr);
    server.add_service(service);
    server.run_forever();
}
