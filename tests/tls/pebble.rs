//! Pebble, the ACME server that is made for tests. Skipped, and counted as skipped, where it is not installed;
//! `scripts/bootstrap test` installs it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::authority::Authority;
use crate::process::{eventually, free_ports};
use crate::secure::{connector, request};
use crate::skips::skipped;

/// Pebble, and the DNS server that leads every name to this machine.
pub(crate) struct Pebble {
    processes: Vec<Child>,
    directory: tempfile::TempDir,
    port: u16,
    management: u16,
    /// Where it looks for the answers of TLS-ALPN-01.
    pub(crate) https: u16,
    /// Where it looks for the answers of HTTP-01.
    pub(crate) http: u16,
}

fn installed(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// How often it is started on other ports.
const TRIES: usize = 5;

/// What a test changes about it.
pub(crate) struct PebbleOptions {
    /// How long the certificates that it issues are valid, seconds.
    pub(crate) life: u32,
    /// The name that it issues no certificate for.
    pub(crate) blocked: &'static str,
    /// Whether it takes some seconds to validate a name.
    pub(crate) slow: bool,
}

impl Default for PebbleOptions {
    fn default() -> Self {
        PebbleOptions { life: 90 * 86_400, blocked: "blocked.test", slow: false }
    }
}

impl Pebble {
    /// `None` where it is not installed.
    pub(crate) async fn start() -> Option<Self> {
        Self::with(PebbleOptions::default()).await
    }

    /// `None` where it is not installed.
    pub(crate) async fn with(options: PebbleOptions) -> Option<Self> {
        let (Some(pebble), Some(dns)) = (installed("pebble"), installed("pebble-challtestsrv"))
        else {
            return skipped(
                "pebble is not installed; scripts/bootstrap test builds it where Go is",
            );
        };
        // Another test may have taken one of its ports before it listens: then it ends at once.
        for _ in 0..TRIES {
            let mut started = Self::launch(&pebble, &dns, &options);
            let answers = async || match started.root().await {
                Some(_) => Some(true),
                None => started.has_ended().then_some(false),
            };
            if eventually("pebble answers, or ends", answers).await {
                return Some(started);
            }
        }
        panic!("pebble ended {TRIES} times");
    }

    fn launch(pebble: &Path, dns: &Path, options: &PebbleOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let (certificate, key) = authority.write(directory.path(), "localhost");
        fs::write(directory.path().join("ca.pem"), &authority.pem).unwrap();
        let [port, management, https, http, dns_port, dns_management] = free_ports();
        let config = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": certificate, "privateKey": key,
            "httpPort": http, "tlsPort": https,
            "ocspResponderURL": "", "externalAccountBindingRequired": false,
            "retryAfter": { "authz": 1, "order": 1 },
            "domainBlocklist": [options.blocked],
            "profiles": { "default": { "description": "all", "validityPeriod": options.life } },
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
        let mut command = Command::new(pebble);
        command.arg("-config").arg(&file).arg("-dnsserver").arg(format!("127.0.0.1:{dns_port}"));
        if options.slow {
            command.env("PEBBLE_VA_SLEEPTIME", "5");
        } else {
            command.env("PEBBLE_VA_NOSLEEP", "1");
        }
        let server = quiet(&mut command);
        let processes = vec![names, server];
        Pebble { processes, directory, port, management, https, http }
    }

    fn has_ended(&mut self) -> bool {
        self.processes.iter_mut().any(|process| !matches!(process.try_wait(), Ok(None)))
    }

    pub(crate) fn trust(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// The root of the certificates that it issues.
    pub(crate) async fn root(&self) -> Option<String> {
        let ca = fs::read_to_string(self.trust()).unwrap();
        let connector = connector(&ca, None, &["http/1.1"]);
        let address = ([127, 0, 0, 1], self.management).into();
        let get = "GET /roots/0 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let answer = request(&connector, address, "localhost", get).await.ok()?;
        let start = answer.find("-----BEGIN CERTIFICATE-----")?;
        Some(answer[start..].to_owned())
    }

    pub(crate) fn config(&self, data: &Path, challenge: &str) -> String {
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

impl Pebble {
    /// Ends it, as an outage of the authority.
    pub(crate) fn stop(&mut self) {
        for process in &mut self.processes {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        self.stop();
    }
}
