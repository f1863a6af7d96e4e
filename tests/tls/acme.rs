//! Certificates ordered from an ACME server: the first ones, renewals, and what can go wrong with both.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::certificates::read_until;
use crate::pebble::{Pebble, PebbleOptions};
use crate::process::{Server, eventually};
use crate::secure::{connect, connector, head, request};

async fn answers(pebble: &Pebble, root: &str) -> Option<String> {
    let address = ([127, 0, 0, 1], pebble.https).into();
    let connector = connector(root, None, &["http/1.1"]);
    request(&connector, address, "a.test", &head("HEAD", "x", "")).await.ok()
}

/// The first certificate by each challenge; after a crash it is served at once and not ordered again.
async fn ordered_by(challenge: &str) {
    let Some(pebble) = Pebble::start().await else { return };
    let root = pebble.root().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = pebble.config(&directory.path().join("data"), challenge);
    let server = Server::run(directory.path(), &config).await;
    let answer = eventually("a certificate", async || answers(&pebble, &root).await).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert_eq!(server.times("certificate issued"), 1);
    server.kill();

    let server = Server::run(directory.path(), &config).await;
    assert!(answers(&pebble, &root).await.is_some(), "the kept certificate is served at once");
    assert_eq!(server.times("ordering a certificate"), 0);
    let kept = walk(&directory.path().join("data"));
    let secret =
        |path: &&PathBuf| path.extension().is_some_and(|kind| kind == "pem" || kind == "json");
    for file in kept.iter().filter(secret) {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.display());
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test]
async fn a_certificate_is_ordered_by_http_01() {
    ordered_by("http-01").await;
}

#[tokio::test]
async fn a_certificate_is_ordered_by_tls_alpn_01() {
    ordered_by("tls-alpn-01").await;
}

#[tokio::test]
async fn a_failed_order_is_explained_and_not_repeated_by_a_crash_loop() {
    let Some(pebble) = Pebble::start().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    // Nobody listens where the authority looks for the answer.
    let config = pebble
        .config(&data, "http-01")
        .replace(&format!("redirect_http: ['127.0.0.1:{}']", pebble.http), "redirect_http: []");
    let server = Server::run(directory.path(), &config).await;
    let failure = eventually("it fails", async || server.logged("no certificate: ")).await;
    let text = failure.to_string();
    assert!(text.contains("port 80") && text.contains("connection"), "{text}");
    let admin = server.logged("listening").unwrap()["admin"].as_str().unwrap().parse().unwrap();
    let ready = crate::secure::cleartext(admin, b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("a.test"), "{ready}");
    server.kill();
    for _ in 0..3 {
        let server = Server::run(directory.path(), &config).await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(server.times("ordering a certificate"), 0, "the wait survives a crash");
        server.kill();
    }
}

#[tokio::test]
async fn while_the_authority_is_down_the_old_certificate_is_served() {
    let Some(mut pebble) = Pebble::start().await else { return };
    let root = pebble.root().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = pebble.config(&directory.path().join("data"), "tls-alpn-01");
    let server = Server::run(directory.path(), &config).await;
    eventually("a certificate", async || answers(&pebble, &root).await).await;
    server.kill();
    pebble.stop();
    let server = Server::run(directory.path(), &config).await;
    assert!(answers(&pebble, &root).await.is_some());
    // Without an account's answer there is no renewal window; two thirds of the life decide.
    assert_eq!(server.times("no certificate"), 0);
}

/// Certificates of half a minute: one is renewed before it ends, and no reader notices.
#[tokio::test]
async fn a_certificate_near_its_end_is_renewed_under_its_readers() {
    let options = PebbleOptions { life: 30, ..PebbleOptions::default() };
    let Some(pebble) = Pebble::with(options).await else { return };
    let root = pebble.root().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = pebble.config(&directory.path().join("data"), "tls-alpn-01");
    let server = Server::run(directory.path(), &config).await;
    eventually("a certificate", async || answers(&pebble, &root).await).await;
    let address = ([127, 0, 0, 1], pebble.https).into();
    let connector = connector(&root, None, &["http/1.1"]);
    let ask = async |text: String| request(&connector, address, "a.test", &text).await.unwrap();
    ask(head("PUT", "x", "Content-Type: text/plain\r\nContent-Length: 0\r\n")).await;
    let mut reader = connect(&connector, address, "a.test", b"").await.unwrap();
    reader.write_all(head("GET", "x?offset=-1&live=sse", "").as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    read_until(&mut reader, &mut seen, "upToDate").await;

    // Each of these handshakes checks that the certificate served is valid at that moment.
    eventually("a renewal", async || {
        assert!(answers(&pebble, &root).await.is_some(), "a valid certificate all the time");
        tokio::time::sleep(Duration::from_millis(200)).await;
        (server.times("certificate issued") == 2).then_some(())
    })
    .await;
    assert_eq!(server.times("no certificate"), 0);
    assert!(answers(&pebble, &root).await.is_some());
    let more = "Content-Type: text/plain\r\nContent-Length: 5\r\n";
    ask(format!("{}after", head("POST", "x", more))).await;
    read_until(&mut reader, &mut seen, "after").await;
}

#[tokio::test]
async fn a_name_that_the_authority_refuses_is_explained() {
    let Some(pebble) = Pebble::start().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let config = pebble.config(&directory.path().join("data"), "http-01");
    let config = config.replace("a.test", PebbleOptions::default().blocked);
    let server = Server::run(directory.path(), &config).await;
    let failure = eventually("it fails", async || server.logged("no certificate: ")).await;
    let text = failure.to_string();
    assert!(text.contains("the authority does not issue for this name"), "{text}");
}

/// The attempt that a crash ended counts as failed; the one after it starts from nothing and succeeds.
#[tokio::test]
async fn a_crash_in_the_middle_of_an_order_costs_one_attempt() {
    let options = PebbleOptions { slow: true, ..PebbleOptions::default() };
    let Some(pebble) = Pebble::with(options).await else { return };
    let root = pebble.root().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let config = pebble.config(&data, "tls-alpn-01");
    let server = Server::run(directory.path(), &config).await;
    eventually("an order", async || server.logged("ordering a certificate")).await;
    // The authority takes five seconds to look for the answer.
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.kill();

    let server = Server::run(directory.path(), &config).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(server.times("ordering a certificate"), 0, "the wait survives a crash");
    server.kill();
    let kept = walk(&data).into_iter().find(|file| file.ends_with("a.test.attempts.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&fs::read(&kept).unwrap()).unwrap();
    assert_eq!(record["failures"], 1);
    // Two minutes later.
    let due = serde_json::json!({ "failures": 1, "next": null });
    fs::write(&kept, due.to_string()).unwrap();
    let _server = Server::run(directory.path(), &config).await;
    eventually("a certificate", async || answers(&pebble, &root).await).await;
    assert!(!kept.exists(), "a success ends the record");
}
