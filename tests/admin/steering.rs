//! Status, configuration, log level, jobs and backups.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::{Api, OPEN, configs, paths, protected, put, send};
use crate::harness::eventually;
use crate::process::Process;

#[tokio::test(flavor = "multi_thread")]
async fn the_status_shows_store_log_and_disk() {
    for (config, folder) in configs() {
        let upstream = "upstreams: [{servers: ['http://127.0.0.1:9']}]\n";
        let server = Process::run(&format!("{config}{upstream}")).await;
        let (streams, admin) = server.addresses();
        let api = Api { admin, fields: String::new() };
        put(streams, "a", "").await;
        let status = api.get("/status").await;
        assert_eq!((&status["streams"], &status["ready"]), (&json!(1), &json!(true)));
        assert_eq!(status["store"]["writable"], true);
        assert_eq!(status["upstreams"][0]["servers"][0]["address"], "127.0.0.1:9");
        assert!(status["uptime_seconds"].is_u64() && status["version"].is_string());
        match folder {
            None => assert_eq!(
                (&status["store"]["kind"], &status["log"]),
                (&json!("memory"), &Value::Null)
            ),
            Some(folder) => {
                let directory = folder.path().display().to_string();
                assert_eq!(status["store"]["directory"], directory);
                assert!(status["log"]["events"].as_u64() >= Some(1), "{status}");
                assert!(status["disk"]["free_bytes"].as_u64() > Some(0));
                assert_eq!(status["checkpoint"]["failed"], 0);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_is_shown_without_secrets_and_read_again() {
    let server = Process::run(OPEN).await;
    let (_, admin) = server.addresses();
    let api = Api { admin, fields: String::new() };
    let config = api.get("/config").await["config"].clone();
    assert_eq!(config["limits"]["max_append"], "16MiB");
    server.write(&format!("{OPEN}limits: {{max_append: 1MiB}}\nthreads: 3\n"));
    let (status, reloaded) = api.ask("POST", "/reload", json!({})).await;
    assert_eq!(status, 200, "{reloaded}");
    let changes = reloaded["changes"].as_array().unwrap();
    let of = |key: &str| changes.iter().find(|change| change["key"] == key).unwrap();
    assert_eq!(of("limits.max_append")["needs_restart"], false);
    assert_eq!(of("threads")["needs_restart"], true);
    assert_eq!(api.get("/config").await["config"]["limits"]["max_append"], "1MiB");
    server.write(&format!("{OPEN}limits: {{max_append: nonsense}}\n"));
    let (status, refused) = api.ask("POST", "/reload", json!({})).await;
    assert_eq!((status, &refused["code"]), (422, &json!("config-refused")), "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("limits.max_append"));
    assert_eq!(api.get("/config").await["config"]["limits"]["max_append"], "1MiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_log_level_ends_by_itself() {
    let server = Process::run(OPEN).await;
    let (_, admin) = server.addresses();
    let api = Api { admin, fields: String::new() };
    assert_eq!(api.get("/log-level").await, json!({ "level": "info", "until": null }));
    let (status, set) =
        api.ask("PUT", "/log-level", json!({ "level": "debug", "seconds": 2 })).await;
    assert_eq!((status, &set["level"]), (200, &json!("debug")));
    assert!(set["until"].is_string());
    // A later change is not ended by the timer of the earlier one.
    api.ask("PUT", "/log-level", json!({ "level": "warn", "seconds": 5 })).await;
    tokio::time::sleep(Duration::from_millis(2_600)).await;
    assert_eq!(api.get("/log-level").await["level"], "warn");
    eventually("the configured level is back", || async {
        api.get("/log-level").await["level"] == "info"
    })
    .await;
    api.ask("PUT", "/log-level", json!({ "level": "error", "seconds": 60 })).await;
    let (status, reset) = api.ask("DELETE", "/log-level", Value::Null).await;
    assert_eq!((status, reset), (200, json!({ "level": "info", "until": null })));
    for body in [json!({ "level": "loud" }), json!({ "level": "info", "seconds": 0 })] {
        assert_eq!(api.ask("PUT", "/log-level", body).await.0, 400);
    }
}

async fn ended(api: &Api, id: &str) -> Value {
    eventually("the job ends", || async {
        api.get(&format!("/jobs/{id}")).await["state"] != "running"
    })
    .await;
    api.get(&format!("/jobs/{id}")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_deletes_what_lies_below_a_prefix_and_nothing_else() {
    for (config, _folder) in configs() {
        let server = Process::run(&config).await;
        let (streams, admin) = server.addresses();
        let api = Api { admin, fields: String::new() };
        for n in 0..300 {
            put(streams, &format!("gone/{n:03}"), "").await;
        }
        for path in ["gone", "gon/e", "stays"] {
            put(streams, path, "").await;
        }
        put(streams, "fork", "Stream-Forked-From: /v1/stream/gone/007\r\n").await;
        let body = json!({ "kind": "delete-prefix", "prefix": "gone/" });
        let (status, job) = api.ask("POST", "/jobs", body).await;
        assert_eq!((status, &job["prefix"]), (202, &json!("gone/")), "{job}");
        let job = ended(&api, job["id"].as_str().unwrap()).await;
        assert_eq!(
            (&job["state"], &job["done"], &job["failed"]),
            (&json!("done"), &json!(300), &json!(0))
        );
        assert_eq!(paths(&api.get("/streams").await), ["fork", "gon/e", "gone", "stays"]);
        assert_eq!(paths(&api.get("/streams?prefix=gone/&deleted=true").await), ["gone/007"]);
        let read = send(streams, "GET", "/v1/stream/fork?offset=-1", "", "").await;
        assert_eq!(read.text(), "hellohello", "the fork reads what it inherits");
        assert_eq!(
            api.ask("POST", "/jobs", json!({ "kind": "delete-prefix", "prefix": "" })).await.0,
            400
        );
        assert_eq!(api.get("/jobs").await["jobs"].as_array().unwrap().len(), 1);
        assert_eq!(api.ask("GET", "/jobs/77", Value::Null).await.0, 404);
        assert_eq!(api.ask("DELETE", "/jobs/1", Value::Null).await.0, 204);
        assert_eq!(api.get("/jobs/1").await["state"], "done", "it had ended");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_a_tenant_touch_and_show_its_own_only() {
    let folder = tempfile::tempdir().unwrap();
    let (server, global) = protected(folder.path()).await;
    let (streams, admin) = server.addresses();
    let mut keys = Vec::new();
    for (name, tenant, operations) in [
        ("app", json!("acme"), "all"),
        ("admin", json!("acme"), "administer"),
        ("none", Value::Null, "all"),
    ] {
        let grants = json!([{ "allow": [operations], "paths": ["**"] }]);
        let body = json!({ "name": name, "tenant": tenant, "grants": grants });
        let (_, made) = global.ask("POST", "/keys", body).await;
        keys.push(format!("Authorization: Bearer {}\r\n", made["key"].as_str().unwrap()));
    }
    put(streams, "a/1", &keys[0]).await;
    put(streams, "a/2", &keys[2]).await;
    let own = Api { admin, fields: keys[1].clone() };
    let (status, _) = own
        .ask("POST", "/jobs", json!({ "kind": "delete-prefix", "prefix": "a/", "tenant": "other" }))
        .await;
    assert_eq!(status, 403);
    let (_, other) =
        global.ask("POST", "/jobs", json!({ "kind": "delete-prefix", "prefix": "zz" })).await;
    let (status, job) =
        own.ask("POST", "/jobs", json!({ "kind": "delete-prefix", "prefix": "a/" })).await;
    assert_eq!((status, &job["tenant"]), (202, &json!("acme")));
    assert_eq!(ended(&own, job["id"].as_str().unwrap()).await["done"], 1);
    assert_eq!(own.get("/jobs").await["jobs"].as_array().unwrap().len(), 1);
    let foreign = format!("/jobs/{}", other["id"].as_str().unwrap());
    assert_eq!(own.ask("GET", &foreign, Value::Null).await.0, 404);
    assert_eq!(own.ask("DELETE", &foreign, Value::Null).await.0, 404);
    assert_eq!(paths(&global.get("/streams").await), ["a/2"]);
    for (method, path, body) in [
        ("GET", "/config", Value::Null),
        ("POST", "/reload", json!({})),
        ("GET", "/log-level", Value::Null),
        ("PUT", "/log-level", json!({ "level": "debug" })),
        ("DELETE", "/log-level", Value::Null),
        ("POST", "/backups", json!({ "name": "x" })),
    ] {
        assert_eq!(own.ask(method, path, body).await.0, 403, "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_beside_requests_and_can_be_restored() {
    let folder = tempfile::tempdir().unwrap();
    let (data, backups) = (folder.path().join("data"), folder.path().join("backups"));
    std::fs::create_dir(&backups).unwrap();
    let config = |data: &std::path::Path| {
        let admin = format!("{{listen: '127.0.0.1:0', backups: {}}}", backups.display());
        format!(
            "listen: ['127.0.0.1:0']\nadmin: {admin}\nlog: {{format: json}}\ndata_dir: {}\n",
            data.display()
        )
    };
    let server = Process::run(&config(&data)).await;
    let (streams, admin) = server.addresses();
    let api = Api { admin, fields: String::new() };
    for n in 0..20 {
        put(streams, &format!("s/{n}"), "").await;
    }
    let (status, job) = api.ask("POST", "/backups", json!({ "name": "nightly" })).await;
    assert_eq!(status, 202, "{job}");
    let job = ended(&api, job["id"].as_str().unwrap()).await;
    assert_eq!(job["state"], "done", "{job}");
    assert!(job["total"].as_u64() > Some(0));
    let (status, again) = api.ask("POST", "/backups", json!({ "name": "nightly" })).await;
    assert_eq!((status, &again["code"]), (409, &json!("exists")));
    for name in ["", "../x", "a/b", ".hidden"] {
        assert_eq!(api.ask("POST", "/backups", json!({ "name": name })).await.0, 400, "{name}");
    }
    drop(server);
    let restored = Process::run(&config(&backups.join("nightly"))).await;
    let (streams, admin) = restored.addresses();
    let read = send(streams, "GET", "/v1/stream/s/7?offset=-1", "", "").await;
    assert_eq!((read.status, read.text().as_str()), (200, "hello"));
    let api = Api { admin, fields: String::new() };
    assert_eq!(api.get("/status").await["streams"], 20);

    let memory = Process::run(OPEN).await;
    let api = Api { admin: memory.addresses().1, fields: String::new() };
    let (status, refused) = api.ask("POST", "/backups", json!({ "name": "x" })).await;
    assert_eq!((status, &refused["code"]), (409, &json!("no-backup-directory")));
}
