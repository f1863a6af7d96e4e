//! What a copy of the index is called, and what it says of itself.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use ring::digest;
use serde::{Deserialize, Serialize};

use crate::tier::TierOptions;

/// Folder of the copies.
pub(in crate::tier) const FOLDER: &str = "index/";
/// Bytes of a part, but for the last one: one is in memory at a time.
pub(super) const PART: u64 = TierOptions::INDEX_PART;

const VERSION: u32 = 1;
const MANIFEST: &str = ".json";

/// The name of a copy: the claim of the server that made it, and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CopyName {
    pub(super) epoch: u64,
    pub(super) number: u64,
}

impl CopyName {
    /// The object without which the others do not count.
    pub(super) fn manifest(self) -> String {
        format!("{FOLDER}{self}{MANIFEST}")
    }

    /// What the names of its parts begin with.
    pub(super) fn parts(self) -> String {
        format!("{FOLDER}{self}/")
    }

    pub(super) fn part(self, part: u64) -> String {
        format!("{FOLDER}{self}/{part:010}.mdb")
    }

    /// The copy that an object belongs to, and whether the object is its manifest.
    pub(super) fn of_object(name: &str) -> Option<(Self, bool)> {
        let name = name.strip_prefix(FOLDER)?;
        match name.strip_suffix(MANIFEST) {
            Some(copy) => Some((copy.parse().ok()?, true)),
            None => Some((name.split_once('/')?.0.parse().ok()?, false)),
        }
    }
}

impl fmt::Display for CopyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}-{:020}", self.epoch, self.number)
    }
}

/// Not the name of a copy.
#[derive(Debug, thiserror::Error)]
#[error("no copy is called that; a name is two numbers of twenty digits with a '-' between them")]
pub struct InvalidCopyName;

impl FromStr for CopyName {
    type Err = InvalidCopyName;

    fn from_str(text: &str) -> Result<Self, InvalidCopyName> {
        let (epoch, number) = text.split_once('-').ok_or(InvalidCopyName)?;
        let parse = |digits: &str| digits.parse::<u64>().map_err(|_| InvalidCopyName);
        let name = CopyName { epoch: parse(epoch)?, number: parse(number)? };
        if name.to_string() == text { Ok(name) } else { Err(InvalidCopyName) }
    }
}

/// What a copy says of itself. It is written last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexManifest {
    version: u32,
    /// Under which the segments are.
    pub identity: String,
    pub(super) epoch: u64,
    pub(super) number: u64,
    /// When the copy began, milliseconds since 1970, by the server's clock.
    pub made_at: u64,
    /// The version of the server that made it.
    pub server: String,
    /// The format of its data directory.
    pub format: u64,
    /// An event that it has, with all before. It may have some later ones.
    pub event: u64,
    /// Its bytes.
    pub bytes: u64,
    pub(super) part_bytes: u64,
    /// SHA-256 of all its bytes, in hexadecimal digits.
    pub(super) sha256: String,
    /// Segments that it references, and their bytes.
    pub segments: u64,
    /// Bytes of those segments.
    pub segment_bytes: u64,
    /// How many of them have no objects, as their local files were damaged.
    pub damaged: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checksum: Option<String>,
}

impl IndexManifest {
    /// Of a copy whose parts have [`PART`] bytes.
    pub(super) fn new(name: CopyName, identity: String, made_at: u64) -> Self {
        IndexManifest {
            version: VERSION,
            identity,
            epoch: name.epoch,
            number: name.number,
            made_at,
            server: env!("CARGO_PKG_VERSION").to_owned(),
            format: 0,
            event: 0,
            bytes: 0,
            part_bytes: PART,
            sha256: String::new(),
            segments: 0,
            segment_bytes: 0,
            damaged: 0,
            checksum: None,
        }
    }

    /// The copy's name.
    pub fn name(&self) -> CopyName {
        CopyName { epoch: self.epoch, number: self.number }
    }

    /// The object's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let with = IndexManifest { checksum: Some(self.computed_checksum()), ..self.clone() };
        serde_json::to_vec_pretty(&with).unwrap_or_default()
    }

    /// `None` for bytes that are not those of this copy's manifest, or of one that this version does not know.
    pub(super) fn decode(name: CopyName, bytes: &[u8]) -> Option<Self> {
        let mut read: Self = serde_json::from_slice(bytes).ok()?;
        let checksum = read.checksum.take()?;
        let whole = read.version == VERSION
            && read.name() == name
            && read.part_bytes > 0
            && checksum == read.computed_checksum();
        whole.then_some(read)
    }

    /// Of the rest, as compact JSON in this order.
    fn computed_checksum(&self) -> String {
        let rest = IndexManifest { checksum: None, ..self.clone() };
        let rest = serde_json::to_vec(&rest).unwrap_or_default();
        BASE64URL.encode(&digest::digest(&digest::SHA256, &rest).as_ref()[..12])
    }
}

/// Hexadecimal digits.
pub(super) fn hex(digest: &digest::Digest) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: CopyName = CopyName { epoch: 3, number: 12 };

    #[test]
    fn objects_name_their_copy() {
        for (object, manifest) in
            [(NAME.manifest(), true), (NAME.part(0), false), (NAME.part(u64::MAX), false)]
        {
            assert_eq!(CopyName::of_object(&object), Some((NAME, manifest)), "{object}");
        }
        assert!(NAME.part(7).starts_with(&NAME.parts()));
        assert!(NAME < CopyName { epoch: 4, number: 1 });
        for other in [
            "index/3-12.json",
            "index/",
            "claim/00000000000000000001",
            "index/x/0.mdb",
            "index/x.json",
        ] {
            assert_eq!(CopyName::of_object(other), None, "{other}");
        }
    }

    #[test]
    fn no_changed_byte_of_a_manifest_passes() {
        let mut manifest = IndexManifest::new(NAME, "a".repeat(32), 1_800_000_000_000);
        (manifest.bytes, manifest.event) = (12_345, 67);
        let whole = manifest.encode();
        assert_eq!(IndexManifest::decode(NAME, &whole), Some(manifest));
        assert_eq!(IndexManifest::decode(CopyName { epoch: 3, number: 13 }, &whole), None);
        for at in (0..whole.len()).filter(|at| whole[*at].is_ascii_alphanumeric()) {
            let mut changed = whole.clone();
            changed[at] = if changed[at] == b'1' { b'2' } else { b'1' };
            assert_eq!(IndexManifest::decode(NAME, &changed), None, "byte {at}");
        }
    }
}
