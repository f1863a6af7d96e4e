#![doc = include_str!("../README.md")]

pub mod counters;
mod engine;
pub mod store;
#[cfg(test)]
mod test_events;

pub use engine::*;
