//! Metering of bytes: what a request sends and what its response carries, against the buckets of bytes that are for it.
//!
//! A body of known length is taken as a whole or refused, a read is refused while a bucket is empty. What was begun is
//! slowed down instead: each piece waits until there are tokens for it.

use std::{sync::Arc, time::Duration};

use durable_streams_protocol::Timestamp;

use crate::{
    AccessError,
    rates::{RateBucket, RateClock, TokenBucket},
};

/// The buckets that the bytes of one request are taken from.
pub struct ByteMeter {
    clock: RateClock,
    buckets: Box<[MeteredBucket]>,
}

/// A bucket that has bytes.
pub(crate) struct MeteredBucket(pub(crate) Arc<RateBucket>);

/// Bytes that are being taken from each bucket in turn.
#[derive(Clone, Copy, Debug)]
pub struct MeteredBytes {
    bytes: u64,
    bucket: usize,
    left: u64,
}

impl MeteredBytes {
    /// None of them is taken yet.
    pub fn new(bytes: usize) -> Self {
        let bytes = bytes as u64;
        MeteredBytes { bytes, bucket: 0, left: bytes }
    }
}

impl ByteMeter {
    pub(crate) fn of(clock: RateClock, buckets: Vec<MeteredBucket>) -> Option<Self> {
        (!buckets.is_empty()).then(|| ByteMeter { clock, buckets: buckets.into() })
    }

    fn buckets(&self) -> impl Iterator<Item = &TokenBucket> {
        self.buckets.iter().filter_map(|bucket| bucket.0.bytes.as_ref())
    }

    /// Takes the bytes of a body from every bucket, or refuses it. A body that is larger than a bucket takes all of it.
    ///
    /// # Errors
    /// [`AccessError::RateLimited`]. Buckets that were asked before have given their tokens then.
    pub fn take(&self, bytes: usize, now: Timestamp) -> Result<(), AccessError> {
        self.clock.tick(now);
        self.buckets().try_for_each(|bucket| bucket.take(bytes as u64))
    }

    /// Lets a read begin unless a bucket is empty; it takes one byte.
    ///
    /// # Errors
    /// [`AccessError::RateLimited`].
    pub fn begin(&self, now: Timestamp) -> Result<(), AccessError> {
        self.take(1, now)
    }

    /// Takes what is left of `metered` as far as there are tokens. Returns how long to wait before the next call; `None`
    /// when all is taken.
    pub fn step(&self, metered: &mut MeteredBytes, now: Timestamp) -> Option<Duration> {
        self.clock.tick(now);
        while let Some(bucket) = self.buckets().nth(metered.bucket) {
            while metered.left > 0 {
                let part = metered.left.min(bucket.burst);
                if let Some(wait) = bucket.wait_for(part) {
                    return Some(wait.max(Duration::from_millis(1)));
                }
                metered.left -= part;
            }
            metered.bucket += 1;
            metered.left = metered.bytes;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ByteRate, Principal, RateRule, RateRules, RequestHead, rates::RateLimits};
    use http::{HeaderMap, Method};

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn meter(client: Option<ByteRate>, principal: Option<ByteRate>) -> Option<ByteMeter> {
        let rule = |bytes| Some(RateRule { requests: 1_000, burst: 1_000, bytes });
        let rules = RateRules {
            client: rule(client),
            principal: rule(principal),
            buckets: 64,
            ..RateRules::default()
        };
        let headers = HeaderMap::new();
        let head = RequestHead {
            method: &Method::GET,
            query: None,
            headers: &headers,
            path: None,
            client: "192.0.2.1".parse().ok(),
            certificate: None,
            other_path: None,
            now: at(1_000),
        };
        RateLimits::new(rules).meter(&head, Some(&Principal::new("one")), None)
    }

    const RATE: ByteRate = ByteRate { per_second: 1_000, burst: 4_000 };

    #[test]
    fn a_body_fits_or_is_refused() {
        let meter = meter(None, Some(RATE)).unwrap();
        assert_eq!(meter.take(3_000, at(1_000)), Ok(()));
        let Err(AccessError::RateLimited(refusal)) = meter.take(3_000, at(1_000)) else {
            panic!("1,000 bytes are left")
        };
        assert_eq!(
            (refusal.policy, refusal.retry_after),
            ("principal-bytes", Duration::from_secs(2))
        );
        assert_eq!(meter.take(3_000, at(3_000)), Ok(()));
        assert!(meter.take(1_000_000, at(6_900)).is_err(), "not full");
        assert_eq!(meter.take(1_000_000, at(7_000)), Ok(()), "larger than the bucket: all of it");
        assert!(meter.begin(at(7_000)).is_err());
        assert_eq!(meter.begin(at(7_001)), Ok(()));
    }

    #[test]
    fn what_was_begun_is_slowed_down_by_the_slowest() {
        let slow = ByteRate { per_second: 500, burst: 1_000 };
        let meter = meter(Some(RATE), Some(slow)).unwrap();
        let mut metered = MeteredBytes::new(10_000);
        let (mut now, mut steps) = (1_000, 0);
        while let Some(wait) = meter.step(&mut metered, at(now)) {
            now += u64::try_from(wait.as_millis()).unwrap() + 1;
            steps += 1;
        }
        // 9,000 bytes at 500 in a second, and the other bucket meanwhile.
        assert!((19_000..26_000).contains(&now), "{now} after {steps}");
        assert!(meter.step(&mut MeteredBytes::new(0), at(now)).is_none());
    }

    #[test]
    fn without_a_rate_of_bytes_there_is_no_meter() {
        assert!(meter(None, None).is_none());
    }
}
