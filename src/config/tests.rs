//! The declarations against the documentation, the reference file and the error messages.
//!
//! One file because every case shares the same few loaders, and the cases together are the grammar of the file.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::reader::setting;
use super::*;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn all_keys() -> BTreeSet<String> {
    let mut keys = Vec::new();
    Config::keys("", &mut keys);
    let set: BTreeSet<String> = keys.iter().cloned().collect();
    assert_eq!(set.len(), keys.len(), "a key is declared twice");
    set
}

/// `text` as a file, and the environment and flags beside it, for a binary that can export traces.
fn load(
    text: &str,
    environment: &[(&str, &str)],
    flags: &[(&'static str, &'static str, &str)],
) -> Result<Config, String> {
    load_for(true, text, environment, flags)
}

fn load_for(
    can_trace: bool,
    text: &str,
    environment: &[(&str, &str)],
    flags: &[(&'static str, &'static str, &str)],
) -> Result<Config, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("t.yaml");
    fs::write(&file, text).unwrap();
    let prefix = format!("{}/", directory.path().display());
    let sources = ConfigSources {
        file: Some(file),
        environment: environment
            .iter()
            .map(|(name, value)| (OsString::from(name), OsString::from(value)))
            .collect(),
        flags: flags
            .iter()
            .map(|(name, key, value)| ConfigFlag { name, key, value: (*value).to_owned() })
            .collect(),
    };
    let loaded = super::load::load(&sources, can_trace);
    loaded.map_err(|error| error.to_string().replace(&prefix, ""))
}

/// Every key of a tree with its text, list items as `key[]`.
fn leaves(node: &ConfigNode, path: &str, found: &mut BTreeMap<String, String>) {
    if !path.is_empty() && !path.ends_with("[]") {
        found.entry(path.to_owned()).or_insert_with(|| node.shown());
    }
    match &node.value {
        NodeValue::Group(entries) => {
            for entry in entries {
                leaves(&entry.node, &setting::join(path, &entry.key), found);
            }
        }
        NodeValue::List(items) => {
            for item in items {
                leaves(item, &format!("{path}[]"), found);
            }
        }
        NodeValue::Null | NodeValue::Text(_) => {}
    }
}

/// The defaults of every key, inside optional groups and lists of groups too.
fn defaults() -> BTreeMap<String, String> {
    let mut tree = Config::default().write();
    let mut upstream = UpstreamConfig::default().write();
    upstream.put("health_check", HealthCheckConfig::default().write());
    upstream.put("forward_auth", UpstreamAuthConfig::default().write());
    tree.put(
        "upstreams",
        ConfigNode { value: NodeValue::List(vec![upstream]), ..ConfigNode::default() },
    );
    let issuer = IssuerConfig { scopes: vec![ScopeConfig::default()], ..Default::default() };
    let auth = AuthConfig {
        issuers: vec![issuer],
        anonymous: vec![GrantConfig::default()],
        client_certificates: vec![CertificateConfig::default()],
        forward: Some(ForwardAuthConfig::default()),
        ..AuthConfig::default()
    };
    tree.put("auth", auth.write());
    for kind in ["client", "principal", "tenant"] {
        tree.put(&format!("auth.rates.{kind}"), RateConfig::default().write());
    }
    let one =
        |item: ConfigNode| ConfigNode { value: NodeValue::List(vec![item]), ..Default::default() };
    tree.put("auth.rates.paths", one(PathRateConfig::default().write()));
    tree.put("auth.quotas.tenants", one(TenantQuotaConfig::default().write()));
    tree.put("auth.quotas.paths", one(PathQuotaConfig::default().write()));
    tree.put("lifecycle", LifecycleConfig::default().write());
    tree.put("admin", AdminConfig::default().write());
    tree.put("tier", TierConfig::default().write());
    tree.put("telemetry.tracing", TracingConfig::default().write());
    tree.put("telemetry.usage", UsageConfig::default().write());
    let mut found = BTreeMap::new();
    leaves(&tree, "", &mut found);
    found
}

