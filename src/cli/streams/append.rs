//! `append`: standard input to a stream, each message once.

use std::io::{BufRead, Read, Write};

use clap::{Args, ValueEnum};
use durable_streams_client::{ContentType, CreateOptions, Delivery, Producer, StreamOffset};

use super::arguments::{ServerArguments, runtime};
use super::error::StreamCommandError;
use super::progress::StreamProgress;
use crate::cli::error::CliError;

/// A piece of standard input that becomes one message, bytes.
const PIECE: usize = 64 << 10;
/// The longest line, bytes.
const LONGEST_LINE: u64 = 16 << 20;

#[derive(Debug, Args)]
pub(in crate::cli) struct AppendCommand {
    /// Path or URL of the stream
    stream: String,
    #[command(flatten)]
    server: ServerArguments,
    /// How standard input is cut into messages [default: ndjson for streams of application/json, bytes for others]
    #[arg(long, value_name = "FORM", value_enum)]
    input: Option<InputForm>,
    /// One JSON message a line: --input ndjson
    #[arg(long, conflicts_with = "input")]
    json: bool,
    /// Append this in place of standard input
    #[arg(long, value_name = "TEXT")]
    data: Option<String>,
    /// Create the stream if it is missing, of this type
    #[arg(long, value_name = "TYPE")]
    create: Option<String>,
    /// The name that the server knows this writer by; it then takes each message once, also from the next run with the
    /// same --epoch and input [default: a random one]
    #[arg(long, value_name = "ID")]
    producer_id: Option<String>,
    /// The session of the producer; a newer one ends all older [default: newer than all before]
    #[arg(long, value_name = "NUMBER", requires = "producer_id")]
    epoch: Option<u64>,
    /// Close the stream with the last message
    #[arg(long)]
    close: bool,
    /// Print the offset after the last message
    #[arg(long)]
    print_offset: bool,
}

/// How standard input is cut into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum InputForm {
    /// As it comes
    Bytes,
    /// A message for each line, its end included; of a JSON stream, a string without it
    Lines,
    /// A JSON message for each line
    Ndjson,
}

impl AppendCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let offset = self.append()?;
        if self.print_offset {
            writeln!(std::io::stdout(), "{offset}")?;
        }
        Ok(())
    }

    fn append(&self) -> Result<StreamOffset, StreamCommandError> {
        let runtime = runtime()?;
        let stream = self.server.stream(&self.stream)?;
        let head = runtime.block_on(async {
            if let Some(kind) = &self.create {
                let kind = ContentType::from_header(kind)
                    .map_err(|error| StreamCommandError::Usage(error.to_string()))?;
                stream.create(&CreateOptions::of_type(&kind)).await?;
            }
            Ok::<_, StreamCommandError>(stream.head().await?)
        })?;
        let content_type = head.content_type.clone().unwrap_or_default();
        let json = content_type.is_json();
        let form = match self.input {
            Some(form) => form,
            None if self.json || json => InputForm::Ndjson,
            None => InputForm::Bytes,
        };
        let random = || format!("cli-{:016x}", fastrand::u64(..));
        let id = self.producer_id.clone().unwrap_or_else(random);
        let mut builder = stream.producer(&id).content_type(content_type);
        builder = builder.retry(self.server.retry(Some(std::time::Duration::from_secs(30))));
        match (self.epoch, &self.producer_id) {
            (Some(epoch), _) => {
                // So that the same input is cut in the same way again: by size alone.
                builder = builder.epoch(epoch).linger(std::time::Duration::from_secs(3600));
            }
            // A name that no producer has had.
            (None, None) => builder = builder.epoch(0),
            (None, Some(_)) => {}
        }
        let producer = runtime.block_on(builder.start())?;
        let mut input = InputFeed {
            producer: &producer,
            runtime: &runtime,
            json,
            last: None,
            messages: 0,
            bytes: 0,
            progress: StreamProgress::begin(false),
        };
        let fed = match &self.data {
            Some(data) => input.push(data.as_bytes()),
            None => input.feed(form),
        };
        let InputFeed { last, messages, bytes, progress, .. } = input;
        // What was read before standard input failed is appended all the same.
        let offset = runtime.block_on(async {
            if self.close && fed.is_ok() {
                return producer.close_stream().await;
            }
            producer.close().await?;
            match last {
                Some(delivery) => delivery.await,
                None => Ok(head.tail),
            }
        })?;
        fed?;
        progress.end(format_args!("appended {messages} messages, {bytes} bytes"));
        Ok(offset)
    }
}

/// Standard input on its way to a producer.
struct InputFeed<'a> {
    producer: &'a Producer,
    runtime: &'a tokio::runtime::Runtime,
    json: bool,
    last: Option<Delivery>,
    messages: u64,
    bytes: u64,
    progress: StreamProgress,
}

impl InputFeed<'_> {
    fn push(&mut self, message: &[u8]) -> Result<(), StreamCommandError> {
        if message.is_empty() {
            return Ok(());
        }
        self.last = Some(self.runtime.block_on(self.producer.append(message))?);
        self.messages += 1;
        self.bytes += message.len() as u64;
        let (messages, bytes) = (self.messages, self.bytes);
        self.progress
            .passed(message.len() as u64, || format!("{messages} messages, {bytes} bytes"));
        Ok(())
    }

    fn feed(&mut self, form: InputForm) -> Result<(), StreamCommandError> {
        let mut stdin = std::io::stdin().lock();
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            match form {
                InputForm::Bytes => {
                    let piece = stdin.fill_buf().map_err(StreamCommandError::Input)?;
                    buffer.extend_from_slice(piece.get(..PIECE).unwrap_or(piece));
                    stdin.consume(buffer.len());
                }
                InputForm::Lines | InputForm::Ndjson => {
                    let mut line = Read::take(&mut stdin, LONGEST_LINE);
                    line.read_until(b'\n', &mut buffer).map_err(StreamCommandError::Input)?;
                    if buffer.len() as u64 == LONGEST_LINE {
                        let error = format!("a line is longer than {LONGEST_LINE} bytes");
                        return Err(StreamCommandError::Usage(error));
                    }
                }
            }
            if buffer.is_empty() {
                return Ok(());
            }
            match form {
                InputForm::Bytes => self.push(&buffer)?,
                InputForm::Lines if self.json => {
                    let line = String::from_utf8_lossy(without_end(&buffer));
                    self.push(serde_json::Value::from(line).to_string().as_bytes())?;
                }
                InputForm::Lines => self.push(&buffer)?,
                InputForm::Ndjson => self.push(buffer.trim_ascii())?,
            }
        }
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
