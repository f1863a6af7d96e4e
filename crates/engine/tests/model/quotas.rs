//! `max_streams` and `max_total` under load: commands that are decided together share one limit, although none
//! of them is durable yet.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use durable_streams_engine::store::{AnyStore, FileStore, FileStoreOptions};
use durable_streams_engine::{
    Clock, Engine, EngineLimits, Judged, ScopeQuota, ScopeUsage, Ticket, UsageScope,
};
use durable_streams_protocol::{
    Append, ContentType, Create, Fork, Producer, ProducerId, Rejection, StreamPath,
};

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

/// One prefix, and tenants of which two have quotas of their own.
fn scopes() -> Vec<UsageScope> {
    let quota = |streams, bytes| ScopeQuota { streams: Some(streams), bytes: Some(bytes) };
    let tenants = UsageScope {
        name: "tenant".into(),
        prefix: "__ds/t".into(),
        each: true,
        quota: quota(3, 3_000),
        named: vec![("acme".into(), quota(10, 10_000)), ("globex".into(), quota(5, 100_000))],
    };
    let chat = UsageScope {
        name: "path:chat".into(),
        prefix: "chat".into(),
        quota: quota(7, 700),
        ..UsageScope::default()
    };
    vec![tenants, chat]
}

fn system(text: &str) -> StreamPath {
    StreamPath::system(text).unwrap()
}

/// (streams, bytes) of acme, globex and chat.
fn held(engine: &Engine) -> Vec<(u64, u64)> {
    let pair = |one: ScopeUsage| (one.streams, one.bytes);
    engine.scope_usage().into_iter().map(pair).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_decided_together_shares_the_quota_of_its_tenant() {
    for kind in StoreKind::ALL {
        let (store, _keep) = open(*kind).into_parts();
        let engine = Arc::new(Engine::new(store, Clock::System, EngineLimits::default()));
        engine.limit_scopes(scopes()).await.unwrap();
        let tenants = ["acme", "globex", "initech", "acme-2"];
        let tasks: Vec<_> = (0..120)
            .map(|at| {
                let engine = engine.clone();
                let path = system(&format!("__ds/t/{}/{at}", tenants[at % 4]));
                let body = Bytes::from_static(&[b'x'; 100]);
                tokio::spawn(async move { (at, engine.create(&path, &create(), body).await) })
            })
            .collect();
        let mut accepted = [0; 4];
        for task in tasks {
            let (at, created) = task.await.unwrap();
            match created {
                Ok(_) => accepted[at % 4] += 1,
                Err(Rejection::QuotaExceeded { what: "streams", .. }) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(accepted, [10, 5, 3, 3]);
        assert_eq!(held(&engine), [(10, 1_000), (5, 500), (0, 0)]);
        // Bytes: 90 more of 100 fit to acme, whatever is appended at once and wherever.
        let one = engine.list(None, 100).await.unwrap();
        let one: Vec<_> =
            one.into_iter().filter(|path| path.as_str().starts_with("__ds/t/acme/")).collect();
        let tasks: Vec<_> = (0..200)
            .map(|at| {
                let (engine, path) = (engine.clone(), one[at % one.len()].clone());
                let body = Bytes::from_static(&[b'x'; 100]);
                tokio::spawn(async move { engine.append(&path, &append(), body).await })
            })
            .collect();
        let mut fitted = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(_) => fitted += 1,
                Err(refused) => {
                    assert_eq!(refused, Rejection::QuotaExceeded { what: "bytes", limit: 10_000 });
                    assert_eq!(refused.status(), 507);
                }
            }
        }
        assert_eq!((fitted, held(&engine)[0]), (90, (10, 10_000)));
        let close = Append { close: true, ..Append::default() };
        engine.append(&one[0], &close, Bytes::new()).await.unwrap();
        engine.delete(&one[0]).await.unwrap();
        assert_eq!(held(&engine)[0].0, 9);
        engine.create(&one[0], &create(), Bytes::new()).await.unwrap();
        assert_eq!(held(&engine)[0].0, 10);
        // Streams of no tenant have no quota here.
        engine.create(&path(1), &create(), Bytes::from(vec![b'x'; 1_000_000])).await.unwrap();
        engine.close().await;
    }
}

#[tokio::test]
async fn the_counts_of_parts_survive_restarts_and_crashes() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open_at(dir.path());
    for (text, bytes) in [
        ("chat", 1),
        ("chat!", 2),
        ("chat-room", 3),
        ("chat/", 4),
        ("chat/a", 5),
        ("chat/z/z", 6),
        ("chat0", 7),
        ("chats", 8),
        ("__ds/t/acme/a", 9),
        ("__ds/t/acme/b/c", 10),
        ("__ds/t/acme-2/a", 11),
        ("__ds/t/globex/a", 12),
        ("__ds/tt/acme/a", 13),
    ] {
        let body = Bytes::from(vec![b'x'; bytes]);
        engine.create(&system(text), &create(), body).await.unwrap();
    }
    let fork = Fork { source: system("chat/a"), offset: None, sub_offset: 0 };
    let fork = Create { fork: Some(fork), ..create() };
    engine.create(&system("chat/fork"), &fork, Bytes::from_static(b"own")).await.unwrap();
    // Soft-deleted, so it counts; and one that is gone.
    engine.delete(&system("chat/a")).await.unwrap();
    engine.delete(&system("chat/z/z")).await.unwrap();
    let copy = crashed(dir.path());
    engine.close().await;
    drop(engine);
    for dir in [dir.path(), copy.path()] {
        let engine = open_at(dir);
        engine.limit_scopes(scopes()).await.unwrap();
        assert_eq!(held(&engine), [(2, 19), (1, 12), (4, 1 + 4 + 5 + 3)]);
        let body = Bytes::from(vec![b'x'; 688]);
        let full = engine.append(&system("chat"), &append(), body).await;
        assert_eq!(full, Err(Rejection::QuotaExceeded { what: "bytes", limit: 700 }));
        engine.delete(&system("chat/fork")).await.unwrap();
        assert_eq!(held(&engine)[2], (2, 5), "the source goes with its last fork");
        engine.close().await;
    }
}

#[tokio::test]
async fn a_stream_remembers_so_many_producers_and_no_more() {
    for kind in StoreKind::ALL {
        let (store, _keep) = open(*kind).into_parts();
        let limits = EngineLimits { max_producers: Some(3), ..EngineLimits::default() };
        let engine = Engine::new(store, Clock::System, limits);
        engine.create(&path(0), &create(), Bytes::new()).await.unwrap();
        let post = async |name: &str, seq| {
            let id = ProducerId::new(name).unwrap();
            let producer = Some(Producer { id, epoch: 0, seq });
            engine
                .append(&path(0), &Append { producer, ..append() }, Bytes::from_static(b"x"))
                .await
        };
        for name in ["a", "b", "c"] {
            assert!(post(name, 0).await.is_ok());
        }
        let refused = post("d", 0).await.unwrap_err();
        assert_eq!((refused.code(), refused.status().as_u16()), ("too-many-producers", 507));
        assert!(post("b", 1).await.unwrap().added, "one that it knows goes on");
        assert!(!post("b", 1).await.unwrap().added, "and its retries are known");
        assert_eq!(post("a", 5).await.unwrap_err().code(), "sequence-gap");
        assert!(engine.append(&path(0), &append(), Bytes::from_static(b"x")).await.is_ok());
        engine.close().await;
    }
}
