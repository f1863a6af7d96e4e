//! From the configuration to the objects that serve it. The only place that knows both.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use durable_streams_engine::store::{
    AnyStore, FileStore, FileStoreOptions, MemoryStore,
    file::{Durability, SegmentOptions, WallClock, keys_dir},
};
use durable_streams_engine::{Clock, Engine, EngineLimits, RetentionRule};
use durable_streams_protocol::subscription::{Glob, HostRule, TargetRules};
use durable_streams_subscriptions::{KeySource, SubscriptionOptions, Subscriptions};

use super::{
    AdminOptions, ListenOptions, Server, ServerError, ServerOptions, Stopped, access::ServerAccess,
    backup_socket::BackupSocket, descriptors, quotas, reload::ConfigReloader, tier, tls, upstreams,
};
use crate::{
    admin::AdminAccess,
    config::{
        self, ByteSize, Config, ConfigSources, HostPattern, HumanDuration, ListenerConfig,
        RetentionConfig,
    },
    edge::{EdgeOptions, HttpLimits, StreamOptions, StreamsBackground},
    telemetry::process,
    telemetry::trace::{self, Exporter, Tracer},
    tls::TlsService,
    webhooks::{HttpWebhookClient, WebhookOptions},
};

/// How the server was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By `dev`: a newcomer is watching.
    Dev,
    /// By `run`.
    Production,
}

/// Binds, tells `on_listening` the addresses of the streams and of the admin listener, and serves until a
/// signal stops it. `sources`: where to read the configuration again when asked to.
///
/// # Errors
/// See [`ServerError`].
pub fn run(
    config: &Config,
    mode: Mode,
    sources: Option<ConfigSources>,
    on_listening: impl FnOnce(&[SocketAddr], Option<SocketAddr>),
) -> Result<Stopped, ServerError> {
    process::started();
    let (tracer, exporter) = trace_exporter(config)?;
    let engine = Arc::new(Engine::new(open_store(config)?, Clock::System, limits(config)));
    // The data directory is locked, so no other server changes its identity.
    let tier = tier::start(config, &engine)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let Some(auth) = &config.auth {
        // Nothing is served yet, so what is counted does not change meanwhile.
        let counted = runtime.block_on(engine.limit_scopes(quotas::scopes(&auth.quotas)));
        counted.map_err(ServerError::Quotas)?;
    }
    // Before the first request, so that no event is missing.
    runtime.block_on(engine.keep_lifecycle());
    let tls = tls::open(config, Clock::System)?;
    let mut options = server_options(config, mode, tls);
    options.edge.limits.max_connections = connections(config, mode);
    let mut server = Server::bind(options, engine.clone())?;
    server.trace_with(tracer.clone());
    if let Some(usage) = &config.telemetry.usage {
        server.edge().streams().count_usage(quotas::usage_options(usage));
    }
    let mut administrators = open_administration(config);
    if let Some(auth) = &config.auth {
        let access = ServerAccess::new(auth, config.route.as_str())?;
        administrators = access.administrators();
        server.protect(access.guard, access.audit);
        server.cache_protected(access.caching);
        server.add_background(Arc::new(access.refresh));
    }
    if config.admin.as_ref().is_some_and(|admin| admin.api != Some(false)) {
        server.administer(administrators);
    }
    if let Some(tier) = &tier {
        server.show_tier(tier.tier.clone());
    }
    if config.admin.as_ref().is_some_and(|admin| admin.page) {
        server.serve_page();
    }
    let reloads = sources.is_some();
    let reloader =
        ConfigReloader::new(sources, config.clone(), engine.clone(), server.edge(), server.tls());
    let reloader = Arc::new(reloader);
    server.control_by(reloader.clone());
    if reloads {
        server.on_reload(move || reloader.reload());
    }
    let admin = server.admin_address();
    let control = config.data_dir.as_deref().and_then(|dir| BackupSocket::open(dir, &engine));
    let webhooks = WebhookOptions { tracer, ..WebhookOptions::default() };
    let webhooks = Arc::new(HttpWebhookClient::new(webhooks)?);
    let options = subscription_options(config, mode, server.addresses());
    let opened = Subscriptions::open(engine.clone(), options, webhooks);
    let (subscriptions, driver) = runtime.block_on(opened)?;
    server.serve_subscriptions(subscriptions);
    server.add_background(Arc::new(StreamsBackground::new(&engine, Some(driver))));
    let stopped = server.run(|addresses| {
        if mode == Mode::Production {
            let admin = admin.map(tracing::field::display);
            tracing::info!(?addresses, admin, route = config.route.as_str(), "listening");
        }
        on_listening(addresses, admin);
    })?;
    drop(control);
    if let Some(tier) = tier {
        tier.stop();
    }
    // Requests are done; what they left in the store's queue is made durable now.
    runtime.block_on(engine.close());
    if let Some(exporter) = exporter {
        exporter.finish();
    }
    tracing::info!(?stopped, "stopped");
    Ok(stopped)
}

