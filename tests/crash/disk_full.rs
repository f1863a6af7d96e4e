//! A disk that is full: appends are refused and not acknowledged, reads go on, the process stays up,
//! appends resume when there is room, and a restart has all that was acknowledged. And one that is read-only.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use crate::{
    client::{Client, Reply},
    mount::SmallDisk,
    oracle,
    server::{PATIENCE, Server, Setup},
};

const TEXT: (&str, &str) = ("content-type", "text/plain");
/// Bytes of a record.
const RECORD: usize = 60 << 10;

/// One stream, appended to until it is refused and after.
pub(crate) struct Appender {
    pub(crate) path: String,
    pub(crate) acknowledged: Vec<String>,
    attempts: usize,
}

impl Appender {
    pub(crate) fn create(client: &mut Client, path: &str) -> Self {
        let reply = client.must("PUT", path, &[TEXT], b"");
        assert_eq!(reply.status, 201, "{reply:?}");
        Appender { path: path.into(), acknowledged: Vec::new(), attempts: 0 }
    }

    /// One more record of about `bytes`. Records that are refused are never sent again.
    pub(crate) fn append(&mut self, client: &mut Client, bytes: usize) -> Reply {
        self.attempts += 1;
        let record = format!("{}|{}", self.attempts, "x".repeat(bytes));
        let reply = client.must("POST", &self.path, &[TEXT], format!("{record}\n").as_bytes());
        if reply.status == 204 {
            self.acknowledged.push(record);
        }
        reply
    }

    fn until_refused(&mut self, client: &mut Client, bytes: usize) -> Reply {
        for _ in 0..2000 {
            let reply = self.append(client, bytes);
            if reply.status != 204 {
                return reply;
            }
        }
        panic!("the disk never got full");
    }

