//! The commands.
//!
//! Exit codes: 0 for success; 1 for a refused configuration, a server that failed or is not ready, a data directory that
//! is damaged, and anything else that failed; 2 for a command line that cannot be understood; 74 when a part of the index
//! cannot be read.

mod access;
mod admin;
mod arguments;
mod check;
mod describe;
mod dev;
mod error;
mod healthcheck;
mod logging;
mod operate;
mod rotate_keys;
mod run;
mod streams;
mod tier;
mod tls_root;
mod token;

use clap::Parser;
use durable_streams_engine::store::file::report_map_faults;

use self::arguments::{CliArguments, CliCommand};

pub use self::{
    admin::AdminCommandError, dev::banner, error::CliError, operate::error::OperateError,
    streams::StreamCommandError,
};

/// Parses the command line and runs the command. Prints help, version and usage errors itself and
/// ends the process after those, as `clap` does.
///
/// # Errors
/// What kept the command from its end; the message is complete and meant for people.
pub fn run() -> Result<(), CliError> {
    report_map_faults();
    match CliArguments::parse().command {
        CliCommand::Dev(dev) => dev.execute(),
        CliCommand::Run(run) => run.execute(),
        CliCommand::Check(check) => check.execute(),
        CliCommand::Create(create) => create.execute(),
        CliCommand::Append(append) => append.execute(),
        CliCommand::Read(read) => read.execute(),
        CliCommand::Follow(follow) => follow.execute(),
        CliCommand::Head(head) => head.execute(),
        CliCommand::Close(close) => close.execute(),
        CliCommand::Delete(delete) => delete.execute(),
        CliCommand::Trim(trim) => trim.execute(),
        CliCommand::Expire(expire) => expire.execute(),
        CliCommand::List(list) => list.execute(),
        CliCommand::Copy(copy) => copy.execute(),
        CliCommand::Streams(streams) => streams.execute(),
        CliCommand::Usage(usage) => usage.execute(),
        CliCommand::Status(status) => status.execute(),
        CliCommand::Segments(segments) => segments.execute(),
        CliCommand::Subscriptions(subscriptions) => subscriptions.execute(),
        CliCommand::Healthcheck(healthcheck) => healthcheck.execute(),
        CliCommand::Completions(completions) => completions.execute(),
        CliCommand::Man(man) => man.execute(),
        CliCommand::TlsRoot(root) => root.execute(),
        CliCommand::RotateKeys(rotate) => rotate.execute(),
        CliCommand::Key(key) => key.execute(),
        CliCommand::Project(project) => project.execute(),
        CliCommand::Token(token) => token.execute(),
        CliCommand::UrlKey(key) => key.execute(),
        CliCommand::Sign(sign) => sign.execute(),
        CliCommand::Backup(backup) => backup.execute(),
        CliCommand::Restore(restore) => restore.execute(),
        CliCommand::Verify(verify) => verify.execute(),
        CliCommand::Compact(compact) => compact.execute(),
        CliCommand::Repair(repair) => repair.execute(),
        CliCommand::Tier(tier) => tier.execute(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::CliArguments::command().debug_assert();
    }
}
