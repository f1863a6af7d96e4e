//! Cuts a JSON array that arrives in pieces into its elements.

use bytes::Bytes;

/// Cuts one array. Holds one unfinished element, of at most `limit` bytes.
#[derive(Debug)]
pub(crate) struct ArraySplitter {
    place: ArrayPlace,
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// The beginning of an element whose end has not arrived.
    partial: Vec<u8>,
    limit: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ArrayPlace {
    Before,
    /// After `[` or `,`.
    Element,
    After,
}

/// Why an array cannot be read on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SplitError {
    NotAnArray,
    TooLarge,
}

impl ArraySplitter {
    pub(crate) fn new(limit: usize) -> Self {
        ArraySplitter {
            place: ArrayPlace::Before,
            depth: 0,
            in_string: false,
            escaped: false,
            partial: Vec::new(),
            limit,
        }
    }

    /// The whole array has arrived.
    pub(crate) fn is_done(&self) -> bool {
        self.place == ArrayPlace::After
    }

    /// Takes a piece, and adds the elements that end in it to `elements`.
    pub(crate) fn push(
        &mut self,
        piece: &Bytes,
        elements: &mut Vec<Bytes>,
    ) -> Result<(), SplitError> {
        let mut start = 0;
        let mut at = 0;
        while let Some(&byte) = piece.get(at) {
            at += 1;
            match self.place {
                ArrayPlace::Before if byte == b'[' => {
                    self.place = ArrayPlace::Element;
                    start = at;
                }
                ArrayPlace::Before | ArrayPlace::After if byte.is_ascii_whitespace() => {}
                ArrayPlace::Before | ArrayPlace::After => return Err(SplitError::NotAnArray),
                ArrayPlace::Element => {
                    if self.ends_element(byte) {
                        let text = piece.slice(start..at - 1);
                        start = at;
                        self.finish(text, byte == b']', elements)?;
                    }
                }
            }
        }
        if self.place == ArrayPlace::Element {
            self.hold(piece.get(start..).unwrap_or_default())?;
        }
        Ok(())
    }

    /// Takes a byte of an element; `true` for the `,` or `]` after it.
    fn ends_element(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b',' | b']' if self.depth == 0 => return true,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }

    fn hold(&mut self, text: &[u8]) -> Result<(), SplitError> {
        if self.partial.len() + text.len() > self.limit {
            return Err(SplitError::TooLarge);
        }
        self.partial.extend_from_slice(text);
        Ok(())
    }

    fn finish(
        &mut self,
        text: Bytes,
        last: bool,
        elements: &mut Vec<Bytes>,
    ) -> Result<(), SplitError> {
        let element = if self.partial.is_empty() {
            if text.len() > self.limit {
                return Err(SplitError::TooLarge);
            }
            text.slice_ref(text.trim_ascii())
        } else {
            self.hold(&text)?;
            let whole = Bytes::from(std::mem::take(&mut self.partial));
            whole.slice_ref(whole.trim_ascii())
        };
        if last {
            self.place = ArrayPlace::After;
        }
        // Only `[]` has no text between its brackets; a server that writes `[1,]` sends the reader nothing here, and
        // nothing is lost.
        if !element.is_empty() {
            elements.push(element);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(body: &[u8], piece: usize) -> Result<(Vec<Bytes>, bool), SplitError> {
        let mut splitter = ArraySplitter::new(1 << 16);
        let mut elements = Vec::new();
        for piece in body.chunks(piece) {
            splitter.push(&Bytes::copy_from_slice(piece), &mut elements)?;
        }
        Ok((elements, splitter.is_done()))
    }

    #[test]
    fn elements_keep_their_bytes() {
        let body = br#" [ {"a" : "],[\"\\"} ,[1,[2]], "x" , 3]  "#;
        for piece in 1..body.len() {
            let (elements, done) = split(body, piece).unwrap();
            assert_eq!(elements, [&br#"{"a" : "],[\"\\"}"#[..], b"[1,[2]]", b"\"x\"", b"3"]);
            assert!(done);
        }
        assert_eq!(split(b"[]", 1).unwrap(), (vec![], true));
        assert_eq!(
            split(b"[1,2", 9).unwrap(),
            (vec![Bytes::from_static(b"1")], false),
            "it is cut"
        );
        assert_eq!(split(b"{}", 9), Err(SplitError::NotAnArray));
        assert_eq!(split(b"[1]x", 9), Err(SplitError::NotAnArray));
    }

    #[test]
    fn an_element_is_bounded() {
        for piece in [1 << 10, 1 << 20] {
            let body = [b"[".to_vec(), vec![b'1'; 1 << 17], b"]".to_vec()].concat();
            assert_eq!(split(&body, piece), Err(SplitError::TooLarge));
        }
    }

    proptest! {
        #[test]
        fn any_array_is_cut_as_serde_reads_it(
            values in proptest::collection::vec(
                prop_oneof!["[ -~é]{0,9}".prop_map(serde_json::Value::from), any::<i32>().prop_map(Into::into),
                    proptest::collection::vec("[\\[\\]\",\\\\]{0,5}", 0..3).prop_map(Into::into)], 0..9),
            piece in 1..40usize,
        ) {
            let body = serde_json::to_vec(&values).unwrap();
            let (elements, done) = split(&body, piece).unwrap();
            let read: Vec<serde_json::Value> =
                elements.iter().map(|element| serde_json::from_slice(element).unwrap()).collect();
            prop_assert!(done);
            prop_assert_eq!(read, values);
        }
    }
}
