//! Streams that many writers append to at once, and that others read meanwhile.
//!
//! Rules after a crash, on top of those in `oracle`:
//! - The stream begins with everything that an earlier check found.
//! - Then comes every acknowledged request exactly once, in the order of the offsets they were answered
//!   with; in between and after, unacknowledged ones, each at most once. All of them whole. Nothing else.
//! - What a live reader was shown is still there, where it was.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
};

use crate::{
    client::{Client, Fields},
    oracle::{self, Observed, Request},
};

/// See the module.
pub(crate) struct Shared {
    pub(crate) path: String,
    pub(crate) json: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    settled: Vec<Arc<Request>>,
    acknowledged: Vec<(String, Arc<Request>)>,
    doubts: Vec<Doubt>,
    /// What the reader was shown, from the start of the stream, and where it goes on.
    seen: Vec<String>,
    /// Text after the last whole record: pages end where they will.
    partial: Vec<u8>,
    cursor: Option<String>,
}

struct Doubt {
    request: Arc<Request>,
    /// Empty without a producer.
    fields: Fields,
}

impl Shared {
    pub(crate) fn create(client: &mut Client, path: String, json: bool) -> Self {
        let reply = client.must("PUT", &path, &[("content-type", oracle::content_type(json))], b"");
        assert_eq!(reply.status, 201, "{path}: {reply:?}");
        Shared { path, json, state: Mutex::default() }
    }

    /// Appends; `producer` are its headers, or none. On `Err` the request stays in doubt.
    pub(crate) fn append(
        &self,
        client: &mut Client,
        request: Request,
        producer: &Fields,
    ) -> io::Result<()> {
        let request = Arc::new(request);
        let mut fields = producer.clone();
        fields.push(("content-type", oracle::content_type(self.json).into()));
        match client.ask("POST", &self.path, &fields, &request.body(self.json)) {
            Ok(reply) => {
                let expected = if producer.is_empty() { 204 } else { 200 };
                assert_eq!(reply.status, expected, "{} {producer:?}: {reply:?}", self.path);
                let mut state = self.state.lock().unwrap();
                state.acknowledged.push((reply.next_offset(), request));
                Ok(())
            }
            Err(error) => {
                let doubt = Doubt { request, fields: producer.clone() };
                self.state.lock().unwrap().doubts.push(doubt);
                Err(error)
            }
        }
    }

    /// Follows the stream live until the server is gone. One thread at a time.
    pub(crate) fn follow(&self, client: &mut Client) -> io::Result<()> {
        loop {
            let at = self.state.lock().unwrap().cursor.clone().unwrap_or("-1".into());
            let path = format!("{}?live=long-poll&offset={at}", self.path);
            let reply = client.ask("GET", &path, &[], b"")?;
            let mut state = self.state.lock().unwrap();
            match reply.status {
                200 if self.json => {
                    let page: Vec<String> = serde_json::from_slice(&reply.body).expect("records");
                    state.seen.extend(page);
                }
                200 => {
                    let mut text = std::mem::take(&mut state.partial);
                    text.extend(reply.body.iter());
                    let whole = memchr::memrchr(b'\n', &text).map_or(0, |at| at + 1);
                    state.partial = text.split_off(whole);
                    state.seen.extend(oracle::lines(&self.path, &text));
                }
                204 => {}
                503 => return Err(io::ErrorKind::ConnectionAborted.into()),
                _ => panic!("{path}: {reply:?}"),
            }
            state.cursor = Some(reply.next_offset());
        }
    }

    /// Compares the server with the rules, and settles what is in doubt. Gives the number of requests.
    pub(crate) fn check(&self, client: &mut Client) -> io::Result<usize> {
        let path = &self.path;
        let Observed::Present { records, closed, json, .. } = oracle::observe(client, path)? else {
            panic!("{path} is gone");
        };
        assert_eq!((closed, json), (false, self.json), "{path}");
        let mut state = self.state.lock().unwrap();
        let found = self.group(&state, &records);
        assert!(records.starts_with(&state.seen), "{path} has lost what a reader was shown");

        let begins = found.iter().zip(&state.settled).all(|(a, b)| Arc::ptr_eq(a, b));
        assert!(begins && found.len() >= state.settled.len(), "{path} has lost an earlier request");
        let fresh = &found[state.settled.len()..];
        state.acknowledged.sort_by(|a, b| a.0.cmp(&b.0));
        let is_doubt = |request: &Arc<Request>, state: &State| {
            state.doubts.iter().any(|doubt| Arc::ptr_eq(&doubt.request, request))
        };
        let stored: Vec<_> = fresh.iter().filter(|request| !is_doubt(request, &state)).collect();
        let acknowledged: Vec<_> = state.acknowledged.iter().map(|(_, request)| request).collect();
        let same = stored.len() == acknowledged.len()
            && stored.iter().zip(&acknowledged).all(|(a, b)| Arc::ptr_eq(a, b));
        assert!(
            same,
            "{path}: {} acknowledged requests, {} stored, or not in the order of their offsets",
            acknowledged.len(),
            stored.len()
        );
        for (index, request) in fresh.iter().enumerate() {
            let again = fresh[..index].iter().any(|before| Arc::ptr_eq(before, request));
            assert!(!again, "{path} has a request twice: {:?}", request.records[0]);
        }
        state.settled = found;
        state.acknowledged.clear();
        self.settle(client, &mut state)?;
        Ok(state.settled.len())
    }

    /// Retries what is in doubt and names a producer.
    fn settle(&self, client: &mut Client, state: &mut State) -> io::Result<()> {
        while let Some(doubt) = state.doubts.pop() {
            if doubt.fields.is_empty() {
                continue;
            }
            let stored = state.settled.iter().any(|known| Arc::ptr_eq(known, &doubt.request));
            let mut fields = doubt.fields.clone();
            fields.push(("content-type", oracle::content_type(self.json).into()));
            let reply = client.ask("POST", &self.path, &fields, &doubt.request.body(self.json))?;
            let expected = if stored { 204 } else { 200 };
            assert_eq!(reply.status, expected, "{}: a retry {fields:?}: {reply:?}", self.path);
            if !stored {
                state.settled.push(doubt.request);
            }
        }
        Ok(())
    }

    /// The requests that the records are made of. Each record begins with its request's name and `/`.
    fn group(&self, state: &State, records: &[String]) -> Vec<Arc<Request>> {
        let acknowledged = state.acknowledged.iter().map(|(_, request)| request);
        let doubts = state.doubts.iter().map(|doubt| &doubt.request);
        let known: HashMap<&str, &Arc<Request>> = state
            .settled
            .iter()
            .chain(acknowledged)
            .chain(doubts)
            .map(|request| (name(&request.records[0]), request))
            .collect();
        let (mut found, mut rest) = (Vec::new(), records);
        while let Some(first) = rest.first() {
            let request = known.get(name(first));
            let request = request.unwrap_or_else(|| panic!("{}: foreign: {first:?}", self.path));
            let whole = rest.starts_with(&request.records);
            assert!(whole, "{}: {:?} is not whole", self.path, name(first));
            rest = &rest[request.records.len()..];
            found.push(Arc::clone(request));
        }
        found
    }
}

fn name(record: &str) -> &str {
    record.split('/').next().unwrap_or(record)
}
