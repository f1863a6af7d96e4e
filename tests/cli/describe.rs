//! `completions` and `man`.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::skips::skipped;
use crate::support::{binary, finish};

#[test]
fn every_shell_gets_a_script_that_knows_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let seen = finish(binary().args(["completions", shell]));
        assert_eq!((seen.code, seen.stderr.as_str()), (0, ""), "{shell}");
        for part in ["healthcheck", "data-dir", "producer-id", "durable-streams-server"] {
            assert!(seen.stdout.contains(part), "{shell}: {part}");
        }
    }
    let seen = finish(binary().args(["completions", "csh"]));
    assert_eq!(seen.code, 2);
    assert!(seen.stderr.contains("bash"), "the shells that exist are named: {}", seen.stderr);
}

#[test]
fn bash_understands_its_script() {
    let script = finish(binary().args(["completions", "bash"])).stdout;
    let Ok(mut bash) = Command::new("bash").args(["-n"]).stdin(Stdio::piped()).spawn() else {
        return skipped("no bash").unwrap_or_default();
    };
    bash.stdin.take().expect("piped").write_all(script.as_bytes()).expect("it reads");
    assert!(bash.wait().expect("it ends").success());
}

#[test]
fn the_man_page_has_every_command_and_flag() {
    let seen = finish(binary().arg("man"));
    assert_eq!((seen.code, seen.stderr.as_str()), (0, ""));
    assert!(seen.stdout.contains(".TH durable-streams-server 1"), "{}", seen.stdout);
    for section in [
        "NAME",
        "SYNOPSIS",
        "DEV",
        "RUN",
        "CHECK",
        "APPEND",
        "FOLLOW",
        "COPY",
        "HEALTHCHECK",
        "COMPLETIONS",
        "BACKUP",
        "REPAIR",
    ] {
        let found = seen.stdout.lines().any(|line| {
            line.strip_prefix(".SH ").is_some_and(|name| name.trim_matches('"') == section)
        });
        assert!(found, "{section}\n{}", seen.stdout);
    }
    assert!(seen.stdout.contains(r"\-\-data\-dir") && seen.stdout.contains("check \\-\\-config"));
}
