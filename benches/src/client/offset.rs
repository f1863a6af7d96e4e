//! A `Stream-Next-Offset` value, kept inline: offsets are opaque text that sorts by position.

use std::fmt;

/// Longest offset the harness keeps, in bytes; every known server stays well below.
const MAX: usize = 47;

/// An offset as a server wrote it. The empty value sorts before every other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offset {
    len: u8,
    bytes: [u8; MAX],
}

impl Offset {
    /// No offset seen.
    pub(crate) const NONE: Self = Self { len: 0, bytes: [0; MAX] };

    /// `None` if the value is empty or longer than any plausible offset.
    pub(crate) fn new(value: &[u8]) -> Option<Self> {
        if value.is_empty() || value.len() > MAX {
            return None;
        }
        let mut bytes = [0; MAX];
        bytes[..value.len()].copy_from_slice(value);
        Some(Self { len: value.len() as u8, bytes })
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    pub(crate) fn is_none(&self) -> bool {
        self.len == 0
    }

    /// Whether `self` lies strictly after `earlier` in the byte order the protocol prescribes.
    pub(crate) fn is_after(&self, earlier: &Self) -> bool {
        self.as_bytes() > earlier.as_bytes()
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

impl fmt::Debug for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
