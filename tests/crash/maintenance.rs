//! Maintenance between kills: each round loads the server, kills it, and runs `verify`, `backup`, `restore`, `compact` and
//! `repair` on its data directory, any of them killed at a random moment. Backups are also made of the running server, and
//! now and then a restored backup takes the place of the directory. What was acknowledged is there after every round.
//!
//! `make crash-maintenance MAINTENANCE_ROUNDS=200` for many rounds; `CRASH_SEED=…` chooses what happens.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use std::os::unix::process::CommandExt as _;

use crate::{
    client::Client,
    kill::{Seed, from_environment},
    puller::Puller,
    server::{PATIENCE, SMALL, Setup},
    shared::Shared,
    workload::Writer,
};

const WRITERS: usize = 4;
/// Shared streams are replaced after this many rounds, so that reading them stays quick.
const GENERATION: u64 = 10;

/// What the rounds have done.
#[derive(Debug, Default)]
struct Tally {
    verified: u32,
    backed_up: u32,
    backed_up_beside: u32,
    restored: u32,
    replaced: u32,
    compacted: u32,
    repaired: u32,
    killed: u32,
}

/// How a command ended.
enum End {
    Done,
    Killed,
    Failed(String),
}

/// A command on a data directory, in a process group of its own: `verify` has another process do its work.
fn run(arguments: &[&str], data: &Path, places: &[&Path], life: Option<Duration>) -> End {
    let mut command = Command::new(env!("CARGO_BIN_EXE_durable-streams-server"));
    command.args(arguments).arg("--data-dir").arg(data).args(places);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.process_group(0);
    let mut child = command.spawn().expect("the binary starts");
    let deadline = Instant::now() + life.unwrap_or(PATIENCE);
    loop {
        if let Some(status) = child.try_wait().expect("the child is ours") {
            let said = std::io::read_to_string(child.stderr.take().expect("it is piped"));
            return if status.success() {
                End::Done
            } else {
                End::Failed(said.unwrap_or_default())
            };
        }
        if Instant::now() >= deadline {
            assert!(life.is_some(), "{arguments:?} does not end");
            let group = format!("-{}", child.id());
            let killed = Command::new("kill").args(["-KILL", "--", &group]).status();
            assert!(killed.expect("kill runs").success());
            child.wait().expect("the child is ours");
            until_gone(&group);
            return End::Killed;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until no process of a killed group is left: the last one may still have the directory's lock.
fn until_gone(group: &str) {
    let deadline = Instant::now() + PATIENCE;
    let left = || {
        let mut probe = Command::new("kill");
        probe.args(["-0", "--", group]).stderr(Stdio::null()).status().expect("kill runs").success()
    };
    while left() {
        assert!(Instant::now() < deadline, "a killed command does not end");
        thread::sleep(Duration::from_millis(2));
    }
}

/// The same; it must end well, or be killed. Returns whether it ended.
fn must(arguments: &[&str], data: &Path, places: &[&Path], life: Option<Duration>) -> bool {
    match run(arguments, data, places, life) {
        End::Done => true,
        End::Killed => false,
        End::Failed(said) => panic!("{arguments:?} {places:?} fails: {said}"),
    }
}

fn verify(data: &Path) {
    assert!(must(&["verify"], data, &[], None));
}

/// A directory that is not there.
fn place(setup: &Setup, name: &str) -> PathBuf {
    let place = setup.path().join(name);
    if place.exists() {
        fs::remove_dir_all(&place).expect("it is removed");
    }
    place
}

/// A moment to kill a command at, two times of three.
fn life(rng: &mut fastrand::Rng) -> Option<Duration> {
    (rng.u8(..3) > 0).then(|| Duration::from_millis(rng.u64(..120)))
}

/// One command on the data directory of a server that does not run.
fn maintain(setup: &Setup, rng: &mut fastrand::Rng, tally: &mut Tally) {
    let data = setup.data.as_path();
    let life = life(rng);
    let ended = match rng.u8(..4) {
        0 => {
            let done = must(&["verify"], data, &[], life);
            tally.verified += u32::from(done);
            done
        }
        1 => {
            let done = must(&["compact"], data, &[], life);
            tally.compacted += u32::from(done);
            done
        }
        2 => {
            let done = must(&["repair", "--apply"], data, &[], life);
            tally.repaired += u32::from(done);
            done
        }
        _ => back_up(setup, rng, life, tally),
    };
    tally.killed += u32::from(!ended);
}

fn back_up(
    setup: &Setup,
    rng: &mut fastrand::Rng,
    life: Option<Duration>,
    tally: &mut Tally,
) -> bool {
    let (copy, restored) = (place(setup, "backup"), place(setup, "restored"));
    if !must(&["backup"], &setup.data, &[&copy], life) {
        // Unfinished, or finished before the kill, and never anything between.
        if copy.join("VERSION").exists() {
            verify(&copy);
        }
        return false;
    }
    tally.backed_up += 1;
    verify(&copy);
    if !must(&["restore"], &restored, &[&copy], self::life(rng)) {
        let unfinished = place(setup, "restored");
        assert!(must(&["restore"], &unfinished, &[&copy], None));
    }
    tally.restored += 1;
    verify(&restored);
    if rng.bool() {
        fs::remove_dir_all(&setup.data).expect("it is removed");
        fs::rename(&restored, &setup.data).expect("it is renamed");
        tally.replaced += 1;
    }
    true
}

/// A backup of the running server, which the kill of either may end.
fn back_up_beside(setup: &Setup, mut rng: fastrand::Rng) -> Option<bool> {
    if rng.bool() {
        return None;
    }
    let copy = place(setup, "beside");
    thread::sleep(Duration::from_millis(rng.u64(..300)));
    let done = matches!(run(&["backup"], &setup.data, &[&copy], life(&mut rng)), End::Done);
    if done || copy.join("VERSION").exists() {
        verify(&copy);
    }
    Some(done)
}

#[test]
fn what_was_acknowledged_survives_maintenance_and_its_kills() {
    let rounds = from_environment("MAINTENANCE_ROUNDS").unwrap_or(4);
    let seed = Seed(from_environment("CRASH_SEED").unwrap_or_else(|| fastrand::u64(..)));
    println!("{rounds} rounds, CRASH_SEED={}", seed.0);
    let mut rng = fastrand::Rng::with_seed(seed.0);
    let setup = Setup::new(SMALL);
    let mut writers: Vec<_> = (0..WRITERS).map(|number| Writer::new(number, seed.0)).collect();
    let mut shared: Vec<Shared> = Vec::new();
    let mut puller = Puller::default();
    let mut tally = Tally::default();

    // One more start than kills: the last one only checks.
    for round in 0..=rounds {
        let mut server = setup.start();
        let mut client = server.client();
        puller.check(&mut client);
        let _: usize = shared.iter().map(|s| s.check(&mut client).expect("answers")).sum();
        if round % GENERATION == 0 {
            for old in shared.drain(..) {
                assert_eq!(client.must("DELETE", &old.path, &[], b"").status, 204);
            }
            let fresh = |index| format!("shared/{round}/{index}");
            shared = (0..3).map(|i| Shared::create(&mut client, fresh(i), i % 2 == 0)).collect();
        }
        for writer in &mut writers {
            writer.check(&mut client).expect("answers");
        }
        if round == rounds {
            break;
        }
        let life = Duration::from_millis(rng.u64(20..600));
        let (address, streams, place) = (server.address, &shared, &setup);
        let beside = rng.fork();
        thread::scope(|scope| {
            for writer in &mut writers {
                scope.spawn(move || writer.work(&mut Client::new(address), streams));
            }
            scope.spawn(|| puller.work(&mut Client::new(address)));
            let beside = scope.spawn(move || back_up_beside(place, beside));
            thread::sleep(life);
            server.kill();
            match beside.join().expect("it verifies what it has made") {
                Some(true) => tally.backed_up_beside += 1,
                Some(false) => tally.killed += 1,
                None => {}
            }
        });
        for _ in 0..rng.u8(1..4) {
            maintain(&setup, &mut rng, &mut tally);
        }
        // A killed command leaves nothing that the next one stumbles over.
        verify(&setup.data);
        let total: u64 = writers.iter().map(|writer| writer.acknowledged).sum();
        println!("round {round}: killed after {life:?}, {total} acknowledged so far");
    }
    let total: u64 = writers.iter().map(|writer| writer.acknowledged).sum();
    println!("{rounds} rounds, {total} acknowledged requests, {} claims, {tally:?}", puller.claims);
    assert!(total > rounds * 5, "the clients have done next to nothing");
    assert!(
        rounds < 20 || tally.killed > 5 && tally.replaced > 1 && tally.compacted > 1,
        "{tally:?}"
    );
}
