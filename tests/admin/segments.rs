//! Sealed segments as an operator sees them: the list, the commands on a running and a stopped server, the metrics.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use durable_streams_server::telemetry::metrics::ALL;
use serde_json::{Value, json};

use crate::api::{Api, OPEN, send};
use crate::harness::eventually;
use crate::process::Process;
use crate::scrape::Scrape;

/// Seals all but nothing of a stream of 64 KiB at once, and uploads it.
fn config(data: &Path, objects: &Path) -> String {
    format!(
        "{OPEN}data_dir: {}\n\
         storage: {{checkpoint_interval: 100ms, segments: {{min: 64KiB, keep: 0B, idle: 0s, share: 1B, interval: 20ms}}}}\n\
         tier: {{url: 'file://{}', interval: 50ms}}\n",
        data.display(),
        objects.canonicalize().unwrap().display()
    )
}

fn segments(arguments: &[&str]) -> (i32, Vec<Value>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_durable-streams-server"));
    let seen = command.arg("segments").args(arguments).output().unwrap();
    let out = String::from_utf8(seen.stdout).unwrap();
    let rows = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (seen.status.code().unwrap(), rows, String::from_utf8(seen.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_are_listed_counted_and_found_again_when_the_server_is_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let (data, objects) = (folder.path().join("data"), folder.path().join("objects"));
    std::fs::create_dir(&objects).unwrap();
    let mut server = Process::run(&config(&data, &objects)).await;
    let (streams, admin) = server.addresses();
    let api = Api { admin, fields: String::new() };
    let body = "x".repeat(200_000);
    for path in ["logs/a", "logs/b"] {
        let fields = "Content-Type: text/plain\r\n";
        let reply = send(streams, "PUT", &format!("/v1/stream/{path}"), fields, &body).await;
        assert_eq!(reply.status, 201);
    }
    eventually("both streams are objects, too", || async {
        api.get("/segments").await["totals"]["both"]["live_bytes"] == 400_000
    })
    .await;
    let page = api.get("/segments?owners=true&place=both").await;
    assert_eq!((&page["cursor"], &page["partial"]), (&Value::Null, &json!(false)));
    let mut owners = BTreeSet::new();
    for segment in page["segments"].as_array().unwrap() {
        assert_eq!(segment["streams"], segment["owners"].as_array().unwrap().len());
        for owner in segment["owners"].as_array().unwrap() {
            assert_eq!((&owner["tenant"], &owner["bytes"]), (&Value::Null, &json!(200_000)));
            owners.insert(owner["path"].as_str().unwrap().to_owned());
        }
        assert!(objects.join(segment["object"].as_str().unwrap()).exists(), "{segment}");
        assert!(data.join("segments").join(segment["file"].as_str().unwrap()).exists());
        assert!(segment["sealed"].as_str().unwrap().starts_with("20"), "{segment}");
    }
    assert_eq!(owners, BTreeSet::from(["logs/a".to_owned(), "logs/b".to_owned()]));
    assert_eq!(api.get("/segments?place=object").await["segments"], json!([]));
    for (query, code) in [
        ("place=disk", "bad-place"),
        ("owners=1", "bad-owners"),
        ("cursor=eA", "bad-cursor"),
        ("limit=0", "bad-limit"),
        ("size=1", "unknown-parameter"),
    ] {
        let (status, problem) = api.ask("GET", &format!("/segments?{query}"), Value::Null).await;
        assert_eq!((status, &problem["code"]), (400, &json!(code)), "{query}");
    }
    let status = api.get("/status").await;
    assert_eq!(status["segments"], page["totals"]);
    assert_eq!(
        (&status["tier"]["claim"], &status["tier"]["claim_held"]),
        (&json!(1), &json!(true))
    );
    scraped(admin).await;

    let url = format!("http://{admin}");
    let (code, running, error) = segments(&["--owners", "--admin", &url]);
    assert_eq!((code, running.len()), (0, page["segments"].as_array().unwrap().len()), "{error}");
    assert_eq!(running, *page["segments"].as_array().unwrap());
    let at = data.to_str().unwrap();
    let (code, _, error) = segments(&["--data-dir", at]);
    assert!(code == 1 && error.contains("is in use by another process"), "{code}: {error}");
    server.stop().await;
    let (code, mut stopped, error) = segments(&["--owners", "--limit", "0", "--data-dir", at]);
    assert_eq!(code, 0, "{error}");
    // The prefix is the running server's to know.
    for (stopped, running) in stopped.iter_mut().zip(&running) {
        stopped["object"] = running["object"].clone();
    }
    assert_eq!(stopped, running);
    let (_, totals, _) = segments(&["--totals", "--config", server.config().to_str().unwrap()]);
    let both = totals.iter().find(|row| row["place"] == "both").unwrap();
    assert_eq!((totals.len(), &both["live_bytes"]), (3, &json!(400_000)));
}

/// Every metric of object storage is there, and says what happened.
async fn scraped(admin: std::net::SocketAddr) {
    let scrape = Scrape::of(admin).await;
    for metric in ALL.iter().filter(|metric| metric.name.starts_with("durable_streams_tier_")) {
        assert!(scrape.text.contains(&format!("# TYPE {} ", metric.name)), "{}", metric.name);
    }
    let get = |name: &str| scrape.get(&format!("durable_streams_{name}"));
    let objects = get(r#"segments{place="both"}"#);
    assert_eq!(get(r#"tier_uploads_total{result="ok"}"#), objects);
    assert_eq!(get("tier_uploaded_bytes_total"), get(r#"segment_bytes{place="both"}"#));
    assert!(get("tier_received_bytes_total") >= get("tier_uploaded_bytes_total"), "read back");
    assert!(get(r#"tier_requests_total{operation="put",result="ok"}"#) > objects, "and the claim");
    assert_eq!(get("tier_claim_held"), 1.0);
    // The first copy comes a minute after the start.
    assert_eq!(get("tier_index_interval_seconds"), 3600.0);
    assert_eq!(get(r#"tier_index_copies_total{result="failed"}"#), 0.0);
    for name in ["waiting_segments", "waiting_bytes", "waiting_seconds", "open_reads"] {
        assert_eq!(get(&format!("tier_{name}")), 0.0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_in_memory_has_none() {
    let server = Process::run(OPEN).await;
    let api = Api { admin: server.addresses().1, fields: String::new() };
    let page = api.get("/segments?owners=true").await;
    assert_eq!((&page["segments"], &page["totals"]["local"]["segments"]), (&json!([]), &json!(0)));
    assert_eq!(api.get("/status").await["tier"], Value::Null);
}
