//! Two servers and one prefix of an object store: the second is refused, and has to take the prefix over.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    server::{PATIENCE, SMALL, Setup},
    support::{Outcome, binary, finish},
};

fn take_over(setup: &Setup) -> Outcome {
    let config = setup.path().join("server.yaml");
    finish(binary().args(["tier", "take-over", "--config"]).arg(config))
}

/// A server whose segments go to this directory at once.
fn server_on(bucket: &Path) -> Setup {
    let url = format!("file://{}", bucket.canonicalize().unwrap().display());
    Setup::new(&format!(
        "{SMALL}tier: {{url: '{url}', interval: 20ms, local: 0B, index_interval: 0s}}\n"
    ))
}

/// Names of objects of segments.
fn segments(bucket: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for identity in fs::read_dir(bucket.join("segments")).into_iter().flatten() {
        let names = fs::read_dir(identity.unwrap().path()).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        found.extend(names.filter(|name| name.ends_with(".seg")));
    }
    found.sort();
    found
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_second_server_is_refused_until_it_takes_the_prefix_over_and_then_the_first_stops_moving() {
    let bucket = tempfile::tempdir().unwrap();
    let (one, two) = (server_on(bucket.path()), server_on(bucket.path()));
    let first = one.start();
    let mut client = first.client();
    let kind = [("content-type", "text/plain")];
    for path in ["old", "kept"] {
        assert_eq!(client.must("PUT", path, &kind, &b"the first bytes;".repeat(1000)).status, 201);
    }
    until("segments are objects", || segments(bucket.path()).len() >= 2);

    let refusal = two.refused();
    assert!(refusal.contains("belongs to another server"), "{refusal}");
    assert!(refusal.contains("durable-streams-server tier take-over"), "{refusal}");

    let taken = take_over(&two);
    assert_eq!((taken.code, taken.stderr.as_str()), (0, ""), "{}", taken.stdout);
    assert!(taken.stdout.contains("(claim 2)"), "{}", taken.stdout);
    assert!(taken.stdout.contains("its objects stay below segments/"), "{}", taken.stdout);

    // The first one sees that at the latest when it is to delete something. It goes on with its own disk.
    let before = segments(bucket.path());
    assert_eq!(client.must("DELETE", "old", &[], b"").status, 204);
    first.until_logged("the claim on the object store is lost");
    first.until_logged("another server has taken the prefix over");
    let there = segments(bucket.path());
    assert!(before.iter().all(|name| there.contains(name)), "{before:?} {there:?}");
    for _ in 0..20 {
        let reply = client.must("POST", "kept", &kind, &b"and the last bytes;".repeat(1000));
        assert_eq!(reply.status, 204);
    }
    let whole = client.must("GET", "kept", &[], b"");
    assert_eq!((whole.status, whole.body.len()), (200, 16_000 + 20 * 19_000));
    // Long enough for several walks of the sealer and rounds of uploads.
    thread::sleep(Duration::from_millis(300));
    assert_eq!(segments(bucket.path()), there, "nothing came and nothing went");

    let second = two.start();
    assert!(first.stop().status.success());
    let refusal = one.refused();
    assert!(refusal.contains("tier take-over"), "{refusal}");
    assert!(second.stop().status.success());
}

#[test]
fn a_take_over_needs_an_object_store_and_a_stopped_server() {
    let bucket = tempfile::tempdir().unwrap();
    let setup = server_on(bucket.path());
    let server = setup.start();
    let seen = take_over(&setup);
    assert_eq!(seen.code, 1, "{}", seen.stdout);
    assert!(seen.stderr.contains("is in use by another process"), "{}", seen.stderr);
    assert!(server.stop().status.success());
    assert_eq!(take_over(&setup).code, 0);
    assert!(setup.start().stop().status.success());

    let without = take_over(&Setup::new(SMALL));
    assert_eq!(without.code, 1);
    assert!(without.stderr.contains("has no tier"), "{}", without.stderr);
}
