//! The event loop that drives a [`Traffic`] over keep-alive connections.
//!
//! Closed loop: a connection sends its next request when the reply is in. Open loop ([`Pace`]): the
//! requests fall due at a constant rate whether or not a connection is free, and latency counts
//! from the moment a request was due, so a server that stalls is charged for all that waited.
//!
//! One request is in flight per connection. A wrong reply or a broken connection ends the run.

use super::response::{Found, Parser};
use super::{Head, Next, Traffic};
use crate::process;
use anyhow::{Context as _, Result, anyhow, bail};
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long replies still under way at the end of a run may take.
const DRAIN: Duration = Duration::from_secs(20);
/// How long a busy loop may wait for events before it looks at the clock again.
const TICK: Duration = Duration::from_millis(5);
const SCRATCH: usize = 256 * 1024;

/// Open loop for the first `connections` connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) connections: usize,
    pub(crate) per_second: f64,
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) warm_up: Duration,
    /// The measured time; `None` runs until every connection is done.
    pub(crate) window: Option<Duration>,
    /// The longest a run without a window may take.
    pub(crate) bound: Duration,
    pub(crate) pace: Option<Pace>,
    /// Only replies on the first `counted` connections are counted and waited for at the end.
    pub(crate) counted: usize,
    /// The server, to charge it for its processor time.
    pub(crate) pid: Option<u32>,
}

impl Plan {
    /// A closed-loop run of `window` after `warm_up`.
    pub(crate) fn closed(warm_up: Duration, window: Duration) -> Self {
        let bound = window;
        Self { warm_up, window: Some(window), bound, pace: None, counted: usize::MAX, pid: None }
    }

    /// A run to the end of the traffic, refused if it takes longer than `bound`.
    pub(crate) fn to_the_end(bound: Duration) -> Self {
        let warm_up = Duration::ZERO;
        Self { warm_up, window: None, bound, pace: None, counted: usize::MAX, pid: None }
    }

    pub(crate) fn charging(self, pid: Option<u32>) -> Self {
        Self { pid, ..self }
    }
}

/// What a run came to.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    /// Replies within the window.
    pub(crate) completed: u64,
    pub(crate) elapsed: Duration,
    /// Nanoseconds, of the replies within the window.
    pub(crate) latency: Histogram<u64>,
    /// Processor time of the server within the window.
    pub(crate) server_cpu: Option<Duration>,
    /// Share of the window the client's thread was on a processor.
    pub(crate) client_busy: f64,
    /// Processors the rest of the machine took meanwhile; needs the server's process.
    pub(crate) others: Option<f64>,
}

/// Processor times at one moment.
#[derive(Clone, Copy)]
struct Clocks {
    at: Instant,
    own: Duration,
    server: Option<Duration>,
    machine: Option<Duration>,
}

impl Clocks {
    fn read(pid: Option<u32>) -> Self {
        Self {
            at: Instant::now(),
            own: process::own_cpu_time(),
            server: pid.and_then(process::cpu_time),
            machine: process::machine_cpu_time(),
        }
    }
}

impl Summary {
    pub(crate) fn per_second(&self) -> f64 {
        self.completed as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }
}

struct Conn {
    stream: TcpStream,
    parser: Parser,
    head: Option<Head>,
    body_len: u64,
    out: Vec<u8>,
    written: usize,
    /// When the request in flight was sent, or was due.
    since: Option<Instant>,
    done: bool,
}

/// The connections of one load, kept open between runs.
pub(crate) struct Engine {
    addr: SocketAddr,
    poll: Poll,
    conns: Vec<Conn>,
    scratch: Vec<u8>,
}

/// The bookkeeping of one run.
struct Run {
    plan: Plan,
    issuing: bool,
    counting: bool,
    completed: u64,
    latency: Histogram<u64>,
    waiting: Vec<usize>,
    free: VecDeque<usize>,
    in_flight: usize,
    active: usize,
}

impl Run {
    fn is_paced(&self, conn: usize) -> bool {
        self.plan.pace.is_some_and(|pace| conn < pace.connections)
    }
}

impl Engine {
    /// Opens `connections` connections to `addr`.
    pub(crate) fn connect(addr: SocketAddr, connections: usize) -> Result<Self> {
        let poll = Poll::new()?;
        let mut engine = Self { addr, poll, conns: Vec::new(), scratch: vec![0; SCRATCH] };
        for index in 0..connections {
            let stream = engine
                .open(index)
                .with_context(|| format!("connection {} of {connections}", index + 1))?;
            engine.conns.push(Conn {
                stream,
                parser: Parser::new(),
                head: None,
                body_len: 0,
                out: Vec::new(),
                written: 0,
                since: None,
                done: false,
            });
        }
        Ok(engine)
    }