/// The reference with every key switched on: `#key: value` becomes `key: value`.
fn reference_in_full() -> String {
    let is_key = |line: &str| {
        let line = line.trim_start();
        let line = line.strip_prefix("- ").unwrap_or(line);
        line.split_once(':').is_some_and(|(key, rest)| {
            !key.is_empty()
                && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
                && (rest.is_empty() || rest.starts_with(' '))
        })
    };
    let text = fs::read_to_string(repository("config/streams.yaml")).unwrap();
    let on = |line: &str| {
        let indent = &line[..line.len() - line.trim_start().len()];
        match line.trim_start().strip_prefix('#') {
            // An alternative of a key that is there already.
            Some(rest) if rest.starts_with("durability:") => String::new(),
            Some(rest) if is_key(rest) => format!("{indent}{rest}\n"),
            _ => format!("{line}\n"),
        }
    };
    let ca = repository("Cargo.toml").display().to_string();
    text.lines().map(on).collect::<String>().replace("/etc/durable-streams/upstream-ca.pem", &ca)
}

#[test]
fn the_reference_has_every_key_with_its_default() {
    let text = reference_in_full();
    load(&text, &[], &[]).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let mut written = BTreeMap::new();
    leaves(&yaml::parse(&text).ok().unwrap(), "", &mut written);
    // The other form of `durability`, shown as a comment.
    written.insert("durability.interval".to_owned(), String::new());
    // Those of HTTPS are shown in config/tls.yaml, and those that exclude others of the reference in config/auth.yaml.
    let https = |key: &&String| {
        ["listen[].", "acme", "redirect_http", "hsts", "auth.client_certificates", "auth.forward"]
            .iter()
            .any(|begin| key.starts_with(begin))
    };
    let of_https: Vec<String> = all_keys().iter().filter(https).cloned().collect();
    written.extend(of_https.iter().map(|key| (key.clone(), String::new())));
    let keys: BTreeSet<String> = written.keys().cloned().collect();
    assert_eq!(keys, all_keys(), "config/streams.yaml and the types differ");

    let examples = [
        "data_dir",
        "durability.interval",
        "threads",
        "limits.max_read",
        "limits.max_streams",
        "limits.max_total",
        "limits.send_buffer",
        "limits.max_producers",
        "retention[].paths",
        "retention[].keep_for",
        "retention[].keep_bytes",
        "retention[].keep_messages",
        "auth.rates.client.bytes",
        "auth.rates.principal.bytes",
        "auth.rates.tenant.bytes",
        "auth.rates.paths[].prefix",
        "auth.rates.paths[].bytes",
        "auth.quotas.client.live_readers",
        "auth.quotas.principal.live_readers",
        "auth.quotas.tenant.live_readers",
        "auth.quotas.tenant.streams",
        "auth.quotas.tenant.bytes",
        "auth.quotas.tenants[].name",
        "auth.quotas.tenants[].live_readers",
        "auth.quotas.tenants[].streams",
        "auth.quotas.tenants[].bytes",
        "auth.quotas.paths[].prefix",
        "auth.quotas.paths[].live_readers",
        "auth.quotas.paths[].streams",
        "auth.quotas.paths[].bytes",
        "storage.max_disk",
        "telemetry.usage.prefixes",
        "tier.url",
        "tier.endpoint",
        "tier.region",
        "tier.local",
        "auth.credentials",
        "auth.cookie",
        "auth.anonymous[].allow",
        "auth.anonymous[].paths",
        "auth.issuers[].name",
        "auth.issuers[].issuer",
        "auth.issuers[].audience",
        "auth.issuers[].jwks_url",
        "auth.issuers[].jwks_file",
        "auth.issuers[].secret_file",
        "allowed_hosts",
        "auth.issuers[].tenant_claim",
        "auth.issuers[].scope_claim",
        "auth.issuers[].scopes[].scope",
        "auth.issuers[].scopes[].allow",
        "auth.issuers[].paths_claim",
        "auth.issuers[].paths",
        "upstreams[].servers",
        "upstreams[].balance",
        "upstreams[].hash_header",
        "upstreams[].tls.sni",
        "upstreams[].tls.ca",
        "upstreams[].forward_auth.url",
        "upstreams[].forward_auth.copy_headers",
        "subscriptions.public_url",
    ];
    // The same value may be spelled `60s` or `1m`.
    let canonical = |text: &String| {
        let bare = text.trim_matches('"');
        setting::ScalarSetting::parse(bare).map_or(text.clone(), |d: HumanDuration| d.to_string())
    };
    let defaults = defaults();
    let examples = |key: &String| examples.contains(&key.as_str()) || of_https.contains(key);
    for (key, value) in written.iter().filter(|(key, _)| !examples(key)) {
        let default = defaults.get(key).map(&canonical);
        assert_eq!(default, Some(canonical(value)), "config/streams.yaml: {key}");
    }
    let mut stated =
        load(&fs::read_to_string(repository("config/streams.yaml")).unwrap(), &[], &[]).unwrap();
    stated.data_dir = None;
    assert_eq!(stated, Config::default(), "the keys that are switched on must be the defaults");
}

