//! What a listener expects before HTTP: TLS, client certificates, a PROXY header; and who is sent away.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::authority::{self, Authority};
use crate::process::{Server, binary, eventually, free_port};
use crate::secure::{cleartext, connect, connector, head, request};

fn listener(directory: &std::path::Path, tls: &str, more: &str) -> String {
    let at = directory.display();
    format!(
        "listen:\n  - address: 127.0.0.1:0\n    {more}\n    tls:\n      {tls}\n      certificates:\n        \
         - {{certificate: {at}/cert.pem, key: {at}/key.pem}}\n"
    )
}

#[tokio::test]
async fn http_on_the_port_of_https_is_told_so_and_others_are_closed() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(directory.path(), "a.test");
    let config =
        listener(directory.path(), "", "hosts: [a.test]") + "admin: {listen: 127.0.0.1:0}\n";
    let server = Server::run(directory.path(), &config).await;
    let answer = cleartext(server.address(), b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("https://"), "{answer}");
    assert_eq!(cleartext(server.address(), b"\0\0\0\0").await, "");
    let trusting = connector(&authority.pem, None, &[]);
    assert!(connect(&trusting, server.address(), "b.test", b"").await.is_err(), "another name");
    assert!(connect(&trusting, server.address(), "a.test", b"").await.is_ok());
    let record = server.logged("listening").unwrap();
    let admin = record["admin"].as_str().unwrap().parse().unwrap();
    for line in [
        r#"tls_handshakes_total{result="ok"} 1"#,
        r#"tls_handshakes_total{result="not_tls"} 2"#,
        r#"tls_handshakes_total{result="unknown_name"} 1"#,
        r#"tls_certificate_expiry_timestamp_seconds{name="a.test"}"#,
    ] {
        // A client of TLS 1.3 has its end of a handshake before the server has.
        eventually(line, async || {
            let metrics = cleartext(admin, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
            metrics.contains(line).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_client_needs_the_certificate_that_is_required() {
    let directory = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new(), Authority::new());
    authority.write(directory.path(), "a.test");
    std::fs::write(directory.path().join("clients.pem"), &authority.pem).unwrap();
    let tls = format!("client_ca: {}/clients.pem", directory.path().display());
    let server = Server::run(directory.path(), &listener(directory.path(), &tls, "")).await;
    let ask = |own: Option<(String, String)>| {
        let (pem, address) = (authority.pem.clone(), server.address());
        async move {
            let connector = connector(&pem, own.as_ref(), &["http/1.1"]);
            request(&connector, address, "a.test", &head("HEAD", "x", "")).await
        }
    };
    let answer = ask(Some(authority.issue("worker"))).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert!(ask(None).await.is_err());
    assert!(ask(Some(other.issue("worker"))).await.is_err());
}

#[tokio::test]
async fn the_client_is_whom_the_proxy_header_names() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(directory.path(), "a.test");
    let config = listener(directory.path(), "", "proxy_protocol: true");
    let config = config + "trusted_proxies: [127.0.0.1]\n";
    let server = Server::run(directory.path(), &config).await;
    let trusting = connector(&authority.pem, None, &["http/1.1"]);
    let header = b"PROXY TCP4 192.0.2.7 127.0.0.1 50000 443\r\n";
    let mut stream = connect(&trusting, server.address(), "a.test", header).await.unwrap();
    stream.write_all(head("HEAD", "seen", "").as_bytes()).await.unwrap();
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response).await;
    let logged = eventually("it is logged", async || server.logged("/v1/stream/seen")).await;
    assert_eq!(logged["client"], "192.0.2.7", "{logged}");
    let without = connect(&trusting, server.address(), "a.test", b"").await;
    assert!(without.is_err(), "the header is required");
}

/// The first bytes of a connection that a load balancer opens for `client`.
fn proxied(client: &str) -> String {
    format!("PROXY TCP4 {client} 127.0.0.1 50000 443\r\n")
}

#[tokio::test]
async fn one_client_has_a_part_of_the_connections() {
    let directory = tempfile::tempdir().unwrap();
    let config = "listen: [{address: 127.0.0.1:0, proxy_protocol: true}]\n\
                  trusted_proxies: [127.0.0.1]\nlimits: {max_connections: 8}\n";
    let server = Server::run(directory.path(), config).await;
    let request = |client: &str| proxied(client) + &head("HEAD", "x", "");
    let kept = proxied("192.0.2.1") + "HEAD /v1/stream/x HTTP/1.1\r\nHost: a.test\r\n\r\n";
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut socket = TcpStream::connect(server.address()).await.unwrap();
        socket.write_all(kept.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 404");
        open.push(socket);
    }
    // Without a request, which would be unread bytes that reset the answer.
    let answer = cleartext(server.address(), proxied("192.0.2.1").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 429") && answer.contains("one client"), "{answer}");
    let answer = cleartext(server.address(), request("192.0.2.2").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "another client: {answer}");
    drop(open);
    eventually("the places are free again", async || {
        let answer = cleartext(server.address(), request("192.0.2.1").as_bytes()).await;
        answer.starts_with("HTTP/1.1 404").then_some(())
    })
    .await;
}

/// Handshakes that never go on hold up those of their own client only.
#[tokio::test]
async fn one_client_has_a_part_of_the_handshakes() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(directory.path(), "a.test");
    let config = listener(directory.path(), "", "proxy_protocol: true")
        + "trusted_proxies: [127.0.0.1]\nlimits: {client_share: 1%, header_timeout: 4s}\n";
    let server = Server::run(directory.path(), &config).await;
    let mut open = Vec::new();
    for _ in 0..600 {
        let mut socket = TcpStream::connect(server.address()).await.unwrap();
        // The first bytes of a handshake record that promises more.
        let begun = [proxied("192.0.2.1").as_bytes(), &[22, 3, 1, 2, 0]].concat();
        socket.write_all(&begun).await.unwrap();
        open.push(socket);
    }
    let trusting = connector(&authority.pem, None, &["http/1.1"]);
    let began = std::time::Instant::now();
    let other = proxied("192.0.2.2");
    let connected = connect(&trusting, server.address(), "a.test", other.as_bytes()).await;
    assert!(connected.is_ok(), "{connected:?}");
    assert!(began.elapsed() < std::time::Duration::from_secs(3), "{:?}", began.elapsed());
}

#[tokio::test]
async fn http_is_redirected_and_browsers_are_told_to_stay() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    authority.write(directory.path(), "a.test");
    let port = free_port();
    let config = listener(directory.path(), "", "");
    let config = format!("{config}redirect_http: ['127.0.0.1:{port}']\nhsts: 365d\n");
    let server = Server::run(directory.path(), &config).await;
    let redirect = ([127, 0, 0, 1], port).into();
    let answer = cleartext(redirect, b"GET /x?y=1 HTTP/1.1\r\nHost: a.test\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 308"), "{answer}");
    assert!(answer.to_lowercase().contains("location: https://a.test"), "{answer}");
    let trusting = connector(&authority.pem, None, &["http/1.1"]);
    for path in ["x", "../elsewhere"] {
        let answer = request(&trusting, server.address(), "a.test", &head("GET", path, "")).await;
        let answer = answer.unwrap().to_lowercase();
        assert!(answer.contains("strict-transport-security: max-age=31536000"), "{answer}");
    }
}

