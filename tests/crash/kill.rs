//! SIGKILL at random moments, under load, again and again on the same data.
//!
//! `CRASH_ROUNDS=300 cargo test --release --test crash kill -- --nocapture` for many rounds;
//! `CRASH_SEED=…` chooses what the clients do and how long they live, as far as timing allows.

use std::{
    env, thread,
    time::{Duration, Instant},
};

use crate::{
    client::Client,
    server::{SMALL, Setup, replayed},
    shared::Shared,
    workload::Writer,
};

const WRITERS: usize = 6;
/// Shared streams are replaced after this many rounds, so that reading them stays quick.
const GENERATION: u64 = 10;

/// Names the seed when a test fails.
pub(crate) struct Seed(pub(crate) u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("to try again: CRASH_SEED={}", self.0);
        }
    }
}

pub(crate) fn from_environment(name: &str) -> Option<u64> {
    env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    survives(from_environment("CRASH_ROUNDS").unwrap_or(5), "");
}

/// A kill is no power cut: what the operating system has is not lost with the process.
#[test]
fn what_the_operating_system_has_survives_kill_9() {
    let rounds = from_environment("CRASH_ROUNDS").unwrap_or(20) / 10;
    survives(rounds.max(2), "durability: os\n");
    survives(rounds.max(2), "durability: {interval: 100ms}\n");
}

fn survives(rounds: u64, durability: &str) {
    let seed = Seed(from_environment("CRASH_SEED").unwrap_or_else(|| fastrand::u64(..)));
    println!("{rounds} rounds, CRASH_SEED={}", seed.0);
    let mut rng = fastrand::Rng::with_seed(seed.0);
    let setup = Setup::new(&format!("{SMALL}{durability}"));
    let mut writers: Vec<_> = (0..WRITERS).map(|number| Writer::new(number, seed.0)).collect();
    let mut shared: Vec<Shared> = Vec::new();
    let mut recovered = 0;

    // One more start than kills: the last one only checks.
    for round in 0..=rounds {
        // Now and then it dies while it recovers; not before a start has had something to recover, as the next one
        // may have nothing left.
        let deaths = if recovered == 0 { 0 } else { rng.u8(..10).saturating_sub(7) };
        for _ in 0..deaths {
            let mut child = setup.spawn();
            thread::sleep(Duration::from_millis(rng.u64(..60)));
            child.kill().expect("the child is ours");
            child.wait().expect("the child is ours");
        }
        let started = Instant::now();
        let mut server = setup.start();
        let start_up = started.elapsed();
        recovered += replayed(&server.log());
        let mut client = server.client();
        let appended: usize = shared.iter().map(|s| s.check(&mut client).expect("answers")).sum();
        if round % GENERATION == 0 {
            for old in shared.drain(..) {
                assert_eq!(client.must("DELETE", &old.path, &[], b"").status, 204);
            }
            let fresh = |index| format!("shared/{round}/{index}");
            shared = (0..4).map(|i| Shared::create(&mut client, fresh(i), i % 2 == 0)).collect();
        }
        let address = server.address;
        thread::scope(|scope| {
            for writer in &mut writers {
                scope.spawn(move || writer.check(&mut Client::new(address)).expect("answers"));
            }
        });
        let streams: usize = writers.iter().map(Writer::streams).sum();
        if round == rounds {
            println!("checked after the last kill: {streams} streams, {appended} shared requests");
            break;
        }
        let acknowledged: u64 = writers.iter().map(|writer| writer.acknowledged).sum();
        let life = Duration::from_millis(rng.u64(20..1200));
        let (address, shared) = (server.address, &shared);
        thread::scope(|scope| {
            for writer in &mut writers {
                scope.spawn(move || writer.work(&mut Client::new(address), shared));
            }
            for stream in shared {
                scope.spawn(move || stream.follow(&mut Client::new(address)));
            }
            thread::sleep(life);
            server.kill();
        });
        let total: u64 = writers.iter().map(|writer| writer.acknowledged).sum();
        println!(
            "round {round}: up in {start_up:?}, {streams} streams checked, killed after {life:?}, {} acknowledged",
            total - acknowledged
        );
    }
    let total: u64 = writers.iter().map(|writer| writer.acknowledged).sum();
    println!("{rounds} kills, {total} acknowledged requests, {recovered} events replayed");
    assert!(total > rounds * 5, "the clients have done next to nothing");
    assert!(recovered > 0, "no start had anything to recover");
}
