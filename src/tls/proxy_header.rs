//! The PROXY protocol header (versions 1 and 2) that a load balancer sends before anything else.
//!
//! Where a listener expects it, it is required: whether it is there is never guessed from the bytes, because
//! a client that could leave it out, or send one itself, would choose its own address. Only addresses in
//! `trusted_proxies` may send it.

use std::{io, net::SocketAddr};

use ppp::{HeaderResult, PartialResult, v1, v2};
use tokio::{io::AsyncReadExt, net::TcpStream};

/// The longest header that is read, bytes: version 1 ends by 107, version 2 with the extensions that load
/// balancers send is far below this.
const MAX_HEADER: usize = 2048;
/// The longest line of version 1, bytes.
const MAX_LINE: usize = 107;
const SIGNATURE_1: &[u8] = b"PROXY ";
const SIGNATURE_2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Reads the header and returns the client's address; `None` where the load balancer speaks for itself
/// (`LOCAL`, `UNKNOWN`), as in its health checks.
///
/// # Errors
/// `InvalidData`: there is no header, or it is malformed or longer than 2 KiB. The socket's own errors.
pub(crate) async fn read(socket: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut seen = [0; MAX_HEADER];
    let mut known = 0;
    loop {
        // Peeked, so that what follows the header stays in the socket for TLS or HTTP.
        socket.readable().await?;
        let n = socket.peek(&mut seen).await?;
        let bytes = seen.get(..n).unwrap_or_default();
        match parse(bytes) {
            Parsed::Whole { length, client } => {
                let mut header = [0; MAX_HEADER];
                let header = header.get_mut(..length).unwrap_or_default();
                socket.read_exact(header).await?;
                return Ok(client);
            }
            Parsed::Partial if n < MAX_HEADER && n > known => known = n,
            // Nothing new: the client waits, or left in the middle.
            Parsed::Partial if n < MAX_HEADER && n > 0 => {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            Parsed::Partial | Parsed::Malformed => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "no PROXY header"));
            }
        }
    }
}

enum Parsed {
    Whole { length: usize, client: Option<SocketAddr> },
    Partial,
    Malformed,
}

fn parse(bytes: &[u8]) -> Parsed {
    if bytes.is_empty() || !(begins(bytes, SIGNATURE_1) || begins(bytes, SIGNATURE_2)) {
        return Parsed::Malformed;
    }
    let result = HeaderResult::parse(bytes);
    if result.is_incomplete() {
        // A line of version 1 that has its end will not become a header.
        let line = begins(bytes, SIGNATURE_1);
        let hopeless = line && (bytes.len() >= MAX_LINE || bytes.ends_with(b"\r\n"));
        return if hopeless { Parsed::Malformed } else { Parsed::Partial };
    }
    match result {
        HeaderResult::V1(Ok(header)) => {
            Parsed::Whole { length: header.header.len(), client: client_v1(&header.addresses) }
        }
        HeaderResult::V2(Ok(header)) => Parsed::Whole {
            length: header.len(),
            client: match header.command {
                v2::Command::Local => None,
                v2::Command::Proxy => client_v2(&header.addresses),
            },
        },
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Parsed::Malformed,
    }
}

/// Whether `bytes` and the signature agree as far as both go.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(a, b)| a == b)
}

fn client_v1(addresses: &v1::Addresses) -> Option<SocketAddr> {
    match addresses {
        v1::Addresses::Tcp4(tcp) => Some((tcp.source_address, tcp.source_port).into()),
        v1::Addresses::Tcp6(tcp) => Some((tcp.source_address, tcp.source_port).into()),
        v1::Addresses::Unknown => None,
    }
}

fn client_v2(addresses: &v2::Addresses) -> Option<SocketAddr> {
    match addresses {
        v2::Addresses::IPv4(ip) => Some((ip.source_address, ip.source_port).into()),
        v2::Addresses::IPv6(ip) => Some((ip.source_address, ip.source_port).into()),
        v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::*;

    const V2: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc6\x33\x64\x01\xc3\x50\x01\xbb";

    /// What is read of `pieces`, sent with pauses, and what is left in the socket.
    async fn received(pieces: &[&[u8]]) -> (io::Result<Option<SocketAddr>>, Vec<u8>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        tokio::spawn(async move {
            for piece in pieces {
                let _ = client.write_all(&piece).await;
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        });
        let read = read(&mut server).await;
        let mut rest = Vec::new();
        if read.is_ok() {
            server.read_to_end(&mut rest).await.unwrap();
        }
        (read, rest)
    }

    #[tokio::test]
    async fn the_client_is_whom_the_header_names_and_the_rest_stays_in_the_socket() {
        let v1 = b"PROXY TCP6 2001:db8::1 2001:db8::2 50000 443\r\nGET / HTTP/1.1\r\n";
        let (client, rest) = received(&[v1]).await;
        assert_eq!(client.unwrap(), Some("[2001:db8::1]:50000".parse().unwrap()));
        assert_eq!(rest, b"GET / HTTP/1.1\r\n");
        let (client, rest) = received(&[V2, b"\x16\x03\x01"]).await;
        assert_eq!(client.unwrap(), Some("192.0.2.7:50000".parse().unwrap()));
        assert_eq!(rest, b"\x16\x03\x01");
    }

    #[tokio::test]
    async fn a_header_in_pieces_is_waited_for() {
        let (head, tail) = V2.split_at(13);
        let (client, _) = received(&[&head[..1], &head[1..], tail, b"x"]).await;
        assert_eq!(client.unwrap(), Some("192.0.2.7:50000".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_health_check_of_the_load_balancer_has_no_client() {
        let (client, _) = received(&[b"PROXY UNKNOWN\r\nGET"]).await;
        assert_eq!(client.unwrap(), None);
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
        assert_eq!(received(&[local]).await.0.unwrap(), None);
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"\x16\x03\x01\x02\x00",
            b"PROXY TCP4 nonsense\r\n",
            b"PROXY TCP4 1.2.3.4 5.6.7.8 1 99999\r\n",
            &[b'P'; 4096],
        ] {
            let (read, _) = received(&[bytes]).await;
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
    }
}
