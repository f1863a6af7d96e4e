//! `/admin/v1/subscriptions`: what they are doing, why deliveries fail, and what an operator does about it.

use durable_streams_auth::TenantId;
use durable_streams_protocol::{
    StreamPath, Timestamp,
    subscription::{DeliveryConfig, Refusal, SubscriptionId, SubscriptionName},
};
use durable_streams_subscriptions::{
    SubscriptionPhase, SubscriptionReport, SubscriptionScope, Subscriptions,
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    AdminApi, ApiRefusal, ApiResult,
    request::{ApiRequest, bad, cursor_text, decoded},
};
use crate::admin::response::{json, no_content};

/// What an operator does with a subscription.
#[derive(Clone, Copy)]
pub(super) enum SubscriptionAction {
    Retry,
    Pause,
    Resume,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EmptyBody {}

impl AdminApi {
    fn served(&self) -> Result<&Subscriptions, ApiRefusal> {
        self.subscriptions.get().ok_or_else(|| {
            let detail = "this server serves no subscriptions";
            ApiRefusal::new(StatusCode::NOT_FOUND, "not-found", detail)
        })
    }

    /// The names of subscriptions that link a stream.
    pub(super) fn linked(&self, tenant: Option<&TenantId>, path: &StreamPath, max: usize) -> Value {
        let names = self.subscriptions.get().map(|all| all.linking(tenant, path, max));
        let one =
            |name: &SubscriptionName| json!({ "id": name.id.as_str(), "tenant": name.tenant });
        names.unwrap_or_default().iter().map(one).collect()
    }

    pub(super) async fn list_subscriptions(&self, request: &ApiRequest) -> ApiResult {
        request.only(&["tenant", "cursor", "limit"])?;
        let limit = request.limit()?;
        let scope = match request.tenant()? {
            None => SubscriptionScope::Everything,
            Some(tenant) => SubscriptionScope::Tenant(tenant),
        };
        let after = request.text_cursor()?.map(|text| name_of_cursor(&text)).transpose()?;
        // One more than the page has, to know whether there is another page.
        let mut reports = self.served()?.list(&scope, after.as_ref(), limit + 1).await;
        let more = reports.len() > limit;
        reports.truncate(limit);
        let last = reports.last().filter(|_| more).map(|last| cursor_of_name(&last.name));
        let subscriptions: Vec<Value> = reports.iter().map(described).collect();
        Ok(json(StatusCode::OK, &json!({ "subscriptions": subscriptions, "cursor": last })))
    }

    pub(super) async fn show_subscription(&self, request: &ApiRequest, id: &str) -> ApiResult {
        request.only(&["tenant"])?;
        let name = name_of(request, id)?;
        let report = self.served()?.report(&name).await.map_err(|one| refused(&one))?;
        Ok(json(StatusCode::OK, &described(&report)))
    }

    pub(super) async fn delete_subscription(&self, request: &ApiRequest, id: &str) -> ApiResult {
        request.only(&["tenant"])?;
        let name = name_of(request, id)?;
        self.served()?.remove(&name).await.map_err(|one| refused(&one))?;
        Ok(no_content())
    }

    pub(super) async fn steer_subscription(
        &self,
        request: &ApiRequest,
        id: &str,
        action: SubscriptionAction,
    ) -> ApiResult {
        request.only(&["tenant"])?;
        let EmptyBody {} = request.json()?;
        let name = name_of(request, id)?;
        let all = self.served()?;
        let report = match action {
            SubscriptionAction::Retry => all.retry_now(&name).await,
            SubscriptionAction::Pause => all.pause(&name, true).await,
            SubscriptionAction::Resume => all.pause(&name, false).await,
        };
        Ok(json(StatusCode::OK, &described(&report.map_err(|one| refused(&one))?)))
    }
}

fn name_of(request: &ApiRequest, id: &str) -> Result<SubscriptionName, ApiRefusal> {
    let id = SubscriptionId::new(&decoded(id)).map_err(|one| refused(&one))?;
    Ok(SubscriptionName { tenant: request.tenant()?, id })
}

fn refused(refusal: &Refusal) -> ApiRefusal {
    let status = match refusal {
        Refusal::NotFound => StatusCode::NOT_FOUND,
        Refusal::InvalidRequest(_) => StatusCode::BAD_REQUEST,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let code = match refusal {
        Refusal::NotFound => "not-found",
        Refusal::InvalidRequest(_) => "bad-id",
        _ => "unavailable",
    };
    ApiRefusal::new(status, code, &refusal.to_string())
}

/// A tenant's name has no slash.
fn cursor_of_name(name: &SubscriptionName) -> String {
    cursor_text(&format!("{}/{}", name.tenant().unwrap_or_default(), name.id))
}

fn name_of_cursor(text: &str) -> Result<SubscriptionName, ApiRefusal> {
    let wrong = || bad("bad-cursor", "a cursor is taken from the page before, unchanged");
    let (tenant, id) = text.split_once('/').ok_or_else(wrong)?;
    let tenant = Some(tenant).filter(|tenant| !tenant.is_empty()).map(TenantId::new);
    let tenant = tenant.transpose().map_err(|_| wrong())?;
    Ok(SubscriptionName { tenant, id: SubscriptionId::new(id).map_err(|_| wrong())? })
}

fn described(report: &SubscriptionReport) -> Value {
    let (kind, url, wake_stream) = match &report.delivery {
        DeliveryConfig::Webhook { url } => ("webhook", Some(url.as_str()), None),
        DeliveryConfig::PullWake { wake_stream } => ("pull-wake", None, Some(wake_stream.as_str())),
    };
    let state = match report.phase {
        SubscriptionPhase::Idle => "idle",
        SubscriptionPhase::Pending => "pending",
        SubscriptionPhase::Waking => "waking",
        SubscriptionPhase::Delivered => "delivered",
        SubscriptionPhase::Claimed => "claimed",
        SubscriptionPhase::Retrying => "retrying",
        SubscriptionPhase::Paused => "paused",
    };
    let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let failure = report.last_error.as_ref().map(|error| {
        json!({ "at": error.at.to_string(), "status": error.status, "detail": error.detail })
    });
    json!({
        "id": report.name.id.as_str(),
        "tenant": report.name.tenant,
        "type": kind,
        "url": url,
        "wake_stream": wake_stream,
        "pattern": report.pattern,
        "streams": report.links,
        "state": state,
        "paused": report.paused,
        "worker": report.worker,
        "lease_until": time(report.lease_until),
        "generation": report.generation,
        "lag": { "streams": report.lag_streams, "bytes": report.lag_bytes },
        "failures": report.failures,
        "last_error": failure,
        "last_success": time(report.last_success),
        "next_retry": time(report.next_retry),
        "created": report.created.to_string(),
        "description": report.description,
    })
}