    pub(crate) fn until_accepted(&mut self, client: &mut Client) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = self.append(client, 100);
            if reply.status == 204 {
                return;
            }
            assert!(matches!(reply.status, 503 | 507), "{reply:?}");
            assert!(Instant::now() < deadline, "appends never resume: {reply:?}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Everything acknowledged is there, and nothing else.
    pub(crate) fn check(&self, client: &mut Client) {
        let rest = oracle::rest(client, &self.path, "-1", false).expect("reads go on");
        assert_eq!(rest.records.len(), self.acknowledged.len(), "records of {}", self.path);
        assert!(rest.records == self.acknowledged, "{} holds something else", self.path);
    }
}

/// No acknowledgement, and a problem that says why and when to try again.
fn is_refusal_for_room(reply: &Reply) {
    assert_eq!((reply.status, reply.code()), (507, "storage-full".into()), "{reply:?}");
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
}

/// What both cases have in common, after the first refusal.
fn stays_up_and_recovers(
    mut server: Server,
    setup: &Setup,
    disk: &SmallDisk,
    mut stream: Appender,
    room: &str,
) {
    let mut client = server.client();
    stream.check(&mut client);
    for _ in 0..5 {
        is_refusal_for_room(&stream.append(&mut client, RECORD));
    }
    stream.check(&mut client);
    assert!(server.is_running());
    let tail = follows(&mut client, &stream);

    // Someone waits at the tail from before there is room until the first append that it lets through.
    let waiting = thread::spawn({
        let (mut client, path) = (server.client(), stream.path.clone());
        move || wait_at(&mut client, &path, tail)
    });
    disk.remount(room);
    stream.until_accepted(&mut client);
    let first = format!("{}\n", stream.acknowledged.last().expect("it was accepted"));
    assert_eq!(waiting.join().expect("live reads go on"), first.as_bytes());
    for _ in 0..20 {
        assert_eq!(stream.append(&mut client, RECORD).status, 204);
    }
    stream.check(&mut client);
    server.kill();

    let server = setup.start();
    stream.check(&mut server.client());
    let ended = server.stop();
    assert!(ended.status.success(), "{}", ended.log);
    let server = setup.start();
    stream.check(&mut server.client());
    stream.until_accepted(&mut server.client());
}

/// Long-polls from the start to the tail; gives the tail.
fn follows(client: &mut Client, stream: &Appender) -> String {
    let (mut at, mut bytes) = ("-1".to_owned(), 0);
    let expected: usize = stream.acknowledged.iter().map(|record| record.len() + 1).sum();
    while bytes < expected {
        let path = format!("{}?live=long-poll&offset={at}", stream.path);
        let reply = client.must("GET", &path, &[], b"");
        assert_eq!(reply.status, 200, "{reply:?}");
        bytes += reply.body.len();
        at = reply.next_offset();
    }
    assert_eq!(bytes, expected, "only what was acknowledged");
    at
}

/// Long-polls at the tail until something comes.
fn wait_at(client: &mut Client, path: &str, mut at: String) -> Vec<u8> {
    loop {
        let reply = client.must("GET", &format!("{path}?live=long-poll&offset={at}"), &[], b"");
        match reply.status {
            200 => return reply.body,
            204 => at = reply.next_offset(),
            _ => panic!("{reply:?}"),
        }
    }
}

fn on(disk: &SmallDisk, storage: &str) -> Setup {
    let settings = format!("storage: {{{storage}}}\nlimits: {{max_append: 512KiB}}\n");
    let mut setup = Setup::on(&settings, &disk.path.join("data"));
    setup.prefix = disk.prefix();
    setup
}

#[test]
fn a_full_log_refuses_appends_until_there_is_room() {
    let Some(disk) = SmallDisk::mount("6m") else { return };
    // No checkpoint comes to the rescue, so it is the log that fills the disk.
    let setup = on(&disk, "checkpoint_interval: 1h, checkpoint_size: 64MiB, wal_segment: 1MiB");
    let server = setup.start();
    let mut client = server.client();
    let mut stream = Appender::create(&mut client, "full/log");
    let refused = stream.until_refused(&mut client, RECORD);
    is_refusal_for_room(&refused);
    server.until_logged("cannot write the log");
    stays_up_and_recovers(server, &setup, &disk, stream, "size=24m");
}

#[test]
fn a_full_index_refuses_appends_until_there_is_room() {
    let Some(disk) = SmallDisk::mount("56m") else { return };
    // The log and its spare segment have their room beforehand; the index must grow, and cannot.
    let setup = on(&disk, "checkpoint_interval: 200ms, checkpoint_size: 1MiB, wal_segment: 20MiB");
    let server = setup.start();
    let mut client = server.client();
    let mut stream = Appender::create(&mut client, "full/index");
    let refused = stream.until_refused(&mut client, RECORD);
    is_refusal_for_room(&refused);
    let log = server.log();
    assert!(log.contains("cannot checkpoint"), "{log}");
    assert!(!log.contains("cannot write the log"), "the log was full first:\n{log}");
    stays_up_and_recovers(server, &setup, &disk, stream, "size=96m");
}

#[test]
fn a_server_killed_on_a_full_disk_comes_up_again() {
    let Some(disk) = SmallDisk::mount("6m") else { return };
    let setup = on(&disk, "checkpoint_interval: 1h, checkpoint_size: 64MiB, wal_segment: 1MiB");
    let mut server = setup.start();
    let mut client = server.client();
    let mut stream = Appender::create(&mut client, "full/killed");
    stream.until_refused(&mut client, RECORD);
    server.kill();
    let mut server = setup.start();
    stream.check(&mut server.client());
    server.kill();
    disk.remount("size=24m");
    let server = setup.start();
    stream.check(&mut server.client());
    stream.until_accepted(&mut server.client());
}

/// Nobody adds room here: deleting a stream is enough, before and after a restart.
#[test]
fn deletes_make_room_on_a_full_disk() {
    for restart in [false, true] {
        let Some(disk) = SmallDisk::mount("6m") else { return };
        let setup = on(&disk, "checkpoint_interval: 1h, checkpoint_size: 64MiB, wal_segment: 1MiB");
        let mut server = setup.start();
        let mut client = server.client();
        let mut small = Appender::create(&mut client, "full/small");
        assert_eq!(small.append(&mut client, RECORD).status, 204);
        let mut large = Appender::create(&mut client, "full/large");
        is_refusal_for_room(&large.until_refused(&mut client, RECORD));
        if restart {
            server.kill();
            server = setup.start();
            client = server.client();
            small.check(&mut client);
            large.check(&mut client);
        }
        // The delete that finds the disk full may be refused once; from then on the reserve is there for it.
        let deadline = Instant::now() + Duration::from_secs(10);
        while client.must("DELETE", "full/large", &[], b"").status != 204 {
            assert!(Instant::now() < deadline, "a delete is refused for good");
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while small.append(&mut client, RECORD).status != 204 {
            let log = server.log();
            assert!(Instant::now() < deadline, "appends never resume, restart {restart}: {log}");
            thread::sleep(Duration::from_millis(50));
        }
        // What was deleted leaves the disk checkpoint by checkpoint, so some may be refused in between.
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut resumed = 0;
        while resumed < 20 {
            let reply = small.append(&mut client, RECORD);
            resumed += usize::from(reply.status == 204);
            assert!(Instant::now() < deadline, "{resumed} of 20: {reply:?}\n{}", server.log());
            if reply.status != 204 {
                thread::sleep(Duration::from_millis(50));
            }
        }
        small.check(&mut client);
        server.kill();
        let server = setup.start();
        small.check(&mut server.client());
        assert_eq!(server.client().must("HEAD", "full/large", &[], b"").status, 404);
    }
}

#[test]
fn a_read_only_disk_is_refused_by_name_and_harms_nothing() {
    let Some(disk) = SmallDisk::mount("32m") else { return };
    let setup = on(&disk, "checkpoint_interval: 200ms, checkpoint_size: 1MiB, wal_segment: 1MiB");
    let server = setup.start();
    let mut stream = Appender::create(&mut server.client(), "read/only");
    for _ in 0..30 {
        assert_eq!(stream.append(&mut server.client(), RECORD).status, 204);
    }
    let ended = server.stop();
    assert!(ended.status.success(), "{}", ended.log);
    let version = disk.seen_from_here(&setup.data.join("VERSION"));
    assert!(fs::read_to_string(version).expect("it is there").contains("format"));

    disk.remount("ro");
    let log = setup.refused();
    assert!(log.contains("Read-only file system"), "{log}");
    assert!(log.contains(&*setup.data.to_string_lossy()), "names the path: {log}");

    disk.remount("rw");
    let server = setup.start();
    stream.check(&mut server.client());
    stream.until_accepted(&mut server.client());
}
