//! How much a client, a principal, a tenant and a part of the paths may use: rates and quotas.

use durable_streams_auth::{PathPrefix, TenantId};

use crate::config::reader::error::ConfigProblems;
use crate::config::reader::setting::{InvalidValue, ScalarSetting, settings};
use crate::config::units::ByteSize;

/// The most prefixes with a rate or a quota: each request is compared with all of them.
const MAX_PREFIXES: usize = 64;
/// The most tenants with quotas of their own: metrics have each of them.
const MAX_TENANTS: usize = 1_000;

settings! {
    /// How many requests are let through. Beyond it: 429 with `Retry-After`.
    pub struct RatesConfig {
        /// For each client address, before credentials are looked at; IPv6 by its /64.
        client: Option<RateConfig> = None;
        /// For each principal.
        principal: Option<RateConfig> = None;
        /// For each tenant, all its principals together.
        tenant: Option<RateConfig> = None;
        /// For streams of no tenant below a prefix, over all clients together.
        paths: Vec<PathRateConfig> = Vec::new();
    }
}

settings! {
    /// A token bucket for a path prefix.
    pub struct PathRateConfig {
        /// Whole segments: `chat` is for `chat` and `chat/...`.
        prefix: PrefixText = PrefixText::default();
        /// Requests in a second, over time.
        requests: u64 = 100 => 1, 1_000_000_000;
        /// Requests at once.
        burst: u64 = 200 => 1, 1_000_000_000;
        /// Bytes of bodies in a second, over time, in both directions together; no bound when not set.
        bytes: Option<ByteSize> = None;
        /// Bytes at once.
        bytes_burst: ByteSize = ByteSize::mib(16) => ByteSize::kib(1), ByteSize::tib(1);
    }
}

settings! {
    /// What may be held at once. Beyond it: 429 for live readers, 507 for what is stored.
    pub struct QuotasConfig {
        /// For each client address; IPv6 by its /64.
        client: ReaderQuotaConfig = ReaderQuotaConfig::default();
        /// For each principal.
        principal: ReaderQuotaConfig = ReaderQuotaConfig::default();
        /// For each tenant.
        tenant: StoredQuotaConfig = StoredQuotaConfig::default();
        /// For tenants with a quota of their own instead.
        tenants: Vec<TenantQuotaConfig> = Vec::new();
        /// For streams of no tenant below a prefix, all of them together.
        paths: Vec<PathQuotaConfig> = Vec::new();
    }
}

settings! {
    /// A quota of one address or principal.
    pub struct ReaderQuotaConfig {
        /// Live readers at once, long-polls and SSE together; no bound when not set.
        live_readers: Option<u64> = None;
    }
}

settings! {
    /// A quota of each tenant.
    pub struct StoredQuotaConfig {
        /// Live readers at once; no bound when not set.
        live_readers: Option<u64> = None;
        /// Streams; no bound when not set.
        streams: Option<u64> = None;
        /// Bytes stored; no bound when not set.
        bytes: Option<ByteSize> = None;
    }
}

settings! {
    /// A quota of one tenant.
    pub struct TenantQuotaConfig {
        /// The tenant.
        name: TenantText = TenantText::default();
        /// Live readers at once; no bound when not set.
        live_readers: Option<u64> = None;
        /// Streams; no bound when not set.
        streams: Option<u64> = None;
        /// Bytes stored; no bound when not set.
        bytes: Option<ByteSize> = None;
    }
}

settings! {
    /// A quota of a path prefix.
    pub struct PathQuotaConfig {
        /// Whole segments: `chat` is for `chat` and `chat/...`.
        prefix: PrefixText = PrefixText::default();
        /// Live readers at once; no bound when not set.
        live_readers: Option<u64> = None;
        /// Streams; no bound when not set.
        streams: Option<u64> = None;
        /// Bytes stored; no bound when not set.
        bytes: Option<ByteSize> = None;
    }
}

settings! {
    /// A token bucket.
    pub struct RateConfig {
        /// Requests in a second, over time.
        requests: u64 = 100 => 1, 1_000_000_000;
        /// Requests at once.
        burst: u64 = 200 => 1, 1_000_000_000;
        /// Bytes of bodies in a second, over time, in both directions together; no bound when not set.
        bytes: Option<ByteSize> = None;
        /// Bytes at once.
        bytes_burst: ByteSize = ByteSize::mib(16) => ByteSize::kib(1), ByteSize::tib(1);
    }
}

/// A prefix of stream paths.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PrefixText(String);

/// The name of a tenant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TenantText(String);

impl TenantText {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ScalarSetting for TenantText {
    const WHAT: &'static str = "the name of a tenant";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        let parsed = TenantId::new(text).map(|_| TenantText(text.to_owned()));
        parsed.map_err(|why| InvalidValue::not_a(Self::WHAT).fix(why.to_string()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

impl PrefixText {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ScalarSetting for PrefixText {
    const WHAT: &'static str = "a prefix of stream paths such as chat/rooms";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        let parsed = PathPrefix::new(text).map(|_| PrefixText(text.to_owned()));
        parsed.map_err(|why| InvalidValue::not_a(Self::WHAT).fix(why))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

/// Reports what is missing or there twice.
pub(super) fn check(rates: &RatesConfig, quotas: &QuotasConfig, problems: &mut ConfigProblems<'_>) {
    let of_rates = rates.paths.iter().map(|one| &one.prefix);
    let of_quotas = quotas.paths.iter().map(|one| &one.prefix);
    for (key, prefixes) in [
        ("auth.rates.paths", of_rates.collect::<Vec<_>>()),
        ("auth.quotas.paths", of_quotas.collect()),
    ] {
        for (at, prefix) in prefixes.iter().enumerate() {
            let path = format!("{key}[{at}].prefix");
            if prefix.0.is_empty() {
                problems.broken(&[(&path, "")], "is missing".to_owned(), "name a prefix");
            }
            if prefixes.iter().take(at).any(|other| other == prefix) {
                let rule = "is there twice".to_owned();
                problems.broken(&[(&path, "")], rule, "write one entry for each prefix");
            }
        }
        if prefixes.len() > MAX_PREFIXES {
            let rule = format!("has more than {MAX_PREFIXES} entries");
            problems.broken(&[(key, "")], rule, "use shorter prefixes, or tenants");
        }
    }
    let tenants = &quotas.tenants;
    for (at, tenant) in tenants.iter().enumerate() {
        let path = format!("auth.quotas.tenants[{at}].name");
        if tenant.name.as_str().is_empty()
            || tenants.iter().take(at).any(|one| one.name == tenant.name)
        {
            let rule = "is missing, or there twice".to_owned();
            problems.broken(&[(&path, "")], rule, "write one entry for each tenant");
        }
    }
    if tenants.len() > MAX_TENANTS {
        let rule = format!("has more than {MAX_TENANTS} entries");
        problems.broken(&[("auth.quotas.tenants", "")], rule, "use quotas.tenant for most of them");
    }
}
