//! How far a command is, on a terminal.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

/// A line on standard error that changes. Writes nothing where that is no terminal.
pub(super) struct StreamProgress {
    terminal: bool,
    /// Bytes that have passed since the line was written.
    since: u64,
    open: bool,
}

/// Between two changes of the line, bytes.
const STEP: u64 = 1 << 20;

impl StreamProgress {
    /// Of a command whose data goes to standard output when `data_on_stdout`: on a terminal that is enough to see.
    pub(super) fn begin(data_on_stdout: bool) -> Self {
        let hidden = data_on_stdout && std::io::stdout().is_terminal();
        let terminal = std::io::stderr().is_terminal() && !hidden;
        StreamProgress { terminal, since: 0, open: false }
    }

    /// `bytes` more have passed.
    pub(super) fn passed(&mut self, bytes: u64, line: impl FnOnce() -> String) {
        self.since += bytes;
        if self.terminal && self.since >= STEP {
            self.since = 0;
            // Standard error may be closed; the command must not fail for that.
            let _ = write!(std::io::stderr(), "\r\x1b[2K{}", line());
            self.open = true;
        }
    }

    /// A last line.
    pub(super) fn end(mut self, line: impl Display) {
        self.clear();
        if self.terminal {
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.open) {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }
}

impl Drop for StreamProgress {
    fn drop(&mut self) {
        self.clear();
    }
}
