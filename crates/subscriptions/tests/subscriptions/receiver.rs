//! A real webhook receiver on loopback, with every bad habit.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// What a receiver answers.
#[derive(Clone, Debug)]
pub(crate) enum Habit {
    /// Status and body.
    Answer(u16, String),
    /// Never answers.
    Hang,
    /// Sends to this place.
    Redirect(String),
    /// Closes after reading the request.
    HangUp,
    /// Bytes that are not HTTP.
    Garbage,
    /// 200 with a body without end.
    Endless,
}

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) signature: String,
    pub(crate) raw: Vec<u8>,
    pub(crate) body: Value,
}

pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    received: watch::Receiver<Vec<Received>>,
    habit: Arc<Mutex<Habit>>,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    pub(crate) async fn start(habit: Habit) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, habit)
    }

    pub(crate) fn on(listener: TcpListener, habit: Habit) -> Receiver {
        let address = listener.local_addr().unwrap();
        let habit = Arc::new(Mutex::new(habit));
        let (sender, received) = watch::channel(Vec::new());
        let sender = Arc::new(sender);
        let connections = Arc::new(AtomicUsize::new(0));
        let (shared, counter) = (habit.clone(), connections.clone());
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                counter.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, shared.clone(), sender.clone()));
            }
        });
        Receiver { address, received, habit, connections, task }
    }

    pub(crate) fn done() -> Habit {
        Habit::Answer(200, r#"{"done": true}"#.into())
    }

    pub(crate) fn accept() -> Habit {
        Habit::Answer(202, "{}".into())
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub(crate) fn set(&self, habit: Habit) {
        *self.habit.lock() = habit;
    }

    pub(crate) fn count(&self) -> usize {
        self.received.borrow().len()
    }

    pub(crate) fn all(&self) -> Vec<Received> {
        self.received.borrow().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits for the request with this number, from zero.
    pub(crate) async fn nth(&self, n: usize) -> Received {
        let mut received = self.received.clone();
        let wait = received.wait_for(|all| all.len() > n);
        let all = tokio::time::timeout(Duration::from_secs(10), wait).await;
        all.unwrap_or_else(|_| panic!("request {n} never came")).unwrap()[n].clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    habit: Arc<Mutex<Habit>>,
    sender: Arc<watch::Sender<Vec<Received>>>,
) {
    let mut buffer = Vec::new();
    loop {
        let Some(request) = read_request(&mut stream, &mut buffer).await else { return };
        sender.send_modify(|all| all.push(request));
        let habit = habit.lock().clone();
        let answer = match habit {
            Habit::Answer(status, body) => {
                format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            }
            Habit::Redirect(to) => {
                format!("HTTP/1.1 307 X\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
            }
            Habit::Hang => return std::future::pending().await,
            Habit::HangUp => return,
            Habit::Garbage => "\0\u{1}nonsense\r\n\r\n".into(),
            Habit::Endless => {
                let head = "HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n";
                let _ = stream.write_all(head.as_bytes()).await;
                let chunk = format!("400\r\n{}\r\n", " ".repeat(0x400));
                while stream.write_all(chunk.as_bytes()).await.is_ok() {}
                return;
            }
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Received> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
    let field = |name: &str| {
        head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    assert!(head.starts_with("POST "), "{head}");
    assert_eq!(field("content-type").as_deref(), Some("application/json"));
    let length: usize = field("content-length").unwrap().parse().unwrap();
    while buffer.len() < end + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let raw = buffer[end..end + length].to_vec();
    buffer.drain(..end + length);
    let body = serde_json::from_slice(&raw).unwrap();
    Some(Received { signature: field("webhook-signature").unwrap_or_default(), raw, body })
}
