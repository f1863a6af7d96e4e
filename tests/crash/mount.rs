//! A small file system of its own for a data directory, in a mount namespace that lives as long as its
//! holder, so that the server can be started on it again and again. Needs root on Linux.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::skips::skipped;

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
        Self::with("mount -t tmpfs -o size=\"$1\" tmpfs \"$2\"", size)
    }

    /// An ext4 file system of this size in a file, which can be made to [`fail`](Self::fail).
    pub(crate) fn mount_ext4(size: &str) -> Option<Self> {
        Self::with(
            "truncate -s \"$1\" \"$2.image\" && mkfs.ext4 -q -F \"$2.image\" && \
             mount -o loop,errors=remount-ro \"$2.image\" \"$2\"",
            size,
        )
    }

    fn with(mount: &str, size: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("disk");
        std::fs::create_dir(&path).expect("a directory");
        // `cat` ends with the pipe, which ends with this process.
        let script = format!("{mount} && echo mounted && exec cat");
        let holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script, "sh", size])
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
            return skipped("a mount in a namespace of its own is not permitted; run as root");
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

    /// Has the kernel find an error in an ext4 file system: it turns read-only under whoever uses it.
    pub(crate) fn fail(&self) {
        let path = self.path.to_string_lossy();
        let script =
            "echo 1 > /sys/fs/ext4/$(basename $(findmnt -no SOURCE \"$1\"))/trigger_fs_error";
        assert!(self.enter(&["sh", "-c", script, "sh", &path]), "the file system does not fail");
    }

    /// Checks an ext4 file system that nobody uses, as an operator would, and mounts it anew.
    pub(crate) fn mend(&self) {
        let path = self.path.to_string_lossy();
        let script = "umount \"$1\" && { e2fsck -fy \"$1.image\" >/dev/null 2>&1; [ $? -le 1 ]; } && \
             mount -o loop,errors=remount-ro \"$1.image\" \"$1\"";
        assert!(self.enter(&["sh", "-c", script, "sh", &path]), "it cannot be mended");
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
