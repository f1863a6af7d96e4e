//! A small file system of its own for a data directory: a tmpfs in a mount namespace that lives as long as
//! its holder, so that the server can be started on it again and again. Needs root on Linux.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// See the module. Gone when dropped, and when the test process ends.
pub(crate) struct SmallDisk {
    holder: Child,
    _directory: tempfile::TempDir,
    /// Where it is mounted, as the server sees it.
    pub(crate) path: PathBuf,
}

impl SmallDisk {
    /// A tmpfs of this size, such as `8m`; `None`, with the reason printed, where that is not permitted.
    pub(crate) fn mount(size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().to_owned();
        // `cat` ends with the pipe, which ends with this process.
        let script = "mount -t tmpfs -o size=\"$1\" tmpfs \"$2\" && echo mounted && exec cat";
        let holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "sh", size])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut holder = match holder {
            Ok(holder) => holder,
            Err(error) => return skipped(&format!("unshare: {error}")),
        };
        let mut line = String::new();
        let stdout = holder.stdout.as_mut().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("the holder speaks");
        let disk = SmallDisk { holder, _directory: directory, path };
        if line != "mounted\n" {
            return skipped("a tmpfs in a mount namespace is not permitted; run as root");
        }
        let entered = disk.enter(&["true"]);
        if !entered { skipped("nsenter is not permitted") } else { Some(disk) }
    }

    /// The commands that start a process on it.
    pub(crate) fn prefix(&self) -> Vec<String> {
        ["nsenter", "--mount", "--target", &self.holder.id().to_string()].map(String::from).into()
    }

    /// Mounts it anew with other options, such as `size=16m` or `ro`; the files stay.
    pub(crate) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let path = self.path.to_string_lossy();
        assert!(self.enter(&["mount", "-o", &options, &path]), "cannot remount with {options}");
    }

    fn enter(&self, command: &[&str]) -> bool {
        let prefix = self.prefix();
        let status = Command::new(&prefix[0]).args(&prefix[1..]).args(command).status();
        status.is_ok_and(|status| status.success())
    }

    /// A file in it, as this process sees it.
    pub(crate) fn seen_from_here(&self, file: &Path) -> PathBuf {
        let inside = file.strip_prefix("/").expect("an absolute path");
        PathBuf::from(format!("/proc/{}/root", self.holder.id())).join(inside)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn skipped<T>(reason: &str) -> Option<T> {
    eprintln!("skipped: {reason}");
    None
}
