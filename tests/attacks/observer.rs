//! The other client: appends, reads and health checks, one after the other, and how long each took.

use std::time::{Duration, Instant};

use crate::control::{MachineControl, MachineDelays};
use crate::process::{Answer, Connection, OTHER, Server, TEXT, socket_memory};

/// Between two requests.
const PAUSE: Duration = Duration::from_millis(5);

/// How long requests of one kind took.
#[derive(Clone, Default)]
pub(crate) struct Durations {
    sorted: Vec<Duration>,
    /// Requests without an answer, or with one that is no success.
    pub(crate) failed: usize,
}

impl Durations {
    pub(crate) fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    pub(crate) fn median(&self) -> Duration {
        self.sorted.get(self.sorted.len() / 2).copied().unwrap_or_default()
    }

    pub(crate) fn max(&self) -> Duration {
        self.sorted.last().copied().unwrap_or_default()
    }

    pub(crate) fn push(&mut self, duration: Duration) {
        self.sorted.push(duration);
    }

    /// To be called when all are there.
    pub(crate) fn sort(&mut self) {
        self.sorted.sort_unstable();
    }

    fn add(&mut self, began: Instant, answer: &std::io::Result<Answer>) {
        match answer {
            Ok(answer) if answer.status < 300 => self.push(began.elapsed()),
            Ok(answer) => {
                eprintln!("answered {}", answer.head.lines().next().unwrap_or_default());
                self.failed += 1;
            }
            Err(error) => {
                eprintln!("not answered: {error}");
                self.failed += 1;
            }
        }
    }
}

/// What was seen beside one attack.
#[derive(Clone, Default)]
pub(crate) struct Observed {
    pub(crate) appends: Durations,
    pub(crate) reads: Durations,
    pub(crate) health: Durations,
    pub(crate) machine: MachineDelays,
    /// The server's resident memory at its peak, MiB.
    pub(crate) resident: u64,
    /// The most memory of all sockets of the machine, MiB.
    pub(crate) sockets: u64,
}

/// A client that comes back on another connection after an error.
struct OtherClient<'s> {
    server: &'s Server,
    connection: Option<Connection>,
}

impl OtherClient<'_> {
    fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> std::io::Result<Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.server.address, OTHER)?,
        };
        let fields = if method == "POST" { TEXT } else { "" };
        let answer = connection.request(method, path, fields, body)?;
        self.connection = Some(connection);
        Ok(answer)
    }
}

fn healthy(server: &Server) -> std::io::Result<Answer> {
    Connection::bare(server.admin)?.request("GET", "/healthz", "", b"")
}

/// Appends and reads for so long.
pub(crate) fn observe(server: &Server, lasting: Duration) -> Observed {
    let mut client = OtherClient { server, connection: None };
    let mut observed = Observed::default();
    let mut at = "-1".to_owned();
    let control = MachineControl::begin(server.directory());
    let began = Instant::now();
    let mut rounds = 0;
    while began.elapsed() < lasting || rounds < 20 {
        let asked = Instant::now();
        let answer = client.ask("POST", "/v1/stream/other", &[b'x'; 100]);
        observed.appends.add(asked, &answer);
        let asked = Instant::now();
        let answer = client.ask("GET", &format!("/v1/stream/other?offset={at}"), b"");
        observed.reads.add(asked, &answer);
        if let Ok(answer) = answer {
            let offset =
                answer.head.lines().find_map(|line| line.strip_prefix("stream-next-offset: "));
            at = offset.map_or(at, str::to_owned);
        }
        if rounds % 50 == 0 {
            let asked = Instant::now();
            observed.health.add(asked, &healthy(server));
            observed.sockets = observed.sockets.max(socket_memory());
        }
        rounds += 1;
        std::thread::sleep(PAUSE);
    }
    observed.machine = control.end();
    observed.resident = server.peak();
    for durations in [&mut observed.appends, &mut observed.reads, &mut observed.health] {
        durations.sort();
    }
    observed
}
