//! Requests of the administration API.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use reqwest::{Certificate, Method, StatusCode, Url, redirect};
use serde_json::Value;

use crate::cli::token::admin_token;

/// The admin listener of `dev`, and the usual one of `run`.
pub(crate) const DEFAULT_LISTENER: &str = "http://127.0.0.1:4438";

/// The longest wait for an answer: a sorted list looks at many streams.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which server, and with what rights.
#[derive(Debug, Args)]
pub(super) struct AdminArguments {
    /// Where the admin listener is
    #[arg(
        long,
        value_name = "URL",
        env = "STREAMS_ADMIN_URL",
        default_value = DEFAULT_LISTENER
    )]
    admin: String,
    /// The key to send; better in the environment or a file than on a command line that others can see [env:
    /// STREAMS_ADMIN_TOKEN, or else STREAMS_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// A file with the key [env: STREAMS_ADMIN_TOKEN_FILE, or else STREAMS_TOKEN_FILE]
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// Certificates of the authorities to trust in place of the system's, PEM
    #[arg(long, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// JSON on a terminal too
    #[arg(long)]
    pub(super) json: bool,
}

/// Why a command on the administration API failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminCommandError {
    /// The server cannot be reached, or does not answer.
    #[error("error: {url}: {why}")]
    Unreachable {
        /// What was requested.
        url: String,
        /// What happened.
        why: String,
    },
    /// The server refused.
    #[error("error: {detail} ({status})")]
    Refused {
        /// The status of the response.
        status: u16,
        /// Why.
        detail: String,
    },
    /// Options that make no sense.
    #[error("error: {0}")]
    Usage(String),
}

impl AdminCommandError {
    /// 2 what was typed makes no sense; 3 there is no such thing; 4 not allowed; 6 the server cannot be reached or is
    /// overloaded; 1 the rest.
    pub fn exit_code(&self) -> u8 {
        match self {
            AdminCommandError::Usage(_) | AdminCommandError::Refused { status: 400, .. } => 2,
            AdminCommandError::Refused { status: 404, .. } => 3,
            AdminCommandError::Refused { status: 401 | 403, .. } => 4,
            AdminCommandError::Unreachable { .. }
            | AdminCommandError::Refused { status: 429 | 503, .. } => 6,
            AdminCommandError::Refused { .. } => 1,
        }
    }
}

/// The administration API of one server.
pub(super) struct AdminClient {
    http: reqwest::Client,
    root: Url,
    token: Option<String>,
    runtime: tokio::runtime::Runtime,
}

impl AdminClient {
    pub(super) fn new(arguments: &AdminArguments) -> Result<Self, AdminCommandError> {
        let usage = |why: String| AdminCommandError::Usage(why);
        let root = Url::parse(&arguments.admin);
        let root = root.map_err(|error| usage(format!("--admin {}: {error}", arguments.admin)))?;
        let read = |path: &Path| {
            let text = std::fs::read_to_string(path);
            text.map_err(|error| usage(format!("{}: {error}", path.display())))
        };
        let (token, file) = (arguments.token.as_deref(), arguments.token_file.as_deref());
        let token = admin_token(token, file, read)?;
        let roots = arguments.cacert.as_deref().map(read).transpose()?;
        let http = http_client(PATIENCE, roots.as_deref()).map_err(|why| usage(why.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| usage(error.to_string()))?;
        Ok(AdminClient { http, root, token, runtime })
    }

    /// One request. `segments` come behind `/admin/v1`, and are escaped here.
    pub(super) fn request(
        &self,
        method: Method,
        segments: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Value, AdminCommandError> {
        let mut url = self.root.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["admin", "v1"]).extend(segments);
        }
        url.query_pairs_mut().extend_pairs(query);
        let mut request = self.http.request(method.clone(), url.clone());
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if method == Method::POST {
            request = request.header("content-type", "application/json").body("{}");
        }
        let unreachable = |error: reqwest::Error| AdminCommandError::Unreachable {
            url: url.to_string(),
            why: error.without_url().to_string(),
        };
        let (status, body) = self.runtime.block_on(async {
            let response = request.send().await.map_err(unreachable)?;
            let status = response.status();
            Ok((status, response.bytes().await.map_err(unreachable)?))
        })?;
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(value);
        }
        let detail = value["detail"].as_str().map_or_else(|| not_a_problem(status), str::to_owned);
        Err(AdminCommandError::Refused { status: status.as_u16(), detail })
    }
}

/// A client for requests of at most `timeout`, which follows no redirect: a token must not travel. With `roots`, in PEM, it
/// trusts these authorities only.
pub(crate) fn http_client(
    timeout: Duration,
    roots: Option<&str>,
) -> reqwest::Result<reqwest::Client> {
    // The same provider as the listeners'; the first user of it installs it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = reqwest::Client::builder().timeout(timeout).redirect(redirect::Policy::none());
    match roots {
        None => builder.build(),
        Some(pem) => {
            let roots = Certificate::from_pem_bundle(pem.as_bytes())?;
            builder.tls_certs_only(roots).build()
        }
    }
}

fn not_a_problem(status: StatusCode) -> String {
    format!("the server answers {status}; is --admin the admin listener of a server?")
}
