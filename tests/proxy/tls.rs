//! TLS to the upstream: verified against a CA of its own, by the right name, or not at all.

use std::sync::Arc;

use durable_streams_server::edge::upstream::{UpstreamOptions, UpstreamTls};
use durable_streams_server::server::{Server, ServerError, ServerOptions};
use rcgen::{CertificateParams, KeyPair};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::support::upstreams::{Speak, Upstream, free_port, ok};
use crate::support::{TestServer, edge, engine, to};

/// A server with a self-signed certificate for `name`, and that certificate as PEM in a file.
async fn secure(name: &str, speak: Speak) -> (Upstream, tempfile::NamedTempFile) {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), cert.pem()).unwrap();
    let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], der)
        .unwrap();
    let alpn: &[u8] = if speak == Speak::Http2 { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![alpn.to_vec()];
    let tls = Some(TlsAcceptor::from(Arc::new(config)));
    let upstream = Upstream::serve(free_port().await, speak, tls, |request: http::Request<_>| {
        let version = format!("{:?}", request.version());
        async move { ok(version) }
    })
    .await;
    (upstream, file)
}

fn over_tls(upstream: &Upstream, tls: UpstreamTls) -> UpstreamOptions {
    UpstreamOptions { tls: Some(tls), ..to(&[upstream]) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_verified_against_the_given_ca_and_name() {
    let (upstream, ca) = secure("inner.example", Speak::Http1).await;
    let ca = Some(ca.path().to_owned());
    let named = |name: &str| UpstreamTls {
        server_name: Some(name.to_owned()),
        ca: ca.clone(),
        ..UpstreamTls::default()
    };
    let server = TestServer::start(edge(vec![over_tls(&upstream, named("inner.example"))]));
    assert_eq!(server.get("/").await.text(), "HTTP/1.1");

    let server = TestServer::start(edge(vec![over_tls(&upstream, named("other.example"))]));
    let reply = server.get("/").await;
    assert_eq!((reply.status, reply.code().as_str()), (502, "upstream-tls"));

    // Without the CA the system's are asked, and they do not know it.
    let strange = UpstreamTls { ca: None, ..named("inner.example") };
    let server = TestServer::start(edge(vec![over_tls(&upstream, strange)]));
    assert_eq!(server.get("/").await.code(), "upstream-tls");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_in_the_address_is_the_name_that_is_verified() {
    let (upstream, ca) = secure("localhost", Speak::Http1).await;
    let tls = UpstreamTls { ca: Some(ca.path().to_owned()), ..UpstreamTls::default() };
    let mut options = over_tls(&upstream, tls);
    options.servers[0].address = format!("localhost:{}", upstream.addr.port());
    let server = TestServer::start(edge(vec![options]));
    assert_eq!(server.get("/").await.text(), "HTTP/1.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn verification_can_be_turned_off() {
    let (upstream, _ca) = secure("inner.example", Speak::Http1).await;
    let tls = UpstreamTls {
        verify: false,
        server_name: Some("whatever.example".into()),
        ..UpstreamTls::default()
    };
    let server = TestServer::start(edge(vec![over_tls(&upstream, tls)]));
    assert_eq!(server.get("/").await.text(), "HTTP/1.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_negotiated() {
    let (upstream, ca) = secure("inner.example", Speak::Http2).await;
    let tls = UpstreamTls {
        server_name: Some("inner.example".into()),
        ca: Some(ca.path().to_owned()),
        ..UpstreamTls::default()
    };
    let options = UpstreamOptions { http2: true, ..over_tls(&upstream, tls) };
    assert_eq!(TestServer::start(edge(vec![options])).get("/").await.text(), "HTTP/2.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_file_that_is_none_is_refused_at_start() {
    let upstream = Upstream::http(|_| async { ok("x") }).await;
    let junk = tempfile::NamedTempFile::new().unwrap();
    for text in ["", "no pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        std::fs::write(junk.path(), text).unwrap();
        let tls = UpstreamTls { ca: Some(junk.path().to_owned()), ..UpstreamTls::default() };
        let edge = edge(vec![over_tls(&upstream, tls)]);
        let options = ServerOptions { edge, ..ServerOptions::default() };
        let Err(error @ ServerError::Upstream(_)) = Server::bind(options, engine()) else {
            panic!("{text:?} was taken for a CA");
        };
        assert!(error.to_string().contains("tls.ca"), "{error}");
    }
}
