//! Rates, quotas and usage as configured: what the guard counts, what the engine counts, and what the stream routes count.

use durable_streams_auth::{
    AccessGuard, ByteRate, PathPrefix, RateRule, RateRules, ReaderQuotas, TENANTS_PREFIX,
};
use durable_streams_engine::{ScopeQuota, UsageScope};

use durable_streams_pingora::UsageOptions;

use crate::config::{
    AuthConfig, ByteSize, PathRateConfig, PrefixText, QuotasConfig, RateConfig, UsageConfig,
};

/// Buckets of each kind of rate that are remembered: 32 MiB of each at most.
const RATE_BUCKETS: usize = 65_536;

/// The guard with the rates and the quotas of live readers.
pub(super) fn guarded(mut guard: AccessGuard, config: &AuthConfig) -> AccessGuard {
    let rates = &config.rates;
    let rules = RateRules {
        client: rates.client.as_ref().map(rule),
        principal: rates.principal.as_ref().map(rule),
        tenant: rates.tenant.as_ref().map(rule),
        paths: rates.paths.iter().filter_map(path_rule).collect(),
        buckets: RATE_BUCKETS,
    };
    if rules != (RateRules { buckets: RATE_BUCKETS, ..RateRules::default() }) {
        guard = guard.with_rates(rules);
    }
    let quotas = &config.quotas;
    let tenants = quotas.tenants.iter();
    let paths = quotas.paths.iter().filter_map(|one| prefix(&one.prefix).zip(one.live_readers));
    let readers = ReaderQuotas {
        client: quotas.client.live_readers,
        principal: quotas.principal.live_readers,
        tenant: quotas.tenant.live_readers,
        tenants: tenants.map(|one| (one.name.as_str().to_owned(), one.live_readers)).collect(),
        paths: paths.collect(),
    };
    if readers == ReaderQuotas::default() { guard } else { guard.with_reader_quotas(readers) }
}

fn rule(rate: &RateConfig) -> RateRule {
    let (requests, burst) = (rate.requests, rate.burst);
    RateRule { requests, burst, bytes: byte_rate(rate.bytes, rate.bytes_burst) }
}

fn path_rule(rate: &PathRateConfig) -> Option<(PathPrefix, RateRule)> {
    let (requests, burst) = (rate.requests, rate.burst);
    let rule = RateRule { requests, burst, bytes: byte_rate(rate.bytes, rate.bytes_burst) };
    prefix(&rate.prefix).map(|prefix| (prefix, rule))
}

fn byte_rate(bytes: Option<ByteSize>, burst: ByteSize) -> Option<ByteRate> {
    bytes.map(|bytes| ByteRate { per_second: bytes.get(), burst: burst.get() })
}

fn prefix(text: &PrefixText) -> Option<PathPrefix> {
    PathPrefix::new(text.as_str()).ok()
}

/// The prefixes and tenants whose requests are counted.
pub(super) fn usage_options(config: &UsageConfig) -> UsageOptions {
    let prefixes = config.prefixes.iter().filter_map(prefix).collect();
    UsageOptions { prefixes, tenants: config.tenants }
}

/// The parts of the paths whose streams and bytes have a quota.
pub(super) fn scopes(quotas: &QuotasConfig) -> Vec<UsageScope> {
    let quota = |streams: Option<u64>, bytes: Option<ByteSize>| ScopeQuota {
        streams,
        bytes: bytes.map(ByteSize::get),
    };
    let every = quota(quotas.tenant.streams, quotas.tenant.bytes);
    let named: Vec<_> = quotas
        .tenants
        .iter()
        .map(|one| (one.name.as_str().to_owned(), quota(one.streams, one.bytes)))
        .collect();
    let none = ScopeQuota::default();
    let mut scopes = Vec::new();
    if every != none || named.iter().any(|(_, quota)| *quota != none) {
        let (name, prefix) = ("tenant".to_owned(), TENANTS_PREFIX.to_owned());
        scopes.push(UsageScope { name, prefix, each: true, quota: every, named });
    }
    for path in &quotas.paths {
        let quota = quota(path.streams, path.bytes);
        if quota != none {
            let prefix = path.prefix.as_str().to_owned();
            let name = format!("path:{prefix}");
            scopes.push(UsageScope { name, prefix, quota, ..UsageScope::default() });
        }
    }
    scopes
}
