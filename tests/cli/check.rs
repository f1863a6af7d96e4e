//! `check`: what is accepted, what is refused, and what is said about it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Scene, binary, finish};

#[test]
fn a_good_file_is_ok() {
    let seen = Scene::with("listen: 127.0.0.1:0\nlong_poll_timeout: 2m\n").check(&[]);
    assert_eq!((seen.code, seen.stderr.as_str()), (0, ""));
    assert!(seen.stdout.starts_with("OK: streams.yaml\n"), "{}", seen.stdout);
    assert!(seen.stdout.contains("note: streams are kept in memory"), "{}", seen.stdout);
}

#[test]
fn an_empty_file_is_all_defaults() {
    let seen = Scene::with("").check(&["--print"]);
    assert_eq!(seen.code, 0, "{}", seen.stderr);
    assert!(seen.stdout.contains("\nroute: /v1/stream\n"), "{}", seen.stdout);
}

#[test]
fn each_kind_of_mistake_names_its_place_and_its_fix() {
    for (text, start, fix) in [
        (
            "route: /s\nlisen: 127.0.0.1:1\n",
            "streams.yaml:2:1: lisen is not a known key",
            "did you mean listen?",
        ),
        (
            "limits:\n  max_append: [1MiB]\n",
            "streams.yaml:2:15: limits.max_append must be a size",
            "not a list",
        ),
        ("threads: 100000\n", "streams.yaml:1:10: threads = \"100000\" is above", "1 to 1024"),
        (
            "log: {level: inof}\n",
            "streams.yaml:1:14: log.level = \"inof\" is not",
            "did you mean info?",
        ),
        ("a: 1\na: 2\n", "streams.yaml:2:1: is not valid YAML", "duplicate"),
    ] {
        let seen = Scene::with(text).check(&[]);
        assert_eq!(seen.code, 1, "{text}");
        assert_eq!(seen.stdout, "", "{text}");
        let line = seen.stderr.lines().next().unwrap_or_default();
        assert!(line.starts_with(start), "{text}{line}\n{start}");
        assert!(line.contains(fix), "{text}{line}\n{fix}");
        assert!(seen.stderr.ends_with("1 problem in the configuration; nothing was started\n"));
    }
}

#[test]
fn several_mistakes_are_reported_at_once() {
    let text = "threads: 0\nrout: /s\nlimits:\n  max_append: 2GiB\n  idle_timeout: 60\n";
    let environment = [("DURABLE_STREAMS_LOG_LEVEL", "loud"), ("DURABLE_STREAMS_LISTN", "x")];
    let seen = Scene::with(text).check_in(&environment, &["--data-dir", ""]);
    assert_eq!(seen.code, 1);
    for part in [
        "streams.yaml:1:10: threads",
        "streams.yaml:2:1: rout is",
        "streams.yaml:4:15: limits.max_append",
        "streams.yaml:5:17: limits.idle_timeout",
        "environment DURABLE_STREAMS_LOG_LEVEL: log.level = \"loud\"",
        "did you mean DURABLE_STREAMS_LISTEN?",
        "flag --data-dir: data_dir = \"\"",
        "7 problems in the configuration",
    ] {
        assert!(seen.stderr.contains(part), "{part}\n{}", seen.stderr);
    }
}

#[test]
fn environment_overrides_the_file_and_flags_override_both() {
    let scene = Scene::with("threads: 1\nroute: /file\nlog: {level: error}\n");
    let environment = [
        ("DURABLE_STREAMS_THREADS", "2"),
        ("DURABLE_STREAMS_LOG_LEVEL", "debug"),
        ("DURABLE_STREAMS_DATA_DIR", "/from/environment"),
    ];
    let flags = ["--print", "--threads", "3", "--listen", "127.0.0.1:1", "--listen", "[::1]:2"];
    let seen = scene.check_in(&environment, &flags);
    assert_eq!(seen.code, 0, "{}", seen.stderr);
    for line in ["threads: 3", "route: /file", "data_dir: /from/environment", "  level: debug"] {
        assert!(seen.stdout.lines().any(|l| l == line), "{line}\n{}", seen.stdout);
    }
    assert!(seen.stdout.contains("127.0.0.1:1") && seen.stdout.contains("[::1]:2"));
}

