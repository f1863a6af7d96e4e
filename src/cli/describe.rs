//! `completions` and `man`: what the binary says about itself, for shells and for packages.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::arguments::{CliArguments, NAME};
use super::error::CliError;

#[derive(Debug, Args)]
pub(super) struct CompletionsCommand {
    /// The shell to complete in
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManCommand {}

impl CompletionsCommand {
    pub(super) fn execute(self) -> Result<(), CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut CliArguments::command(), NAME, &mut script);
        Ok(std::io::stdout().write_all(&script)?)
    }
}

impl ManCommand {
    /// One page for everything: the commands are few, and their flags fit behind them.
    pub(super) fn execute(self) -> Result<(), CliError> {
        let mut command = CliArguments::command().disable_help_subcommand(true);
        command.build();
        let mut page = Vec::new();
        let man = clap_mangen::Man::new(command.clone());
        man.render_title(&mut page)?;
        man.render_name_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        for sub in command.get_subcommands() {
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            writeln!(page, ".SH \"{}\"", sub.get_name().to_uppercase())?;
            writeln!(page, "{about}.\n.PP")?;
            let mut options = Vec::new();
            clap_mangen::Man::new(sub.clone()).render_options_section(&mut options)?;
            let options = String::from_utf8_lossy(&options);
            page.write_all(options.replace(".SH OPTIONS", ".SS Options").as_bytes())?;
        }
        man.render_extra_section(&mut page)?;
        man.render_version_section(&mut page)?;
        Ok(std::io::stdout().write_all(&page)?)
    }
}
