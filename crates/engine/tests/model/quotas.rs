//! `max_streams` and `max_total` under load: commands that are decided together share one limit, although none
//! of them is durable yet.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use durable_streams_engine::store::{AnyStore, FileStore, FileStoreOptions};
use durable_streams_engine::{Clock, Engine, EngineLimits, Judged, Ticket};
use durable_streams_protocol::{Append, ContentType, Create, Fork, Rejection, StreamPath};

use crate::stores::{StoreKind, open};

const STREAMS: u64 = 20;
const BYTES: u64 = 1_000_000;

fn limited(store: AnyStore) -> Arc<Engine> {
    let (max_streams, max_total) = (Some(STREAMS), Some(BYTES));
    let limits = EngineLimits { max_streams, max_total, ..EngineLimits::default() };
    Arc::new(Engine::new(store, Clock::System, limits))
}

fn path(at: usize) -> StreamPath {
    StreamPath::new(&format!("s/{at}")).unwrap()
}

fn text() -> ContentType {
    ContentType::parse("text/plain").unwrap()
}

fn create() -> Create {
    Create { content_type: Some(text()), ..Create::default() }
}

fn append() -> Append {
    Append { content_type: Some(Ok(text())), ..Append::default() }
}

/// Waits for every ticket. Returns the number of acceptances.
async fn accepted<T>(judged: Vec<Judged<T>>, refusal: &Rejection) -> u64 {
    let mut accepted = 0;
    for Judged { verdict, ticket } in judged {
        if let Some(ticket) = ticket {
            Ticket::wait(ticket).await.unwrap();
        }
        match verdict {
            Ok(_) => accepted += 1,
            Err(refused) => assert_eq!(refused, *refusal),
        }
    }
    accepted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn creations_decided_together_share_the_limit_on_streams() {
    for kind in StoreKind::ALL {
        let (store, _keep) = open(*kind).into_parts();
        let engine = limited(store);
        let tasks: Vec<_> = (0..100)
            .map(|at| {
                let engine = engine.clone();
                tokio::spawn(async move {
                    engine.judge_create(&path(at), &create(), Bytes::new()).await
                })
            })
            .collect();
        let mut judged = Vec::new();
        for task in tasks {
            judged.push(task.await.unwrap());
        }
        let refusal = Rejection::TooManyStreams { limit: STREAMS };
        assert_eq!(accepted(judged, &refusal).await, STREAMS);
        assert_eq!(engine.stats().store.streams, STREAMS);
        engine.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn appends_decided_together_share_the_limit_on_bytes() {
    for kind in StoreKind::ALL {
        let (store, _keep) = open(*kind).into_parts();
        let engine = limited(store);
        engine.create(&path(0), &create(), Bytes::new()).await.unwrap();
        let body = Bytes::from(vec![b'x'; 100_000]);
        let tasks: Vec<_> = (0..60)
            .map(|_| {
                let (engine, body) = (engine.clone(), body.clone());
                tokio::spawn(async move { engine.judge_append(&path(0), &append(), body).await })
            })
            .collect();
        let mut judged = Vec::new();
        for task in tasks {
            judged.push(task.await.unwrap());
        }
        assert_eq!(accepted(judged, &Rejection::StorageFull).await, 10);
        assert_eq!(engine.stats().store.bytes, BYTES);
        // A stream that goes makes room when its removal is decided: the log is in order.
        let deleted = engine.judge_delete(&path(0)).await;
        let created = engine.judge_create(&path(1), &create(), body.clone()).await;
        assert_eq!(accepted(vec![deleted], &Rejection::StorageFull).await, 1);
        assert_eq!(accepted(vec![created], &Rejection::StorageFull).await, 1);
        engine.close().await;
    }
}

#[tokio::test]
async fn what_refusals_and_forks_leave_is_what_the_store_holds() {
    for kind in StoreKind::ALL {
        let (store, _keep) = open(*kind).into_parts();
        let engine = limited(store);
        let body = Bytes::from(vec![b'x'; 300_000]);
        engine.create(&path(0), &create(), body.clone()).await.unwrap();
        // A fork's own bytes count, not what it inherits; a confirmed or refused creation counts nothing.
        let fork = Fork { source: path(0), offset: None, sub_offset: 0 };
        let fork = Create { fork: Some(fork), ..create() };
        engine.create(&path(1), &fork, Bytes::new()).await.unwrap();
        engine.append(&path(1), &append(), body.clone()).await.unwrap();
        engine.create(&path(0), &create(), Bytes::new()).await.unwrap();
        let json = ContentType::parse("application/json").unwrap();
        let json = Create { content_type: Some(json), ..Create::default() };
        assert!(engine.create(&path(2), &json, "{".into()).await.is_err());
        let large = Bytes::from(vec![b'x'; 400_001]);
        let refused = engine.append(&path(1), &append(), large.clone()).await;
        assert_eq!(refused, Err(Rejection::StorageFull));
        let exact = large.slice(1..);
        engine.append(&path(1), &append(), exact).await.unwrap();
        assert_eq!(engine.stats().store.bytes, BYTES);
        engine.delete(&path(1)).await.unwrap();
        engine.delete(&path(0)).await.unwrap();
        // The index of the file store frees the bytes at its next checkpoint, the limit now.
        engine.create(&path(3), &create(), Bytes::from(vec![b'x'; 1_000_000])).await.unwrap();
        engine.close().await;
    }
}

fn open_at(dir: &Path) -> Arc<Engine> {
    let mut options = FileStoreOptions::new(dir);
    options.checkpoint_interval = Duration::from_secs(3600);
    limited(AnyStore::File(FileStore::open(options).unwrap()))
}

/// A copy of a data directory in use: what a crash leaves.
fn crashed(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    let mut folders = vec![from.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let target = to.path().join(path.strip_prefix(from).unwrap());
            if path.is_dir() {
                std::fs::create_dir(target).unwrap();
                folders.push(path);
            } else {
                std::fs::copy(path, target).unwrap();
            }
        }
    }
    to
}

#[tokio::test]
async fn a_new_engine_counts_what_its_store_holds() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open_at(dir.path());
    let body = Bytes::from(vec![b'x'; 600_000]);
    engine.create(&path(0), &create(), body).await.unwrap();
    engine.delete(&path(0)).await.unwrap();
    for at in 1..20 {
        engine.create(&path(at), &create(), Bytes::new()).await.unwrap();
    }
    let copy = crashed(dir.path());
    engine.close().await;
    drop(engine);
    for dir in [dir.path(), copy.path()] {
        let engine = open_at(dir);
        engine.create(&path(20), &create(), Bytes::from(vec![b'x'; 1_000_000])).await.unwrap();
        let refused = engine.create(&path(21), &create(), Bytes::new()).await;
        assert_eq!(refused.unwrap_err(), Rejection::TooManyStreams { limit: STREAMS });
        engine.close().await;
    }
}
