//! Rules between keys: what each key allows alone but not together with another.

use std::collections::HashMap;
use std::net::SocketAddr;

use durable_streams_engine::store::FileStoreOptions;

use super::keys::listen::ListenerConfig;
use super::keys::root::Config;
use super::keys::storage::DurabilityConfig;
use super::keys::telemetry::AdminConfig;
use super::keys::upstream::{BalanceConfig, UpstreamConfig};
use super::reader::error::ConfigProblems;
use super::reader::setting::{ScalarSetting, Setting, check_range};
use super::units::ByteSize;

/// Reports every value outside its bounds and every contradiction.
pub(super) fn check_all(config: &Config, can_trace: bool, problems: &mut ConfigProblems<'_>) {
    config.check("", problems);
    check(config, problems);
    super::keys::tracing::check(config.telemetry.tracing.as_ref(), can_trace, problems);
}

/// Reports every contradiction.
fn check(config: &Config, problems: &mut ConfigProblems<'_>) {
    listeners(config, problems);
    super::keys::listen::check(config, problems);
    storage(config, problems);
    sizes(config, problems);
    durations(config, problems);
    origins(config, problems);
    for (index, upstream) in config.upstreams.iter().enumerate() {
        self::upstream(config, upstream, &format!("upstreams[{index}]"), problems);
    }
    upstream_paths(config, problems);
    super::keys::auth::check(config.auth.as_ref(), problems);
    let rules = config.auth.as_ref().map_or(&[][..], |auth| &auth.client_certificates);
    let asked_for = config.listen.iter().any(ListenerConfig::asks_for_certificates);
    super::keys::client_certificates::check(rules, asked_for, problems);
    if let Some(usage) = &config.telemetry.usage {
        super::keys::telemetry::check_usage(usage, problems);
    }
    super::keys::retention::check(&config.retention, problems);
    let (data_dir, max_disk) = (config.data_dir.is_some(), config.storage.max_disk);
    super::keys::tier::check(config.tier.as_ref(), data_dir, max_disk, problems);
}

fn listeners(config: &Config, problems: &mut ConfigProblems<'_>) {
    if config.listen.is_empty() {
        let fix = "name an address, such as 127.0.0.1:4437";
        problems.broken(&[("listen", "")], "names no address".to_owned(), fix);
    }
    let addresses: Vec<SocketAddr> = config.listen.iter().map(ListenerConfig::address).collect();
    for (index, address) in addresses.iter().enumerate() {
        let others = addresses.iter().enumerate().filter(|(other, _)| *other != index);
        let first = others.filter(|(_, other)| covers(other, address)).min();
        if let Some((other, covering)) = first
            // Of two equal ones the second is to blame.
            && (covering != address || other < index)
        {
            let path = format!("listen[{index}]");
            let rule = format!("is already covered by \"{covering}\"");
            problems.broken(&[(&path, &address.text())], rule, "remove one of them");
        }
    }
    if let Some(admin) = &config.admin
        && let Some(covering) = addresses.iter().find(|other| covers(other, &admin.listen))
    {
        let values = [("admin.listen", &*admin.listen.text()), ("listen", "")];
        let rule = format!("is already covered by listen = \"{covering}\"");
        problems.broken(&values, rule, "give it a port of its own");
    }
    if let Some(admin) = &config.admin {
        administration(config, admin, problems);
    }
}

/// The administration API and its page need credentials, or a listener that only this machine reaches.
fn administration(config: &Config, admin: &AdminConfig, problems: &mut ConfigProblems<'_>) {
    let listen = admin.listen.text();
    let open = config.auth.is_none() && !admin.listen.ip().is_loopback();
    for (key, on) in [("admin.api", admin.api == Some(true)), ("admin.page", admin.page)] {
        if open && on {
            let rule = "would let everybody who reaches it administer the server: there is no auth section";
            let values = [(key, "true"), ("admin.listen", &*listen)];
            let fix = "add an auth section, or listen on 127.0.0.1";
            problems.broken(&values, rule.to_owned(), fix);
        }
    }
    if admin.page && admin.api == Some(false) {
        let values = [("admin.page", "true"), ("admin.api", "false")];
        let rule = "shows nothing: it works through the administration API".to_owned();
        problems.broken(&values, rule, "remove one of them");
    }
}

