//! Whether a body is JSON (RFC 8259) and where its messages are, [`BLOCK`] bytes at a time.
//!
//! Invariants
//! - What is taken is JSON to the last byte: `serde_json` would take it and find the same messages. The tests compare
//!   the two in both directions. What is refused is judged by `serde_json`, which also knows why.
//! - No value is built, so numbers may be of any size, names may repeat, and escapes may name lone surrogates.
//! - Nesting costs one bit a level and no stack.
//!
//! No library does it: `sonic-rs` 0.5 passes over `"\uZZZZ"` and recurses, `simd-json` 0.19 writes into its input and
//! reads numbers, `jiter` 0.18 nests 255 levels at most.

use wide::u8x16;

/// Bytes looked at together.
const BLOCK: usize = 16;

/// Calls `each` with the bytes of every message: the elements of an array, or the one value that is something else.
/// Nothing if the body is not JSON; `each` may have been called then.
pub(crate) fn messages<'a>(body: &'a [u8], mut each: impl FnMut(&'a [u8])) -> Option<()> {
    // Bytes beyond ASCII can only stand in strings, and there all that is UTF-8 is allowed.
    simdutf8::basic::from_utf8(body).ok()?;
    let mut scan = JsonScan { body, at: 0, open: JsonNesting::default() };
    let mut first = scan.token()?;
    if first != b'[' {
        each(scan.message(first)?);
        return scan.end();
    }
    first = scan.token()?;
    if first == b']' {
        return scan.end();
    }
    loop {
        each(scan.message(first)?);
        match scan.token()? {
            b',' => first = scan.token()?,
            b']' => return scan.end(),
            _ => return None,
        }
    }
}

/// A place in a body. Each step goes past what it is named after, or finds that it is not there.
///
/// What every value needs is `inline(always)`: left to the compiler, bodies of short values took a quarter longer.
struct JsonScan<'a> {
    body: &'a [u8],
    at: usize,
    open: JsonNesting,
}

impl<'a> JsonScan<'a> {
    #[inline]
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.body.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// The next byte that is not white space.
    #[inline(always)]
    fn token(&mut self) -> Option<u8> {
        loop {
            let byte = self.byte()?;
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
        }
    }

    /// Whether the next byte is one of these; it is passed if so.
    #[inline]
    fn eat<const N: usize>(&mut self, any: [u8; N]) -> bool {
        let found = self.body.get(self.at).is_some_and(|byte| any.contains(byte));
        self.at += usize::from(found);
        found
    }

    fn end(&mut self) -> Option<()> {
        self.token().is_none().then_some(())
    }

