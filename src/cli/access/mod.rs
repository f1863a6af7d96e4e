//! Who may do what, from the command line: `key`, `project`, `token`, `url-key` and `sign`.
//!
//! Each command changes the credentials file, which a running server reloads within seconds. Secrets go to standard
//! output, once; everything else about them to standard error.

mod arguments;
mod key;
mod project;
mod url;

pub(super) use key::KeyCommand;
pub(super) use project::{ProjectCommand, TokenCommand};
pub(super) use url::{SignCommand, UrlKeyCommand};
