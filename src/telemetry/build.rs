//! What was built, from what, for what.

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from; `unknown` outside a checkout.
pub const COMMIT: &str = env!("BUILD_COMMIT");

/// The target triple.
pub const TARGET: &str = env!("BUILD_TARGET");

/// The format of data directories that this version writes; `store::file::layout` is tested against it.
pub const STORE_FORMAT: &str = "1";

/// What `--version` prints behind the name.
pub const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("BUILD_COMMIT"),
    ", ",
    env!("BUILD_TARGET"),
    ", store format 1)"
);
