//! What all attacks need: connections, and an end.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::process::{ATTACKER, Connection, Server, named};

/// An attack under way. Clones are the same.
#[derive(Clone)]
pub(crate) struct Attacker {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl Attacker {
    pub(crate) fn begin(server: &Server) -> Self {
        Attacker { address: server.address, admin: server.admin, stopped: Arc::default() }
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn goes_on(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }

    /// Does nothing for so long, or until the end.
    pub(crate) fn pause(&self, duration: Duration) {
        let until = Instant::now() + duration;
        while self.goes_on() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20).min(duration));
        }
    }

    /// A connection that takes what it asks for.
    pub(crate) fn connection(&self) -> std::io::Result<Connection> {
        Connection::open(self.address, ATTACKER)
    }

    /// A connection whose kernel takes next to nothing for it, with `first` sent.
    pub(crate) fn stalled(&self, first: &[u8]) -> std::io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_recv_buffer_size(4096)?;
        socket.connect_timeout(&self.address.into(), Duration::from_secs(5))?;
        let mut socket: TcpStream = socket.into();
        socket.set_write_timeout(Some(Duration::from_secs(1)))?;
        socket.write_all(&[named(ATTACKER).as_bytes(), first].concat())?;
        Ok(socket)
    }

    /// Keeps `count` connections open that `open` makes, and does `each` to all of them every `interval`. One to which
    /// that fails is opened again: the server has closed it.
    pub(crate) fn hold(
        &self,
        count: usize,
        interval: Duration,
        mut open: impl FnMut() -> std::io::Result<TcpStream>,
        mut each: impl FnMut(&mut TcpStream) -> std::io::Result<()>,
    ) {
        let mut held: Vec<TcpStream> = Vec::new();
        while self.goes_on() {
            while held.len() < count && self.goes_on() {
                match open() {
                    Ok(socket) => held.push(socket),
                    Err(_) => break,
                }
            }
            held.retain_mut(|socket| each(socket).is_ok());
            self.pause(interval);
        }
    }

    /// Runs `work` on so many threads until the end.
    pub(crate) fn on_threads(&self, threads: usize, work: impl Fn(usize, &Attacker) + Sync) {
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let work = &work;
                scope.spawn(move || work(thread, self));
            }
        });
    }
}