/// config/auth.yaml with what excludes its other parts switched on in their place.
#[test]
fn the_example_of_access_shows_certificates_and_forward_auth() {
    let text = fs::read_to_string(repository("config/auth.yaml")).unwrap();
    let (before, rest) = text.split_once("  anonymous:\n").unwrap();
    let (_, rest) = rest.split_once("\n\n").unwrap();
    let on = |line: &str| match line.strip_prefix("#  ") {
        Some(rest) => format!("  {rest}\n"),
        None => format!("{line}\n"),
    };
    let file = repository("Cargo.toml").display().to_string();
    let certificates = format!("[{{certificate: '{file}', key: '{file}'}}]");
    let tls = format!("{{certificates: {certificates}, client_ca: '{file}'}}");
    let listen = format!("listen: [{{address: '127.0.0.1:4437', tls: {tls}}}]");
    let before = before.replace("listen: [\"127.0.0.1:4437\"]", &listen);
    let rest: String = rest.lines().map(on).collect();
    let whole = format!("{before}{rest}");
    let config = load(&whole, &[], &[]).unwrap_or_else(|error| panic!("{error}\n{whole}"));
    let auth = config.auth.unwrap();
    assert!(auth.forward.is_some() && auth.client_certificates.len() == 4, "{whole}");
    for key in all_keys() {
        let shown = ["auth.client_certificates", "auth.forward"];
        if shown.iter().any(|begin| key.starts_with(begin)) {
            let name = key.rsplit('.').next().unwrap();
            assert!(whole.contains(&format!("{name}:")), "config/auth.yaml does not show {key}");
        }
    }
}

#[test]
fn the_documentation_has_every_key_with_its_default() {
    let text = fs::read_to_string(repository("docs/configuration.md")).unwrap();
    let mut documented = BTreeMap::new();
    for line in text.lines() {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (Some(key), Some(default)) = (cells.next(), cells.next()) else { continue };
        if let Some(key) = key.strip_prefix('`').and_then(|key| key.strip_suffix('`')) {
            let earlier = documented.insert(key.to_owned(), default.trim_matches('`').to_owned());
            assert_eq!(earlier, None, "docs/configuration.md has {key} twice");
        }
    }
    let keys: BTreeSet<String> = documented.keys().cloned().collect();
    assert_eq!(keys, all_keys(), "docs/configuration.md and the types differ");
    for (key, default) in defaults() {
        let Some(default) = default.strip_prefix('"').and_then(|d| d.strip_suffix('"')) else {
            continue;
        };
        let stated = &documented[&key];
        let same = stated == default
            || (default.is_empty() && stated == "none")
            || setting::ScalarSetting::parse(stated)
                .is_ok_and(|d: HumanDuration| d.to_string() == default)
            || key == "threads";
        assert!(same, "docs/configuration.md: {key} has default {stated}, not {default}");
    }
    for (name, key) in load::environment_names() {
        assert_eq!(name, format!("DURABLE_STREAMS_{}", key.replace('.', "_").to_uppercase()));
    }
}