#[test]
fn what_print_writes_is_a_file_that_means_the_same() {
    let scene = Scene::with(
        "data_dir: /d\ndurability: {interval: 1s}\nupstreams: [{servers: [http://a:1]}]\n",
    );
    let first = scene.check(&["--print"]);
    assert_eq!(first.code, 0, "{}", first.stderr);
    let second = Scene::with(&first.stdout).check(&["--print"]);
    assert_eq!((second.code, &second.stdout), (0, &first.stdout), "{}", second.stderr);
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let scene = Scene::with("threads: 7\n");
    let seen =
        finish(binary().args(["check", "--print"]).env("DURABLE_STREAMS_CONFIG", scene.file()));
    assert_eq!(seen.code, 0, "{}", seen.stderr);
    assert!(seen.stdout.contains("\nthreads: 7\n"), "{}", seen.stdout);
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let missing = finish(binary().args(["check", "--config", "/nowhere/streams.yaml"]));
    assert_eq!(missing.code, 1);
    assert!(
        missing.stderr.starts_with("/nowhere/streams.yaml: cannot be read: "),
        "{}",
        missing.stderr
    );

    let directory = finish(binary().args(["check", "--config", "/"]));
    assert_eq!(directory.code, 1);
    assert!(directory.stderr.starts_with("/: cannot be read: "), "{}", directory.stderr);

    let scene = Scene::with("threads: 1\n");
    fs::set_permissions(scene.file(), fs::Permissions::from_mode(0o000)).expect("chmod");
    // Root reads everything; there is nothing to see then.
    if fs::File::open(scene.file()).is_err() {
        let seen = scene.check(&[]);
        assert_eq!(seen.code, 1);
        assert!(seen.stderr.contains("let the user of this process read it"), "{}", seen.stderr);
    }
}

#[test]
fn run_refuses_what_check_refuses() {
    let scene = Scene::with("threads: 0\n");
    let seen = finish(binary().arg("run").arg("--config").arg(scene.file()));
    assert_eq!(seen.code, 1);
    assert!(seen.stderr.contains("threads = \"0\""), "{}", seen.stderr);
    assert!(seen.stderr.ends_with("nothing was started\n"), "{}", seen.stderr);
}

/// Every client that reaches the listener would administer the server.
#[test]
fn an_open_administration_beyond_loopback_is_not_started() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:4438", "[::ffff:127.0.0.1]:0"] {
        for key in ["page", "api"] {
            let listen = format!("  listen: \"{address}\"\n");
            let scene =
                Scene::with(format!("listen: 127.0.0.1:0\nadmin:\n{listen}  {key}: true\n"));
            let seen = finish(binary().arg("run").arg("--config").arg(scene.file()));
            let place = format!("{}:4:{}", scene.file().display(), "  : ".len() + key.len() + 1);
            let expected = format!(
                "{place}: admin.{key} = \"true\" would let everybody who reaches it administer the server: there is no \
                 auth section; add an auth section, or listen on 127.0.0.1\n"
            );
            assert!(seen.stderr.starts_with(&expected), "{}\n{expected}", seen.stderr);
            assert!(seen.stderr.ends_with("nothing was started\n"), "{}", seen.stderr);
            assert_eq!((seen.code, seen.stdout.as_str()), (1, ""));
        }
    }
    let guarded =
        "admin: {listen: \"0.0.0.0:0\", page: true, api: true}\nauth: {credentials: keys}\n";
    let local = "admin: {listen: \"127.0.0.1:0\", page: true, api: true}\n";
    for allowed in [guarded, local, "admin: {listen: \"0.0.0.0:0\"}\n"] {
        assert_eq!(Scene::with(allowed).check(&[]).code, 0, "{allowed}");
    }
}
