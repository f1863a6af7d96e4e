//! The `durable-streams-server` command.

use std::process::ExitCode;

use durable_streams_server::cli;

/// A request costs some forty allocations; this one makes them cheaper than the system's, by much on musl.
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