    fn open(&self, index: usize) -> Result<TcpStream> {
        let stream = std::net::TcpStream::connect_timeout(&self.addr, Duration::from_secs(10))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(index), interest)?;
        Ok(stream)
    }

    /// Runs `traffic` as planned.
    ///
    /// # Errors
    /// The first wrong reply, broken connection or missed time bound.
    pub(crate) fn run(&mut self, plan: Plan, traffic: &mut impl Traffic) -> Result<Summary> {
        let mut run = Run {
            plan,
            issuing: true,
            counting: false,
            completed: 0,
            latency: Histogram::new_with_bounds(1, 600_000_000_000, 3)?,
            waiting: Vec::new(),
            free: VecDeque::new(),
            in_flight: 0,
            active: self.conns.len(),
        };
        for conn in &mut self.conns {
            conn.done = false;
        }
        let start = Instant::now();
        let opens = start + plan.warm_up;
        let closes = opens + plan.window.unwrap_or(plan.bound);
        let mut due = start;
        let mut opened: Option<Clocks> = None;
        let mut events = Events::with_capacity(4096);
        for index in 0..self.conns.len() {
            if run.is_paced(index) {
                run.free.push_back(index);
            } else if self.conns[index].since.is_none() {
                self.issue(&mut run, traffic, index, Instant::now())?;
            }
        }
        loop {
            let now = Instant::now();
            if opened.is_none() && now >= opens {
                run.counting = true;
                traffic.measuring(true);
                opened = Some(Clocks::read(plan.pid));
            }
            if now >= closes || run.active == 0 {
                break;
            }
            if let Some(pace) = plan.pace {
                while due <= now
                    && let Some(index) = run.free.pop_front()
                {
                    self.issue(&mut run, traffic, index, due)?;
                    due += Duration::from_secs_f64(1.0 / pace.per_second);
                }
            }
            for index in std::mem::take(&mut run.waiting) {
                self.issue(&mut run, traffic, index, now)?;
            }
            let timeout = self.timeout(&run, due, closes.min(opened.map_or(opens, |_| closes)));
            self.turn(&mut run, traffic, &mut events, timeout)?;
        }
        let end = Clocks::read(plan.pid);
        if plan.window.is_none() && run.active > 0 {
            bail!("not finished within {:?}", plan.bound);
        }
        traffic.measuring(false);
        run.counting = false;
        run.issuing = false;
        let opened = opened.ok_or_else(|| anyhow!("the run ended in its warm-up"))?;
        let elapsed = end.at - opened.at;
        let own = end.own - opened.own;
        let server_cpu = end.server.zip(opened.server).map(|(end, start)| end - start);
        let machine = end.machine.zip(opened.machine).map(|(end, start)| end - start);
        let others = machine.zip(server_cpu).map(|(machine, server)| {
            machine.saturating_sub(own + server).as_secs_f64() / elapsed.as_secs_f64()
        });
        let client_busy = own.as_secs_f64() / elapsed.as_secs_f64();
        self.drain(&mut run, traffic, &mut events)?;
        let (completed, latency) = (run.completed, run.latency);
        Ok(Summary { completed, elapsed, latency, server_cpu, client_busy, others })
    }

    /// Open loops spin near the next due time: a sleeping thread would wake too late.
    fn timeout(&self, run: &Run, due: Instant, until: Instant) -> Duration {
        let now = Instant::now();
        let mut timeout = until.saturating_duration_since(now).min(TICK);
        if run.plan.pace.is_some() && !run.free.is_empty() {
            let ahead = due.saturating_duration_since(now);
            let nap = Duration::from_millis(1);
            timeout = timeout.min(if ahead > 2 * nap { nap } else { Duration::ZERO });
        }
        timeout
    }

    fn drain(
        &mut self,
        run: &mut Run,
        traffic: &mut impl Traffic,
        events: &mut Events,
    ) -> Result<()> {
        let deadline = Instant::now() + DRAIN;
        while run.in_flight > 0 {
            if Instant::now() > deadline {
                bail!("{} replies still missing after {DRAIN:?}", run.in_flight);
            }
            self.turn(run, traffic, events, TICK)?;
        }
        Ok(())
    }

    /// Waits for events and handles them.
    fn turn(
        &mut self,
        run: &mut Run,
        traffic: &mut impl Traffic,
        events: &mut Events,
        timeout: Duration,
    ) -> Result<()> {
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            other => other?,
        }
        for event in events.iter() {
            let Token(index) = event.token();
            if event.is_writable() && self.conns[index].written < self.conns[index].out.len() {
                self.flush(index)?;
            }
            if event.is_readable() || event.is_read_closed() {
                self.receive(run, traffic, index)?;
            }
        }
        Ok(())
    }

    /// Asks for the next request of `index` and sends it.
    fn issue(
        &mut self,
        run: &mut Run,
        traffic: &mut impl Traffic,
        index: usize,
        since: Instant,
    ) -> Result<()> {
        let conn = &mut self.conns[index];
        conn.out.clear();
        conn.written = 0;
        match traffic.next(index, since, &mut conn.out) {
            Next::Send => {
                conn.since = Some(since);
                conn.parser.no_body = conn.out.starts_with(b"HEAD");
                if index < run.plan.counted {
                    run.in_flight += 1;
                }
                self.flush(index)
            }
            // An open loop that may not send lets this turn pass and keeps to its schedule.
            Next::Wait if run.is_paced(index) => {
                run.free.push_back(index);
                Ok(())
            }
            Next::Wait => {
                run.waiting.push(index);
                Ok(())
            }
            Next::Done => {
                conn.done = true;
                run.active -= 1;
                Ok(())
            }
        }
    }

    fn flush(&mut self, index: usize) -> Result<()> {
        let conn = &mut self.conns[index];
        while conn.written < conn.out.len() {
            match conn.stream.write(&conn.out[conn.written..]) {
                Ok(n) => conn.written += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("sending a request"),
            }
        }
        Ok(())
    }

    fn receive(&mut self, run: &mut Run, traffic: &mut impl Traffic, index: usize) -> Result<()> {
        loop {
            let conn = &mut self.conns[index];
            let read = match conn.stream.read(&mut self.scratch) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("reading a response"),
            };
            if read == 0 {
                return self.closed(run, traffic, index);
            }
            let now = Instant::now();
            let Conn { parser, head, body_len, .. } = conn;
            let mut ended = false;
            parser
                .feed(&self.scratch[..read], &mut |found| {
                    match found {
                        Found::Head(found) => {
                            (*head, *body_len) = (Some(found), 0);
                            return traffic.head(index, &found);
                        }
                        Found::Body(bytes) => {
                            *body_len += bytes.len() as u64;
                            return traffic.body(index, bytes, now);
                        }
                        Found::End => ended = true,
                    }
                    Ok(())
                })
                .map_err(|reason| anyhow!(reason))?;
            if ended {
                self.finish(run, traffic, index, now)?;
            }
            // On Linux a short read has emptied the socket, and later bytes raise a new event.
            if read < self.scratch.len() {
                return Ok(());
            }
        }
    }

    /// A whole response is in: judge it, count it, go on.
    fn finish(
        &mut self,
        run: &mut Run,
        traffic: &mut impl Traffic,
        index: usize,
        now: Instant,
    ) -> Result<()> {
        let conn = &mut self.conns[index];
        let Some(since) = conn.since.take() else { bail!("a response nobody asked for") };
        let Some(head) = conn.head.take() else { bail!("a response without a head") };
        traffic.reply(index, &head, conn.body_len).map_err(|reason| anyhow!(reason))?;
        if index < run.plan.counted {
            run.in_flight -= 1;
            if run.counting {
                run.completed += 1;
                let nanos = now.saturating_duration_since(since).as_nanos();
                run.latency.saturating_record(u64::try_from(nanos).unwrap_or(u64::MAX));
            }
        }
        if head.close {
            self.reopen(index)?;
        }
        if !run.issuing {
            return Ok(());
        }
        if run.is_paced(index) {
            run.free.push_back(index);
            return Ok(());
        }
        self.issue(run, traffic, index, now)
    }

    /// The server closed: fine between two responses, and the end of one without a length.
    fn closed(&mut self, run: &mut Run, traffic: &mut impl Traffic, index: usize) -> Result<()> {
        let conn = &mut self.conns[index];
        if conn.since.is_some() && conn.parser.ends_with_connection() {
            conn.parser = Parser::new();
            if let Some(head) = conn.head.as_mut() {
                head.close = true;
            }
            return self.finish(run, traffic, index, Instant::now());
        }
        if conn.since.is_some() || !conn.parser.is_idle() {
            bail!("the server closed a connection before its reply was complete");
        }
        self.reopen(index)
    }

    fn reopen(&mut self, index: usize) -> Result<()> {
        let stream = self.open(index).context("reconnecting")?;
        let conn = &mut self.conns[index];
        conn.stream = stream;
        conn.parser = Parser::new();
        Ok(())
    }
}
