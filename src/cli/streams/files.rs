//! The files that commands on streams read and write.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::error::StreamCommandError;

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> StreamCommandError {
    let path = path.to_owned();
    |source| StreamCommandError::File { path, source }
}

/// A small file, such as a token, a certificate or a list.
pub(super) fn read(path: &Path) -> Result<String, StreamCommandError> {
    fs::read_to_string(path).map_err(failed(path))
}

/// A file that lines are added to, for this process alone.
pub(super) struct LineLog {
    file: File,
    path: PathBuf,
}

impl LineLog {
    /// Opens `path`, which may not exist, and returns its whole lines. `None` while another process has it.
    pub(super) fn open(path: &Path) -> Result<Option<(String, LineLog)>, StreamCommandError> {
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed(path))?;
        if file.try_lock().is_err() {
            return Ok(None);
        }
        let mut text = read(path)?;
        // A line that a crash has cut is no line; what follows must not join it.
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        file.set_len(text.len() as u64).map_err(failed(path))?;
        Ok(Some((text, LineLog { file, path: path.to_owned() })))
    }

    /// Adds a line, which then survives a crash.
    pub(super) fn add(&mut self, line: &str) -> Result<(), StreamCommandError> {
        let written = self.file.write_all(format!("{line}\n").as_bytes());
        written.and_then(|()| self.file.sync_data()).map_err(failed(&self.path))
    }
}
