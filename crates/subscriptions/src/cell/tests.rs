use durable_streams_protocol::subscription::SubscriptionId;

use super::*;

fn name(tenant: Option<&str>, id: &str) -> SubscriptionName {
    let tenant = tenant.map(|tenant| TenantId::new(tenant).unwrap());
    SubscriptionName { tenant, id: SubscriptionId::new(id).unwrap() }
}

fn refused(claimed: Result<Arc<SubscriptionCell>, Refusal>) -> (&'static str, usize) {
    match claimed.map(|cell| cell.name.clone()) {
        Err(Refusal::TooMany { what, limit }) => (what, limit),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tenant_has_a_quarter_of_the_subscriptions_until_it_gives_them_back() {
    let registry = SubscriptionRegistry::default();
    let acme = |id: &str| registry.claim(&name(Some("acme"), id), 8);
    let (a, b) = (acme("a").unwrap(), acme("b").unwrap());
    assert_eq!(acme("a").unwrap().key, a.key, "it is there already");
    assert_eq!(refused(acme("c")), ("subscriptions of one tenant", 2));
    for id in ["1", "2", "3", "4", "5", "6"] {
        registry.claim(&name(None, id), 8).unwrap();
    }
    assert_eq!(refused(registry.claim(&name(None, "7"), 8)), ("subscriptions", 8));
    assert_eq!(refused(registry.claim(&name(Some("globex"), "a"), 8)), ("subscriptions", 8));
    for gone in [&b, &a] {
        registry.remove(gone);
        assert!(!registry.holds(gone) && registry.get(gone.key).is_none());
        // Twice is once.
        registry.remove(gone);
    }
    assert!(registry.maps.read().of_tenants.is_empty());
    assert_eq!((registry.len(), registry.all().len()), (6, 6));
    let (c, _) = (acme("c").unwrap(), acme("d").unwrap());
    assert_eq!(refused(acme("e")), ("subscriptions", 8));
    registry.remove(&c);
    assert_eq!(registry.maps.read().of_tenants.values().copied().collect::<Vec<_>>(), [1]);
    acme("e").unwrap();
}

/// The task that removes a cell may be late.
#[test]
fn a_removal_leaves_a_later_subscription_of_the_same_name() {
    let registry = SubscriptionRegistry::default();
    let first = registry.claim(&name(Some("acme"), "a"), 8).unwrap();
    registry.remove(&first);
    let second = registry.claim(&name(Some("acme"), "a"), 8).unwrap();
    assert_ne!(first.key, second.key);
    registry.remove(&first);
    assert_eq!(registry.find(&second.name).unwrap().key, second.key);
    assert!(registry.holds(&second) && registry.get(second.key).is_some());
    assert_eq!(registry.maps.read().of_tenants.len(), 1);
}

#[test]
fn a_page_is_in_order_whatever_the_map_holds_first() {
    let registry = SubscriptionRegistry::default();
    let mut names: Vec<_> = (0..40).map(|n| name(None, &format!("{n:02}"))).collect();
    names.extend((0..40).map(|n| name(Some("acme"), &format!("{n:02}"))));
    for name in names.iter().rev() {
        registry.claim(name, 1_000).unwrap();
    }
    let page = |after: Option<&SubscriptionName>, max, tenants: bool| {
        let cells = registry.page(after, max, |name| tenants || name.tenant.is_none());
        cells.iter().map(|cell| cell.name.clone()).collect::<Vec<_>>()
    };
    for max in [1, 2, 39, 40, 41, 80, 100] {
        assert_eq!(page(None, max, true), names[..max.min(80)]);
        assert_eq!(page(None, max, false), names[..max.min(40)]);
        assert_eq!(page(Some(&names[9]), max, true), names[10..(10 + max).min(80)]);
    }
    assert_eq!(page(names.last(), 9, true), []);
}

#[test]
fn of_a_stream_that_changes_often_the_last_state_is_kept() {
    let registry = SubscriptionRegistry::default();
    let cell = registry.claim(&name(None, "a"), 8).unwrap();
    let path = StreamPath::new("x").unwrap();
    let head = |tail| {
        let stream = durable_streams_protocol::StreamId(1);
        Some(StreamHead { stream, tail: durable_streams_protocol::Offset::new(tail) })
    };
    cell.note(&path, head(1));
    cell.note(&path, head(2));
    assert_eq!(cell.take_inbox(), HashMap::from([(path, head(2))]));
    assert_eq!(cell.take_inbox(), HashMap::new());
}
