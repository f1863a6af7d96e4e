//! `key`: API keys.

use std::io::Write;

use clap::{Args, Subcommand};
use durable_streams_auth::NewApiKey;

use super::arguments::{CredentialsPlace, KeyGrant, after, described, duration, now, shown};
use crate::cli::error::CliError;
use crate::config::HumanDuration;

#[derive(Debug, Args)]
pub(crate) struct KeyCommand {
    #[command(subcommand)]
    action: KeyAction,
}

#[derive(Debug, Subcommand)]
enum KeyAction {
    /// Make an API key and print it; it is stored as a hash and cannot be shown again
    Create {
        #[command(flatten)]
        place: CredentialsPlace,
        #[command(flatten)]
        grant: KeyGrant,
        /// How long it is valid, as in 90d; without it, until it is revoked
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        expires: Option<HumanDuration>,
    },
    /// List the API keys
    List {
        #[command(flatten)]
        place: CredentialsPlace,
    },
    /// Revoke an API key; a running server refuses it, and ends its live reads, within seconds
    Revoke {
        #[command(flatten)]
        place: CredentialsPlace,
        /// Its id, or its name if no other key has that
        #[arg(value_name = "ID|NAME")]
        key: String,
    },
}

impl KeyCommand {
    pub(crate) fn execute(self) -> Result<(), CliError> {
        let mut out = std::io::stdout().lock();
        match self.action {
            KeyAction::Create { place, grant, expires } => {
                let new = NewApiKey {
                    grants: grant.grants(),
                    name: grant.name,
                    tenant: grant.tenant,
                    expires: expires.map(after),
                };
                let (record, key) = place.open()?.create_api_key(new, now())?;
                writeln!(out, "{key}")?;
                eprintln!("made the key {} ({}); it is not shown again", record.id, record.name);
            }
            KeyAction::List { place } => {
                let file = place.open()?;
                let used = file.last_used();
                for key in file.api_keys() {
                    let state = match (key.revoked, key.expires) {
                        (Some(at), _) => format!("revoked {at}"),
                        (None, Some(at)) => format!("expires {at}"),
                        (None, None) => "valid".to_owned(),
                    };
                    let tenant = key.tenant.as_ref().map_or("-", |tenant| tenant.as_str());
                    let last = shown(used.get(&key.id).copied());
                    let (id, name, grants) = (&key.id, &key.name, described(&key.grants));
                    writeln!(
                        out,
                        "{id}  {name}  tenant {tenant}  {grants}  made {}  {state}  last used {last}",
                        key.created
                    )?;
                }
            }
            KeyAction::Revoke { place, key } => {
                let key = place.open()?.revoke_api_key(&key, now())?;
                writeln!(out, "revoked the key {} ({})", key.id, key.name)?;
            }
        }
        Ok(())
    }
}