#[test]
fn environment_names_are_distinct() {
    let names = load::environment_names();
    let distinct: BTreeSet<&String> = names.iter().map(|(name, _)| name).collect();
    assert_eq!(distinct.len(), names.len());
    assert!(
        names.iter().any(|(name, key)| name == "DURABLE_STREAMS_LOG_LEVEL" && key == "log.level")
    );
    assert!(names.iter().all(|(name, _)| !name.contains('[') && !name.ends_with("_LIMITS")));
}

#[test]
fn defaults_are_valid_and_print_as_what_they_are() {
    for config in [
        Config::default(),
        Config::dev(None, 0, None),
        Config::dev("::1".parse().ok(), 1, Some(Vec::new())),
    ] {
        config.validate().unwrap();
        assert_eq!(load(&config.to_yaml(), &[], &[]).as_ref(), Ok(&config), "{}", config.to_yaml());
    }
    let full = load(&reference_in_full(), &[], &[]).unwrap();
    assert_eq!(load(&full.to_yaml(), &[], &[]).unwrap(), full, "{}", full.to_yaml());
    let interval = load("data_dir: '007'\ndurability: {interval: 50ms}", &[], &[]).unwrap();
    assert_eq!(load(&interval.to_yaml(), &[], &[]).unwrap(), interval, "{}", interval.to_yaml());
}

#[test]
fn lifecycle_events_are_off_unless_their_group_is_there() {
    let kept = |text: &str| load(text, &[], &[]).unwrap().lifecycle.map(|one| one.keep_bytes);
    assert_eq!(kept("threads: 1"), None);
    assert_eq!(kept("lifecycle: none"), None);
    assert_eq!(kept("lifecycle: {}"), Some(ByteSize::mib(16)));
    assert_eq!(kept("lifecycle: {keep_bytes: 64KiB}"), Some(ByteSize::kib(64)));
    for text in [
        "lifecycle: {keep_bytes: 63KiB}",
        "lifecycle: {keep_bytes: 2GiB}",
        "lifecycle: {keep: 1MiB}",
    ] {
        let refused = load(text, &[], &[]).unwrap_err().to_string();
        assert!(refused.contains("lifecycle.keep"), "{text}: {refused}");
    }
}

#[test]
fn a_rule_of_retention_names_paths_and_keeps_no_less_than_ten_seconds() {
    let text = "retention:\n  - paths: \"logs/**\"\n    keep_for: 7d\n    keep_bytes: 1GiB\n  - paths: \"**\"\n";
    let config = load(text, &[], &[]).unwrap();
    let [logs, all] = &config.retention[..] else { panic!("two rules") };
    assert_eq!((logs.paths.as_str(), logs.keep_messages), ("logs/**", None));
    assert_eq!(logs.keep_for, Some(HumanDuration::secs(7 * 86_400)));
    assert_eq!((all.keep_for, all.keep_bytes), (None, None), "it keeps all");
    for (text, expected) in [
        ("retention: [{keep_for: 1d}]", "retention[0].paths"),
        ("retention:\n  - paths: a\n    keep_for: 9s\n", "the least is 10s"),
        ("retention: [{paths: \"a**\", keep_for: 1d}]", "a pattern of stream paths"),
        ("retention: [{paths: a, keep: 1d}]", "keep"),
        ("retention: [{paths: a, keep_bytes: 10}]", "keep_bytes"),
    ] {
        let refused = load(text, &[], &[]).unwrap_err().to_string();
        assert!(refused.contains(expected), "{text}: {refused}");
    }
    let many = format!("retention: [{}]", "{paths: a},".repeat(65));
    let refused = load(&many, &[], &[]).unwrap_err().to_string();
    assert!(refused.contains("more than 64 entries"), "{refused}");
}

