//! Rules against streams whose ages, bytes and messages are known, on both stores.

use bytes::Bytes;
use durable_streams_protocol::subscription::Glob;
use durable_streams_protocol::{
    Append, ContentType, Create, Fork, Offset, ReadFrom, TenantId, stored_path,
};

use super::*;
use crate::{
    Clock, EngineLimits, ManualClock,
    store::{AnyStore, FileStore, FileStoreOptions, MemoryStore},
};

struct Scene {
    engine: Engine,
    clock: ManualClock,
    _dir: Option<tempfile::TempDir>,
}

fn path(text: &str) -> StreamPath {
    StreamPath::system(text).unwrap()
}

fn rule(paths: &str) -> RetentionRule {
    let paths = Glob::parse(paths).unwrap();
    RetentionRule { paths, keep_for: None, keep_bytes: None, keep_messages: None }
}

fn scene(file: bool, retention: Vec<RetentionRule>) -> Scene {
    let dir = file.then(|| tempfile::tempdir().unwrap());
    let store = match &dir {
        Some(dir) => AnyStore::File(FileStore::open(FileStoreOptions::new(dir.path())).unwrap()),
        None => AnyStore::Memory(MemoryStore::default()),
    };
    let clock = ManualClock::default();
    clock.advance_millis(1_000_000);
    let limits = EngineLimits { retention, ..EngineLimits::default() };
    let engine = Engine::new(store, Clock::Manual(clock.clone()), limits);
    Scene { engine, clock, _dir: dir }
}

impl Scene {
    async fn create(&self, text: &str, content_type: &str) {
        let content_type = ContentType::parse(content_type);
        let create = Create { content_type, ..Create::default() };
        self.engine.create(&path(text), &create, Bytes::new()).await.unwrap();
    }

    async fn append(&self, text: &str, data: &str) {
        let view = self.engine.head(&path(text)).await.unwrap();
        let content_type = Some(Ok(view.core.content_type.clone()));
        let append = Append { content_type, ..Append::default() };
        self.engine.append(&path(text), &append, data.to_owned().into()).await.unwrap();
    }

    /// What a reader finds from the beginning.
    async fn read(&self, text: &str) -> String {
        let view = self.engine.head(&path(text)).await.unwrap();
        let from = view.start(ReadFrom::Start).unwrap();
        let slice = self.engine.read(&view.core, from, view.tail.offset, 1 << 20).await.unwrap();
        String::from_utf8(slice.chunks.concat()).unwrap()
    }

    async fn pass(&self, seconds: u64) {
        self.clock.advance_millis(seconds * 1_000);
        self.engine.retain_all().await;
    }
}

/// On both stores; a panic inside is the test's.
async fn on_both(retention: Vec<RetentionRule>, test: impl AsyncFn(&Scene)) {
    for file in [false, true] {
        let scene = scene(file, retention.clone());
        test(&scene).await;
        scene.engine.close().await;
    }
}

#[tokio::test]
async fn what_is_older_goes_within_a_sixteenth_and_nothing_younger() {
    let hour = RetentionRule { keep_for: Some(Duration::from_secs(3_600)), ..rule("logs/**") };
    on_both(vec![hour], async |scene| {
        scene.create("logs/a", "text/plain").await;
        scene.create("other", "text/plain").await;
        for minute in 0..180_u64 {
            let line = format!("{minute:03},");
            scene.append("logs/a", &line).await;
            scene.append("other", &line).await;
            scene.pass(60).await;
            let found = scene.read("logs/a").await;
            let oldest: u64 = found[..3].parse().unwrap();
            assert!(oldest <= (minute + 1).saturating_sub(60), "{minute}: younger than an hour");
            assert!(minute + 1 - oldest <= 60 + 60 / 16 + 2, "{minute}: {oldest} is too old");
            assert!(found.ends_with(&line));
        }
        assert_eq!(scene.read("other").await.len(), 4 * 180);
        let page = scene.engine.list_streams(Bound::Unbounded, "logs/", 9).await.unwrap();
        let summary = page.streams[0].summary.as_ref().unwrap();
        assert!((60..=66).contains(&summary.messages.unwrap()), "{summary:?}");
        scene.pass(7_200).await;
        scene.pass(7_200).await;
        assert_eq!(scene.read("logs/a").await, "", "nobody appends any more");
        let stats = scene.engine.stats();
        assert_eq!((stats.trimmed_bytes, stats.trimmed_messages), (4 * 180, 180));
    })
    .await;
}

