//! What caches may do with responses that depend on access.
//!
//! A private response stays with the client that it is for. In shared mode the responses that everyone with the URL may
//! read keep the policy that they have without access control; they name in `Vary` what could make another client's
//! response differ, since the same URL is another stream for a client with a tenant.

use durable_streams_protocol::{Response, Timestamp};
use http::{HeaderName, HeaderValue, header};

/// Seconds for which a cache may keep a page, and use it while it asks for a newer one, at most.
const MAX_AGE: u64 = 60;
const MAX_STALE: u64 = 300;

/// Whether shared caches may keep responses of protected streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessCaching {
    shared: bool,
    vary: HeaderValue,
}

impl Default for AccessCaching {
    fn default() -> Self {
        AccessCaching::private()
    }
}

impl AccessCaching {
    /// Every response is its client's own.
    pub fn private() -> Self {
        let vary = HeaderValue::from_static("authorization, cookie, x-api-key");
        AccessCaching { shared: false, vary }
    }

    /// A shared cache may keep what everyone who has the URL may read. `credentials` are the header fields that can
    /// carry a credential.
    pub fn shared(credentials: &[HeaderName]) -> Self {
        let names: Vec<&str> = credentials.iter().map(HeaderName::as_str).collect();
        match HeaderValue::try_from(names.join(", ")) {
            Ok(vary) if !names.is_empty() => AccessCaching { shared: true, vary },
            _ => AccessCaching::private(),
        }
    }

    /// Makes a response say what caches may do with it.
    pub(super) fn apply(&self, response: &mut Response, audience: ReplyAudience, now: Timestamp) {
        let mut fields = response.headers.iter_mut();
        let Some((_, value)) = fields.find(|(name, _)| *name == header::CACHE_CONTROL) else {
            return;
        };
        if value != "no-store" {
            *value = match audience {
                ReplyAudience::Url { until } if self.shared => public(value, until, now),
                ReplyAudience::Url { .. } | ReplyAudience::Client => private(value),
            };
        }
        // With `no-store` too: a cache that is told to keep a long-poll's 204 for its other readers must know which.
        response.headers.push((header::VARY, self.vary.clone()));
    }
}

/// For whom a reply is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReplyAudience {
    /// The client that the request comes from.
    Client,
    /// Everyone who has the URL, until then.
    Url { until: Option<Timestamp> },
}

fn private(value: &HeaderValue) -> HeaderValue {
    let text = value.to_str().unwrap_or("");
    if text.starts_with("private") {
        return value.clone();
    }
    let rest = text.strip_prefix("public");
    let text = rest.map_or(format!("private, {text}"), |rest| format!("private{rest}"));
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("no-store"))
}

/// The same policy, which ends when the right ends.
fn public(value: &HeaderValue, until: Option<Timestamp>, now: Timestamp) -> HeaderValue {
    let (Some(until), true) = (until, value.as_bytes().starts_with(b"public")) else {
        return value.clone();
    };
    let left = until.millis().saturating_sub(now.millis()) / 1000;
    let age = left.min(MAX_AGE);
    let stale = (left - age).min(MAX_STALE);
    let text = format!("public, max-age={age}, stale-while-revalidate={stale}");
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("no-store"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    const KEPT: &str = "public, max-age=60, stale-while-revalidate=300";

    fn applied(caching: &AccessCaching, audience: ReplyAudience, value: &'static str) -> String {
        let mut response = Response::new(StatusCode::OK);
        response.headers.push((header::CACHE_CONTROL, HeaderValue::from_static(value)));
        caching.apply(&mut response, audience, Timestamp::from_millis(1_000_500));
        let field = |name| {
            let found = response.headers.iter().find(|(one, _)| *one == name);
            found.map_or("", |(_, value)| value.to_str().unwrap()).to_owned()
        };
        format!("{} | {}", field(header::CACHE_CONTROL), field(header::VARY))
    }

    #[test]
    fn only_what_a_url_shows_to_everyone_is_shared() {
        let private = AccessCaching::private();
        let shared = AccessCaching::shared(&[header::AUTHORIZATION]);
        let (client, all) = (ReplyAudience::Client, ReplyAudience::Url { until: None });
        let until = |millis| ReplyAudience::Url { until: Some(Timestamp::from_millis(millis)) };
        let every = "authorization, cookie, x-api-key";
        for (caching, audience, value, expected) in [
            (
                &private,
                client,
                KEPT,
                format!("private, max-age=60, stale-while-revalidate=300 | {every}"),
            ),
            (&private, all, "no-cache", format!("private, no-cache | {every}")),
            (&private, all, "private, no-cache", format!("private, no-cache | {every}")),
            (&private, all, "no-store", format!("no-store | {every}")),
            (&shared, client, "no-cache", "private, no-cache | authorization".into()),
            (&shared, all, KEPT, format!("{KEPT} | authorization")),
            (&shared, all, "no-cache", "no-cache | authorization".into()),
            (&shared, all, "private, no-cache", "private, no-cache | authorization".into()),
            (&shared, all, "no-store", "no-store | authorization".into()),
            (&shared, until(9_000_000), KEPT, format!("{KEPT} | authorization")),
            (
                &shared,
                until(1_100_000),
                KEPT,
                "public, max-age=60, stale-while-revalidate=39 | authorization".into(),
            ),
            (
                &shared,
                until(1_003_400),
                KEPT,
                "public, max-age=2, stale-while-revalidate=0 | authorization".into(),
            ),
            (
                &shared,
                until(1_000_400),
                KEPT,
                "public, max-age=0, stale-while-revalidate=0 | authorization".into(),
            ),
        ] {
            assert_eq!(
                applied(caching, audience, value),
                expected,
                "{caching:?} {audience:?} {value}"
            );
        }
        assert_eq!(AccessCaching::shared(&[]), private, "what varies on nothing is not shared");
    }
}
