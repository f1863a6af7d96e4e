//! `backup`: a copy of a data directory, of a running server or a stopped one.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;
use durable_streams_engine::store::{
    FileStoreOptions, StoreError,
    file::{
        Destination,
        offline::{self, BackupContents, LeftOut, OperationPhase, OperationStep, VerifiedTotals},
    },
};
use durable_streams_protocol::StreamPath;

use super::{
    error::OperateError,
    keys,
    place::DataDirectoryArguments,
    progress::{ByteCount, ProgressDisplay, count, say_copied},
};
use crate::cli::error::CliError;
use crate::server::backup_socket::client::copy_index;

#[derive(Debug, Args)]
pub(in crate::cli) struct BackupCommand {
    #[command(flatten)]
    place: DataDirectoryArguments,
    /// Where to: a directory that is empty or does not exist yet, on any file system
    #[arg(value_name = "DESTINATION")]
    to: PathBuf,
    /// Leave out the stream at this path, for instance one that is damaged; may be given several times
    #[arg(long, value_name = "PATH", value_parser = stream_path)]
    without: Vec<StreamPath>,
    /// Contain the segments that are in the object store only, too; otherwise the backup needs those objects, and lists them
    #[arg(long, requires = "config")]
    include_cold: bool,
}

fn stream_path(text: &str) -> Result<StreamPath, String> {
    StreamPath::system(text).map_err(|error| error.to_string())
}

impl BackupCommand {
    pub(in crate::cli) fn execute(self) -> Result<(), CliError> {
        let (options, objects) = self.place.with_objects(self.include_cold)?;
        let (to, without) = (&self.to, &self.without);
        let contents = BackupContents { without, objects: objects.as_ref() };
        let mut progress = ProgressDisplay::begin();
        let direct = offline::backup_with(&options, to, contents, &mut |step| progress.step(step));
        let (found, left_out) = match direct {
            // A server, most likely.
            Err(StoreError::Locked { path, holder }) if path == options.dir => {
                beside(&options, holder, to, contents, &mut progress)?
            }
            direct => direct?,
        };
        let took = progress.end();
        for LeftOut { path, id, bytes, .. } in &left_out {
            writeln!(io::stdout(), "left out {path} (stream {id}) with {}", ByteCount(*bytes))?;
        }
        say_copied("backed up", &found, &options.dir, to, &took)?;
        if found.objects > 0 {
            writeln!(
                io::stdout(),
                "it needs {} with {} in the object store, listed in {}; --include-cold makes a backup that needs none",
                count(found.objects, "segment"),
                ByteCount(found.object_bytes),
                to.join("OBJECTS").display(),
            )?;
        }
        Ok(keys::check(to)?)
    }
}

/// By way of the server that has the directory.
fn beside(
    options: &FileStoreOptions,
    holder: Option<u32>,
    to: &std::path::Path,
    contents: BackupContents<'_>,
    progress: &mut ProgressDisplay,
) -> Result<(VerifiedTotals, Vec<LeftOut>), CliError> {
    let to = Destination::prepare(to)?;
    let file = to.index_file()?;
    let copied = copy_index(&options.dir, &file, &mut |done, total| {
        progress.step(OperationStep { what: OperationPhase::Copying, done, total });
    });
    let _connection = copied.map_err(|error| OperateError::Server { error, holder })?;
    let mut each = |step| progress.step(step);
    Ok(to.complete(&options.dir, options.map_size, contents, &mut each)?)
}
