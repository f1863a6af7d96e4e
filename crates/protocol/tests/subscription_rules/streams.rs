//! Links, heads and cursors: what a subscription knows of its streams, and what its log holds of them.

use durable_streams_protocol::{
    Offset, StreamId, Timestamp,
    subscription::{
        LinkCursor, LinkRecord, StreamHead, Subscription, SubscriptionEvent, decode_log,
        encode_batch,
    },
};

use crate::{at, name, path, pull_wake, record, subscription, webhook, with_work, woken};

fn head(stream: u64, tail: u64) -> Option<StreamHead> {
    Some(StreamHead { stream: StreamId(stream), tail: Offset::new(tail) })
}

fn tail(subscription: &Subscription, of: &str) -> Option<u64> {
    subscription.link(&path(of)).map(|link| link.tail().position())
}

#[test]
fn the_tail_of_one_stream_only_grows() {
    let mut subscription = subscription(webhook());
    let a = path("events/a");
    for (seen, expected) in [(head(1, 5), 5), (head(1, 9), 9), (head(1, 7), 9), (head(2, 3), 3)] {
        subscription.observe(&a, seen);
        assert_eq!(tail(&subscription, "events/a"), Some(expected), "{seen:?}");
    }
    assert_eq!(subscription.link(&a).unwrap().head, head(2, 3));
}

#[test]
fn a_pattern_links_the_streams_that_are_there_and_a_name_links_all() {
    let mut subscription = subscription(webhook());
    for (of, seen) in [("other/x", head(1, 5)), ("events/a", None)] {
        subscription.observe(&path(of), seen);
        assert_eq!(subscription.link_count(), 0, "{of}");
    }
    subscription.observe(&path("events/a"), head(1, 5));
    let named = ["events/b", "other/x"];
    let links = named.map(|of| LinkRecord { explicit: true, ..record(of, None) }).to_vec();
    subscription.apply(&SubscriptionEvent::Linked { links });
    for of in ["events/a", "events/b", "other/x"] {
        subscription.observe(&path(of), head(1, 5));
        subscription.observe(&path(of), None);
    }
    let linked: Vec<_> = subscription.linked_paths().map(ToString::to_string).collect();
    assert_eq!(linked, named, "the pattern links nothing that is gone");
    assert!(!subscription.has_pending());
    let types: Vec<_> =
        subscription.link_infos(None, 9).iter().map(|link| link.link_type).collect();
    assert_eq!(types, ["explicit", "explicit"]);
    let paths = vec![path("events/b"), path("other/x")];
    subscription.apply(&SubscriptionEvent::Unlinked { paths });
    // Replay does not know which streams exist, so the pattern keeps what it matches until it is observed.
    let link = subscription.link_infos(None, 9).pop().unwrap();
    assert_eq!((link.path.as_str(), link.link_type), ("events/b", "glob"));
    subscription.observe(&path("events/b"), None);
    assert_eq!(subscription.link_count(), 0);
}

#[test]
fn a_link_that_is_named_again_stays_named_and_keeps_its_cursor() {
    let mut subscription = with_work(webhook());
    let linked = |explicit, cursor| {
        let links = vec![LinkRecord { explicit, ..record("events/a", cursor) }];
        SubscriptionEvent::Linked { links }
    };
    subscription.apply(&linked(true, Some((1, 3))));
    subscription.apply(&linked(false, None));
    let link = subscription.link(&path("events/a")).unwrap();
    assert!(link.explicit);
    assert_eq!(link.cursor, Some(LinkCursor { stream: StreamId(1), acked: Offset::new(3) }));
    assert_eq!(subscription.lag(), (1, 2));
}

#[test]
fn the_cursor_in_another_stream_is_zero() {
    let mut subscription = with_work(webhook());
    let links = vec![record("events/a", Some((1, 5)))];
    subscription.apply(&SubscriptionEvent::Acked { links, lease_until: None });
    assert!(!subscription.has_pending() && subscription.first_pending().is_none());
    subscription.observe(&path("events/a"), head(2, 4));
    assert_eq!(subscription.link(&path("events/a")).unwrap().acked(), Offset::ZERO);
    assert_eq!(
        (subscription.lag(), subscription.first_pending()),
        ((1, 4), Some(&path("events/a")))
    );
}

#[test]
fn a_wake_shows_streams_with_work_first_and_a_page_goes_on_behind_a_path() {
    let mut subscription = subscription(webhook());
    for (of, tail) in [("events/a", 0), ("events/b", 7), ("events/c", 0), ("events/d", 9)] {
        subscription.observe(&path(of), head(1, tail));
    }
    let infos = subscription.stream_infos(3);
    let shown: Vec<_> = infos.iter().map(|info| (info.path.as_str(), info.has_pending)).collect();
    assert_eq!(shown, [("events/b", true), ("events/d", true), ("events/a", false)]);
    let (first, last) = (&infos[0], &infos[2]);
    assert_eq!((first.tail_offset, first.acked_offset), (Offset::new(7), Offset::ZERO));
    assert_eq!((first.link_type, first.stream), ("glob", Some(StreamId(1))));
    assert_eq!(last.tail_offset, Offset::ZERO);
    let page = |after: Option<&str>, max| {
        let infos = subscription.link_infos(after.map(path).as_ref(), max);
        infos.iter().map(|info| info.path.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 2), ["events/a", "events/b"]);
    assert_eq!(page(Some("events/b"), 9), ["events/c", "events/d"]);
    assert_eq!(subscription.link_count(), 4);
}

