//! One client of many: streams of its own, on which it does everything, and shared ones, to which it appends.

use std::{io, sync::Arc, time::Duration};

use crate::{
    client::{Client, Fields},
    oracle::{Lifetime, Operation, Produced, Request, Slot, Stream, producer_fields},
    shared::Shared,
};

/// Live streams of one writer.
const STREAMS: usize = 12;
/// A stream is not appended to beyond this many requests, so that checks stay quick.
const REQUESTS: usize = 60;

/// See the module.
pub(crate) struct Writer {
    number: usize,
    rng: fastrand::Rng,
    slots: Vec<Slot>,
    serial: u64,
    /// The next sequence number on each shared stream, by path.
    shared_seq: std::collections::HashMap<String, u64>,
    pub(crate) acknowledged: u64,
}

impl Writer {
    pub(crate) fn new(number: usize, seed: u64) -> Self {
        Writer {
            number,
            rng: fastrand::Rng::with_seed(seed.wrapping_add(number as u64)),
            slots: Vec::new(),
            serial: 0,
            shared_seq: std::collections::HashMap::new(),
            acknowledged: 0,
        }
    }

    /// Works until the server is gone.
    pub(crate) fn work(&mut self, client: &mut Client, shared: &[Shared]) -> io::Error {
        loop {
            match self.step(client, shared) {
                Ok(()) => self.acknowledged += 1,
                Err(error) => return error,
            }
        }
    }

    /// Compares every stream with the rules; forgets those that are gone for good.
    pub(crate) fn check(&mut self, client: &mut Client) -> io::Result<()> {
        for index in 0..self.slots.len() {
            let forked = self.slots.iter().any(|slot| {
                slot.source == Some(index) && slot.now.is_some() && slot.doubt.is_none()
            });
            self.slots[index].check(client, forked)?;
        }
        Ok(())
    }

    pub(crate) fn streams(&self) -> usize {
        self.slots.iter().filter(|slot| slot.now.is_some()).count()
    }

    fn step(&mut self, client: &mut Client, shared: &[Shared]) -> io::Result<()> {
        let live = self.pick(|_| true);
        if live.is_none() || (self.streams() < STREAMS && self.rng.u8(..100) < 15) {
            return self.create(client);
        }
        let lasting = |stream: &Stream| stream.lifetime.is_none();
        match self.rng.u8(..100) {
            0..60 => match self.pick(|s| !s.closed && s.content.len() < REQUESTS) {
                Some(index) => self.append(client, index, false),
                None => self.delete(client, live),
            },
            60..80 => self.append_shared(client, shared),
            80..84 => match self.pick(|s| s.lifetime.is_none() && !s.offsets.is_empty()) {
                Some(index) => self.trim(client, index),
                None => self.append_shared(client, shared),
            },
            84..88 => match self.pick(|stream| !stream.closed) {
                Some(index) => self.close(client, index),
                None => self.delete(client, live),
            },
            88..91 => match self.pick(|stream| !stream.closed) {
                Some(index) => self.append(client, index, true),
                None => self.delete(client, live),
            },
            91..96 if self.streams() < STREAMS * 2 => match self.pick(lasting) {
                Some(index) => self.fork(client, index),
                None => Ok(()),
            },
            _ => self.delete(client, live),
        }
    }

    fn pick(&mut self, fits: impl Fn(&Stream) -> bool) -> Option<usize> {
        let fits = |slot: &Slot| slot.now.as_ref().is_some_and(&fits);
        let indices: Vec<_> = (0..self.slots.len()).filter(|i| fits(&self.slots[*i])).collect();
        self.rng.choice(indices)
    }

    /// Records that no other request has.
    fn request(&mut self) -> Request {
        self.serial += 1;
        let count = if self.rng.u8(..4) == 0 { self.rng.usize(2..6) } else { 1 };
        let records = (0..count).map(|index| {
            let filler = match self.rng.u8(..50) {
                0 => self.rng.usize(..60_000),
                1..10 => self.rng.usize(..4_000),
                _ => self.rng.usize(..200),
            };
            let letter = char::from(b'a' + (self.serial % 26) as u8);
            let filler = String::from(letter).repeat(filler);
            format!("{}.{}/{index}of{count}|{filler}", self.number, self.serial)
        });
        Request { records: records.collect() }
    }

    fn create(&mut self, client: &mut Client) -> io::Result<()> {
        let mut stream = Stream { json: self.rng.bool(), ..Stream::default() };
        let mut fields: Fields = vec![("content-type", stream.content_type().into())];
        if self.rng.u8(..8) == 0 {
            let seconds = self.rng.choice([1, 1, 3600]).unwrap_or(1);
            stream.lifetime = Some(Lifetime::of(Duration::from_secs(seconds)));
            fields.push(("stream-ttl", seconds.to_string()));
        }
        if self.rng.u8(..10) == 0 {
            stream.closed = true;
            fields.push(("stream-closed", "true".into()));
        }
        let mut body = Vec::new();
        if self.rng.bool() {
            let request = self.request();
            body = request.body(stream.json);
            stream.content.push(Arc::new(request));
        }
        // A path that was deleted is free again, and shows nothing of what it was.
        let free = |slot: &Slot| slot.now.is_none() && !slot.had_forks;
        let again = self.slots.iter().position(free).filter(|_| self.rng.bool());
        let index = again.unwrap_or(self.slots.len());
        if again.is_none() {
            self.serial += 1;
            self.slots.push(Slot::new(format!("own/{}/{}", self.number, self.serial), None));
        }
        self.slots[index].source = None;
        let operation = Operation { method: "PUT", fields, body, after: Some(stream), status: 201 };
        self.slots[index].perform(client, operation)
    }

