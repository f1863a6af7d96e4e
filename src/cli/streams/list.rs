//! `list`: the streams of a server, which its administration API knows; the protocol has no listing.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::arguments::run;
use super::error::StreamCommandError;
use super::files;
use crate::cli::admin::client::{DEFAULT_LISTENER, http_client};
use crate::cli::error::CliError;
use crate::cli::token::admin_token;

/// Streams on a page of the API; its bound.
const PAGE: &str = "1000";
/// For the whole of one page.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct ListingArguments {
    /// The server's administration API
    #[arg(
        long,
        value_name = "URL",
        env = "STREAMS_ADMIN_URL",
        default_value = DEFAULT_LISTENER
    )]
    admin: String,
    /// The key for it, one that may administer [env: STREAMS_ADMIN_TOKEN, or else STREAMS_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    admin_token: Option<String>,
    /// A file with the key [env: STREAMS_ADMIN_TOKEN_FILE, or else STREAMS_TOKEN_FILE]
    #[arg(long, value_name = "FILE", conflicts_with = "admin_token")]
    admin_token_file: Option<PathBuf>,
    /// Streams of this tenant, by its own paths
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ListCommand {
    /// What the paths begin with [default: all streams]
    #[arg(default_value = "")]
    prefix: String,
    #[command(flatten)]
    admin: ListingArguments,
    /// Certificates of the authorities to trust in place of the system's, PEM
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// One JSON object for each stream, as the API returns it
    #[arg(long)]
    json: bool,
}

/// The streams below a prefix, page by page, in the order of their paths.
pub(super) struct StreamListing {
    http: reqwest::Client,
    url: reqwest::Url,
    token: Option<String>,
    cursor: Option<String>,
    ended: bool,
}

#[derive(Deserialize)]
struct ListedPage {
    streams: Vec<Box<RawValue>>,
    cursor: Option<String>,
}

/// What the table shows of a stream.
#[derive(Deserialize)]
pub(super) struct ListedStream {
    pub(super) path: String,
    tenant: Option<String>,
    #[serde(default)]
    content_type: String,
    position: Option<u64>,
    #[serde(default)]
    closed: bool,
    ttl_seconds: Option<u64>,
    expires_at: Option<String>,
    error: Option<String>,
}

impl ListingArguments {
    /// The streams whose paths begin with `prefix`; `cacert` has the authorities to trust. Nothing is sent yet.
    pub(super) fn streams(
        &self,
        prefix: &str,
        cacert: Option<&Path>,
    ) -> Result<StreamListing, StreamCommandError> {
        let unusable = |reason: &dyn std::fmt::Display| {
            StreamCommandError::Usage(format!("--admin {}: {reason}", self.admin))
        };
        let base = self.admin.trim_end_matches('/');
        let mut url = reqwest::Url::parse(&format!("{base}/admin/v1/streams"))
            .map_err(|error| unusable(&error))?;
        url.query_pairs_mut().append_pair("limit", PAGE).append_pair("prefix", prefix);
        if let Some(tenant) = &self.tenant {
            url.query_pairs_mut().append_pair("tenant", tenant);
        }
        let file = self.admin_token_file.as_deref();
        let token = admin_token(self.admin_token.as_deref(), file, files::read)?;
        let roots = cacert.map(files::read).transpose()?;
        let http = http_client(TIMEOUT, roots.as_deref()).map_err(|error| unusable(&error))?;
        Ok(StreamListing { http, url, token, cursor: None, ended: false })
    }
}

impl StreamListing {
    /// The next page, as the API writes its streams; `None` after the last one.
    async fn next_page(&mut self) -> Result<Option<Vec<Box<RawValue>>>, StreamCommandError> {
        if self.ended {
            return Ok(None);
        }
        let mut url = self.url.clone();
        if let Some(cursor) = &self.cursor {
            url.query_pairs_mut().append_pair("cursor", cursor);
        }
        let mut request = self.http.get(url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let place = || self.url.origin().ascii_serialization();
        let unreachable = |error: reqwest::Error| StreamCommandError::Unlisted {
            place: place(),
            status: None,
            reason: error.without_url().to_string(),
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let body = response.bytes().await.map_err(unreachable)?;
        let page = match status.is_success() {
            true => serde_json::from_slice::<ListedPage>(&body).map_err(|error| error.to_string()),
            false => Err(refusal(&body)),
        };
        let page = page.map_err(|reason| StreamCommandError::Unlisted {
            place: place(),
            status: Some(status.as_u16()),
            reason,
        })?;
        self.ended = page.cursor.is_none();
        self.cursor = page.cursor;
        Ok(Some(page.streams))
    }

    /// The paths of the next page.
    pub(super) async fn next_paths(&mut self) -> Result<Option<Vec<String>>, StreamCommandError> {
        let Some(page) = self.next_page().await? else { return Ok(None) };
        let paths = page.iter().map(|text| parsed(text).map(|stream| stream.path));
        paths.collect::<Result<_, _>>().map(Some)
    }
}

/// Why the API refused, in its own words where it has some.
fn refusal(body: &[u8]) -> String {
    let problem = durable_streams_protocol::ProblemDetails::parse(body).unwrap_or_default();
    match problem.code.is_empty() {
        true => "there is no administration API at this URL, or it is off".to_owned(),
        false => format!("{}: {}", problem.code, problem.detail),
    }
}

fn parsed(text: &RawValue) -> Result<ListedStream, StreamCommandError> {
    serde_json::from_str(text.get()).map_err(|error| {
        StreamCommandError::Usage(format!(
            "the administration API lists what is no stream: {error}"
        ))
    })
}

impl ListCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let table = !self.json && std::io::stdout().is_terminal();
        let written = run(async {
            let mut listing = self.admin.streams(&self.prefix, self.cacert.as_deref())?;
            while let Some(page) = listing.next_page().await? {
                let mut out = String::new();
                for text in &page {
                    if self.json {
                        out += text.get();
                    } else {
                        let stream = parsed(text)?;
                        out += &if table { stream.row() } else { stream.path };
                    }
                    out.push('\n');
                }
                let mut stdout = std::io::stdout().lock();
                if let Err(error) = stdout.write_all(out.as_bytes()).and_then(|()| stdout.flush()) {
                    return Ok(Err(error));
                }
            }
            Ok(Ok(()))
        })?;
        super::read::pipe_result(written)
    }
}

impl ListedStream {
    /// A line for people: how much, of which type, where, and what ends it.
    fn row(&self) -> String {
        let size = match (&self.error, self.position) {
            (Some(error), _) => error.clone(),
            (None, position) => position.unwrap_or_default().to_string(),
        };
        let tenant = self.tenant.as_ref().map(|tenant| format!(" tenant {tenant}"));
        let closed = self.closed.then(|| " closed".to_owned());
        let ttl = self.ttl_seconds.map(|seconds| format!(" ttl {seconds} s"));
        let expiry = self.expires_at.as_ref().map(|time| format!(" until {time}"));
        let notes = [tenant, closed, ttl, expiry].into_iter().flatten().collect::<String>();
        format!("{size:>14}  {:<26} {}{notes}", self.content_type, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_a_stream_is() {
        let row = |text: &str| serde_json::from_str::<ListedStream>(text).unwrap().row();
        let whole = r#"{"path":"a/b","content_type":"text/plain","position":12,"closed":true,
            "ttl_seconds":60,"tenant":null,"unknown":1}"#;
        assert_eq!(row(whole), "            12  text/plain                 a/b closed ttl 60 s");
        assert!(row(r#"{"path":"a","error":"stream-damaged"}"#).starts_with("stream-damaged  "));
    }
}
