//! Asks the authorization service of one upstream, and caches its 2xx answers.
//!
//! Invariants
//! - Subrequests at one time are bounded, and so is the time of each, the wait for its turn included.
//! - At most [`REMEMBERED`] answers are kept, each of at most [`MAX_IDENTITY`] bytes. Refusals are not kept.

use std::{
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use durable_streams_auth::ForwardedRequest;
use durable_streams_protocol::Response;
use http::{HeaderMap, HeaderName, HeaderValue};
use lru::LruCache;
use parking_lot::Mutex;
use ring::digest;
use tokio::{sync::Semaphore, time::timeout};
use url::Url;

use super::{fields, subrequest::SubrequestClient};

/// Answers of one upstream's service that are kept.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(1024).unwrap();
/// The most bytes of the fields that an answer hands to the upstream; more is no answer.
const MAX_IDENTITY: usize = 8 * 1024;
/// The most bytes of a refusal's body that are passed to the client, and of its fields; more is no answer.
const MAX_BODY: usize = 64 * 1024;
const MAX_FIELDS: usize = 32 * 1024;

/// The fields that an answer hands to the upstream.
pub(crate) type ClientIdentity = Arc<[(HeaderName, HeaderValue)]>;

/// What is asked about requests of an upstream, and what becomes of answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardAuthOptions {
    /// The service.
    pub url: Url,
    /// The client's fields that the service gets.
    pub request_headers: Vec<HeaderName>,
    /// The fields of a 2xx that the upstream gets in place of the client's.
    pub copy_headers: Vec<HeaderName>,
    /// The longest wait for an answer, the wait for a turn included.
    pub timeout: Duration,
    /// How long a 2xx counts for requests that are alike; zero never.
    pub cache: Duration,
    /// Subrequests at one time.
    pub max_concurrent: usize,
}

/// Why an upstream must not get a request.
#[derive(Debug)]
pub(super) enum GateRefusal {
    /// The service's own answer, for the client.
    Answered(Box<Response>),
    /// What is wrong with the service.
    Unavailable(&'static str),
}

/// Asks the service of one upstream.
pub(crate) struct ForwardGate {
    options: ForwardAuthOptions,
    client: SubrequestClient,
    turns: Semaphore,
    remembered: Mutex<LruCache<RequestDigest, RememberedAnswer>>,
}

type RequestDigest = [u8; digest::SHA256_OUTPUT_LEN];

struct RememberedAnswer {
    identity: ClientIdentity,
    until: Instant,
}

impl ForwardGate {
    /// # Errors
    /// Why there can be no HTTP client.
    pub(crate) fn new(options: ForwardAuthOptions) -> Result<Self, String> {
        let client = SubrequestClient::new(options.url.clone(), options.timeout);
        Ok(ForwardGate {
            client: client.map_err(|error| error.to_string())?,
            turns: Semaphore::new(options.max_concurrent.max(1)),
            remembered: Mutex::new(LruCache::new(REMEMBERED)),
            options,
        })
    }

    /// The fields that the upstream gets from answers only.
    pub(crate) fn copied(&self) -> &[HeaderName] {
        &self.options.copy_headers
    }

    /// The client's fields that the service gets.
    pub(super) fn asked_with(&self) -> &[HeaderName] {
        &self.options.request_headers
    }

    /// What the service says about a request.
    ///
    /// # Errors
    /// [`GateRefusal`]: the upstream must not get the request.
    pub(super) async fn ask(
        &self,
        request: ForwardedRequest,
    ) -> Result<ClientIdentity, GateRefusal> {
        let digest = (!self.options.cache.is_zero()).then(|| digest_of(&request));
        if let Some(identity) = digest.and_then(|digest| self.remembered(&digest)) {
            return Ok(identity);
        }
        let asked = async {
            let _turn = self.turns.acquire().await.ok()?;
            self.client.ask(request, MAX_BODY).await.ok()
        };
        let answer = timeout(self.options.timeout, asked).await.ok().flatten();
        let answer = answer.ok_or(GateRefusal::Unavailable("gives no answer"))?;
        let status = answer.status;
        if status.is_success() {
            let identity = identity_of(&answer.headers, &self.options.copy_headers);
            let identity = identity.ok_or(GateRefusal::Unavailable("is unclear"))?;
            if let Some(digest) = digest {
                self.remember(digest, identity.clone());
            }
            return Ok(identity);
        }
        let login = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
        let fits = answer.is_whole && bytes_of(&answer.headers) <= MAX_FIELDS;
        if !fits || !(login || status.is_client_error()) {
            tracing::warn!(status = status.as_u16(), "the authorization service is unclear");
            return Err(GateRefusal::Unavailable("is unclear"));
        }
        Err(GateRefusal::Answered(Box::new(fields::passed_on(answer))))
    }

