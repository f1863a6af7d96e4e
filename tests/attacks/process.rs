//! The real binary with a configuration for attacks, and what `/proc` says of it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The route of streams.
pub(crate) const ROUTE: &str = "/v1/stream";
/// The large stream that attackers read.
pub(crate) const LARGE: &str = "/v1/stream/large";
const LARGE_MIB: usize = 16;

/// Who the other client is.
pub(crate) const OTHER: &str = "198.51.100.1";
/// Who the attacker is.
pub(crate) const ATTACKER: &str = "203.0.113.9";

/// A running server; ended when dropped.
pub(crate) struct Server {
    child: Child,
    /// Where clients name themselves by a PROXY header.
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    directory: tempfile::TempDir,
}

/// The soft limit becomes the hard one: an attack opens thousands of connections.
pub(crate) fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _ = setrlimit(Resource::Nofile, raised);
}

impl Server {
    /// Standard error is a pipe that nobody reads. `ATTACK_BINARY` names another binary than the one that was built.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let free = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let [address, admin] = free.map(|listener| listener.local_addr().unwrap());
        let data = directory.path().join("data");
        let config = format!(
            "listen: [{{address: {address}, proxy_protocol: true}}]\ntrusted_proxies: [127.0.0.1]\n\
             admin: {{listen: {admin}}}\ndata_dir: {}\nsubscriptions: {{allow_http_localhost: true}}\n",
            data.display()
        );
        let file = directory.path().join("streams.yaml");
        std::fs::write(&file, config).unwrap();
        let binary = std::env::var_os("ATTACK_BINARY");
        let built = env!("CARGO_BIN_EXE_durable-streams-server");
        let mut command = Command::new(binary.unwrap_or_else(|| built.into()));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DURABLE_STREAMS_") {
                command.env_remove(name);
            }
        }
        command.arg("run").arg("--config").arg(file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let server = Server { child: command.spawn().unwrap(), address, admin, directory };
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(server.admin).is_err() {
            assert!(Instant::now() < deadline, "it does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Creates the streams that attacks and the other client use.
    pub(crate) fn stock(&self) {
        let mut client = Connection::open(self.address, OTHER).unwrap();
        let text = "all work and no play makes jack a dull boy\n".repeat(24_000);
        assert_eq!(client.request("PUT", "/v1/stream/other", TEXT, b"").unwrap().status, 201);
        assert_eq!(client.request("PUT", LARGE, TEXT, b"").unwrap().status, 201);
        for _ in 0..LARGE_MIB {
            assert_eq!(client.request("POST", LARGE, TEXT, text.as_bytes()).unwrap().status, 204);
        }
    }

    /// The parent of its data directory.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Resident memory at its peak, MiB.
    pub(crate) fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap_or_default();
        let kib = line.split_ascii_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok());
        kib.unwrap_or(0) >> 10
    }
}

/// Memory of the kernel for the TCP connections of this machine, MiB.
pub(crate) fn socket_memory() -> u64 {
    let stat = std::fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let line = stat.lines().find(|line| line.starts_with("TCP:")).unwrap_or_default();
    let pages = line.rsplit(' ').next().and_then(|pages| pages.parse::<u64>().ok());
    pages.unwrap_or(0) * 4 / 1024
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) const TEXT: &str = "content-type: text/plain\r\n";

/// An HTTP/1.1 connection of the other client.
pub(crate) struct Connection(TcpStream);

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr, client: &str) -> std::io::Result<Self> {
        let mut socket = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        socket.set_write_timeout(Some(Duration::from_secs(30)))?;
        socket.write_all(named(client).as_bytes())?;
        Ok(Connection(socket))
    }

    /// Without a name, to the admin listener.
    pub(crate) fn bare(address: SocketAddr) -> std::io::Result<Self> {
        let socket = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        socket.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(Connection(socket))
    }

    /// Asks once more for a stream, and takes whatever comes until the server is silent for a while.
    pub(crate) fn drain(&mut self, path: &str, fields: &str) -> std::io::Result<()> {
        self.0.set_read_timeout(Some(Duration::from_millis(200)))?;
        let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        self.0.write_all(head.as_bytes())?;
        let mut part = [0; 64 << 10];
        loop {
            match self.0.read(&mut part) {
                Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(n) if part[..n].ends_with(b"0\r\n\r\n") => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        fields: &str,
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: a\r\n{fields}content-length: {}\r\n\r\n",
            body.len()
        );
        self.0.write_all(&[head.as_bytes(), body].concat())?;
        let mut read = Vec::new();
        let mut part = [0; 16 << 10];
        let end = loop {
            if let Some(end) = memchr::memmem::find(&read, b"\r\n\r\n") {
                break end + 4;
            }
            match self.0.read(&mut part)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                n => read.extend_from_slice(&part[..n]),
            }
        };
        let head = String::from_utf8_lossy(&read[..end]).to_lowercase();
        let field = |name: &str| {
            let mut fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
        };
        let length = field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut have = read.len() - end;
        while have < length {
            match self.0.read(&mut part)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                n => have += n,
            }
        }
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Ok(Answer { status, head })
    }
}

/// The PROXY header of a connection from `client`.
pub(crate) fn named(client: &str) -> String {
    format!("PROXY TCP4 {client} 127.0.0.1 50000 80\r\n")
}
