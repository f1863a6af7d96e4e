//! Where a segment is, as its record in the index says.

/// Where a segment is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SegmentPlace {
    /// On the local disk.
    #[default]
    Local,
    /// On the local disk and in the object store.
    Both,
    /// In the object store.
    Object,
}

impl SegmentPlace {
    const ALL: [Self; 3] = [Self::Local, Self::Both, Self::Object];

    /// Whether there is a local file.
    pub fn is_local(self) -> bool {
        self != Self::Object
    }

    pub(super) fn encode(self) -> u8 {
        self as u8 + 1
    }

    pub(super) fn decode(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|place| place.encode() == byte)
    }
}
