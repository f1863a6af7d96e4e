//! `GET /admin/v1/streams`: pages of streams, filtered, as a tree, or the largest and latest of them.
//!
//! Bounds: a page looks at [`MAX_LOOKS`] streams, a sorted list at [`MAX_SORTED`], and either keeps no more than its
//! `limit`. What is read from the store at a time is at most [`BATCH`] streams.

use std::{collections::BTreeMap, ops::Bound};

use durable_streams_auth::{TenantId, stored_prefix};
use durable_streams_engine::{ListedStream, StreamSummary};
use durable_streams_protocol::{StreamPath, Timestamp};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    AdminApi, ApiRefusal, ApiResult,
    request::{ApiRequest, bad, cursor_after, cursor_at},
    streams::{described, owner, refused, unreadable},
};
use crate::admin::response::json;

/// Streams that are looked at for one page: those that are not shown count too, so that a page over many of them ends with
/// a cursor and not with a wait.
const MAX_LOOKS: usize = 10_000;
/// Streams that are looked at for a sorted list.
const MAX_SORTED: usize = 100_000;
/// Streams that are read at a time.
const BATCH: usize = 1_000;
/// What the paths of tenants' streams and of the server's own begin with.
const RESERVED: &str = "__ds/";
/// The first batch behind a folder of a tree, most of which have few streams.
const FOLDER_BATCH: usize = 8;

/// Which streams a list shows.
struct StreamFilter {
    deleted: bool,
    content_type: Option<String>,
    idle_since: Option<Timestamp>,
    expires_before: Option<Timestamp>,
    larger_than: Option<u64>,
}

/// Where a list looks.
struct ListScope {
    tenant: Option<TenantId>,
    /// What the stored paths begin with.
    prefix: String,
    /// The part of it that a client does not see.
    hidden: usize,
}

/// What a sorted list is sorted by, largest first.
#[derive(Clone, Copy)]
enum SortKey {
    Size,
    LastUsed,
}

impl StreamFilter {
    fn of(request: &ApiRequest) -> Result<Self, ApiRefusal> {
        let larger_than = request.parameter("larger_than").map(str::parse).transpose();
        Ok(StreamFilter {
            deleted: matches!(request.parameter("deleted"), Some("true")),
            content_type: request.parameter("content_type").map(str::to_ascii_lowercase),
            idle_since: time(request, "idle_since")?,
            expires_before: time(request, "expires_before")?,
            larger_than: larger_than
                .map_err(|_| bad("bad-size", "larger_than is a number of bytes"))?,
        })
    }

    fn shows(&self, summary: &StreamSummary) -> bool {
        let of_type = |wanted: &String| {
            let own = summary.view.core.content_type.as_str();
            own == wanted || own.split(';').next().is_some_and(|essence| essence.trim() == wanted)
        };
        (self.deleted || !summary.soft_deleted)
            && self.content_type.as_ref().is_none_or(of_type)
            && self.idle_since.is_none_or(|since| summary.last_used < since)
            && self.larger_than.is_none_or(|bytes| summary.own_bytes() > bytes)
            && self
                .expires_before
                .is_none_or(|before| summary.deadline.is_some_and(|deadline| deadline < before))
    }

    /// The entry of a stream in the list; `None` for one that is not shown.
    fn entry(&self, listed: &ListedStream) -> Option<Value> {
        let (tenant, path) = owner(&listed.path)?;
        match &listed.summary {
            Ok(summary) if self.shows(summary) => Some(described(tenant.as_ref(), &path, summary)),
            Ok(_) => None,
            // A damaged stream is listed, and says so: an operator looks for it.
            Err(rejection) => Some(unreadable(tenant.as_ref(), &path, rejection)),
        }
    }
}

impl ListScope {
    fn of(request: &ApiRequest) -> Result<Self, ApiRefusal> {
        let tenant = request.tenant()?;
        let inner = tenant.as_ref().map(stored_prefix).unwrap_or_default();
        let prefix = format!("{inner}{}", request.parameter("prefix").unwrap_or_default());
        Ok(ListScope { tenant, hidden: inner.len(), prefix })
    }

