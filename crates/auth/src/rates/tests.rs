use super::*;
use http::{HeaderMap, Method};

const RULE: RateRule = RateRule { requests: 10, burst: 3, bytes: None };

fn rules() -> RateRules {
    let rule = Some(RULE);
    RateRules { client: rule, principal: rule, tenant: rule, paths: Vec::new(), buckets: 64 }
}

fn from(limits: &RateLimits, address: &str, now: u64) -> Result<(), AccessError> {
    let headers = HeaderMap::new();
    limits.client(&RequestHead {
        method: &Method::GET,
        query: None,
        headers: &headers,
        path: None,
        client: address.parse().ok(),
        certificate: None,
        other_path: None,
        now: Timestamp::from_millis(now),
    })
}

#[test]
fn a_burst_then_the_rate() {
    let limits = RateLimits::new(rules());
    for _ in 0..3 {
        assert_eq!(from(&limits, "192.0.2.1", 1_000), Ok(()));
    }
    let Err(AccessError::RateLimited(RateRefusal { retry_after, .. })) =
        from(&limits, "192.0.2.1", 1_000)
    else {
        panic!("the bucket is empty")
    };
    assert!(retry_after <= Duration::from_millis(100), "{retry_after:?}");
    assert_eq!(from(&limits, "192.0.2.2", 1_000), Ok(()), "another address");
    assert_eq!(from(&limits, "192.0.2.1", 1_100), Ok(()), "one more after a tenth of a second");
    assert!(from(&limits, "192.0.2.1", 1_100).is_err());
    assert!(from(&limits, "192.0.2.1", 900).is_err(), "a clock that goes back gives nothing");
    for _ in 0..3 {
        assert_eq!(from(&limits, "192.0.2.1", 60_000), Ok(()), "never more than the burst");
    }
    assert!(from(&limits, "192.0.2.1", 60_000).is_err());
}

#[test]
fn one_subscriber_is_one_client() {
    let limits = RateLimits::new(rules());
    for number in 1..=3 {
        assert_eq!(from(&limits, &format!("2001:db8:0:1::{number}"), 1_000), Ok(()));
    }
    assert!(from(&limits, "2001:db8:0:1::9", 1_000).is_err());
    assert_eq!(from(&limits, "2001:db8:0:2::1", 1_000), Ok(()));
    assert_eq!(from(&limits, "::ffff:192.0.2.1", 1_000), Ok(()));
}

#[test]
fn principals_of_a_tenant_share_its_rate() {
    let limits = RateLimits::new(RateRules {
        tenant: Some(RateRule { requests: 1, burst: 4, bytes: None }),
        ..rules()
    });
    limits.clock.tick(Timestamp::from_millis(1_000));
    let tenant = crate::TenantId::new("acme").ok();
    let (one, other) = (
        Principal::new("one").with_tenant(tenant.clone()),
        Principal::new("other").with_tenant(tenant),
    );
    for principal in [&one, &one, &one, &other] {
        assert_eq!(limits.principal(principal), Ok(()));
    }
    assert!(limits.principal(&one).is_err(), "its own rate");
    assert!(limits.principal(&other).is_err(), "its tenant's");
    assert!(limits.principal(&Principal::new("one")).is_err(), "in whatever tenant");
    for _ in 0..9 {
        assert_eq!(limits.principal(&Principal::anonymous(Vec::new())), Ok(()));
    }
}

#[test]
fn a_prefix_has_a_rate_of_its_own() {
    let rule = RateRule { requests: 1, burst: 2, bytes: None };
    let paths = vec![(PathPrefix::new("chat").unwrap(), rule)];
    let limits = RateLimits::new(RateRules { paths, ..RateRules::default() });
    let path = |text: &str| StreamPath::new(text).unwrap();
    assert_eq!(limits.path(&path("chat/a")), Ok(()));
    assert_eq!(limits.path(&path("chat")), Ok(()));
    let Err(AccessError::RateLimited(refusal)) = limits.path(&path("chat/b")) else {
        panic!("the bucket is empty")
    };
    assert_eq!((refusal.policy, refusal.quota, refusal.window), ("path", 2, Some(2)));
    for _ in 0..9 {
        assert_eq!(limits.path(&path("chats")), Ok(()));
    }
}

#[test]
fn a_flood_of_addresses_stays_within_the_bound() {
    let limits = RateLimits::new(rules());
    for number in 0..10_000_u32 {
        let _ = from(&limits, &std::net::Ipv4Addr::from(number).to_string(), 1_000);
    }
    let table = limits.client.as_ref().unwrap();
    let held: usize = table
        .shards
        .iter()
        .map(|shard| {
            let shard = shard.lock();
            shard.young.len() + shard.old.len()
        })
        .sum();
    assert!(held <= 64, "{held}");
    // A bucket with its counts, and its place in a map that is at least half full.
    let bytes = mem::size_of::<RateBucket>() + 16 + 2 * (mem::size_of::<(u64, Bucket)>() + 1);
    assert!(bytes <= 512, "{bytes}");
}
