//! What a request is: its operation and its path, known before its body is read and before the engine is called.

use durable_streams_protocol::{LiveMode, PathError, Rejection, Request, StreamPath};
use pingora::http::RequestHeader;

use super::StreamOptions;
use crate::telemetry::metrics::Mode;

/// A request under the stream route.
pub(in crate::edge) struct StreamRequest {
    pub(super) operation: Mode,
    pub(super) target: Target,
}

/// What a request is about.
pub(super) enum Target {
    /// Subscriptions; the path behind the reserved segment.
    Subscriptions(String),
    Stream(StreamPath, Request),
    Invalid(Rejection),
}

impl StreamRequest {
    /// Parses the head of a request whose path [`StreamOptions::matches`].
    pub(in crate::edge) fn parse(options: &StreamOptions, head: &RequestHeader) -> Self {
        // The one place that takes the route off the path.
        let relative = head.uri.path().get(options.route.len() + 1..);
        if let Some(path) = relative.and_then(reserved) {
            let target = Target::Subscriptions(path.to_owned());
            return StreamRequest { operation: Mode::Control, target };
        }
        match parse(options, relative, head) {
            Ok((path, request)) => {
                let operation = operation(&request);
                StreamRequest { operation, target: Target::Stream(path, request) }
            }
            Err(rejection) => {
                StreamRequest { operation: Mode::Invalid, target: Target::Invalid(rejection) }
            }
        }
    }

    /// What the client wants to do.
    pub(in crate::edge) fn operation(&self) -> Mode {
        self.operation
    }
}

fn reserved(relative: &str) -> Option<&str> {
    let rest = relative.strip_prefix(StreamPath::RESERVED)?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

fn parse(
    options: &StreamOptions,
    relative: Option<&str>,
    head: &RequestHeader,
) -> Result<(StreamPath, Request), Rejection> {
    let request = Request::parse(&head.method, head.uri.query(), &head.headers, &options.route)?;
    let path = match relative {
        Some(relative) => StreamPath::from_url(relative)?,
        None => return Err(PathError::Empty.into()),
    };
    if path.as_str().len() > options.max_path {
        return Err(PathError::TooLong.into());
    }
    Ok((path, request))
}

fn operation(request: &Request) -> Mode {
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
