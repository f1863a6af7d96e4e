//! What a process does that meets a fault.

use std::{
    env, fs,
    os::unix::{fs::symlink, process::ExitStatusExt as _},
    path::Path,
    process::{Command, ExitStatus},
    time::UNIX_EPOCH,
};

use super::{
    super::{MAP_FAULT_EXIT, report_map_faults, report_map_faults_as_json},
    text,
};
use crate::store::file::{disk::mapped_at, index::tests::with_mapped_value};

/// Of the process that is to end: how, and in which folder.
const CHILD: &str = "TEST_MAP_FAULT";
const FOLDER: &str = "TEST_MAP_FAULT_FOLDER";
/// Bytes of a value on pages of its own, and the one of them that is looked at once the file is cut.
const VALUE: usize = 40_000;
const LOOKED_AT: usize = 34_567;

/// Looks at a byte of a value behind the end of a file.
fn fault(how: &str) {
    let folder = env::var(FOLDER).unwrap();
    let folder = Path::new(&folder);
    let file = folder.join("data.mdb");
    if how == "other" {
        fs::File::create_new(folder.join("other")).unwrap();
        symlink("other", &file).unwrap();
    }
    with_mapped_value(folder, &[7; VALUE], |value| {
        let place = mapped_at(value).unwrap();
        fs::write(folder.join("place"), place.to_string()).unwrap();
        report_map_faults();
        if how == "json" {
            report_map_faults_as_json();
        }
        let cut = fs::File::options().write(true).open(&file).unwrap();
        let mut open = Vec::new();
        while how == "no maps"
            && let Ok(file) = fs::File::open("/dev/null")
        {
            open.push(file);
        }
        cut.set_len(4096).unwrap();
        println!("{}", value[LOOKED_AT]);
    });
}

/// Has a process of its own look at what is not there. Returns how it ended and what it said, with the place of the byte.
fn process(how: &str, folder: &Path) -> (ExitStatus, String, usize) {
    const NAME: &str =
        "store::file::map_fault::tests::process::a_process_says_which_byte_it_cannot_read";
    fs::create_dir(folder).unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -c 0; ulimit -n 64; exec \"$@\"", "sh"])
        .arg(env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(CHILD, how)
        .env(FOLDER, folder);
    if how == "no maps" {
        // scripts/mutants would open a file to note which mutants are reached.
        command.env_remove("MUTANTS_TRACE");
    }
    let ended = command.output().unwrap();
    let place: usize = fs::read_to_string(folder.join("place")).unwrap().parse().unwrap();
    (ended.status, String::from_utf8(ended.stderr).unwrap(), place + LOOKED_AT)
}

#[test]
fn a_process_says_which_byte_it_cannot_read() {
    if let Ok(how) = env::var(CHILD) {
        return fault(&how);
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    let advice = ": the disk cannot read it, the file was cut, or its structure is damaged.";

    let folder = root.join("a \"b\"");
    let file = folder.join("data.mdb");
    let (status, said, place) = process("text", &folder);
    assert_eq!(status.code(), Some(MAP_FAULT_EXIT), "{said}");
    let begin = format!("error: {} cannot be read at byte {place}{advice}", file.display());
    assert!(said.starts_with(&begin) && said.ends_with("`repair` would drop\n"), "{said}");

    let folder = root.join("c \"d\"");
    let file = folder.join("data.mdb");
    let (status, said, place) = process("json", &folder);
    assert_eq!(status.code(), Some(MAP_FAULT_EXIT), "{said}");
    let line: serde_json::Value = serde_json::from_str(&said).unwrap();
    let message = line["message"].as_str().unwrap();
    let begin = format!("{} cannot be read at byte {place}{advice}", file.display());
    assert!(message.starts_with(&begin) && message.ends_with("would drop"), "{message}");
    assert!(said.ends_with("}\n") && line["level"] == "ERROR");
    assert_eq!(line["target"], module_path!().replace("tests::process", "handler"));
    // Between the times of the file that was cut and of one that is written now, whose clock may be a moment late.
    let after = root.join("after");
    fs::write(&after, "").unwrap();
    let [cut, now] = [(&file, 0), (&after, 1)].map(|(file, late)| {
        let modified = fs::metadata(file).unwrap().modified().unwrap();
        text(|text| text.add_time(modified.duration_since(UNIX_EPOCH).unwrap().as_secs() + late))
    });
    let time = line["timestamp"].as_str().unwrap();
    assert!(cut.as_str() <= time && time <= now.as_str(), "{cut} {time} {now}");

    let (status, said, _) = process("no maps", &root.join("e"));
    assert_eq!(status.code(), Some(MAP_FAULT_EXIT), "{said}");
    let begin = "error: a file that is mapped into memory, most likely the index, cannot be read";
    assert!(said.starts_with(&format!("{begin}{advice}")), "{said}");

    // It ends as it would without the handler.
    let (status, said, _) = process("other", &root.join("f"));
    assert_eq!((status.signal(), said.as_str()), (Some(libc::SIGBUS), ""));
}
