//! `/admin/v1/streams`: the list of streams, and one of them.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use durable_streams_auth::{TenantId, client_path, stored_path, stored_prefix, stored_tenant};
use durable_streams_engine::StreamView;
use durable_streams_protocol::{Expiry, Rejection, StreamPath, render_rejection};
use http::StatusCode;
use serde_json::{Value, json};

use super::{AdminApi, ApiRefusal, ApiResult, request::ApiRequest, request::bad};
use crate::admin::response::{json, no_content, rendered};

/// Streams on a page, unless the request says otherwise.
const PAGE: usize = 100;
/// Streams on a page at most.
const MAX_PAGE: usize = 1_000;
/// Paths that are looked at for one page: those of streams that are not shown count too, so that a page over many of them
/// ends with a cursor and not with a wait.
const MAX_LOOKS: usize = 4 * MAX_PAGE;

/// A stored path as its owner names it. `None` for the streams of the server itself.
fn owner(stored: &StreamPath) -> Option<(Option<TenantId>, StreamPath)> {
    let tenant = stored_tenant(stored);
    let path = client_path(tenant.as_ref(), stored)?;
    Some((tenant, path))
}

fn refused(rejection: &Rejection) -> ApiRefusal {
    rendered(render_rejection(rejection)).into()
}

impl AdminApi {
    /// Streams by path in byte order, from the start or a cursor. A stream that exists throughout is on exactly one page,
    /// whatever is created and deleted meanwhile: a cursor is a path, not a count.
    pub(super) async fn list_streams(&self, request: &ApiRequest) -> ApiResult {
        request.only(&["prefix", "tenant", "cursor", "limit", "deleted"])?;
        let limit = match request.parameter("limit").map(str::parse) {
            None => PAGE,
            Some(Ok(limit @ 1..=MAX_PAGE)) => limit,
            Some(_) => return Err(bad("bad-limit", "limit is a number from 1 to 1000")),
        };
        let deleted = matches!(request.parameter("deleted"), Some("true"));
        let tenant = request.tenant()?;
        let inner = tenant.as_ref().map(stored_prefix).unwrap_or_default();
        let prefix = format!("{inner}{}", request.parameter("prefix").unwrap_or_default());
        let mut after = match request.parameter("cursor") {
            Some(cursor) => Some(cursor_path(cursor)?),
            None => None,
        };
        let mut streams = Vec::new();
        if after.is_none() && !prefix.is_empty() {
            let start = StreamPath::system(&prefix);
            let start = start.map_err(|error| bad("bad-prefix", &error.to_string()))?;
            // The list begins behind a path, and the prefix may be one.
            streams.extend(self.entry(&start, deleted).await?);
            after = Some(start);
        }
        let (mut looks, mut more) = (0, true);
        while more && streams.len() < limit && looks < MAX_LOOKS {
            let wanted = limit - streams.len();
            let paths =
                self.engine.list(after.as_ref(), wanted).await.map_err(|one| refused(&one))?;
            more = paths.len() == wanted;
            looks += wanted;
            for path in paths {
                if !path.as_str().starts_with(&prefix) {
                    more = false;
                    break;
                }
                streams.extend(self.entry(&path, deleted).await?);
                after = Some(path);
            }
        }
        let cursor = after.filter(|_| more).map(|path| BASE64URL.encode(path.as_str()));
        Ok(json(StatusCode::OK, &json!({ "streams": streams, "cursor": cursor })))
    }

    /// What the list says about a stream; `None` for one that is not shown.
    async fn entry(&self, stored: &StreamPath, deleted: bool) -> Result<Option<Value>, ApiRefusal> {
        let Some((tenant, path)) = owner(stored) else { return Ok(None) };
        match self.engine.head(stored).await {
            Ok(view) => Ok(Some(described(tenant.as_ref(), &path, &view))),
            Err(Rejection::NotFound) => Ok(None),
            Err(Rejection::Gone) => Ok(deleted
                .then(|| json!({ "path": path.as_str(), "tenant": tenant, "soft_deleted": true }))),
            // A damaged stream is listed, and says so: an operator looks for it.
            Err(rejection) => Ok(Some(
                json!({ "path": path.as_str(), "tenant": tenant, "error": rejection.code() }),
            )),
        }
    }

    pub(super) async fn show_stream(&self, request: &ApiRequest) -> ApiResult {
        request.only(&["tenant"])?;
        let (tenant, path, stored) = named(request)?;
        let view = self.engine.head(&stored).await.map_err(|one| refused(&one))?;
        Ok(json(StatusCode::OK, &described(tenant.as_ref(), &path, &view)))
    }

    pub(super) async fn delete_stream(&self, request: &ApiRequest) -> ApiResult {
        request.only(&["tenant"])?;
        let (_, _, stored) = named(request)?;
        self.engine.delete(&stored).await.map_err(|one| refused(&one))?;
        Ok(no_content())
    }
}

/// The stream that a request names: its tenant, its path, and where it is stored.
fn named(request: &ApiRequest) -> Result<(Option<TenantId>, StreamPath, StreamPath), ApiRefusal> {
    let tenant = request.tenant()?;
    let path = StreamPath::from_url(request.rest("streams"));
    let path = path.map_err(|error| bad("bad-path", &error.to_string()))?;
    let stored = stored_path(tenant.as_ref(), &path);
    let stored = stored.map_err(|error| bad("bad-path", &error.to_string()))?;
    Ok((tenant, path, stored))
}

fn cursor_path(cursor: &str) -> Result<StreamPath, ApiRefusal> {
    let text = BASE64URL.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let path = text.and_then(|text| StreamPath::system(&text).ok());
    path.ok_or_else(|| bad("bad-cursor", "a cursor is taken from the page before, unchanged"))
}

fn described(tenant: Option<&TenantId>, path: &StreamPath, view: &StreamView) -> Value {
    let core = &view.core;
    let forked = core.fork.as_ref().and_then(|fork| {
        let (_, source) = owner(&fork.source_path)?;
        Some(json!({ "path": source.as_str(), "position": fork.position.position() }))
    });
    let (ttl, expires) = match core.expiry {
        Expiry::Never => (None, None),
        Expiry::Ttl(seconds) => (Some(seconds), None),
        Expiry::At(time) => (None, Some(time.to_string())),
    };
    json!({
        "path": path.as_str(),
        "tenant": tenant,
        "content_type": core.content_type.as_str(),
        "next_offset": view.tail.offset.to_string(),
        "position": view.tail.offset.position(),
        "closed": view.tail.closed,
        "public": core.public,
        "ttl_seconds": ttl,
        "expires_at": expires,
        "forked_from": forked,
    })
}
