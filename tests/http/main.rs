//! The protocol over a real port: one file per behaviour, each test on every store and over every transport.

#![allow(clippy::duplicate_mod, reason = "the examples of providers share a file")]
#![expect(unreachable_pub, reason = "a test binary exports nothing")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a failed helper fails its test")]

#[path = "../support/mod.rs"]
mod support;

#[macro_use]
mod world;

mod access;
mod access_examples;
mod append;
mod caddy_compat;
mod catch_up;
mod close;
mod cold;
mod compression;
mod conditional;
mod cors;
mod create;
mod crowds;
mod delete;
mod errors;
mod expiry;
mod fork;
mod head;
mod hostile_clients;
mod incarnations;
mod json_mode;
mod known_credentials;
mod lifecycle;
mod limits;
mod long_poll;
mod paths;
mod producers;
mod public_streams;
mod quotas;
mod shutdown;
mod sse;
mod subscription_access;
mod trim;
mod whole_appends;
mod whole_reads;
