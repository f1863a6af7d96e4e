//! Planned reads: whatever is taken, put back, dropped or cut off, the bytes are those of the stream.

use bytes::Bytes;
use durable_streams_engine::{Engine, ReadPlan, ReadSlice, StreamView};
use durable_streams_protocol::{Append, ContentType, Create, Fork, Offset, Rejection, StreamPath};

use crate::stores::{StoreKind, engine};

const LEN: usize = 300_000;

fn path() -> StreamPath {
    StreamPath::new("a").unwrap()
}

/// A stream of appends of 10,000 bytes.
async fn stream(engine: &Engine) -> Vec<u8> {
    let content_type = ContentType::parse("application/octet-stream").unwrap();
    let create = Create { content_type: Some(content_type.clone()), ..Create::default() };
    engine.create(&path(), &create, Bytes::new()).await.unwrap();
    let all: Vec<u8> = (0..LEN).map(|n| (n / 7 % 251) as u8).collect();
    for part in all.chunks(10_000) {
        let append = Append { content_type: Some(Ok(content_type.clone())), ..Append::default() };
        engine.append(&path(), &append, Bytes::copy_from_slice(part)).await.unwrap();
    }
    all
}

/// What is left of a plan, which says before how much that is.
async fn rest(engine: &Engine, mut plan: ReadPlan) -> Vec<u8> {
    let core = engine.head(&path()).await.unwrap().core;
    let mut bytes = Vec::new();
    let len = plan.len();
    assert_eq!(plan.is_empty(), len == 0);
    bytes.extend(plan.take_first().chunks.concat());
    while let Some(piece) = engine.next_piece(&core, &mut plan, 50_000).await.unwrap() {
        bytes.extend(piece.concat());
    }
    assert_eq!(bytes.len() as u64, len);
    assert!(plan.is_empty() && plan.is_one_piece());
    bytes
}

#[tokio::test]
async fn what_is_taken_put_back_dropped_and_cut_off_is_the_streams() {
    for kind in StoreKind::ALL {
        let (engine, _clock, _keep) = engine(*kind, 64);
        let all = stream(&engine).await;
        let view = engine.head(&path()).await.unwrap();
        let (core, tail) = (view.core, view.tail.offset);
        let plan = async || engine.plan(&core, Offset::new(1_000), tail, None).await.unwrap();
        let all = &all[1_000..];
        assert!(!plan().await.is_one_piece() && !plan().await.is_in_file());
        assert!(rest(&engine, plan().await).await == all, "{kind:?}");
        let mut dropped = plan().await;
        dropped.drop_first();
        assert!(dropped.take_first().is_empty(), "{kind:?}: it is not in memory");
        dropped.drop_first();
        assert!(rest(&engine, dropped).await == all, "{kind:?}");
        for cut in [1, 100_000, 280_000, 299_000] {
            let mut shorter = plan().await;
            shorter.cut(cut as u64);
            assert!(rest(&engine, shorter).await == all[..all.len() - cut], "{kind:?}, {cut}");
        }
        for back in [0, 1, 30_000] {
            let mut again = plan().await;
            let first = again.take_first();
            assert_eq!(first.end, Offset::new(1_000 + first.len() as u64), "{kind:?}");
            let left = first.len() - back;
            again.put_back(back as u64);
            assert!(rest(&engine, again).await == all[left..], "{kind:?}, {back}");
        }
        let end = engine.plan(&core, tail, tail, None).await.unwrap();
        assert!(end.is_empty() && end.is_one_piece() && end.end() == tail, "{kind:?}");
        engine.close().await;
    }
}

/// Where a page of about `page` bytes ends that begins at `from`.
async fn page_end(engine: &Engine, view: &StreamView, from: u64, page: usize) -> u64 {
    let plan = engine.plan(&view.core, Offset::new(from), view.tail.offset, Some(page)).await;
    plan.unwrap().end().position()
}

/// A page that has room for just an append is that append.
#[tokio::test]
async fn a_page_ends_with_a_whole_append() {
    for kind in StoreKind::ALL {
        let (engine, _clock, _keep) = engine(*kind, 64);
        stream(&engine).await;
        let view = engine.head(&path()).await.unwrap();
        for (from, page, end) in [
            (0, 10_000, 10_000),
            (0, 19_999, 10_000),
            (0, 20_000, 20_000),
            (0, 20_001, 20_000),
            (0, 1, 10_000),
            (5_000, 1, 10_000),
            (5_000, 5_000, 10_000),
            (5_000, 15_000, 20_000),
            (290_000, 20_000, 300_000),
            (0, 400_000, 300_000),
        ] {
            let found = page_end(&engine, &view, from, page).await;
            assert_eq!(found, end, "{kind:?}, {page} from {from}");
        }
        let beyond = engine.plan(&view.core, Offset::new(300_001), view.tail.offset, None).await;
        assert_eq!(beyond, Err(Rejection::OffsetBeyondTail { tail: view.tail.offset }));
        engine.close().await;
    }
}

