//! `tls-root`: the root of the authority behind `tls: internal`, for those who are to trust it.

use std::io::Write;

use clap::Args;
use durable_streams_engine::Clock;

use super::{check::ConfigArguments, error::CliError};
use crate::config::Config;
use crate::server::{ServerError, tls};
use crate::tls::{TlsError, internal_root};

#[derive(Debug, Args)]
pub(super) struct TlsRootCommand {
    #[command(flatten)]
    settings: ConfigArguments,
}

const HOW_TO_TRUST: &str = "\
To trust it:
  Debian, Ubuntu   copy it to /usr/local/share/ca-certificates/durable-streams.crt, run update-ca-certificates
  Fedora           copy it to /etc/pki/ca-trust/source/anchors/, run update-ca-trust
  macOS            security add-trusted-cert -d -k /Library/Keychains/System.keychain FILE
  Windows          certutil -addstore Root FILE
  Firefox          Settings, Certificates, Authorities, Import
  curl             curl --cacert FILE https://localhost:4443/
Only for development: who has root.key beside it can speak for any name to those that trust the root.";

impl TlsRootCommand {
    /// Writes the root's certificate to standard output, and how to trust it to standard error. Makes the root
    /// where there is none yet; works beside a running server.
    pub(super) fn execute(self) -> Result<(), CliError> {
        let config = Config::load(&self.settings.sources())?;
        let directory = config.data_dir.as_deref().ok_or(CliError::NoTlsRoot)?;
        let root = internal_root(&tls::internal_directory(directory), Clock::System.now());
        let root = root.map_err(|error| ServerError::from(TlsError::from(error)))?;
        std::io::stdout().lock().write_all(root.as_bytes())?;
        writeln!(std::io::stderr(), "{HOW_TO_TRUST}")?;
        Ok(())
    }
}