/// Who may administer a server that has no credentials to ask for.
fn open_administration(config: &Config) -> AdminAccess {
    match &config.admin {
        Some(admin) if admin.listen.ip().is_loopback() => AdminAccess::Loopback,
        _ => AdminAccess::Closed,
    }
}

/// The connections that the limit of file descriptors has room for.
fn connections(config: &Config, mode: Mode) -> usize {
    let wanted = config.limits.max_connections;
    let room = descriptors::room_for(wanted);
    if room < wanted && mode == Mode::Production {
        tracing::warn!(
            "limits.max_connections = {wanted} needs more file descriptors than this process may open: \
             {room} connections are taken; raise the hard limit (LimitNOFILE, ulimit -Hn), or lower the key"
        );
    }
    room
}

/// A tracer that is off, unless the configuration says where to.
fn trace_exporter(config: &Config) -> Result<(Tracer, Option<Exporter>), ServerError> {
    let Some(configured) = &config.telemetry.tracing else {
        return Ok((Tracer::default(), None));
    };
    let header = |header: &config::TraceHeader| (header.name.to_string(), header.value.clone());
    let (tracer, exporter) = trace::start(&trace::TraceOptions {
        endpoint: configured.endpoint.as_str().to_owned(),
        headers: configured.headers.iter().map(header).collect(),
        service_name: configured.service_name.clone(),
        sample_ratio: configured.sample_ratio.get(),
    })?;
    Ok((tracer, Some(exporter)))
}

fn open_store(config: &Config) -> Result<AnyStore, ServerError> {
    match store_options(config) {
        None => Ok(AnyStore::Memory(MemoryStore::default())),
        Some(options) => Ok(AnyStore::File(FileStore::open(options)?)),
    }
}

/// The durable store that a configuration asks for, if any.
pub fn store_options(config: &Config) -> Option<FileStoreOptions> {
    let dir = config.data_dir.clone()?;
    let storage = &config.storage;
    // Only what has an object leaves the disk again.
    let max_local = config.tier.as_ref().and_then(|tier| tier.local).map(ByteSize::get);
    Some(FileStoreOptions {
        dir,
        durability: match config.durability {
            config::DurabilityConfig::Fsync => Durability::Fsync,
            config::DurabilityConfig::Os => Durability::Os,
            config::DurabilityConfig::Interval(interval) => Durability::Interval(interval.get()),
        },
        map_size: size(storage.map_size),
        checkpoint_interval: storage.checkpoint_interval.get(),
        checkpoint_size: size(storage.checkpoint_size),
        wal_segment: storage.wal_segment.get(),
        max_disk: storage.max_disk.map(ByteSize::get),
        scrub_interval: Some(storage.scrub_interval.get()),
        scrub_rate: storage.scrub_rate.get(),
        segments: storage.segments.options().map(|kept| SegmentOptions { max_local, ..kept }),
        check_segment_reads: storage.segments.check_reads,
        clock: WallClock(|| Clock::System.now()),
        cache: size(storage.cache),
    })
}

pub(super) fn limits(config: &Config) -> EngineLimits {
    let limits = &config.limits;
    EngineLimits {
        max_append: size(limits.max_append),
        max_read: limits.max_read.map(size),
        max_live_readers: limits.max_live_readers,
        max_inflight_append: size(limits.max_inflight_append),
        max_streams: limits.max_streams,
        max_total: limits.max_total.map(ByteSize::get),
        max_producers: limits.max_producers,
        retention: config.retention.iter().filter_map(retention_rule).collect(),
        lifecycle: config.lifecycle.as_ref().map(|lifecycle| lifecycle.keep_bytes.get()),
    }
}

