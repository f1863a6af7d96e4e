//! One connection: the handshake, bounded in time and number.

use std::{sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Semaphore,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{listener::TlsListener, resolver::ACME_ALPN};

/// Handshakes in progress over all listeners. Each may hold some 40 KiB and costs a signature; more wait
/// for a place within their own time limit.
pub(crate) const MAX_HANDSHAKES: usize = 512;

/// The first byte of a TLS record that holds a handshake message (RFC 8446 §5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// Why a handshake did not complete. The text is the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandshakeFailure {
    /// The client did not finish in time.
    Timeout,
    /// The client closed the connection.
    Closed,
    /// The client sent something that is not TLS.
    NotTls,
    /// No certificate for the server name that the client asked for.
    UnknownName,
    /// The client sent no certificate where one is required, or one that no authority vouches for.
    ClientCertificate,
    /// No protocol version, cipher suite or ALPN protocol in common.
    NothingInCommon,
    /// Anything else.
    Other,
    /// An ACME server has checked a challenge; not a failure, yet nothing follows.
    ChallengeAnswered,
}

impl HandshakeFailure {
    /// Every variant, in the order of its number.
    pub(crate) const ALL: [HandshakeFailure; 8] = [
        HandshakeFailure::Timeout,
        HandshakeFailure::Closed,
        HandshakeFailure::NotTls,
        HandshakeFailure::UnknownName,
        HandshakeFailure::ClientCertificate,
        HandshakeFailure::NothingInCommon,
        HandshakeFailure::Other,
        HandshakeFailure::ChallengeAnswered,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            HandshakeFailure::Timeout => "timeout",
            HandshakeFailure::Closed => "closed",
            HandshakeFailure::NotTls => "not_tls",
            HandshakeFailure::UnknownName => "unknown_name",
            HandshakeFailure::ClientCertificate => "client_certificate",
            HandshakeFailure::NothingInCommon => "nothing_in_common",
            HandshakeFailure::Other => "other",
            HandshakeFailure::ChallengeAnswered => "challenge_answered",
        }
    }
}

/// What the first byte of a connection says about its protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FirstByte {
    /// TLS.
    Tls,
    /// A method of HTTP, in cleartext.
    Http,
    /// Neither.
    Other,
}

impl FirstByte {
    /// Looks at the first byte without taking it.
    ///
    /// # Errors
    /// The socket's; `UnexpectedEof` when the client left.
    pub(crate) async fn of(socket: &TcpStream) -> std::io::Result<Self> {
        let mut first = [0];
        if socket.peek(&mut first).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(match first {
            [HANDSHAKE_RECORD] => FirstByte::Tls,
            [byte] if byte.is_ascii_uppercase() => FirstByte::Http,
            _ => FirstByte::Other,
        })
    }
}

/// Handshakes of all listeners, bounded.
#[derive(Clone, Debug)]
pub(crate) struct Handshakes {
    places: Arc<Semaphore>,
    timeout: Duration,
}

impl Handshakes {
    /// `timeout`: from the accept to the end of the handshake, waiting for a place included.
    pub(crate) fn new(timeout: Duration) -> Self {
        Handshakes { places: Arc::new(Semaphore::new(MAX_HANDSHAKES)), timeout }
    }

    /// Completes the handshake of a connection.
    ///
    /// # Errors
    /// [`HandshakeFailure`]; the client has been sent an alert where TLS has one for it.
    pub(crate) async fn complete<S>(
        &self,
        listener: &TlsListener,
        io: S,
    ) -> Result<TlsStream<S>, HandshakeFailure>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let handshake = async {
            let _place = self.places.acquire().await;
            TlsAcceptor::from(listener.config()).accept(io).await
        };
        let stream = tokio::time::timeout(self.timeout, handshake)
            .await
            .map_err(|_| HandshakeFailure::Timeout)?
            .map_err(|error| classify(&error))?;
        if stream.get_ref().1.alpn_protocol() == Some(ACME_ALPN) {
            return Err(HandshakeFailure::ChallengeAnswered);
        }
        Ok(stream)
    }
}

fn classify(error: &std::io::Error) -> HandshakeFailure {
    use rustls::Error;
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match tls {
        None => HandshakeFailure::Closed,
        Some(Error::NoCertificatesPresented | Error::InvalidCertificate(_)) => {
            HandshakeFailure::ClientCertificate
        }
        Some(Error::InvalidMessage(_)) => HandshakeFailure::NotTls,
        Some(Error::PeerIncompatible(_) | Error::NoApplicationProtocol) => {
            HandshakeFailure::NothingInCommon
        }
        // What rustls says where the resolver returns no certificate.
        Some(Error::General(reason)) if reason.contains("certificate") => {
            HandshakeFailure::UnknownName
        }
        Some(_) => HandshakeFailure::Other,
    }
}
