//! What a listener expects before HTTP: TLS, client certificates, a PROXY header; and who is sent away.

use tokio::io::AsyncReadExt;

use crate::authority::Authority;
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
    let metrics = cleartext(admin, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n").await;
    for line in [
        r#"tls_handshakes_total{result="ok"} 1"#,
        r#"tls_handshakes_total{result="not_tls"} 2"#,
        r#"tls_handshakes_total{result="unknown_name"} 1"#,
        r#"tls_certificate_expiry_timestamp_seconds{name="a.test"}"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
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
    use tokio::io::AsyncWriteExt;
    stream.write_all(head("HEAD", "seen", "").as_bytes()).await.unwrap();
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response).await;
    let logged = eventually("it is logged", async || server.logged("/v1/stream/seen")).await;
    assert_eq!(logged["client"], "192.0.2.7", "{logged}");
    let without = connect(&trusting, server.address(), "a.test", b"").await;
    assert!(without.is_err(), "the header is required");
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
