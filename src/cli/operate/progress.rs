//! The progress of a command on standard error, and figures formatted for people.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    path::Path,
    time::{Duration, Instant},
};

use durable_streams_engine::store::file::offline::{OperationPhase, OperationStep, VerifiedTotals};

/// Between two looks of a terminal.
const OFTEN: Duration = Duration::from_millis(200);
/// Between two lines of a log.
const SPARSELY: Duration = Duration::from_secs(30);

/// Writes to standard error: one line that changes on a terminal, a line every half minute elsewhere.
pub(super) struct ProgressDisplay {
    began: Instant,
    said: Instant,
    terminal: bool,
    open: bool,
}

impl ProgressDisplay {
    pub(super) fn begin() -> Self {
        let (now, terminal) = (Instant::now(), std::io::stderr().is_terminal());
        ProgressDisplay { began: now, said: now, terminal, open: false }
    }

    pub(super) fn step(&mut self, step: OperationStep) {
        let pause = if self.terminal { OFTEN } else { SPARSELY };
        if self.said.elapsed() < pause {
            return;
        }
        self.said = Instant::now();
        let (from, to) = if self.terminal { ("\r\x1b[2K", "") } else { ("", "\n") };
        // Standard error may be closed; the command must not fail for that.
        let _ = write!(std::io::stderr(), "{from}{}{to}", ProgressLine(step));
        self.open = self.terminal;
    }

    /// Clears the progress line and returns the elapsed time.
    pub(super) fn end(self) -> ElapsedTime {
        ElapsedTime(self.began.elapsed())
    }
}

impl Drop for ProgressDisplay {
    fn drop(&mut self) {
        if self.open {
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }
}

struct ProgressLine(OperationStep);

impl fmt::Display for ProgressLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OperationStep { what, done, total } = self.0;
        match what {
            OperationPhase::Copying => {
                write!(f, "copying: {} of {}", ByteCount(done), ByteCount(total))?
            }
            OperationPhase::Checking => write!(f, "checking the index: {done} of {total} records")?,
            OperationPhase::Reading => write!(f, "reading the log: {done} events")?,
            OperationPhase::Purging => write!(f, "removing deleted streams: {done} rounds")?,
        }
        match total {
            0 => Ok(()),
            // The total is an estimate, and records may be looked at twice.
            _ => write!(f, " ({} %)", (u128::from(done) * 100 / u128::from(total)).min(100)),
        }
    }
}

/// A number of bytes, to three digits or so.
pub(super) struct ByteCount(pub(super) u64);

impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0 as f64;
        for unit in ["B", "KiB", "MiB", "GiB"] {
            if rest < 1024.0 {
                let digits = usize::from(unit != "B");
                return write!(f, "{rest:.digits$} {unit}");
            }
            rest /= 1024.0;
        }
        write!(f, "{rest:.1} TiB")
    }
}

/// A duration.
pub(super) struct ElapsedTime(Duration);

impl fmt::Display for ElapsedTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s", self.0.as_secs_f64())
    }
}

/// The last line of a command that has copied a data directory.
pub(super) fn say_copied(
    done: &str,
    found: &VerifiedTotals,
    from: &Path,
    to: &Path,
    took: &ElapsedTime,
) -> io::Result<()> {
    writeln!(
        io::stdout(),
        "{done} {} with {} up to event {} from {} to {} in {took}; every checksum matches",
        count(found.streams, "stream"),
        ByteCount(found.bytes),
        found.lsn,
        from.display(),
        to.display(),
    )
}

/// A number of things.
pub(super) fn count(number: u64, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_234_567, "1.2 MiB"),
            (5 << 30, "5.0 GiB"),
            (3 << 50, "3072.0 TiB"),
        ] {
            assert_eq!(ByteCount(bytes).to_string(), text);
        }
        assert_eq!((count(1, "event"), count(0, "event")), ("1 event".into(), "0 events".into()));
    }

    #[test]
    fn a_line_says_what_is_done() {
        let line =
            |what, done, total| ProgressLine(OperationStep { what, done, total }).to_string();
        assert_eq!(line(OperationPhase::Copying, 512, 2048), "copying: 512 B of 2.0 KiB (25 %)");
        assert_eq!(
            line(OperationPhase::Checking, 3, 2),
            "checking the index: 3 of 2 records (100 %)"
        );
        assert_eq!(line(OperationPhase::Reading, 7, 0), "reading the log: 7 events");
    }
}
