//! `healthcheck`: requests `/readyz` of a running server, for containers that have no curl.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use clap::Args;

use super::error::CliError;
use crate::config;

/// For connecting, and for each read.
const PATIENCE: Duration = Duration::from_secs(3);
/// More of an answer than this is not looked at.
const LONGEST: u64 = 4096;

#[derive(Debug, Args)]
pub(super) struct HealthcheckCommand {
    /// What to ask; any 2xx answer is healthy [default: /readyz of the admin listener, at
    /// DURABLE_STREAMS_ADMIN_LISTEN or 127.0.0.1:4438]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

/// The variable of `admin.listen`, which a container's server and its health check share.
const LISTEN_VARIABLE: &str = "DURABLE_STREAMS_ADMIN_LISTEN";

/// `/readyz` of the admin listener that the environment names. For an unspecified address
/// (0.0.0.0, ::) it is the loopback address.
fn default_url(variable: Option<&str>) -> Result<String, String> {
    let text = variable.map(str::trim).filter(|text| !text.is_empty());
    let mut address = match text {
        None => config::AdminConfig::default().listen,
        Some(text) => text.parse::<SocketAddr>().map_err(|_| {
            format!("{LISTEN_VARIABLE} = {text:?} is not an IP address and a port, such as 127.0.0.1:4438")
        })?,
    };
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    Ok(format!("http://{address}/readyz"))
}

impl HealthcheckCommand {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let url = match self.url {
            Some(url) => Ok(url),
            None => default_url(std::env::var(LISTEN_VARIABLE).ok().as_deref()),
        };
        let url = url.map_err(|why| CliError::Unhealthy { url: "the server".to_owned(), why })?;
        let unhealthy = |why: String| CliError::Unhealthy { url: url.clone(), why };
        let answer = ask(&url).map_err(unhealthy)?;
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