    /// Where the list begins.
    fn start(&self) -> Result<Bound<StreamPath>, ApiRefusal> {
        if self.prefix.is_empty() {
            return Ok(Bound::Unbounded);
        }
        let start = StreamPath::system(&self.prefix);
        start.map(Bound::Included).map_err(|error| bad("bad-prefix", &error.to_string()))
    }

    /// The folder below the prefix in which a stream lies, as it is stored.
    fn folder<'p>(&self, path: &'p StreamPath, delimiter: &str) -> Option<&'p str> {
        let rest = path.as_str().get(self.prefix.len()..)?;
        let end = rest.find(delimiter)? + delimiter.len();
        path.as_str().get(..self.prefix.len() + end)
    }
}

impl AdminApi {
    /// Streams by path in byte order, from the start or a cursor. A stream that exists throughout is on exactly one page,
    /// whatever is created and deleted meanwhile: a cursor is a path, not a count.
    pub(super) async fn list_streams(&self, request: &ApiRequest) -> ApiResult {
        request.only(&[
            "prefix",
            "delimiter",
            "tenant",
            "cursor",
            "limit",
            "deleted",
            "content_type",
            "idle_since",
            "expires_before",
            "larger_than",
            "sort",
        ])?;
        let limit = request.limit()?;
        let filter = StreamFilter::of(request)?;
        let scope = ListScope::of(request)?;
        let sort = match request.parameter("sort") {
            None => None,
            Some("size") => Some(SortKey::Size),
            Some("last_used") => Some(SortKey::LastUsed),
            Some(_) => return Err(bad("bad-sort", "sort is size or last_used")),
        };
        let delimiter = request.parameter("delimiter");
        if delimiter == Some("") {
            return Err(bad("bad-delimiter", "delimiter is a text, as /"));
        }
        match (sort, delimiter) {
            (Some(_), Some(_)) => Err(bad("bad-sort", "a tree is in the order of its paths")),
            (Some(sort), None) => self.sorted(&scope, &filter, sort, limit).await,
            (None, delimiter) => {
                let start = match request.parameter("cursor") {
                    Some(cursor) => Bound::Excluded(cursor_at(cursor)?),
                    None => scope.start()?,
                };
                self.page(&scope, &filter, delimiter, start, limit).await
            }
        }
    }

