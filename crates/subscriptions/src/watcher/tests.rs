use durable_streams_protocol::{Create, Decision, StreamId, StreamState, Timestamp, stored_path};

use super::*;

fn path(text: &str) -> StreamPath {
    StreamPath::new(text).unwrap()
}

fn config(
    pattern: Option<&str>,
    streams: &[&str],
    wake_stream: Option<&str>,
) -> SubscriptionConfig {
    let webhook = || DeliveryConfig::Webhook { url: "https://w.example/".into() };
    let pull_wake = |stream| DeliveryConfig::PullWake { wake_stream: path(stream) };
    SubscriptionConfig {
        delivery: wake_stream.map_or_else(webhook, pull_wake),
        pattern: pattern.map(|pattern| Glob::parse(pattern).unwrap()),
        streams: streams.iter().map(|stream| path(stream)).collect(),
        lease_ttl_ms: 1_000,
        description: None,
    }
}

const ONE: SubscriptionKey = SubscriptionKey(1);
const TWO: SubscriptionKey = SubscriptionKey(2);

fn configs() -> [SubscriptionConfig; 4] {
    [
        config(Some("a/*"), &["b", "c/d"], None),
        config(Some("a/**"), &[], Some("w")),
        config(Some("**/end"), &["b"], Some("w")),
        config(None, &["b"], None),
    ]
}

fn is_empty(watcher: &StreamWatcher) -> bool {
    let (filter, globs) = (watcher.filter.read(), watcher.globs.read());
    let left = filter.tenants.len() + globs.tenants.len();
    filter.none.is_empty() && globs.none.is_empty() && left == 0
}

fn watched(watcher: &StreamWatcher) -> usize {
    watcher.watched.load(Ordering::Relaxed)
}

/// In any order of their ends, and over stored subscriptions as over new ones.
#[test]
fn nothing_is_kept_of_subscriptions_that_are_gone() {
    let acme = TenantId::new("acme").unwrap();
    for tenant in [None, Some(&acme)] {
        for (first, new) in (0..4).flat_map(|first| [(first, true), (first, false)]) {
            let watcher = StreamWatcher::default();
            let all = configs();
            for (n, config) in all.iter().enumerate() {
                let key = SubscriptionKey(n as u64);
                if new {
                    watcher.watch_new(tenant, config, key).unwrap();
                } else {
                    watcher.watch(tenant, config, key);
                }
            }
            // Three patterns, two wake streams, and four explicit streams.
            assert_eq!(watched(&watcher), 9);
            watcher.watch_path(tenant, &path("more"), ONE);
            watcher.watch_path(tenant, &path("more"), ONE);
            assert_eq!(watched(&watcher), 10);
            watcher.unwatch_path(tenant, &path("more"), TWO);
            watcher.unwatch_path(tenant, &path("none"), ONE);
            assert_eq!(watched(&watcher), 10, "it does not watch those");
            for n in (0..4).map(|n| (first + n) % 4) {
                assert!(!is_empty(&watcher));
                let explicit = [path("more")];
                let key = SubscriptionKey(n as u64);
                watcher.unwatch(tenant, &all[n], explicit.iter().take(usize::from(n == 1)), key);
            }
            assert_eq!((watched(&watcher), is_empty(&watcher)), (0, true), "{first}");
        }
    }
}

#[test]
fn the_commit_path_asks_for_paths_first_segments_and_new_wake_streams() {
    let mut filter = WatchFilter::default();
    let head = |tail| Some(StreamHead { stream: StreamId(1), tail: Offset::new(tail) });
    insert(&mut filter.paths, &path("b/c"), ONE);
    insert(&mut filter.wake_streams, &path("w"), ONE);
    filter.add_pattern(&Glob::parse("a/*").unwrap());
    filter.add_pattern(&Glob::parse("a/b").unwrap());
    for (name, at, expected) in [
        ("b/c", head(5), true),
        ("b/d", head(5), false),
        ("a", head(5), true),
        ("a/x/y", head(5), true),
        ("aa", head(5), false),
        ("w", head(0), true),
        ("w", None, true),
        ("w", head(5), false),
        ("other", None, false),
    ] {
        assert_eq!(filter.may_watch(name, at), expected, "{name} {at:?}");
    }
    filter.add_pattern(&Glob::parse("*/x").unwrap());
    assert!(filter.may_watch("other", head(5)), "a pattern that begins with a wildcard");
    filter.remove_pattern(&Glob::parse("*/x").unwrap());
    assert!(!filter.may_watch("other", head(5)));
    filter.remove_pattern(&Glob::parse("a/*").unwrap());
    assert!(filter.may_watch("a/x", head(5)), "another pattern begins with it, too");
    filter.remove_pattern(&Glob::parse("a/b").unwrap());
    assert!(!filter.may_watch("a/x", head(5)));
}

