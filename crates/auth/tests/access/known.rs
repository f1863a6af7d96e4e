//! Credentials that the guard remembers: it decides as one that remembers nothing.

use std::sync::Arc;

use durable_streams_auth::{
    AccessGuard, AnonymousAccess, ApiKeys, BearerValidator, CredentialFile, GuardOptions,
    NewApiKey, NewProjectToken, Operation, OperationSet, ProjectScope, ProjectTokens,
    ProviderChain, RateRule, RateRules,
};
use proptest::prelude::*;

use crate::request::{Request, at, credentials, grant};

const APPEND: OperationSet = OperationSet::of(Operation::Append);

fn guard(file: &Arc<CredentialFile>) -> AccessGuard {
    let mut chain = ProviderChain::new();
    chain.push(Arc::new(ApiKeys::new(file.clone(), None))).unwrap();
    chain.push(Arc::new(ProjectTokens::new(file.clone(), None, 1 << 20))).unwrap();
    chain.push(Arc::new(AnonymousAccess::new(vec![grant(&["append"], "open/**")]))).unwrap();
    AccessGuard::new(Arc::new(chain), GuardOptions::default())
}

fn new_key(words: &[&str], pattern: &str) -> NewApiKey {
    let grants = vec![grant(words, pattern)];
    NewApiKey { name: "a".into(), tenant: None, grants, expires: Some(at(60_000)) }
}

fn token(file: &CredentialFile, project: &str) -> String {
    let (scope, stream_id, expires) = (ProjectScope::Write, None, at(60_000));
    file.issue_project_token(&NewProjectToken { project, scope, stream_id, expires }).unwrap()
}

/// Whether the guard knows the request's credential, and what it allows.
fn is_known(guard: &AccessGuard, request: &Request, operations: OperationSet) -> bool {
    guard.admit_known(&request.head(), operations, request.path.as_ref().unwrap()).is_some()
}

async fn admits(guard: &AccessGuard, request: &Request) -> bool {
    guard.admit(&request.head(), APPEND, request.path.as_ref().unwrap()).await.is_ok()
}

#[tokio::test]
async fn a_credential_is_known_once_it_was_verified_until_something_changes() {
    let (_folder, _, file) = credentials();
    let guard = guard(&file);
    let (record, key) = file.create_api_key(new_key(&["write"], "a/**"), at(0)).unwrap();
    file.create_project("a", at(0)).unwrap();
    for credential in [key.clone(), token(&file, "a")] {
        let request = Request::bearer("a/b", &credential);
        assert!(!is_known(&guard, &request, APPEND), "before the first request");
        assert!(admits(&guard, &request).await);
        assert!(is_known(&guard, &request, APPEND));
        let read = OperationSet::of(Operation::Administer).union(APPEND);
        assert!(!is_known(&guard, &request, read), "grants are judged each time");
        assert!(!is_known(&guard, &Request::bearer("b", &credential), APPEND));
        let publish = OperationSet::of(Operation::Publish);
        assert!(!is_known(&guard, &request, publish), "left to the options");
        assert!(!is_known(&guard, &request, OperationSet::NONE));
        let late = Request::bearer("a/b", &credential).at(at(1_000));
        assert!(!is_known(&guard, &late, APPEND), "verified again each second");
        let both = Request::bearer("a/b", &credential).header("x-api-key", "dsk_wrong");
        assert!(!is_known(&guard, &both, APPEND) && !admits(&guard, &both).await);
        let other = Request::new("a/b").header("x-api-key", &format!("Bearer {credential}"));
        assert!(!is_known(&guard, &other, APPEND));
    }
    let request = Request::bearer("a/b", &key);
    assert!(is_known(&guard, &request, APPEND));
    file.revoke_api_key(&record.id, at(0)).unwrap();
    assert!(!is_known(&guard, &request, APPEND) && !admits(&guard, &request).await);
    let in_header = Request::new("a/b").header("x-api-key", &key);
    assert!(!is_known(&guard, &in_header, APPEND) && !admits(&guard, &in_header).await);
}

#[tokio::test]
async fn a_key_that_is_known_is_noted_as_used_within_a_second() {
    let (_folder, _, file) = credentials();
    let guard = guard(&file);
    let (record, key) = file.create_api_key(new_key(&["write"], "**"), at(0)).unwrap();
    for millis in (5_000..15_000).step_by(100) {
        assert!(admits(&guard, &Request::bearer("a", &key).at(at(millis))).await);
        let used = file.last_used().get(&record.id).copied().unwrap().millis();
        assert!(millis - used <= 2_000, "{used} at {millis}");
    }
}

