//! The request id: kept from a trusted proxy, otherwise made when first needed.
//!
//! 64 random bits from the process's hash seed and 64 bits of counter, as 32 hex digits: unique
//! over restarts, no system call, no allocation until used.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderName, HeaderValue};

/// The field the id travels in.
pub(crate) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ids are replaced: they end up in every log line.
const MAX_LEN: usize = 128;

/// The id of one request, made on first use.
#[derive(Debug, Default)]
pub(crate) struct RequestId(Option<HeaderValue>);

impl RequestId {
    /// Takes over an id from a trusted proxy, if it is fit for a log line.
    pub(crate) fn adopt(&mut self, value: &HeaderValue) {
        let bytes = value.as_bytes();
        let fit = !bytes.is_empty()
            && bytes.len() <= MAX_LEN
            && bytes.iter().all(|b| b.is_ascii_graphic() && *b != b'"' && *b != b'\\');
        if fit {
            self.0 = Some(value.clone());
        }
    }

    /// The id as a header value.
    pub(crate) fn header(&mut self) -> &HeaderValue {
        self.0.get_or_insert_with(fresh)
    }

    /// The id as text.
    pub(crate) fn text(&mut self) -> &str {
        self.header().to_str().unwrap_or_default()
    }
}

fn fresh() -> HeaderValue {
    static SEED: LazyLock<(u64, RandomState)> = LazyLock::new(|| {
        let state = RandomState::new();
        (state.hash_one(std::process::id()), state)
    });
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    // The counter is mixed so that ids do not tell how many requests the server has seen.
    let text = format!("{:016x}{:016x}", SEED.0 ^ n.rotate_left(32), SEED.1.hash_one(n));
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_once_and_differs_between_requests() {
        let (mut a, mut b) = (RequestId::default(), RequestId::default());
        let first = a.text().to_owned();
        assert_eq!(first.len(), 32);
        assert_eq!(a.text(), first);
        assert_ne!(b.text(), first);
    }

    #[test]
    fn only_a_fit_id_is_adopted() {
        let mut id = RequestId::default();
        id.adopt(&HeaderValue::from_static("abc-123"));
        assert_eq!(id.text(), "abc-123");
        for unfit in ["", "has space", "quote\"", &"x".repeat(129)] {
            let mut id = RequestId::default();
            id.adopt(&HeaderValue::try_from(unfit).unwrap());
            assert_ne!(id.text(), unfit);
        }
    }
}
