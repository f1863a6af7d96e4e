//! The token that a command sends.

use std::env;
use std::path::{Path, PathBuf};

/// Where the environment has a key for the administration API, itself or in a file: the variables for nothing else first.
const ADMIN_VARIABLES: [(&str, &str); 2] =
    [("STREAMS_ADMIN_TOKEN", "STREAMS_ADMIN_TOKEN_FILE"), ("STREAMS_TOKEN", "STREAMS_TOKEN_FILE")];

/// The token of an option or an environment variable, or else of a file, whose content `read` returns; `None` without either.
///
/// # Errors
/// Those of `read`.
pub(super) fn token<E>(
    given: Option<&str>,
    file: Option<&Path>,
    read: impl FnOnce(&Path) -> Result<String, E>,
) -> Result<Option<String>, E> {
    match (given, file) {
        (Some(token), _) => Ok(Some(token.to_owned())),
        (None, Some(path)) => Ok(Some(read(path)?.trim().to_owned())),
        (None, None) => Ok(None),
    }
}

/// The key for the administration API: of an option, else of a file, else of the environment.
///
/// # Errors
/// Those of `read`.
pub(super) fn admin_token<E>(
    given: Option<&str>,
    file: Option<&Path>,
    read: impl Fn(&Path) -> Result<String, E>,
) -> Result<Option<String>, E> {
    if let Some(found) = token(given, file, &read)? {
        return Ok(Some(found));
    }
    let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
    for (variable, file) in ADMIN_VARIABLES {
        let file = set(file).map(PathBuf::from);
        if let Some(found) = token(set(variable).as_deref(), file.as_deref(), &read)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
