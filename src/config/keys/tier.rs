//! Object storage: where segments go when they leave the disk, and how they are read from there.

use crate::config::net::base_url;
use crate::config::reader::error::ConfigProblems;
use crate::config::reader::setting::{InvalidValue, ScalarSetting, settings};
use crate::config::units::{ByteSize, HumanDuration};
use crate::tier::{TierLocation, TierOptions};

/// The address of an object store's service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TierEndpoint(String);

settings! {
    /// An object store for segments. Credentials are no keys: they come from the environment or from files.
    pub struct TierConfig {
        /// The bucket or directory, and a prefix that no other server uses.
        url: Option<TierLocation> = None;
        /// Where the service is, if it is not the vendor's own.
        endpoint: Option<TierEndpoint> = None;
        /// The region of an S3 bucket. Without it, `AWS_REGION` or us-east-1.
        region: Option<String> = None;
        /// Whether requests may go without TLS.
        allow_http: bool = false;
        /// Age of a segment before it is uploaded.
        after: HumanDuration = HumanDuration::secs(0)
            => HumanDuration::secs(0), HumanDuration::secs(366 * 24 * 3600);
        /// The pause between two looks for segments to move.
        interval: HumanDuration = TierOptions::INTERVAL.into()
            => HumanDuration::millis(10), HumanDuration::secs(24 * 3600);
        /// Most bytes of local segments; beyond, those that are objects lose their local files. Unlimited when not set.
        local: Option<ByteSize> = None;
        /// Pause between two copies of the index, from which a lost data directory is built again; 0s for no copies.
        index_interval: HumanDuration = TierOptions::INDEX_INTERVAL.into()
            => HumanDuration::secs(0), HumanDuration::secs(7 * 24 * 3600);
        /// Longest time that a read waits for the object store.
        read_timeout: HumanDuration = TierOptions::READ_TIMEOUT.into()
            => HumanDuration::millis(100), HumanDuration::secs(600);
        /// Requests under way at once, besides uploads.
        concurrency: usize = TierOptions::CONCURRENCY => 1, 1024;
        /// Segments that are uploaded at once; each is in memory as long.
        uploads: usize = TierOptions::UPLOADS => 1, 16;
        /// Most memory for blocks that were read.
        cache: ByteSize = TierOptions::CACHE.into() => ByteSize::bytes(0), ByteSize::tib(1);
        /// Bytes that are read and cached together.
        cache_block: ByteSize = TierOptions::CACHE_BLOCK.into() => ByteSize::kib(64), ByteSize::mib(1);
    }
}

impl TierEndpoint {
    /// The URL as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ScalarSetting for TierEndpoint {
    const WHAT: &'static str = "a URL such as https://s3.example.com";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        let url = base_url(text).map_err(|fix| InvalidValue::not_a(Self::WHAT).fix(fix))?;
        if url.query().is_some() {
            return Err(InvalidValue::new("has a query", "remove it"));
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

impl ScalarSetting for TierLocation {
    const WHAT: &'static str = "a place such as s3://bucket/prefix or file:///directory";

    fn parse(text: &str) -> Result<Self, InvalidValue> {
        text.parse()
            .map_err(|error: crate::tier::InvalidLocation| InvalidValue::new(error.what, error.fix))
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

/// Contradictions within the section, and with the rest.
pub(crate) fn check(
    tier: Option<&TierConfig>,
    has_data_dir: bool,
    max_disk: Option<ByteSize>,
    problems: &mut ConfigProblems<'_>,
) {
    let Some(tier) = tier else { return };
    if !has_data_dir {
        let rule = "has no effect without data_dir: streams are kept in memory".to_owned();
        problems.broken(&[("tier", "")], rule, "set data_dir, or remove it");
    }
    if let (Some(most), None) = (max_disk, tier.local) {
        let rule = "seals no streams without tier.local, so that none would go to the object store";
        let fix = "set tier.local, which then bounds local segments besides it, or remove it";
        problems.broken(&[("storage.max_disk", &most.text())], rule.to_owned(), fix);
    }
    let Some(url) = &tier.url else {
        let fix = "write where segments go, such as s3://bucket/prefix";
        problems.broken(&[("tier.url", "")], "is missing".to_owned(), fix);
        return;
    };
    let url = (url.text(), url.is_remote());
    if let Some(endpoint) = &tier.endpoint {
        let values = [("tier.endpoint", endpoint.as_str()), ("tier.url", &*url.0)];
        if !url.1 {
            problems.broken(&values, "has no effect on a directory".to_owned(), "remove it");
        } else if endpoint.as_str().starts_with("http:") && !tier.allow_http {
            let rule = "is without TLS".to_owned();
            problems.broken(&values[..1], rule, "use https, or set tier.allow_http: true");
        }
    }
    let block = tier.cache_block;
    if !block.get().is_multiple_of(64 << 10) {
        let rule = "is no multiple of 64KiB, of which segments have checksums".to_owned();
        problems.broken(&[("tier.cache_block", &*block.text())], rule, "use 64KiB, 256KiB or 1MiB");
    }
}
