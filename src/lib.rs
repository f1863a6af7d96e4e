//! A Pingora reverse proxy that speaks the [Durable Streams] protocol.
//!
//! | module | what it is |
//! |---|---|
//! | [`edge`] | HTTP on Pingora: the stream routes and the reverse proxy |
//! | [`webhooks`] | the HTTP client that delivers the wakes of subscriptions |
//! | [`config`] | the YAML file, the environment and the flags, typed |
//! | [`admin`] | health, readiness and metrics, on a listener of their own |
//! | [`server`] | from configuration to a running server |
//! | [`cli`] | the commands |
//! | [`tier`] | segments on object storage |
//! | [`telemetry`] | logging and metrics |
//!
//! [Durable Streams]: https://github.com/durable-streams/durable-streams

pub mod admin;
pub mod cli;
pub mod config;
pub mod edge;
pub mod server;
pub mod telemetry;
pub mod tier;
pub mod tls;
pub mod webhooks;
