//! `/admin/v1/jobs`: work that outlasts its request: deletion by prefix, backups.
//!
//! Bounds: [`MAX_RUNNING`] jobs at a time, the last [`MAX_KEPT`] that have ended. They live in memory: a stop ends those that
//! run, and a restart forgets all. What a job has done stays done.

use std::{
    collections::VecDeque,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use durable_streams_auth::{TenantId, stored_prefix};
use durable_streams_engine::{
    Engine,
    store::{
        AnyStore, StoreError,
        file::{Destination, disk::File},
    },
};
use durable_streams_protocol::{Rejection, StreamPath, Timestamp};
use http::StatusCode;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    AdminApi, ApiRefusal, ApiResult,
    request::{ApiRequest, bad, confined},
    streams::owner,
};
use crate::admin::response::{json, no_content};

/// Jobs that run at a time.
const MAX_RUNNING: usize = 4;
/// Jobs that have ended and are still shown.
const MAX_KEPT: usize = 50;
/// Streams that are deleted at a time: their deletions share syncs.
const BATCH: usize = 256;

/// What a job does.
enum JobKind {
    DeletePrefix { prefix: String },
    Backup { destination: PathBuf },
}

/// How a job ended.
enum JobEnd {
    Done,
    Failed(String),
    Cancelled,
}

/// One job.
pub(super) struct Job {
    id: u64,
    kind: JobKind,
    tenant: Option<TenantId>,
    by: Arc<str>,
    started: Timestamp,
    end: Mutex<Option<(Timestamp, JobEnd)>>,
    cancelled: AtomicBool,
    /// Streams deleted.
    done: AtomicU64,
    /// Streams that could not be deleted.
    failed: AtomicU64,
    /// Bytes to come, of a backup; 0 while it is not known.
    total: AtomicU64,
    /// The file that a backup writes.
    file: Mutex<Option<File>>,
}

/// The jobs of this process.
#[derive(Default)]
pub(super) struct JobTable {
    /// Oldest first.
    jobs: Mutex<VecDeque<Arc<Job>>>,
    last: AtomicU64,
}

impl Job {
    fn is_running(&self) -> bool {
        self.end.lock().is_none()
    }

    fn finish(&self, at: Timestamp, end: JobEnd) {
        self.file.lock().take();
        self.end.lock().get_or_insert((at, end));
    }

    fn described(&self) -> Value {
        let end = self.end.lock();
        let (state, error) = match end.as_ref().map(|(_, end)| end) {
            None => ("running", None),
            Some(JobEnd::Done) => ("done", None),
            Some(JobEnd::Failed(why)) => ("failed", Some(why.clone())),
            Some(JobEnd::Cancelled) => ("cancelled", None),
        };
        let ended = end.as_ref().map(|(at, _)| at.to_string());
        let (kind, prefix, destination) = match &self.kind {
            JobKind::DeletePrefix { prefix } => ("delete-prefix", Some(prefix.as_str()), None),
            JobKind::Backup { destination } => {
                ("backup", None, Some(destination.display().to_string()))
            }
        };
        let copied = self.file.lock().as_ref().and_then(|file| file.metadata().ok());
        let done = copied.map_or(self.done.load(Relaxed), |metadata| metadata.len());
        let total = Some(self.total.load(Relaxed)).filter(|total| *total > 0);
        json!({
            "id": self.id.to_string(), "kind": kind, "state": state,
            "started": self.started.to_string(), "ended": ended, "by": &*self.by,
            "tenant": self.tenant, "prefix": prefix, "destination": destination,
            "done": done, "total": total, "failed": self.failed.load(Relaxed), "error": error,
        })
    }
}

