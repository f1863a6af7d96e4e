//! The `durable-streams-server` command.

use std::process::ExitCode;
use std::time::Duration;

use durable_streams_server::{cli, telemetry::logging};

/// The last log lines may wait this long for a reader of standard error.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

// Events and answers are freed on other threads than those that allocate them, which the system's allocators are slow
// at: with jemalloc, durable appends take a quarter less processor time, and free memory goes back to the system on its
// own. It cannot do the latter on musl, where mimalloc can.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let result = cli::run();
    logging::flush(FLUSH_TIMEOUT);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(error.exit_code())
        }
    }
}
