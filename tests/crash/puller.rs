//! A worker of a pull-wake subscription over the shared streams.
//!
//! Rules: what was acknowledged of its acks is there after a crash, so no cursor moves back; generations grow; and at the
//! end of a claim there is nothing beyond the stream's tail.

use std::{collections::HashMap, io, thread, time::Duration};

use serde_json::{Value, json};

use crate::client::Client;

const SUBSCRIPTION: &str = "__ds/subscriptions/puller";

/// See the module.
#[derive(Default)]
pub(crate) struct Puller {
    exists: bool,
    /// Acknowledged cursors, by stream.
    acked: HashMap<String, String>,
    generation: u64,
    pub(crate) claims: u64,
}

fn send(
    client: &mut Client,
    method: &str,
    path: &str,
    token: Option<&str>,
    body: &Value,
) -> io::Result<(u16, Value)> {
    let mut fields = vec![("content-type", "application/json".to_owned())];
    fields.extend(token.map(|token| ("authorization", format!("Bearer {token}"))));
    let reply = client.ask(method, path, &fields, body.to_string().as_bytes())?;
    Ok((reply.status, serde_json::from_slice(&reply.body).unwrap_or(Value::Null)))
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

impl Puller {
    /// The server has the subscription, and no cursor lies before what was acknowledged.
    pub(crate) fn check(&mut self, client: &mut Client) {
        if !self.exists {
            let create = |client: &mut Client, path: &str, body: &Value| {
                send(client, "PUT", path, None, body).expect("answers").0
            };
            assert_eq!(create(client, "wake/puller", &json!([])), 201);
            let config = json!({"type": "pull-wake", "pattern": "shared/**", "lease_ttl_ms": 1000,
                "wake_stream": "wake/puller"});
            assert_eq!(create(client, SUBSCRIPTION, &config), 201);
            self.exists = true;
        }
        let (status, found) =
            send(client, "GET", SUBSCRIPTION, None, &Value::Null).expect("answers");
        assert_eq!(status, 200, "{found}");
        let mut links = HashMap::new();
        for link in found["streams"].as_array().expect("links") {
            links.insert(text(&link["path"]), text(&link["acked_offset"]));
        }
        // The streams of an earlier generation are deleted.
        self.acked.retain(|path, _| links.contains_key(path));
        for (path, acked) in &self.acked {
            let found = &links[path];
            assert!(found >= acked, "{path}: the cursor went back from {acked} to {found}");
        }
    }

    /// Claims and acks until the server is gone.
    pub(crate) fn work(&mut self, client: &mut Client) -> io::Error {
        loop {
            if let Err(error) = self.step(client) {
                return error;
            }
        }
    }

    fn step(&mut self, client: &mut Client) -> io::Result<()> {
        let path = format!("{SUBSCRIPTION}/claim");
        let (status, claim) = send(client, "POST", &path, None, &json!({"worker": "w"}))?;
        if status != 200 {
            // No work, or the lease of a claim whose answer was lost still runs.
            thread::sleep(Duration::from_millis(5));
            return Ok(());
        }
        let generation = claim["generation"].as_u64().expect("a number");
        assert!(generation > self.generation, "claimed twice: {claim}, after {}", self.generation);
        self.generation = generation;
        let mut acks = Vec::new();
        for stream in claim["streams"].as_array().expect("streams") {
            let (path, from) = (text(&stream["path"]), text(&stream["acked_offset"]));
            if let Some(acked) = self.acked.get(&path) {
                assert!(&from >= acked, "{path}: the cursor went back from {acked} to {from}");
            }
            acks.push(json!({"stream": path, "offset": stream["tail_offset"]}));
        }
        let done = json!({"wake_id": claim["wake_id"], "generation": generation, "acks": acks,
            "done": true});
        let path = format!("{SUBSCRIPTION}/ack");
        let (status, answer) = send(client, "POST", &path, claim["token"].as_str(), &done)?;
        match status {
            200 | 204 => {
                self.claims += 1;
                for ack in &acks {
                    self.acked.insert(text(&ack["stream"]), text(&ack["offset"]));
                }
                Ok(())
            }
            // The lease ended under a slow machine.
            409 => Ok(()),
            _ => panic!("an ack: {status} {answer}"),
        }
    }
}
