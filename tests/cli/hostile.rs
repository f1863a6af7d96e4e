//! Files that are out to hurt: each must give an error, soon.

use std::time::{Duration, Instant};

use crate::support::{Scene, binary, finish};

fn is_refused(name: &str, content: impl AsRef<[u8]>) -> String {
    let start = Instant::now();
    let seen = Scene::with(content).check(&[]);
    assert_eq!(seen.code, 1, "{name}: {}", seen.stdout);
    assert!(seen.stderr.starts_with("streams.yaml"), "{name}: {}", seen.stderr);
    assert!(seen.stderr.len() < 2_000, "{name}: {} bytes of message", seen.stderr.len());
    assert!(start.elapsed() < Duration::from_secs(20), "{name} took {:?}", start.elapsed());
    seen.stderr
}

#[test]
fn deep_nesting_is_refused() {
    is_refused("flow lists", "[".repeat(500_000));
    is_refused("flow groups", "{a: ".repeat(200_000));
    is_refused("lists in a line", format!("{}x", "- ".repeat(400_000)));
    let steps: String = (0..1_000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    is_refused("indentation", steps);
}

#[test]
fn alias_bombs_are_refused() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..30 {
        let before = vec![format!("*a{}", n - 1); 10].join(", ");
        text.push_str(&format!("a{n}: &a{n} [{before}]\n"));
    }
    is_refused("billion laughs", text);
    is_refused("itself", "listen: &a [*a]\n");
}

#[test]
fn huge_files_are_refused() {
    let message = is_refused("2 MiB of comment", "# x\n".repeat(1 << 19));
    assert!(message.contains("is larger than 1048576 bytes"), "{message}");
    is_refused("many items", "- x\n".repeat(200_000));
    is_refused("a long value", format!("route: {}\n", "x".repeat(900_000)));
}

#[test]
fn what_is_not_text_is_refused_with_its_line() {
    let message = is_refused("latin-1", b"route: /s\nlog:\n  level: \xfcber\n");
    assert!(message.starts_with("streams.yaml:3: is not UTF-8 text; save the file"), "{message}");
    is_refused("zeros", [0_u8; 64]);
    is_refused("terminal codes", "\u{1b}[2J\u{1b}[H: 1\n");
}

#[test]
fn shapes_that_are_no_configuration_are_refused() {
    for text in [
        "- a\n- b\n",
        "just text\n",
        "? [a]\n: b\n",
        "a: 1\n---\nb: 2\n",
        "%YAML 9.9\n%%\n",
        "a: !!binary x\n",
        "a: *nothing\n",
    ] {
        is_refused(text, text);
    }
}

#[test]
fn messages_speak_to_the_author_of_the_file() {
    for (text, message) in [
        ("a: 1\n---\nb: 2\n", "there is a second document; keep one"),
        ("listen: &a [*a]\n", "an alias contains itself; write the value out"),
        ("log:\n  level: a\n  level: b\n", "key: level not allowed here; keep one of the two"),
        ("route: *.x\n", "quote a text that starts with *"),
    ] {
        let seen = is_refused(text, text);
        assert!(seen.contains(message), "{seen}\n{message}");
    }
}

#[test]
fn messages_never_carry_control_characters() {
    let message = is_refused("a value", "route: \"\\e[31m\\a\"\n");
    let bad: Vec<char> = message.chars().filter(|c| c.is_control() && *c != '\n').collect();
    assert!(bad.is_empty(), "{message:?}");
    let message = is_refused("a key", "\"\\e[31m\\u0007\\n\": 1\n");
    let bad: Vec<char> = message.chars().filter(|c| c.is_control() && *c != '\n').collect();
    assert!(bad.is_empty() && message.lines().count() == 2, "{message:?}");
}

/// The file of the plugin's own README, saved under our name or passed as it is.
#[test]
fn a_caddyfile_is_recognised_and_its_keys_are_named() {
    let caddyfile = "\
{
	admin off
}

:4437 {
	route /v1/stream/* {
		durable_streams {
			data_dir ./data
			long_poll_timeout 30s
			max_file_handles 200
		}
	}
	reverse_proxy localhost:3000
}
";
    let seen = is_refused("a Caddyfile", caddyfile);
    for line in [
        "streams.yaml: is a Caddyfile; this server reads YAML; write a streams.yaml with the keys below",
        "streams.yaml:5: :4437 is a directive of Caddy; write listen: an address",
        "streams.yaml:8: data_dir is a directive of Caddy; write data_dir",
        "streams.yaml:10: max_file_handles is a directive of Caddy; leave it out; ",
        "streams.yaml:13: reverse_proxy is a directive of Caddy; write upstreams: ",
        "8 problems in the configuration; nothing was started",
    ] {
        assert!(seen.contains(line), "{line}\n{seen}");
    }
    // One line of it can be YAML; its name says what it is.
    let scene = Scene::with("");
    let named = scene.file().with_file_name("Caddyfile");
    std::fs::write(&named, "respond: hello\n").unwrap();
    let seen = finish(binary().args(["run", "--config"]).arg(&named));
    assert_eq!(seen.code, 1, "{}", seen.stderr);
    assert!(seen.stderr.contains("Caddyfile: is a Caddyfile;"), "{}", seen.stderr);
    // A group in braces is YAML, and no Caddyfile.
    let seen = is_refused("flow", "{\n  listn: []\n}\n");
    assert!(seen.contains("did you mean listen?"), "{seen}");
}