#[tokio::test]
async fn a_message_that_is_longer_than_a_page_comes_whole() {
    for kind in StoreKind::ALL {
        let (engine, _clock, _keep) = engine(*kind, 64);
        let json = ContentType::parse("application/json").unwrap();
        let create = Create { content_type: Some(json.clone()), ..Create::default() };
        engine.create(&path(), &create, Bytes::new()).await.unwrap();
        let append = Append { content_type: Some(Ok(json)), ..Append::default() };
        // More than is read at a time.
        let long = format!("[1, \"{}\", 2]", "x".repeat(200_000));
        engine.append(&path(), &append, long.into()).await.unwrap();
        let view = engine.head(&path()).await.unwrap();
        for (from, page, end) in [(0, 1, 2), (0, 1_000, 2), (2, 1_000, 200_005), (2, 1, 200_005)] {
            let found = page_end(&engine, &view, from, page).await;
            assert_eq!(found, end, "{kind:?}, {page} from {from}");
        }
        engine.close().await;
    }
}

/// Also where it is longer than what is read at a time.
#[tokio::test]
async fn a_page_ends_with_a_whole_message() {
    for kind in StoreKind::ALL {
        let (engine, _clock, _keep) = engine(*kind, 64);
        let json = ContentType::parse("application/json").unwrap();
        let create = Create { content_type: Some(json.clone()), ..Create::default() };
        engine.create(&path(), &create, Bytes::new()).await.unwrap();
        let append = Append { content_type: Some(Ok(json)), ..Append::default() };
        // Each takes a thousand bytes, with the byte that ends it.
        let messages = vec![format!("\"{}\"", "x".repeat(997)); 300].join(",");
        engine.append(&path(), &append, format!("[{messages}]").into()).await.unwrap();
        let view = engine.head(&path()).await.unwrap();
        for (from, page, end) in [
            (0, 1_000, 1_000),
            (0, 1_999, 1_000),
            (0, 100_000, 100_000),
            (0, 100_999, 100_000),
            (0, 250_500, 250_000),
            (7_000, 70_000, 77_000),
            (7_000, 70_999, 77_000),
            (299_000, 1, 300_000),
            (7_000, 293_000, 300_000),
        ] {
            let found = page_end(&engine, &view, from, page).await;
            assert_eq!(found, end, "{kind:?}, {page} from {from}");
        }
        engine.close().await;
    }
}

#[tokio::test]
async fn a_page_of_a_fork_goes_on_with_its_own_appends() {
    for kind in StoreKind::ALL {
        let (engine, _clock, _keep) = engine(*kind, 64);
        stream(&engine).await;
        let offset = engine.head(&path()).await.unwrap().core.offset_at(30_000);
        let source = Fork { source: path(), offset: Some(offset), sub_offset: 0 };
        let fork = StreamPath::new("fork").unwrap();
        let create = Create { fork: Some(source), ..Create::default() };
        engine.create(&fork, &create, Bytes::new()).await.unwrap();
        let content_type = ContentType::parse("application/octet-stream").unwrap();
        let append = Append { content_type: Some(Ok(content_type)), ..Append::default() };
        for _ in 0..3 {
            engine.append(&fork, &append, vec![7; 10_000].into()).await.unwrap();
        }
        let view = engine.head(&fork).await.unwrap();
        for (from, page, end) in [
            (0, 29_999, 20_000),
            (0, 30_000, 30_000),
            (0, 39_999, 30_000),
            (0, 40_000, 40_000),
            (20_000, 10_000, 30_000),
            (20_000, 20_000, 40_000),
            (30_000, 9_999, 40_000),
            (0, 99_000, 60_000),
        ] {
            let found = page_end(&engine, &view, from, page).await;
            assert_eq!(found, end, "{kind:?}, {page} from {from}");
        }
        engine.close().await;
    }
}

#[test]
fn a_slice_is_cut_at_both_ends() {
    let slice = |parts: &[&'static str]| ReadSlice {
        chunks: parts.iter().map(|part| Bytes::from_static(part.as_bytes())).collect(),
        end: Offset::new(10),
    };
    assert!(slice(&["\nab", "c"]).starts_with(b'\n') && !slice(&["ab"]).starts_with(b'\n'));
    assert!(!slice(&[]).starts_with(b'\n'));
    let mut skipped = slice(&["\n", "abc"]);
    skipped.skip_first();
    assert_eq!((skipped.len(), skipped), (3, slice(&["abc"])));
    let mut cut = slice(&["ab", "cde", "f"]);
    cut.cut(3);
    assert_eq!((cut.chunks.concat(), cut.end), (b"abc".to_vec(), Offset::new(7)));
}
