//! `--help` and `--version`, and command lines that cannot be understood.

use crate::support::{binary, finish};

#[test]
fn version_says_what_was_built_from_what() {
    let seen = finish(binary().arg("--version"));
    let start = concat!("durable-streams-server ", env!("CARGO_PKG_VERSION"), " (commit ");
    assert_eq!((seen.code, seen.stdout.lines().count()), (0, 1), "{}", seen.stdout);
    let rest = seen.stdout.strip_prefix(start).expect("it starts like that");
    let (commit, rest) = rest.split_once(", ").expect("a commit");
    let is_commit = commit.len() >= 7 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(is_commit || commit == "unknown", "{commit}");
    assert!(rest.contains(std::env::consts::ARCH), "no target: {rest}");
    assert!(rest.ends_with("store format 2)\n"), "{rest}");
}

#[test]
fn help_names_every_command_and_what_to_type_first() {
    for arguments in [&["--help"][..], &["-h"]] {
        let seen = finish(binary().args(arguments));
        assert_eq!(seen.code, 0);
        for part in [
            "dev",
            "run",
            "check",
            "append",
            "follow",
            "copy",
            "healthcheck",
            "completions",
            "backup",
            "restore",
            "verify",
            "compact",
            "repair",
            "Exit codes: 0",
            "http://localhost:4437",
            "check --config streams.yaml",
        ] {
            assert!(seen.stdout.contains(part), "{arguments:?}: {part}\n{}", seen.stdout);
        }
    }
    let seen = finish(binary().args(["dev", "--help"]));
    assert!(seen.stdout.contains("--host") && seen.stdout.contains("[default: 4437]"));
    let seen = finish(binary().args(["run", "--help"]));
    for flag in ["--config", "--listen", "--data-dir", "--threads", "--log-level", "--log-format"] {
        assert!(seen.stdout.contains(flag), "{flag}\n{}", seen.stdout);
    }
}

#[test]
fn a_command_line_that_makes_no_sense_ends_with_2() {
    for arguments in
        [&[][..], &["serve"], &["run"], &["dev", "--port", "x"], &["dev", "--host", "example.com"]]
    {
        let seen = finish(binary().args(arguments));
        assert_eq!(seen.code, 2, "{arguments:?}: {}", seen.stderr);
        assert!(!seen.stderr.is_empty(), "{arguments:?}");
    }
    let seen = finish(binary().args(["dev", "--host", "example.com"]));
    assert!(seen.stderr.contains("write an IP address, or localhost"), "{}", seen.stderr);
}
