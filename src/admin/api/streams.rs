//! `/admin/v1/streams/{path}`, `/producers/{path}` and `/tail/{path}`: one stream.

use durable_streams_auth::{TenantId, client_path, stored_path, stored_tenant};
use durable_streams_engine::{ByteLocation, StreamDetails, StreamSummary, store::AnyStore};
use durable_streams_protocol::{
    Expiry, Offset, Rejection, StreamPath, Timestamp, render_rejection,
};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    AdminApi, ApiRefusal, ApiResult,
    request::{ApiRequest, bad},
};
use crate::admin::response::{json, no_content, rendered};

/// Forks and subscriptions that are shown with a stream.
const MAX_SHOWN: usize = 100;
/// Messages that a look at the end of a stream may ask for.
const MAX_LAST: usize = 10_000;

/// What a `PATCH` changes of a stream.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PatchBody {
    trim_before: Option<String>,
    ttl_seconds: Option<u64>,
    /// A time, or `never`.
    expires_at: Option<String>,
}

impl PatchBody {
    fn parsed(&self) -> Result<(Option<Offset>, Option<Expiry>), ApiRefusal> {
        let before = match self.trim_before.as_deref().map(Offset::parse) {
            Some(None) => {
                return Err(bad("bad-offset", "trim_before is an offset that the server returned"));
            }
            before => before.flatten(),
        };
        let at = |text: &str| Timestamp::parse_rfc3339(text).map(Expiry::At);
        let expiry = match (self.ttl_seconds, self.expires_at.as_deref()) {
            (None, None) => None,
            (Some(seconds), None) => Some(Expiry::Ttl(seconds)),
            (None, Some("never")) => Some(Expiry::Never),
            (None, Some(text)) => {
                let detail = "expires_at is a time as in 2030-01-31T12:00:00Z, or never";
                Some(at(text).ok_or_else(|| bad("bad-time", detail))?)
            }
            (Some(_), Some(_)) => return Err(refused(&Rejection::TwoExpiries)),
        };
        if before.is_none() && expiry.is_none() {
            let detail = "nothing is to be changed; send trim_before, ttl_seconds or expires_at";
            return Err(bad("empty-patch", detail));
        }
        Ok((before, expiry))
    }
}

/// A stored path as its owner names it. `None` for the streams of the server itself.
pub(super) fn owner(stored: &StreamPath) -> Option<(Option<TenantId>, StreamPath)> {
    let tenant = stored_tenant(stored);
    let path = client_path(tenant.as_ref(), stored)?;
    Some((tenant, path))
}

pub(super) fn refused(rejection: &Rejection) -> ApiRefusal {
    rendered(render_rejection(rejection)).into()
}

impl AdminApi {
    pub(super) async fn show_stream(&self, request: &ApiRequest) -> ApiResult {
        request.only(&["tenant"])?;
        let (tenant, path, stored) = named(request, "streams")?;
        let details = self.engine.inspect(&stored, MAX_SHOWN).await.map_err(|one| refused(&one))?;
        let mut answer = described(tenant.as_ref(), &path, &details.summary);
        self.add_details(&mut answer, &details);
        answer["subscriptions"] = self.linked(tenant.as_ref(), &path, MAX_SHOWN);
        Ok(json(StatusCode::OK, &answer))
    }

    fn add_details(&self, answer: &mut Value, details: &StreamDetails) {
        let forks = details.forks.iter().filter_map(|(stored, position)| {
            let (_, path) = owner(stored)?;
            Some(json!({ "path": path.as_str(), "position": position.position() }))
        });
        let by = details.closed.as_ref().and_then(|closed| closed.by.as_ref());
        let by = by.map(|by| json!({ "id": by.id.as_str(), "epoch": by.epoch, "seq": by.seq }));
        let store = match self.engine.store() {
            AnyStore::Memory(_) => "memory",
            AnyStore::File(_) => "file",
        };
        let end = details.summary.view.tail.offset.position();
        answer["producers"] = json!(details.producers);
        answer["stream_seq"] = json!(details.stream_seq.as_ref().map(|seq| seq.as_str()));
        answer["closed_by"] = json!(by);
        answer["forks_listed"] = json!(forks.collect::<Vec<_>>());
        answer["location"] = located(&details.location, store, end);
    }

    pub(super) async fn delete_stream(&self, request: &ApiRequest) -> ApiResult {
        request.only(&["tenant"])?;
        let (_, _, stored) = named(request, "streams")?;
        self.engine.delete(&stored).await.map_err(|one| refused(&one))?;
        Ok(no_content())
    }

    /// Trims a stream, changes its expiry, or both.
    pub(super) async fn patch_stream(&self, request: &ApiRequest) -> ApiResult {
        request.only(&["tenant"])?;
        let (_, _, stored) = named(request, "streams")?;
        let (trim_before, expiry) = request.json::<PatchBody>()?.parsed()?;
        if let Some(before) = trim_before {
            self.engine.trim(&stored, before).await.map_err(|one| refused(&one))?;
        }
        if let Some(expiry) = expiry {
            self.engine.change_expiry(&stored, expiry).await.map_err(|one| refused(&one))?;
        }
        let earliest = match self.engine.head(&stored).await {
            Ok(view) => Some(view.tail.earliest.to_string()),
            // The new expiry is in the past.
            Err(Rejection::NotFound | Rejection::Gone) => None,
            Err(rejection) => return Err(refused(&rejection)),
        };
        Ok(json(StatusCode::OK, &json!({ "earliest_offset": earliest })))
    }

