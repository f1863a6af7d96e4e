//! What there is in the API: for those who ask it, and as OpenAPI 3.1.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::admin::response::answer;

/// What every path of the API begins with.
pub(super) const ROOT: &str = "/admin/v1";

/// The description; `docs/admin.md` is for people.
const DOCUMENT: &str = include_str!("openapi.json");

/// Paths behind the root, and their methods. `*` is one segment, `**` one or more.
const ENDPOINTS: &[(&str, &[&str])] = &[
    ("me", &["GET"]),
    ("status", &["GET"]),
    ("overview", &["GET"]),
    ("config", &["GET"]),
    ("reload", &["POST"]),
    ("log-level", &["GET", "PUT", "DELETE"]),
    ("backups", &["POST"]),
    ("jobs", &["GET", "POST"]),
    ("jobs/*", &["GET", "DELETE"]),
    ("usage", &["GET"]),
    ("segments", &["GET"]),
    ("tenants", &["GET"]),
    ("streams", &["GET"]),
    ("streams/**", &["GET", "PATCH", "DELETE"]),
    ("producers/**", &["GET"]),
    ("tail/**", &["GET"]),
    ("data/**", &["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"]),
    ("subscriptions", &["GET"]),
    ("subscriptions/*", &["GET", "DELETE"]),
    ("subscriptions/*/retry", &["POST"]),
    ("subscriptions/*/pause", &["POST"]),
    ("subscriptions/*/resume", &["POST"]),
    ("keys", &["GET", "POST"]),
    ("keys/*", &["DELETE"]),
    ("projects", &["GET", "POST"]),
    ("projects/*", &["DELETE"]),
    ("projects/*/rotate", &["POST"]),
    ("tokens", &["POST"]),
    ("url-keys", &["GET", "POST"]),
    ("url-keys/*", &["DELETE"]),
    ("signed-urls", &["POST"]),
    ("openapi.json", &["GET"]),
];

/// Those that administrators of a tenant may use, for what belongs to their tenant. All others are for administrators of the
/// whole server.
const FOR_TENANTS: &[&str] = &[
    "me",
    "usage",
    "streams",
    "streams/**",
    "producers/**",
    "tail/**",
    "data/**",
    "jobs",
    "jobs/*",
    "subscriptions",
    "subscriptions/*",
    "subscriptions/*/retry",
    "subscriptions/*/pause",
    "subscriptions/*/resume",
    "openapi.json",
];

/// Whether administrators of a tenant may use a path.
pub(super) fn is_for_tenants(segments: &[&str]) -> bool {
    segments.is_empty() || FOR_TENANTS.iter().any(|pattern| matches(pattern, segments))
}

/// Whether a path exists, with whatever method.
pub(super) fn knows(segments: &[&str]) -> bool {
    segments.is_empty() || ENDPOINTS.iter().any(|(pattern, _)| matches(pattern, segments))
}

fn matches(pattern: &str, segments: &[&str]) -> bool {
    let mut rest = segments.iter();
    for part in pattern.split('/') {
        match (part, rest.next()) {
            ("**", Some(_)) => return true,
            ("*", Some(_)) => {}
            (word, Some(segment)) if word == *segment => {}
            _ => return false,
        }
    }
    rest.next().is_none()
}

/// What `GET /admin/v1` answers.
pub(super) fn index() -> Value {
    let one = |(path, methods): &(&str, &[&str])| json!({ "path": format!("{ROOT}/{path}"), "methods": methods });
    json!({ "endpoints": ENDPOINTS.iter().map(one).collect::<Vec<_>>() })
}

/// What `GET /admin/v1/openapi.json` answers.
pub(super) fn document() -> Response<Vec<u8>> {
    answer(StatusCode::OK, "application/json", DOCUMENT.into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_has_every_endpoint_and_no_other() {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let mut described = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            let path = path.strip_prefix("/admin/v1/").unwrap();
            let parts = path.split('/').map(|part| match part {
                "{path}" => "**",
                part if part.starts_with('{') => "*",
                part => part,
            });
            let path = parts.collect::<Vec<_>>().join("/");
            for method in methods.as_object().unwrap().keys().filter(|key| *key != "parameters") {
                described.insert((path.clone(), method.to_uppercase()));
            }
        }
        let listed: BTreeSet<_> = ENDPOINTS
            .iter()
            .flat_map(|(path, methods)| methods.iter().map(|m| (path.to_string(), m.to_string())))
            .collect();
        assert_eq!(described, listed);
    }

    #[test]
    fn paths_are_known_by_their_segments() {
        for path in ["streams", "streams/a", "streams/a/b/c", "projects/p/rotate", "keys/k"] {
            assert!(knows(&path.split('/').collect::<Vec<_>>()), "{path}");
        }
        for path in ["stream", "keys/k/k", "projects/p/rotate/now", "status/x"] {
            assert!(!knows(&path.split('/').collect::<Vec<_>>()), "{path}");
        }
    }
}
