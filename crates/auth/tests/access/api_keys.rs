//! API keys and the file that holds their hashes.

use std::{fs, sync::Arc};

use durable_streams_auth::{
    AccessControl, AccessError, ApiKeys, CredentialFile, CredentialFileError, NewApiKey, Operation,
    TenantId, api_key_id,
};
use http::Method;

use crate::request::{Request, at, credentials, grant};

fn new_key(name: &str) -> NewApiKey {
    NewApiKey {
        name: name.into(),
        tenant: None,
        grants: vec![grant(&["read"], "a/**")],
        expires: None,
    }
}

#[tokio::test]
async fn a_key_does_what_it_was_made_for() {
    let (_folder, _, file) = credentials();
    let acme = TenantId::new("acme").ok();
    let new = NewApiKey { tenant: acme.clone(), expires: Some(at(1_000)), ..new_key("ci") };
    let (record, key) = file.create_api_key(new, at(5)).unwrap();
    let provider = Arc::new(ApiKeys::new(file, None));

    let request = Request::bearer("a/b", &key);
    let principal = request.authenticate(&provider).await.unwrap();
    assert_eq!(*principal.identity, format!("key:{}", record.id));
    assert_eq!(principal.tenant, acme);
    for (operation, path, now, status) in [
        (Operation::Read, "a/b", 0, 200),
        (Operation::Append, "a/b", 0, 403),
        (Operation::Read, "b", 0, 404),
        (Operation::Read, "a/b", 999, 200),
        (Operation::Read, "a/b", 1_000, 401),
    ] {
        let request = Request::bearer(path, &key).at(at(now));
        let found = request.status(provider.clone(), operation).await;
        assert_eq!(found, status, "{operation} {path} at {now}");
    }
    let header = Request::new("a/b").header("x-api-key", &key);
    assert_eq!(header.status(provider, Operation::Read).await, 200);
}

#[tokio::test]
async fn what_is_no_key_of_this_server_is_refused() {
    let (_folder, _, file) = credentials();
    let (_, key) = file.create_api_key(new_key("one"), at(0)).unwrap();
    let (_, stranger) = credentials().2.create_api_key(new_key("other"), at(0)).unwrap();
    let provider = ApiKeys::new(file, None);
    let flipped = |at: usize| {
        let mut bytes = key.clone().into_bytes();
        bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
        String::from_utf8(bytes).unwrap()
    };
    for wrong in
        [stranger, flipped(6), flipped(20), flipped(53), key[..53].into(), format!("{key}a")]
    {
        let refused = Request::bearer("a/b", &wrong).authenticate(&provider).await;
        assert!(matches!(refused, Err(AccessError::InvalidCredentials(_))), "{wrong}");
    }
    // Tokens of other kinds are for other providers.
    let other = Request::bearer("a/b", "eyJhbGciOiJub25lIn0.e30.").authenticate(&provider).await;
    assert_eq!(other.unwrap_err(), AccessError::UnknownCredentials);
    let none = Request::new("a/b").authenticate(&provider).await;
    assert_eq!(none.unwrap_err(), AccessError::NoCredentials);
}

#[tokio::test]
async fn a_cookie_carries_a_key_for_reads_only_when_configured() {
    let (_folder, _, file) = credentials();
    let (_, key) = file.create_api_key(new_key("browser"), at(0)).unwrap();
    let with = ApiKeys::new(file.clone(), Some("ds".into()));
    let without = ApiKeys::new(file, None);
    let request = || Request::new("a/b").header("cookie", &format!("ds={key}"));
    assert!(request().authenticate(&with).await.is_ok());
    assert!(request().method(Method::POST).authenticate(&with).await.is_err());
    assert!(request().authenticate(&without).await.is_err());
}

#[test]
fn a_scanner_can_tell_a_key_from_noise() {
    let (_folder, _, file) = credentials();
    let (record, key) = file.create_api_key(new_key("ci"), at(0)).unwrap();
    assert_eq!(key.len(), 54);
    assert!(key.starts_with("dsk_"));
    assert_eq!(api_key_id(&key), Some(record.id.as_str()));
    for noise in ["", "dsk_", &format!("dsk_{}", "a".repeat(50)), &key.to_uppercase()] {
        assert_eq!(api_key_id(noise), None, "{noise}");
    }
}

#[test]
fn the_file_holds_no_key_and_is_nobody_elses() {
    let (_folder, path, file) = credentials();
    let (record, key) = file.create_api_key(new_key("ci"), at(0)).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(&record.id));
    let secret = &key[4 + 12..key.len() - 6];
    assert!(!text.contains(secret), "only a hash is stored");
    assert!(!format!("{record:?}").contains(secret));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let opened = CredentialFile::open(&path);
        assert!(matches!(opened, Err(CredentialFileError::Permissions { mode: 0o640, .. })));
    }
}

/// Of the credentials file each bit counts: in a secret, a grant, a time, a name.
#[test]
fn a_flipped_bit_in_the_credentials_file_is_refused() {
    let (_folder, path, file) = credentials();
    let expires = Some(at(1_000));
    file.create_api_key(NewApiKey { expires, ..new_key("ci") }, at(0)).unwrap();
    file.create_project("acme", at(0)).unwrap();
    let whole = fs::read(&path).unwrap();
    let (mut refused, mut harmless) = (0, 0);
    for (at, bit) in (0..whole.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << bit;
        fs::write(&path, &flipped).unwrap();
        match CredentialFile::open(&path) {
            Err(_) => refused += 1,
            // One blank for another, or one spelling of a time for another.
            Ok(opened) => {
                let same = (opened.api_keys(), opened.projects());
                assert_eq!(same, (file.api_keys(), file.projects()), "bit {bit} of byte {at}");
                harmless += 1;
            }
        }
    }
    println!("| keys, credentials file | {refused} | 0 | {harmless} | 0 |");
    assert!(refused > 20 * harmless, "{refused} refused, {harmless} harmless");
    // Files that were made before there was a checksum have none; nor do those that are changed by hand.
    let text = String::from_utf8(whole).unwrap();
    let (before, _) = text.split_once(",\n  \"checksum\"").unwrap();
    fs::write(&path, format!("{}\n}}\n", before.replace("\"ci\"", "\"by hand\""))).unwrap();
    assert_eq!(CredentialFile::open(&path).unwrap().api_keys()[0].name, "by hand");
}

