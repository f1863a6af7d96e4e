//! Client certificates as identity: who they let in, over HTTP/1.1 and HTTP/2, and what cannot imitate them.

use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request};
use rcgen::{CertificateParams, DnType, SanType};

use crate::authority::Authority;
use crate::process::Server;
use crate::secure::{connect, connector, head, request};

/// A certificate as a client has it: PEM and key.
type Own = (String, String);

struct Site {
    authority: Authority,
    server: Server,
    _directory: tempfile::TempDir,
}

impl Site {
    async fn new(mode: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        authority.write(directory.path(), "a.test");
        std::fs::write(directory.path().join("clients.pem"), &authority.pem).unwrap();
        let server = Server::run(directory.path(), &config(directory.path(), mode)).await;
        Site { authority, server, _directory: directory }
    }

    /// The status of a request over HTTP/1.1.
    async fn ask(&self, own: Option<&Own>, method: &str, path: &str, fields: &str) -> u16 {
        let connector = connector(&self.authority.pem, own, &["http/1.1"]);
        let head = head(method, path, &format!("content-length: 0\r\n{fields}"));
        let answer = request(&connector, self.server.address(), "a.test", &head).await.unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// The same over HTTP/2.
    async fn ask_h2(
        &self,
        own: Option<&Own>,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
    ) -> u16 {
        let connector = connector(&self.authority.pem, own, &["h2"]);
        let stream = connect(&connector, self.server.address(), "a.test", b"").await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        let mut request = Request::builder()
            .method(method.parse::<Method>().unwrap())
            .uri(format!("https://a.test/v1/stream/{path}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (response, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
        body.send_data(Bytes::new(), true).unwrap();
        let status = response.await.unwrap().status().as_u16();
        driver.abort();
        status
    }
}

fn config(directory: &Path, mode: &str) -> String {
    let at = directory.display();
    format!(
        r#"
listen:
  - address: 127.0.0.1:0
    tls:
      certificates: [{{certificate: {at}/cert.pem, key: {at}/key.pem}}]
      client_ca: {at}/clients.pem
      client_certificate: {mode}
auth:
  credentials: {at}/credentials.json
  client_certificates:
    - {{dns: "*.devices.test", allow: [create, append, read], paths: ["devices/{{name}}/**"]}}
    - {{uri: "spiffe://test/tenants/*", allow: [all], paths: ["**"], tenant: "{{name}}"}}
    - {{email: "*@people.test", allow: [read], paths: ["**"]}}
    - {{common_name: "operator", allow: [all], paths: ["**"]}}
"#
    )
}

/// A certificate with these names, valid from and to so many days from now.
fn issue(authority: &Authority, common_name: &str, names: Vec<SanType>, days: (i64, i64)) -> Own {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names = names;
    let day = |days: i64| {
        let (now, away) = (SystemTime::now(), Duration::from_secs(days.unsigned_abs() * 86_400));
        if days < 0 { now - away } else { now + away }
    };
    params.not_before = day(days.0).into();
    params.not_after = day(days.1).into();
    authority.sign(&params)
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

fn email(name: &str) -> SanType {
    SanType::Rfc822Name(name.try_into().unwrap())
}

const VALID: (i64, i64) = (-1, 30);

#[tokio::test]
async fn the_names_in_a_certificate_decide() {
    let site = Site::new("required").await;
    let own = |name, names| issue(&site.authority, name, names, VALID);
    let device = own("x", vec![dns("other.test"), dns("d1.devices.test")]);
    let operator = own("operator", Vec::new());
    let acme = own("x", vec![uri("spiffe://test/tenants/acme")]);
    let ada = own("x", vec![email("ada@people.test")]);
    let text = "content-type: text/plain\r\n";
    for (own, method, path, status) in [
        (&device, "PUT", "devices/d1/log", 201),
        (&device, "GET", "devices/d1/log", 200),
        (&device, "DELETE", "devices/d1/log", 403),
        (&device, "GET", "devices/d2/log", 404),
        (&device, "PUT", "devices/d2/log", 403),
        (&ada, "GET", "devices/d1/log", 200),
        (&ada, "PUT", "devices/d1/other", 403),
        (&acme, "GET", "devices/d1/log", 404),
        (&acme, "PUT", "devices/d1/log", 201),
        (&operator, "DELETE", "devices/d1/log", 204),
        // A tenant's stream of that name is another.
        (&acme, "GET", "devices/d1/log", 200),
        (&operator, "GET", "devices/d1/log", 404),
    ] {
        assert_eq!(site.ask(Some(own), method, path, text).await, status, "{method} {path}");
    }
    // The same decisions over HTTP/2.
    let text = [("content-type", "text/plain")];
    for (own, method, path, status) in [
        (&device, "PUT", "devices/d1/h2", 201),
        (&device, "GET", "devices/d1/h2", 200),
        (&device, "DELETE", "devices/d1/h2", 403),
        (&device, "GET", "devices/d2/h2", 404),
        (&acme, "GET", "devices/d1/h2", 404),
        (&operator, "GET", "devices/d1/h2", 200),
    ] {
        assert_eq!(site.ask_h2(Some(own), method, path, &text).await, status, "{method} {path}");
    }
}

#[tokio::test]
async fn a_certificate_that_no_rule_is_for_is_no_credential() {
    let site = Site::new("required").await;
    for (common_name, names) in [
        ("worker", Vec::new()),
        ("operator ", Vec::new()),
        ("d1.devices.test", vec![dns("devices.test")]),
        ("x", vec![dns("a.b.devices.test")]),
        ("x", vec![dns("d1.devices.test.evil")]),
        ("x", vec![uri("spiffe://test/tenants/a/b")]),
        ("x", vec![uri("https://d1.devices.test")]),
        ("x", vec![email("operator")]),
        ("spiffe://test/tenants/acme", vec![email("ada@people.test@evil.test")]),
    ] {
        let own = issue(&site.authority, common_name, names.clone(), VALID);
        let status = site.ask(Some(&own), "GET", "devices/d1/log", "").await;
        assert_eq!(status, 401, "{common_name} {names:?}");
    }
    // What the `*` stands for has to be a tenant's name.
    let dotted = issue(&site.authority, "x", vec![uri("spiffe://test/tenants/..")], VALID);
    assert_eq!(site.ask(Some(&dotted), "GET", "x", "").await, 401);
}

#[tokio::test]
async fn without_a_valid_certificate_there_is_no_identity() {
    let site = Site::new("optional").await;
    let elsewhere = Authority::new();
    let operator = |authority, days| issue(authority, "operator", Vec::new(), days);
    assert_eq!(site.ask(None, "GET", "x", "").await, 401, "optional lets a client in, not further");
    assert_eq!(site.ask_h2(None, "GET", "x", &[]).await, 401);
    assert_eq!(site.ask(Some(&operator(&site.authority, VALID)), "GET", "x", "").await, 404);
    for (why, own) in [
        ("another authority", operator(&elsewhere, VALID)),
        ("expired", operator(&site.authority, (-30, -1))),
        ("not valid yet", operator(&site.authority, (1, 30))),
    ] {
        let connector = connector(&site.authority.pem, Some(&own), &["http/1.1"]);
        let asked =
            request(&connector, site.server.address(), "a.test", &head("GET", "x", "")).await;
        assert!(asked.is_err(), "{why}: {asked:?}");
    }
}

#[tokio::test]
async fn no_header_imitates_a_certificate() {
    let site = Site::new("optional").await;
    let operator = issue(&site.authority, "operator", Vec::new(), VALID);
    let pem = operator.0.replace('\n', "%0A");
    let forged = [
        ("x-client-cert", pem.as_str()),
        ("x-ssl-client-cert", pem.as_str()),
        ("ssl-client-subject-dn", "CN=operator"),
        ("x-ssl-client-s-dn", "CN=operator"),
        ("x-ssl-client-verify", "SUCCESS"),
        ("x-forwarded-client-cert", "Subject=\"CN=operator\";DNS=d1.devices.test"),
        ("client-cert", ":MIIB:"),
        ("tls-client-auth", "CN=operator"),
    ];
    for (name, value) in forged {
        let status = site.ask(None, "GET", "x", &format!("{name}: {value}\r\n")).await;
        assert_eq!(status, 401, "{name}");
        assert_eq!(site.ask_h2(None, "GET", "x", &[(name, value)]).await, 401, "{name}");
    }
    // A wrong key is not made right by a certificate, and a page of another site changes nothing by one.
    let own = Some(&operator);
    assert_eq!(site.ask(own, "GET", "x", "authorization: Bearer wrong\r\n").await, 401);
    assert_eq!(site.ask(own, "GET", "x", "x-api-key: wrong\r\n").await, 401);
    for (from, status) in
        [("cross-site", 401), ("same-site", 401), ("same-origin", 201), ("none", 200)]
    {
        let fields = format!("sec-fetch-site: {from}\r\ncontent-type: text/plain\r\n");
        assert_eq!(site.ask(own, "PUT", "page", &fields).await, status, "{from}");
        let read = site.ask(own, "GET", "page", &fields).await;
        assert_eq!(read, if status == 401 { 404 } else { 200 }, "{from}");
    }
}
