//! Forward auth: what answers of the operator's service mean, how long they count, and what they may cost.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use async_trait::async_trait;
use durable_streams_auth::{
    AccessControl, AccessError, AccessGuard, ClaimTemplate, ForwardAuth, ForwardClient,
    ForwardFailure, ForwardOptions, ForwardedAnswer, ForwardedRequest, GuardOptions, Operation,
    OperationSet, TenantId,
};
use durable_streams_protocol::{StreamPath, Timestamp};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use parking_lot::Mutex;

use crate::request::Request;

type Answers =
    Box<dyn Fn(&ForwardedRequest) -> Result<ForwardedAnswer, ForwardFailure> + Send + Sync>;

/// A service that answers as a function says, after a while.
struct Service {
    answers: Answers,
    takes: Duration,
    asked: Mutex<Vec<ForwardedRequest>>,
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Service {
    fn new(
        answers: impl Fn(&ForwardedRequest) -> Result<ForwardedAnswer, ForwardFailure>
        + Send
        + Sync
        + 'static,
    ) -> Arc<Self> {
        Self::slow(Duration::ZERO, answers)
    }

    fn slow(
        takes: Duration,
        answers: impl Fn(&ForwardedRequest) -> Result<ForwardedAnswer, ForwardFailure>
        + Send
        + Sync
        + 'static,
    ) -> Arc<Self> {
        let (asked, now, most) = (Mutex::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Service { answers: Box::new(answers), takes, asked, now, most })
    }

    fn asked(&self) -> usize {
        self.asked.lock().len()
    }
}

struct Client(Arc<Service>);

/// A subrequest that is over, dropped ones included.
struct Leaving<'a>(&'a AtomicUsize);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl ForwardClient for Client {
    async fn ask(&self, request: ForwardedRequest) -> Result<ForwardedAnswer, ForwardFailure> {
        let service = &self.0;
        let now = service.now.fetch_add(1, Ordering::SeqCst) + 1;
        service.most.fetch_max(now, Ordering::SeqCst);
        let _leaving = Leaving(&service.now);
        if !service.takes.is_zero() {
            tokio::time::sleep(service.takes).await;
        }
        let answer = (service.answers)(&request);
        service.asked.lock().push(request);
        answer
    }
}

