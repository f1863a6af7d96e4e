//! From text to typed values, and back: one tree for file, environment and flags, and one decoder for the tree.
//!
//! | file | what it is |
//! |---|---|
//! | `yaml` | YAML text to a tree and back |
//! | `caddyfile` | what to write for a Caddyfile's directives |
//! | `node` | the tree, each value with its place |
//! | `mask` | what is shown of values that may hold secrets |
//! | `load` | file, environment and flags into one tree |
//! | `setting` | how a type reads its value; `settings!` and `choice!` declare types |
//! | `scalar` | the same for types of the standard library |
//! | `error` | what is wrong, with its place and its fix |

mod caddyfile;
pub(super) mod error;
pub(super) mod load;
pub(super) mod mask;
pub(super) mod node;
mod scalar;
pub(super) mod setting;
pub(super) mod yaml;
