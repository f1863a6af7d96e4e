//! A client that speaks HTTP/1.1 and HTTP/2 over TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::process::PATIENCE;

/// Trusts the authorities of a PEM text, and has a certificate of its own or none.
pub(crate) fn connector(
    roots: &str,
    own: Option<&(String, String)>,
    alpn: &[&str],
) -> TlsConnector {
    connector_of(roots, own, alpn, rustls::DEFAULT_VERSIONS)
}

/// The same for these versions of TLS.
pub(crate) fn connector_of(
    roots: &str,
    own: Option<&(String, String)>,
    alpn: &[&str],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> TlsConnector {
    let mut store = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots.as_bytes()) {
        store.add(root.unwrap()).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(store);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(chain.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = alpn.iter().map(|one| one.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// A handshake with the server, as a client that looked up `name`. `first` is sent before it.
pub(crate) async fn connect(
    connector: &TlsConnector,
    address: SocketAddr,
    name: &str,
    first: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    socket.write_all(first).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    tokio::time::timeout(PATIENCE, connector.connect(name, socket)).await.expect("a handshake")
}

/// Sends one request that closes its connection, and returns the whole response.
pub(crate) async fn request(
    connector: &TlsConnector,
    address: SocketAddr,
    name: &str,
    request: &str,
) -> std::io::Result<String> {
    let mut stream = connect(connector, address, name, b"").await?;
    stream.write_all(request.as_bytes()).await?;
    let mut response = Vec::new();
    let read = stream.read_to_end(&mut response);
    tokio::time::timeout(PATIENCE, read).await.expect("a response")?;
    Ok(String::from_utf8_lossy(&response).into_owned())
}

/// The head of a request on a stream.
pub(crate) fn head(method: &str, path: &str, more: &str) -> String {
    format!(
        "{method} /v1/stream/{path} HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n{more}\r\n"
    )
}

/// Sends bytes in cleartext, and returns all that comes back.
pub(crate) async fn cleartext(address: SocketAddr, bytes: &[u8]) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    let mut response = Vec::new();
    let read = socket.read_to_end(&mut response);
    let _ = tokio::time::timeout(PATIENCE, read).await.expect("an end");
    String::from_utf8_lossy(&response).into_owned()
}
