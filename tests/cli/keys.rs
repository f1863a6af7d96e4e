//! The key file holds secrets: it is used only while its owner alone can read and change it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Scene, binary, finish};

#[test]
fn a_key_file_that_others_can_read_or_change_is_refused() {
    let scene = Scene::with("data_dir: data\n");
    let directory = scene.file().with_file_name("data").join("keys");
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("subscriptions.json");
    fs::write(&file, "{}").unwrap();
    let rotate = |mode: u32| {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let mut command = binary();
        command.args(["rotate-keys", "--config", "streams.yaml"]);
        finish(command.current_dir(scene.file().parent().unwrap()))
    };
    for mode in [0o640, 0o620, 0o610, 0o604, 0o602, 0o601, 0o644] {
        let outcome = rotate(mode);
        assert_ne!(outcome.code, 0, "{mode:o}");
        let said = format!("is readable by others (mode {mode:o}); run chmod 0600");
        assert!(outcome.stderr.contains(&said), "{mode:o}: {}", outcome.stderr);
    }
    let outcome = rotate(0o600);
    assert!(outcome.stderr.contains("is not a key file"), "it is read: {}", outcome.stderr);
}
