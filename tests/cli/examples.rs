//! Every file in `config/` is valid as it stands.

use std::fs;
use std::path::Path;

use crate::support::{binary, finish};

#[test]
fn every_example_is_ok() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut checked = Vec::new();
    for entry in fs::read_dir(&directory).expect("config/ is there") {
        let file = entry.expect("an entry").path();
        if file.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let seen = finish(binary().arg("check").arg("--config").arg(&file));
        assert_eq!(seen.code, 0, "{}", seen.stderr);
        checked.push(file.file_name().expect("a name").to_string_lossy().into_owned());
    }
    for name in ["dev.yaml", "proxy.yaml", "streams.yaml", "tls.yaml"] {
        assert!(checked.iter().any(|file| file == name), "{name} is missing: {checked:?}");
    }
}

#[test]
fn dev_yaml_is_what_the_defaults_are() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/dev.yaml");
    let print = |file: &Path| {
        let seen = finish(binary().args(["check", "--print", "--config"]).arg(file));
        assert_eq!(seen.code, 0, "{}", seen.stderr);
        seen.stdout.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let admin = tempfile::NamedTempFile::new().expect("a file");
    fs::write(admin.path(), "admin: {page: true}\nallowed_hosts: []\n").expect("it is written");
    assert_eq!(
        print(&file),
        print(admin.path()),
        "the defaults, the admin listener with its page, and this machine's hosts"
    );
}