#[test]
fn nothing_written_means_the_defaults() {
    for text in
        ["", "\n", "# only a comment\n", "---\n", "{}", "null", "limits:\nlog: {}\ndata_dir:\n"]
    {
        assert_eq!(load(text, &[], &[]), Ok(Config::default()), "{text:?}");
    }
}

#[test]
fn flags_beat_environment_beats_file() {
    let file = "route: /file\nthreads: 1\nlog: {level: error, format: json}\n";
    let environment = [
        ("DURABLE_STREAMS_THREADS", "2"),
        ("DURABLE_STREAMS_LOG_LEVEL", "debug"),
        ("DURABLE_STREAMS_LISTEN", "0.0.0.0:1, [::]:1"),
        ("DURABLE_STREAMS_DURABILITY", "os"),
        ("DURABLE_STREAMS_DURABILITY_INTERVAL", "50ms"),
        ("DURABLE_STREAMS_DATA_DIR", "/d"),
        ("DURABLE_STREAMS_SSE_KEEP_ALIVE", ""),
        ("DURABLE_STREAMS_CONFIG", "elsewhere.yaml"),
        ("PATH", "/bin"),
    ];
    let config = load(file, &environment, &[("--threads", "threads", "3")]).unwrap();
    assert_eq!(config.threads, 3);
    assert_eq!(config.log.level, LogLevel::Debug);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.route.as_str(), "/file");
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.durability, DurabilityConfig::Interval(HumanDuration::millis(50)));
    assert_eq!(config.sse_keep_alive, HumanDuration::secs(15));
}

