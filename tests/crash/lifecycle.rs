//! SIGKILL while clients create, close and delete streams: at every start the lifecycle stream tells exactly what became of
//! the streams that are there, each event once.

use std::{collections::HashMap, thread, time::Duration};

use serde_json::Value;

use crate::{
    client::Client,
    kill::{Seed, from_environment},
    server::{SMALL, Setup},
};

const WRITERS: usize = 3;
const NAMES: usize = 8;
const LOG: &str = "__ds/lifecycle";

/// Creates, closes and deletes until the server is gone.
fn work(client: &mut Client, writer: usize, mut rng: fastrand::Rng) {
    loop {
        let path = format!("{writer}/{}", rng.usize(..NAMES));
        let plain = [("content-type", "text/plain".to_owned())];
        let close = [("stream-closed", "true".to_owned())];
        let asked = match rng.u8(..4) {
            0 | 1 => client.ask("PUT", &path, &plain, b"some bytes"),
            2 => client.ask("POST", &path, &close, b""),
            _ => client.ask("DELETE", &path, &[], b""),
        };
        if asked.is_err() {
            return;
        }
    }
}

/// Compares events and streams. Returns the number of events.
fn check(client: &mut Client) -> usize {
    let all = client.must("GET", LOG, &[], b"");
    assert_eq!((all.status, all.header("stream-up-to-date")), (200, Some("true")));
    let messages: Vec<Value> = serde_json::from_slice(&all.body).expect("JSON");
    // Whether each stream is closed, by its path.
    let mut told = HashMap::new();
    for (at, message) in messages.iter().enumerate() {
        assert_eq!(message["seq"], at as u64 + 1, "{message}");
        let path = message["path"].as_str().expect("a path").to_owned();
        let before = match message["event"].as_str() {
            Some("created") => told.insert(path, false).map_or("none", |_| "there"),
            Some("closed") => match told.insert(path, true) {
                Some(false) => "open",
                before => panic!("{before:?} before {message}"),
            },
            Some("deleted") => told.remove(&path).map_or("none", |_| "there"),
            _ => panic!("{message}"),
        };
        let deleted = message["event"] == "deleted";
        assert!(before == "open" || (before == "there") == deleted, "{before} before {message}");
    }
    for path in (0..WRITERS).flat_map(|w| (0..NAMES).map(move |n| format!("{w}/{n}"))) {
        let head = client.must("HEAD", &path, &[], b"");
        let there = (head.status == 200).then(|| head.has("stream-closed", "true"));
        assert_eq!(told.get(&path).copied(), there, "{path}: {head:?}");
    }
    messages.len()
}

#[test]
fn events_and_streams_agree_after_kill_9() {
    let seed = Seed(from_environment("CRASH_SEED").unwrap_or_else(|| fastrand::u64(..)));
    let mut rng = fastrand::Rng::with_seed(seed.0);
    let rounds = from_environment("CRASH_ROUNDS").unwrap_or(5);
    let setup = Setup::new(&format!("{SMALL}lifecycle: {{keep_bytes: 1GiB}}\n"));
    let mut events = 0;
    for _ in 0..rounds {
        let mut server = setup.start();
        events = check(&mut server.client());
        let address = server.address;
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let rng = fastrand::Rng::with_seed(rng.u64(..));
                scope.spawn(move || work(&mut Client::new(address), writer, rng));
            }
            thread::sleep(Duration::from_millis(rng.u64(50..500)));
            server.kill();
        });
    }
    let after = check(&mut setup.start().client());
    println!("{rounds} kills, {after} events");
    assert!(after > 0 && after >= events, "{after} events after {events}");
}
