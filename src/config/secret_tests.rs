//! No key shows a secret in the configuration in force, in the changes of a reload, or in an error.
//!
//! A secret is planted at every key that there is, in every form in which one is written. A key whose type takes it and
//! shows it is in [`SHOWN`], with what it holds instead of secrets: a new key that takes free text fails here until its type
//! says `SECRET`, or its author says that it holds none.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const SECRET: &str = "planted-secret";

/// Forms in which a secret is shown nowhere, whatever the key.
const IN_URLS: [&str; 5] = [
    "https://planted-secret@host.example/",
    "https://user:planted-secret@host.example/keys",
    "https://host.example/?planted-secret",
    "/check?key=planted-secret",
    "https://host.example/v1/traces?key=planted-secret&b=planted-secret",
];

/// Forms that a type shows unless it says that it holds secrets.
const FREE_TEXT: [&str; 6] = [
    "planted-secret",
    "/planted-secret",
    "planted-secret/**",
    "planted-secret.example:443",
    "x-api-key=planted-secret",
    "https://host.example/planted-secret",
];

/// Keys that take free text and show it: names and paths, also of files that hold a secret. Secrets themselves stand in files,
/// in the credentials file, or in the environment of other programs.
const SHOWN: &[&str] = &[
    "acme.ca",
    "acme.directory",
    "acme.email",
    "acme.external_account.hmac_key_file",
    "acme.external_account.key_id",
    "admin.backups",
    "allowed_hosts",
    "auth.anonymous[].paths",
    "auth.client_certificates[].common_name",
    "auth.client_certificates[].dns",
    "auth.client_certificates[].email",
    "auth.client_certificates[].paths",
    "auth.client_certificates[].tenant",
    "auth.client_certificates[].uri",
    "auth.cookie",
    "auth.credentials",
    "auth.forward.allow_header",
    "auth.forward.paths",
    "auth.forward.paths_header",
    "auth.forward.request_headers",
    "auth.forward.tenant_header",
    "auth.forward.url",
    "auth.forward.user_header",
    "auth.issuers[].audience",
    "auth.issuers[].issuer",
    "auth.issuers[].jwks_file",
    "auth.issuers[].jwks_url",
    "auth.issuers[].name",
    "auth.issuers[].paths",
    "auth.issuers[].paths_claim",
    "auth.issuers[].scope_claim",
    "auth.issuers[].scopes[].scope",
    "auth.issuers[].secret_file",
    "auth.issuers[].tenant_claim",
    "auth.quotas.paths[].prefix",
    "auth.quotas.tenants[].name",
    "auth.rates.paths[].prefix",
    "browser.content_security_policy",
    "cors.headers",
    "data_dir",
    "retention[].paths",
    "route",
    "subscriptions.allowed_hosts",
    "subscriptions.public_url",
    "telemetry.tracing.endpoint",
    "telemetry.tracing.service_name",
    "telemetry.usage.prefixes",
    "tier.endpoint",
    "tier.region",
    "upstreams[].forward_auth.copy_headers",
    "upstreams[].forward_auth.request_headers",
    "upstreams[].forward_auth.url",
    "upstreams[].hash_header",
    "upstreams[].health_check.path",
    "upstreams[].path",
    "upstreams[].tls.ca",
    "upstreams[].tls.sni",
];

/// A tree with a text at one key; `a[].b` is in the first item of a list.
fn tree(key: &str, text: &str) -> ConfigNode {
    let (step, rest) = key.split_once('.').map_or((key, None), |(step, rest)| (step, Some(rest)));
    let inner = rest.map_or_else(|| ConfigNode::text(text), |rest| tree(rest, text));
    match step.strip_suffix("[]") {
        None => ConfigNode::group(vec![(step, inner)]),
        Some(name) => {
            let list = NodeValue::List(vec![inner]);
            ConfigNode::group(vec![(name, ConfigNode { value: list, ..ConfigNode::default() })])
        }
    }
}

/// What is shown of a configuration with this text at this key, and what its refusal says.
fn shown(key: &str, text: &str) -> (String, String) {
    let tree = tree(key, text);
    let mut problems = ConfigProblems::about(&tree, Vec::new());
    let config = Config::read(&tree, "", &mut problems).unwrap_or_default();
    rules::check_all(&config, true, &mut problems);
    let refusal = problems.into_result((), Some("streams.yaml")).err();
    let changes = Config::default().changes(&config);
    let shown = format!("{} {changes:?}", config.masked());
    (shown, refusal.map(|error| error.to_string()).unwrap_or_default())
}

fn all_keys() -> Vec<String> {
    let mut keys = Vec::new();
    Config::keys("", &mut keys);
    keys
}

#[test]
fn what_is_secret_in_a_url_is_shown_nowhere() {
    for key in all_keys() {
        for text in IN_URLS {
            let (shown, refusal) = shown(&key, text);
            assert!(!shown.contains(SECRET), "{key}: {text} is shown: {shown}");
            assert!(!refusal.contains(SECRET), "{key}: {text} is in its refusal: {refusal}");
        }
    }
}

#[test]
fn every_key_that_shows_free_text_is_known_to_hold_no_secret() {
    let mut showing = BTreeMap::new();
    for key in all_keys() {
        for text in FREE_TEXT {
            if shown(&key, text).0.contains(SECRET) {
                showing.insert(key.clone(), text);
            }
        }
    }
    let found: BTreeSet<&str> = showing.keys().map(String::as_str).collect();
    let known: BTreeSet<&str> = SHOWN.iter().copied().collect();
    let new: Vec<_> = found.difference(&known).collect();
    assert!(new.is_empty(), "may these hold a secret? If so, their type is SECRET: {new:#?}");
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(gone.is_empty(), "these show no text any more: {gone:#?}");
}

#[test]
fn a_secret_of_a_header_is_in_no_refusal_either() {
    for text in ["x api key=planted-secret", "planted-secret", "a=planted-secret\nb"] {
        let (shown, refusal) = shown("telemetry.tracing.headers", text);
        assert!(!refusal.is_empty() && !refusal.contains(SECRET), "{refusal}");
        assert!(!shown.contains(SECRET), "{shown}");
    }
}
