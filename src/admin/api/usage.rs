//! `GET /admin/v1/usage`: what is stored and asked for, in all, and by prefix and tenant.

use std::collections::BTreeMap;

use durable_streams_engine::ScopeUsage;
use durable_streams_pingora::{RequestUsage, UsageCounters};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    AdminApi, ApiResult, list::ListScope, list::MAX_SORTED, request::ApiRequest, streams::owner,
};
use crate::admin::response::json;

/// Tenants whose requests one answer lists, those with the most of them.
const MAX_TENANTS: usize = 1_000;

impl AdminApi {
    /// What is stored, and how many requests there were: in all, and in each tenant and prefix that the quotas name, or whose
    /// requests are counted; or below a prefix, or of a tenant.
    pub(super) async fn usage(&self, request: &ApiRequest) -> ApiResult {
        request.only(&["prefix", "tenant"])?;
        if request.tenant()?.is_some() || request.parameter("prefix").is_some() {
            return self.usage_below(request).await;
        }
        let stats = self.engine.stats().store;
        let counters = self.edge.streams();
        let mut requested = requested_by_scope(counters.usage());
        let stored = |scope: ScopeUsage| {
            let requests = requested.remove(&scope.name).map(|usage| described(&usage));
            let limits = json!({ "streams": scope.quota.streams, "bytes": scope.quota.bytes });
            json!({
                "name": scope.name, "streams": scope.streams, "bytes": scope.bytes, "limits": limits,
                "requests": requests,
            })
        };
        let mut scopes: Vec<Value> = self.engine.scope_usage().into_iter().map(stored).collect();
        scopes.extend(requested.iter().map(|(name, usage)| {
            json!({ "name": name, "streams": null, "bytes": null, "requests": described(usage) })
        }));
        let others = counters.usage().and_then(UsageCounters::other_tenants);
        let value = json!({
            "streams": stats.streams, "bytes": stats.bytes, "requests": self.all_requests(),
            "scopes": scopes, "other_tenants": others.map(|usage| described(&usage)),
        });
        Ok(json(StatusCode::OK, &value))
    }

    /// What a prefix or a tenant holds, by a look at its streams, and its requests where they are counted.
    async fn usage_below(&self, request: &ApiRequest) -> ApiResult {
        let scope = ListScope::of(request)?;
        let (mut streams, mut bytes, mut deleted) = (0_u64, 0_u64, 0_u64);
        let (scanned, partial) = self
            .scan(scope.start()?, &scope.prefix, MAX_SORTED, |listed| {
                let Ok(summary) = listed.summary else { return };
                if owner(&listed.path).is_some() {
                    streams += 1;
                    bytes += summary.own_bytes();
                    deleted += u64::from(summary.soft_deleted);
                }
            })
            .await?;
        let prefix = request.parameter("prefix").unwrap_or_default();
        let requests =
            self.edge.streams().usage().and_then(|usage| match (&scope.tenant, prefix) {
                (Some(tenant), "") => usage.tenant(tenant.as_str()),
                (Some(_), _) => None,
                // Counted are whole segments.
                (None, prefix) => usage.prefix(prefix.strip_suffix('/').unwrap_or(prefix)),
            });
        let answer = json!({
            "tenant": scope.tenant, "prefix": prefix, "streams": streams, "bytes": bytes,
            "soft_deleted": deleted, "scanned": scanned, "partial": partial,
            "requests": requests.map(|usage| described(&usage)),
        });
        Ok(json(StatusCode::OK, &answer))
    }

    /// The requests of the whole server, those that were refused before they reached a stream included.
    fn all_requests(&self) -> Value {
        let counters = self.edge.streams();
        let mut all = RequestUsage::default();
        for one in counters.requests() {
            *match one.mode {
                "append" => &mut all.appends,
                "catch_up" => &mut all.reads,
                "long_poll" | "sse" => &mut all.live_reads,
                _ => &mut all.others,
            } += one.count;
            match one.status.as_bytes().first() {
                Some(b'4') => all.refused += one.count,
                Some(b'5') => all.failed += one.count,
                _ => {}
            }
        }
        (all.bytes_in, all.bytes_out) = counters.body_bytes();
        described(&all)
    }
}

/// The counted prefixes and tenants by the names of their scopes.
fn requested_by_scope(counters: Option<&UsageCounters>) -> BTreeMap<String, RequestUsage> {
    let Some(counters) = counters else { return BTreeMap::new() };
    let mut tenants: Vec<_> = counters.tenants().collect();
    tenants.sort_by_key(|(_, usage)| std::cmp::Reverse(total(usage)));
    let tenants = tenants.into_iter().take(MAX_TENANTS);
    let tenants = tenants.map(|(name, usage)| (format!("tenant:{name}"), usage));
    let prefixes = counters.prefixes();
    let prefixes = prefixes.map(|(prefix, usage)| (format!("path:{}", prefix.as_str()), usage));
    tenants.chain(prefixes).collect()
}

fn total(usage: &RequestUsage) -> u64 {
    usage.appends + usage.reads + usage.live_reads + usage.others
}

fn described(usage: &RequestUsage) -> Value {
    json!({
        "total": total(usage), "appends": usage.appends, "reads": usage.reads,
        "live_reads": usage.live_reads, "others": usage.others, "refused": usage.refused,
        "failed": usage.failed, "bytes_in": usage.bytes_in, "bytes_out": usage.bytes_out,
    })
}
