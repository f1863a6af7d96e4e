//! What the engine should do, written as simply as it can be: a stream is its bytes, a fork copies them.
//!
//! Answers are compared by what a client could tell apart: offsets, flags and the code of a refusal. Times and offsets
//! are plain numbers here.

use std::collections::BTreeMap;

use durable_streams_protocol::{
    Append, AppendOutcome, Create, CreateOutcome, Expiry, MESSAGE_END, Producer, ProducerState,
    store_messages,
};

/// The code of a refusal.
pub(crate) type Code = &'static str;

/// One stream, there or gone.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) path: String,
    pub(crate) create: Create,
    pub(crate) content_type: String,
    pub(crate) expiry: Expiry,
    /// All bytes in stored form, inherited ones too.
    pub(crate) bytes: Vec<u8>,
    /// Where its own begin.
    pub(crate) own: usize,
    /// What is before is found by no reader.
    pub(crate) earliest: usize,
    /// No fork needs own bytes before this.
    kept: usize,
    /// Where its appends end, and where it leaves its source.
    pub(crate) ends: Vec<usize>,
    pub(crate) closed: Option<Option<Producer>>,
    seq: Option<String>,
    producers: BTreeMap<String, ProducerState>,
    touched: u64,
    /// Live readers, under whom a sliding TTL does not run out.
    readers: usize,
    source: Option<usize>,
    pub(crate) soft: bool,
    pub(crate) removed: bool,
}

/// All streams that ever were, and the time.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) streams: Vec<Stream>,
    pub(crate) now: u64,
}

impl Stream {
    pub(crate) fn json(&self) -> bool {
        self.content_type == "application/json"
    }

    pub(crate) fn tail(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Whether a message begins at `at`, which is not beyond the tail.
    pub(crate) fn boundary(&self, at: usize) -> bool {
        !self.json() || at == 0 || at == self.bytes.len() || self.bytes[at - 1] == MESSAGE_END
    }

    /// Where a page of about `max` bytes ends that begins at `from`, unless messages delimit themselves.
    pub(crate) fn page_end(&self, from: usize, max: usize) -> usize {
        let limit = from.saturating_add(max);
        if self.bytes.len() <= limit {
            return self.bytes.len();
        }
        let last = self.ends.iter().rev().find(|end| **end > from && **end <= limit);
        *last.or(self.ends.iter().find(|end| **end > limit)).unwrap()
    }

    /// Its own bytes that it keeps.
    pub(crate) fn own_len(&self) -> u64 {
        (self.bytes.len() - self.own.max(self.kept)) as u64
    }

    fn expired(&self, now: u64) -> bool {
        let kept = self.readers > 0 && matches!(self.expiry, Expiry::Ttl(_));
        self.time_is_up(now) && !kept
    }

    fn time_is_up(&self, now: u64) -> bool {
        match self.expiry {
            Expiry::Never => false,
            Expiry::Ttl(seconds) => self.touched + seconds * 1000 <= now,
            Expiry::At(at) => at.millis() <= now,
        }
    }
}

impl Model {
    /// The stream that occupies a path.
    pub(crate) fn at(&self, path: &str) -> Option<usize> {
        self.streams.iter().position(|s| !s.removed && s.path == path)
    }

    fn has_forks(&self, id: usize) -> bool {
        self.streams.iter().any(|s| !s.removed && s.source == Some(id))
    }

    /// The stream that clients see at a path.
    pub(crate) fn visible(&self, path: &str) -> Result<usize, Code> {
        let id = self.at(path).ok_or("not-found")?;
        let stream = &self.streams[id];
        match stream.expired(self.now) {
            _ if stream.soft => Err("gone"),
            true if self.has_forks(id) => Err("gone"),
            true => Err("not-found"),
            false => Ok(id),
        }
    }

    /// A read begins.
    pub(crate) fn open(&mut self, path: &str) -> Result<usize, Code> {
        let id = self.visible(path)?;
        self.streams[id].touched = self.now;
        Ok(id)
    }

    /// A live read begins.
    pub(crate) fn watch(&mut self, path: &str) -> Result<usize, Code> {
        let id = self.open(path)?;
        self.streams[id].readers += 1;
        Ok(id)
    }

    /// A live read ends.
    pub(crate) fn unwatch(&mut self, id: usize) {
        self.renew(id);
        self.streams[id].readers -= 1;
    }

    /// Whether only live readers keep the stream at a path from expiring.
    pub(crate) fn keeps(&self, path: &str) -> bool {
        self.at(path).is_some_and(|id| {
            let stream = &self.streams[id];
            stream.readers > 0 && !stream.expired(self.now)
        })
    }

    fn renew(&mut self, id: usize) {
        let stream = &mut self.streams[id];
        if stream.readers > 0 && stream.time_is_up(self.now) {
            stream.touched = self.now;
        }
    }

