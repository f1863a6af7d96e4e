//! Certificates from files: served, replaced, refused.

use std::fs;
use std::process::Output;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::authority::{Authority, write_key};
use crate::process::{Server, binary, eventually};
use crate::secure::{connect, connector, connector_of, head, request};
use crate::skips::skipped;

/// One listener on a free port, with the files that [`Authority::write`] makes.
fn config(directory: &std::path::Path, more: &str) -> String {
    let at = directory.display();
    format!(
        "listen:\n  - address: 127.0.0.1:0\n    tls:\n      certificates:\n        \
         - {{certificate: {at}/cert.pem, key: {at}/key.pem}}\n{more}"
    )
}

#[tokio::test]
async fn streams_are_served_over_both_versions_of_http() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(directory.path(), "a.test");
    let server = Server::run(directory.path(), &config(directory.path(), "")).await;
    let http1 = connector(&authority.pem, None, &["http/1.1"]);
    let text = "Content-Type: text/plain\r\n";
    let ask = |text: String| {
        let (http1, address) = (&http1, server.address());
        async move { request(http1, address, "a.test", &text).await.unwrap() }
    };
    let made = ask(head("PUT", "x", text)).await;
    assert!(made.starts_with("HTTP/1.1 201"), "{made}");
    assert!(made.contains("https://a.test/v1/stream/x"), "Location has the scheme: {made}");
    let body = "y".repeat(300_000);
    let more = format!("{text}Content-Length: {}\r\n", body.len());
    let appended = ask(head("POST", "x", &more) + &body).await;
    assert!(appended.starts_with("HTTP/1.1 204"), "{appended}");
    let read = ask(head("GET", "x", "")).await;
    assert!(read.ends_with(&body), "a large response comes whole over TLS: {}", read.len());

    let stream =
        connect(&connector(&authority.pem, None, &["h2"]), server.address(), "a.test", b"").await;
    let (client, connection) = h2::client::handshake(stream.unwrap()).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let get = http::Request::get("https://a.test/v1/stream/x").body(()).unwrap();
    let (response, _) = client.send_request(get, true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(
        (response.status(), response.version()),
        (http::StatusCode::OK, http::Version::HTTP_2)
    );
    let mut body = response.into_body();
    let mut length = 0;
    while let Some(chunk) = body.data().await {
        let chunk = chunk.unwrap();
        length += chunk.len();
        body.flow_control().release_capacity(chunk.len()).unwrap();
    }
    assert_eq!(length, 300_000);

    // More than the head of a request may have.
    let post =
        http::Request::post("https://a.test/v1/stream/x").header("content-type", "text/plain");
    let mut client = client.ready().await.unwrap();
    let (response, mut body) = client.send_request(post.body(()).unwrap(), false).unwrap();
    for n in 0..20 {
        body.reserve_capacity(10_000);
        while body.capacity() < 10_000 {
            std::future::poll_fn(|cx| body.poll_capacity(cx)).await.unwrap().unwrap();
        }
        body.send_data(vec![b'z'; 10_000].into(), n == 19).unwrap();
    }
    assert_eq!(response.await.unwrap().status(), http::StatusCode::NO_CONTENT);
}

/// A live reader sees each append at once, and goes on through a change of the certificate.
#[tokio::test]
async fn a_replaced_certificate_is_served_to_new_connections_and_drops_no_reader() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(directory.path(), "a.test");
    let server = Server::run(directory.path(), &config(directory.path(), "")).await;
    let address = server.address();
    let connector = connector(&authority.pem, None, &["http/1.1"]);
    let text = "Content-Type: text/plain\r\n";
    request(&connector, address, "a.test", &head("PUT", "x", text)).await.unwrap();
    let mut reader = connect(&connector, address, "a.test", b"").await.unwrap();
    let live = "GET /v1/stream/x?offset=-1&live=sse HTTP/1.1\r\nHost: a.test\r\n\r\n";
    reader.write_all(live.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    let append = |word: &'static str| {
        let more = format!("{text}Content-Length: {}\r\n", word.len());
        let (connector, text) = (&connector, head("POST", "x", &more) + word);
        async move { request(connector, address, "a.test", &text).await.unwrap() }
    };
    append("before").await;
    read_until(&mut reader, &mut seen, "before").await;

    let certificate = |stream: tokio_rustls::client::TlsStream<tokio::net::TcpStream>| {
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    };
    let old = certificate(connect(&connector, address, "a.test", b"").await.unwrap());
    fs::write(directory.path().join("cert.pem"), "torn").unwrap();
    server.signal("HUP");
    eventually("the torn file is refused", async || server.logged("is refused")).await;
    let still = certificate(connect(&connector, address, "a.test", b"").await.unwrap());
    assert_eq!(still, old, "the one in use stays");

    authority.write(directory.path(), "a.test");
    server.signal("HUP");
    eventually("the new certificate is served", async || {
        let now = certificate(connect(&connector, address, "a.test", b"").await.unwrap());
        (now != old).then_some(())
    })
    .await;
    append("after").await;
    read_until(&mut reader, &mut seen, "after").await;
}

pub(crate) async fn read_until(
    reader: &mut tokio_rustls::client::TlsStream<tokio::net::TcpStream>,
    seen: &mut Vec<u8>,
    word: &str,
) {
    while !String::from_utf8_lossy(seen).contains(word) {
        let read = reader.read_buf(seen);
        let read = tokio::time::timeout(crate::process::PATIENCE, read).await;
        assert!(read.expect("the reader is served").unwrap() > 0, "the reader was dropped");
    }
}

