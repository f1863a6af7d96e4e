//! Admission to the administration API beyond keys: rates, and an authorization service of the operator's.

use std::sync::{Arc, Mutex};

use http::{Request, Response};
use hyper::body::Incoming;

use crate::harness::{Client, Reply};
use crate::process::Process;
use crate::upstreams::{Upstream, full};

async fn get(server: &Process, path: &str, fields: &str) -> Reply {
    let (_, admin) = server.addresses();
    let mut client = Client::connect(admin).await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")).await;
    client.reply().await
}

fn config(auth: &str) -> String {
    format!(
        "listen: ['127.0.0.1:0']\nadmin: {{listen: '127.0.0.1:0'}}\nlog: {{format: json}}\nauth: {auth}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_api_looks_like_one_of_the_streams() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("credentials.json");
    let auth = format!(
        "{{credentials: '{}', rates: {{client: {{requests: 1, burst: 4}}}}}}",
        file.display()
    );
    let server = Process::run(&config(&auth)).await;
    let mut refused = get(&server, "/admin/v1/status", "").await;
    assert_eq!((refused.status, refused.code().as_str()), (401, "no-credentials"));
    assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"durable-streams\""));
    assert_eq!(refused.header("cache-control"), Some("no-store"));
    for _ in 0..50 {
        if refused.status == 429 {
            break;
        }
        refused = get(&server, "/admin/v1/status", "authorization: Bearer guess\r\n").await;
    }
    assert_eq!((refused.status, refused.code().as_str()), (429, "rate-limited"));
    assert_eq!(refused.header("ratelimit-policy"), Some("\"client\";q=4;w=4"));
    assert_eq!(refused.header("ratelimit"), Some("\"client\";r=0;t=1"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(get(&server, "/healthz", "").await.status, 200, "health has no rate");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_the_operators_sees_the_path_of_the_api() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let service = Upstream::http(move |request: Request<Incoming>| {
        let field = |name: &str| request.headers().get(name).map(|one| one.to_str().unwrap());
        seen.lock().unwrap().push(field("x-forwarded-uri").unwrap_or_default().to_owned());
        let answer = match field("authorization") {
            Some("Bearer operator") => {
                Response::builder().header("remote-user", "ada").header("x-allow", "administer")
            }
            Some("Bearer user") => {
                Response::builder().header("remote-user", "bob").header("x-allow", "all")
            }
            _ => Response::builder().status(401).header("www-authenticate", "Digest realm=\"a\""),
        };
        let answer = answer.body(full("")).unwrap();
        async { answer }
    })
    .await;
    let server = Process::run(&config(&format!(
        "{{forward: {{url: 'http://{}/', allow_header: x-allow, paths: ['**'], cache: 1m}}}}",
        service.addr
    )))
    .await;
    let path = "/admin/v1/streams?limit=5";
    let refused = get(&server, path, "").await;
    assert_eq!((refused.status, refused.code().as_str()), (401, "invalid-credentials"));
    assert_eq!(refused.header("www-authenticate"), Some("Digest realm=\"a\""));
    let user = get(&server, path, "authorization: Bearer user\r\n").await;
    assert_eq!((user.status, user.code().as_str()), (403, "not-allowed"));
    for _ in 0..2 {
        let operator = get(&server, path, "authorization: Bearer operator\r\n").await;
        assert_eq!(operator.status, 200, "{}", operator.text());
    }
    assert_eq!(*asked.lock().unwrap(), [path; 3], "and an answer counts again");
    let other = get(&server, "/admin/v1/keys", "authorization: Bearer operator\r\n").await;
    assert_eq!(other.status, 409, "there is no file of keys: {}", other.text());
    assert_eq!(asked.lock().unwrap().last().unwrap(), "/admin/v1/keys");
}