    /// Deletes a stream, softly while it has forks, and what only it kept alive.
    fn remove(&mut self, id: usize) {
        if self.has_forks(id) {
            self.streams[id].soft = true;
            return;
        }
        self.streams[id].removed = true;
        if let Some(source) = self.streams[id].source {
            if self.streams[source].soft {
                self.remove(source);
            } else if !self.has_forks(source) {
                self.streams[source].kept = self.streams[source].earliest;
            }
        }
    }

    pub(crate) fn trim(&mut self, path: &str, before: usize) -> Result<u64, Code> {
        let id = self.visible(path)?;
        let has_forks = self.has_forks(id);
        let stream = &mut self.streams[id];
        if before > stream.bytes.len() {
            return Err("offset-beyond-tail");
        }
        if before > stream.earliest {
            if !stream.boundary(before) {
                return Err("offset-inside-message");
            }
            let ends = stream.ends.iter().copied().filter(|end| *end <= before);
            let whole = ends.max().unwrap_or(0).max(stream.earliest);
            stream.earliest = if stream.json() { before } else { whole };
        }
        if !has_forks {
            stream.kept = stream.earliest;
        }
        Ok(stream.earliest as u64)
    }

    pub(crate) fn change_expiry(&mut self, path: &str, expiry: Expiry) -> Result<(), Code> {
        let id = self.visible(path)?;
        let stream = &mut self.streams[id];
        (stream.expiry, stream.create.expiry) = (expiry, expiry);
        stream.touched = self.now;
        Ok(())
    }

    pub(crate) fn delete(&mut self, path: &str) -> Result<(), Code> {
        let id = self.visible(path)?;
        self.remove(id);
        Ok(())
    }

    /// Removes what has expired. Returns whether anything had.
    pub(crate) fn sweep(&mut self) -> bool {
        let mut removed = false;
        for id in 0..self.streams.len() {
            self.renew(id);
            let stream = &self.streams[id];
            if !stream.removed && !stream.soft && stream.expired(self.now) {
                self.remove(id);
                removed = true;
            }
        }
        removed
    }

    pub(crate) fn create(
        &mut self,
        path: &str,
        create: &Create,
        body: &[u8],
    ) -> Result<CreateOutcome, Code> {
        if let Some(id) = self.at(path)
            && !self.streams[id].soft
            && self.streams[id].expired(self.now)
        {
            self.remove(id);
        }
        if let Some(id) = self.at(path) {
            self.confirm(id, create)?;
            self.streams[id].touched = self.now;
            return Ok(self.created(id, false));
        }
        let source = create.fork.as_ref().map(|_| self.fork_point(create)).transpose()?;
        let given = create.content_type.as_ref().map(|t| t.as_str().to_owned());
        let content_type = match (given, &source) {
            (Some(given), Some((id, _))) if given != self.streams[*id].content_type => {
                return Err("source-type-mismatch");
            }
            (Some(given), _) => given,
            (None, Some((id, _))) => self.streams[*id].content_type.clone(),
            (None, None) => "application/octet-stream".to_owned(),
        };
        let own = stored(&content_type, body).map_err(|()| "invalid-json")?;
        let (inherited, mut ends, expiry, earliest) = match &source {
            None => (Vec::new(), Vec::new(), create.expiry, 0),
            Some((id, at)) => {
                let source = &self.streams[*id];
                let own = create.expiry != Expiry::Never;
                let expiry = if own { create.expiry } else { source.expiry };
                let ends = source.ends.iter().copied().filter(|end| end < at);
                (source.bytes[..*at].to_vec(), ends.chain([*at]).collect(), expiry, source.earliest)
            }
        };
        if !own.is_empty() {
            ends.push(inherited.len() + own.len());
        }
        self.streams.push(Stream {
            path: path.into(),
            create: create.clone(),
            content_type,
            expiry,
            own: inherited.len(),
            earliest,
            kept: 0,
            bytes: [inherited, own].concat(),
            ends,
            closed: create.closed.then_some(None),
            seq: None,
            producers: BTreeMap::new(),
            touched: self.now,
            readers: 0,
            source: source.map(|(id, _)| id),
            soft: false,
            removed: false,
        });
        Ok(self.created(self.streams.len() - 1, true))
    }

    fn created(&self, id: usize, created: bool) -> CreateOutcome {
        let stream = &self.streams[id];
        CreateOutcome {
            created,
            content_type: durable_streams_protocol::ContentType::parse(&stream.content_type)
                .unwrap(),
            next_offset: durable_streams_protocol::Offset::new(stream.tail()),
            closed: stream.closed.is_some(),
            public: stream.create.public,
        }
    }

