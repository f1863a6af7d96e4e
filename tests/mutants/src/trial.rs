//! Runs one test in a process of its own, within limits.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::compile::TestBinary;
use crate::{Options, Result};

/// What a process may have: 4 GiB of memory, files of 1 GiB, no core dump; the maps of files do not count. Twenty minutes of a
/// processor end what is left of a run that was killed.
const LIMITS: &str =
    "ulimit -c 0; ulimit -d 4194304; ulimit -f 2097152; ulimit -t 1200; exec \"$@\"";

/// A file system in memory, where there is one.
const MEMORY: &str = "/dev/shm";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    TimedOut,
}

/// What the switches of a process do.
pub(crate) enum Switch<'a> {
    /// They choose this mutant; 0 is none.
    Mutant(u32),
    /// They add to this file which of them were reached.
    Trace(&'a Path),
}

pub(crate) struct Trials {
    /// Holds the folder of temporary files of each process.
    temporary: PathBuf,
    count: AtomicUsize,
}

impl Trials {
    pub(crate) fn new(options: &Options) -> Result<Self> {
        let temporary = options.out.join("tmp");
        if temporary.exists() {
            fs::remove_dir_all(&temporary)?;
        }
        fs::create_dir_all(&temporary)?;
        Ok(Trials { temporary, count: AtomicUsize::new(0) })
    }

    pub(crate) fn run(
        &self,
        binary: &TestBinary,
        test: &str,
        switch: &Switch<'_>,
        limit: Duration,
    ) -> Result<(Outcome, Duration)> {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let temporary = self.temporary.join(count.to_string());
        fs::create_dir(&temporary)?;
        // Where tests of the store that need no disk put their files.
        let memory = Path::new(MEMORY).join(format!("mutants-{}-{count}", process::id()));
        let memory = fs::create_dir(&memory).is_ok().then_some(memory);
        let mut command = Command::new("sh");
        command.args(["-c", LIMITS, "sh"]).arg(&binary.path).args([
            "--exact",
            test,
            "--test-threads",
            "1",
        ]);
        command.current_dir(&binary.folder).env("TMPDIR", &temporary).env("RUST_BACKTRACE", "0");
        command.env("TEST_MEMORY_DIR", memory.as_ref().unwrap_or(&temporary));
        command.env_remove("TEST_SKIPS").env_remove("NO_SKIPS");
        // The same random cases for every mutant. What fails is not made smaller, and not written down.
        command.env("PROPTEST_RNG_SEED", "1").env("PROPTEST_MAX_SHRINK_ITERS", "0");
        command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true");
        match switch {
            Switch::Mutant(number) => command.env("MUTANT", number.to_string()),
            Switch::Trace(file) => command.env("MUTANTS_TRACE", file).env_remove("MUTANT"),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let began = Instant::now();
        let mut child = command.spawn()?;
        let outcome = loop {
            if let Some(status) = child.try_wait()? {
                break if status.success() { Outcome::Passed } else { Outcome::Failed };
            }
            let waited = began.elapsed();
            if waited > limit {
                break Outcome::TimedOut;
            }
            thread::sleep(
                (waited / 20).clamp(Duration::from_micros(500), Duration::from_millis(50)),
            );
        };
        let took = began.elapsed();
        if outcome != Outcome::Passed {
            // It, and what it started.
            let group = format!("kill -9 -{} 2>/dev/null", child.id());
            let _ = Command::new("sh").args(["-c", &group]).status();
            child.wait()?;
        }
        // A process that was not in the group may still write into it.
        for folder in memory.iter().chain([&temporary]) {
            if fs::remove_dir_all(folder).is_err() {
                thread::sleep(Duration::from_millis(100));
                let _ = fs::remove_dir_all(folder);
            }
        }
        Ok((outcome, took))
    }
}