/// A stream, and its tail after some bytes.
fn stream(stored: &StreamPath) -> Arc<StreamCore> {
    let at = Timestamp::from_millis(1);
    let created = StreamState::create(
        StreamId(7),
        stored,
        &Create::default(),
        None,
        Ok(Default::default()),
        at,
    );
    let Decision::Commit(event, _) = created.unwrap() else { panic!("it creates") };
    StreamState::fold(None, StreamId(7), &event).unwrap().core
}

/// Whether the driver would look for changes now.
async fn has_changed(watcher: &StreamWatcher) -> bool {
    tokio::time::timeout(std::time::Duration::from_millis(1), watcher.changed()).await.is_ok()
}

#[tokio::test]
async fn changes_are_handed_on_once_to_each_subscription_that_they_concern() {
    let acme = TenantId::new("acme").unwrap();
    for tenant in [None, Some(&acme)] {
        let watcher = StreamWatcher::default();
        let change = |name: &str, tail: Option<u64>| {
            let stored = match name.starts_with("__ds") {
                true => StreamPath::system(name).unwrap(),
                false => stored_path(tenant, &path(name)).unwrap(),
            };
            let offset = Offset::new(tail.unwrap_or(9));
            let tail = Tail { offset, gone: tail.is_none(), ..Tail::default() };
            watcher.on_durable(&stored, Some(&stream(&stored)), tail);
        };
        let routed = || {
            let mut all = Vec::new();
            watcher.route(|key, path, head| {
                all.push((key.0, path.to_string(), head.map(|head| head.tail.position())));
            });
            all.sort();
            all
        };
        change("a/1", Some(1));
        assert!(watcher.dirty.lock().is_empty(), "there are no subscriptions");
        watcher.watch_new(tenant, &config(Some("a/*"), &["a/1"], None), ONE).unwrap();
        watcher.watch_new(tenant, &config(Some("a/*"), &[], Some("w")), TWO).unwrap();
        assert!(!has_changed(&watcher).await);
        change("b", Some(1));
        assert!(!has_changed(&watcher).await, "nobody links it");
        change("a/1", Some(1));
        assert!(has_changed(&watcher).await);
        for (name, tail) in [("a/2/3", Some(1)), ("a/1", Some(3))] {
            change(name, tail);
        }
        assert!(!has_changed(&watcher).await, "once until the changes are handed on");
        change("__ds/lifecycle", Some(1));
        assert_eq!(watcher.dirty.lock().len(), 2, "`a/2/3` may match");
        let a = || "a/1".to_owned();
        assert_eq!(routed(), [(1, a(), Some(3)), (2, a(), Some(3))]);
        assert_eq!(routed(), []);
        watcher.nudge();
        assert!(has_changed(&watcher).await);
        change("a/1", None);
        change("w", Some(5));
        assert_eq!(routed(), [(1, a(), None), (2, a(), None)], "a wake is no change");
        change("w", Some(0));
        assert_eq!(routed(), [(2, "w".into(), Some(0))]);
        change("w", None);
        assert_eq!(routed(), [(2, "w".into(), None)]);
        assert_eq!(watcher.watchers(tenant, &path("a/1")), [ONE, TWO]);
        let others = if tenant.is_some() { None } else { Some(&acme) };
        assert_eq!(watcher.watchers(others, &path("a/1")), []);
    }
}

#[test]
fn a_pattern_without_room_is_not_watched() {
    let acme = TenantId::new("acme").unwrap();
    let watcher = StreamWatcher::default();
    // Each has 25 floating segments of its own.
    let glob = |n: usize| {
        let tail: Vec<String> = (0..24).map(|at| format!("{n}-{at}")).collect();
        config(Some(&format!("**/{}", tail.join("/"))), &[], None)
    };
    let key = |n: usize| SubscriptionKey(n as u64);
    let fit = |tenant, from: usize| {
        let mut range = from..;
        range.find(|n| watcher.watch_new(tenant, &glob(*n), key(*n)).is_err()).unwrap() - from
    };
    // `**` is shared: one node, and 24 for each pattern.
    assert_eq!(fit(Some(&acme), 0), (MAX_FLOATING / 4 - 1) / 24);
    let globex = TenantId::new("globex").unwrap();
    assert_eq!(fit(Some(&globex), 1_000), (MAX_FLOATING / 4 - 1) / 24);
    let left = MAX_FLOATING - 2 * ((MAX_FLOATING / 4 - 1) / 24 * 24 + 1);
    assert_eq!(fit(None, 2_000), (left - 1) / 24);
    let before = watched(&watcher);
    let all = watcher.watch_new(Some(&acme), &glob(9_000), ONE).unwrap_err();
    assert_eq!(all, Refusal::TooMany { what: FLOATING_OF_ALL, limit: MAX_FLOATING });
    let hooli = TenantId::new("hooli").unwrap();
    assert!(watcher.watch_new(Some(&hooli), &glob(9_001), ONE).is_err());
    assert_eq!(watched(&watcher), before);
    assert!(watcher.globs.read().get(Some("hooli")).is_none(), "nothing is kept of it");
}