    fn confirm(&self, id: usize, create: &Create) -> Result<(), Code> {
        let stream = &self.streams[id];
        let was = &stream.create;
        let content_type = match &create.content_type {
            Some(given) => given.as_str(),
            None if create.fork.is_some() => &stream.content_type,
            None => "application/octet-stream",
        };
        // A fork that was made at the tail, or asks for the tail, is confirmed by any spelling of the place.
        let fork = match (&was.fork, &create.fork) {
            (None, None) => true,
            (Some(was), Some(asked)) => {
                let place = was.offset.map_or(stream.own as u64, |offset| offset.position());
                was.source == asked.source
                    && was.sub_offset == asked.sub_offset
                    && asked.offset.is_none_or(|offset| offset.position() == place)
            }
            _ => false,
        };
        let inherited = was.fork.is_some() && was.expiry == Expiry::Never;
        let expiry =
            stream.expiry == create.expiry || (inherited && create.expiry == Expiry::Never);
        let public = was.public == create.public;
        let same = content_type == stream.content_type && expiry && fork && public;
        match stream.soft {
            true => Err("path-blocked"),
            false if same && stream.closed.is_some() == create.closed => Ok(()),
            false => Err("config-mismatch"),
        }
    }

    /// The source of a fork, and where it is left.
    fn fork_point(&self, create: &Create) -> Result<(usize, usize), Code> {
        let fork = create.fork.as_ref().unwrap();
        let id = self.visible(fork.source.as_str()).map_err(|code| match code {
            "gone" => "source-deleted",
            _ => "source-not-found",
        })?;
        let source = &self.streams[id];
        let anchor = fork.offset.map_or(source.tail(), |offset| offset.position()) as usize;
        let rest = source.bytes.get(anchor..).ok_or("offset-beyond-tail")?;
        if anchor < source.earliest {
            return Err("offset-trimmed");
        }
        if !source.boundary(anchor) {
            return Err("offset-inside-message");
        }
        let skip = fork.sub_offset as usize;
        let skipped = if !source.json() {
            let end = source.ends.iter().find(|end| **end > anchor).copied();
            (anchor + skip <= end.unwrap_or(anchor)).then_some(skip)
        } else {
            let ends = rest.iter().enumerate().filter(|(_, byte)| **byte == MESSAGE_END);
            std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).nth(skip)
        };
        Ok((id, anchor + skipped.ok_or("sub-offset-beyond-data")?))
    }

    pub(crate) fn append(
        &mut self,
        path: &str,
        append: &Append,
        body: &[u8],
    ) -> Result<AppendOutcome, Code> {
        let id = self.visible(path)?;
        let now = self.now;
        let stream = &mut self.streams[id];
        let known =
            append.producer.as_ref().and_then(|p| stream.producers.get(p.id.as_str()).copied());
        let answer = |stream: &mut Stream, producer, added| {
            stream.touched = now;
            Ok(AppendOutcome {
                next_offset: durable_streams_protocol::Offset::new(stream.tail()),
                closed: stream.closed.is_some(),
                producer,
                added,
            })
        };
        if body.is_empty() && !append.close {
            return Err("empty-append");
        }
        if let Some(by) = &stream.closed {
            // The retry of what closed it is known by its producer headers alone (§5.2.1).
            let retry = match &append.producer {
                None => append.close && body.is_empty(),
                Some(producer) => by.as_ref() == Some(producer),
            };
            return if retry { answer(stream, known, false) } else { Err("stream-closed") };
        }
        if !body.is_empty() {
            let given = append.content_type.as_ref().ok_or("missing-content-type")?;
            let given = given.as_ref().map_err(|_| "invalid-content-type")?;
            if given.as_str() != stream.content_type {
                return Err("content-type-mismatch");
            }
        }
        if let Some(producer) = &append.producer {
            match known {
                Some(known) if producer.epoch < known.epoch => return Err("stale-epoch"),
                Some(known) if producer.epoch == known.epoch && producer.seq <= known.last_seq => {
                    return answer(stream, Some(known), false);
                }
                Some(known) if producer.epoch > known.epoch && producer.seq > 0 => {
                    return Err("epoch-must-start-at-zero");
                }
                Some(known)
                    if producer.epoch == known.epoch && producer.seq > known.last_seq + 1 =>
                {
                    return Err("sequence-gap");
                }
                None if producer.seq > 0 => return Err("sequence-gap"),
                _ => {}
            }
        }
        let data = stored(&stream.content_type, body).map_err(|()| "invalid-json")?;
        if data.is_empty() && !body.is_empty() {
            return Err("empty-json-array");
        }
        let seq = append.stream_seq.as_ref().map(|seq| seq.as_str().to_owned());
        if seq.is_some() && seq <= stream.seq {
            return Err("sequence-regression");
        }
        stream.seq = seq.or(stream.seq.take());
        if !data.is_empty() {
            stream.bytes.extend(data);
            stream.ends.push(stream.bytes.len());
        }
        stream.closed = append.close.then(|| append.producer.clone());
        let accepted =
            append.producer.as_ref().map(|p| ProducerState { epoch: p.epoch, last_seq: p.seq });
        if let (Some(producer), Some(state)) = (&append.producer, accepted) {
            stream.producers.insert(producer.id.as_str().into(), state);
        }
        answer(stream, accepted, !body.is_empty())
    }
}

fn stored(content_type: &str, body: &[u8]) -> Result<Vec<u8>, ()> {
    if content_type != "application/json" || body.is_empty() {
        return Ok(body.to_vec());
    }
    store_messages(body).map(|stored| stored.to_vec()).map_err(|_| ())
}