#[tokio::test]
async fn another_process_makes_and_revokes_keys_while_the_server_runs() {
    let (_folder, path, server) = credentials();
    let command = CredentialFile::open(&path).unwrap();
    let provider = Arc::new(ApiKeys::new(server.clone(), None));
    let (record, key) = command.create_api_key(new_key("ci"), at(0)).unwrap();

    let request = || Request::bearer("a/b", &key);
    assert!(request().authenticate(&provider).await.is_err(), "not read yet");
    assert!(server.refresh().unwrap());
    assert!(!server.refresh().unwrap(), "an unchanged file is not read again");
    let principal = request().authenticate(&provider).await.unwrap();
    assert!(provider.is_current(&principal, at(10)));

    // Another change to the file does not end what this key does.
    command.create_api_key(new_key("other"), at(1)).unwrap();
    server.refresh().unwrap();
    assert!(provider.is_current(&principal, at(10)));

    let revoked = command.revoke_api_key("ci", at(7)).unwrap();
    assert_eq!((revoked.id, revoked.revoked), (record.id, Some(at(7))));
    server.refresh().unwrap();
    assert!(!provider.is_current(&principal, at(10)), "a live read ends");
    assert!(request().authenticate(&provider).await.is_err());
}

#[tokio::test]
async fn a_key_that_was_narrowed_by_hand_ends_what_it_did_before() {
    let (_folder, path, file) = credentials();
    let (_, key) = file.create_api_key(new_key("ci"), at(0)).unwrap();
    let provider = ApiKeys::new(file.clone(), None);
    let principal = Request::bearer("a/b", &key).authenticate(&provider).await.unwrap();
    let text = fs::read_to_string(&path).unwrap().replace("a/**", "a/only");
    fs::write(&path, &text).unwrap();
    assert!(file.refresh().unwrap_err().to_string().contains("remove the field `checksum`"));
    let (text, _) = text.split_once(",\n  \"checksum\"").unwrap();
    fs::write(&path, format!("{text}\n}}\n")).unwrap();
    assert!(file.refresh().unwrap());
    assert!(!provider.is_current(&principal, at(0)));
}

#[test]
fn keys_are_revoked_by_id_or_by_a_name_that_only_one_has() {
    let (_folder, _, file) = credentials();
    let (first, _) = file.create_api_key(new_key("twin"), at(0)).unwrap();
    file.create_api_key(new_key("twin"), at(0)).unwrap();
    assert!(file.revoke_api_key("twin", at(1)).is_err(), "which of the two is not known");
    file.revoke_api_key(&first.id, at(1)).unwrap();
    file.revoke_api_key("twin", at(2)).unwrap();
    assert!(file.revoke_api_key("twin", at(3)).is_err(), "none is left");
    assert!(file.api_keys().iter().all(|key| key.revoked.is_some()));
    for name in ["", "a\nb", &"x".repeat(65)] {
        assert!(file.create_api_key(new_key(name), at(0)).is_err(), "{name:?}");
    }
}

#[test]
fn changes_of_many_writers_are_all_kept() {
    let (_folder, path, _) = credentials();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let path = &path;
            scope.spawn(move || {
                let file = CredentialFile::open(path).unwrap();
                for number in 0..5 {
                    let name = format!("{writer}-{number}");
                    file.create_api_key(new_key(&name), at(0)).unwrap();
                }
            });
        }
    });
    assert_eq!(CredentialFile::open(&path).unwrap().api_keys().len(), 20);
}

#[test]
fn a_broken_or_missing_file_revokes_nothing() {
    let (_folder, path, file) = credentials();
    file.create_api_key(new_key("ci"), at(0)).unwrap();
    let good = fs::read_to_string(&path).unwrap();
    for bad in [
        "",
        "{",
        r#"{"version":2}"#,
        r#"{"version":1,"extra":1}"#,
        &good.replace("\"hash\": \"", "\"hash\": \"x"),
    ] {
        fs::write(&path, bad).unwrap();
        assert!(file.refresh().is_err(), "{bad}");
        assert_eq!(file.api_keys().len(), 1);
        assert!(file.create_api_key(new_key("x"), at(0)).is_err(), "and it is not overwritten");
        assert_eq!(fs::read_to_string(&path).unwrap(), *bad);
    }
    fs::remove_file(&path).unwrap();
    assert!(file.refresh().is_err());
    assert_eq!(file.api_keys().len(), 1);
}

#[tokio::test]
async fn the_last_use_of_a_key_outlives_the_server() {
    let (_folder, path, file) = credentials();
    let (record, key) = file.create_api_key(new_key("ci"), at(0)).unwrap();
    file.create_api_key(new_key("unused"), at(0)).unwrap();
    let provider = ApiKeys::new(file.clone(), None);
    for now in [4_000, 4_500, 9_000] {
        Request::bearer("a", &key).at(at(now)).authenticate(&provider).await.unwrap();
    }
    file.save_usage().unwrap();
    let again = CredentialFile::open(&path).unwrap();
    assert_eq!(again.last_used(), [(record.id, at(9_000))].into());
}
