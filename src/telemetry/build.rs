//! What was built, from what, for what.

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from; `unknown` outside a checkout.
pub const COMMIT: &str = env!("BUILD_COMMIT");

/// The target triple.
pub const TARGET: &str = env!("BUILD_TARGET");

/// The format of data directories that this version writes; `store::file::layout` is tested against it.
pub const STORE_FORMAT: &str = "2";

/// What `--version` prints behind the name.
pub const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (commit ",
    env!("BUILD_COMMIT"),
    ", ",
    env!("BUILD_TARGET"),
    ", store format 2)"
);

#[cfg(test)]
mod tests {
    use durable_streams_engine::store::file::FORMAT;

    #[test]
    fn the_version_that_is_printed_is_the_one_written() {
        assert_eq!(super::STORE_FORMAT, FORMAT.to_string());
        assert!(super::LONG.ends_with(&format!("store format {FORMAT})")), "{}", super::LONG);
    }
}
