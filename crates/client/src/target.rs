//! What a URL becomes: the target of requests, a credential, and a text for messages.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use url::Url;

use crate::error::ClientError;

/// `url` with these parameters added to its query, without user and fragment.
pub(crate) fn target(url: &Url, parameters: &[(&str, &str)]) -> Result<Uri, ClientError> {
    let mut url = url.clone();
    if !parameters.is_empty() {
        url.query_pairs_mut().extend_pairs(parameters);
    }
    url.set_fragment(None);
    // These fail for URLs that have no host and so no user.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    Uri::try_from(url.as_str()).map_err(|error| ClientError::InvalidArgument {
        what: "the stream's URL",
        reason: error.to_string(),
    })
}

/// `Basic` with the user and the password of `url`, if it has any.
pub(crate) fn user_authorization(url: &Url) -> Option<HeaderValue> {
    let password = url.password().unwrap_or_default();
    if url.username().is_empty() && password.is_empty() {
        return None;
    }
    let mut pair: Vec<u8> = percent_decode_str(url.username()).collect();
    pair.push(b':');
    pair.extend(percent_decode_str(password));
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A URL for messages: without user, password, query and fragment, which may hold secrets.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // These fail for URLs that have no host and so no user.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_in_the_url_is_a_header() {
        let url = Url::parse("https://a%40b:p%3Aw@h.test/v1/a?sig=x#y").unwrap();
        assert_eq!(user_authorization(&url).unwrap(), "Basic YUBiOnA6dw==");
        assert_eq!(target(&url, &[]).unwrap(), "https://h.test/v1/a?sig=x");
        let parameters = [("live", "sse"), ("offset", "a&b")];
        assert_eq!(
            target(&url, &parameters).unwrap(),
            "https://h.test/v1/a?sig=x&live=sse&offset=a%26b"
        );
        assert_eq!(user_authorization(&Url::parse("https://h.test/").unwrap()), None);
    }

    #[test]
    fn a_url_in_a_message_has_no_secrets() {
        let url = Url::parse("https://me:pw@h.test/v1/a?token=x&offset=1#y").unwrap();
        assert_eq!(shown(&url), "https://h.test/v1/a");
    }
}
