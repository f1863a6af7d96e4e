//! The key file: made on first start, rotated, replaced under a running server, and refused when it is not what was
//! written.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use durable_streams_protocol::{
    Timestamp,
    subscription::{JwkSet, SubscriptionId, SubscriptionName, verify_signature},
};
use durable_streams_subscriptions::{
    KeyError, KeyFile, KeySource, OpenError, SubscriptionOptions, SubscriptionPhase, Subscriptions,
};
use http::Method;
use serde_json::{Value, json};

use super::{
    receiver::{Received, Receiver},
    rig::{Rig, options, until},
};

/// When the clock of [`Rig::frozen`] begins.
const START: u64 = 1_700_000_000_000;
const HOUR: u64 = 3_600_000;

fn at(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn with_keys(directory: &Path) -> SubscriptionOptions {
    SubscriptionOptions { keys: KeySource::Directory(directory.join("keys")), ..options() }
}

/// A directory with the key file of a server that ran there.
async fn started() -> (tempfile::TempDir, PathBuf, KeyFile) {
    let directory = tempfile::tempdir().unwrap();
    Rig::frozen(with_keys(directory.path())).await;
    let keys = directory.path().join("keys");
    (directory, keys.join("subscriptions.json"), KeyFile::in_directory(&keys))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn change(path: &Path, edit: impl FnOnce(&mut Value)) {
    let mut stored: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    edit(&mut stored);
    fs::write(path, stored.to_string()).unwrap();
}

async fn published(rig: &Rig) -> JwkSet {
    let (status, keys) = rig.call(Method::GET, "jwks.json", None, Value::Null).await;
    assert_eq!(status, 200);
    serde_json::from_value(keys).unwrap()
}

fn ids(keys: &JwkSet) -> Vec<&str> {
    keys.keys.iter().map(|key| key.kid.as_str()).collect()
}

async fn hook(rig: &Rig, receiver: &Receiver) -> Value {
    let body =
        json!({"type": "webhook", "pattern": "events/*", "webhook": {"url": receiver.url()}});
    rig.put("s", body).await.1
}

fn is_signed(received: &Received, keys: &JwkSet) -> bool {
    verify_signature(&received.signature, &received.raw, keys, START / 1000, 300)
}

#[tokio::test]
async fn the_file_is_for_its_owner_alone_and_its_keys_outlive_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let mut rig = Rig::frozen(with_keys(directory.path())).await;
    let keys = directory.path().join("keys");
    assert_eq!((mode(&keys), mode(&keys.join("subscriptions.json"))), (0o700, 0o600));
    assert!(!keys.join("subscriptions.json.new").exists());
    let before = published(&rig).await;
    assert_eq!(before.keys.len(), 1);
    let receiver = Receiver::start(Receiver::accept()).await;
    let created = hook(&rig, &receiver).await;
    assert_eq!(created["webhook"]["signing"]["kid"], ids(&before)[0]);
    rig.append("events/a", "1").await;
    let wake = receiver.nth(0).await;
    assert!(is_signed(&wake, &before), "{}", wake.signature);
    let name = SubscriptionName { tenant: None, id: SubscriptionId::new("s").unwrap() };
    until("the acceptance", || async {
        let report = rig.subs.report(&name).await.unwrap();
        (report.phase == SubscriptionPhase::Delivered).then_some(())
    })
    .await;
    rig.restart().await;
    assert_eq!(published(&rig).await, before);
    let ack = json!({"wake_id": wake.body["wake_id"], "generation": 1, "done": true});
    let token = wake.body["callback_token"].as_str();
    assert_eq!(rig.post("s", "callback", token, ack).await.0, 200, "its token is good still");
}

#[tokio::test]
async fn keys_in_memory_are_others_after_a_restart() {
    let mut rig = Rig::frozen(options()).await;
    let before = published(&rig).await;
    rig.restart().await;
    assert_ne!(published(&rig).await, before);
}

#[tokio::test]
async fn a_rotated_key_signs_within_two_seconds_and_the_old_one_is_published_for_an_hour() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::frozen(with_keys(directory.path())).await;
    let file = KeyFile::in_directory(&directory.path().join("keys"));
    let first = published(&rig).await;
    let (old, new) = file.rotate(at(START)).unwrap();
    assert_eq!(ids(&first), [&old]);
    assert_ne!(old, new);
    rig.pass(1_999);
    assert_eq!(ids(&published(&rig).await), [&old], "the file is looked at every two seconds");
    rig.pass(1);
    assert_eq!(ids(&published(&rig).await), [&new, &old]);
    let receiver = Receiver::start(Receiver::done()).await;
    assert_eq!(hook(&rig, &receiver).await["webhook"]["signing"]["kid"], new);
    rig.append("events/a", "1").await;
    let only = |id: &str, keys: &JwkSet| JwkSet {
        keys: keys.keys.iter().filter(|key| key.kid == id).cloned().collect(),
    };
    let both = published(&rig).await;
    let wake = receiver.nth(0).await;
    assert!(is_signed(&wake, &only(&new, &both)) && !is_signed(&wake, &only(&old, &both)));
    rig.pass(HOUR - 2_001);
    assert_eq!(ids(&published(&rig).await), [&new, &old]);
    rig.pass(1);
    assert_eq!(ids(&published(&rig).await), [&new]);
}

