//! `SSL_CERT_FILE` and `SSL_CERT_DIR` that name what cannot be used: an error that says so, before anything is served.

use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::{Outcome, binary, outcome};

/// How long a server has to find out that it cannot start.
const PATIENCE: Duration = Duration::from_secs(30);

fn ended(command: &mut Command) -> Outcome {
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > PATIENCE {
            child.kill().unwrap();
            let said = child.wait_with_output().unwrap();
            panic!("{command:?} still runs: {}", String::from_utf8_lossy(&said.stderr));
        }
        sleep(Duration::from_millis(10));
    }
    outcome(child.wait_with_output().unwrap())
}

#[test]
fn authorities_that_cannot_be_loaded_are_named_at_start() {
    let scene = tempfile::tempdir().unwrap();
    let path = |name: &str| scene.path().join(name).display().to_string();
    let config = path("streams.yaml");
    std::fs::write(
        &config,
        "listen: \"127.0.0.1:0\"\nupstreams: [{path: /, servers: [\"http://127.0.0.1:9\"]}]\n",
    )
    .unwrap();
    let broken = path("broken.pem");
    std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        .unwrap();
    let gone = path("gone");
    for (variable, value, reason) in [
        ("SSL_CERT_FILE", gone.as_str(), "could not load certs from file"),
        ("SSL_CERT_DIR", gone.as_str(), "could not load certs from dir"),
        ("SSL_CERT_FILE", broken.as_str(), "a certificate is not valid"),
    ] {
        for arguments in [&["run", "--config", &config][..], &["dev", "--port", "0"]] {
            let mut command = binary();
            command.args(arguments).current_dir(scene.path());
            command.env_remove("SSL_CERT_FILE").env_remove("SSL_CERT_DIR").env(variable, value);
            let seen = ended(&mut command);
            assert_eq!(seen.code, 1, "{}", seen.stderr);
            assert_eq!(seen.stdout, "", "nothing is announced");
            let named = format!("{variable} = {value:?}: ");
            for part in [named.as_str(), reason, "; name what can be read, or unset it"] {
                assert!(seen.stderr.contains(part), "{part} is missing: {}", seen.stderr);
            }
            assert!(!seen.stderr.contains("panicked"), "{}", seen.stderr);
        }
    }
}
