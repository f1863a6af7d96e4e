//! Binds the listening sockets.

use std::io::{Error, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::ServerError;
use crate::tls::TlsListener;

/// Bytes of a connection that may wait in the kernel without being sent (`TCP_NOTSENT_LOWAT`): those of a reader that
/// takes nothing. What is on its way to a reader far away is bounded by the send buffer alone.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 64 << 10;

/// Connections the kernel completes while all threads are busy. It is cut to
/// `net.core.somaxconn`, 4,096 on today's systems.
const BACKLOG: i32 = 4096;

/// Where to listen.
#[derive(Debug, Clone)]
pub struct ListenOptions {
    /// At least one.
    pub addresses: Vec<ListenAddress>,
}

/// One address, and what is spoken there.
#[derive(Debug, Clone)]
pub struct ListenAddress {
    /// `host:port`. The host is an address or `localhost`, which means both 127.0.0.1 and ::1 (on
    /// a machine without IPv6 just the former). Port 0 lets the system choose, one port for both.
    /// `[::]` takes IPv4 as well.
    pub address: String,
    /// How connections begin.
    pub protocol: ListenerProtocol,
}

/// How the connections of a listener begin, before HTTP.
#[derive(Debug, Clone, Default)]
pub struct ListenerProtocol {
    /// TLS; without it HTTP is spoken in cleartext.
    pub tls: Option<Arc<TlsListener>>,
    /// A PROXY protocol header, before TLS, from one of `trusted_proxies`.
    pub proxy_header: bool,
}

impl ListenerProtocol {
    /// Whether HTTP begins with the first byte.
    pub(super) fn is_cleartext(&self) -> bool {
        self.tls.is_none() && !self.proxy_header
    }
}

impl<T: Into<String>> From<T> for ListenAddress {
    /// HTTP in cleartext.
    fn from(address: T) -> Self {
        ListenAddress { address: address.into(), protocol: ListenerProtocol::default() }
    }
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions { addresses: vec!["localhost:4437".into()] }
    }
}

/// Sockets that listen.
pub(super) struct BoundListeners {
    pub(super) listeners: Vec<BoundSocket>,
    pub(super) addresses: Vec<SocketAddr>,
}

/// A socket that listens.
pub(super) struct BoundSocket {
    pub(super) socket: TcpListener,
    pub(super) protocol: ListenerProtocol,
}

/// Binds every address. `send_buffer`: see [`HttpLimits`](crate::edge::HttpLimits).
///
/// # Errors
/// The first address that cannot be bound, by name.
pub(super) fn bind(
    options: &ListenOptions,
    send_buffer: Option<usize>,
) -> Result<BoundListeners, ServerError> {
    let mut bound = BoundListeners { listeners: Vec::new(), addresses: Vec::new() };
    for ListenAddress { address, protocol } in &options.addresses {
        let fail = |reason| ServerError::Bind { address: address.clone(), reason };
        for socket in bind_one(address).map_err(fail)? {
            bound_send_buffer(&socket, send_buffer);
            bound.addresses.push(socket.local_addr().map_err(|e| fail(e.to_string()))?);
            bound.listeners.push(BoundSocket { socket, protocol: protocol.clone() });
        }
    }
    if bound.listeners.is_empty() {
        let (address, reason) = ("nothing".to_owned(), "no address is configured".to_owned());
        return Err(ServerError::Bind { address, reason });
    }
    Ok(bound)
}

/// Bounds what the kernel holds for a client that takes nothing. Accepted sockets inherit both bounds. A size of the send
/// buffer also bounds what is on its way to a client, so there is none by default.
///
/// Measured: docs/security.md, "What the bounds cost".
fn bound_send_buffer(socket: &TcpListener, bytes: Option<usize>) {
    let socket = SockRef::from(socket);
    if let Some(Err(error)) = bytes.map(|bytes| socket.set_send_buffer_size(bytes)) {
        tracing::warn!(%error, "the send buffer of connections is not bounded");
    }
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Err(error) = socket.set_tcp_notsent_lowat(UNSENT) {
        tracing::warn!(%error, "the unsent bytes of connections are not bounded");
    }
}

fn bind_one(address: &str) -> Result<Vec<TcpListener>, String> {
    let explain = |e: Error| match e.kind() {
        ErrorKind::AddrInUse => {
            "the port is in use; stop the other process or choose another port".to_owned()
        }
        ErrorKind::PermissionDenied => {
            "not permitted; ports below 1024 need a privilege (CAP_NET_BIND_SERVICE)".to_owned()
        }
        ErrorKind::AddrNotAvailable => "this machine does not have that address".to_owned(),
        _ => e.to_string(),
    };
    if let Ok(address) = address.parse::<SocketAddr>() {
        return Ok(vec![open(address).map_err(explain)?]);
    }
    match address.rsplit_once(':') {
        Some(("localhost", port)) => {
            let port = port.parse().map_err(|_| format!("{port:?} is not a port"))?;
            localhost(port).map_err(explain)
        }
        _ => Err("not an address; write for example 127.0.0.1:4437, [::1]:4437, \
                  0.0.0.0:4437 or localhost:4437"
            .to_owned()),
    }
}

/// Both loopback addresses on one port.
fn localhost(port: u16) -> std::io::Result<Vec<TcpListener>> {
    // A port the system chose for IPv4 may be taken on IPv6; then it chooses again.
    let mut attempts = if port == 0 { 16 } else { 1 };
    loop {
        attempts -= 1;
        let v4 = open(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port))?;
        let port = v4.local_addr()?.port();
        match open(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port)) {
            Ok(v6) => return Ok(vec![v4, v6]),
            Err(e) if e.kind() == ErrorKind::AddrInUse && attempts > 0 => {}
            Err(e) if e.kind() == ErrorKind::AddrInUse => return Err(e),
            Err(error) => {
                tracing::debug!(%error, "no IPv6 loopback");
                return Ok(vec![v4]);
            }
        }
    }
}

fn open(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the old process's connections in TIME_WAIT. On Unix this does
    // not let two servers share a port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listen(address: &str) -> Result<BoundListeners, ServerError> {
        bind(&ListenOptions { addresses: vec![address.into()] }, None)
    }

    #[test]
    fn a_port_in_use_is_an_error_that_names_the_address() {
        let first = listen("127.0.0.1:0").unwrap();
        let address = first.addresses[0].to_string();
        let message = listen(&address).err().unwrap().to_string();
        assert!(message.contains(&address) && message.contains("in use"), "{message}");
    }

    #[test]
    fn localhost_is_one_port_on_every_loopback_address() {
        let bound = listen("localhost:0").unwrap();
        let port = bound.addresses[0].port();
        assert_ne!(port, 0);
        assert!(bound.addresses.iter().all(|a| a.port() == port && a.ip().is_loopback()));
    }

    #[test]
    fn what_is_no_address_is_refused_with_examples() {
        for address in ["", "4437", "localhost", "localhost:x", "example.org:80", "127.0.0.1"] {
            assert!(listen(address).is_err(), "{address:?}");
        }
    }
}