    #[inline(always)]
    fn message(&mut self, first: u8) -> Option<&'a [u8]> {
        let start = self.at - 1;
        self.value(first)?;
        self.body.get(start..self.at)
    }

    /// A value whose first byte was read, and all within it.
    fn value(&mut self, mut first: u8) -> Option<()> {
        'value: loop {
            match first {
                b'"' => self.string()?,
                b'{' => match self.token()? {
                    b'}' => {}
                    quote => {
                        self.open.push(JsonContainer::Object);
                        first = self.member(quote)?;
                        continue;
                    }
                },
                b'[' => match self.token()? {
                    b']' => {}
                    inner => {
                        self.open.push(JsonContainer::Array);
                        first = inner;
                        continue;
                    }
                },
                b't' => self.literal(b"rue")?,
                b'f' => self.literal(b"alse")?,
                b'n' => self.literal(b"ull")?,
                _ => self.number(first)?,
            }
            // A value has ended: another follows in its container, or that ends, too.
            while let Some(container) = self.open.last() {
                match (self.token()?, container) {
                    (b',', JsonContainer::Array) => {
                        first = self.token()?;
                        continue 'value;
                    }
                    (b',', JsonContainer::Object) => {
                        let quote = self.token()?;
                        first = self.member(quote)?;
                        continue 'value;
                    }
                    (b']', JsonContainer::Array) | (b'}', JsonContainer::Object) => self.open.pop(),
                    _ => return None,
                }
            }
            return Some(());
        }
    }

    /// A name and its colon; returns the first byte of the value.
    #[inline(always)]
    fn member(&mut self, quote: u8) -> Option<u8> {
        if quote != b'"' {
            return None;
        }
        self.string()?;
        if self.token()? == b':' { self.token() } else { None }
    }

    #[inline]
    fn literal<const N: usize>(&mut self, rest: &[u8; N]) -> Option<()> {
        let found = self.body.get(self.at..)?.first_chunk()?;
        self.at += N;
        (found == rest).then_some(())
    }

    #[inline]
    fn number(&mut self, mut first: u8) -> Option<()> {
        if first == b'-' {
            first = self.byte()?;
        }
        match first {
            b'0' => {}
            b'1'..=b'9' => self.digits()?,
            _ => return None,
        }
        if self.eat([b'.']) {
            self.digit()?;
        }
        if self.eat([b'e', b'E']) {
            self.eat([b'+', b'-']);
            self.digit()?;
        }
        Some(())
    }

    /// One digit or more.
    #[inline]
    fn digit(&mut self) -> Option<()> {
        if self.byte()?.is_ascii_digit() { self.digits() } else { None }
    }

    /// Any number of digits.
    #[inline(always)]
    fn digits(&mut self) -> Option<()> {
        self.until(|block| (block - u8x16::splat(b'0')).simd_gt(u8x16::splat(9)))
    }

    /// The rest of a string whose quotation mark was read.
    #[inline(always)]
    fn string(&mut self) -> Option<()> {
        loop {
            self.until(|block| {
                let control = block.min(u8x16::splat(0x1f)).simd_eq(block);
                let mark = |byte| block.simd_eq(u8x16::splat(byte));
                control | mark(b'"') | mark(b'\\')
            })?;
            match self.byte()? {
                b'"' => return Some(()),
                b'\\' => self.escapes()?,
                _ => return None,
            }
        }
    }

    /// The escape whose backslash was read, and those that follow at once.
    fn escapes(&mut self) -> Option<()> {
        loop {
            match self.byte()? {
                b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                b'u' => {
                    let hex: &[u8; 4] = self.body.get(self.at..)?.first_chunk()?;
                    if !hex.iter().fold(true, |all, byte| all & byte.is_ascii_hexdigit()) {
                        return None;
                    }
                    self.at += 4;
                }
                _ => return None,
            }
            if !self.eat([b'\\']) {
                return Some(());
            }
        }
    }

    /// The bytes before the first that `ends` marks. It must mark zeros: they stand for what is after the body.
    #[inline(always)]
    fn until(&mut self, ends: impl Fn(u8x16) -> u8x16) -> Option<()> {
        let ends = |block| ends(u8x16::new(block)).to_bitmask();
        let (blocks, tail) = self.body.get(self.at..)?.as_chunks();
        for block in blocks {
            let ends = ends(*block);
            if ends != 0 {
                self.at += ends.trailing_zeros() as usize;
                return Some(());
            }
            self.at += BLOCK;
        }
        let mut block = [0; BLOCK];
        block.get_mut(..tail.len())?.copy_from_slice(tail);
        self.at += ends(block).trailing_zeros() as usize;
        Some(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum JsonContainer {
    Array,
    Object,
}

/// The open containers, one bit each, the innermost last.
struct JsonNesting {
    /// At most 63, below a bit that is always set.
    inner: u64,
    /// Full words.
    outer: Vec<u64>,
}

impl Default for JsonNesting {
    fn default() -> Self {
        Self { inner: 1, outer: Vec::new() }
    }
}

impl JsonNesting {
    #[inline]
    fn push(&mut self, container: JsonContainer) {
        if self.inner.leading_zeros() == 0 {
            self.outer.push(self.inner);
            self.inner = 1;
        }
        self.inner = self.inner * 2 + u64::from(container == JsonContainer::Object);
    }

    #[inline]
    fn pop(&mut self) {
        self.inner >>= 1;
        if self.inner == 1 {
            self.inner = self.outer.pop().unwrap_or(1);
        }
    }

    #[inline]
    fn last(&self) -> Option<JsonContainer> {
        match self.inner {
            1 => None,
            word if word & 1 == 1 => Some(JsonContainer::Object),
            _ => Some(JsonContainer::Array),
        }
    }
}

#[cfg(test)]
mod tests;
