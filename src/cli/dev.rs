//! `dev`: start at once, in memory; and what a newcomer reads then.

use std::net::{IpAddr, SocketAddr};

use clap::Args;

use super::{error::CliError, logging};
use crate::config::{self, Config, DEFAULT_PORT, HostPattern};
use crate::server::{self, Mode};

#[derive(Debug, Args)]
pub(super) struct DevCommand {
    /// Address to listen on [default: 127.0.0.1 and ::1]; 0.0.0.0 or :: to be reachable from
    /// outside
    #[arg(long, value_name = "IP", value_parser = parse_host)]
    host: Option<ListenHost>,
    /// Port to listen on; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = DEFAULT_PORT)]
    port: u16,
    /// Host that requests may name besides localhost, such as a container's name, *.test or the
    /// host of your page; may be repeated, and '*' allows all, which lets any web page use this server
    #[arg(long, value_name = "HOST", value_parser = parse_allowed)]
    allow_host: Vec<AllowedHost>,
}

/// A value of `--allow-host`.
#[derive(Clone, Debug)]
enum AllowedHost {
    Any,
    Matching(HostPattern),
}

fn parse_allowed(text: &str) -> Result<AllowedHost, String> {
    match text {
        "*" => Ok(AllowedHost::Any),
        _ => config::parse_host(text).map(AllowedHost::Matching),
    }
}

/// Both loopback addresses, or one address.
#[derive(Clone, Copy, Debug)]
enum ListenHost {
    Loopback,
    Ip(IpAddr),
}

fn parse_host(text: &str) -> Result<ListenHost, String> {
    if text == "localhost" {
        return Ok(ListenHost::Loopback);
    }
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse().map(ListenHost::Ip).map_err(|_| "write an IP address, or localhost".to_owned())
}

impl DevCommand {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let host = match self.host {
            Some(ListenHost::Ip(ip)) => Some(ip),
            Some(ListenHost::Loopback) | None => None,
        };
        let allowed = self.allow_host.into_iter().map(|allowed| match allowed {
            AllowedHost::Any => None,
            AllowedHost::Matching(host) => Some(host),
        });
        let config = Config::dev(host, self.port, allowed.collect());
        config.validate()?;
        logging::start(&config)?;
        let route = config.route.as_str().to_owned();
        server::run(&config, Mode::Dev, None, |addresses, admin| {
            print!("{}", banner(addresses, &route, admin));
        })?;
        Ok(())
    }
}

/// What `dev` prints once the server listens on `addresses`: where it is, what it keeps, three
/// commands to paste, and how to stop.
pub fn banner(addresses: &[SocketAddr], route: &str, admin: Option<SocketAddr>) -> String {
    let url = base_url(addresses);
    let listening: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let listening = listening.join(" and ");
    let admin = match admin {
        Some(address) => format!("http://{address}/ (page, health, metrics)"),
        None => "off: its port is taken".to_owned(),
    };
    format!(
        "\
durable-streams-server is ready

  URL      {url}
  Streams  {url}{route}/<name>
  Listens  {listening}
  Admin    {admin}
  Storage  in memory: nothing survives a restart

Try it in a second terminal:

  # create a stream
  curl -i -X PUT '{url}{route}/hello' -H 'Content-Type: text/plain'

  # append to it
  curl -i -X POST '{url}{route}/hello' -H 'Content-Type: text/plain' -d 'Hello, world!'

  # read it from the start, and follow it (Ctrl-C ends)
  curl -N '{url}{route}/hello?offset=-1&live=sse'

Press Ctrl-C to stop.
"
    )
}

/// The URL to show: one that works on this machine, by name where that is reachable.
fn base_url(addresses: &[SocketAddr]) -> String {
    let local = |address: &&SocketAddr| address.ip().is_loopback() || address.ip().is_unspecified();
    let Some(shown) = addresses.iter().find(local).or_else(|| addresses.first()) else {
        return format!("http://localhost:{DEFAULT_PORT}");
    };
    // `localhost` may resolve to either family; with one port for both, or an address for all, it
    // is right whichever is taken.
    let families = addresses.iter().filter(|a| local(a) && a.port() == shown.port());
    let both =
        families.clone().any(SocketAddr::is_ipv4) && families.clone().any(SocketAddr::is_ipv6);
    if both || shown.ip().is_unspecified() {
        format!("http://localhost:{}", shown.port())
    } else {
        format!("http://{shown}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_url_works_where_it_is_pasted() {
        for (bound, url) in [
            (&["127.0.0.1:4437", "[::1]:4437"][..], "http://localhost:4437"),
            (&["127.0.0.1:4001", "[::1]:4002"], "http://127.0.0.1:4001"),
            (&["127.0.0.1:4437"], "http://127.0.0.1:4437"),
            (&["[::1]:4437"], "http://[::1]:4437"),
            (&["0.0.0.0:80"], "http://localhost:80"),
            (&["192.0.2.1:4437"], "http://192.0.2.1:4437"),
            (&["192.0.2.1:4437", "127.0.0.1:4437"], "http://127.0.0.1:4437"),
        ] {
            assert_eq!(base_url(&addresses(bound)), url, "{bound:?}");
        }
    }

    #[test]
    fn the_banner_says_all_a_newcomer_needs() {
        let text = banner(
            &addresses(&["127.0.0.1:4437", "[::1]:4437"]),
            "/v1/stream",
            "127.0.0.1:4438".parse().ok(),
        );
        let commands: Vec<&str> =
            text.lines().map(str::trim).filter(|line| line.starts_with("curl ")).collect();
        assert_eq!(commands.len(), 3, "create, append, read");
        for (command, part) in commands.iter().zip(["-X PUT", "-X POST", "offset=-1&live=sse"]) {
            assert!(command.contains("http://localhost:4437/v1/stream/hello"), "{command}");
            assert!(command.contains(part), "{command}");
            // Shells take `&` and `[::1]` for their own.
            assert_eq!(command.matches('\'').count() % 2, 0, "{command}");
        }
        for part in [
            "nothing survives a restart",
            "Ctrl-C to stop",
            "/v1/stream/<name>",
            "http://127.0.0.1:4438/",
        ] {
            assert!(text.contains(part), "{part}");
        }
    }
}
