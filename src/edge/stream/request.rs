//! What a request to the stream routes asks for.

use durable_streams_protocol::{LiveMode, PathError, Rejection, Request, StreamPath};
use pingora::protocols::http::ServerSession;

use super::StreamOptions;
use crate::telemetry::metrics::Mode;

/// What a request asks for.
pub(super) enum Asked {
    /// Something of the subscriptions; the path after the reserved segment.
    Control(String),
    /// Something of a stream.
    Stream(Result<(StreamPath, Request), Rejection>),
}

impl Asked {
    pub(super) fn mode(&self) -> Mode {
        match self {
            Asked::Control(_) => Mode::Control,
            Asked::Stream(parsed) => {
                parsed.as_ref().map_or(Mode::Invalid, |(_, request)| mode(request))
            }
        }
    }
}

pub(super) fn parse(
    options: &StreamOptions,
    session: &ServerSession,
) -> Result<(StreamPath, Request), Rejection> {
    let head = session.req_header();
    let query = head.uri.query();
    let request = Request::parse(&head.method, query, &head.headers, &options.route)?;
    let relative = head.uri.path().get(options.route.len() + 1..);
    let path = match relative {
        Some(relative) => StreamPath::from_url(relative)?,
        None => return Err(PathError::Empty.into()),
    };
    if path.as_str().len() > options.max_path {
        return Err(PathError::TooLong.into());
    }
    Ok((path, request))
}

fn mode(request: &Request) -> Mode {
    match request {
        Request::Create(_) => Mode::Create,
        Request::Append(_) => Mode::Append,
        Request::Read(read) => match read.live {
            LiveMode::CatchUp => Mode::CatchUp,
            LiveMode::LongPoll => Mode::LongPoll,
            LiveMode::Sse => Mode::Sse,
        },
        Request::Head => Mode::Head,
        Request::Delete => Mode::Delete,
        Request::Preflight => Mode::Preflight,
    }
}
