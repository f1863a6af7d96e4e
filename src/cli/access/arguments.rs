//! What several of these commands take, and how they print what they show.

use std::path::PathBuf;

use clap::Args;
use durable_streams_auth::{
    CredentialFile, Grant, OperationSet, PathPattern, TenantId, TenantIdError,
};
use durable_streams_engine::Clock;
use durable_streams_protocol::Timestamp;

use crate::cli::error::CliError;
use crate::config::{Config, ConfigSources, HumanDuration, parse_duration};

/// Which credentials file.
#[derive(Debug, Args)]
pub(super) struct CredentialsPlace {
    /// The credentials file; replaces `auth.credentials`
    #[arg(
        long,
        value_name = "FILE",
        env = "DURABLE_STREAMS_AUTH_CREDENTIALS",
        required_unless_present = "config"
    )]
    credentials: Option<PathBuf>,
    /// The server's YAML file, which names the credentials file
    #[arg(long, short, value_name = "FILE", env = "DURABLE_STREAMS_CONFIG")]
    config: Option<PathBuf>,
}

impl CredentialsPlace {
    pub(super) fn open(self) -> Result<CredentialFile, CliError> {
        let path = match (self.credentials, self.config) {
            (Some(path), _) => path,
            (None, file) => {
                let auth = Config::load(&ConfigSources::of_file(file))?.auth;
                auth.and_then(|auth| auth.credentials).ok_or(CliError::NoCredentialsFile)?
            }
        };
        Ok(CredentialFile::open(&path)?)
    }
}

/// What a new key may do.
#[derive(Debug, Args)]
pub(super) struct KeyGrant {
    /// What operators call it
    #[arg(long, value_name = "NAME")]
    pub(super) name: String,
    /// Operations, separated by commas: create, publish, append, close, read, delete, subscribe, write (create, append, close
    /// and delete) or all
    #[arg(long, value_name = "OPERATIONS", value_parser = operations)]
    pub(super) allow: OperationSet,
    /// Pattern of the paths, repeatable: `*` is one segment, `**` any number of them
    #[arg(long = "path", value_name = "PATTERN", value_parser = PathPattern::parse, default_value = "**")]
    paths: Vec<PathPattern>,
    /// The tenant whose streams it names
    #[arg(long, value_name = "TENANT", value_parser = tenant)]
    pub(super) tenant: Option<TenantId>,
}

impl KeyGrant {
    pub(super) fn grants(&self) -> Vec<Grant> {
        vec![Grant { operations: self.allow, paths: self.paths.clone() }]
    }
}

fn operations(text: &str) -> Result<OperationSet, String> {
    text.split(',').try_fold(OperationSet::NONE, |set, word| {
        let one = OperationSet::from_word(word.trim());
        one.map(|one| set.union(one)).ok_or_else(|| {
            format!(
                "{word:?} is no operation; use create, publish, append, close, read, delete, subscribe, write or all"
            )
        })
    })
}

fn tenant(text: &str) -> Result<TenantId, TenantIdError> {
    TenantId::new(text)
}

pub(super) fn now() -> Timestamp {
    Clock::System.now()
}

/// A duration from now, as in `30d`.
pub(super) fn after(duration: HumanDuration) -> Timestamp {
    now().plus_secs(duration.get().as_secs().max(1))
}

pub(super) fn duration(text: &str) -> Result<HumanDuration, String> {
    parse_duration(text)
}

pub(super) fn shown(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "never".to_owned(), |time| time.to_string())
}

pub(super) fn described(grants: &[Grant]) -> String {
    let one = |grant: &Grant| {
        let paths = grant.paths.iter().map(|path| String::from(path.clone()));
        format!("{} on {}", grant.operations, paths.collect::<Vec<_>>().join(" "))
    };
    grants.iter().map(one).collect::<Vec<_>>().join("; ")
}
