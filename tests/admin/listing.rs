//! The list of streams: pages while streams come and go, trees, filters, sorting; one stream in full.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::api::{Api, configs, paths, put, send};
use crate::process::Process;

/// All pages of a list; `between` runs after each.
async fn pages(api: &Api, query: &str, mut between: impl AsyncFnMut(usize)) -> Vec<Value> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = api.get(&format!("/streams?{query}{cursor}")).await;
        all.push(page.clone());
        let Some(next) = page["cursor"].as_str() else { return all };
        cursor = format!("&cursor={next}");
        between(all.len()).await;
        assert!(all.len() < 1_000, "the list has an end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_exists_throughout_is_listed_once_while_others_come_and_go() {
    for (config, _folder) in configs() {
        // Checkpoints between the pages, so that streams move from the log into the index meanwhile.
        let config = match config.contains("data_dir") {
            true => format!("{config}storage: {{checkpoint_interval: 100ms}}\n"),
            false => config,
        };
        let server = Process::run(&config).await;
        let (streams, admin) = server.addresses();
        let api = Api { admin, fields: String::new() };
        let stays: BTreeSet<String> = (0..60).map(|n| format!("s/{:03}", n * 10)).collect();
        for path in &stays {
            put(streams, path, "").await;
        }
        let listed = pages(&api, "prefix=s/&limit=7", async |turn| {
            for n in 0..8 {
                put(streams, &format!("s/{:03}", (turn * 61 + n * 83) % 600 / 10 * 10 + 1 + n), "")
                    .await;
                let gone =
                    format!("/v1/stream/s/{:03}", (turn * 37 + n * 71) % 600 / 10 * 10 + 1 + n);
                send(streams, "DELETE", &gone, "", "").await;
            }
            // The neighbour of one that stays.
            let again = stays.iter().nth(turn * 5 % 60).unwrap();
            put(streams, &format!("{again}-{turn}"), "").await;
        })
        .await;
        let mut times = BTreeMap::new();
        for path in listed.iter().flat_map(paths) {
            *times.entry(path).or_insert(0) += 1;
        }
        assert!(times.values().all(|times| *times == 1), "{times:?}");
        let missed: Vec<_> = stays.iter().filter(|path| !times.contains_key(*path)).collect();
        assert!(missed.is_empty(), "{missed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_lists_each_folder_once() {
    for (config, _folder) in configs() {
        let server = Process::run(&config).await;
        let (streams, admin) = server.addresses();
        let api = Api { admin, fields: String::new() };
        for path in ["a", "a/b", "b/x/1", "b/x/2", "b/y", "b/%F4%8F%BF%BFz", "c/"] {
            put(streams, path, "").await;
        }
        for n in 0..40 {
            put(streams, &format!("d/{n:02}"), "").await;
        }
        let mut seen = (Vec::new(), Vec::new());
        for limit in [1, 2, 100] {
            let all = pages(&api, &format!("delimiter=/&limit={limit}"), async |_| {}).await;
            seen.0 = all.iter().flat_map(paths).collect();
            let folders = all.iter().flat_map(|page| page["prefixes"].as_array().unwrap());
            seen.1 = folders.map(|one| one.as_str().unwrap().to_owned()).collect();
            assert_eq!(seen.0, ["a"], "limit {limit}");
            assert_eq!(seen.1, ["a/", "b/", "c/", "d/"], "limit {limit}");
        }
        let below = api.get("/streams?delimiter=/&prefix=b/").await;
        assert_eq!(below["prefixes"], json!(["b/x/"]));
        assert_eq!(paths(&below), ["b/y", "b/\u{10FFFF}z"]);
        let files = pages(&api, "delimiter=/&prefix=d/&limit=7", async |_| {}).await;
        assert_eq!(files.iter().flat_map(paths).count(), 40);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_and_sorting_find_what_an_operator_looks_for() {
    for (config, _folder) in configs() {
        let server = Process::run(&config).await;
        let (streams, admin) = server.addresses();
        let api = Api { admin, fields: String::new() };
        put(streams, "old", "").await;
        put(streams, "short", "Stream-TTL: 60\r\n").await;
        let json_type = "Content-Type: application/json; charset=utf-8\r\n";
        send(streams, "PUT", "/v1/stream/json", json_type, "[1,2,3]").await;
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        let between = api.get("/overview").await["now"].as_str().unwrap().to_owned();
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        let large = "x".repeat(5_000);
        send(streams, "PUT", "/v1/stream/large", "Content-Type: text/plain\r\n", &large).await;
        for (query, expected) in [
            ("content_type=application/json", vec!["json"]),
            ("content_type=text/plain", vec!["large", "old", "short"]),
            ("larger_than=100", vec!["large"]),
            (&*format!("idle_since={between}"), vec!["json", "old", "short"]),
            ("expires_before=2999-01-01T00:00:00Z", vec!["short"]),
            ("sort=size&limit=2", vec!["large", "json"]),
            ("sort=last_used&limit=1", vec!["large"]),
        ] {
            assert_eq!(paths(&api.get(&format!("/streams?{query}")).await), expected, "{query}");
        }
        let sorted = api.get("/streams?sort=size").await;
        assert_eq!((&sorted["partial"], &sorted["cursor"]), (&json!(false), &Value::Null));
        let usage = api.get("/usage?prefix=l").await;
        assert_eq!((&usage["streams"], &usage["bytes"]), (&json!(1), &json!(5_000)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_is_shown_with_producers_forks_and_where_its_bytes_lie() {
    for (config, folder) in configs() {
        let server = Process::run(&config).await;
        let (streams, admin) = server.addresses();
        let api = Api { admin, fields: String::new() };
        put(streams, "source", "").await;
        for (producer, number) in ["p1", "p2", "p3"].iter().zip(0..) {
            for seq in 0..=number {
                let fields = format!(
                    "Content-Type: text/plain\r\nProducer-Id: {producer}\r\nProducer-Epoch: 7\r\nProducer-Seq: {seq}\r\n"
                );
                send(streams, "POST", "/v1/stream/source", &fields, "more").await;
            }
        }
        for fork in ["fork/1", "fork/2"] {
            put(streams, fork, "Stream-Forked-From: /v1/stream/source\r\n").await;
        }
        let source = api.get("/streams/source").await;
        assert_eq!((&source["producers"], &source["forks"]), (&json!(3), &json!(2)));
        let listed = source["forks_listed"].as_array().unwrap();
        let listed: BTreeSet<_> = listed.iter().map(|one| one["path"].as_str().unwrap()).collect();
        assert_eq!(listed, BTreeSet::from(["fork/1", "fork/2"]));
        assert_eq!(source["bytes"], 5 + 6 * 4);
        assert_eq!(source["events"], 1 + 6);
        let store = if folder.is_some() { "file" } else { "memory" };
        assert_eq!(source["location"]["store"], store);
        let fork = api.get("/streams/fork/2").await;
        assert_eq!(fork["forked_from"]["path"], "source");
        assert_eq!(
            fork["location"]["inherited"],
            json!([{ "stream": "source", "from": 0, "to": 29 }])
        );
        assert_eq!((&fork["bytes"], &fork["position"]), (&json!(5), &json!(34)));
        let page = api.get("/producers/source?limit=2").await;
        assert_eq!(page["producers"][1], json!({ "id": "p2", "epoch": 7, "last_seq": 1 }));
        let cursor = page["cursor"].as_str().unwrap();
        let page = api.get(&format!("/producers/source?limit=2&cursor={cursor}")).await;
        assert_eq!(page["producers"], json!([{ "id": "p3", "epoch": 7, "last_seq": 2 }]));
        assert_eq!(page["cursor"], Value::Null);
        assert_eq!(api.ask("GET", "/streams/none", Value::Null).await.0, 404);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_messages_of_a_stream_are_found() {
    for (config, _folder) in configs() {
        let server = Process::run(&config).await;
        let (streams, admin) = server.addresses();
        let api = Api { admin, fields: String::new() };
        let json_type = "Content-Type: application/json\r\n";
        send(streams, "PUT", "/v1/stream/j", json_type, "").await;
        for n in 0..50 {
            send(streams, "POST", "/v1/stream/j", json_type, &format!("[{n},{{\"n\":{n}}}]")).await;
        }
        for (last, found) in [(1, 1), (3, 3), (100, 100), (101, 100)] {
            let tail = api.get(&format!("/tail/j?last={last}")).await;
            assert_eq!((&tail["messages"], &tail["complete"]), (&json!(found), &json!(true)));
            let offset = tail["offset"].as_str().unwrap();
            let read = send(streams, "GET", &format!("/v1/stream/j?offset={offset}"), "", "").await;
            let messages: Vec<Value> = serde_json::from_str(&read.text()).unwrap();
            assert_eq!(messages.len(), found, "last {last}");
            assert_eq!(messages.last(), Some(&json!({ "n": 49 })));
        }
        // More than is looked at: fewer messages, and still whole ones.
        let long = format!("[\"{}\"]", "y".repeat(600 << 10));
        for _ in 0..2 {
            send(streams, "POST", "/v1/stream/j", json_type, &long).await;
        }
        let tail = api.get("/tail/j?last=5").await;
        assert_eq!((&tail["messages"], &tail["complete"]), (&json!(1), &json!(false)));
        put(streams, "t", "").await;
        let fields = "Content-Type: text/plain\r\n";
        for _ in 0..3 {
            send(streams, "POST", "/v1/stream/t", fields, &"z".repeat(50 << 10)).await;
        }
        let tail = api.get("/tail/t").await;
        assert_eq!(tail["messages"], Value::Null);
        let offset = tail["offset"].as_str().unwrap();
        let read = send(streams, "GET", &format!("/v1/stream/t?offset={offset}"), "", "").await;
        assert_eq!(read.body.len(), 50 << 10, "whole appends");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_overview_counts_what_happens() {
    for (config, folder) in configs() {
        let server = Process::run(&config).await;
        let (streams, admin) = server.addresses();
        let api = Api { admin, fields: String::new() };
        put(streams, "a", "").await;
        let fields = "Content-Type: text/plain\r\n";
        for _ in 0..3 {
            send(streams, "POST", "/v1/stream/a", fields, "x").await;
        }
        send(streams, "GET", "/v1/stream/a?offset=-1", "", "").await;
        send(streams, "GET", "/v1/stream/none?offset=-1", "", "").await;
        // A request is counted when its response is written.
        crate::harness::eventually("all are counted", || async {
            let totals = api.get("/overview").await["totals"].clone();
            let counted =
                ["appends", "reads", "refused"].map(|name| totals[name].as_u64().unwrap());
            counted == [3, 1, 1]
        })
        .await;
        let overview = api.get("/overview").await;
        assert_eq!(overview["append_seconds"]["count"], 3);
        assert_eq!((&overview["streams"], &overview["ready"]), (&json!(1), &json!(true)));
        assert_eq!(overview["disk_free"].is_u64(), folder.is_some());
        crate::harness::eventually("a sample", || async {
            let history = api.get("/overview").await["history"].clone();
            history[0]["at"].is_string() && history[0]["live_readers"] == 0
        })
        .await;
    }
}
