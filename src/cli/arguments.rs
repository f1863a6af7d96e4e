//! The command line: its commands and their help.

use clap::{Parser, Subcommand};

use super::{
    access, admin, check, describe, dev, healthcheck, operate, rotate_keys, run, streams, tier,
    tls_root,
};
use crate::telemetry::build;

/// What the program is called.
pub(super) const NAME: &str = "durable-streams-server";

/// A Durable Streams server and reverse proxy in one binary.
#[derive(Debug, Parser)]
#[command(name = NAME, version = build::LONG, about, long_about = LONG_ABOUT)]
#[command(arg_required_else_help = true, after_help = EXAMPLES)]
pub(super) struct CliArguments {
    #[command(subcommand)]
    pub(super) command: CliCommand,
}

const LONG_ABOUT: &str = "\
A Durable Streams server and reverse proxy in one binary.

Streams are append-only logs with a URL: create one with PUT, append with POST, read and follow
with GET. They live under one route (/v1/stream); every other path goes to your own servers.";

const EXAMPLES: &str = "\
Examples:
  durable-streams-server dev                          try it: in memory, on http://localhost:4437
  durable-streams-server check --config streams.yaml  find every mistake in a configuration
  durable-streams-server run --config streams.yaml    serve
  durable-streams-server backup --config streams.yaml /backups/today
                                                      copy all streams, while the server runs

Exit codes: 0 done; 1 failed, or damage was found; 2 the command line makes no sense; 74 the disk
cannot read a part of the index.

Settings come from flags, then DURABLE_STREAMS_* variables, then the file, then the defaults.
Every key is described in docs/configuration.md and config/streams.yaml.";

#[derive(Debug, Subcommand)]
pub(super) enum CliCommand {
    /// Start at once, in memory, without configuration
    Dev(dev::DevCommand),
    /// Serve with a configuration
    Run(run::RunCommand),
    /// Validate a configuration without starting
    Check(check::CheckCommand),
    /// Create a stream
    Create(streams::CreateCommand),
    /// Append standard input to a stream, each message once
    Append(streams::AppendCommand),
    /// Write what a stream holds to standard output
    Read(streams::ReadCommand),
    /// Write what a stream holds and what is appended to standard output, until it is closed
    Follow(streams::FollowCommand),
    /// Print a stream's type, tail, expiry, and whether it is closed
    Head(streams::HeadCommand),
    /// Close a stream: nothing can be appended then
    Close(streams::CloseCommand),
    /// Delete a stream
    Delete(streams::DeleteCommand),
    /// Remove the beginning of a stream, and print the earliest offset
    Trim(streams::TrimCommand),
    /// Change when a stream goes away by itself
    Expire(streams::ExpireCommand),
    /// List the streams of a server whose administration API can be reached
    List(streams::ListCommand),
    /// Copy a stream to another server or path, resumable and each message once
    Copy(streams::CopyCommand),
    /// List the streams of a running server
    Streams(admin::StreamsCommand),
    /// What the streams of a running server take, in all, by quota, prefix or tenant
    Usage(admin::UsageCommand),
    /// The state of a running server: store, log, disk, certificates, upstreams
    Status(admin::StatusCommand),
    /// List the sealed segments of a running or stopped server: size, place, age, owners
    Segments(admin::SegmentsCommand),
    /// List the subscriptions of a running server; retry, pause, resume or delete one
    Subscriptions(admin::SubscriptionsCommand),
    /// Ask a running server whether it is ready; exit code 0 when it is
    Healthcheck(healthcheck::HealthcheckCommand),
    /// Print a completion script for a shell
    Completions(describe::CompletionsCommand),
    /// Print the man page
    Man(describe::ManCommand),
    /// Print the root certificate of `tls: internal`, for browsers to trust
    TlsRoot(tls_root::TlsRootCommand),
    /// Make a new key for signing webhooks; works beside a running server
    RotateKeys(rotate_keys::RotateKeysCommand),
    /// Make, list and revoke API keys; works beside a running server
    Key(access::KeyCommand),
    /// Make, list, rotate and delete projects, whose secrets sign tokens
    Project(access::ProjectCommand),
    /// Issue tokens of a project
    Token(access::TokenCommand),
    /// Make, list and delete keys that sign URLs
    UrlKey(access::UrlKeyCommand),
    /// Sign a URL for one stream, and print its query
    Sign(access::SignCommand),
    /// Copy a data directory, while its server runs or not; checks every checksum of the copy
    Backup(operate::BackupCommand),
    /// Make a data directory from a backup; into an empty or missing directory only
    Restore(operate::RestoreCommand),
    /// Check every checksum of a stopped server's data directory, and how its records fit together
    Verify(operate::VerifyCommand),
    /// Give back the disk space of deleted data; for a stopped server's data directory
    Compact(operate::CompactCommand),
    /// Say what damage in log and index costs, and with --apply go on without what it costs
    Repair(operate::RepairCommand),
    /// Take over the prefix of an object store that another server has
    Tier(tier::TierCommand),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::CliArguments::command().debug_assert();
    }
}