#[tokio::test]
async fn a_rotation_forgets_keys_whose_hour_is_over() {
    let (_directory, path, file) = started().await;
    let (first, second) = file.rotate(at(START)).unwrap();
    let (old, third) = file.rotate(at(START + HOUR - 1)).unwrap();
    assert_eq!(old, second);
    let retired = |path: &Path| {
        let stored: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        let retired = stored["retired"].as_array().unwrap().iter();
        retired.map(|one| one["key"]["kid"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(retired(&path), [second.clone(), first]);
    file.rotate(at(START + HOUR)).unwrap();
    assert_eq!(retired(&path), [third, second]);
    assert!(file.check().is_ok());
}

#[tokio::test]
async fn a_running_server_keeps_its_keys_while_the_file_is_no_key_file() {
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::frozen(with_keys(directory.path())).await;
    let path = directory.path().join("keys/subscriptions.json");
    let (before, whole) = (published(&rig).await, fs::read(&path).unwrap());
    fs::write(&path, "{}").unwrap();
    rig.pass(2_000);
    assert_eq!(published(&rig).await, before);
    fs::write(&path, whole).unwrap();
    let (_, new) = KeyFile::in_directory(&directory.path().join("keys")).rotate(at(START)).unwrap();
    rig.pass(2_000);
    assert_eq!(ids(&published(&rig).await)[0], new);
}

#[tokio::test]
async fn a_file_that_is_not_what_was_written_is_refused() {
    let (_directory, path, file) = started().await;
    let whole = fs::read(&path).unwrap();
    let refusal = || {
        let checked = file.check().unwrap_err();
        assert_eq!(checked.to_string(), file.rotate(at(1)).unwrap_err().to_string());
        checked
    };
    let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    change(&path, |stored| stored["signing_seed"] = json!(other));
    assert!(matches!(refusal(), KeyError::Damaged { .. }));
    change(&path, |stored| stored["signing_seed"] = json!("AAAA"));
    assert!(matches!(refusal(), KeyError::Damaged { .. }));
    fs::write(&path, &whole).unwrap();
    change(&path, |stored| stored["version"] = json!(3));
    assert!(matches!(refusal(), KeyError::Malformed { .. }));
    fs::write(&path, &whole).unwrap();
    change(&path, |stored| drop(stored.as_object_mut().unwrap().remove("checksum")));
    assert!(matches!(refusal(), KeyError::Malformed { .. }), "version 2 has a checksum");
    fs::write(&path, "no JSON").unwrap();
    let refused = refusal();
    assert!(matches!(&refused, KeyError::Malformed { path: named } if *named == path));
    assert!(refused.to_string().starts_with(&path.display().to_string()), "{refused}");
    fs::write(&path, &whole).unwrap();
    for open in [0o640, 0o604, 0o601] {
        fs::set_permissions(&path, fs::Permissions::from_mode(open)).unwrap();
        let refused = refusal();
        assert!(matches!(refused, KeyError::TooOpen { mode, .. } if mode == open), "{refused}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(file.check().is_ok(), "as it was");
}

/// The version that wrote no checksum; the next start writes one.
#[tokio::test]
async fn a_file_of_the_first_version_is_taken_over() {
    let (directory, path, file) = started().await;
    let before = published(&Rig::frozen(with_keys(directory.path())).await).await;
    change(&path, |stored| {
        stored["version"] = json!(1);
        stored.as_object_mut().unwrap().remove("checksum");
    });
    assert!(file.check().is_ok());
    let rig = Rig::frozen(with_keys(directory.path())).await;
    assert_eq!(published(&rig).await, before);
    let stored: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert_eq!((&stored["version"], stored["checksum"].is_string()), (&json!(2), true));
    change(&path, |stored| {
        stored["version"] = json!(1);
        stored["signing_seed"] = json!("AAAA");
        stored.as_object_mut().unwrap().remove("checksum");
    });
    assert!(matches!(file.check(), Err(KeyError::Malformed { .. })), "a seed of three bytes");
}

#[tokio::test]
async fn what_cannot_be_read_or_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let nothing = KeyFile::in_directory(&directory.path().join("none"));
    assert!(nothing.check().is_ok(), "the first start makes it");
    let refused = nothing.rotate(at(1)).unwrap_err();
    assert!(refused.to_string().starts_with("cannot read "), "{refused}");
    // A directory in the file's place, and then in that of the new file.
    let path = directory.path().join("subscriptions.json");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    let file = KeyFile::in_directory(directory.path());
    assert!(matches!(file.check(), Err(KeyError::Io { operation: "read", .. })));
    // What is there but cannot be read is no first start: its keys would be lost.
    let around = tempfile::tempdir().unwrap();
    let path = around.path().join("subscriptions.json");
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let file = KeyFile::in_directory(around.path());
    assert!(matches!(file.check(), Err(KeyError::Io { operation: "read", .. })));
    let engine = Rig::frozen(options()).await.engine.clone();
    let keys = KeySource::Directory(around.path().to_owned());
    let options = SubscriptionOptions { keys, ..options() };
    let opened = Subscriptions::open(engine, options, crate::http_client()).await;
    assert!(matches!(opened, Err(OpenError::Keys(KeyError::Io { operation: "read", .. }))));
    let (_directory, path, file) = started().await;
    let before = fs::read(&path).unwrap();
    let aside = path.with_extension("json.new");
    fs::create_dir(&aside).unwrap();
    assert!(matches!(file.rotate(at(1)), Err(KeyError::Io { operation: "write", .. })));
    assert_eq!(fs::read(&path).unwrap(), before);
    // What a crash left is replaced.
    fs::remove_dir(&aside).unwrap();
    fs::write(&aside, "half").unwrap();
    file.rotate(at(1)).unwrap();
    assert_eq!((mode(&path), aside.exists()), (0o600, false));
}
