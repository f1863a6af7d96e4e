//! The command line, driven as the real binary.

#![expect(clippy::expect_used, reason = "a scene that cannot be set up ends the test")]

mod check;
mod describe;
mod examples;
mod healthcheck;
mod help;
mod hostile;
mod support;
