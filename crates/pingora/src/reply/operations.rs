//! What access control asks a principal for: the operations of a request, and what it takes of rates and quotas.

use durable_streams_auth::{Operation, OperationSet, RequestSize};
use durable_streams_protocol::{LiveMode, Request};

/// What a request does; nothing for a preflight.
pub(super) fn operations(request: &Request, without_body: bool) -> OperationSet {
    let close = OperationSet::of(Operation::Close);
    let append = OperationSet::of(Operation::Append);
    match request {
        Request::Create(create) => {
            let publish = create.public.then_some(Operation::Publish);
            publish.into_iter().chain([Operation::Create]).collect()
        }
        Request::Append(request) => match (request.close, without_body) {
            (false, _) => append,
            (true, true) => close,
            (true, false) => close.union(append),
        },
        Request::Read(_) | Request::Head => OperationSet::of(Operation::Read),
        // Bytes that are there go, now or later.
        Request::Delete | Request::Patch(_) => OperationSet::of(Operation::Delete),
        Request::Preflight => OperationSet::NONE,
    }
}

/// What a request takes of rates and quotas; a body of unknown length is taken when it is there.
pub(super) fn size(request: &Request, declared: Option<usize>) -> RequestSize {
    match request {
        Request::Read(read) if read.live == LiveMode::CatchUp => RequestSize::Read,
        Request::Read(_) => RequestSize::LiveRead,
        _ => RequestSize::Body(declared.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_stream_is_created_and_published() {
        let put = |public| {
            Request::Create(durable_streams_protocol::Create { public, ..Default::default() })
        };
        assert_eq!(operations(&put(false), true).to_string(), "create");
        assert_eq!(operations(&put(true), true).to_string(), "create,publish");
    }

    #[test]
    fn a_patch_may_remove_what_is_there() {
        let patch = Request::Patch(durable_streams_protocol::StreamPatch::default());
        assert_eq!(operations(&patch, true).to_string(), "delete");
    }

    #[test]
    fn a_close_without_a_body_appends_nothing() {
        let post = |close| {
            Request::Append(durable_streams_protocol::Append { close, ..Default::default() })
        };
        let words = |request: &Request, empty| operations(request, empty).to_string();
        assert_eq!(words(&post(false), true), "append");
        assert_eq!(words(&post(true), true), "close");
        assert_eq!(words(&post(true), false), "append,close");
    }
}
