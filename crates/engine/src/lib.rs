//! Durable Streams at run time: one cell per active stream, on a store in memory or in files.
//!
//! | module | what it is |
//! |---|---|
//! | `engine` | streams at run time: one cell per active stream; re-exported here |
//! | [`store`] | durability: bytes in order, and back |
//! | [`counters`] | counters cheap enough for every request |

pub mod counters;
mod engine;
pub mod store;

pub use engine::*;
