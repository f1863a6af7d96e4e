//! `GET /admin/v1/streams`: pages of streams, filtered, as a tree, or the largest and latest of them.
//!
//! Bounds: a page looks at [`MAX_LOOKS`] streams, a sorted list at [`MAX_SORTED`], and either keeps no more than its
//! `limit`. What is read from the store at a time is at most [`BATCH`] streams.

use std::{collections::BTreeMap, ops::Bound};

use durable_streams_auth::{TENANTS_PREFIX, TenantId, stored_prefix};
use durable_streams_engine::{ListedStream, StreamSummary};
use durable_streams_protocol::{StreamPath, Timestamp};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    AdminApi, ApiRefusal, ApiResult,
    list_page::{ListPage, ListStep},
    request::{ApiRequest, bad, cursor_at},
    streams::{described, owner, refused, unreadable},
};
use crate::admin::response::json;

/// Streams that are looked at for one page: those that are not shown count too, so that a page over many of them ends with
/// a cursor and not with a wait.
const MAX_LOOKS: usize = 10_000;
/// Streams that are looked at for a sorted list.
pub(super) const MAX_SORTED: usize = 100_000;
/// Streams that are read at a time.
const BATCH: usize = 1_000;
/// The first batch behind a folder of a tree, most of which have few streams.
const FOLDER_BATCH: usize = 8;

/// Which streams a list shows.
#[derive(Default)]
pub(super) struct StreamFilter {
    deleted: bool,
    content_type: Option<String>,
    idle_since: Option<Timestamp>,
    expires_before: Option<Timestamp>,
    larger_than: Option<u64>,
}

/// Where a list looks.
pub(super) struct ListScope {
    pub(super) tenant: Option<TenantId>,
    /// What the stored paths begin with.
    pub(super) prefix: String,
    /// The part of it that a client does not see.
    pub(super) hidden: usize,
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
    pub(super) fn entry(&self, listed: &ListedStream) -> Option<Value> {
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
    pub(super) fn of(request: &ApiRequest) -> Result<Self, ApiRefusal> {
        let tenant = request.tenant()?;
        let inner = tenant.as_ref().map(stored_prefix).unwrap_or_default();
        let prefix = format!("{inner}{}", request.parameter("prefix").unwrap_or_default());
        Ok(ListScope { tenant, hidden: inner.len(), prefix })
    }

    /// Where the list begins.
    pub(super) fn start(&self) -> Result<Bound<StreamPath>, ApiRefusal> {
        if self.prefix.is_empty() {
            return Ok(Bound::Unbounded);
        }
        let start = StreamPath::system(&self.prefix);
        start.map(Bound::Included).map_err(|error| bad("bad-prefix", &error.to_string()))
    }

    /// The folder below the prefix in which a stream lies, as it is stored.
    pub(super) fn folder<'p>(&self, path: &'p StreamPath, delimiter: &str) -> Option<&'p str> {
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
                let page = self.page(&scope, &filter, delimiter, start, limit).await?;
                Ok(json(StatusCode::OK, &page.into_answer()))
            }
        }
    }

    async fn page<'l>(
        &self,
        scope: &'l ListScope,
        filter: &'l StreamFilter,
        delimiter: Option<&'l str>,
        start: Bound<StreamPath>,
        limit: usize,
    ) -> Result<ListPage<'l>, ApiRefusal> {
        let mut page = ListPage::new(scope, filter, delimiter, &start, limit);
        let (mut from, mut looks, mut batch) = (start, 0, BATCH);
        while looks < MAX_LOOKS {
            let wanted = if delimiter.is_some() { batch } else { page.room().min(BATCH) };
            let read = self.engine.list_streams(from.as_ref(), &scope.prefix, wanted).await;
            let read = read.map_err(|one| refused(&one))?;
            looks += read.streams.len().max(1);
            (from, batch) = match page.add(read) {
                ListStep::End => break,
                ListStep::Next(path) => (Bound::Excluded(path), (batch * 4).min(BATCH)),
                ListStep::BehindFolder(path) => (Bound::Excluded(path), FOLDER_BATCH),
            };
        }
        Ok(page)
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

    /// The tenants that have streams, by name.
    pub(super) async fn list_tenants(&self, request: &ApiRequest) -> ApiResult {
        request.only(&["cursor", "limit"])?;
        let prefix = format!("{TENANTS_PREFIX}/");
        let scope = ListScope { tenant: None, hidden: prefix.len(), prefix };
        let start = match request.parameter("cursor") {
            Some(cursor) => Bound::Excluded(cursor_at(cursor)?),
            None => scope.start()?,
        };
        let filter = StreamFilter { deleted: true, ..StreamFilter::default() };
        let page = self.page(&scope, &filter, Some("/"), start, request.limit()?).await?;
        Ok(json(StatusCode::OK, &page.into_tenants()))
    }

    /// Looks at streams from `start` on, at most about `max`. Returns how many there were, and whether there are more.
    pub(super) async fn scan(
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
}

fn time(request: &ApiRequest, name: &str) -> Result<Option<Timestamp>, ApiRefusal> {
    let Some(text) = request.parameter(name) else { return Ok(None) };
    let wrong = || {
        let detail = format!("{name} is an RFC 3339 time, as 2030-01-31T12:00:00Z");
        bad("bad-time", &detail)
    };
    Timestamp::parse_rfc3339(text).map(Some).ok_or_else(wrong)
}
