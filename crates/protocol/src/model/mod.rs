//! What a server keeps of a stream: its state, the events that change it, their stored form, and the steps
//! of a live read.

pub(crate) mod codec;
pub(crate) mod event;
pub(crate) mod expiry;
pub(crate) mod lifecycle;
pub(crate) mod live_read;
pub(crate) mod producer;
mod rfc3339;
pub(crate) mod stream;
