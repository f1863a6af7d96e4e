//! The command line.

use clap::{Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Compares Durable Streams servers under identical load.
#[derive(Parser)]
#[command(version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Install the servers, run every load on each, write the report.
    Compare(CompareArgs),
    /// Aim one load at a server that is already running.
    Load(LoadArgs),
    /// Start-up time and memory of this server by the number of streams.
    Capacity(CapacityArgs),
    /// The trivial responder the client's own speed is measured against.
    #[command(hide = true)]
    Respond { addr: SocketAddr },
}

#[derive(clap::Args)]
pub(crate) struct CompareArgs {
    /// Shorter windows, smaller sizes and fewer rows.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Loads whose names begin with one of these; a name in full is that one alone, which runs even with --quick.
    #[arg(long, value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// ours, electric, thesampaton, node, caddy, bare, epoll, nginx, nginx-uncached; all if absent.
    #[arg(long, value_delimiter = ',')]
    pub(crate) servers: Vec<String>,
    /// Where the report goes [default: target/bench/report].
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Where the servers' data goes; must be a real disk [default: target/bench/data].
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// Runs per load and server.
    #[arg(long)]
    pub(crate) rounds: Option<usize>,
    /// Measured milliseconds per run.
    #[arg(long)]
    pub(crate) window_ms: Option<u64>,
    /// Leave client and server to the scheduler instead of a core each.
    #[arg(long)]
    pub(crate) unpinned: bool,
}

#[derive(clap::Args)]
pub(crate) struct CapacityArgs {
    /// Numbers of streams, each on a fresh directory.
    #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000")]
    pub(crate) streams: Vec<usize>,
    /// The server to start [default: built from this workspace with the release profile].
    #[arg(long)]
    pub(crate) program: Option<PathBuf>,
    /// GiB of data to put on the first 1,000 of them. Needs twice that on disk.
    #[arg(long, default_value_t = 0)]
    pub(crate) gib: u64,
    /// Each stream gets an append of 256 bytes, and all of them leave for an object store, a directory.
    #[arg(long, conflicts_with = "gib")]
    pub(crate) tiered: bool,
    /// Where the data goes; must be a real disk [default: target/bench/data].
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
}

/// The loads of `load`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LoadKind {
    Append,
    JsonOne,
    JsonArray,
    Producers,
    Create,
    Get,
    Head,
    Replay,
    Sse,
    LongPoll,
    Saturate,
}

#[derive(clap::Args)]
pub(crate) struct LoadArgs {
    pub(crate) load: LoadKind,
    /// The path streams lie under, such as http://127.0.0.1:4437/v1/stream.
    #[arg(long)]
    pub(crate) url: String,
    /// A header line of every request, repeatable, such as 'Authorization: Bearer dsk_...'.
    #[arg(long, value_name = "LINE")]
    pub(crate) header: Vec<String>,
    /// Connections; subscribers for sse, long-poll and saturate.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: usize,
    /// Streams appends go round.
    #[arg(long, default_value_t = 1)]
    pub(crate) streams: usize,
    /// Stream length for get and replay, in bytes.
    #[arg(long, default_value_t = 1024)]
    pub(crate) bytes: usize,
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Requests per second: open loop (appends per second for sse and long-poll).
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// The server's process, to charge it for its processor time.
    #[arg(long)]
    pub(crate) pid: Option<u32>,
    /// Bind the client to this core.
    #[arg(long)]
    pub(crate) core: Option<usize>,
}
