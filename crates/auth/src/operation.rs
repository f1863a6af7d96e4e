//! What a request does, in the words that grants use.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// One kind of access. PROTOCOL.md sections name the requests that need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Operation {
    /// `PUT` (§5.1). A fork needs [`Operation::Read`] on its source too (§4.2).
    Create,
    /// `PUT` with `public=true`, beside [`Operation::Create`]: the stream is readable without credentials.
    Publish,
    /// `POST` with a body (§5.2).
    Append,
    /// `POST` with `Stream-Closed: true` (§5.3).
    Close,
    /// `GET` and `HEAD`, both live modes included (§5.5 to §5.8).
    Read,
    /// `DELETE` (§5.4).
    Delete,
    /// Creating, reading, changing and deleting subscriptions (§6), and claiming their wakes (§7.2).
    Subscribe,
    /// Keys, projects, tokens and usage: the administration API.
    Administer,
}

impl Operation {
    /// All of them, in the order of the table in `docs/access.md`.
    pub const ALL: [Operation; 8] = [
        Operation::Create,
        Operation::Publish,
        Operation::Append,
        Operation::Close,
        Operation::Read,
        Operation::Delete,
        Operation::Subscribe,
        Operation::Administer,
    ];

    /// The word for it in configuration, credentials and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Operation::Create => "create",
            Operation::Publish => "publish",
            Operation::Append => "append",
            Operation::Close => "close",
            Operation::Read => "read",
            Operation::Delete => "delete",
            Operation::Subscribe => "subscribe",
            Operation::Administer => "administer",
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of operations.
///
/// Its text form is a list of their names. Two words stand for several: `write` is create, append, close
/// and delete; `all` is everything but administer.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct OperationSet(u8);

impl OperationSet {
    /// No operation.
    pub const NONE: OperationSet = OperationSet(0);
    /// Create, append, close and delete.
    pub const WRITE: OperationSet = OperationSet(
        Operation::Create.bit()
            | Operation::Append.bit()
            | Operation::Close.bit()
            | Operation::Delete.bit(),
    );
    /// Everything but administer.
    pub const ALL: OperationSet = OperationSet(
        Self::WRITE.0
            | Operation::Publish.bit()
            | Operation::Read.bit()
            | Operation::Subscribe.bit(),
    );

    /// The set of one operation.
    pub const fn of(operation: Operation) -> Self {
        OperationSet(operation.bit())
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: OperationSet) -> Self {
        OperationSet(self.0 | other.0)
    }

    /// Whether the set has this operation.
    pub const fn contains(self, operation: Operation) -> bool {
        self.0 & operation.bit() != 0
    }

    /// Whether the set has no operation.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The operations, in the order of [`Operation::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Operation> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            // A set has no other bits than those of `Operation::ALL`, which are in its order.
            let first = Operation::ALL.get(left.trailing_zeros() as usize).copied()?;
            left &= left - 1;
            Some(first)
        })
    }

    /// The operations that one word of the text form stands for; `None` for any other word.
    pub fn from_word(word: &str) -> Option<Self> {
        match word {
            "write" => Some(Self::WRITE),
            "all" => Some(Self::ALL),
            _ => Operation::ALL.into_iter().find(|one| one.name() == word).map(Self::of),
        }
    }
}

impl FromIterator<Operation> for OperationSet {
    fn from_iter<I: IntoIterator<Item = Operation>>(operations: I) -> Self {
        operations.into_iter().fold(Self::NONE, |set, one| set.union(Self::of(one)))
    }
}

impl fmt::Debug for OperationSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl fmt::Display for OperationSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, operation) in self.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{operation}")?;
        }
        Ok(())
    }
}

impl Serialize for OperationSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter().map(Operation::name))
    }
}

impl<'de> Deserialize<'de> for OperationSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = Vec::<String>::deserialize(deserializer)?;
        words.iter().try_fold(OperationSet::NONE, |set, word| {
            let one = OperationSet::from_word(word).ok_or_else(|| {
                D::Error::custom(format!(
                    "{word:?} is no operation; use create, publish, append, close, read, delete, subscribe, \
                     administer, write or all"
                ))
            })?;
            Ok(set.union(one))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_word_and_a_place_in_the_set() {
        for operation in Operation::ALL {
            assert_eq!(
                OperationSet::from_word(operation.name()),
                Some(OperationSet::of(operation))
            );
        }
        let every: OperationSet = Operation::ALL.into_iter().collect();
        assert_eq!(every.iter().count(), 8);
        assert!(!OperationSet::ALL.contains(Operation::Administer), "administration is named");
        assert!(!OperationSet::WRITE.contains(Operation::Read), "writing does not include reading");
        assert!(!OperationSet::WRITE.contains(Operation::Publish), "nor showing to everyone");
        assert_eq!(OperationSet::from_word("Read"), None);
        assert_eq!(OperationSet::from_word(""), None);
    }

    #[test]
    fn the_text_form_round_trips() {
        let set: OperationSet = serde_json::from_str(r#"["read","write"]"#).unwrap();
        let text = serde_json::to_string(&set).unwrap();
        assert_eq!(text, r#"["create","append","close","read","delete"]"#);
        assert_eq!(serde_json::from_str::<OperationSet>(&text).unwrap(), set);
        assert!(serde_json::from_str::<OperationSet>(r#"["reed"]"#).is_err());
    }
}
