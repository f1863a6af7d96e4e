//! JSON mode (§9.1): messages in, an array out.

pub(crate) mod mode;
mod scan;
