//! What logs, errors and responses show of a value that may hold a secret.
//!
//! A type whose values are secrets says so ([`ScalarSetting::SECRET`](super::setting::ScalarSetting::SECRET)) and is not
//! shown at all. URLs are shown without user, password and the values of their queries, whatever key they stand at.

use std::borrow::Cow;

/// What a secret is shown as.
pub(crate) const MASK: &str = "***";

/// `text` with the secrets in its URLs, and in the query of a path, masked.
pub(crate) fn without_secrets(text: &str) -> Cow<'_, str> {
    let path_with_query = text.starts_with('/') && text.contains('?');
    if !path_with_query && !text.contains("://") {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.split(' ').map(masked_url).collect::<Vec<_>>().join(" "))
}

fn masked_url(word: &str) -> Cow<'_, str> {
    let (origin, rest) = match word.split_once("://") {
        Some((scheme, rest)) => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (authority, rest) = rest.split_at(end);
            let host = authority.rsplit_once('@').map(|(_, host)| format!("{MASK}@{host}"));
            (format!("{scheme}://{}", host.as_deref().unwrap_or(authority)), rest)
        }
        None if word.starts_with('/') => (String::new(), word),
        None => return Cow::Borrowed(word),
    };
    match rest.split_once('?') {
        Some((path, query)) => Cow::Owned(format!("{origin}{path}?{}", masked_query(query))),
        None => Cow::Owned(format!("{origin}{rest}")),
    }
}

fn masked_query(query: &str) -> String {
    let pair = |pair: &str| match pair.split_once('=') {
        Some((name, _)) => format!("{name}={MASK}"),
        None => MASK.to_owned(),
    };
    query.split('&').map(pair).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_what_may_be_secret() {
        for (text, shown) in [
            ("plain?a=b@c", "plain?a=b@c"),
            ("/health?token=a", "/health?token=***"),
            ("https://host:443/a/@b", "https://host:443/a/@b"),
            ("https://user:word@host/a", "https://***@host/a"),
            ("https://token@host", "https://***@host"),
            ("https://a@b@host?k=v&w#f", "https://***@host?k=***&***"),
            ("'self' https://u:p@a https://b?c=d", "'self' https://***@a https://b?c=***"),
        ] {
            assert_eq!(without_secrets(text), shown, "{text}");
        }
    }
}
