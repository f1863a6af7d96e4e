//! `/admin/v1/segments`: all sealed segments, with their sizes, places and owners.
//!
//! Bounds: a page has 1,000 segments at most, with [`OWNERS`] owners each. The owners are found by a walk over the index, of
//! [`EXTENTS`] records at most; one walk at a time.

use durable_streams_engine::store::{
    AnyStore, SegmentTotals, StoreError,
    file::segments::{
        catalog::{SegmentPage, SegmentQuery},
        objects::SegmentPlace,
    },
};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    AdminApi, ApiRefusal, ApiResult,
    request::{ApiRequest, bad, cursor_text},
};
use crate::admin::response::json;
use crate::tier::{segment_json, segment_totals_json};

/// Streams that are named of each segment.
const OWNERS: usize = 10;
/// Records of the index that are looked at for them: some seconds.
const EXTENTS: u64 = 2_000_000;

impl AdminApi {
    /// Segments by number, from the first one or a cursor, and what all of them take.
    pub(super) async fn list_segments(&self, request: &ApiRequest) -> ApiResult {
        request.only(&["cursor", "limit", "place", "owners"])?;
        let query = query(request)?;
        if !matches!(self.engine.store(), AnyStore::File(_)) {
            let none = self.segments_answer(&SegmentPage::default(), &Default::default());
            return Ok(json(StatusCode::OK, &none));
        }
        let engine = self.engine.clone();
        // The walk goes on when the client leaves, so it holds its place by itself.
        let walk = match query.shares {
            0 => None,
            _ => Some(self.segment_walks.clone().lock_owned().await),
        };
        let read = tokio::task::spawn_blocking(move || {
            let _walk = walk;
            let AnyStore::File(store) = engine.store() else { return Err(StoreError::Closed) };
            Ok((store.list_segments(&query)?, store.segment_totals()?))
        });
        let failed = |error: StoreError| {
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            ApiRefusal::new(status, "index-unreadable", &error.to_string())
        };
        let (page, totals) = read.await.unwrap_or(Err(StoreError::Closed)).map_err(failed)?;
        Ok(json(StatusCode::OK, &self.segments_answer(&page, &totals)))
    }

    fn segments_answer(&self, page: &SegmentPage, totals: &[SegmentTotals; 3]) -> Value {
        let segments = page.segments.iter().map(|segment| {
            let tier = self.tier.as_ref().filter(|_| segment.info.place != SegmentPlace::Local);
            segment_json(segment, tier.map(|tier| tier.segment_name(segment.info.number)))
        });
        json!({
            "segments": segments.collect::<Vec<_>>(),
            "cursor": page.next.map(|number| cursor_text(&number.to_string())),
            "partial": page.partial,
            "totals": segment_totals_json(totals),
        })
    }
}

fn query(request: &ApiRequest) -> Result<SegmentQuery, ApiRefusal> {
    let place = request.parameter("place").map(|name| {
        let found = SegmentPlace::ALL.into_iter().find(|place| place.name() == name);
        found.ok_or_else(|| bad("bad-place", "place is local, both or object"))
    });
    let shares = match request.parameter("owners") {
        None | Some("false") => 0,
        Some("true") => OWNERS,
        Some(_) => return Err(bad("bad-owners", "owners is true or false")),
    };
    let cursor = request.text_cursor()?.map(|text| {
        let number = text.parse::<u64>();
        number.map_err(|_| bad("bad-cursor", "a cursor is taken from the page before, unchanged"))
    });
    Ok(SegmentQuery {
        after: cursor.transpose()?,
        place: place.transpose()?,
        max: request.limit()?,
        shares,
        extents: EXTENTS,
    })
}
