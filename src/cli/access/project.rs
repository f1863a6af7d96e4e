//! `project` and `token`: projects, and tokens that their secrets sign.

use std::io::Write;

use clap::{Args, Subcommand};
use durable_streams_auth::{NewProjectToken, ProjectScope};

use super::arguments::{CredentialsPlace, after, duration, now};
use crate::cli::error::CliError;
use crate::config::HumanDuration;

#[derive(Debug, Args)]
pub(crate) struct ProjectCommand {
    #[command(subcommand)]
    action: ProjectAction,
}

#[derive(Debug, Subcommand)]
enum ProjectAction {
    /// Make a project and print the secret that signs its tokens (HS256)
    Create {
        #[command(flatten)]
        place: CredentialsPlace,
        /// The name: the first segment of the paths of its streams
        project: String,
    },
    /// List the projects with their secrets' ids
    List {
        #[command(flatten)]
        place: CredentialsPlace,
    },
    /// Print a new secret of a project; tokens of the older ones stay valid
    Rotate {
        #[command(flatten)]
        place: CredentialsPlace,
        /// The project
        project: String,
        /// Refuse tokens of the older secrets from now on
        #[arg(long)]
        drop_older: bool,
    },
    /// Delete a project with its secrets; its streams stay
    Delete {
        #[command(flatten)]
        place: CredentialsPlace,
        /// The project
        project: String,
    },
}

impl ProjectCommand {
    pub(crate) fn execute(self) -> Result<(), CliError> {
        let mut out = std::io::stdout().lock();
        match self.action {
            ProjectAction::Create { place, project } => {
                writeln!(out, "{}", place.open()?.create_project(&project, now())?)?;
            }
            ProjectAction::List { place } => {
                for project in place.open()?.projects() {
                    let ids: Vec<&str> = project.secret_ids().map(|(id, _)| id).collect();
                    let (name, ids) = (&project.name, ids.join(" "));
                    writeln!(out, "{name}  made {}  secrets {ids}", project.created)?;
                }
            }
            ProjectAction::Rotate { place, project, drop_older } => {
                writeln!(out, "{}", place.open()?.rotate_project(&project, drop_older, now())?)?;
            }
            ProjectAction::Delete { place, project } => {
                place.open()?.delete_project(&project)?;
                writeln!(out, "deleted the project {project}")?;
            }
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(crate) struct TokenCommand {
    #[command(subcommand)]
    action: TokenAction,
}

#[derive(Debug, Subcommand)]
enum TokenAction {
    /// Print a token, signed with the newest secret of its project
    Issue {
        #[command(flatten)]
        place: CredentialsPlace,
        /// The project
        #[arg(long)]
        project: String,
        /// read, or write, which includes reading
        #[arg(long, value_parser = scope)]
        scope: ProjectScope,
        /// How long it is valid
        #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1h")]
        expires: HumanDuration,
        /// The one stream below the project that it reaches
        #[arg(long, value_name = "ID")]
        stream_id: Option<String>,
    },
}

fn scope(text: &str) -> Result<ProjectScope, String> {
    ProjectScope::parse(text).ok_or_else(|| "use read or write".to_owned())
}

impl TokenCommand {
    pub(crate) fn execute(self) -> Result<(), CliError> {
        let TokenAction::Issue { place, project, scope, expires, stream_id } = self.action;
        let token = place.open()?.issue_project_token(&NewProjectToken {
            project: &project,
            scope,
            stream_id: stream_id.as_deref(),
            expires: after(expires),
        })?;
        writeln!(std::io::stdout().lock(), "{token}")?;
        Ok(())
    }
}