/// True when both cannot be listened on: the same address, or all addresses and one of them.
fn covers(covering: &SocketAddr, address: &SocketAddr) -> bool {
    let same_place = covering.ip() == address.ip()
        || (covering.ip().is_unspecified() && covering.is_ipv4() == address.is_ipv4());
    covering.port() != 0 && covering.port() == address.port() && same_place
}

fn storage(config: &Config, problems: &mut ConfigProblems<'_>) {
    let storage = &config.storage;
    if config.data_dir.is_none() {
        for key in ["durability", "storage"] {
            if problems.is_written(key) {
                let rule = "has no effect without data_dir: streams are kept in memory";
                let fix = "set data_dir, or remove it";
                problems.broken(&[(key, "")], rule.to_owned(), fix);
            }
        }
        return;
    }
    at_most(
        ("limits.max_append", config.limits.max_append),
        ("storage.wal_segment", storage.wal_segment),
        problems,
    );
    at_most(
        ("storage.checkpoint_size", storage.checkpoint_size),
        ("storage.map_size", storage.map_size),
        problems,
    );
    let least = ByteSize::bytes(FileStoreOptions::least_max_disk(storage.wal_segment.get()));
    if let Some(most) = storage.max_disk.filter(|most| *most < least) {
        let rule = "is less than eight times storage.wal_segment, or than 64MiB".to_owned();
        let fix = format!("raise it to {} or more, or make log files smaller", least.text());
        problems.broken(&[("storage.max_disk", &most.text())], rule, &fix);
    }
    at_most(
        ("storage.segments.min", storage.segments.min),
        ("storage.segments.size", storage.segments.size),
        problems,
    );
    if let DurabilityConfig::Interval(interval) = config.durability {
        at_most(
            ("durability.interval", interval),
            ("storage.checkpoint_interval", storage.checkpoint_interval),
            problems,
        );
    }
}

fn sizes(config: &Config, problems: &mut ConfigProblems<'_>) {
    let limits = &config.limits;
    let append = ("limits.max_append", limits.max_append);
    at_most(append, ("limits.max_inflight_append", limits.max_inflight_append), problems);
    if let Some(total) = limits.max_total {
        at_most(append, ("limits.max_total", total), problems);
    }
    if let Some(page) = limits.max_read {
        let bounds = (ByteSize::kib(1), ByteSize::gib(1));
        check_range(&page, bounds, "limits.max_read", problems);
    }
    if let Some(buffer) = limits.send_buffer {
        let bounds = (ByteSize::kib(64), ByteSize::mib(64));
        check_range(&buffer, bounds, "limits.send_buffer", problems);
    }
    if limits.max_streams == Some(0) {
        let fix = "use 1 or more, or remove it for no limit";
        problems.broken(&[("limits.max_streams", "0")], "allows no stream".to_owned(), fix);
    }
    let path = ("limits.max_path", limits.max_path);
    if path.1 as u64 > limits.max_header_size.get() {
        let values = [(path.0, &*path.1.text()), ("limits.max_header_size", "")];
        let rule = format!("exceeds limits.max_header_size = \"{}\"", limits.max_header_size);
        problems.broken(&values, rule, "change one of them");
    }
}

fn durations(config: &Config, problems: &mut ConfigProblems<'_>) {
    at_most(
        ("sse_keep_alive", config.sse_keep_alive),
        ("sse_reconnect_interval", config.sse_reconnect_interval),
        problems,
    );
}

fn origins(config: &Config, problems: &mut ConfigProblems<'_>) {
    let origins = &config.cors.origins;
    if origins.len() > 1 && origins.contains(&super::CorsOrigin::Any) {
        let rule = "has \"*\" beside other origins".to_owned();
        problems.broken(
            &[("cors.origins", "")],
            rule,
            "\"*\" covers them all; keep one or the other",
        );
    }
    if config.cors.credentials && origins.contains(&super::CorsOrigin::Any) {
        let rule = "would let every page act with a visitor's cookies, which browsers refuse, too";
        let values = [("cors.credentials", "true"), ("cors.origins", "")];
        problems.broken(&values, rule.to_owned(), "list the origins in cors.origins");
    }
}

