//! The HTTP client that posts webhooks: where it connects, what it reads, what it does not go through.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use durable_streams_protocol::subscription::{TargetRules, WebhookTarget};
use durable_streams_server::webhooks::{
    HostResolver, HttpWebhookClient, ResolvedAddresses, WebhookOptions,
};
use durable_streams_subscriptions::{WebhookClient, WebhookError, WebhookRequest};
use tokio::{net::TcpListener, time::sleep};

use super::receiver::{Habit, Receiver};

fn request(url: &str, max_response: usize) -> WebhookRequest {
    let rules = TargetRules { allow_http_localhost: true, ..TargetRules::default() };
    WebhookRequest {
        target: WebhookTarget::parse(url, &rules).unwrap(),
        body: Bytes::from_static(b"{}"),
        signature: "t=1,kid=k,ed25519=s".into(),
        timeout: Duration::from_secs(60),
        max_response,
    }
}

fn client() -> HttpWebhookClient {
    HttpWebhookClient::new(WebhookOptions::default()).unwrap()
}

/// Resolves every name to one address.
struct Fixed(SocketAddr);

impl HostResolver for Fixed {
    fn resolve(&self, _host: &str) -> ResolvedAddresses {
        let address = self.0;
        Box::pin(async move { Ok(vec![address]) })
    }
}

#[tokio::test]
async fn names_that_lead_elsewhere_than_their_kind_are_not_connected_to() {
    let inside = Receiver::start(Receiver::done()).await;
    let port = inside.address.port();
    for (url, address) in [
        // A public name that resolves inward, and the localhost exception that resolves outward.
        (format!("https://worker.example:{port}/"), inside.address),
        (format!("http://localhost:{port}/"), "8.8.8.8:80".parse().unwrap()),
    ] {
        let resolver = Arc::new(Fixed(address));
        let options = WebhookOptions { resolver, ..WebhookOptions::default() };
        let client = HttpWebhookClient::new(options).unwrap();
        match client.post(request(&url, 100)).await {
            Err(WebhookError::NotSent(reason)) => assert!(
                reason.contains("no address that webhooks may connect to"),
                "{url} was refused for another reason: {reason}"
            ),
            other => panic!("{url}: {other:?}"),
        }
    }
    assert_eq!((inside.connections(), inside.count()), (0, 0), "nothing reached the inside");
}

#[tokio::test]
async fn a_response_is_read_up_to_its_bound() {
    for (length, read) in [(100, true), (101, false)] {
        let receiver = Receiver::start(Habit::Answer(200, "x".repeat(length))).await;
        let response = client().post(request(&receiver.url(), 100)).await.unwrap();
        assert_eq!(response.body.is_some(), read, "{length} bytes of 100");
    }
    let receiver = Receiver::start(Habit::Answer(500, "x".into())).await;
    let response = client().post(request(&receiver.url(), 100)).await.unwrap();
    assert_eq!((response.status.as_u16(), response.body), (500, None));
}

#[tokio::test]
async fn an_endless_response_ends_at_the_bound_and_not_at_the_timeout() {
    let receiver = Receiver::start(Habit::Endless).await;
    let start = Instant::now();
    let posting = client();
    let post = posting.post(request(&receiver.url(), 64 * 1024));
    let response = tokio::time::timeout(Duration::from_secs(20), post).await;
    let response = response.expect("the bound ends it, long before its timeout of 60 s").unwrap();
    assert_eq!((response.status.as_u16(), response.body), (200, None));
    assert!(start.elapsed() < Duration::from_secs(20));
}

/// A proxy would resolve and connect on its own, past the address guard.
#[tokio::test]
async fn proxies_of_the_environment_are_not_used() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "client::posts_with_a_proxy_in_the_environment", "--ignored"]);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        child.env(name, &address).env(name.to_lowercase(), &address);
    }
    child.env_remove("NO_PROXY").env_remove("no_proxy").stdout(std::process::Stdio::null());
    let mut child = child.spawn().unwrap();
    let connected = tokio::select! {
        _ = proxy.accept() => true,
        () = async { while child.try_wait().unwrap().is_none() { sleep(Duration::from_millis(10)).await } } => false,
    };
    let _ = child.kill();
    let status = child.wait().unwrap();
    assert!(!connected, "the client connected to the proxy");
    assert!(status.success(), "the post arrived");
}

#[tokio::test]
#[ignore = "runs as a child of proxies_of_the_environment_are_not_used"]
async fn posts_with_a_proxy_in_the_environment() {
    let receiver = Receiver::start(Receiver::done()).await;
    let response = client().post(request(&receiver.url(), 100)).await.unwrap();
    assert_eq!((response.status.as_u16(), receiver.count()), (200, 1));
    // A name that is refused: through a proxy nothing here would resolve it.
    let refused = client().post(request("https://worker.invalid/", 100)).await;
    assert!(matches!(refused, Err(WebhookError::NotSent(_))), "{refused:?}");
}
