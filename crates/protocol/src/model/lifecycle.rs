//! The messages of the lifecycle stream: what became of streams, one JSON object each. Format: docs/retention.md,
//! "Lifecycle events". An extension of this server.

use serde::Serialize;

use crate::{
    Expiry, ForkPoint, MESSAGE_END, Offset, StreamEvent, StreamPath, StreamState, Timestamp,
    split_stored,
};

/// Where the lifecycle stream is stored. Clients of no tenant read it by this path.
pub const LIFECYCLE_PATH: &str = "__ds/lifecycle";

/// An event of one stream that may be worth a message.
#[derive(Clone, Copy, Debug)]
pub struct LifecycleChange<'c> {
    /// Where the stream is stored.
    pub path: &'c StreamPath,
    /// The stream before the event; `None` before its creation, and when its state is damaged.
    pub before: Option<&'c StreamState>,
    /// The event.
    pub event: &'c StreamEvent,
    /// The stream goes because its time has come, not because a client asked for it.
    pub expired: bool,
}

/// A message. Fields that say nothing are left out.
#[derive(Serialize)]
struct LifecycleMessage<'m> {
    event: &'static str,
    seq: u64,
    at: String,
    path: &'m str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'m str>,
    /// Sixteen digits, as offsets have it: a number of JSON may lose the last ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    incarnation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<Offset>,
    #[serde(skip_serializing_if = "Option::is_none")]
    earliest: Option<Offset>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_type: Option<&'m str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    closed: bool,
    #[serde(skip_serializing_if = "is_false")]
    public: bool,
    #[serde(skip_serializing_if = "is_false")]
    soft_deleted: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    fork: Option<LifecycleFork<'m>>,
}

#[derive(Serialize)]
struct LifecycleFork<'m> {
    path: &'m str,
    offset: Offset,
}

impl LifecycleChange<'_> {
    /// The message in stored form, with its number; `None` for events that the lifecycle stream does not have: appends
    /// that do not close, the end of a stream that was soft-deleted, and all events of the server's own streams.
    pub fn stored_message(&self, seq: u64) -> Option<Vec<u8>> {
        let (tenant, path) = split_stored(self.path.as_str())?;
        let begun = |event, at: Timestamp| LifecycleMessage {
            event,
            seq,
            at: at.to_string(),
            path,
            tenant,
            incarnation: self.before.map(|before| number(before.core.incarnation)),
            offset: self.before.map(|before| before.tail),
            earliest: None,
            content_type: None,
            ttl: None,
            expires_at: None,
            closed: false,
            public: false,
            soft_deleted: false,
            fork: None,
        };
        let removed = if self.expired { "expired" } else { "deleted" };
        let message = match self.event {
            StreamEvent::Created(created) => LifecycleMessage {
                incarnation: Some(number(created.incarnation)),
                offset: Some(created.range().1),
                earliest: Some(created.earliest).filter(|earliest| *earliest > Offset::ZERO),
                content_type: Some(created.content_type.as_str()),
                ttl: match created.expiry {
                    Expiry::Ttl(seconds) => Some(seconds),
                    Expiry::Never | Expiry::At(_) => None,
                },
                expires_at: match created.expiry {
                    Expiry::At(time) => Some(time.to_string()),
                    Expiry::Never | Expiry::Ttl(_) => None,
                },
                closed: created.closed,
                public: created.public,
                fork: created.fork.as_ref().and_then(fork),
                ..begun("created", created.at)
            },
            StreamEvent::Appended(appended) if appended.close => LifecycleMessage {
                offset: self.before.map(|before| before.after(appended.data.len())),
                ..begun("closed", appended.at)
            },
            StreamEvent::Trimmed(trimmed) => {
                let earliest = self.before.map_or(Offset::ZERO, |before| before.earliest);
                // Bytes that only forks needed go without a change for readers.
                if trimmed.before <= earliest {
                    return None;
                }
                LifecycleMessage { earliest: Some(trimmed.before), ..begun("trimmed", trimmed.at) }
            }
            StreamEvent::SoftDeleted { at } => {
                LifecycleMessage { soft_deleted: true, ..begun(removed, *at) }
            }
            // It is gone for readers since it was soft-deleted.
            StreamEvent::Deleted { .. } if self.before.is_some_and(|one| one.soft_deleted) => {
                return None;
            }
            StreamEvent::Deleted { at } => begun(removed, *at),
            StreamEvent::Appended(_)
            | StreamEvent::Touched { .. }
            | StreamEvent::ExpiryChanged { .. }
            | StreamEvent::Marked { .. } => return None,
        };
        let mut stored = serde_json::to_vec(&message).ok()?;
        stored.push(MESSAGE_END);
        Some(stored)
    }
}