/// A certificate that `openssl req -x509` makes is an authority's, and no server's.
#[tokio::test]
async fn why_an_upstream_with_an_authoritys_certificate_is_refused_is_said() {
    let (upstream, proxy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (certificate, key) = authority::self_signed("localhost");
    std::fs::write(upstream.path().join("cert.pem"), &certificate).unwrap();
    authority::write_key(&upstream.path().join("key.pem"), &key);
    let secure = Server::run(upstream.path(), &listener(upstream.path(), "", "")).await;
    let config = format!(
        "listen: 127.0.0.1:0\nupstreams:\n  - servers: ['https://localhost:{}']\n    tls: {{ca: {}/cert.pem}}\n",
        secure.address().port(),
        upstream.path().display(),
    );
    let server = Server::run(proxy.path(), &config).await;
    let request = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = cleartext(server.address(), request).await;
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains("upstream-tls"), "{answer}");
    let logged = eventually("it is logged", async || server.logged("cannot connect")).await;
    assert!(logged["advice"].as_str().unwrap().contains("CA:TRUE"), "{logged}");
}

#[tokio::test]
async fn a_local_authority_serves_development() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let config = format!(
        "data_dir: {}\nlisten: [{{address: '127.0.0.1:0', tls: internal}}]\n",
        data.display()
    );
    let server = Server::run(directory.path(), &config).await;
    let root = binary()
        .args(["tls-root", "--config"])
        .arg(directory.path().join("streams.yaml"))
        .output()
        .unwrap();
    let root = String::from_utf8(root.stdout).unwrap();
    let trusting = connector(&root, None, &["http/1.1"]);
    let answer = request(&trusting, server.address(), "localhost", &head("HEAD", "x", "")).await;
    assert!(answer.unwrap().starts_with("HTTP/1.1 404"));
}
