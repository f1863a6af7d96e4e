//! Prefixes of URL paths.

/// Whether `path` is `prefix` or lies below it, on a segment boundary. A trailing slash of the prefix means nothing.
pub fn is_under(path: &str, prefix: &str) -> bool {
    match path.strip_prefix(prefix.trim_end_matches('/')) {
        Some(rest) => rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_under;

    #[test]
    fn a_prefix_ends_on_a_segment_boundary() {
        assert!(is_under("/v1/stream", "/v1/stream"));
        assert!(is_under("/v1/stream/a", "/v1/stream/"));
        assert!(is_under("/anything", "/"));
        assert!(!is_under("/v1/streamx", "/v1/stream"));
        assert!(!is_under("/v1", "/v1/stream"));
    }
}
