//! `healthcheck`: asks a running server whether it is ready, for containers that have no curl.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use clap::Args;

use super::CliError;

/// For connecting, and for each read.
const PATIENCE: Duration = Duration::from_secs(3);
/// More of an answer than this is not looked at.
const LONGEST: u64 = 4096;

#[derive(Debug, Args)]
pub(super) struct Healthcheck {
    /// What to ask; any 2xx answer is healthy
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:4438/readyz")]
    url: String,
}

impl Healthcheck {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let url = &self.url;
        let unhealthy = |why: String| CliError::Unhealthy { url: url.clone(), why };
        let answer = ask(url).map_err(unhealthy)?;
        let status = answer.split_ascii_whitespace().nth(1).unwrap_or_default();
        if answer.starts_with("HTTP/1.") && status.starts_with('2') {
            return Ok(());
        }
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        Err(unhealthy(format!("{status} {}", body.trim())))
    }
}

/// The answer to a GET, head and body.
fn ask(url: &str) -> Result<String, String> {
    let uri: http::Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
    if uri.scheme_str() != Some("http") {
        return Err("not an http:// URL".to_owned());
    }
    let authority = uri.authority().ok_or("the URL names no host")?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(80);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let addresses = (host, port).to_socket_addrs().map_err(|error| error.to_string())?;
    let mut why = "the host has no address".to_owned();
    for address in addresses {
        match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => return exchange(stream, authority.as_str(), path),
            Err(error) => why = format!("cannot connect to {address}: {error}"),
        }
    }
    Err(why)
}

fn exchange(mut stream: TcpStream, host: &str, path: &str) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("no answer: {error}");
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).map_err(failed)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
