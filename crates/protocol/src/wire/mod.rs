//! What travels over HTTP: requests, responses, refusals, and the texts within them.

pub(crate) mod cache;
pub(crate) mod content_type;
pub(crate) mod cursor;
pub mod headers;
pub(crate) mod json;
pub(crate) mod offset;
pub(crate) mod path;
pub(crate) mod rejection;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod sse;
pub(crate) mod tenant;
