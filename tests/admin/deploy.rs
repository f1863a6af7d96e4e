//! Dashboard and alert rules name metrics and labels that exist, and the documentation names every alert.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use durable_streams_server::telemetry::metrics::{ALL, Kind, Metric};
use serde_json::Value;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

/// The metric a name in a query stands for.
fn metric(name: &str) -> Option<&'static Metric> {
    let of_histogram = |metric: &&Metric| {
        let parts = ["_bucket", "_sum", "_count"];
        metric.kind == Kind::Histogram
            && parts.iter().any(|part| name.strip_suffix(part) == Some(metric.name))
    };
    let plain = |metric: &&Metric| metric.kind != Kind::Histogram && metric.name == name;
    ALL.iter().find(|metric| plain(metric) || of_histogram(metric))
}

/// Checks one query; gives the names of its metrics.
fn check(query: &str) -> BTreeSet<&'static str> {
    let mut found = BTreeSet::new();
    let mut rest = query;
    while let Some(at) = ["durable_streams_", "process_"].iter().filter_map(|p| rest.find(p)).min()
    {
        rest = &rest[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let metric = metric(name).unwrap_or_else(|| panic!("there is no metric {name}: {query}"));
        found.insert(metric.name);
        if let Some(selector) = after.strip_prefix('{').and_then(|s| s.split_once('}')) {
            for matcher in selector.0.split(',') {
                let label = matcher.split(['=', '!']).next().unwrap().trim();
                check_label(metric, label, query);
            }
        }
        rest = after;
    }
    for by in query.split("by (").skip(1) {
        for label in by.split(')').next().unwrap().split(',') {
            let known = |name: &&str| {
                let metric = ALL.iter().find(|metric| metric.name == *name).unwrap();
                metric.labels.contains(&label.trim())
            };
            let ours = matches!(label.trim(), "instance" | "job" | "le") || found.iter().any(known);
            assert!(ours, "no metric has the label {label}: {query}");
        }
    }
    found
}

fn check_label(metric: &Metric, label: &str, query: &str) {
    let known = metric.labels.contains(&label) || matches!(label, "instance" | "job");
    assert!(known, "{} has no label {label}: {query}", metric.name);
}

#[test]
fn the_dashboard_shows_every_metric_and_no_other() {
    let dashboard: Value =
        serde_json::from_str(&read("deploy/grafana/durable-streams.json")).unwrap();
    let mut used = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "an id is there twice");
        let Some(targets) = panel["targets"].as_array() else {
            assert_eq!(panel["type"], "row");
            continue;
        };
        assert!(!targets.is_empty(), "{panel}");
        for target in targets {
            let names = check(target["expr"].as_str().unwrap());
            assert!(!names.is_empty(), "{target}");
            used.extend(names);
        }
    }
    let all: BTreeSet<&str> = ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(used, all, "every metric has its place on the dashboard");
}

#[test]
fn every_alert_asks_for_what_exists_and_is_explained() {
    let rules: Value = serde_saphyr::from_str(&read("deploy/prometheus/alerts.yaml")).unwrap();
    let documentation = read("docs/operations.md");
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    assert!(rules.len() >= 10);
    for rule in rules {
        let name = rule["alert"].as_str().unwrap();
        let names = check(rule["expr"].as_str().unwrap());
        assert!(!names.is_empty() || name == "DurableStreamsDown", "{name}");
        assert!(
            matches!(rule["labels"]["severity"].as_str(), Some("critical" | "warning")),
            "{name}"
        );
        assert!(rule["annotations"]["summary"].is_string(), "{name}");
        assert!(documentation.contains(&format!("| `{name}` |")), "docs/operations.md: {name}");
    }
}

#[test]
fn probes_ask_the_admin_listener() {
    for (file, part) in [
        ("deploy/Dockerfile", r#"CMD ["durable-streams-server", "healthcheck"]"#),
        ("deploy/kubernetes.yaml", "path: /readyz"),
        ("deploy/kubernetes.yaml", "path: /healthz"),
        ("deploy/durable-streams-server.service", "ExecReload=/bin/kill -HUP $MAINPID"),
    ] {
        assert!(read(file).contains(part), "{file}: {part}");
    }
}
