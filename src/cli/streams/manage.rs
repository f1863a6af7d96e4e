//! `create`, `head`, `close`, `delete`, `trim` and `expire`.

use std::io::Write;

use clap::Args;
use durable_streams_client::{ContentType, CreateOptions, Expiry, StreamOffset, Timestamp};

use super::arguments::{ServerArguments, duration, run};
use super::error::StreamCommandError;
use crate::cli::error::CliError;
use crate::config::HumanDuration;

#[derive(Debug, Args)]
pub(in crate::cli) struct CreateCommand {
    /// Path or URL of the stream
    stream: String,
    #[command(flatten)]
    server: ServerArguments,
    /// Its content type [default: application/octet-stream, or that of the source of a fork]
    #[arg(long = "type", short = 't', value_name = "TYPE", value_parser = content_type)]
    content_type: Option<ContentType>,
    /// A stream of JSON messages: --type application/json
    #[arg(long, conflicts_with = "content_type")]
    json: bool,
    /// Goes away after this long without a read or a write
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<HumanDuration>,
    /// Goes away at this time, as in 2030-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time, conflicts_with = "ttl")]
    expires_at: Option<Timestamp>,
    /// Its first data
    #[arg(long, value_name = "TEXT")]
    data: Option<String>,
    /// Closed from the beginning: --data is all there will be
    #[arg(long)]
    closed: bool,
    /// Begins as this stream of the same server
    #[arg(long, value_name = "STREAM")]
    fork_of: Option<String>,
    /// Where the fork leaves its source [default: the source's tail]
    #[arg(long, value_name = "OFFSET", value_parser = offset, requires = "fork_of")]
    fork_offset: Option<StreamOffset>,
}

fn content_type(text: &str) -> Result<ContentType, String> {
    ContentType::from_header(text).map_err(|error| error.to_string())
}

fn time(text: &str) -> Result<Timestamp, String> {
    let wrong = "write an RFC 3339 time, as in 2030-01-31T12:00:00Z";
    Timestamp::parse_rfc3339(text).ok_or_else(|| wrong.to_owned())
}

fn offset(text: &str) -> Result<StreamOffset, String> {
    StreamOffset::new(text).ok_or_else(|| "write an offset that the server returned".to_owned())
}

impl CreateCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        Ok(run(async {
            let stream = self.server.stream(&self.stream)?;
            let mut options = match (&self.fork_of, &self.content_type) {
                (Some(source), _) => {
                    let source = stream.client().stream(source)?;
                    CreateOptions::fork_of(&source, self.fork_offset.clone())
                }
                (None, Some(content_type)) => CreateOptions::of_type(content_type),
                (None, None) if self.json => CreateOptions::json(),
                (None, None) => CreateOptions::default(),
            };
            if let Some(ttl) = self.ttl {
                options = options.ttl(ttl.get());
            }
            if let Some(time) = self.expires_at {
                options = options.expires_at(time);
            }
            if let Some(data) = &self.data {
                options = options.data(data.clone());
            }
            if self.closed {
                options = options.closed();
            }
            stream.create(&options).await?;
            Ok::<_, StreamCommandError>(())
        })?)
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct HeadCommand {
    /// Path or URL of the stream
    stream: String,
    #[command(flatten)]
    server: ServerArguments,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

impl HeadCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let stream = self.server.stream(&self.stream)?;
        let head = run(async { Ok(stream.head().await?) })?;
        let (ttl, expires_at) = match head.expiry {
            Expiry::Never => (None, None),
            Expiry::Ttl(seconds) => (Some(seconds), None),
            Expiry::At(time) => (None, Some(time.to_string())),
        };
        let content_type = head.content_type.unwrap_or_default();
        let mut fields = vec![
            ("url", stream.url().into()),
            ("content_type", content_type.as_str().into()),
            ("offset", head.tail.as_str().into()),
            ("closed", head.closed.into()),
        ];
        let earliest = head.earliest.as_ref();
        fields.extend(earliest.map(|earliest| ("earliest", earliest.as_str().into())));
        fields.extend(ttl.map(|seconds| ("ttl_seconds", seconds.into())));
        fields.extend(expires_at.map(|time| ("expires_at", time.into())));
        let mut out = std::io::stdout().lock();
        if self.json {
            let fields = fields.into_iter().map(|(name, value)| (name.to_owned(), value));
            writeln!(out, "{}", serde_json::Value::Object(fields.collect()))?;
        } else {
            for (name, value) in fields {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                writeln!(out, "{name}: {text}")?;
            }
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct CloseCommand {
    /// Path or URL of the stream
    stream: String,
    #[command(flatten)]
    server: ServerArguments,
}

impl CloseCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let stream = self.server.stream(&self.stream)?;
        run(async { Ok(stream.close().await.map(|_| ())?) })?;
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DeleteCommand {
    /// Path or URL of the stream
    stream: String,
    #[command(flatten)]
    server: ServerArguments,
}

impl DeleteCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let stream = self.server.stream(&self.stream)?;
        run(async { Ok(stream.delete().await?) })?;
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct TrimCommand {
    /// Path or URL of the stream
    stream: String,
    #[command(flatten)]
    server: ServerArguments,
    /// Remove what is before this offset
    #[arg(long, value_name = "OFFSET", value_parser = offset)]
    before: StreamOffset,
}

impl TrimCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let stream = self.server.stream(&self.stream)?;
        let earliest = run(async { Ok(stream.trim(&self.before).await?) })?;
        writeln!(std::io::stdout(), "{earliest}")?;
        Ok(())
    }
}

#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("expiry").required(true).args(["ttl", "at", "never"])))]
pub(in crate::cli) struct ExpireCommand {
    /// Path or URL of the stream
    stream: String,
    #[command(flatten)]
    server: ServerArguments,
    /// After this long without a read or a write, from now on
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<HumanDuration>,
    /// At this time, as in 2030-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    at: Option<Timestamp>,
    /// Not at all
    #[arg(long)]
    never: bool,
}

impl ExpireCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let stream = self.server.stream(&self.stream)?;
        let expiry = match (self.ttl, self.at) {
            (Some(ttl), _) => Expiry::Ttl(ttl.get().as_secs()),
            (None, Some(time)) => Expiry::At(time),
            (None, None) => Expiry::Never,
        };
        run(async { Ok(stream.change_expiry(expiry).await?) })?;
        Ok(())
    }
}
