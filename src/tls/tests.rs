//! Certificates that are refused, and handshakes over a pipe.

use std::{fs, path::Path, sync::Arc, time::Duration};

use durable_streams_protocol::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::TlsConnector;

use super::{
    AlpnChallenges, CertificateFiles, CertificateSource, ClientAuthOptions, TlsListener,
    TlsOptions,
    handshake::{HandshakeFailure, Handshakes},
};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const DAY: Duration = Duration::from_secs(86_400);

/// An authority that issues what a test asks for.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    der: CertificateDer<'static>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap();
        let (pem, der) = (root.pem(), root.der().clone());
        Authority { issuer: Issuer::new(params, key), pem, der }
    }

    /// PEM of a certificate for `names`, valid `from..until` days from now, and of its key.
    fn issue(&self, names: &[&str], from: i64, until: i64) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let now = std::time::UNIX_EPOCH + Duration::from_millis(NOW.millis());
        let day = |days: i64| match u32::try_from(days) {
            Ok(days) => now + DAY * days,
            Err(_) => now - DAY * days.unsigned_abs() as u32,
        };
        params.not_before = day(from).into();
        params.not_after = day(until).into();
        params.distinguished_name.push(DnType::CommonName, "leaf");
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        (leaf.pem(), key.serialize_pem())
    }
}

/// Writes a pair of files that only the owner can read.
fn files(directory: &Path, name: &str, (chain, key): &(String, String)) -> CertificateFiles {
    let pair = CertificateFiles {
        certificate: directory.join(format!("{name}.pem")),
        key: directory.join(format!("{name}.key")),
    };
    fs::write(&pair.certificate, chain).unwrap();
    fs::write(&pair.key, key).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&pair.key, fs::Permissions::from_mode(0o600)).unwrap();
    }
    pair
}

fn options(pairs: &[&CertificateFiles]) -> TlsOptions {
    TlsOptions {
        source: CertificateSource::Files(pairs.iter().map(|pair| (*pair).clone()).collect()),
        hosts: Vec::new(),
        client_auth: None,
    }
}

fn listener(options: TlsOptions) -> Result<TlsListener, String> {
    TlsListener::new(options, Arc::<AlpnChallenges>::default(), NOW).map_err(|e| e.to_string())
}

/// A client that trusts `authority`, with a certificate of its own or without.
fn connector(authority: &Authority, own: Option<&(String, String)>, alpn: &[&str]) -> TlsConnector {
    use rustls::pki_types::pem::PemObject;
    let mut roots = RootCertStore::empty();
    roots.add(authority.der.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    // The leaf's dates are those of `NOW`.
    config.time_provider = Arc::new(AtNow);
    config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

#[derive(Debug)]
struct AtNow;

impl rustls::time_provider::TimeProvider for AtNow {
    fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
        Some(rustls::pki_types::UnixTime::since_unix_epoch(Duration::from_millis(NOW.millis())))
    }
}

/// The certificate that a client of `name` gets, or why it gets none; and what the server says.
async fn handshake(
    listener: &TlsListener,
    connector: &TlsConnector,
    name: &'static str,
) -> (Result<CertificateDer<'static>, String>, Result<Option<String>, HandshakeFailure>) {
    let (client, server) = duplex(1 << 16);
    let handshakes = Handshakes::new(Duration::from_secs(5));
    let serve = async {
        let mut stream = handshakes.complete(listener, server).await?;
        let peer = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let identity =
            peer.and_then(|der| durable_streams_auth::ClientIdentity::of(der)?.common_name);
        let _ = stream.write_all(b"x").await;
        let _ = stream.flush().await;
        Ok(identity)
    };
    let ask = async {
        let name = ServerName::try_from(name).unwrap();
        let mut stream = connector.connect(name, client).await.map_err(|e| e.to_string())?;
        // In TLS 1.3 a refused client certificate shows with the first read.
        stream.read_u8().await.map_err(|e| e.to_string())?;
        Ok(stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned())
    };
    tokio::join!(ask, serve)
}

#[test]
fn what_is_wrong_with_a_pair_is_said_with_file_and_reason() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let (authority, other) = (Authority::new("a"), Authority::new("b"));
    let good = authority.issue(&["a.test"], -1, 90);
    let refused = |name: &str, pair: &(String, String)| {
        listener(options(&[&files(at, name, pair)])).err().unwrap_or_default()
    };
    for (name, pair, reason) in [
        (
            "expired",
            authority.issue(&["a.test", "b.test"], -90, -1),
            "for a.test, b.test expired at",
        ),
        ("early", authority.issue(&["a.test"], 1, 90), "is not valid before"),
        ("mismatch", (good.0.clone(), authority.issue(&["a.test"], -1, 90).1), "does not belong"),
        ("nameless", authority.issue(&[], -1, 90), "names no host"),
        ("empty", (String::new(), good.1.clone()), "holds no certificate"),
        ("swapped", (good.1.clone(), good.0.clone()), "holds no certificate"),
        ("keyless", (good.0.clone(), good.0.clone()), "holds no private key"),
        ("chain", (format!("{}{}", good.0, other.pem), good.1.clone()), "chain is incomplete"),
        (
            "torn",
            ("-----BEGIN CERTIFICATE-----\nAAAA".into(), good.1.clone()),
            "torn.pem is not PEM",
        ),
        (
            "noise",
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".into(),
                good.1.clone(),
            ),
            "is not X.509",
        ),
    ] {
        let error = refused(name, &pair);
        assert!(error.contains(reason) && error.contains(name), "{name}: {error}");
    }
    let missing = CertificateFiles { certificate: at.join("no"), key: at.join("no") };
    let error = listener(options(&[&missing])).err().unwrap();
    assert!(error.contains("cannot read") && error.contains("/no"), "{error}");
    let whole = (format!("{}{}", good.0, authority.pem), good.1.clone());
    assert_eq!(refused("whole", &whole), "", "a chain up to its root is accepted");
}