fn retention_rule(rule: &RetentionConfig) -> Option<RetentionRule> {
    Some(RetentionRule {
        paths: Glob::parse(rule.paths.as_str()).ok()?,
        keep_for: rule.keep_for.map(HumanDuration::get),
        keep_bytes: rule.keep_bytes.map(ByteSize::get),
        keep_messages: rule.keep_messages,
    })
}

fn size(bytes: ByteSize) -> usize {
    usize::try_from(bytes.get()).unwrap_or(usize::MAX)
}

fn server_options(config: &Config, mode: Mode, tls: Option<TlsService>) -> ServerOptions {
    ServerOptions {
        listen: ListenOptions { addresses: tls::addresses(config, tls.as_ref()) },
        redirects: tls::redirects(config),
        tls: tls.map(Arc::new),
        threads: config.threads,
        shutdown_timeout: config.shutdown_timeout.get(),
        admin: config
            .admin
            .as_ref()
            .map(|admin| AdminOptions { address: admin.listen, optional: mode == Mode::Dev }),
        edge: edge_options(config),
        ..ServerOptions::default()
    }
}

pub(super) fn edge_options(config: &Config) -> EdgeOptions {
    let limits = &config.limits;
    EdgeOptions {
        streams: StreamOptions {
            route: config.route.as_str().to_owned(),
            max_path: limits.max_path,
            long_poll_timeout: config.long_poll_timeout.get(),
            sse_reconnect_interval: config.sse_reconnect_interval.get(),
            sse_keep_alive: config.sse_keep_alive.get(),
            body_timeout: limits.body_timeout.get(),
            min_body_rate: size(limits.min_body_rate),
            max_inflight_read: size(limits.max_inflight_read),
            client_share: limits.client_share,
            cors: config.cors.policy(),
            browser: config.browser.rules(),
            trusted_proxies: config.trusted_proxies.clone(),
            server_timing: config.telemetry.server_timing,
        },
        upstreams: config.upstreams.iter().map(upstreams::upstream_options).collect(),
        trusted_proxies: config.trusted_proxies.clone(),
        allowed_hosts: config.allowed_hosts(),
        limits: HttpLimits {
            max_connections: limits.max_connections,
            client_share: limits.client_share,
            send_buffer: limits.send_buffer.map(size),
            max_headers: limits.max_headers,
            max_header_bytes: size(limits.max_header_size),
            header_timeout: limits.header_timeout.get(),
            keepalive_timeout: limits.idle_timeout.get(),
            body_timeout: limits.body_timeout.get(),
            write_timeout: limits.write_timeout.get(),
            ..HttpLimits::default()
        },
        access_log: config.log.access,
        hsts: tls::hsts(config),
    }
}

fn subscription_options(
    config: &Config,
    mode: Mode,
    listening: &[SocketAddr],
) -> SubscriptionOptions {
    let configured = &config.subscriptions;
    let hosts = configured.allowed_hosts.iter().map(|host| HostRule::parse(host.as_str()));
    let retries = (configured.max_deliveries / 4).max(1);
    SubscriptionOptions {
        targets: TargetRules {
            allow_http_localhost: configured.allow_http_localhost || mode == Mode::Dev,
            allowed_hosts: hosts.collect(),
        },
        keys: match &config.data_dir {
            Some(directory) => KeySource::Directory(keys_dir(directory)),
            None => KeySource::Ephemeral,
        },
        public_url: public_url(config, mode, listening),
        delivery_timeout: configured.webhook_timeout.get(),
        max_deliveries: configured.max_deliveries.saturating_sub(retries).max(1),
        max_retries: retries,
        ..SubscriptionOptions::default()
    }
}

/// The stream route as webhook receivers reach it: as configured; at the name of the HTTPS listener on port 443; or, in
/// development, at the first address that the server listens on.
fn public_url(config: &Config, mode: Mode, listening: &[SocketAddr]) -> Option<String> {
    let configured = &config.subscriptions;
    let origin = match (&configured.public_url, listening.first()) {
        (Some(url), _) => url.as_str().to_owned(),
        (None, Some(address)) if configured.allow_http_localhost || mode == Mode::Dev => {
            let host = match address.ip() {
                ip if ip.is_unspecified() => "localhost".to_owned(),
                IpAddr::V4(ip) => ip.to_string(),
                IpAddr::V6(ip) => format!("[{ip}]"),
            };
            let is_tls = config.listen.first().is_some_and(|first| first.tls().is_some());
            format!("{}://{host}:{}", if is_tls { "https" } else { "http" }, address.port())
        }
        (None, _) => format!("https://{}", https_name(config)?),
    };
    Some(format!("{origin}{}", config.route.as_str()))
}

