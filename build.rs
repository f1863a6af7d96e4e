//! Tells the binary what it was built from: commit and target.
//!
//! `DURABLE_STREAMS_COMMIT` names the commit where there is no checkout (packages, images). Without it and
//! without git the commit is `unknown`; the build never fails for it. Nothing else is recorded, least of all
//! the time, so that the same source gives the same binary.

use std::{env, path::Path, process::Command};

fn main() {
    println!("cargo::rerun-if-env-changed=DURABLE_STREAMS_COMMIT");
    let given = env::var("DURABLE_STREAMS_COMMIT").ok().filter(|commit| is_commit(commit));
    let commit = given.or_else(from_git).unwrap_or_else(|| "unknown".to_owned());
    let target = env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=BUILD_COMMIT={commit}");
    println!("cargo::rustc-env=BUILD_TARGET={target}");
}

/// The checkout's commit, and what to watch for it to change.
fn from_git() -> Option<String> {
    // A package unpacked below somebody else's repository must not take that one's commit.
    if !Path::new(".git").exists() {
        return None;
    }
    for name in ["HEAD", "logs/HEAD"] {
        let file = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&file).exists() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"]).filter(|commit| is_commit(commit))
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
