//! Request targets and hosts: what is routed, in which form it is passed on, and what is refused.

use durable_streams_server::edge::route::{EdgeRoute, classify};
use proptest::prelude::Strategy;
use proptest::test_runner::{Config, TestRunner};

use super::recorder::Recorder;
use crate::support::{TestServer, edge, to};

/// The target, and the hosts, of the one request that has come.
fn request(recorder: &Recorder) -> (String, Vec<String>) {
    let seen = recorder.take();
    let [request] = &seen[..] else { panic!("{seen:?}") };
    let mut lines = request.lines();
    let target = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
    let hosts = lines.filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("host").then(|| value.trim().to_owned())
    });
    (target, hosts.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_gets_origin_form_and_one_host() {
    let recorder = Recorder::new().await;
    let server = TestServer::before(&recorder.upstream);
    for (line, target, host) in [
        ("GET /app?x=1 HTTP/1.1", "/app?x=1", "t"),
        ("GET http://t/app?x=1 HTTP/1.1", "/app?x=1", "t"),
        ("GET HTTP://t HTTP/1.1", "/", "t"),
        ("GET http://t?x HTTP/1.1", "/?x", "t"),
        ("GET http://t HTTP/1.0", "/", "t"),
        ("GET //evil/x HTTP/1.1", "//evil/x", "t"),
    ] {
        let reply = server.ask(format!("{line}\r\nhost: t\r\n\r\n")).await;
        assert_eq!(reply.status, 200, "{line}: {reply:?}");
        assert_eq!(request(&recorder), (target.to_owned(), vec![host.to_owned()]), "{line}");
    }
    // HTTP/1.0 needs no Host; the URL has one.
    assert_eq!(server.ask("GET http://a:81/x HTTP/1.0\r\n\r\n").await.status, 200);
    assert_eq!(request(&recorder), ("/x".to_owned(), vec!["a:81".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_reached_by_its_url() {
    let server = TestServer::start(edge(Vec::new()));
    let create =
        "PUT http://t:81/v1/stream/a HTTP/1.1\r\nhost: t:81\r\ncontent-type: text/plain\r\n\r\n";
    let created = server.ask(create).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(created.header("location"), Some("http://t:81/v1/stream/a"));
    assert_eq!(server.get("/v1/stream/a").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_target_is_400_with_a_problem() {
    let recorder = Recorder::new().await;
    let servers = [TestServer::before(&recorder.upstream), TestServer::start(edge(Vec::new()))];
    for target in [
        "ftp://t/x",
        "t:80",
        "x",
        " /x",
        "@evil/a",
        "?a",
        "*",
        "/a#b",
        "/a b",
        "/x ",
        "\t/x",
        "http://u@t/",
        "http:///x",
        "http:/t/x",
        "://t/x",
        "http://evil/x",
        "http://t:x/",
        "/\x7f",
        "/\u{1}",
    ] {
        for server in &servers {
            let reply = server.ask(format!("GET {target} HTTP/1.1\r\nhost: t\r\n\r\n")).await;
            let code = reply.code();
            assert!(
                ["target-invalid", "malformed-request"].contains(&&*code),
                "{target:?}: {code}"
            );
            assert_eq!(reply.status, 400, "{target:?}");
        }
    }
    let not_utf8 = [&b"GET /\xff\xfe HTTP/1.1\r\nhost: t\r\n\r\n"[..]].concat();
    assert_eq!(servers[0].ask(not_utf8).await.code(), "malformed-request");
    assert_eq!(recorder.take(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_host_or_length_is_400_with_a_problem() {
    let recorder = Recorder::new().await;
    let server = TestServer::before(&recorder.upstream);
    for path in ["/x", "/v1/stream/x"] {
        for host in ["a b", "a/b", "a:b", "a:80:90", "u@a", "[::1", "a#", "a\"", "a, b/", "\u{e9}"]
        {
            let reply = server.ask(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
            assert_eq!(reply.status, 400, "{host:?}");
            assert!(["host-invalid", "malformed-request"].contains(&&*reply.code()), "{host:?}");
        }
        for length in [
            "5, 5",
            "5,5",
            "5\r\ncontent-length: 5",
            "5 5",
            "5;",
            "",
            "0x5",
            "-0",
            "18446744073709551616",
        ] {
            let request =
                format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\nhello");
            let reply = server.ask(request).await;
            assert_eq!(reply.status, 400, "{length:?}");
            assert!(
                ["content-length", "malformed-request"].contains(&&*reply.code()),
                "{length:?}"
            );
        }
    }
    assert_eq!(recorder.take(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_request_gets_a_problem_on_every_route() {
    let recorder = Recorder::new().await;
    let server = TestServer::before(&recorder.upstream);
    for path in ["/x", "/v1/stream/x"] {
        for request in [
            format!("GET {path}\r\n\r\n"),
            format!("GET {path} HTTP/2.0\r\nhost: a\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nhost: a\r\nx y: z\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nhost: a\r\n b: c\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n"),
            format!("POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: x\r\n\r\n"),
        ] {
            let mut client = server.connect().await;
            client.send(&request).await;
            let reply = client.reply().await;
            assert_eq!((reply.status, &*reply.code()), (400, "malformed-request"), "{request:?}");
            assert_eq!(reply.header("connection"), Some("close"));
            assert!(client.is_closed().await, "{request:?}");
        }
    }
    assert_eq!(recorder.take(), [""; 0]);
}

/// Empty lines in front of a request line belong to nothing (RFC 9112 §2.2).
#[tokio::test(flavor = "multi_thread")]
async fn empty_lines_between_requests_are_skipped() {
    let server = TestServer::start(edge(Vec::new()));
    let mut client = server.connect().await;
    let request = "GET /x HTTP/1.1\r\nhost: a\r\n\r\n";
    client.send(format!("\r\n\r\n{request}\r\n\n{request}")).await;
    for _ in 0..2 {
        assert_eq!(client.reply().await.code(), "no-upstream");
    }
}

/// Over HTTP/2, too, `Host` is checked, and lengths are.
#[tokio::test(flavor = "multi_thread")]
async fn http2_requests_are_judged_as_well() {
    let recorder = Recorder::new().await;
    let server = TestServer::before(&recorder.upstream);
    let socket = tokio::net::TcpStream::connect(server.addr).await.unwrap();
    let (sender, connection) = h2::client::handshake(socket).await.unwrap();
    tokio::spawn(connection);
    let ask = async |request: http::Request<()>| {
        let mut ready = sender.clone().ready().await.unwrap();
        let (response, _) = ready.send_request(request, true).unwrap();
        response.await.map(|response| response.status().as_u16())
    };
    let url = |url: &str| http::Request::get(url).body(()).unwrap();
    assert_eq!(ask(url("http://a/x")).await.unwrap(), 200);
    assert_eq!(request(&recorder), ("/x".to_owned(), vec!["a".to_owned()]));
    assert_eq!(ask(url("http://a:99999/x")).await.unwrap(), 400);
    let mut doubled = url("http://a/x");
    for _ in 0..2 {
        doubled.headers_mut().append("content-length", http::HeaderValue::from_static("0"));
    }
    assert!(ask(doubled).await.map_or(true, |status| status == 400));
    assert_eq!(recorder.take(), [""; 0]);
}

/// Whatever is sent as a target: an upstream gets a path, and the one that gets it is the one that `route` names for
/// the path as it arrived.
#[test]
fn nothing_reaches_an_upstream_that_was_not_classified() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (recorders, options, server) = runtime.block_on(async {
        let recorders = [Recorder::new().await, Recorder::new().await];
        let mut api = to(&[&recorders[1].upstream]);
        api.prefix = "/api".to_owned();
        let options = edge(vec![to(&[&recorders[0].upstream]), api]);
        let server = TestServer::start(options.clone());
        (recorders, options, server)
    });
    const PIECES: [&str; 32] = [
        "/",
        "//",
        "/v1",
        "/stream",
        "/v1/stream/",
        "/api",
        "/api/",
        "..",
        ".",
        "%2e",
        "%2f",
        "%5c",
        "\\",
        "http://t",
        "http:",
        "HTTPS://t",
        "ftp://t",
        "@evil",
        ":80",
        "t",
        "x",
        "?",
        "#",
        "*",
        " ",
        "\t",
        "\u{b}",
        "\r",
        "%",
        "%zz",
        "\u{e9}",
        ";",
    ];
    let target = proptest::collection::vec(proptest::sample::select(&PIECES[..]), 1..7);
    let mut runner =
        TestRunner::new(Config { cases: 1000, failure_persistence: None, ..Config::default() });
    let checked = runner.run(&target.prop_map(|pieces| pieces.concat()), |target| {
        let request = format!("GET {target} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n");
        let reply = runtime.block_on(server.ask(request));
        let seen: Vec<_> = recorders.iter().map(Recorder::take).collect();
        proptest::prop_assert_eq!(
            seen.concat().len(),
            usize::from(reply.status == 200),
            "{:?}",
            reply
        );
        for (index, request) in
            seen.iter().enumerate().flat_map(|(n, all)| all.iter().map(move |one| (n, one)))
        {
            let parts: Vec<_> = request.lines().next().unwrap().split(' ').collect();
            proptest::prop_assert_eq!((parts.len(), parts[0], parts[2]), (3, "GET", "HTTP/1.1"));
            let path = parts[1].split('?').next().unwrap();
            proptest::prop_assert!(path.starts_with('/'), "{} became {}", target, parts[1]);
            proptest::prop_assert_eq!(
                classify(path, &options),
                EdgeRoute::Upstream(index),
                "{}",
                target
            );
        }
        Ok(())
    });
    checked.unwrap();
}