fn upstream(
    config: &Config,
    upstream: &UpstreamConfig,
    path: &str,
    problems: &mut ConfigProblems<'_>,
) {
    let key = |name: &str| format!("{path}.{name}");
    if upstream.servers.is_empty() {
        let fix = "add servers: [\"http://127.0.0.1:3000\"]";
        problems.broken(&[(&key("servers"), ""), (path, "")], "names no server".to_owned(), fix);
    }
    for (index, server) in upstream.servers.iter().enumerate() {
        let item = format!("{path}.servers[{index}]");
        let value = server.text();
        if upstream.servers.iter().take(index).any(|other| other == server) {
            problems.broken(&[(&item, &value)], "is there twice".to_owned(), "remove one");
        }
        if upstream.servers.first().is_some_and(|first| first.tls != server.tls) {
            let rule = "mixes http and https servers in one upstream".to_owned();
            let fix = "write all of them with http:// or all with https://";
            problems.broken(&[(&item, &value)], rule, fix);
        }
        let is_ourselves =
            |own: SocketAddr| own.port() == server.port && own.ip().to_string() == server.host;
        if config.listen.iter().map(ListenerConfig::address).any(is_ourselves) {
            let fix = "name another server, or change listen";
            problems.broken(&[(&item, &value)], "is this server itself".to_owned(), fix);
        }
    }
    if let (Some(header), BalanceConfig::RoundRobin) = (&upstream.hash_header, upstream.balance) {
        let rule = "has no effect with balance = \"round_robin\"".to_owned();
        problems.broken(&[(&key("hash_header"), header.as_str())], rule, "write balance: hash");
    }
    if let Some(health) = &upstream.health_check {
        at_most(
            (&key("health_check.timeout"), health.timeout),
            (&key("health_check.interval"), health.interval),
            problems,
        );
    }
    if let Some(forward) = &upstream.forward_auth {
        super::keys::forward_auth::check_upstream(forward, &key("forward_auth"), problems);
    }
    tls(upstream, path, problems);
}

fn tls(upstream: &UpstreamConfig, path: &str, problems: &mut ConfigProblems<'_>) {
    let tls = &upstream.tls;
    let key = |name: &str| format!("{path}.tls{name}");
    if *tls != super::UpstreamTlsConfig::default()
        && !upstream.servers.iter().any(|server| server.tls)
    {
        let rule = "has no effect: no server of this upstream uses https".to_owned();
        let servers = format!("{path}.servers");
        let fix = "write https:// in servers, or remove it";
        problems.broken(&[(&key(""), ""), (&servers, "")], rule, fix);
    }
    if let Some(ca) = &tls.ca {
        if !tls.verify {
            let rule = "has no effect with verify = false".to_owned();
            problems.broken(&[(&key(".ca"), &ca.text())], rule, "remove one of them");
        } else if !ca.is_file() {
            let rule = "is not a file that can be found".to_owned();
            let fix = "a relative path starts where the server is started";
            problems.broken(&[(&key(".ca"), &ca.text())], rule, fix);
        }
    }
}

fn upstream_paths(config: &Config, problems: &mut ConfigProblems<'_>) {
    let mut seen = HashMap::new();
    for (index, upstream) in config.upstreams.iter().enumerate() {
        let path = format!("upstreams[{index}].path");
        let group = format!("upstreams[{index}]");
        let prefix = upstream.path.as_str();
        if upstream.path.lies_under(&config.route) {
            let rule =
                format!("is never reached: streams own route = \"{}\"", config.route.as_str());
            problems.broken(&[(&path, prefix), (&group, "")], rule, "choose another path");
        }
        if let Some(first) = seen.insert(prefix, index) {
            let rule = format!("is also the path of upstreams[{first}]");
            let fix = "put their servers into one upstream, or change one path";
            problems.broken(&[(&path, prefix), (&group, "")], rule, fix);
        }
    }
}

/// The first value must not exceed the second.
fn at_most<T: ScalarSetting + PartialOrd>(
    low: (&str, T),
    high: (&str, T),
    problems: &mut ConfigProblems<'_>,
) {
    if low.1 > high.1 {
        let rule = format!("exceeds {} = \"{}\"", high.0, high.1.text());
        problems.broken(&[(low.0, &low.1.text()), (high.0, "")], rule, "change one of them");
    }
}