impl JobTable {
    /// # Errors
    /// 429 when as many run as may.
    fn begin(
        &self,
        kind: JobKind,
        tenant: Option<TenantId>,
        by: Arc<str>,
        now: Timestamp,
    ) -> Result<Arc<Job>, ApiRefusal> {
        let mut jobs = self.jobs.lock();
        let running = jobs.iter().filter(|job| job.is_running()).count();
        if running >= MAX_RUNNING {
            let detail = format!("{MAX_RUNNING} jobs run already; wait for one, or cancel it");
            return Err(ApiRefusal::new(StatusCode::TOO_MANY_REQUESTS, "too-many-jobs", &detail));
        }
        if jobs.len() - running >= MAX_KEPT
            && let Some(oldest) = jobs.iter().position(|job| !job.is_running())
        {
            jobs.remove(oldest);
        }
        let job = Arc::new(Job {
            id: self.last.fetch_add(1, Relaxed) + 1,
            kind,
            tenant,
            by,
            started: now,
            end: Mutex::default(),
            cancelled: AtomicBool::new(false),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            total: AtomicU64::new(0),
            file: Mutex::default(),
        });
        jobs.push_back(job.clone());
        Ok(job)
    }

    /// The jobs that an administrator may see: all, or those of its tenant.
    fn seen_by(&self, request: &ApiRequest) -> Vec<Arc<Job>> {
        let tenant = &request.who.tenant;
        let jobs = self.jobs.lock();
        let seen = |job: &&Arc<Job>| tenant.is_none() || job.tenant == *tenant;
        jobs.iter().rev().filter(seen).cloned().collect()
    }

    fn find(&self, request: &ApiRequest, id: &str) -> Result<Arc<Job>, ApiRefusal> {
        let found = self.seen_by(request).into_iter().find(|job| job.id.to_string() == id);
        found.ok_or_else(|| {
            let detail = "there is no job with this id; a restart forgets them";
            ApiRefusal::new(StatusCode::NOT_FOUND, "not-found", detail)
        })
    }