#[tokio::test]
async fn a_provider_that_may_look_at_more_is_always_asked() {
    let (_folder, _, file) = credentials();
    let (_, key) = file.create_api_key(new_key(&["write"], "**"), at(0)).unwrap();
    let sessions = || Arc::new(BearerValidator::new("sessions", |_| async { Ok(None) }));
    let keys = || Arc::new(ApiKeys::new(file.clone(), None));
    for (sessions_first, known) in [(true, false), (false, true)] {
        let mut chain = ProviderChain::new();
        if sessions_first {
            chain.push(sessions()).unwrap();
        }
        chain.push(keys()).unwrap();
        if !sessions_first {
            chain.push(sessions()).unwrap();
        }
        let guard = AccessGuard::new(Arc::new(chain), GuardOptions::default());
        let request = Request::bearer("a", &key);
        assert!(admits(&guard, &request).await);
        assert_eq!(is_known(&guard, &request, APPEND), known);
    }
}

#[tokio::test]
async fn rates_hold_for_credentials_that_are_known() {
    let (_folder, _, file) = credentials();
    let (_, key) = file.create_api_key(new_key(&["write"], "**"), at(0)).unwrap();
    let rule = Some(RateRule { requests: 1, burst: 3, bytes: None });
    let rules = RateRules { principal: rule, buckets: 64, ..RateRules::default() };
    let guard = guard(&file).with_rates(rules);
    let request = Request::bearer("a", &key);
    let mut allowed = 0;
    for _ in 0..10 {
        assert!(!is_known(&guard, &request, APPEND), "charged like all others");
        allowed += usize::from(admits(&guard, &request).await);
    }
    assert_eq!(allowed, 3);
}

#[derive(Clone, Debug)]
enum GuardStep {
    /// Credential and path, each by its number.
    Ask(usize, usize),
    Later(u64),
    NewKey,
    Revoke(usize),
    Rotate(bool),
    DeleteProject,
    NewProject,
}

fn step() -> impl Strategy<Value = GuardStep> {
    prop_oneof![
        12 => (0..6usize, 0..3usize).prop_map(|(which, path)| GuardStep::Ask(which, path)),
        2 => (1..2_000u64).prop_map(GuardStep::Later),
        1 => Just(GuardStep::NewKey),
        1 => (0..4usize).prop_map(GuardStep::Revoke),
        1 => any::<bool>().prop_map(GuardStep::Rotate),
        1 => Just(GuardStep::DeleteProject),
        1 => Just(GuardStep::NewProject),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn a_guard_decides_as_one_that_remembers_nothing(
        steps in prop::collection::vec(step(), 1..40)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (_folder, _, file) = credentials();
            let remembering = guard(&file);
            let mut keys = Vec::new();
            let mut credentials = vec![String::new(), "dsk_nothing".to_owned()];
            let mut now = 0;
            for step in steps {
                match step {
                    GuardStep::Ask(which, path) => {
                        let path = ["a/b", "b", "open/a"][path];
                        let newest_first = credentials.iter().rev();
                        let credential = newest_first.cycle().nth(which).unwrap();
                        let request = match credential.as_str() {
                            "" => Request::new(path),
                            text => Request::bearer(path, text),
                        };
                        let request = request.at(at(now));
                        // Twice: what the first leaves behind decides about the second.
                        for _ in 0..2 {
                            let expected = admits(&guard(&file), &request).await;
                            prop_assert!(expected || !is_known(&remembering, &request, APPEND));
                            prop_assert_eq!(admits(&remembering, &request).await, expected);
                        }
                    }
                    GuardStep::Later(millis) => now += millis,
                    GuardStep::NewKey => {
                        let new = new_key(&["append"], ["a/**", "**"][keys.len() % 2]);
                        let (record, key) = file.create_api_key(new, at(now)).unwrap();
                        keys.push(record.id);
                        credentials.push(key);
                    }
                    GuardStep::Revoke(which) => {
                        let id = keys.iter().rev().nth(which);
                        let _ = id.map(|id| file.revoke_api_key(id, at(now)).unwrap());
                    }
                    GuardStep::Rotate(drop_older) => {
                        if file.rotate_project("a", drop_older, at(now)).is_ok() {
                            credentials.push(token(&file, "a"));
                        }
                    }
                    GuardStep::DeleteProject => drop(file.delete_project("a")),
                    GuardStep::NewProject => {
                        if file.create_project("a", at(now)).is_ok() {
                            credentials.push(token(&file, "a"));
                        }
                    }
                }
            }
            Ok(())
        })?;
    }
}
