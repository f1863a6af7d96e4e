//! The token that a command sends.

use std::path::Path;

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