fn fork(fork: &ForkPoint) -> Option<LifecycleFork<'_>> {
    // The source belongs to the tenant of its fork.
    let (_, path) = split_stored(fork.source_path.as_str())?;
    let position = fork.position.position();
    Some(LifecycleFork { path, offset: fork.inherited(position).unwrap_or(fork.position) })
}

fn number(incarnation: u64) -> String {
    format!("{incarnation:016}")
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde asks for it")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::{Append, ContentType, Create, Decision, Fork, ForkSource, StreamId};

    const AT: Timestamp = Timestamp::from_millis(1_767_225_600_250);
    const TIME: &str = "2026-01-01T00:00:00.250Z";

    fn create(id: u64, path: &str, create: &Create, source: Option<&StreamState>) -> StreamEvent {
        let path = StreamPath::system(path).unwrap();
        let source = source.map(|state| ForkSource { state, position: state.tail });
        let stored = Ok(Bytes::from_static(b"ab"));
        match StreamState::create(StreamId(id), &path, create, source, stored, AT).unwrap() {
            Decision::Commit(event, _) => event,
            Decision::Reply(_) => panic!("it creates"),
        }
    }

    fn message(
        path: &str,
        before: Option<&StreamState>,
        event: &StreamEvent,
        expired: bool,
    ) -> Option<Value> {
        let path = StreamPath::system(path).unwrap();
        let change = LifecycleChange { path: &path, before, event, expired };
        let stored = change.stored_message(7)?;
        let (end, json) = stored.split_last().unwrap();
        assert_eq!(*end, MESSAGE_END);
        Some(serde_json::from_slice(json).unwrap())
    }

    #[test]
    fn a_creation_says_what_the_stream_is() {
        let plain = create(41, "a", &Create::default(), None);
        assert_eq!(
            message("a", None, &plain, false),
            Some(json!({
                "event": "created", "seq": 7, "at": TIME, "path": "a",
                "incarnation": "0000000000000042", "offset": "0000000000000042_0000000000000002",
                "content_type": "application/octet-stream",
            }))
        );
        let source = StreamState::fold(None, StreamId(41), &plain).unwrap();
        let all = Create {
            content_type: ContentType::parse("application/octet-stream"),
            expiry: Expiry::Ttl(60),
            closed: true,
            public: true,
            fork: Some(Fork { source: source.core.path.clone(), offset: None, sub_offset: 0 }),
        };
        let fork = create(42, "__ds/t/acme/b", &all, Some(&source));
        assert_eq!(
            message("__ds/t/acme/b", None, &fork, false),
            Some(json!({
                "event": "created", "seq": 7, "at": TIME, "path": "b", "tenant": "acme",
                "incarnation": "0000000000000043", "offset": "0000000000000043_0000000000000004",
                "content_type": "application/octet-stream", "ttl": 60, "closed": true, "public": true,
                "fork": {"path": "a", "offset": "0000000000000042_0000000000000002"},
            }))
        );
        let until = Create { expiry: Expiry::At(AT), ..Create::default() };
        let event = create(43, "c", &until, None);
        assert_eq!(message("c", None, &event, false).unwrap()["expires_at"], TIME);
        let StreamEvent::Created(mut later) = create(45, "d", &Create::default(), None) else {
            panic!("it creates")
        };
        later.earliest = later.range().1;
        let event = StreamEvent::Created(later);
        let earliest = &message("d", None, &event, false).unwrap()["earliest"];
        assert_eq!(earliest, "0000000000000046_0000000000000002");
    }

    #[test]
    fn ends_and_trims_say_where() {
        let created = create(41, "a", &Create::default(), None);
        let state = StreamState::fold(None, StreamId(41), &created).unwrap();
        let closing = Append { close: true, ..Append::default() };
        let close = state.append(&closing, None, true, Ok(Bytes::new()), AT).unwrap();
        let Decision::Commit(close, _) = close else { panic!("it closes") };
        let closing = Append { content_type: Some(Ok(state.core.content_type.clone())), ..closing };
        let last = state.append(&closing, None, false, Ok(Bytes::from_static(b"end")), AT).unwrap();
        let Decision::Commit(last, _) = last else { panic!("it closes") };
        let trim = state.trim(state.tail, None, false, AT).unwrap();
        let Decision::Commit(trim, _) = trim else { panic!("it trims") };
        let tail = "0000000000000042_0000000000000002";
        let base = json!({
            "seq": 7, "at": TIME, "path": "a", "incarnation": "0000000000000042", "offset": tail,
        });
        let with = |more: Value| {
            let mut all = base.as_object().unwrap().clone();
            all.extend(more.as_object().unwrap().clone());
            Some(Value::Object(all))
        };
        let soft = StreamEvent::SoftDeleted { at: AT };
        let deleted = StreamEvent::Deleted { at: AT };
        for (event, expired, expected) in [
            (&close, false, json!({"event": "closed"})),
            (
                &last,
                false,
                json!({"event": "closed", "offset": "0000000000000042_0000000000000005"}),
            ),
            (&trim, false, json!({"event": "trimmed", "earliest": tail})),
            (&deleted, false, json!({"event": "deleted"})),
            (&deleted, true, json!({"event": "expired"})),
            (&soft, false, json!({"event": "deleted", "soft_deleted": true})),
            (&soft, true, json!({"event": "expired", "soft_deleted": true})),
        ] {
            assert_eq!(message("a", Some(&state), event, expired), with(expected));
        }
        let damaged = message("a", None, &deleted, false);
        assert_eq!(damaged, Some(json!({"event": "deleted", "seq": 7, "at": TIME, "path": "a"})));
    }

    #[test]
    fn what_no_reader_notices_has_no_message() {
        let created = create(41, "a", &Create::default(), None);
        let state = StreamState::fold(None, StreamId(41), &created).unwrap();
        let appending =
            Append { content_type: Some(Ok(state.core.content_type.clone())), ..Append::default() };
        let data = Ok(Bytes::from_static(b"x"));
        let append = state.append(&appending, None, false, data, AT).unwrap();
        let Decision::Commit(append, _) = append else { panic!("it appends") };
        let mut soft = state.clone();
        soft.apply(&StreamEvent::SoftDeleted { at: AT });
        let mut trimmed = state.clone();
        let trim = state.trim(state.tail, None, true, AT).unwrap();
        let Decision::Commit(trim, _) = trim else { panic!("it trims") };
        trimmed.apply(&trim);
        let release = trimmed.trim(trimmed.earliest, None, false, AT).unwrap();
        let Decision::Commit(release, _) = release else { panic!("it releases bytes") };
        for (before, event) in [
            (&state, append),
            (&state, StreamEvent::Touched { at: AT }),
            (&state, StreamEvent::Marked { at: AT }),
            (&state, StreamEvent::ExpiryChanged { at: AT, expiry: Expiry::Never }),
            (&soft, StreamEvent::Deleted { at: AT }),
            (&trimmed, release),
        ] {
            assert_eq!(message("a", Some(before), &event, false), None, "{event:?}");
        }
        for own in [LIFECYCLE_PATH, "__ds/subscriptions/x/0", "__ds/t/acme/__ds/x"] {
            let event = create(44, own, &Create::default(), None);
            assert_eq!(message(own, None, &event, false), None, "{own}");
        }
    }
}