/// The second handshake of a client needs no certificate and no signature.
#[tokio::test]
async fn a_client_resumes_its_session() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(directory.path(), "a.test");
    let server = Server::run(directory.path(), &config(directory.path(), "")).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let connector = connector_of(&authority.pem, None, &["http/1.1"], &[version]);
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let mut stream = connect(&connector, server.address(), "a.test", b"").await.unwrap();
            stream.write_all(head("HEAD", "x", "").as_bytes()).await.unwrap();
            let mut response = Vec::new();
            // TLS 1.3 sends its tickets behind the handshake.
            stream.read_to_end(&mut response).await.unwrap();
            assert!(response.starts_with(b"HTTP/1.1 404"));
            kinds.push(stream.get_ref().1.handshake_kind().unwrap());
        }
        let expected = [rustls::HandshakeKind::Full, rustls::HandshakeKind::Resumed];
        assert_eq!(kinds, expected, "{version:?}");
    }
}

#[tokio::test]
async fn curl_reads_over_both_versions_of_http() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(directory.path(), "a.test");
    fs::write(directory.path().join("ca.pem"), &authority.pem).unwrap();
    let server = Server::run(directory.path(), &config(directory.path(), "")).await;
    let address = server.address();
    let url = format!("https://a.test:{}/v1/stream/x", address.port());
    let curl = |arguments: &[&str]| {
        let mut command = std::process::Command::new("curl");
        command.args(["-sS", "--max-time", "20", "--cacert"]).arg(directory.path().join("ca.pem"));
        command.args(["--resolve", &format!("a.test:{}:127.0.0.1", address.port())]);
        command.args(["-w", " %{http_version} %{http_code}"]).args(arguments).arg(&url).output()
    };
    let Ok(version) = std::process::Command::new("curl").arg("--version").output() else {
        return skipped("curl is not installed").unwrap_or_default();
    };
    let made = curl(&["-X", "PUT", "-H", "Content-Type: text/plain", "-d", "hello"]).unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let both = String::from_utf8_lossy(&version.stdout).contains("HTTP2");
    for (option, said) in [("--http1.1", "hello 1.1 200"), ("--http2", "hello 2 200")] {
        if option == "--http2" && !both {
            skipped::<()>("curl has no HTTP/2 here");
            continue;
        }
        let read = curl(&[option]).unwrap();
        let text = String::from_utf8_lossy(&read.stdout).into_owned();
        assert_eq!(text, said, "{}", String::from_utf8_lossy(&read.stderr));
    }
}

fn check(directory: &std::path::Path, config: &str) -> Output {
    let file = directory.join("streams.yaml");
    fs::write(&file, config).unwrap();
    binary().arg("check").arg("--config").arg(file).output().unwrap()
}

#[test]
fn what_cannot_be_served_is_found_by_check_and_refused_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let authority = Authority::new();
    let good = config(at, "");
    authority.write(at, "a.test");
    assert!(check(at, &good).status.success());
    let wrong_host = good.replace("    tls:", "    hosts: [b.test]\n    tls:");
    for (what, config, reason) in [
        ("another name", wrong_host.as_str(), "no certificate covers b.test"),
        ("a missing file", &good.replace("cert.pem", "none.pem"), "cannot read"),
    ] {
        refused(at, config, what, reason);
    }
    write_key(&at.join("key.pem"), &authority.issue("a.test").1);
    refused(at, &good, "another key", "does not belong");
    fs::write(at.join("key.pem"), "").unwrap();
    refused(at, &good, "an empty key", "holds no private key");
}

fn refused(directory: &std::path::Path, config: &str, what: &str, reason: &str) {
    for seen in [
        check(directory, config),
        binary().arg("run").arg("--config").arg(directory.join("streams.yaml")).output().unwrap(),
    ] {
        let error = String::from_utf8_lossy(&seen.stderr);
        assert_eq!(seen.status.code(), Some(1), "{what}: {error}");
        assert!(error.contains(reason), "{what}: {error}");
    }
}

#[test]
fn rules_between_keys_name_the_key_and_what_to_change() {
    let directory = tempfile::tempdir().unwrap();
    for (config, message) in [
        ("listen: [{tls: auto}]", "listen[0] needs an address"),
        ("listen: [{address: '127.0.0.1:1', tls: yes}]", "write auto, internal, or a group"),
        ("listen: [{address: '127.0.0.1:1', tls: internal}]", "set data_dir"),
        (
            "data_dir: /d\nlisten: [{address: '127.0.0.1:1', tls: auto}]",
            "listen[0] needs hosts with tls: auto",
        ),
        (
            "data_dir: /d\nlisten: [{address: '127.0.0.1:1', tls: auto, hosts: ['*.a.test']}]",
            "order wildcards by DNS-01 with another tool",
        ),
        ("listen: [{address: '127.0.0.1:1', hosts: [a.test]}]", "has no effect without tls"),
        ("listen: [{address: '127.0.0.1:1', proxy_protocol: true}]", "trusted_proxies is empty"),
        ("acme: {email: a@b.test}", "no listener has tls: auto"),
        ("hsts: 1d", "no listener has tls"),
        ("redirect_http: ['127.0.0.1:1']", "no listener has tls"),
        ("listen: [{address: '127.0.0.1:1', tls: {}}]", "names no certificate"),
    ] {
        let seen = check(directory.path(), config);
        let error = String::from_utf8_lossy(&seen.stderr);
        assert_eq!(seen.status.code(), Some(1), "{config}: {error}");
        assert!(error.contains(message), "{config}: {error}");
    }
}
