//! A real S3 server: VersityGW, with its objects in a directory. Skipped, and counted as skipped, where it is not
//! installed; `scripts/bootstrap test` builds it where Go is.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use durable_streams_engine::store::file::segments::cold::{
    ColdError, ColdSegments as _, ColdStore as _, SealedFile,
};
use durable_streams_engine::store::file::segments::format::{HEADER, SegmentWriter};
use durable_streams_protocol::Timestamp;
use futures_util::TryStreamExt as _;
use object_store::ObjectStoreExt as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::claims::race_for;
use super::skips::skipped;
use super::{options, sealed_file};
use crate::tier::connect::{ObjectClient, connect};
use crate::tier::{SegmentReader, Tier, TierEnvironment, TierError, TierOptions};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const KEY: &str = "test-key";
const SECRET: &str = "test-secret-that-no-message-may-show";

pub(super) struct Gateway {
    process: Child,
    objects: tempfile::TempDir,
    address: SocketAddr,
}

fn installed() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|folder| folder.join("versitygw")).find(|file| file.is_file())
}

impl Gateway {
    /// `None` where it is not installed.
    pub(super) fn start() -> Option<Self> {
        let Some(program) = installed() else {
            return skipped(
                "versitygw is not installed; scripts/bootstrap test builds it where Go is",
            );
        };
        // A free port is free until another process takes it; of this one, one at a time chooses.
        static CHOICE: Mutex<()> = Mutex::new(());
        let _one = CHOICE.lock();
        for _ in 0..5 {
            let objects = tempfile::tempdir().unwrap();
            std::fs::create_dir(objects.path().join("bucket")).unwrap();
            let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
            let process = spawn(&program, &objects, address);
            let mut gateway = Gateway { process, objects, address };
            gateway.wait();
            if gateway.has_its_port() {
                return Some(gateway);
            }
        }
        panic!("versitygw gets no port");
    }

    /// Whether it is this server that listens.
    fn has_its_port(&mut self) -> bool {
        let answer = || {
            let mut connection = TcpStream::connect(self.address)?;
            connection.set_read_timeout(Some(Duration::from_secs(20)))?;
            connection.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
            let mut answer = Vec::new();
            connection.read_to_end(&mut answer)?;
            Ok::<_, io::Error>(answer)
        };
        let named = answer().is_ok_and(|answer| answer.windows(9).any(|name| name == b"VERSITYGW"));
        named && self.process.try_wait().unwrap().is_none()
    }

