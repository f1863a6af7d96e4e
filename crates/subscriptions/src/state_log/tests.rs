use durable_streams_engine::{
    Clock, EngineLimits,
    store::{AnyStore, MemoryStore},
};
use durable_streams_protocol::{
    Timestamp,
    subscription::{
        EndReason, LinkRecord, SubscriptionConfig, SubscriptionEvent, SubscriptionId, decode_log,
    },
};

use super::*;

fn engine() -> Engine {
    let store = AnyStore::Memory(MemoryStore::default());
    Engine::new(store, Clock::System, EngineLimits::default())
}

fn owner(id: &str) -> SubscriptionName {
    SubscriptionName { tenant: None, id: SubscriptionId::new(id).unwrap() }
}

fn config(description: usize) -> SubscriptionConfig {
    let body = format!(
        r#"{{"type":"pull-wake","wake_stream":"w","pattern":"a/*","description":"{}"}}"#,
        "d".repeat(description)
    );
    let request: durable_streams_protocol::subscription::CreateRequest =
        serde_json::from_str(&body).unwrap();
    request.into_config().unwrap()
}

fn created(description: usize) -> SubscriptionEvent {
    SubscriptionEvent::created(owner("s"), config(description), Timestamp::from_millis(1))
}

fn linked(paths: usize) -> SubscriptionEvent {
    let record = |n: usize| LinkRecord {
        path: StreamPath::new(&format!("{n:0>1000}")).unwrap(),
        explicit: true,
        cursor: None,
    };
    SubscriptionEvent::Linked { links: (0..paths).map(record).collect() }
}

fn logs(found: &[LogName]) -> Vec<(&str, u64)> {
    found.iter().map(|log| (log.folder.as_str(), log.number)).collect()
}

#[test]
fn events_are_packed_into_as_few_appends_as_fit() {
    let events = vec![created(4_000); 300];
    let one = encode_batch(&events[..1]).len();
    let packed = chunks(&events);
    let most = 256 * 1024 / one;
    assert_eq!(packed.len(), 300_usize.div_ceil(most));
    assert_eq!(packed[0].len(), most * one);
    assert_eq!(packed.concat(), encode_batch(&events));
    let large = [created(0), linked(300), created(0)];
    let packed: Vec<usize> = chunks(&large).iter().map(Vec::len).collect();
    assert!(packed.len() == 3 && packed[1] > MAX_APPEND, "an event is never cut: {packed:?}");
    assert_eq!(chunks(&[]), Vec::<Vec<u8>>::new());
}

#[test]
fn an_append_may_be_just_as_large_as_the_bound() {
    let size = |event: &SubscriptionEvent| encode_batch(std::slice::from_ref(event)).len();
    let (large, short) = (linked(252), size(&created(0)));
    let length = size(&large);
    let filler = |bytes: usize| created(bytes - short);
    let rest = MAX_APPEND - length;
    let exact = chunks(&[large.clone(), filler(rest)]);
    assert_eq!(exact.iter().map(Vec::len).collect::<Vec<_>>(), [MAX_APPEND]);
    let over = chunks(&[large, filler(rest + 1)]);
    assert_eq!(over.iter().map(Vec::len).collect::<Vec<_>>(), [length, rest + 1]);
}

#[test]
fn a_log_is_long_beyond_four_times_its_size_after_the_last_rewrite() {
    let log = |base: u64, size: u64| {
        let path = StreamPath::system("__ds/subscriptions/s/0").unwrap();
        SubscriptionLog { path, number: 0, older: Vec::new(), base, size }.is_long()
    };
    for (base, bound) in [(0, 65_536), (1_000, 69_536), (100_000, 465_536)] {
        assert_eq!((log(base, bound), log(base, bound + 1)), (false, true), "{base}");
    }
}

#[tokio::test]
async fn a_log_is_written_read_rewritten_and_deleted() {
    let engine = engine();
    // More than one append, and more than one page of a read.
    let mut events = vec![created(10), SubscriptionEvent::Ready];
    events.extend((0..6).map(|_| linked(250)));
    let mut log = SubscriptionLog::create(&engine, &owner("s"), &events).await.unwrap();
    let written = encode_batch(&events);
    assert!(written.len() > 1024 * 1024);
    assert_eq!((log.size, log.base), (written.len() as u64, written.len() as u64));
    assert_eq!(log.read(&engine).await.unwrap(), written);
    let ended = [SubscriptionEvent::Ended { reason: EndReason::Done }];
    log.commit(&engine, &ended).await.unwrap();
    let all = [written, encode_batch(&ended)].concat();
    assert_eq!((log.size, log.read(&engine).await.unwrap()), (all.len() as u64, all.clone()));
    assert_eq!(decode_log(&all).unwrap().len(), events.len() + 1);
    let found = list(&engine).await.unwrap();
    assert_eq!(logs(&found), [("s", 0)]);
    let (opened, bytes) = SubscriptionLog::open(&engine, &found[0]).await.unwrap();
    assert_eq!(
        (opened.number, opened.size, opened.base),
        (0, bytes.len() as u64, bytes.len() as u64 / 2)
    );
    assert_eq!(bytes, all);
    log.rewrite(&engine, &owner("s"), &events[..2]).await.unwrap();
    assert_eq!(logs(&list(&engine).await.unwrap()), [("s", 1)], "the one before it is gone");
    assert_eq!(log.read(&engine).await.unwrap(), encode_batch(&events[..2]));
    log.delete(&engine).await.unwrap();
    assert_eq!(list(&engine).await.unwrap(), []);
    log.delete(&engine).await.unwrap();
}

/// A crash may leave both logs of a rewrite, or a part of the new one; deletion leaves none that a start would replay.
#[tokio::test]
async fn a_new_log_follows_what_is_left_and_takes_it_along() {
    let engine = engine();
    let ready = [SubscriptionEvent::Ready];
    for number in [3, 7] {
        SubscriptionLog::write(&engine, &owner("s"), number, &ready).await.unwrap();
    }
    let other = SubscriptionLog::create(&engine, &owner("s2"), &ready).await.unwrap();
    let mut log = SubscriptionLog::create(&engine, &owner("s"), &ready).await.unwrap();
    let found = list(&engine).await.unwrap();
    assert_eq!(logs(&found), [("s", 8), ("s", 7), ("s", 3), ("s2", 0)], "the newest first");
    assert_eq!((log.number, other.number), (8, 0));
    log.delete(&engine).await.unwrap();
    assert_eq!(logs(&list(&engine).await.unwrap()), [("s2", 0)]);
    let mut newest = SubscriptionLog::write(&engine, &owner("s"), 2, &ready).await.unwrap();
    SubscriptionLog::write(&engine, &owner("s"), 1, &ready).await.unwrap();
    let found = list(&engine).await.unwrap();
    newest.replaces(&found[1]);
    newest.delete_older(&engine).await.unwrap();
    assert_eq!(logs(&list(&engine).await.unwrap()), [("s", 2), ("s2", 0)]);
}