#[cfg(unix)]
#[test]
fn a_key_that_every_user_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let pair = files(directory.path(), "a", &Authority::new("a").issue(&["a.test"], -1, 90));
    for (mode, accepted) in [(0o600, true), (0o640, true), (0o644, false), (0o604, false)] {
        fs::set_permissions(&pair.key, fs::Permissions::from_mode(mode)).unwrap();
        let result = listener(options(&[&pair]));
        assert_eq!(result.is_ok(), accepted, "{mode:o}");
        assert!(result.err().unwrap_or_default().contains("chmod o-r") != accepted);
    }
}

#[test]
fn a_host_without_a_certificate_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let pair = Authority::new("a").issue(&["a.test", "*.b.test"], -1, 90);
    let pair = files(directory.path(), "a", &pair);
    for (host, covered) in
        [("a.test", true), ("x.b.test", true), ("b.test", false), ("x.y.b.test", false)]
    {
        let options = TlsOptions { hosts: vec![host.into()], ..options(&[&pair]) };
        match listener(options) {
            Ok(_) => assert!(covered, "{host}"),
            Err(error) => assert!(!covered && error.contains(host), "{host}: {error}"),
        }
    }
}

#[tokio::test]
async fn the_certificate_is_chosen_by_server_name() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let exact = files(directory.path(), "exact", &authority.issue(&["a.c.test"], -1, 90));
    let wild = files(directory.path(), "wild", &authority.issue(&["*.c.test"], -1, 90));
    let listener = listener(options(&[&exact, &wild])).unwrap();
    let connector = connector(&authority, None, &[]);
    let (a, served) = handshake(&listener, &connector, "a.c.test").await;
    assert_eq!(served, Ok(None));
    let (b, _) = handshake(&listener, &connector, "b.c.test").await;
    assert_ne!(a.unwrap(), b.unwrap(), "b.c.test gets the wildcard's");
    let (refused, why) = handshake(&listener, &connector, "x.b.c.test").await;
    assert!(refused.is_err(), "a wildcard stands for one label");
    assert_eq!(why, Err(HandshakeFailure::UnknownName));
}

#[tokio::test]
async fn names_that_the_listener_does_not_serve_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let pair = files(directory.path(), "a", &authority.issue(&["a.test", "b.test"], -1, 90));
    let options = TlsOptions { hosts: vec!["a.test".into()], ..options(&[&pair]) };
    let listener = listener(options).unwrap();
    let connector = connector(&authority, None, &[]);
    assert!(handshake(&listener, &connector, "a.test").await.0.is_ok());
    assert_eq!(
        handshake(&listener, &connector, "b.test").await.1,
        Err(HandshakeFailure::UnknownName)
    );
}