#[test]
fn opentelemetrys_variables_stand_between_file_and_ours() {
    let tracing = |file: &str, environment: &[(&str, &str)]| {
        load(file, environment, &[]).unwrap().telemetry.tracing
    };
    let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/");
    let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://d/x");
    let ours = ("DURABLE_STREAMS_TELEMETRY_TRACING_ENDPOINT", "http://e");
    let file = "telemetry: {tracing: {endpoint: 'http://f/y'}}";
    for (variables, endpoint) in [
        (&[][..], "http://f/y"),
        (&[base], "http://c:4318/v1/traces"),
        (&[base, whole], "http://d/x"),
        (&[base, whole, ours], "http://e/v1/traces"),
    ] {
        assert_eq!(tracing(file, variables).unwrap().endpoint.as_str(), endpoint);
    }
    assert_eq!(tracing("", &[base]).unwrap().endpoint.as_str(), "http://c:4318/v1/traces");
    // What only refines does not turn it on.
    let name = ("OTEL_SERVICE_NAME", "n");
    assert_eq!(tracing("", &[name]), None);
    assert_eq!(tracing("telemetry: {tracing: {}}", &[name]).unwrap().service_name, "n");
    assert_eq!(tracing(file, &[base, ours, ("OTEL_SDK_DISABLED", "true")]), None);
    assert_eq!(tracing("telemetry: {tracing: none}", &[base]), None);
    let ratio = |variables: &[(&str, &str)]| tracing(file, variables).unwrap().sample_ratio.get();
    let argument = ("OTEL_TRACES_SAMPLER_ARG", "0.25");
    assert_eq!(ratio(&[("OTEL_TRACES_SAMPLER", "always_off"), argument]), 0.0);
    assert_eq!(ratio(&[("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), argument]), 0.25);
    assert_eq!(ratio(&[argument]), 1.0, "it argues with nobody");
    let wrong = [("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")];
    let error = load("", &wrong, &[]).unwrap_err();
    assert!(error.starts_with("environment OTEL_EXPORTER_OTLP_ENDPOINT: "), "{error}");
}

#[test]
fn a_binary_that_cannot_trace_refuses_the_group_and_ignores_the_variables() {
    let error = load_for(false, "telemetry:\n  tracing: {}\n", &[], &[]).unwrap_err();
    assert_eq!(
        error,
        "t.yaml:2:12: telemetry.tracing needs a binary that was built with tracing, and this one was not; \
         take a release binary, build with `cargo build --release --features otel`, or remove it"
    );
    let variable = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")];
    assert_eq!(load_for(false, "", &variable, &[]), Ok(Config::default()));
}

#[test]
fn unknown_variables_are_refused_and_service_links_are_not() {
    let error = load("", &[("DURABLE_STREAMS_DATADIR", "/d")], &[]).unwrap_err();
    assert_eq!(
        error,
        "environment DURABLE_STREAMS_DATADIR: is not a known variable of this server; did you mean DURABLE_STREAMS_DATA_DIR?"
    );
    let error = load("", &[("DURABLE_STREAMS_UPSTREAMS", "http://x:1")], &[]).unwrap_err();
    assert!(error.contains("set in the file"), "{error}");
    let links = [
        ("DURABLE_STREAMS_SERVICE_HOST", "10.0.0.1"),
        ("DURABLE_STREAMS_SERVICE_PORT_HTTP", "4437"),
        ("DURABLE_STREAMS_PORT", "tcp://10.0.0.1:4437"),
        ("DURABLE_STREAMS_PORT_4437_TCP_ADDR", "10.0.0.1"),
    ];
    assert_eq!(load("", &links, &[]), Ok(Config::default()));
}

#[test]
fn a_mistake_in_the_file_is_not_hidden_by_an_override() {
    for text in ["- a list\n", "log: [level]\n", "log: quiet\n"] {
        let error = load(text, &[("DURABLE_STREAMS_LOG_LEVEL", "debug")], &[]).unwrap_err();
        assert!(error.contains("must be a group of keys"), "{text:?}: {error}");
    }
}

/// One mistake each, and the message word for word: they are an interface for people.
#[test]
fn messages_name_place_key_value_rule_and_fix() {
    let mut differing = Vec::new();
    for (text, message) in [
        (
            "route: /\n",
            r#"t.yaml:1:8: route = "/" would cover everything; name a path such as /v1/stream; the rest belongs to the upstreams"#,
        ),
        (
            "limits:\n  max_apend: 1MiB\n",
            "t.yaml:2:3: limits.max_apend is not a known key; did you mean max_append?",
        ),
        (
            "max_append: 1MiB\n",
            "t.yaml:1:1: max_append is not a known key; did you mean limits.max_append?",
        ),
        ("data-dir: /d\n", "t.yaml:1:1: data-dir is not a known key; did you mean data_dir?"),
        (
            "log: {level: inof}\n",
            r#"t.yaml:1:14: log.level = "inof" is not a log level; did you mean info? (one of off, error, warn, info, debug, trace)"#,
        ),
        (
            "threads: many\n",
            r#"t.yaml:1:10: threads = "many" is not a whole number; use digits only, as in 1000"#,
        ),
        (
            "threads: 0\n",
            r#"t.yaml:1:10: threads = "0" is below the least allowed, 1; use a value from 1 to 1024"#,
        ),
        ("threads: [4]\n", "t.yaml:1:10: threads must be a whole number, not a list"),
        (
            "threads:\n",
            "t.yaml:1:8: threads = (empty) is not a value; write a whole number, or remove it",
        ),
        ("limits: 5\n", r#"t.yaml:1:9: limits must be a group of keys, not "5""#),
        (
            "long_poll_timeout: 30\n",
            r#"t.yaml:1:20: long_poll_timeout = "30" has no unit; write 30s or 30ms"#,
        ),
        (
            "limits: {max_read: 10M}\n",
            r#"t.yaml:1:20: limits.max_read = "10M" is not a size such as 64KiB, 10MiB or 1GB; use a whole number and B, KiB, MiB, GiB, TiB, KB, MB, GB or TB"#,
        ),
        (
            "limits: {max_append: 512MiB}\n",
            r#"t.yaml:1:22: limits.max_append = "512MiB" exceeds limits.max_inflight_append = "256MiB"; change one of them"#,
        ),
        (
            "data_dir: d\nstorage: {wal_segment: 8MiB}\n",
            r#"t.yaml:2:24: limits.max_append = "16MiB" exceeds storage.wal_segment = "8MiB"; change one of them"#,
        ),
        (
            "data_dir: d\nstorage: {max_disk: 500MiB}\n",
            r#"t.yaml:2:21: storage.max_disk = "500MiB" is less than eight times storage.wal_segment, or than 64MiB; raise it to 512MiB or more, or make log files smaller"#,
        ),
        (
            "durability: os\n",
            "t.yaml:1:13: durability has no effect without data_dir: streams are kept in memory; set data_dir, or remove it",
        ),
        (
            "data_dir: d\ndurability: sync\n",
            r#"t.yaml:2:13: durability = "sync" is not fsync, os, or a group such as {interval: 50ms}; did you mean fsync? (one of fsync, os)"#,
        ),
        (
            "listen: localhost:80\n",
            r#"t.yaml:1:9: listen[0] = "localhost:80" is not an IP address and a port, such as 127.0.0.1:4437 or [::]:4437; write "127.0.0.1:80" and "[::1]:80""#,
        ),
        (
            "listen: [\"[::1]:1\", \"[::1]:1\"]\n",
            r#"t.yaml:1:21: listen[1] = "[::1]:1" is already covered by "[::1]:1"; remove one of them"#,
        ),
        (
            "listen: ['127.0.0.1:1', '0.0.0.0:1', '[::]:1', '127.0.0.1:0', '127.0.0.1:0']\n",
            r#"t.yaml:1:10: listen[0] = "127.0.0.1:1" is already covered by "0.0.0.0:1"; remove one of them"#,
        ),
        (
            "limits: {max_streams: 0}\n",
            r#"t.yaml:1:23: limits.max_streams = "0" allows no stream; use 1 or more, or remove it for no limit"#,
        ),
        (
            "listen: []\n",
            "t.yaml:1:9: listen names no address; name an address, such as 127.0.0.1:4437",
        ),
        (
            "admin: {listen: 127.0.0.1:4437}\n",
            r#"t.yaml:1:17: admin.listen = "127.0.0.1:4437" is already covered by listen = "127.0.0.1:4437"; give it a port of its own"#,
        ),
        (
            "trusted_proxies: [10.0.0.1/8]\n",
            r#"t.yaml:1:19: trusted_proxies[0] = "10.0.0.1/8" has bits set beyond its prefix; write 10.0.0.0/8 for the network or 10.0.0.1 for the one host"#,
        ),
        (
            "upstreams: [{path: /x}]\n",
            r#"t.yaml:1:13: upstreams[0].servers names no server; add servers: ["http://127.0.0.1:3000"]"#,
        ),
        (
            "upstreams: [{servers: [http://127.0.0.1:4437]}]\n",
            r#"t.yaml:1:24: upstreams[0].servers[0] = "http://127.0.0.1:4437" is this server itself; name another server, or change listen"#,
        ),
        (
            "upstreams:\n- servers: [http://a:1]\n- servers: [http://b:1]\n",
            r#"t.yaml:3:3: upstreams[1].path = "/" is also the path of upstreams[0]; put their servers into one upstream, or change one path"#,
        ),
        (
            "upstreams: [{path: /v1/stream/x, servers: [http://a:1]}]\n",
            r#"t.yaml:1:20: upstreams[0].path = "/v1/stream/x" is never reached: streams own route = "/v1/stream"; choose another path"#,
        ),
        (
            "upstreams: [{servers: [http://a:1], tls: {verify: false}}]\n",
            "t.yaml:1:42: upstreams[0].tls has no effect: no server of this upstream uses https; write https:// in servers, or remove it",
        ),
        (
            "upstreams:\n- servers: [http://a:1, https://b:2]\n",
            r#"t.yaml:2:25: upstreams[0].servers[1] = "https://b:2" mixes http and https servers in one upstream; write all of them with http:// or all with https://"#,
        ),
        (
            "cors: {origins: ['*', 'https://a.b']}\n",
            r#"t.yaml:1:17: cors.origins has "*" beside other origins; "*" covers them all; keep one or the other"#,
        ),
        (
            "cors: {credentials: true}\n",
            r#"t.yaml:1:21: cors.credentials = "true" would let every page act with a visitor's cookies, which browsers refuse, too; list the origins in cors.origins"#,
        ),
        (
            "sse_keep_alive: 90s\n",
            r#"t.yaml:1:17: sse_keep_alive = "90s" exceeds sse_reconnect_interval = "1m"; change one of them"#,
        ),
    ] {
        let said = load(text, &[], &[]).err().unwrap_or_default();
        if said != message {
            differing.push(format!("{text}  is: {said}\n  not: {message}\n"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn all_problems_are_reported_in_the_order_of_the_file() {
    let text = "threads: 0\nroute: x\nlimits:\n  max_append: 2GiB\n  wat: 1\nlog: {level: 7}\n";
    let error = load(
        text,
        &[("DURABLE_STREAMS_LIMITS_MAX_READ", "1"), ("DURABLE_STREAMS_X", "")],
        &[("--data-dir", "data_dir", "")],
    )
    .unwrap_err();
    let places: Vec<&str> = error.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(
        places,
        [
            "t.yaml:1:10:",
            "t.yaml:2:8:",
            "t.yaml:4:15:",
            "t.yaml:5:3:",
            "t.yaml:6:14:",
            "environment",
            "flag"
        ],
        "{error}"
    );
}

#[test]
fn a_configuration_from_code_is_judged_by_the_same_rules() {
    let mut config = Config { threads: 0, ..Config::default() };
    config.limits.max_append = ByteSize::gib(2);
    let error = config.validate().unwrap_err();
    assert_eq!(error.count(), 2, "{error}");
    assert!(error.to_string().contains("configuration: threads = \"0\" is below"), "{error}");
}

#[test]
fn a_store_in_memory_is_said_out_loud() {
    let notices = load("threads: 1\n", &[], &[]).unwrap().notices();
    assert!(notices[0].contains("nothing survives a restart"), "{notices:?}");
    assert_eq!(load("data_dir: /d\n", &[], &[]).unwrap().notices(), Vec::<String>::new());
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "[a-z:{}\\[\\]&*!<>|'\"#\\- \n\t]{0,200}") {
        let _ = load(&text, &[], &[]);
    }
}

#[test]
fn an_object_store_is_configured_whole_or_refused_with_what_to_do() {
    for (text, says) in [
        ("tier: {url: 's3://b'}", "has no effect without data_dir"),
        ("data_dir: x\ntier: {}", "tier.url is missing"),
        ("data_dir: x\ntier: {url: 's3://k:secret@b'}", "credentials come from the environment"),
        (
            "data_dir: x\ntier: {url: 'file:///x', endpoint: 'https://s'}",
            "has no effect on a directory",
        ),
        ("data_dir: x\ntier: {url: 's3://b', endpoint: 'http://s'}", "set tier.allow_http: true"),
        ("data_dir: x\ntier: {url: 's3://b', endpoint: 'https://s?key=1'}", "has a query"),
        ("data_dir: x\ntier: {url: 's3://b', cache_block: 100KiB}", "use 64KiB, 256KiB or 1MiB"),
        ("data_dir: x\ntier: {url: 's3://b', cache_block: 2MiB}", "64KiB to 1MiB"),
        (
            "data_dir: x\nstorage: {max_disk: 1GiB}\ntier: {url: 's3://b'}",
            "t.yaml:2:21: storage.max_disk = \"1GiB\" seals no streams without tier.local",
        ),
    ] {
        let error = load(text, &[], &[]).unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
    }
    let text = "data_dir: x\ntier: {url: 's3://b/p/', endpoint: 'http://s/', allow_http: true}";
    let config = load(text, &[], &[]).unwrap();
    let tier = config.tier.unwrap();
    assert_eq!(tier.url.unwrap().to_string(), "s3://b/p");
    assert_eq!(tier.endpoint.unwrap().as_str(), "http://s");
}
