//! Streams of a server, this one or another, from the command line: `create`, `append`, `read`, `follow`, `head`,
//! `close`, `delete`, `trim`, `expire`, `list` and `copy`, on `durable-streams-client`.
//!
//! Standard output carries data alone; what people are told goes to standard error, progress only to a terminal.

mod append;
mod arguments;
mod copy;
mod copy_map;
mod error;
mod files;
mod list;
mod manage;
mod output;
mod progress;
mod read;

pub(super) use append::AppendCommand;
pub(super) use copy::CopyCommand;
pub(super) use list::ListCommand;
pub(super) use manage::{
    CloseCommand, CreateCommand, DeleteCommand, ExpireCommand, HeadCommand, TrimCommand,
};
pub(super) use read::{FollowCommand, ReadCommand};

pub use error::StreamCommandError;
