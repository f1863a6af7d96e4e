//! What several test binaries share: a server on a free port, a client that shows every byte, the
//! list of stores. Taken in with `#[path = "../support/mod.rs"] mod support;`.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part of this")]

pub mod client;
pub mod server;
#[macro_use]
pub mod stores;

pub use client::{Client, PATIENCE, Reply, eventually};
pub use server::TestServer;
pub use stores::{Opened, StoreKind};