fn answer(status: u16, fields: &[(&'static str, &str)]) -> ForwardedAnswer {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), value.parse().unwrap());
    }
    ForwardedAnswer { status: StatusCode::from_u16(status).unwrap(), headers }
}

fn options() -> ForwardOptions {
    let mut options = ForwardOptions::new("/v1/stream", HeaderName::from_static("remote-user"));
    options.request_headers = vec![http::header::AUTHORIZATION, http::header::COOKIE];
    options.operations = OperationSet::ALL;
    options.templates = vec![ClaimTemplate::parse("users/{user}/**").unwrap()];
    options
}

fn provider(options: ForwardOptions, service: &Arc<Service>) -> ForwardAuth {
    ForwardAuth::new(options, Arc::new(Client(service.clone())))
}

fn path(text: &str) -> StreamPath {
    StreamPath::new(text).unwrap()
}

#[tokio::test]
async fn the_status_decides() {
    for (status, expected) in [
        (200, None),
        (204, None),
        (299, None),
        (401, Some(401)),
        (403, Some(403)),
        (100, Some(503)),
        (302, Some(503)),
        (307, Some(503)),
        (404, Some(503)),
        (429, Some(503)),
        (500, Some(503)),
    ] {
        let service = Service::new(move |_| {
            Ok(answer(status, &[("remote-user", "ada"), ("location", "http://else.example/")]))
        });
        let seen = Request::new("a").authenticate(&provider(options(), &service)).await;
        let code = seen.as_ref().err().map(|error| error.status().as_u16());
        assert_eq!(code, expected, "{status}");
        assert_eq!(service.asked(), 1, "{status}: no redirect is followed, nothing asked twice");
    }
    let away = Service::new(|_| Err(ForwardFailure("refused".into())));
    let seen = Request::new("a").authenticate(&provider(options(), &away)).await;
    assert_eq!(seen.unwrap_err().status(), 503);
}

#[tokio::test]
async fn refusals_are_passed_on_with_their_challenges() {
    let basic = ("www-authenticate", r#"Basic realm="a""#);
    for (status, fields, expected) in [
        (401, vec![basic, ("www-authenticate", "Digest")], Some(r#"Basic realm="a", Digest"#)),
        (401, vec![], Some(r#"Bearer realm="durable-streams""#)),
        (403, vec![basic], Some(r#"Basic realm="a""#)),
        (403, vec![], None),
    ] {
        let service = Service::new(move |_| Ok(answer(status, &fields)));
        let error =
            Request::new("a").authenticate(&provider(options(), &service)).await.unwrap_err();
        assert_eq!(error.status().as_u16(), status);
        let challenge = error.challenge();
        assert_eq!(challenge.as_ref().map(|value| value.to_str().unwrap()), expected, "{status}");
    }
}

#[tokio::test]
async fn the_service_sees_what_was_asked_and_only_the_headers_that_are_copied() {
    let service = Service::new(|_| Ok(answer(200, &[("remote-user", "ada")])));
    let provider = provider(options(), &service);
    let sent = Request::new("a%20b/%252F")
        .method(Method::PUT)
        .query("x=1")
        .header("authorization", "Bearer t")
        .header("cookie", "a=b")
        .header("x-secret", "s")
        .header("x-forwarded-uri", "/elsewhere")
        .header("remote-user", "root");
    let principal = sent.authenticate(&provider).await.unwrap();
    assert_eq!(&*principal.identity, "ada", "not what the client says about itself");
    let asked = service.asked.lock();
    assert_eq!(asked[0].method, Method::PUT);
    let expected = format!("/v1/stream/{}?x=1", path("a b/%2F").to_url());
    assert_eq!(asked[0].uri, expected);
    let names: Vec<&str> = asked[0].headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["authorization", "cookie"]);
}

#[tokio::test]
async fn the_headers_of_the_answer_say_who_and_what() {
    let mut mapped = options();
    mapped.tenant = Some(HeaderName::from_static("x-tenant"));
    mapped.allow = Some(HeaderName::from_static("x-allow"));
    mapped.paths = Some(HeaderName::from_static("x-paths"));
    let all = [
        ("remote-user", "ada"),
        ("x-tenant", "acme"),
        ("x-allow", "read, append"),
        ("x-paths", "chat/*,logs/**"),
    ];
    let ask = async |fields: Vec<(&'static str, &'static str)>| {
        let service = Service::new(move |_| Ok(answer(200, &fields)));
        Request::new("a").authenticate(&provider(mapped.clone(), &service)).await
    };
    let principal = ask(all.to_vec()).await.unwrap();
    assert_eq!(principal.tenant, TenantId::new("acme").ok());
    assert!(principal.allows(Operation::Append, &path("chat/a")));
    assert!(principal.allows(Operation::Read, &path("logs/a/b")));
    assert!(!principal.allows(Operation::Delete, &path("chat/a")));
    assert!(!principal.allows(Operation::Read, &path("other")));
    // What is missing or unclear allows nothing, and never everything.
    for (name, value, expected) in [
        ("remote-user", "", 503),
        ("x-tenant", "", 403),
        ("x-tenant", "a/b", 503),
        ("x-allow", "reed", 503),
        ("x-paths", "a*", 503),
    ] {
        let fields = all.map(|(field, text)| (field, if field == name { value } else { text }));
        let error = ask(fields.to_vec()).await.unwrap_err();
        assert_eq!(error.status().as_u16(), expected, "{name} {value:?}");
        let without = all.into_iter().filter(|(field, _)| *field != name).collect();
        match ask(without).await {
            Err(error) => assert!(matches!(error.status().as_u16(), 403 | 503), "{name}"),
            Ok(principal) => {
                assert!(!principal.allows(Operation::Read, &path("chat/a")), "{name}");
            }
        }
        let twice = all.into_iter().chain([(name, "x")]).collect();
        assert_eq!(ask(twice).await.unwrap_err().status(), 503, "{name} twice");
    }
    // A name that is no path segment reaches nothing below it.
    for user in ["../bob", "a/b", "..", "%2A"] {
        let service = Service::new(move |_| Ok(answer(200, &[("remote-user", user)])));
        let error =
            Request::new("a").authenticate(&provider(options(), &service)).await.unwrap_err();
        assert_eq!(error, AccessError::NotAllowed, "{user}");
    }
}

#[tokio::test]
async fn answers_are_remembered_for_the_same_request_and_for_a_time() {
    let service = Service::new(|_| Ok(answer(200, &[("remote-user", "ada")])));
    let mut remembering = options();
    remembering.cache = Duration::from_secs(10);
    let provider = provider(remembering, &service);
    let at = |seconds: u64| Timestamp::from_millis(seconds * 1_000);
    let ask = async |sent: Request, new: bool, why: &str| {
        let before = service.asked();
        sent.authenticate(&provider).await.unwrap();
        assert_eq!(service.asked() - before, usize::from(new), "{why}");
    };
    let get = || Request::new("a").header("authorization", "Bearer t").at(at(100));
    ask(get(), true, "first").await;
    ask(get(), false, "again").await;
    ask(get().query("offset=1&live=sse&cursor=3"), false, "further on").await;
    ask(get().query("token=x"), true, "another query").await;
    ask(get().method(Method::DELETE), true, "another method").await;
    let other = Request::new("b").header("authorization", "Bearer t").at(at(100));
    ask(other, true, "another stream").await;
    ask(get().header("cookie", "a=b"), true, "another header").await;
    ask(Request::new("a").header("authorization", "Bearer u").at(at(100)), true, "another token")
        .await;
    ask(get().at(at(109)), false, "within the time").await;
    ask(get().at(at(110)), true, "later").await;
    // Refusals are asked for again, and without a time nothing is remembered.
    let refusing = Service::new(|_| Ok(answer(403, &[])));
    let mut remembering = options();
    remembering.cache = Duration::from_secs(10);
    let again = self::provider(remembering, &refusing);
    let plain = self::provider(options(), &refusing);
    for provider in [&again, &plain] {
        for _ in 0..2 {
            assert!(get().authenticate(provider).await.is_err());
        }
    }
    assert_eq!(refusing.asked(), 4);
}

#[tokio::test]
async fn what_an_answer_allows_ends() {
    let service = Service::new(|_| Ok(answer(200, &[("remote-user", "ada")])));
    let mut brief = options();
    brief.valid_for = Duration::from_secs(5);
    let provider = provider(brief, &service);
    let now = Timestamp::from_millis(1_000);
    let principal = Request::new("a").at(now).authenticate(&provider).await.unwrap();
    assert!(provider.is_current(&principal, Timestamp::from_millis(5_999)));
    assert!(!provider.is_current(&principal, Timestamp::from_millis(6_000)));
}

#[tokio::test(start_paused = true)]
async fn subrequests_are_bounded_in_number_and_time() {
    let service =
        Service::slow(Duration::from_millis(500), |_| Ok(answer(200, &[("remote-user", "ada")])));
    let mut few = options();
    few.max_concurrent = 2;
    few.timeout = Duration::from_millis(1_200);
    let provider = Arc::new(provider(few, &service));
    let began = tokio::time::Instant::now();
    let asking: Vec<_> = (0..10)
        .map(|_| {
            let provider = provider.clone();
            tokio::spawn(async move { Request::new("a").authenticate(&*provider).await })
        })
        .collect();
    let mut statuses = Vec::new();
    for one in asking {
        statuses.push(one.await.unwrap().map_or_else(|error| error.status().as_u16(), |_| 200));
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 503, 503, 503, 503, 503, 503]);
    assert_eq!(service.most.load(Ordering::SeqCst), 2);
    assert!(began.elapsed() < Duration::from_millis(1_300), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_refusal_leaves_public_streams_readable_unless_it_hides_a_tenant() {
    let refused = async |tenant: bool, token: bool, status: u16| {
        let service = Service::new(move |_| Ok(answer(status, &[])));
        let mut options = options();
        options.tenant = tenant.then(|| HeaderName::from_static("x-tenant"));
        let provider: Arc<dyn AccessControl> = Arc::new(provider(options, &service));
        let guard = AccessGuard::new(provider.clone(), GuardOptions::default());
        let sent = Request::new("news");
        let sent = if token { sent.header("authorization", "Bearer t") } else { sent };
        let error = guard.authenticate(&sent.head()).await.unwrap_err();
        guard.public_path(None, &path("news"), &error)
    };
    for status in [401, 403] {
        for (tenant, token, readable) in
            [(false, false, true), (false, true, true), (true, false, true), (true, true, false)]
        {
            let expected = readable.then(|| path("news"));
            assert_eq!(refused(tenant, token, status).await, expected, "{tenant} {token} {status}");
        }
    }
    assert_eq!(refused(false, false, 500).await, None, "no verdict");
}

#[tokio::test]
async fn what_is_not_about_streams_is_asked_with_its_own_path() {
    let service = Service::new(|_| Ok(answer(200, &[("remote-user", "ada")])));
    let provider = provider(options(), &service);
    let sent = Request::new("..").query("limit=5");
    let mut head = sent.head();
    provider.authenticate(&head).await.unwrap();
    head.other_path = Some("/admin/v1/streams");
    provider.authenticate(&head).await.unwrap();
    let asked = service.asked.lock();
    let uris: Vec<&str> = asked.iter().map(|one| one.uri.as_str()).collect();
    assert_eq!(uris, ["/v1/stream/__ds?limit=5", "/admin/v1/streams?limit=5"]);
}