    async fn page(
        &self,
        scope: &ListScope,
        filter: &StreamFilter,
        delimiter: Option<&str>,
        start: Bound<StreamPath>,
        limit: usize,
    ) -> ApiResult {
        let (mut streams, mut folders) = (Vec::new(), Vec::new());
        // A cursor behind a folder is in it.
        let mut folder = match (&start, delimiter) {
            (Bound::Excluded(path), Some(delimiter)) => {
                scope.folder(path, delimiter).map(str::to_owned)
            }
            _ => None,
        };
        let (mut from, mut looks, mut cursor) = (start, 0, None);
        let mut batch = BATCH;
        'pages: while looks < MAX_LOOKS {
            let room = limit.saturating_sub(streams.len() + folders.len()).max(1);
            let wanted = if delimiter.is_some() { batch } else { room.min(BATCH) };
            let page = self.engine.list_streams(from.as_ref(), &scope.prefix, wanted).await;
            let page = page.map_err(|one| refused(&one))?;
            looks += page.streams.len().max(1);
            (cursor, batch) = (page.next.clone(), (batch * 4).min(BATCH));
            let whole = page.next.is_none();
            let count = page.streams.len();
            for (at, listed) in page.streams.into_iter().enumerate() {
                let inside = delimiter.and_then(|one| scope.folder(&listed.path, one));
                if let Some(inside) = inside {
                    if folder.as_deref() == Some(inside) {
                        continue;
                    }
                    // Tenants and the server's own streams have no place in the tree of those without a tenant.
                    let reserved = scope.prefix.is_empty() && inside.starts_with(RESERVED);
                    if !reserved && filter.entry(&listed).is_none() {
                        continue;
                    }
                    let inside = inside.to_owned();
                    if !reserved {
                        folders.push(inside.get(scope.hidden..).unwrap_or_default().to_owned());
                    }
                    let end = last_path_of(&inside);
                    folder = Some(inside);
                    let full = streams.len() + folders.len() >= limit;
                    // Whatever else lies in the folder is skipped, unless its path leaves no room for that.
                    let next = end.unwrap_or(listed.path);
                    cursor = Some(next.clone());
                    if full {
                        break 'pages;
                    }
                    (from, batch) = (Bound::Excluded(next), FOLDER_BATCH);
                    continue 'pages;
                }
                streams.extend(filter.entry(&listed));
                if streams.len() + folders.len() >= limit {
                    let last = whole && at + 1 == count;
                    cursor = (!last).then_some(listed.path);
                    break 'pages;
                }
            }
            match page.next {
                Some(next) => from = Bound::Excluded(next),
                None => break,
            }
        }
        let cursor = cursor.map(|path| cursor_after(&path));
        let mut answer = json!({ "streams": streams, "cursor": cursor });
        if delimiter.is_some() {
            answer["prefixes"] = json!(folders);
        }
        Ok(json(StatusCode::OK, &answer))
    }

    /// The first `limit` streams by size or last use, of those that were looked at.
    async fn sorted(
        &self,
        scope: &ListScope,
        filter: &StreamFilter,
        sort: SortKey,
        limit: usize,
    ) -> ApiResult {
        let mut first: BTreeMap<(u64, StreamPath), StreamSummary> = BTreeMap::new();
        let (scanned, partial) = self
            .scan(scope.start()?, &scope.prefix, MAX_SORTED, |listed| {
                let ListedStream { path, summary: Ok(summary) } = listed else { return };
                if owner(&path).is_none() || !filter.shows(&summary) {
                    return;
                }
                let key = match sort {
                    SortKey::Size => summary.own_bytes(),
                    SortKey::LastUsed => summary.last_used.millis(),
                };
                let least = first.first_key_value().map(|((least, _), _)| *least);
                if first.len() >= limit && least.is_some_and(|least| key <= least) {
                    return;
                }
                first.insert((key, path), summary);
                if first.len() > limit {
                    first.pop_first();
                }
            })
            .await?;
        let described = first.iter().rev().filter_map(|((_, path), summary)| {
            let (tenant, path) = owner(path)?;
            Some(described(tenant.as_ref(), &path, summary))
        });
        let streams: Vec<Value> = described.collect();
        let answer =
            json!({ "streams": streams, "cursor": null, "scanned": scanned, "partial": partial });
        Ok(json(StatusCode::OK, &answer))
    }

    /// Looks at streams from `start` on, at most about `max`. Returns how many there were, and whether there are more.
    async fn scan(
        &self,
        start: Bound<StreamPath>,
        prefix: &str,
        max: usize,
        mut each: impl FnMut(ListedStream),
    ) -> Result<(usize, bool), ApiRefusal> {
        let (mut from, mut looked) = (start, 0);
        while looked < max {
            let page =
                self.engine.list_streams(from.as_ref(), prefix, BATCH.min(max - looked)).await;
            let page = page.map_err(|one| refused(&one))?;
            looked += page.streams.len().max(1);
            page.streams.into_iter().for_each(&mut each);
            match page.next {
                Some(next) => from = Bound::Excluded(next),
                None => return Ok((looked, false)),
            }
        }
        Ok((looked, true))
    }

    /// What a prefix or a tenant holds, by a look at its streams.
    pub(super) async fn usage_below(&self, request: &ApiRequest) -> ApiResult {
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
        let answer = json!({
            "tenant": scope.tenant, "prefix": prefix, "streams": streams, "bytes": bytes,
            "soft_deleted": deleted, "scanned": scanned, "partial": partial,
        });
        Ok(json(StatusCode::OK, &answer))
    }
}

/// A path behind all that lie in a folder, but for those whose names begin with the last character that there is. `None`
/// where a path has no room for that.
fn last_path_of(folder: &str) -> Option<StreamPath> {
    StreamPath::system(&format!("{folder}\u{10FFFF}")).ok()
}

fn time(request: &ApiRequest, name: &str) -> Result<Option<Timestamp>, ApiRefusal> {
    let Some(text) = request.parameter(name) else { return Ok(None) };
    let wrong = || {
        let detail = format!("{name} is an RFC 3339 time, as 2030-01-31T12:00:00Z");
        bad("bad-time", &detail)
    };
    Timestamp::parse_rfc3339(text).map(Some).ok_or_else(wrong)
}
