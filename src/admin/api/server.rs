//! `/admin/v1/status`, `/config`, `/reload` and `/log-level`: the server as a whole.

use std::time::Duration;

use durable_streams_engine::store::{AnyStore, Store};
use durable_streams_protocol::Timestamp;
use durable_streams_subscriptions::Subscriptions;
use http::{Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    AdminApi, ApiRefusal, ApiResult, ServerControl,
    overview::disk_room,
    request::{ApiRequest, bad},
};
use crate::admin::response::json;
use crate::telemetry::{build, process};
use crate::tier::segment_totals_json;

/// The longest time for another level of the log, seconds.
const MAX_LEVEL_SECONDS: u64 = 86_400;
/// The time for another level of the log, unless the request says otherwise.
const LEVEL_SECONDS: u64 = 600;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EmptyBody {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LevelBody {
    level: String,
    seconds: Option<u64>,
}

impl AdminApi {
    fn controlled(&self) -> Result<&dyn ServerControl, ApiRefusal> {
        self.control.as_deref().ok_or_else(|| {
            let detail = "this server was embedded without a configuration to show or change";
            ApiRefusal::new(StatusCode::CONFLICT, "no-configuration", detail)
        })
    }

    pub(super) fn status(&self, not_ready: Option<String>) -> Response<Vec<u8>> {
        let stats = self.engine.stats();
        let started = Timestamp::from_millis((process::start() * 1000.0) as u64);
        let uptime = self.engine.now().millis().saturating_sub(started.millis()) / 1000;
        let mut value = json!({
            "version": build::VERSION,
            "commit": build::COMMIT,
            "started": started.to_string(),
            "uptime_seconds": uptime,
            "ready": not_ready.is_none(),
            "not_ready": not_ready,
            "streams": stats.store.streams,
            "stored_bytes": stats.store.bytes,
            "live_readers": stats.live_readers,
            "inflight_append_bytes": stats.inflight_append_bytes,
            "expired": stats.expired,
            "store": self.store(),
            "upstreams": self.upstreams(),
            "subscriptions": self.subscriptions.get().map_or(0, Subscriptions::len),
            "jobs": self.jobs.running(),
        });
        self.add_files(&mut value);
        self.add_certificates(&mut value);
        json(StatusCode::OK, &value)
    }

    fn store(&self) -> Value {
        let store = self.engine.store();
        let (kind, directory, format) = match store {
            AnyStore::Memory(_) => ("memory", None, None),
            AnyStore::File(file) => {
                let directory = file.directory().display().to_string();
                ("file", Some(directory), Some(build::STORE_FORMAT))
            }
        };
        let writable = store.writable().err().map(|error| error.to_string());
        json!({
            "kind": kind, "directory": directory, "format": format,
            "writable": writable.is_none(), "error": writable,
        })
    }

    fn add_files(&self, value: &mut Value) {
        let disk = self.engine.store().disk_stats();
        let files = disk.as_ref().map(|disk| &disk.files);
        value["log"] = json!(files.map(|files| json!({
            "reserved_bytes": files.wal_reserved_bytes, "written_bytes": files.wal_written_bytes,
            "batches": files.batches, "events": files.events, "syncs": files.syncs,
        })));
        value["index"] = json!(files.map(|files| json!({
            "bytes": files.index_bytes, "free_bytes": files.index_free_bytes,
            "available": files.index_available, "reopenings": files.index_reopenings,
        })));
        value["checkpoint"] = json!(files.map(|files| json!({
            "lag_events": files.checkpoint_lag_events, "pending_bytes": files.pending_bytes,
            "completed": files.checkpoints, "failed": files.checkpoint_failures,
        })));
        value["segments"] = json!(files.map(|files| segment_totals_json(&files.segments_by_place)));
        value["tier"] = json!(self.tier.as_ref().map(|tier| {
            let backlog = tier.counters().backlog.totals();
            json!({
                "location": tier.options().location.to_string(),
                "identity": tier.claim().identity, "claim": tier.claim().epoch,
                "claim_held": tier.counters().superseded.get() == 0,
                "waiting_segments": backlog.segments, "waiting_bytes": backlog.bytes,
                "waiting_seconds": backlog.oldest.as_secs(),
            })
        }));
        value["disk"] = json!(files.map(|files| {
            let limit = Some(files.disk_limit_bytes).filter(|limit| *limit > 0);
            json!({ "free_bytes": disk_room(&self.engine), "limit_bytes": limit })
        }));
    }

    fn add_certificates(&self, value: &mut Value) {
        let (mut certificates, mut orders) = (Vec::new(), Vec::new());
        if let Some(tls) = &self.tls {
            for one in tls.certificates() {
                certificates
                    .push(json!({ "names": one.names, "not_after": one.not_after.to_string() }));
            }
            for one in tls.ordered() {
                orders.push(json!({ "host": one.host, "failures": one.failures }));
            }
        }
        value["certificates"] = json!(certificates);
        value["orders"] = json!(orders);
    }

    pub(super) fn show_config(&self) -> ApiResult {
        Ok(json(StatusCode::OK, &json!({ "config": self.controlled()?.config() })))
    }

    /// Reads the configuration again, as `SIGHUP` does.
    pub(super) async fn reload(&self, request: &ApiRequest) -> ApiResult {
        let EmptyBody {} = request.json()?;
        self.controlled()?;
        let Some(control) = self.control.clone() else { return self.show_config() };
        let reloaded = tokio::task::spawn_blocking(move || control.reload()).await;
        match reloaded {
            Ok(Ok(changes)) => {
                let one = |change: super::ReloadedKey| {
                    json!({
                        "key": change.key, "from": change.from, "to": change.to,
                        "needs_restart": change.needs_restart,
                    })
                };
                let changes: Vec<Value> = changes.into_iter().map(one).collect();
                Ok(json(StatusCode::OK, &json!({ "changes": changes })))
            }
            Ok(Err(problems)) => {
                Err(ApiRefusal::new(StatusCode::UNPROCESSABLE_ENTITY, "config-refused", &problems))
            }
            Err(error) => Err(ApiRefusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "reload-failed",
                &error.to_string(),
            )),
        }
    }

    pub(super) fn show_log_level(&self) -> ApiResult {
        let state = self.controlled()?.log_level();
        let until = state.until.map(|until| until.to_string());
        Ok(json(StatusCode::OK, &json!({ "level": state.level, "until": until })))
    }

    /// Another level for a while. A timer brings the configured one back.
    pub(super) fn set_log_level(&self, request: &ApiRequest) -> ApiResult {
        let LevelBody { level, seconds } = request.json()?;
        let seconds = seconds.unwrap_or(LEVEL_SECONDS);
        if !(1..=MAX_LEVEL_SECONDS).contains(&seconds) {
            return Err(bad("bad-seconds", "seconds is a number from 1 to 86400"));
        }
        let duration = Duration::from_secs(seconds);
        let changed = self.controlled()?.set_log_level(Some((&level, duration)));
        let change = changed.map_err(|why| bad("bad-level", &why))?;
        if let Some(control) = self.control.clone() {
            tokio::spawn(async move {
                tokio::time::sleep(duration).await;
                control.end_log_level(change);
            });
        }
        self.show_log_level()
    }

    pub(super) fn reset_log_level(&self) -> ApiResult {
        let changed = self.controlled()?.set_log_level(None);
        changed.map_err(|why| bad("bad-level", &why))?;
        self.show_log_level()
    }
}
