//! Segments as JSON: the same from the administration API of a running server and from the command on a stopped one.

use durable_streams_auth::{client_path, stored_tenant};
use durable_streams_engine::store::SegmentTotals;
use durable_streams_engine::store::file::segments::catalog::{ListedSegment, SegmentShare};
use durable_streams_engine::store::file::segments::format::file_name;
use durable_streams_engine::store::file::segments::objects::SegmentPlace;
use serde_json::{Value, json};

/// A segment of a page. `object`: the name of its object, where there is one and its prefix is known.
pub fn segment_json(segment: &ListedSegment, object: Option<String>) -> Value {
    let info = &segment.info;
    let owners: Vec<Value> = segment.shares.iter().map(owner_json).collect();
    json!({
        "number": info.number,
        "file": file_name(info.number),
        "place": info.place.name(),
        "bytes": info.file_len,
        "data_bytes": info.data,
        "live_bytes": info.live,
        "sealed": info.sealed_at.map(|at| at.to_string()),
        "object": object,
        "streams": segment.streams,
        "owners": segment.streams.map(|_| owners),
    })
}

/// Paths of the server's own streams are shown as they are stored.
fn owner_json(share: &SegmentShare) -> Value {
    let tenant = share.path.as_ref().and_then(stored_tenant);
    let path = share.path.as_ref().map(|stored| {
        client_path(tenant.as_ref(), stored).unwrap_or_else(|| stored.clone()).to_string()
    });
    json!({ "id": share.stream.0, "path": path, "tenant": tenant, "bytes": share.bytes })
}

/// What segments take, by place, in the order of [`SegmentPlace::ALL`].
pub fn segment_totals_json(totals: &[SegmentTotals; 3]) -> Value {
    let of_place = |(place, totals): (&SegmentPlace, &SegmentTotals)| {
        let SegmentTotals { files, bytes, live } = totals;
        let value = json!({ "segments": files, "bytes": bytes, "live_bytes": live });
        (place.name().to_owned(), value)
    };
    Value::Object(SegmentPlace::ALL.iter().zip(totals).map(of_place).collect())
}