#[tokio::test]
async fn the_last_bytes_stay_with_the_message_that_they_begin_in() {
    let rules = vec![RetentionRule { keep_bytes: Some(100), ..rule("**") }];
    on_both(rules, async |scene| {
        scene.create("t", "text/plain").await;
        scene.create("j", "application/json").await;
        for n in 0..50 {
            scene.append("t", &format!("{n:07},")).await;
            scene.append("j", &format!("[1{n}]")).await;
            scene.pass(1).await;
            let (text, json) = (scene.read("t").await, scene.read("j").await);
            assert!(text.len() <= 100 + 100 / 16 + 8, "{}", text.len());
            assert!(n < 12 || text.len() >= 100, "{}", text.len());
            assert!(text.len().is_multiple_of(8));
            assert!(json.len() <= 100 + 100 / 16 + 4, "{}", json.len());
            assert!(json.starts_with('1') && json.ends_with('\u{1e}'), "whole messages: {json:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_last_messages_stay_whatever_their_size() {
    let rules = vec![RetentionRule { keep_messages: Some(20), ..rule("*") }];
    on_both(rules, async |scene| {
        for (text, content_type) in [("t", "text/plain"), ("j", "application/json")] {
            scene.create(text, content_type).await;
            for n in 0..100_u64 {
                let message = "7".repeat(1 + n as usize % 5);
                scene.append(text, &message).await;
                if n == 50 {
                    // An explicit trim, after which the count of what is before is not known.
                    let view = scene.engine.head(&path(text)).await.unwrap();
                    let before = view.tail.offset.position() - view.tail.earliest.position();
                    let middle = view.core.offset_at(view.tail.earliest.position() + before / 2);
                    let _ = scene.engine.trim(&path(text), middle).await;
                }
                scene.pass(1).await;
            }
            let found = scene.read(text).await;
            let expected: Vec<String> = (0..100).map(|n| "7".repeat(1 + n % 5)).collect();
            let last: String = expected[80..]
                .iter()
                .map(|one| match text {
                    "j" => format!("{one}\u{1e}"),
                    _ => one.clone(),
                })
                .collect();
            assert!(found.ends_with(&last), "{text}: at least the last 20");
            assert!(found.len() <= last.len() + 18, "{text}: {} and {}", found.len(), last.len());
        }
    })
    .await;
}

/// A sixteenth of 32 is 2.
#[tokio::test]
async fn messages_go_when_there_are_a_sixteenth_too_many() {
    let rules = vec![RetentionRule { keep_messages: Some(32), ..rule("*") }];
    on_both(rules, async |scene| {
        for (text, content_type, message) in
            [("t", "text/plain", "1"), ("j", "application/json", "1")]
        {
            scene.create(text, content_type).await;
            for n in 1..=80_usize {
                scene.append(text, message).await;
                scene.pass(1).await;
                let left = if n <= 34 { n } else { 32 + (n - 35) % 3 };
                let found = scene.read(text).await.matches('1').count();
                assert_eq!(found, left, "{text}, after {n}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn bytes_go_when_there_are_a_sixteenth_too_many() {
    let rules = vec![RetentionRule { keep_bytes: Some(32), ..rule("*") }];
    on_both(rules, async |scene| {
        scene.create("t", "text/plain").await;
        for n in 1..=80_usize {
            scene.append("t", "1").await;
            scene.pass(1).await;
            let left = if n <= 34 { n } else { 32 + (n - 35) % 3 };
            assert_eq!(scene.read("t").await.len(), left, "after {n}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_first_rule_that_matches_counts_for_tenants_too() {
    let rules = vec![
        rule("keep/**"),
        RetentionRule { keep_bytes: Some(10), ..rule("**") },
        RetentionRule { keep_bytes: Some(1), ..rule("never") },
    ];
    on_both(rules, async |scene| {
        let tenant = TenantId::new("acme").unwrap();
        let of_tenant = stored_path(Some(&tenant), &StreamPath::new("a").unwrap()).unwrap();
        let kept = stored_path(Some(&tenant), &StreamPath::new("keep/a").unwrap()).unwrap();
        let system = "__ds/subscriptions/s";
        for text in ["keep/a", "a", "never", of_tenant.as_str(), kept.as_str(), system] {
            scene.create(text, "text/plain").await;
            for _ in 0..10 {
                scene.append(text, "12345").await;
            }
        }
        scene.pass(1).await;
        for (text, left) in [
            ("keep/a", 50),
            ("a", 10),
            ("never", 10),
            (of_tenant.as_str(), 10),
            (kept.as_str(), 50),
            (system, 50),
        ] {
            assert_eq!(scene.read(text).await.len(), left, "{text}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_walk_goes_through_many_streams_and_lets_go_what_forks_needed() {
    let rules = vec![RetentionRule { keep_bytes: Some(4), ..rule("s/*") }];
    on_both(rules, async |scene| {
        for n in 0..300 {
            scene.create(&format!("s/{n}"), "text/plain").await;
            scene.append(&format!("s/{n}"), "12345678").await;
            scene.append(&format!("s/{n}"), "1234").await;
        }
        let source = StreamPath::new("s/7").unwrap();
        let fork = Create {
            fork: Some(Fork { source: source.clone(), offset: Some(Offset::ZERO), sub_offset: 8 }),
            ..Create::default()
        };
        scene.engine.create(&path("fork"), &fork, Bytes::new()).await.unwrap();
        scene.pass(1).await;
        for n in 0..300 {
            assert_eq!(scene.read(&format!("s/{n}")).await, "1234", "{n}");
        }
        assert_eq!(scene.read("fork").await, "12345678");
        let own = async || {
            let page = scene.engine.list_streams(Bound::Included(&source), "s/7", 1).await.unwrap();
            page.streams[0].summary.as_ref().unwrap().own_bytes()
        };
        assert_eq!(own().await, 12);
        scene.engine.delete(&path("fork")).await.unwrap();
        // The deletion of the last fork lets go of them, by an event that it does not wait for.
        let let_go = async {
            while own().await != 4 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), let_go).await.expect("what it kept");
    })
    .await;
}

#[tokio::test]
async fn rules_change_while_the_engine_runs() {
    let scene = scene(false, Vec::new());
    scene.create("a", "text/plain").await;
    scene.append("a", "12345").await;
    scene.append("a", "67890").await;
    scene.pass(1).await;
    assert_eq!(scene.read("a").await, "1234567890");
    assert_eq!(scene.engine.retention_pause(), PAUSES[1]);
    let keep_for = Some(Duration::from_secs(32));
    let retention = vec![RetentionRule { keep_for, keep_bytes: Some(5), ..rule("a") }];
    scene.engine.set_limits(EngineLimits { retention, ..EngineLimits::default() });
    assert_eq!(scene.engine.retention_pause(), Duration::from_secs(2));
    scene.pass(1).await;
    assert_eq!(scene.read("a").await, "67890");
}

#[tokio::test(start_paused = true)]
async fn rules_are_applied_again_and_again_until_the_engine_is_gone() {
    let rules = vec![RetentionRule { keep_bytes: Some(10), ..rule("logs/**") }];
    let Scene { engine, .. } = scene(false, rules);
    let engine = std::sync::Arc::new(engine);
    let mut walking = tokio::spawn(Engine::retention(std::sync::Arc::downgrade(&engine)));
    let create = Create { content_type: ContentType::parse("text/plain"), ..Create::default() };
    // More streams than a walk looks at in one go.
    let names: Vec<StreamPath> = (0..500).map(|n| path(&format!("logs/{n:03}"))).collect();
    for _ in 0..2 {
        for name in &names {
            engine.create(name, &create, Bytes::new()).await.unwrap();
            let append =
                Append { content_type: create.content_type.clone().map(Ok), ..Append::default() };
            for _ in 0..3 {
                engine.append(name, &append, Bytes::from_static(b"0123456789")).await.unwrap();
            }
        }
        tokio::time::sleep(2 * PAUSES[1]).await;
        for name in &names {
            let tail = engine.head(name).await.unwrap().tail;
            assert_eq!(tail.offset.position() - tail.earliest.position(), 10, "{}", name.as_str());
        }
    }
    drop(engine);
    tokio::time::timeout(2 * PAUSES[1], &mut walking).await.expect("it ends").unwrap();
}
