//! Fields by which a proxy names an authenticated client to the servers behind it.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};
use pingora::http::RequestHeader;

/// What the names of identity fields begin with: of nginx's and Caddy's examples, oauth2-proxy, Authelia, Authentik,
/// Grafana, Pomerium, Vouch, Tailscale and the clouds' own proxies. In order.
const IDENTITY_PREFIXES: [&str; 11] = [
    "remote-",
    "tailscale-user-",
    "x-amzn-oidc-",
    "x-auth-request-",
    "x-authentik-",
    "x-goog-authenticated-user-",
    "x-ms-client-principal",
    "x-pomerium-",
    "x-remote-",
    "x-vouch-",
    "x-webauth-",
];

/// Identity fields that begin like those of addresses. In order.
const IDENTITY_FIELDS: [&str; 5] = [
    "x-forwarded-access-token",
    "x-forwarded-email",
    "x-forwarded-groups",
    "x-forwarded-preferred-username",
    "x-forwarded-user",
];

/// The name with `-` for `_`: CGI and its descendants do not tell them apart.
pub(crate) fn dashed(name: &HeaderName) -> Cow<'_, str> {
    let name = name.as_str();
    if name.contains('_') { name.replace('_', "-").into() } else { name.into() }
}

/// Whether servers behind a proxy take a client's identity from this field. The name is [`dashed`].
pub(crate) fn names_identity(name: &str) -> bool {
    IDENTITY_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || IDENTITY_FIELDS.binary_search(&name).is_ok()
}

/// Takes the client's own identity fields off a request, and those that the service's answer is to set, and sets the
/// latter. Holds for clients behind a trusted proxy too: here only the service names the client.
///
/// # Errors
/// None of Pingora's limits on fields is near.
pub(crate) fn identify(
    request: &mut RequestHeader,
    names: &[HeaderName],
    identity: &[(HeaderName, HeaderValue)],
) -> pingora::Result<()> {
    let set = |dashed: &str| names.iter().any(|name| self::dashed(name) == dashed);
    let claimed = |name: &&HeaderName| {
        let dashed = dashed(name);
        names_identity(&dashed) || set(&dashed)
    };
    let claimed: Vec<HeaderName> = request.headers.keys().filter(claimed).cloned().collect();
    for name in claimed {
        request.remove_header(&name);
    }
    for (name, value) in identity {
        request.append_header(name.clone(), value.clone())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_fields_are_known_however_they_are_spelled() {
        assert!(IDENTITY_PREFIXES.is_sorted() && IDENTITY_FIELDS.is_sorted());
        for name in [
            "remote-user",
            "Remote_User",
            "x-remote-groups",
            "x-forwarded-user",
            "x_forwarded-email",
            "X-Auth-Request-Access-Token",
            "x-authentik-username",
            "x-webauth-user",
        ] {
            let name: HeaderName = name.to_ascii_lowercase().parse().unwrap();
            assert!(names_identity(&dashed(&name)), "{name}");
        }
        for name in ["authorization", "cookie", "x-user-agent", "x-forwarded-for", "remote"] {
            assert!(!names_identity(name), "{name}");
        }
    }

    #[test]
    fn only_the_service_says_who_the_client_is() {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, value) in [
            ("remote-user", "mallory"),
            ("x_auth_request_email", "m@example.com"),
            ("x-team", "admins"),
            ("x_team", "admins"),
            ("cookie", "a=b"),
        ] {
            request.append_header(name, value).unwrap();
        }
        let field = |name: &'static str, value: &'static str| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let names = ["remote-user", "x-team", "x-plan"].map(HeaderName::from_static);
        let identity = [field("remote-user", "ada"), field("x-plan", "a"), field("x-plan", "b")];
        identify(&mut request, &names, &identity).unwrap();
        let left: Vec<_> = request
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        let mut left: Vec<&str> = left.iter().map(String::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["cookie: a=b", "remote-user: ada", "x-plan: a", "x-plan: b"]);
    }
}