/// The first name, no wildcard, of a listener with TLS on port 443.
fn https_name(config: &Config) -> Option<&str> {
    let on_443 = config.listen.iter().filter(|one| one.address().port() == 443);
    let names = on_443.filter(|one| one.tls().is_some()).flat_map(ListenerConfig::hosts);
    names.map(HostPattern::as_str).find(|name| !name.starts_with('*'))
}

#[cfg(test)]
mod tests {
    use super::upstreams::{health_check, upstream_options};
    use super::*;
    use crate::edge::upstream::{self, UpstreamOptions};

    /// What an embedder or the admin listener runs with is what a server without a file runs with.
    #[test]
    fn the_defaults_of_the_configuration_are_those_of_the_parts() {
        let config = Config { data_dir: Some("d".into()), ..Config::default() };
        let same = |kind: &str, ours: &dyn std::fmt::Debug, theirs: &dyn std::fmt::Debug| {
            assert_eq!(format!("{ours:#?}"), format!("{theirs:#?}"), "{kind}");
        };
        same("edge", &edge_options(&config), &EdgeOptions::default());
        same("engine", &limits(&config), &EngineLimits::default());
        same("store", &store_options(&config).unwrap(), &FileStoreOptions::new("d"));
        let upstream = upstream_options(&config::UpstreamConfig::default());
        let named = UpstreamOptions { name: "/".to_owned(), ..UpstreamOptions::default() };
        same("upstream", &upstream, &named);
        let check = health_check(&config::HealthCheckConfig::default());
        let http = upstream::HealthCheck { probe: check.probe.clone(), ..Default::default() };
        same("health check", &check, &http);
        let ours = subscription_options(&config, Mode::Production, &[]);
        let theirs = SubscriptionOptions::default();
        assert_eq!(ours.delivery_timeout, theirs.delivery_timeout);
        assert_eq!(ours.max_deliveries, theirs.max_deliveries);
        assert_eq!(ours.max_retries, theirs.max_retries);
    }

    #[test]
    fn callbacks_go_to_the_configured_url_and_in_development_to_the_listen_address() {
        let mut config = Config::default();
        let route = config.route.as_str().to_owned();
        let at = |address: &str| [address.parse::<SocketAddr>().unwrap()];
        assert_eq!(public_url(&config, Mode::Production, &at("127.0.0.1:80")), None);
        for (address, origin) in [
            ("0.0.0.0:4437", "http://localhost:4437"),
            ("127.0.0.1:1", "http://127.0.0.1:1"),
            ("[::1]:2", "http://[::1]:2"),
        ] {
            let url = public_url(&config, Mode::Dev, &at(address));
            assert_eq!(url, Some(format!("{origin}{route}")));
        }
        config.subscriptions.allow_http_localhost = true;
        assert!(public_url(&config, Mode::Production, &at("127.0.0.1:80")).is_some());

        let with = |listen: &str, local: bool| {
            let file = tempfile::NamedTempFile::new().unwrap();
            let text = format!(
                "data_dir: d\nlisten: [{listen}]\nsubscriptions: {{allow_http_localhost: {local}}}\n"
            );
            std::fs::write(file.path(), text).unwrap();
            let sources = ConfigSources { file: Some(file.path().into()), ..Default::default() };
            let config = Config::load(&sources).unwrap();
            public_url(&config, Mode::Production, &[config.listen[0].address()])
        };
        let local = with(r#"{address: "127.0.0.1:4443", tls: internal}"#, true);
        assert_eq!(local, Some(format!("https://127.0.0.1:4443{route}")));
        let hosts = "hosts: ['*.example.com', streams.example.com]";
        let named = with(&format!(r#"{{address: "0.0.0.0:443", tls: internal, {hosts}}}"#), false);
        assert_eq!(named, Some(format!("https://streams.example.com{route}")));
        let elsewhere = format!(r#"{{address: "0.0.0.0:8443", tls: internal, {hosts}}}"#);
        assert_eq!(with(&elsewhere, false), None, "nothing says how it is reached");
    }
}
