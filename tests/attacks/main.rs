//! Attacks of one client, and what another client beside them notices.
//!
//! Each attack runs against a server of its own, the real binary on loopback with files and fsync. The attacker and the
//! other client come through the PROXY protocol, so that the server sees two addresses. The other client appends and
//! reads all the time; its durations are compared with those beside no attack.
//!
//! In the test command each attack lasts a second, and only what no machine is too slow for is required: every request
//! of the other client is answered, and the server stays small. `make attacks` lets each last a minute in a release
//! build, prints the table of docs/security.md, and requires that the median and the largest of the other client's
//! durations stay within ten times the quiet ones. Attackers, client and server share the processors here, so the machine
//! is measured too: where a sync of another file or a sleeping thread was later than the quiet client, that counts.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed helper fails its test")]

mod attacker;
mod control;
mod floods;
mod http2;
mod observer;
mod process;
mod report;
mod stalls;

use std::time::Duration;

use attacker::Attacker;
use observer::Observed;
use process::Server;

/// The most memory of the server, MiB.
const MAX_RESIDENT: u64 = 1536;
/// The most that a median or a largest duration may be of the quiet one. Below a millisecond a difference is not looked at.
const MAX_RATIO: f64 = 10.0;

/// Its name, and what it does until the end.
type Attack = (&'static str, fn(Attacker));

/// Everything that is done to a server.
const ATTACKS: [Attack; 9] = [
    ("none", |_| {}),
    ("patterns", floods::patterns),
    ("HTTP/2 readers that do not read", stalls::http2_readers),
    ("silent uploads", stalls::uploads),
    ("stalled SSE readers", stalls::event_readers),
    ("hanging webhook receiver", floods::webhooks),
    ("compression", floods::compression),
    ("standard error that nobody reads", floods::log_lines),
    ("silent connections to the admin listener", stalls::admin_connections),
];

fn seconds() -> Option<u64> {
    std::env::var("ATTACK_SECONDS").ok().map(|text| text.parse().expect("ATTACK_SECONDS"))
}

fn under(attack: fn(Attacker), lasting: Duration) -> Observed {
    let server = Server::start();
    server.stock();
    let attacker = Attacker::begin(&server);
    let runtime = attacker.clone();
    let thread = std::thread::spawn(move || attack(runtime));
    // What an attack opens is there before the first duration counts.
    std::thread::sleep(lasting.min(Duration::from_secs(5)));
    let observed = observer::observe(&server, lasting);
    attacker.stop();
    thread.join().expect("the attack");
    observed
}

#[test]
fn a_client_beside_an_attack_is_served() {
    process::raise_descriptor_limit();
    let minute = seconds();
    let lasting = Duration::from_secs(minute.unwrap_or(1));
    let only = std::env::var("ATTACK_ONLY").ok();
    let mut quiet: Option<Observed> = None;
    let mut problems = Vec::new();
    println!("{}", report::HEAD);
    for (name, attack) in ATTACKS {
        if only.as_ref().is_some_and(|only| quiet.is_some() && !name.contains(only.as_str())) {
            continue;
        }
        let observed = under(attack, lasting);
        println!("{}", report::row(name, &observed));
        let quiet = quiet.get_or_insert_with(|| observed.clone());
        problems.extend(judge(name, &observed, quiet, minute.is_some()));
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

fn judge(name: &str, observed: &Observed, quiet: &Observed, compare: bool) -> Vec<String> {
    let mut problems = Vec::new();
    let machine = &observed.machine;
    let (woke, synced) = (machine.wakes.max(), machine.syncs.max());
    for (what, durations, before, late) in [
        ("appends", &observed.appends, &quiet.appends, woke.max(synced)),
        ("reads", &observed.reads, &quiet.reads, woke),
        ("health checks", &observed.health, &quiet.health, woke),
    ] {
        if durations.failed > 0 || durations.is_empty() {
            problems.push(format!("{name}: {what}: {} failed", durations.failed));
        }
        let most = before.median().max(Duration::from_millis(1)).mul_f64(MAX_RATIO);
        if compare && durations.median() > most {
            problems.push(format!(
                "{name}: {what}: {:?} at the median, {:?} beside nothing",
                durations.median(),
                before.median()
            ));
        }
        let most = before.max().max(late).max(Duration::from_millis(1)).mul_f64(MAX_RATIO);
        if compare && durations.max() > most {
            problems.push(format!(
                "{name}: {what}: {:?} at most, {:?} beside nothing, and the machine was late by {late:?}",
                durations.max(),
                before.max()
            ));
        }
    }
    if observed.resident > MAX_RESIDENT {
        problems.push(format!("{name}: {} MiB", observed.resident));
    }
    problems
}