    fn wait(&self) {
        let began = Instant::now();
        while TcpStream::connect(self.address).is_err() {
            assert!(began.elapsed() < Duration::from_secs(20), "versitygw does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn restart(&mut self) {
        self.process = spawn(&installed().unwrap(), &self.objects, self.address);
        self.wait();
    }

    pub(super) fn options(&self, url: &str) -> TierOptions {
        TierOptions {
            location: url.parse().unwrap(),
            endpoint: Some(format!("http://{}", self.address)),
            region: Some("us-east-1".into()),
            allow_http: true,
            environment: environment(SECRET),
            read_timeout: Duration::from_secs(2),
            ..options()
        }
    }
}

fn environment(secret: &str) -> TierEnvironment {
    let variables = [("AWS_ACCESS_KEY_ID", KEY), ("AWS_SECRET_ACCESS_KEY", secret)];
    variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn spawn(program: &PathBuf, objects: &tempfile::TempDir, address: SocketAddr) -> Child {
    Command::new(program)
        .args([
            "--port",
            &address.to_string(),
            "--access",
            KEY,
            "--secret",
            SECRET,
            "--quiet",
            "posix",
        ])
        .arg(objects.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn open(options: TierOptions, dir: &tempfile::TempDir) -> Result<Tier, String> {
    let opened = Tier::open(options, dir.path(), NOW, false, Handle::current()).await;
    opened.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_go_to_an_s3_server_and_come_back() {
    let Some(mut gateway) = Gateway::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let tier = open(gateway.options("s3://bucket/a/b"), &dir).await.unwrap();
    let data: Vec<u8> = (0..20 << 20).map(|at: u32| (at ^ (at >> 8)) as u8).collect();
    let file = dir.path().join("segment");
    let segment = SegmentWriter::file(1, &[(1, 0, &[], &data)]);
    std::fs::write(&file, &segment).unwrap();
    let (cold, name) = (tier.cold_store(), tier.segment_name(1));
    let get = |range| cold.get_segment(&name, sealed_file(1, &segment), range);
    // A second time, as after a lost answer.
    for _ in 0..2 {
        cold.put(&name, file.clone()).await.unwrap();
    }
    for (from, to) in [(0, 1), (10_000_000, 10_600_000), (data.len() - 5, data.len())] {
        let range = (HEADER + from) as u64..(HEADER + to) as u64;
        assert!(get(range).await.unwrap() == data[from..to]);
    }
    let size = std::fs::metadata(&file).unwrap().len();
    assert_eq!(cold.list("segments/", None).await.unwrap(), [(name.clone(), size)]);
    std::fs::write(&file, SegmentWriter::file(1, &[(1, 0, &[], b"other")])).unwrap();
    assert!(matches!(cold.put(&name, file).await, Err(ColdError::Damaged(_))));

    gateway.stop();
    let began = Instant::now();
    let down = get(5_000_000..5_000_100).await;
    assert!(matches!(down, Err(ColdError::Unavailable { .. })), "{down:?}");
    assert!(began.elapsed() < Duration::from_secs(3));
    // What is in memory is served.
    assert!(get(10_000_032..10_000_132).await.unwrap() == data[10_000_000..10_000_100]);
    gateway.restart();
    assert!(get(5_000_032..5_000_132).await.unwrap() == data[5_000_000..5_000_100]);
    for _ in 0..2 {
        cold.delete(&name).await.unwrap();
    }
    assert_eq!(cold.list("segments/", None).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_servers_that_start_at_once_one_wins() {
    let Some(gateway) = Gateway::start() else { return };
    for round in 0..3 {
        race_for(&gateway.options(&format!("s3://bucket/{round}"))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said_and_no_secret() {
    let Some(gateway) = Gateway::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let with = |change: &dyn Fn(&mut TierOptions)| {
        let mut options = gateway.options("s3://bucket/x");
        change(&mut options);
        options
    };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (options, says) in [
        (with(&|o| o.environment = environment("another-secret")), "403, SignatureDoesNotMatch"),
        (with(&|o| o.location = "s3://absent/x".parse().unwrap()), "the bucket does not exist"),
        (with(&|o| o.endpoint = Some(format!("http://{closed}"))), "check tier.endpoint"),
        (with(&|o| o.allow_http = false), "allow_http"),
    ] {
        let error = open(options, &dir).await.err().unwrap();
        assert!(error.contains(says), "{says}: {error}");
        assert!(!error.contains("secret") && !error.contains(KEY), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_come_from_amazons_shared_file() {
    let Some(gateway) = Gateway::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials");
    std::fs::write(
        &file,
        format!("[cold]\naws_access_key_id={KEY}\naws_secret_access_key={SECRET}\n"),
    )
    .unwrap();
    let file = file.to_str().unwrap().to_owned();
    let variables =
        [("AWS_SHARED_CREDENTIALS_FILE".to_owned(), file), ("AWS_PROFILE".into(), "cold".into())];
    let options = TierOptions {
        environment: variables.into_iter().collect(),
        ..gateway.options("s3://bucket/x")
    };
    open(options, &dir).await.unwrap();
}

#[tokio::test]
async fn a_server_starts_while_the_object_store_is_down_and_claims_it_later() {
    let Some(mut gateway) = Gateway::start() else { return };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let options = gateway.options("s3://bucket/late");
    let start = async |nth: usize, take_over| {
        Tier::open(options.clone(), dirs[nth].path(), NOW, take_over, Handle::current()).await
    };
    let first = start(0, false).await.unwrap();
    gateway.stop();
    let refused = start(1, false).await;
    assert!(matches!(refused, Err(TierError::Probe { .. })), "it never had this prefix");
    assert!(start(0, true).await.is_err(), "nothing can be taken over");
    let tier = start(0, false).await.unwrap();
    assert_eq!(tier.claim(), first.claim());
    assert!(matches!(tier.holds_claim().await, Err(ColdError::Unavailable { .. })));
    // What it seals meanwhile has numbers of the claim that it has.
    assert_eq!(tier.claim().first_segment(), first.claim().first_segment());
    let name = tier.segment_name(1);
    let segment = sealed_file(1, &SegmentWriter::file(1, &[(1, 0, &[], b"bytes of a segment")]));
    let read = tier.cold_store().get_segment(&name, segment, 32..34).await;
    assert!(matches!(read, Err(ColdError::Unavailable { .. })), "{read:?}");
    let superseded = start(0, false).await.unwrap();

    gateway.restart();
    assert!(tier.holds_claim().await.unwrap());
    assert_eq!(tier.claim().epoch, first.claim().epoch + 1);
    assert_eq!(tier.segment_prefix(), first.segment_prefix());
    assert!(tier.holds_claim().await.unwrap());
    assert_eq!(tier.claim().epoch, first.claim().epoch + 1, "once for a start");
    // Another server takes the prefix over before one that started without it comes to claim it.
    start(1, true).await.unwrap();
    assert!(!superseded.holds_claim().await.unwrap());
    assert!(!tier.holds_claim().await.unwrap());
}

/// Data of each measured segment, bytes.
const MEASURED: usize = 32 << 20;

/// Milliseconds since.
fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// Reads whole segments one piece after the other, all segments at once; returns milliseconds.
async fn replay(reader: &SegmentReader, segments: &[(String, SealedFile)]) -> f64 {
    let since = Instant::now();
    let each = segments.iter().map(|(name, file)| async move {
        let (mut at, end) = (HEADER as u64, HEADER as u64 + file.data);
        while at < end {
            let to = (at + (256 << 10)).min(end);
            at += reader.get_segment(name, *file, at..to).await.unwrap().len() as u64;
        }
    });
    futures_util::future::join_all(each).await;
    millis(since)
}

/// The same objects by the client that the reader uses, each in one request.
async fn replay_raw(raw: &ObjectClient, segments: &[(String, SealedFile)]) -> f64 {
    let since = Instant::now();
    let each = segments.iter().map(|(name, file)| async move {
        let mut parts = raw.store.get(&name.as_str().into()).await.unwrap().into_stream();
        let mut read = 0;
        while let Some(part) = parts.try_next().await.unwrap() {
            read += part.len() as u64;
        }
        assert_eq!(read, file.len);
    });
    futures_util::future::join_all(each).await;
    millis(since)
}

/// Reads out of a cold cache, beside the raw client:
/// `cargo test --release --lib -- --ignored cold_reads_beside_the_raw_client --nocapture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, for minutes in a debug build"]
async fn cold_reads_beside_the_raw_client() {
    let Some(gateway) = Gateway::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let options = TierOptions {
        cache: TierOptions::CACHE,
        cache_block: TierOptions::CACHE_BLOCK,
        read_timeout: Duration::from_secs(60),
        ..gateway.options("s3://bucket/figures")
    };
    let raw = connect(&options).unwrap();
    let tier = open(options, &dir).await.unwrap();
    let mut segments = Vec::new();
    for number in 1..=8_u64 {
        let data: Vec<u8> = (0..MEASURED).map(|at| ((at as u64 * number) >> 3) as u8).collect();
        let segment = SegmentWriter::file(number, &[(1, 0, &[], &data)]);
        let (name, file) = (tier.segment_name(number), sealed_file(number, &segment));
        tier.cold_store().create_segment(&name, vec![segment.into()]).await.unwrap();
        segments.push((name, file));
    }
    let reader = || SegmentReader::new(tier.store().clone(), Handle::current());
    let (mut cold, mut raw_range, mut raw_block) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..101_u64 {
        let (name, file) = &segments[round as usize % segments.len()];
        let at = HEADER as u64 + round * (256 << 10);
        let reader = reader();
        let since = Instant::now();
        reader.get_segment(name, *file, at..at + (64 << 10)).await.unwrap();
        cold.push(millis(since));
        for (len, times) in [(64 << 10, &mut raw_range), (256 << 10, &mut raw_block)] {
            let since = Instant::now();
            raw.store.get_range(&name.as_str().into(), at..at + len).await.unwrap();
            times.push(millis(since));
        }
    }
    println!(
        "the first 64 KiB: {:.2} ms; the raw client: {:.2} ms, and {:.2} ms for a block of 256 KiB",
        median(cold),
        median(raw_range),
        median(raw_block)
    );
    for clients in [1, 8] {
        let segments = &segments[..clients];
        let (mut cold, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..7 {
            cold.push(replay(&reader(), segments).await);
            plain.push(replay_raw(&raw, segments).await);
        }
        let rate = |millis: f64| ((clients * MEASURED) >> 20) as f64 / millis * 1000.0;
        let (cold, plain) = (rate(median(cold)), rate(median(plain)));
        println!("{clients} replays: {cold:.0} MiB/s; the raw client: {plain:.0} MiB/s");
    }
}