    fn append(&mut self, client: &mut Client, index: usize, close: bool) -> io::Result<()> {
        let Some(mut after) = self.slots[index].now.clone() else { return Ok(()) };
        let request = Arc::new(self.request());
        let body = request.body(after.json);
        let mut fields: Fields = vec![("content-type", after.content_type().into())];
        let mut status = 204;
        if self.rng.u8(..3) > 0 {
            let id = format!("p{}", self.rng.u8(..3));
            let (epoch, seq) = match after.producers.get(&id) {
                None => (self.rng.u64(..2), 0),
                Some(last) if self.rng.u8(..10) == 0 => (last.epoch + 1, 0),
                Some(last) => (last.epoch, last.seq + 1),
            };
            let produced = Produced { epoch, seq, request: request.clone(), close };
            fields.extend(producer_fields(&id, &produced));
            after.producers.insert(id, produced);
            status = 200;
        } else if close {
            fields.push(("stream-closed", "true".into()));
        }
        if self.rng.u8(..4) == 0 {
            let seq = after.stream_seq.map_or(0, |last| last + self.rng.u64(1..5));
            after.stream_seq = Some(seq);
            fields.push(("stream-seq", format!("{seq:08}")));
        }
        after.content.push(request);
        after.closed = close;
        after.lifetime = after.lifetime.map(|lifetime| Lifetime::of(lifetime.ttl));
        let operation = Operation { method: "POST", fields, body, after: Some(after), status };
        self.slots[index].perform(client, operation)
    }

    fn close(&mut self, client: &mut Client, index: usize) -> io::Result<()> {
        let Some(mut after) = self.slots[index].now.clone() else { return Ok(()) };
        after.closed = true;
        after.lifetime = after.lifetime.map(|lifetime| Lifetime::of(lifetime.ttl));
        let fields = vec![("stream-closed", "true".to_owned())];
        let operation =
            Operation { method: "POST", fields, body: vec![], after: Some(after), status: 204 };
        self.slots[index].perform(client, operation)
    }

    /// At an offset that was handed out before, the tail among them.
    fn trim(&mut self, client: &mut Client, index: usize) -> io::Result<()> {
        let Some(now) = self.slots[index].now.clone() else { return Ok(()) };
        let Some((offset, count)) = self.rng.choice(now.offsets.clone()) else { return Ok(()) };
        let fields = vec![("stream-trim-before", offset)];
        let after = Some(now.trimmed_to(count));
        let operation = Operation { method: "PATCH", fields, body: vec![], after, status: 204 };
        self.slots[index].perform(client, operation)
    }

    fn delete(&mut self, client: &mut Client, index: Option<usize>) -> io::Result<()> {
        let Some(index) = index else { return Ok(()) };
        let operation =
            Operation { method: "DELETE", fields: vec![], body: vec![], after: None, status: 204 };
        self.slots[index].perform(client, operation)
    }

    /// At the tail, at an offset handed out before, or some records after one.
    fn fork(&mut self, client: &mut Client, index: usize) -> io::Result<()> {
        let Some(source) = self.slots[index].now.clone() else { return Ok(()) };
        let path = format!("{}{}", crate::client::ROUTE, self.slots[index].path);
        let mut fields: Fields = vec![("stream-forked-from", path)];
        let mut fork = Stream { json: source.json, ..Stream::default() };
        fork.content = source.content.clone();
        let handed_out: Vec<_> = source.offsets.iter().collect();
        let offset = self.rng.choice(handed_out).filter(|_| self.rng.u8(..3) > 0);
        if let Some((offset, count)) = offset {
            fields.push(("stream-fork-offset", offset.clone()));
            fork.content.truncate(*count);
            if let Some(next) = source.content.get(*count).filter(|_| self.rng.bool()) {
                let records = next.records[..self.rng.usize(1..=next.records.len())].to_vec();
                let bytes: usize = records.iter().map(|record| record.len() + 1).sum();
                let sub = if source.json { records.len() } else { bytes };
                fields.push(("stream-fork-sub-offset", sub.to_string()));
                fork.content.push(Arc::new(Request { records }));
            }
        }
        self.serial += 1;
        let path = format!("own/{}/{}", self.number, self.serial);
        self.slots.push(Slot::new(path, Some(index)));
        self.slots[index].had_forks = true;
        let slot = self.slots.last_mut().expect("it was pushed");
        slot.had_forks = true;
        let operation =
            Operation { method: "PUT", fields, body: vec![], after: Some(fork), status: 201 };
        slot.perform(client, operation)
    }

    fn append_shared(&mut self, client: &mut Client, shared: &[Shared]) -> io::Result<()> {
        let stream = &shared[self.rng.usize(..shared.len())];
        let request = self.request();
        let mut fields = Fields::new();
        if self.rng.bool() {
            let next = self.shared_seq.entry(stream.path.clone()).or_default();
            fields = vec![
                ("producer-id", format!("w{}", self.number)),
                ("producer-epoch", "0".into()),
                ("producer-seq", next.to_string()),
            ];
            // Even when it is lost: the check sends it again.
            *next += 1;
        }
        stream.append(client, request, &fields)
    }
}
