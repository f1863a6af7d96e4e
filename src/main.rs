//! The `durable-streams-server` command.

use std::process::ExitCode;

use durable_streams_server::cli;

/// The static Linux binaries: the allocator of musl serves all threads in turn. Elsewhere the system's own stays: it
/// is a little slower than this one, and keeps less memory.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
