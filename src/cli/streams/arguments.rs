//! Which stream of which server, and with what rights.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use durable_streams_client::{
    Client, ClientBuilder, ClientError, HttpVersion, RetryPolicy, StartFrom, Stream, StreamPosition,
};
use http::{HeaderName, HeaderValue};

use super::error::StreamCommandError;
use super::files;
use crate::cli::token::token;
use crate::config::{HumanDuration, parse_duration};

#[derive(Debug, Args)]
pub(super) struct ServerArguments {
    /// Where paths of streams are
    #[arg(
        long,
        value_name = "URL",
        env = "STREAMS_URL",
        default_value = "http://localhost:4437/v1/stream"
    )]
    server: String,
    /// The key or token to send; better in the environment or a file than on a command line that others can see
    #[arg(long, value_name = "TOKEN", env = "STREAMS_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// A file with the key or token
    #[arg(long, value_name = "FILE", env = "STREAMS_TOKEN_FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// A header to send with every request, as 'Name: value'; repeatable
    #[arg(long = "header", short = 'H', value_name = "HEADER", value_parser = header)]
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Certificates of the authorities to trust in place of the system's, PEM
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Speak HTTP/2, without TLS too
    #[arg(long)]
    http2: bool,
    /// How long to go on trying when the server is away or overloaded; for ever by default where the command follows
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    patience: Option<HumanDuration>,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as 'Name: value'")?;
    let name = name.trim().parse().map_err(|_| format!("{name:?} is no header name"))?;
    let value = value.trim().parse().map_err(|_| "the value is no header value".to_owned())?;
    Ok((name, value))
}

pub(super) fn duration(text: &str) -> Result<HumanDuration, String> {
    parse_duration(text)
}

/// A position of `--from`.
pub(super) fn start(text: &str) -> Result<StartFrom, String> {
    match text {
        "start" => Ok(StartFrom::Start),
        "now" => Ok(StartFrom::Now),
        text => text
            .parse::<StreamPosition>()
            .map(StartFrom::Position)
            .map_err(|_| "write start, now, or an offset that the server returned".to_owned()),
    }
}

impl ServerArguments {
    /// The handle of `place`, a path below the server's URL or a whole URL. Nothing is sent.
    pub(super) fn stream(&self, place: &str) -> Result<Stream, StreamCommandError> {
        Ok(self.client(place, self.token()?)?.stream(place)?)
    }

    /// The token of the options.
    pub(super) fn token(&self) -> Result<Option<String>, StreamCommandError> {
        token(self.token.as_deref(), self.token_file.as_deref(), files::read)
    }

    /// The file of the authorities to trust.
    pub(super) fn cacert(&self) -> Option<&Path> {
        self.cacert.as_deref()
    }

    /// A client for `place` with this token.
    pub(super) fn client(
        &self,
        place: &str,
        token: Option<String>,
    ) -> Result<Client, StreamCommandError> {
        let whole_url = place.starts_with("http://") || place.starts_with("https://");
        // The query of a signed URL is the stream's, not the server's.
        let without_query = place.split(['?', '#']).next().unwrap_or(place);
        let base = if whole_url { without_query } else { &self.server };
        let mut builder = Client::builder(base);
        if let Some(token) = token {
            builder = builder.token(&token)?;
        }
        for (name, value) in &self.headers {
            builder = builder.header(name.clone(), value.clone());
        }
        if let Some(path) = &self.cacert {
            builder = builder.root_certificates(files::read(path)?);
        }
        Ok(self.tuned(builder).build()?)
    }

    fn tuned(&self, builder: ClientBuilder) -> ClientBuilder {
        let builder = builder.retry(self.retry(Some(Duration::from_secs(30))));
        if self.http2 { builder.http_version(HttpVersion::Http2) } else { builder }
    }

    /// What `--patience` says, or `otherwise`.
    pub(super) fn retry(&self, otherwise: Option<Duration>) -> RetryPolicy {
        let give_up_after = self.patience.map(|patience| patience.get()).or(otherwise);
        RetryPolicy { give_up_after, ..RetryPolicy::default() }
    }
}

/// Runs a command to its end on this thread.
pub(super) fn run<T>(
    work: impl Future<Output = Result<T, StreamCommandError>>,
) -> Result<T, StreamCommandError> {
    runtime()?.block_on(work)
}

/// A runtime whose tasks also run while this thread waits for standard input.
pub(super) fn runtime() -> Result<tokio::runtime::Runtime, StreamCommandError> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(
        |error| {
            let reason = error.to_string();
            ClientError::InvalidArgument { what: "the runtime", reason }.into()
        },
    )
}