    pub(super) fn running(&self) -> usize {
        self.jobs.lock().iter().filter(|job| job.is_running()).count()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JobBody {
    kind: JobWord,
    prefix: String,
    tenant: Option<TenantId>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum JobWord {
    DeletePrefix,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupBody {
    name: String,
}

impl AdminApi {
    pub(super) fn list_jobs(&self, request: &ApiRequest) -> ApiResult {
        let jobs: Vec<Value> =
            self.jobs.seen_by(request).iter().map(|job| job.described()).collect();
        Ok(json(StatusCode::OK, &json!({ "jobs": jobs })))
    }

    pub(super) fn show_job(&self, request: &ApiRequest, id: &str) -> ApiResult {
        Ok(json(StatusCode::OK, &self.jobs.find(request, id)?.described()))
    }

    pub(super) fn cancel_job(&self, request: &ApiRequest, id: &str) -> ApiResult {
        self.jobs.find(request, id)?.cancelled.store(true, Relaxed);
        Ok(no_content())
    }

    /// Begins to delete the streams of a tenant, or of none, whose paths begin with a prefix.
    pub(super) fn start_job(&self, request: &ApiRequest) -> ApiResult {
        let JobBody { kind: JobWord::DeletePrefix, prefix, tenant } = request.json()?;
        let tenant = confined(&request.who, tenant)?;
        if prefix.is_empty() {
            return Err(bad("bad-prefix", "name a prefix: an empty one would delete everything"));
        }
        let inner = tenant.as_ref().map(stored_prefix).unwrap_or_default();
        let start = StreamPath::system(&format!("{inner}{prefix}"));
        let start = start.map_err(|error| bad("bad-prefix", &error.to_string()))?;
        let kind = JobKind::DeletePrefix { prefix };
        let job = self.jobs.begin(kind, tenant, request.who.identity.clone(), self.engine.now())?;
        let (engine, running) = (self.engine.clone(), job.clone());
        tokio::spawn(async move {
            let end = delete_below(&engine, &running, start).await;
            let cancelled = running.cancelled.load(Relaxed);
            running.finish(
                engine.now(),
                match end {
                    Err(rejection) => JobEnd::Failed(rejection.to_string()),
                    Ok(()) if cancelled => JobEnd::Cancelled,
                    Ok(()) => JobEnd::Done,
                },
            );
        });
        Ok(json(StatusCode::ACCEPTED, &job.described()))
    }

    /// Begins a backup into a new directory below the configured one.
    pub(super) fn start_backup(&self, request: &ApiRequest) -> ApiResult {
        let BackupBody { name } = request.json()?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.bytes().all(plain) {
            let detail =
                "name is 1 to 64 letters, digits, '-', '_' and '.', and does not begin with '.'";
            return Err(bad("bad-name", detail));
        }
        let conflict = |code, detail| Err(ApiRefusal::new(StatusCode::CONFLICT, code, detail));
        let Some(directory) = self.control.as_ref().and_then(|control| control.backups()) else {
            return conflict("no-backup-directory", "set admin.backups in the configuration");
        };
        if !matches!(self.engine.store(), AnyStore::File(_)) {
            return conflict("in-memory", "the server keeps its streams in memory");
        }
        let destination = directory.join(name);
        if destination.exists() {
            return conflict("exists", "there is a backup of this name; choose another");
        }
        let kind = JobKind::Backup { destination: destination.clone() };
        let job = self.jobs.begin(kind, None, request.who.identity.clone(), self.engine.now())?;
        let (engine, running) = (self.engine.clone(), job.clone());
        // A copy takes seconds to hours, on a thread of its own.
        let thread = std::thread::Builder::new().name("backup".into()).spawn(move || {
            let end = back_up(&engine, &running, &destination);
            let cancelled = running.cancelled.load(Relaxed);
            running.finish(
                engine.now(),
                match end {
                    Ok(()) => JobEnd::Done,
                    Err(_) if cancelled => JobEnd::Cancelled,
                    Err(error) => JobEnd::Failed(error.to_string()),
                },
            );
        });
        if let Err(error) = thread {
            job.finish(self.engine.now(), JobEnd::Failed(error.to_string()));
        }
        Ok(json(StatusCode::ACCEPTED, &job.described()))
    }
}

/// Deletes streams from `start` on, in the order of their paths. Streams that are created behind the job's place stay.
async fn delete_below(engine: &Engine, job: &Job, start: StreamPath) -> Result<(), Rejection> {
    let prefix = start.as_str().to_owned();
    let mut from = Bound::Included(start);
    while !job.cancelled.load(Relaxed) {
        let page = engine.list_streams(from.as_ref(), &prefix, BATCH).await?;
        let mut decided = Vec::new();
        for listed in page.streams {
            let soft_deleted = listed.summary.is_ok_and(|summary| summary.soft_deleted);
            let own = owner(&listed.path).is_some_and(|(tenant, _)| tenant == job.tenant);
            if own && !soft_deleted {
                decided.push(engine.judge_delete(&listed.path).await);
            }
        }
        for judged in decided {
            match judged.when_durable().await {
                Ok(()) => job.done.fetch_add(1, Relaxed),
                // Another request was faster.
                Err(Rejection::NotFound | Rejection::Gone) => 0,
                Err(rejection) => {
                    tracing::warn!(job = job.id, %rejection, "a stream is not deleted");
                    job.failed.fetch_add(1, Relaxed)
                }
            };
        }
        match page.next {
            Some(next) => from = Bound::Excluded(next),
            None => break,
        }
    }
    Ok(())
}

fn back_up(engine: &Engine, job: &Job, destination: &Path) -> Result<(), StoreError> {
    let AnyStore::File(store) = engine.store() else { return Ok(()) };
    let to = Destination::prepare(destination)?;
    let file = to.index_file()?;
    *job.file.lock() = file.try_clone().ok();
    let wanted = || !job.cancelled.load(Relaxed);
    // Until the copy is complete: it has the sealed segments that its index references.
    let _held = store.hold_segments();
    store.copy_index(&file, &mut |total| job.total.store(total, Relaxed), &wanted)?;
    if let Ok(copied) = file.metadata() {
        job.done.store(copied.len(), Relaxed);
    }
    store.complete_backup(to).map(|_| ())
}