    fn remembered(&self, digest: &RequestDigest) -> Option<ClientIdentity> {
        let mut remembered = self.remembered.lock();
        let found = remembered.get(digest)?;
        (Instant::now() < found.until).then(|| found.identity.clone())
    }

    fn remember(&self, digest: RequestDigest, identity: ClientIdentity) {
        let until = Instant::now() + self.options.cache;
        self.remembered.lock().put(digest, RememberedAnswer { identity, until });
    }
}

/// Requests with the same digest are one to the service.
fn digest_of(request: &ForwardedRequest) -> RequestDigest {
    let mut context = digest::Context::new(&digest::SHA256);
    let mut add = |part: &[u8]| {
        context.update(&(part.len() as u64).to_le_bytes());
        context.update(part);
    };
    add(request.method.as_str().as_bytes());
    add(request.uri.as_bytes());
    add(request.client.map(|client| client.to_string()).unwrap_or_default().as_bytes());
    for (name, value) in &request.headers {
        add(name.as_str().as_bytes());
        add(value.as_bytes());
    }
    let mut bytes = RequestDigest::default();
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

/// The fields of an answer that the upstream gets; `None` when they are more than [`MAX_IDENTITY`] bytes.
fn identity_of(headers: &HeaderMap, names: &[HeaderName]) -> Option<ClientIdentity> {
    let fields = names
        .iter()
        .flat_map(|name| headers.get_all(name).iter().map(|value| (name.clone(), value.clone())));
    let fields: Vec<_> = fields.collect();
    let bytes = bytes_of(fields.iter().map(|(name, value)| (name, value)));
    (bytes <= MAX_IDENTITY).then(|| fields.into())
}

fn bytes_of<'a>(fields: impl IntoIterator<Item = (&'a HeaderName, &'a HeaderValue)>) -> usize {
    fields.into_iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    fn options() -> ForwardAuthOptions {
        ForwardAuthOptions {
            url: "http://127.0.0.1:1/".parse().unwrap(),
            request_headers: Vec::new(),
            copy_headers: vec![HeaderName::from_static("remote-user")],
            timeout: Duration::from_millis(100),
            cache: Duration::from_secs(60),
            max_concurrent: 1,
        }
    }

    fn request(uri: &str) -> ForwardedRequest {
        ForwardedRequest {
            method: Method::GET,
            uri: uri.into(),
            client: Some([127, 0, 0, 1].into()),
            headers: vec![(HeaderName::from_static("cookie"), HeaderValue::from_static("s=1"))],
        }
    }

    #[test]
    fn requests_that_the_service_can_tell_apart_have_digests_of_their_own() {
        let one = digest_of(&request("/a?b"));
        assert_eq!(one, digest_of(&request("/a?b")));
        let other = |change: fn(&mut ForwardedRequest)| {
            let mut request = request("/a?b");
            change(&mut request);
            digest_of(&request)
        };
        for changed in [
            other(|it| it.method = Method::POST),
            other(|it| it.uri = "/a?c".into()),
            other(|it| it.client = Some([127, 0, 0, 2].into())),
            other(|it| it.headers.clear()),
            other(|it| it.headers[0].1 = HeaderValue::from_static("s=2")),
            other(|it| {
                it.uri = "/a?".into();
                it.method = Method::from_bytes(b"GETb").unwrap();
            }),
        ] {
            assert_ne!(changed, one);
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_ends() {
        let gate = ForwardGate::new(options()).unwrap();
        let identity: ClientIdentity = Arc::from([]);
        for number in 0..3 * REMEMBERED.get() {
            gate.remember(digest_of(&request(&number.to_string())), identity.clone());
        }
        assert_eq!(gate.remembered.lock().len(), REMEMBERED.get());
        let last = digest_of(&request(&(3 * REMEMBERED.get() - 1).to_string()));
        assert!(gate.remembered(&last).is_some());
        let gate = ForwardGate::new(ForwardAuthOptions { cache: Duration::ZERO, ..options() });
        let gate = gate.unwrap();
        gate.remember(last, identity);
        assert!(gate.remembered(&last).is_none(), "its time is over");
    }

    #[test]
    fn an_answer_that_hands_on_too_much_is_none() {
        let names = [HeaderName::from_static("remote-user")];
        let of = |length: usize| {
            let value = HeaderValue::try_from("x".repeat(length)).unwrap();
            identity_of(&HeaderMap::from_iter([(names[0].clone(), value)]), &names)
        };
        assert_eq!(of(MAX_IDENTITY - 11).unwrap().len(), 1);
        assert!(of(MAX_IDENTITY - 10).is_none());
    }

    #[tokio::test]
    async fn without_an_answer_the_request_goes_nowhere() {
        let gate = ForwardGate::new(options()).unwrap();
        let refused = gate.ask(request("/")).await.unwrap_err();
        assert!(matches!(refused, GateRefusal::Unavailable("gives no answer")), "{refused:?}");
    }
}
