//! Judging a `PUT` (§5.1, §4.2).

use bytes::Bytes;

use super::{Decision, StreamCore, StreamId, StreamState};
use crate::{
    ContentType, Create, Created, Expiry, ForkPoint, JsonError, Offset, Rejection, StreamEvent,
    StreamPath, Timestamp,
};

/// The longest chain of streams that a fork inherits bytes from.
const MAX_ANCESTORS: usize = 256;

/// The answer to a `PUT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateOutcome {
    /// Created now (201), or there already with the same configuration (200).
    pub created: bool,
    /// The stream's type.
    pub content_type: ContentType,
    /// The position after the first bytes.
    pub next_offset: Offset,
    /// The stream is closed.
    pub closed: bool,
    /// The stream is readable without credentials.
    pub public: bool,
}

/// What a fork needs to know of its source. The position is resolved from durable bytes beforehand, so it
/// stays right whatever is appended meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct ForkSource<'s> {
    /// The source.
    pub state: &'s StreamState,
    /// Where the fork leaves it, sub-offset included.
    pub position: Offset,
}

impl StreamState {
    /// Judges a `PUT` to a path where this stream lives: the same configuration, or a conflict.
    ///
    /// # Errors
    /// [`Rejection::PathBlocked`] when it is soft-deleted, [`Rejection::ConfigMismatch`] otherwise.
    pub fn confirm(&self, create: &Create) -> Result<CreateOutcome, Rejection> {
        if self.soft_deleted {
            return Err(Rejection::PathBlocked);
        }
        match self.difference(create) {
            Some(field) => Err(Rejection::ConfigMismatch { field, closed_at: self.closed_at() }),
            None => Ok(CreateOutcome {
                created: false,
                content_type: self.core.content_type.clone(),
                next_offset: self.tail,
                closed: self.closed.is_some(),
                public: self.core.public,
            }),
        }
    }

    /// Judges a change of the time when the stream goes away by itself. A TTL begins again, also when it stays the same.
    pub fn change_expiry(&self, expiry: Expiry, now: Timestamp) -> Decision<()> {
        if self.core.expiry == expiry && !matches!(expiry, Expiry::Ttl(_)) {
            return Decision::Reply(());
        }
        Decision::Commit(StreamEvent::ExpiryChanged { at: now, expiry }, ())
    }

    /// Judges a `PUT` to a path where nothing lives; the stream would be `id`. `stored` is its body in stored form:
    /// parsing is long work, which the caller does before it takes any lock.
    ///
    /// # Errors
    /// [`Rejection::SourceDeleted`], [`Rejection::SourceTypeMismatch`], [`Rejection::ForkTooDeep`] for
    /// forks; [`Rejection::InvalidJson`] for a body that is not JSON.
    pub fn create(
        id: StreamId,
        path: &StreamPath,
        create: &Create,
        source: Option<ForkSource<'_>>,
        stored: Result<Bytes, JsonError>,
        now: Timestamp,
    ) -> Result<Decision<CreateOutcome>, Rejection> {
        let content_type = match (&create.content_type, source) {
            (Some(asked), Some(source)) if !asked.matches(&source.state.core.content_type) => {
                return Err(Rejection::SourceTypeMismatch {
                    expected: source.state.core.content_type.clone(),
                });
            }
            (Some(asked), _) => asked.clone(),
            (None, Some(source)) => source.state.core.content_type.clone(),
            (None, None) => ContentType::default(),
        };
        let fork = match (source, &create.fork) {
            (Some(source), Some(asked)) => {
                Some(fork_point(source, asked.offset, asked.sub_offset)?)
            }
            _ => None,
        };
        let expiry_inherited = fork.is_some() && create.expiry == Expiry::Never;
        let expiry = match source {
            Some(source) if expiry_inherited => source.state.core.expiry,
            _ => create.expiry,
        };
        let data = stored.map_err(Rejection::invalid_json)?;
        let created = Created {
            at: now,
            path: path.clone(),
            content_type,
            expiry,
            expiry_inherited,
            fork,
            incarnation: id.incarnation(),
            closed: create.closed,
            public: create.public,
            earliest: source.map_or(Offset::ZERO, |source| source.state.earliest),
            data,
        };
        let outcome = CreateOutcome {
            created: true,
            content_type: created.content_type.clone(),
            next_offset: created.range().1,
            closed: create.closed,
            public: create.public,
        };
        Ok(Decision::Commit(StreamEvent::Created(Box::new(created)), outcome))
    }

    /// The first part of the configuration in which a `PUT` differs from this stream.
    fn difference(&self, create: &Create) -> Option<&'static str> {
        let core: &StreamCore = &self.core;
        let asked_type = match (&create.content_type, &create.fork) {
            (Some(asked), _) => asked.clone(),
            (None, Some(_)) => core.content_type.clone(),
            (None, None) => ContentType::default(),
        };
        let asked_expiry = match create.expiry {
            Expiry::Never if core.expiry_inherited => core.expiry,
            asked => asked,
        };
        if !core.content_type.matches(&asked_type) {
            Some("Content-Type")
        } else if core.expiry != asked_expiry {
            Some("Stream-TTL or Stream-Expires-At")
        } else if self.closed.is_some() != create.closed {
            Some("Stream-Closed")
        } else if core.public != create.public {
            Some("value of public")
        } else {
            match (&core.fork, &create.fork) {
                (None, None) => None,
                (Some(fork), Some(asked)) => {
                    let point = fork.requested.unwrap_or(fork.position);
                    let same_offset = asked.offset.is_none_or(|asked| {
                        (asked, asked.incarnation()) == (point, point.incarnation())
                    });
                    if fork.source_path != asked.source {
                        Some("Stream-Forked-From")
                    } else if !same_offset {
                        Some("Stream-Fork-Offset")
                    } else if fork.sub_offset != asked.sub_offset {
                        Some("Stream-Fork-Sub-Offset")
                    } else {
                        None
                    }
                }
                _ => Some("Stream-Forked-From"),
            }
        }
    }

    fn closed_at(&self) -> Option<Offset> {
        self.closed.as_ref().map(|_| self.tail)
    }
}

fn fork_point(
    source: ForkSource<'_>,
    requested: Option<Offset>,
    sub_offset: u64,
) -> Result<ForkPoint, Rejection> {
    let core = &source.state.core;
    if source.state.soft_deleted {
        return Err(Rejection::SourceDeleted);
    }
    if source.position < source.state.earliest {
        return Err(Rejection::OffsetTrimmed { earliest: source.state.earliest });
    }
    let ancestors = core.ancestors_up_to(source.position);
    if ancestors.len() > MAX_ANCESTORS {
        return Err(Rejection::ForkTooDeep { limit: MAX_ANCESTORS });
    }
    Ok(ForkPoint {
        source: core.id,
        source_path: core.path.clone(),
        position: core.offset_at(source.position.position()),
        requested,
        sub_offset,
        ancestors,
    })
}