#[tokio::test]
async fn a_replaced_file_is_served_after_a_reload_and_a_bad_one_never() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let pair = files(directory.path(), "a", &authority.issue(&["a.test"], -1, 90));
    let listener = listener(options(&[&pair])).unwrap();
    let connector = connector(&authority, None, &[]);
    let first = handshake(&listener, &connector, "a.test").await.0.unwrap();
    fs::write(&pair.certificate, "nonsense").unwrap();
    assert!(listener.reload(NOW).is_err());
    assert_eq!(handshake(&listener, &connector, "a.test").await.0.unwrap(), first);
    files(directory.path(), "a", &authority.issue(&["a.test"], -1, 90));
    listener.reload(NOW).unwrap();
    assert_ne!(handshake(&listener, &connector, "a.test").await.0.unwrap(), first);
}

#[tokio::test]
async fn client_certificates_are_verified_and_name_the_client() {
    let directory = tempfile::tempdir().unwrap();
    let (authority, other) = (Authority::new("a"), Authority::new("b"));
    let pair = files(directory.path(), "a", &authority.issue(&["a.test"], -1, 90));
    let authorities = directory.path().join("clients.pem");
    fs::write(&authorities, &authority.pem).unwrap();
    let with = |required| {
        let client_auth = Some(ClientAuthOptions { authorities: authorities.clone(), required });
        // The verifier of client certificates goes by the system's clock.
        listener(TlsOptions { client_auth, ..options(&[&pair]) }).unwrap()
    };
    let own = {
        let mut params = CertificateParams::new(vec!["worker.test".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "worker");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &authority.issuer).unwrap().pem(), key.serialize_pem())
    };
    let foreign = {
        let params = CertificateParams::new(vec!["worker.test".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &other.issuer).unwrap().pem(), key.serialize_pem())
    };
    let (required, optional) = (with(true), with(false));
    let ask = |own: Option<&(String, String)>| connector(&authority, own, &[]);
    let known = handshake(&required, &ask(Some(&own)), "a.test").await.1;
    assert_eq!(known, Ok(Some("worker".to_owned())));
    let unknown = handshake(&required, &ask(None), "a.test").await;
    assert_eq!(unknown.1, Err(HandshakeFailure::ClientCertificate));
    assert!(unknown.0.is_err());
    assert_eq!(handshake(&optional, &ask(None), "a.test").await.1, Ok(None));
    for listener in [&required, &optional] {
        let refused = handshake(listener, &ask(Some(&foreign)), "a.test").await;
        assert_eq!(refused.1, Err(HandshakeFailure::ClientCertificate));
        assert!(refused.0.is_err());
    }
}

#[tokio::test]
async fn both_http_versions_are_offered_and_challenges_only_where_orders_are_made() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new("a");
    let pair = files(directory.path(), "a", &authority.issue(&["a.test"], -1, 90));
    let listener = listener(options(&[&pair])).unwrap();
    for (alpn, accepted) in [("h2", true), ("http/1.1", true), ("acme-tls/1", false)] {
        let result = handshake(&listener, &connector(&authority, None, &[alpn]), "a.test").await;
        assert_eq!(result.0.is_ok(), accepted, "{alpn}: {result:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let pair = files(directory.path(), "a", &Authority::new("a").issue(&["a.test"], -1, 90));
    let listener = listener(options(&[&pair])).unwrap();
    let (_client, server): (DuplexStream, _) = duplex(64);
    let handshakes = Handshakes::new(Duration::from_secs(5));
    assert_eq!(handshakes.complete(&listener, server).await.err(), Some(HandshakeFailure::Timeout));
}

#[tokio::test]
async fn what_is_not_tls_is_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let pair = files(directory.path(), "a", &Authority::new("a").issue(&["a.test"], -1, 90));
    let listener = listener(options(&[&pair])).unwrap();
    let (mut client, server) = duplex(64);
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let result = Handshakes::new(Duration::from_secs(5)).complete(&listener, server).await;
    assert_eq!(result.err(), Some(HandshakeFailure::NotTls));
}

/// The key types that files come with: PKCS#8 here, SEC1 and PKCS#1 by the same parser.
#[test]
fn keys_keep_their_secret_in_debug_output() {
    let key = KeyPair::generate().unwrap();
    let der = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    assert!(!format!("{der:?}").contains("48, 129"));
}
