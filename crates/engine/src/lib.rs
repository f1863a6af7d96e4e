#![doc = include_str!("../README.md")]

pub mod counters;
mod engine;
pub mod store;

pub use engine::*;
