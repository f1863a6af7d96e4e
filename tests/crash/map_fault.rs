//! The index is mapped into memory. A part of it that cannot be read ends the process, with a message and a code of its
//! own.

use std::{
    fs::OpenOptions,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
};

use crate::server::{SMALL, Setup};

/// The log is one of JSON lines; others may follow while the process ends.
#[test]
fn a_part_of_the_index_that_cannot_be_read_is_named() {
    // All of it is in the index, which is larger than what is left of it.
    let log =
        ended_by_a_cut(&Setup::new(&SMALL.replace("{min: 8KiB", "{enabled: false, min: 8KiB")));
    let said = log.lines().rev().find(|line| line.contains(" cannot be read at byte "));
    let last: serde_json::Value = serde_json::from_str(said.expect("it is named")).unwrap();
    assert_eq!(last["level"], "ERROR", "{last}");
    assert!(last["message"].as_str().unwrap().contains(" cannot be read at byte "), "{last}");
    let time = last["timestamp"].as_str().unwrap();
    assert!(time.len() == 20 && time.starts_with("20") && time.ends_with('Z'), "{time}");
    let fields: Vec<_> = last.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["level", "message", "target", "timestamp"]);
}

/// Cuts the index of a running server. Returns its log.
fn ended_by_a_cut(setup: &Setup) -> String {
    let server = setup.start();
    let mut client = server.client();
    let kind = [("content-type", "application/octet-stream")];
    for path in ["first", "second"] {
        assert_eq!(client.must("PUT", path, &kind, b"").status, 201);
        for _ in 0..8 {
            assert_eq!(client.must("POST", path, &kind, &vec![b'x'; 400_000]).status, 204);
        }
    }
    assert!(server.stop().status.success());

    let server = setup.start();
    let index = setup.data.join("store/data.mdb");
    let cut = |len| OpenOptions::new().write(true).open(&index).unwrap().set_len(len).unwrap();
    cut(64 << 10);
    for path in ["first", "second"] {
        if let Ok(mut reader) = TcpStream::connect(server.address) {
            let request = format!("GET /v1/stream/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let _ = reader.write_all(request.as_bytes());
            let _ = reader.read_to_end(&mut Vec::new());
        }
    }
    let ended = server.until_ended();
    assert_eq!(ended.status.code(), Some(74), "{}: {}", ended.status, ended.log);
    let named = format!("{} cannot be read at byte ", index.canonicalize().unwrap().display());
    let said = ended.log.split(&named).nth(1).unwrap_or_else(|| panic!("{}", ended.log));
    let byte: u64 = said.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
    assert!((64 << 10..16 << 20).contains(&byte), "{byte} is in the file, and was cut off");
    assert!(said.contains("kernel's log") && said.contains("restore a backup"), "{said}");

    // What is cut by much is refused; by less, it is met by the command that reads everything.
    assert!(setup.refused().contains("the file ends here"));
    cut(8 << 20);
    let verify = Command::new(env!("CARGO_BIN_EXE_durable-streams-server"))
        .args(["verify", "--data-dir"])
        .arg(&setup.data)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verify.stderr);
    assert_eq!(verify.status.code(), Some(1), "{said}");
    ended.log
}
