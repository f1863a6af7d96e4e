#[cfg(target_os = "linux")]
mod process;

use super::handler::{FixedText, mapped};

fn text(add: impl FnOnce(&mut FixedText)) -> String {
    let mut text = FixedText { bytes: [0; 2048], len: 0 };
    add(&mut text);
    String::from_utf8_lossy(text.text()).into_owned()
}

#[test]
fn times_are_those_of_the_log() {
    for (seconds, expected) in [
        (0, "1970-01-01T00:00:00Z"),
        (951_827_696, "2000-02-29T12:34:56Z"),
        (1_709_164_799, "2024-02-28T23:59:59Z"),
        (4_107_542_400, "2100-03-01T00:00:00Z"),
    ] {
        assert_eq!(text(|text| text.add_time(seconds)), expected);
    }
}

#[test]
fn paths_do_not_break_out_of_a_json_string() {
    let path = b"/data \"x\"/a\\012b\n\xff/data.mdb";
    let json = text(|text| {
        text.add(b"\"");
        text.add_escaped(path);
        text.add(b"\"");
    });
    let parsed: String = serde_json::from_str(&json).unwrap();
    assert_eq!(parsed, "/data \"x\"/a\\012b??/data.mdb");
}

#[test]
fn a_line_of_the_maps_tells_file_and_offset() {
    let line = b"7f00aa000000-7f00aa010000 r--s 00002000 fd:01 1234      /data dir/store/data.mdb";
    let path = b"/data dir/store/data.mdb".as_slice();
    assert_eq!(mapped(line, 0x7f00_aa00_1003), Some((0x3003, path)));
    assert_eq!(mapped(line, 0x7f00_aa01_0000), None);
    assert_eq!(mapped(line, 0x7f00_a9ff_ffff), None);
    let anonymous = b"1000-2000 rw-p 00000000 00:00 0 ";
    assert_eq!(mapped(anonymous, 0x1800), Some((0x800, b"".as_slice())));
    for len in 0..line.len() {
        let _ = mapped(&line[..len], 0x7f00_aa00_1003);
    }
}

#[test]
fn text_that_does_not_fit_is_cut() {
    let long = [b'x'; 3000];
    assert_eq!(text(|text| text.add(&long)), "x".repeat(2048));
    assert_eq!(text(|text| text.add_escaped(&[b'"'; 1500])), "\\\"".repeat(1024));
}
