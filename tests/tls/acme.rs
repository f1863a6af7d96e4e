//! Certificates ordered from Pebble, the ACME server that is made for tests. Skipped, and counted as skipped, where it
//! is not installed; `scripts/bootstrap test` installs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::authority::Authority;
use crate::process::{Server, eventually, free_port};
use crate::secure::{connector, head, request};
use crate::skips::skipped;

/// Pebble, and the DNS server that leads every name to this machine.
struct Pebble {
    processes: Vec<Child>,
    directory: tempfile::TempDir,
    port: u16,
    management: u16,
    https: u16,
    http: u16,
}

fn installed(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|file| file.is_file())
}

impl Pebble {
    /// `None` where it is not installed.
    async fn start() -> Option<Self> {
        let (Some(pebble), Some(dns)) = (installed("pebble"), installed("pebble-challtestsrv"))
        else {
            return skipped(
                "pebble is not installed; scripts/bootstrap test builds it where Go is",
            );
        };
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let (certificate, key) = authority.write(directory.path(), "localhost");
        fs::write(directory.path().join("ca.pem"), &authority.pem).unwrap();
        let ports: Vec<u16> = (0..6).map(|_| free_port()).collect();
        let [port, management, https, http, dns_port, dns_management] = ports[..] else { panic!() };
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": certificate, "privateKey": key,
            "httpPort": http, "tlsPort": https,
            "ocspResponderURL": "", "externalAccountBindingRequired": false,
            "retryAfter": { "authz": 1, "order": 1 },
        }});
        let file = directory.path().join("pebble.json");
        fs::write(&file, config.to_string()).unwrap();
        let quiet = |command: &mut Command| {
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        let names = quiet(Command::new(dns).args([
            "-defaultIPv4=127.0.0.1",
            "-defaultIPv6=",
            "-http01=",
            "-https01=",
            "-tlsalpn01=",
            "-doh=",
            &format!("-dnsserver=127.0.0.1:{dns_port}"),
            &format!("-management=127.0.0.1:{dns_management}"),
        ]));
        let server = quiet(
            Command::new(pebble)
                .arg("-config")
                .arg(&file)
                .arg("-dnsserver")
                .arg(format!("127.0.0.1:{dns_port}"))
                .env("PEBBLE_VA_NOSLEEP", "1"),
        );
        let processes = vec![names, server];
        let pebble = Pebble { processes, directory, port, management, https, http };
        eventually("pebble answers", async || pebble.root().await).await;
        Some(pebble)
    }

    fn trust(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// The root of the certificates that it issues.
    async fn root(&self) -> Option<String> {
        let ca = fs::read_to_string(self.trust()).unwrap();
        let connector = connector(&ca, None, &["http/1.1"]);
        let address = ([127, 0, 0, 1], self.management).into();
        let get = "GET /roots/0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let answer = request(&connector, address, "localhost", get).await.ok()?;
        let start = answer.find("-----BEGIN CERTIFICATE-----")?;
        Some(answer[start..].to_owned())
    }

    fn config(&self, data: &Path, challenge: &str) -> String {
        format!(
            "data_dir: {}\nlisten: [{{address: '127.0.0.1:{}', hosts: [a.test], tls: auto}}]\n\
             redirect_http: ['127.0.0.1:{}']\nadmin: {{listen: '127.0.0.1:0'}}\n\
             acme: {{email: ops@example.com, directory: 'https://localhost:{}/dir', ca: {}, \
             challenges: [{challenge}]}}\n",
            data.display(),
            self.https,
            self.http,
            self.port,
            self.trust().display(),
        )
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

async fn answers(pebble: &Pebble, root: &str) -> Option<String> {
    let address = ([127, 0, 0, 1], pebble.https).into();
    let connector = connector(root, None, &["http/1.1"]);
    request(&connector, address, "a.test", &head("HEAD", "x", "")).await.ok()
}

/// The first certificate by each challenge; after a crash it is served at once and not ordered again.
async fn ordered_by(challenge: &str) {
    let Some(pebble) = Pebble::start().await else { return };
    let root = pebble.root().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = pebble.config(&directory.path().join("data"), challenge);
    let server = Server::run(directory.path(), &config).await;
    let answer = eventually("a certificate", async || answers(&pebble, &root).await).await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    assert_eq!(server.times("certificate issued"), 1);
    server.kill();

    let server = Server::run(directory.path(), &config).await;
    assert!(answers(&pebble, &root).await.is_some(), "the kept certificate is served at once");
    assert_eq!(server.times("ordering a certificate"), 0);
    let kept = walk(&directory.path().join("data"));
    let secret =
        |path: &&PathBuf| path.extension().is_some_and(|kind| kind == "pem" || kind == "json");
    for file in kept.iter().filter(secret) {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.display());
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(walk(&path)) } else { found.push(path) }
    }
    found
}

#[tokio::test]
async fn a_certificate_is_ordered_by_http_01() {
    ordered_by("http-01").await;
}

#[tokio::test]
async fn a_certificate_is_ordered_by_tls_alpn_01() {
    ordered_by("tls-alpn-01").await;
}

#[tokio::test]
async fn a_failed_order_is_explained_and_not_repeated_by_a_crash_loop() {
    let Some(pebble) = Pebble::start().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    // Nobody listens where the authority looks for the answer.
    let config = pebble
        .config(&data, "http-01")
        .replace(&format!("redirect_http: ['127.0.0.1:{}']", pebble.http), "redirect_http: []");
    let server = Server::run(directory.path(), &config).await;
    let failure = eventually("it fails", async || server.logged("no certificate: ")).await;
    let text = failure.to_string();
    assert!(text.contains("port 80") && text.contains("connection"), "{text}");
    let admin = server.logged("listening").unwrap()["admin"].as_str().unwrap().parse().unwrap();
    let ready = crate::secure::cleartext(admin, b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("a.test"), "{ready}");
    server.kill();
    for _ in 0..3 {
        let server = Server::run(directory.path(), &config).await;
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        assert_eq!(server.times("ordering a certificate"), 0, "the wait survives a crash");
        server.kill();
    }
}

#[tokio::test]
async fn while_the_authority_is_down_the_old_certificate_is_served() {
    let Some(mut pebble) = Pebble::start().await else { return };
    let root = pebble.root().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = pebble.config(&directory.path().join("data"), "tls-alpn-01");
    let server = Server::run(directory.path(), &config).await;
    eventually("a certificate", async || answers(&pebble, &root).await).await;
    server.kill();
    for process in &mut pebble.processes {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let server = Server::run(directory.path(), &config).await;
    assert!(answers(&pebble, &root).await.is_some());
    // Without an account's answer there is no renewal window; two thirds of the life decide.
    assert_eq!(server.times("no certificate"), 0);
}
