//! Header values from what callers pass.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::ClientError;

/// Adds a header whose value must reach the server unchanged.
pub(crate) fn put(
    headers: &mut HeaderMap,
    name: HeaderName,
    value: &str,
) -> Result<(), ClientError> {
    let value = sendable(&name, value)?;
    headers.insert(name, value);
    Ok(())
}

/// The value of header `name`, which must reach the server unchanged.
pub(crate) fn sendable(name: &HeaderName, value: &str) -> Result<HeaderValue, ClientError> {
    let unchanged =
        value.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && value.trim() == value;
    HeaderValue::from_str(value).ok().filter(|_| unchanged).ok_or_else(|| {
        ClientError::InvalidArgument {
            what: "a header's value",
            reason: format!(
                "{name} must be visible ASCII without spaces at its ends, not {value:?}"
            ),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_would_change_on_its_way_is_refused() {
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_static("producer-id");
        put(&mut headers, name.clone(), "a b").unwrap();
        assert_eq!(headers["producer-id"], "a b");
        for bad in [" a", "a ", "a\n", "é", "\t"] {
            assert!(put(&mut headers, name.clone(), bad).is_err(), "{bad:?}");
        }
    }
}
