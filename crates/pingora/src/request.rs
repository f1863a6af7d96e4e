//! What a request is: its mode and its path, known before its body is read and before the engine is called.

use durable_streams_protocol::{
    LIFECYCLE_PATH, LiveMode, PathError, Rejection, Request, StreamPath,
};
use pingora_http::RequestHeader;

use crate::{counters::RequestMode, options::StreamOptions};

/// A request under the stream route.
pub struct StreamRequest {
    pub(crate) mode: RequestMode,
    pub(crate) target: RequestTarget,
    pub(crate) sends_files: bool,
}

/// What a request is about.
pub(crate) enum RequestTarget {
    /// Subscriptions; the path behind the reserved segment.
    Subscriptions(String),
    Stream(StreamPath, Request),
    Invalid(Rejection),
}

impl StreamRequest {
    /// Parses the head of a request whose path [`StreamOptions::matches`].
    pub fn parse(options: &StreamOptions, head: &RequestHeader) -> Self {
        // The one place that takes the route off the path.
        let relative = head.uri.path().get(options.route.len() + 1..);
        if relative == Some(LIFECYCLE_PATH) {
            return Self::of(parse_lifecycle(options, head));
        }
        if let Some(path) = relative.and_then(reserved) {
            let target = RequestTarget::Subscriptions(path.to_owned());
            return StreamRequest { mode: RequestMode::Subscriptions, target, sends_files: false };
        }
        Self::of(parse(options, relative, head))
    }

    fn of(parsed: Result<(StreamPath, Request), Rejection>) -> Self {
        match parsed {
            Ok((path, request)) => {
                let mode = mode(&request);
                let target = RequestTarget::Stream(path, request);
                StreamRequest { mode, target, sends_files: false }
            }
            Err(rejection) => StreamRequest {
                mode: RequestMode::Invalid,
                target: RequestTarget::Invalid(rejection),
                sends_files: false,
            },
        }
    }

    /// The reply is to be delivered through a writer that [`sends_files`](crate::transport::ReplyWriter::sends_files), or is
    /// not. Another writer gets the same bytes; what a file has of them is then looked for twice.
    #[must_use]
    pub fn sending_files(self, sends_files: bool) -> Self {
        StreamRequest { sends_files, ..self }
    }

    /// What the client wants to do.
    pub fn mode(&self) -> RequestMode {
        self.mode
    }

    /// The stream that the request is about, and the request; `None` for subscriptions and for what is not valid.
    pub fn stream(&self) -> Option<(&StreamPath, &Request)> {
        match &self.target {
            RequestTarget::Stream(path, request) => Some((path, request)),
            RequestTarget::Subscriptions(_) | RequestTarget::Invalid(_) => None,
        }
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

/// A request for the lifecycle stream, which clients only read.
fn parse_lifecycle(
    options: &StreamOptions,
    head: &RequestHeader,
) -> Result<(StreamPath, Request), Rejection> {
    let request = Request::parse(&head.method, head.uri.query(), &head.headers, &options.route)?;
    match request {
        Request::Read(_) | Request::Head | Request::Preflight => {
            Ok((StreamPath::system(LIFECYCLE_PATH)?, request))
        }
        Request::Create(_) | Request::Append(_) | Request::Delete | Request::Patch(_) => {
            Err(Rejection::ReadOnly)
        }
    }
}

fn mode(request: &Request) -> RequestMode {
    match request {
        Request::Create(_) => RequestMode::Create,
        Request::Append(_) => RequestMode::Append,
        Request::Read(read) => match read.live {
            LiveMode::CatchUp => RequestMode::CatchUp,
            LiveMode::LongPoll => RequestMode::LongPoll,
            LiveMode::Sse => RequestMode::Sse,
        },
        Request::Head => RequestMode::Head,
        Request::Delete => RequestMode::Delete,
        Request::Patch(_) => RequestMode::Patch,
        Request::Preflight => RequestMode::Preflight,
    }
}