    /// The producers that a stream remembers, by id.
    pub(super) async fn list_producers(&self, request: &ApiRequest) -> ApiResult {
        request.only(&["tenant", "cursor", "limit"])?;
        let (_, _, stored) = named(request, "producers")?;
        let limit = request.limit()?;
        let after = request.text_cursor()?;
        let page = self.engine.producers(&stored, after.as_deref(), limit).await;
        let page = page.map_err(|one| refused(&one))?;
        let last = page.producers.last().filter(|_| page.more);
        let cursor = last.map(|(id, _)| super::request::cursor_text(id.as_str()));
        let producers = page.producers.iter().map(|(id, known)| {
            json!({ "id": id.as_str(), "epoch": known.epoch, "last_seq": known.last_seq })
        });
        let producers: Vec<Value> = producers.collect();
        Ok(json(StatusCode::OK, &json!({ "producers": producers, "cursor": cursor })))
    }

    /// The offset at which a look at the end of a stream begins.
    pub(super) async fn find_tail(&self, request: &ApiRequest) -> ApiResult {
        request.only(&["tenant", "last"])?;
        let (_, _, stored) = named(request, "tail")?;
        let last = match request.parameter("last").map(str::parse) {
            None => 100,
            Some(Ok(last @ 1..=MAX_LAST)) => last,
            Some(_) => return Err(bad("bad-last", "last is a number from 1 to 10000")),
        };
        let found = self.engine.last_messages(&stored, last).await.map_err(|one| refused(&one))?;
        let answer = json!({
            "offset": found.offset.to_string(), "messages": found.messages, "complete": found.complete,
        });
        Ok(json(StatusCode::OK, &answer))
    }
}

fn located(location: &ByteLocation, store: &str, end: u64) -> Value {
    let inherited = location.inherited.iter().map(|range| {
        let path = range.path.as_ref().and_then(owner).map(|(_, path)| path.to_string());
        json!({ "stream": path, "from": range.from, "to": range.to })
    });
    json!({
        "store": store,
        "own": { "from": location.own_start.position(), "to": end },
        "sealed_to": location.places.and_then(|places| places.sealed_to).map(|to| to.position()),
        "indexed_to": location.places.map(|places| places.indexed_to.position()),
        "inherited": inherited.collect::<Vec<_>>(),
    })
}

/// The stream that a request names behind `first`: its tenant, its path, and where it is stored.
pub(super) fn named(
    request: &ApiRequest,
    first: &str,
) -> Result<(Option<TenantId>, StreamPath, StreamPath), ApiRefusal> {
    let tenant = request.tenant()?;
    let path = StreamPath::from_url(request.rest(first));
    let path = path.map_err(|error| bad("bad-path", &error.to_string()))?;
    let stored = stored_path(tenant.as_ref(), &path);
    let stored = stored.map_err(|error| bad("bad-path", &error.to_string()))?;
    Ok((tenant, path, stored))
}

/// What the list says about a stream that cannot be read.
pub(super) fn unreadable(
    tenant: Option<&TenantId>,
    path: &StreamPath,
    rejection: &Rejection,
) -> Value {
    json!({ "path": path.as_str(), "tenant": tenant, "error": rejection.code() })
}

/// What the list says about a stream.
pub(super) fn described(
    tenant: Option<&TenantId>,
    path: &StreamPath,
    summary: &StreamSummary,
) -> Value {
    let (core, tail) = (&summary.view.core, summary.view.tail);
    let forked = core.fork.as_ref().and_then(|fork| {
        let (_, source) = owner(&fork.source_path)?;
        let position = fork.position.position();
        let offset = core.offset_at(position).to_string();
        Some(json!({ "path": source.as_str(), "position": position, "offset": offset }))
    });
    let (ttl, expires) = match core.expiry {
        Expiry::Never => (None, None),
        Expiry::Ttl(seconds) => (Some(seconds), None),
        Expiry::At(time) => (None, Some(time.to_string())),
    };
    let mut value = json!({
        "path": path.as_str(),
        "tenant": tenant,
        "content_type": core.content_type.as_str(),
        "next_offset": tail.offset.to_string(),
        "earliest_offset": tail.earliest.to_string(),
        "position": tail.offset.position(),
        "bytes": summary.own_bytes(),
        "events": summary.events,
        "messages": summary.messages,
        "created": summary.created.map(|at| at.to_string()),
        "last_append": summary.last_append.map(|at| at.to_string()),
        "closed": tail.closed,
        "public": core.public,
        "ttl_seconds": ttl,
        "expires_at": expires,
        "deadline": summary.deadline.map(|deadline| deadline.to_string()),
        "last_used": summary.last_used.to_string(),
        "live_readers": summary.live_readers,
        "forks": summary.forks,
        "forked_from": forked,
    });
    if summary.soft_deleted {
        value["soft_deleted"] = json!(true);
    }
    value
}
