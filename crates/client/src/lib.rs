#![doc = include_str!("../README.md")]

mod auth;
mod batch;
mod client;
mod connect;
mod create;
mod dedicated;
mod error;
mod events;
mod exchange;
mod fields;
mod follow_mode;
mod page;
mod position;
mod producer;
mod reader;
mod receipt;
mod refusal;
mod retry;
mod splitter;
mod stream;
mod subscription;
mod target;
mod telemetry;

pub use batch::StreamBatch;
pub use client::{Client, ClientBuilder, HttpVersion};
pub use create::CreateOptions;
pub use error::{ClientError, RefusedRequest};
pub use follow_mode::FollowMode;
pub use position::{InvalidPosition, StartFrom, StreamOffset, StreamPosition};
pub use producer::{Delivery, Producer, ProducerBuilder, ProducerError};
pub use reader::StreamReader;
pub use retry::RetryPolicy;
pub use stream::{AppendOptions, CreatedStream, Stream, StreamMetadata};
pub use subscription::{Subscription, SubscriptionBuilder};

pub use durable_streams_protocol::{ContentType, Expiry, Timestamp};
