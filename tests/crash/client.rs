//! A blocking HTTP/1.1 client: one connection, one request at a time. An `Err` means that the answer is not
//! known, which is what the oracle needs to tell apart.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

use crate::server::PATIENCE;

/// Where streams live.
pub(crate) const ROUTE: &str = "/v1/stream/";

/// Header fields of a request.
pub(crate) type Fields = Vec<(&'static str, String)>;

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

/// See the module.
pub(crate) struct Client {
    address: SocketAddr,
    connection: Option<TcpStream>,
    buffer: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.trim()).next()
    }

    pub(crate) fn has(&self, name: &str, value: &str) -> bool {
        self.header(name) == Some(value)
    }

    pub(crate) fn next_offset(&self) -> String {
        self.header("stream-next-offset")
            .unwrap_or_else(|| panic!("no offset: {self:?}"))
            .to_owned()
    }

    /// The `code` of a problem body; panics when it is none.
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        assert_eq!(problem["status"], self.status, "{self:?}");
        problem["code"].as_str().expect("a code").to_owned()
    }
}

impl Client {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Client { address, connection: None, buffer: Vec::new() }
    }

    /// Sends a request to the stream at `path`, which may carry a query, and waits for the answer.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&'static str, String)],
        body: &[u8],
    ) -> io::Result<Reply> {
        let result = self.exchange(method, path, fields, body);
        if let Err(error) = &result {
            let silent = error.kind() == io::ErrorKind::TimedOut;
            assert!(!silent, "silent for {PATIENCE:?} on {method} {path} {fields:?}");
            self.connection = None;
        }
        result
    }

    /// The same where the server must answer.
    pub(crate) fn must(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&'static str, &str)],
        body: &[u8],
    ) -> Reply {
        let fields: Fields = fields.iter().map(|(name, value)| (*name, (*value).into())).collect();
        let reply = self.ask(method, path, &fields, body);
        reply.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    fn exchange(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&'static str, String)],
        body: &[u8],
    ) -> io::Result<Reply> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let fresh = TcpStream::connect(self.address)?;
                fresh.set_nodelay(true)?;
                fresh.set_read_timeout(Some(PATIENCE))?;
                self.buffer.clear();
                none.insert(fresh)
            }
        };
        let mut request = format!("{method} {ROUTE}{path} HTTP/1.1\r\nhost: test.example\r\n");
        for (name, value) in fields {
            request += &format!("{name}: {value}\r\n");
        }
        request += &format!("content-length: {}\r\n\r\n", body.len());
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        connection.write_all(&bytes)?;

        let head = String::from_utf8(self.take_until(b"\r\n\r\n")?).map_err(io::Error::other)?;
        let status = head.get(9..12).and_then(|digits| digits.parse().ok());
        let status: u16 = status.ok_or_else(|| io::Error::other("no status line"))?;
        let mut reply = Reply { status, head, body: Vec::new() };
        if method != "HEAD" && !matches!(status, 204 | 304) {
            reply.body = match reply.header("content-length") {
                Some(length) => self.take(length.parse().map_err(io::Error::other)?)?,
                None => self.take_chunks()?,
            };
        }
        if reply.has("connection", "close") {
            self.connection = None;
        }
        Ok(reply)
    }

    fn take_chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = String::from_utf8(self.take_until(b"\r\n")?).map_err(io::Error::other)?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            body.extend(self.take(size)?);
            self.take(2)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn take_until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.buffer, end) {
                return self.take(at + end.len());
            }
            self.more()?;
        }
    }

    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.more()?;
        }
        let rest = self.buffer.split_off(count);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    fn more(&mut self) -> io::Result<()> {
        let connection = self.connection.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        let mut part = [0; 16 << 10];
        match connection.read(&mut part) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.buffer.extend_from_slice(&part[..count]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::ErrorKind::TimedOut.into())
            }
            Err(error) => Err(error),
        }
    }
}
