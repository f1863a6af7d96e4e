//! `read` and `follow`: a stream to standard output.

use std::io;

use clap::Args;
use durable_streams_client::{FollowMode, StartFrom, StreamBatch};

use super::arguments::{ServerArguments, run, start};
use super::error::StreamCommandError;
use super::output::{BatchPrinter, LastLines};
use super::progress::StreamProgress;
use crate::cli::error::CliError;

/// Which part of a stream, and in which form.
#[derive(Debug, Args)]
struct ReadArguments {
    /// Path or URL of the stream
    stream: String,
    #[command(flatten)]
    server: ServerArguments,
    /// Where to begin: start, now, or an offset or position that was printed before
    #[arg(long, value_name = "POSITION", value_parser = start, default_value = "start")]
    from: StartFrom,
    /// Only the last of what is stored: messages of a JSON stream, lines of others; all of it is read for that
    #[arg(long, value_name = "NUMBER", conflicts_with = "json")]
    last: Option<usize>,
    /// One JSON object for each batch: its position, and its messages, text or base64
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ReadCommand {
    #[command(flatten)]
    arguments: ReadArguments,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct FollowCommand {
    #[command(flatten)]
    arguments: ReadArguments,
    /// Follow by long-poll instead of server-sent events
    #[arg(long)]
    long_poll: bool,
    /// Go on at the earliest offset where the server has removed what would come next
    #[arg(long)]
    skip_trimmed: bool,
}

/// Writes batches, the last lines first.
struct ReadOutput {
    printer: BatchPrinter,
    last: Option<LastLines>,
    progress: StreamProgress,
    bytes: u64,
}

impl ReadOutput {
    fn new(arguments: &ReadArguments) -> Self {
        ReadOutput {
            printer: BatchPrinter::new(arguments.json),
            last: arguments.last.map(LastLines::new),
            progress: StreamProgress::begin(true),
            bytes: 0,
        }
    }

    fn print(&mut self, batch: &StreamBatch) -> io::Result<()> {
        let bytes = batch.to_bytes().len() as u64;
        self.bytes += bytes;
        let total = self.bytes;
        self.progress.passed(bytes, || format!("{total} bytes"));
        match &mut self.last {
            Some(last) => {
                last.push(batch);
                Ok(())
            }
            None => self.printer.print(batch),
        }
    }

    /// What is stored has been read.
    fn caught_up(&mut self) -> io::Result<()> {
        match self.last.take() {
            Some(mut last) => self.printer.write(&last.take()),
            None => Ok(()),
        }
    }
}

impl ReadCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let arguments = &self.arguments;
        let printed = run(async {
            let mut output = ReadOutput::new(arguments);
            let stream = arguments.server.stream(&arguments.stream)?;
            let mut reader = stream.read(arguments.from.clone());
            while let Some(batch) = reader.next().await? {
                if let Err(error) = output.print(&batch) {
                    return Ok(Err(error));
                }
            }
            Ok(output.caught_up())
        })?;
        pipe_result(printed)
    }
}

impl FollowCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let arguments = &self.arguments;
        let printed = run(async {
            let mut output = ReadOutput::new(arguments);
            let stream = arguments.server.stream(&arguments.stream)?;
            let mut from = arguments.from.clone();
            if arguments.last.is_some() {
                let mut reader = stream.read(from);
                while let Some(batch) = reader.next().await? {
                    if let Err(error) = output.print(&batch) {
                        return Ok(Err(error));
                    }
                }
                from = StartFrom::Position(reader.position().clone());
                if let Err(error) = output.caught_up() {
                    return Ok(Err(error));
                }
            }
            let mode = if self.long_poll { FollowMode::LongPoll } else { FollowMode::Automatic };
            let mut subscription = stream.subscription(from).mode(mode);
            if self.skip_trimmed {
                subscription = subscription.skip_trimmed();
            }
            let mut subscription = subscription.retry(arguments.server.retry(None)).build();
            while let Some(batch) = subscription.next().await? {
                if let Err(error) = output.print(&batch) {
                    return Ok(Err(error));
                }
            }
            Ok::<_, StreamCommandError>(Ok(()))
        })?;
        pipe_result(printed)
    }
}

/// A reader of the pipe that has seen enough, such as `head`, is no failure.
pub(super) fn pipe_result(printed: io::Result<()>) -> Result<(), CliError> {
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => Ok(printed?),
    }
}
