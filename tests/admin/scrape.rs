//! Reading `/metrics`.

use std::collections::HashMap;
use std::net::SocketAddr;

use durable_streams_server::edge::EdgeOptions;
use durable_streams_server::server::{AdminOptions, ServerOptions};

use crate::harness::{Client, Reply, TestServer};

/// A server with an admin listener.
pub(crate) fn server(edge: EdgeOptions) -> TestServer {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let admin = Some(AdminOptions { address, optional: false });
    TestServer::start_with(ServerOptions { edge, admin, ..ServerOptions::default() })
}

pub(crate) async fn ask(admin: SocketAddr, method: &str, path: &str) -> Reply {
    let mut client = Client::connect(admin).await;
    client.send(format!("{method} {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
    if method == "HEAD" { client.head().await } else { client.reply().await }
}

/// Samples by name and labels, as `name{label="value"}`.
pub(crate) struct Scrape {
    pub(crate) text: String,
    samples: HashMap<String, f64>,
}

impl Scrape {
    pub(crate) async fn of(admin: SocketAddr) -> Self {
        let reply = ask(admin, "GET", "/metrics").await;
        assert_eq!(reply.status, 200);
        assert!(reply.complete);
        let text = reply.text();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("name and value");
            (name.to_owned(), value.parse().expect("a number"))
        });
        let samples = samples.collect();
        Scrape { text, samples }
    }

    pub(crate) fn get(&self, sample: &str) -> f64 {
        match self.samples.get(sample) {
            Some(value) => *value,
            None => panic!("no {sample} in\n{}", self.text),
        }
    }

    /// Stream requests.
    pub(crate) fn requests(&self, method: &str, mode: &str, status: u16) -> f64 {
        let labels = format!(r#"method="{method}",mode="{mode}",status="{status}""#);
        let sample = format!("durable_streams_requests_total{{{labels}}}");
        self.samples.get(&sample).copied().unwrap_or(0.0)
    }

    /// The sum of all samples of a metric.
    pub(crate) fn total(&self, name: &str) -> f64 {
        let of = |(sample, value): (&String, &f64)| {
            (sample.split('{').next() == Some(name)).then_some(*value)
        };
        self.samples.iter().filter_map(of).sum()
    }
}
