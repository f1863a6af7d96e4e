//! What several test binaries share: a server on a free port, a client that shows every byte, the
//! lists of stores and of transports, upstreams. Taken in with `#[path = "../support/mod.rs"] mod support;`.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part of this")]

pub mod client;
pub mod embedded;
pub mod http2;
pub mod proxy;
pub mod served;
pub mod server;
#[path = "../../crates/engine/tests/support/stores.rs"]
pub mod stores;
pub mod transports;
pub mod upstreams;

pub use client::{Client, PATIENCE, Reply, eventually, position_of};
pub use proxy::{PROMPT, edge, engine, to, to_addrs};
pub use server::TestServer;
pub use stores::{Opened, StoreKind};
pub use transports::Transport;