#[test]
fn a_log_begins_with_a_creation_and_is_complete_when_ready() {
    for tenant in [None, Some("acme")] {
        let created = || SubscriptionEvent::created(name(tenant), pull_wake(), at(77));
        let whole = Subscription::replay([created(), SubscriptionEvent::Ready]).unwrap();
        assert_eq!(whole.name(), &name(tenant));
        assert_eq!((whole.id().as_str(), whole.created_at()), ("s", at(77)));
        assert_eq!(whole.tenant().map(ToString::to_string).as_deref(), tenant);
        assert_eq!(whole.config(), &pull_wake());
        assert_eq!((whole.generation(), whole.wake(), whole.status()), (0, None, "active"));
        assert!(Subscription::replay([created()]).is_none(), "it was not finished");
        assert!(Subscription::replay([SubscriptionEvent::Ready, created()]).is_none());
    }
    assert!(Subscription::replay([]).is_none());
}

#[test]
fn a_rewritten_log_has_the_same_state() {
    let mut subscription = with_work(webhook());
    let streams: Vec<_> = (0..1_200).map(|n| (path(&format!("events/{n}")), head(n, 9))).collect();
    for event in subscription.link_explicit(&streams) {
        subscription.apply(&event);
    }
    for event in [woken(4), SubscriptionEvent::Paused] {
        subscription.apply(&event);
    }
    let log = encode_batch(&subscription.rewritten());
    assert!(log.ends_with(b"\n"));
    let mut again = Subscription::replay(decode_log(&log).unwrap()).unwrap();
    assert_eq!((again.generation(), again.wake()), (4, subscription.wake()));
    assert!(again.is_paused());
    assert_eq!(again.link_count(), 1_200, "the pattern finds the other one again");
    streams.iter().for_each(|(path, head)| again.observe(path, *head));
    again.observe(&path("events/a"), head(1, 5));
    streams.iter().for_each(|(path, head)| subscription.observe(path, *head));
    assert_eq!(again, subscription);
    let resumed: Vec<_> = again.pause(false).into_iter().chain(again.pause(true)).collect();
    assert_eq!(resumed, [SubscriptionEvent::Resumed]);
    again.apply(&resumed[0]);
    assert!(!again.is_paused() && again.pause(false).is_empty());
    assert_eq!(again.pause(true), [SubscriptionEvent::Paused]);
}

#[test]
fn a_log_that_is_cut_within_a_line_is_refused() {
    let log = encode_batch(&[SubscriptionEvent::Ready, SubscriptionEvent::Paused]);
    assert_eq!(decode_log(&log).unwrap(), [SubscriptionEvent::Ready, SubscriptionEvent::Paused]);
    assert_eq!(decode_log(b"").unwrap(), []);
    assert!(decode_log(&log[..log.len() - 3]).is_err());
}

#[test]
fn an_acknowledgement_extends_the_lease_only_if_it_says_so() {
    let mut subscription = with_work(webhook());
    subscription.apply(&woken(1));
    let lease = |subscription: &Subscription| subscription.wake().unwrap().lease_until;
    for (lease_until, expected) in [(None, 50_000), (Some(at(60_000)), 60_000)] {
        subscription.apply(&SubscriptionEvent::Acked { links: vec![], lease_until });
        assert_eq!(lease(&subscription), Some(Timestamp::from_millis(expected)));
    }
}

#[test]
fn a_stream_that_is_linked_by_name_starts_at_its_tail_once() {
    let mut subscription = with_work(webhook());
    let new =
        [(path("other/x"), head(1, 9)), (path("events/a"), head(1, 5)), (path("other/y"), None)];
    let events = subscription.link_explicit(&new);
    let explicit = |name, cursor| {
        let mut record = record(name, cursor);
        record.explicit = true;
        record
    };
    let links = vec![
        explicit("other/x", Some((1, 9))),
        explicit("events/a", None), // It keeps the cursor that it has.
        explicit("other/y", None),
    ];
    assert_eq!(events, [SubscriptionEvent::Linked { links }]);
    events.iter().for_each(|event| subscription.apply(event));
    assert_eq!(subscription.link_explicit(&new), [], "all of them are linked by name");
    let paths: Vec<_> = subscription.explicit_paths().map(ToString::to_string).collect();
    assert_eq!(paths, ["events/a", "other/x", "other/y"]);
    for name in ["other/x", "events/a"] {
        let events = subscription.unlink(&path(name));
        assert_eq!(events, [SubscriptionEvent::Unlinked { paths: vec![path(name)] }]);
        events.iter().for_each(|event| subscription.apply(event));
        assert_eq!(subscription.unlink(&path(name)), [], "{name} is not linked by name");
    }
    assert!(subscription.link(&path("other/x")).is_none());
    assert!(subscription.link(&path("events/a")).is_some(), "the pattern links it");
}
