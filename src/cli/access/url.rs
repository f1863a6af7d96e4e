//! `url-key` and `sign`: URLs that open one stream until a time.

use std::io::Write;

use clap::{Args, Subcommand};
use durable_streams_auth::{NewUrlKey, Operation, UrlGrant};
use durable_streams_protocol::StreamPath;

use super::arguments::{CredentialsPlace, KeyGrant, after, described, duration, now};
use crate::cli::error::CliError;
use crate::config::HumanDuration;

#[derive(Debug, Args)]
pub(crate) struct UrlKeyCommand {
    #[command(subcommand)]
    action: UrlKeyAction,
}

#[derive(Debug, Subcommand)]
enum UrlKeyAction {
    /// Make a key that signs URLs; print its id and its secret, for applications that sign by themselves
    Create {
        #[command(flatten)]
        place: CredentialsPlace,
        #[command(flatten)]
        grant: KeyGrant,
    },
    /// List the keys that sign URLs
    List {
        #[command(flatten)]
        place: CredentialsPlace,
    },
    /// Delete a key; all URLs that it signed are refused, and their live reads ended, within seconds
    Delete {
        #[command(flatten)]
        place: CredentialsPlace,
        /// Its id
        id: String,
    },
}

impl UrlKeyCommand {
    pub(crate) fn execute(self) -> Result<(), CliError> {
        let mut out = std::io::stdout().lock();
        match self.action {
            UrlKeyAction::Create { place, grant } => {
                let grants = grant.grants();
                let new = NewUrlKey { name: grant.name, tenant: grant.tenant, grants };
                let (key, secret) = place.open()?.create_url_key(new, now())?;
                writeln!(out, "{} {secret}", key.id)?;
            }
            UrlKeyAction::List { place } => {
                for key in place.open()?.url_keys() {
                    let tenant = key.tenant.as_ref().map_or("-", |tenant| tenant.as_str());
                    let (id, name, grants) = (&key.id, &key.name, described(&key.grants));
                    writeln!(out, "{id}  {name}  tenant {tenant}  {grants}  made {}", key.created)?;
                }
            }
            UrlKeyAction::Delete { place, id } => {
                place.open()?.delete_url_key(&id)?;
                writeln!(out, "deleted the URL key {id}")?;
            }
        }
        Ok(())
    }
}

/// Print the query of a signed URL, to be put behind the stream's URL and `?`.
#[derive(Debug, Args)]
pub(crate) struct SignCommand {
    #[command(flatten)]
    place: CredentialsPlace,
    /// The id of the key that signs
    #[arg(long, value_name = "ID")]
    key: String,
    /// read or append
    #[arg(long, value_parser = operation, default_value = "read")]
    operation: Operation,
    /// How long the URL is valid
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1h")]
    expires: HumanDuration,
    /// The stream: its path as in the URL, behind the stream route
    #[arg(value_parser = StreamPath::from_url)]
    path: StreamPath,
}

fn operation(text: &str) -> Result<Operation, String> {
    let found = [Operation::Read, Operation::Append].into_iter().find(|one| one.name() == text);
    found.ok_or_else(|| "use read or append".to_owned())
}

impl SignCommand {
    pub(crate) fn execute(self) -> Result<(), CliError> {
        let url =
            UrlGrant { operation: self.operation, path: &self.path, expires: after(self.expires) };
        let query = self.place.open()?.sign_url(&self.key, &url)?;
        writeln!(std::io::stdout().lock(), "{query}")?;
        Ok(())
    }
}
