//! The examples in the documentation, run as a reader would paste them.

#![expect(clippy::expect_used, reason = "a failed helper fails its test")]

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

const SERVER: &str = env!("CARGO_BIN_EXE_durable-streams-server");

/// A `dev` server on a free port; ended when dropped.
struct Dev {
    child: Child,
    url: String,
}

impl Dev {
    fn start() -> Self {
        let mut child = Command::new(SERVER)
            .args(["dev", "--port", "0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let url = lines
            .find_map(|line| line.ok()?.trim().strip_prefix("URL").map(|url| url.trim().to_owned()))
            .expect("the banner names the URL");
        // Keeps the pipe open, so that the server can go on writing to it.
        std::thread::spawn(move || lines.for_each(drop));
        Dev { child, url }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The fenced blocks of a language in a Markdown file.
fn blocks(file: &str, language: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = fs::read_to_string(path).expect("the file is there");
    let fence = format!("```{language}\n");
    text.split(&fence)
        .skip(1)
        .filter_map(|rest| rest.split_once("\n```").map(|(block, _)| block.to_owned()))
        .collect()
}

fn shell(script: &str, url: &str) -> String {
    let script = script.replace("http://localhost:4437", url).replace("curl -N", "curl -N -m 1");
    let output = Command::new("sh").args(["-c", &script]).output().expect("sh runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!error.contains("not found"), "{script}\n{error}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn the_first_stream_of_the_readme_works_as_pasted() {
    let dev = Dev::start();
    let scripts = blocks("README.md", "sh");
    let first = scripts.iter().find(|s| s.contains("# create a stream")).expect("a first stream");
    let seen = shell(first, &dev.url);
    for expected in
        ["201 Created", "204 No Content", "event: data", "data:Hello, world!", "upToDate"]
    {
        assert!(seen.contains(expected), "no {expected:?} in:\n{seen}");
    }
    let retry = scripts.iter().find(|s| s.contains("Producer-Seq")).expect("a retry");
    let seen = shell(retry, &dev.url);
    assert!(seen.contains("200 OK") && seen.contains("204 No Content"), "{seen}");
    let read = shell("curl -s 'http://localhost:4437/v1/stream/hello'", &dev.url);
    assert_eq!(read, "Hello, world!exactly once", "the retry changed nothing");
}

#[test]
fn the_commands_of_the_readme_and_the_client_page_work_as_pasted() {
    let dev = Dev::start();
    let programs = Path::new(SERVER).parent().expect("a folder").display();
    let url = format!("{}/v1/stream", dev.url);
    for (document, expected) in [
        ("README.md", "Hello, world!\nHello, world!\n"),
        ("docs/client.md", "{\"token\":\"Hel\"}\n{\"token\":\"lo\"}\n{\"token\":\"lo\"}\ncopied\n"),
    ] {
        let scripts = blocks(document, "sh");
        let script = scripts
            .iter()
            .find(|script| script.contains("durable-streams-server append"))
            .expect("a script");
        let directory = tempfile::tempdir().expect("a directory");
        let output = Command::new("sh")
            .args(["-c", &format!("set -e; PATH={programs}:$PATH; {script}")])
            .current_dir(directory.path())
            .env("STREAMS_URL", &url)
            .output()
            .expect("sh runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}\n{error}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{script}\n{error}");
    }
}

#[test]
fn the_curl_lines_of_the_banner_work_as_pasted() {
    let dev = Dev::start();
    let addresses: Vec<std::net::SocketAddr> = vec!["127.0.0.1:4437".parse().expect("an address")];
    let banner = durable_streams_server::cli::banner(&addresses, "/v1/stream", None);
    let lines: Vec<&str> = banner.lines().filter(|line| line.trim().starts_with("curl")).collect();
    assert_eq!(lines.len(), 3, "{banner}");
    let script = lines.join("\n").replace("http://127.0.0.1:4437", "http://localhost:4437");
    let seen = shell(&script, &dev.url);
    for expected in ["201 Created", "204 No Content", "data:Hello, world!"] {
        assert!(seen.contains(expected), "no {expected:?} in:\n{seen}");
    }
}

#[test]
fn the_configuration_of_the_readme_is_accepted() {
    let directory = tempfile::tempdir().expect("a directory");
    for (number, block) in blocks("README.md", "yaml").iter().enumerate() {
        let file = directory.path().join(format!("{number}.yaml"));
        fs::write(&file, block).expect("written");
        let output = Command::new(SERVER).arg("check").arg("--config").arg(&file).output();
        let output = output.expect("the command runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The commands on a data directory, with stand-ins for what needs a machine of its own: `sudo`, `systemctl`, and the
/// directories that belong to the system.
#[test]
fn the_data_directory_is_looked_after_as_the_operations_manual_says() {
    let scene = tempfile::tempdir().expect("a directory");
    let root = scene.path().to_str().expect("text");
    for directory in ["etc/durable-streams", "var/backups", "var/lib/private"] {
        fs::create_dir_all(scene.path().join(directory)).expect("made");
    }
    let data = format!("{root}/var/lib/private/durable-streams");
    let config = format!("listen: 127.0.0.1:0\ndata_dir: {data}\n");
    fs::write(scene.path().join("etc/durable-streams/streams.yaml"), config).expect("written");
    let binaries = Path::new(SERVER).parent().expect("a directory").display();
    let prelude = format!(
        r#"set -e; PATH={binaries}:$PATH
        sudo() {{ "$@"; }}
        systemctl() {{
            case $1 in
            start)
                rm -f {root}/log
                durable-streams-server run --config {root}/etc/durable-streams/streams.yaml > {root}/log 2>&1 &
                until grep -sq listening {root}/log; do kill -0 $!; sleep 0.1; done ;;
            stop) server=$(cat {data}/LOCK); kill $server; while kill -0 $server 2> /dev/null; do sleep 0.1; done ;;
            esac
        }}
        systemctl start durable-streams-server
        trap 'kill $(cat {data}/LOCK)' EXIT
        "#
    );
    let scripts = blocks("docs/operations.md", "sh");
    let scripts = scripts
        .iter()
        .filter(|script| script.contains("--config /etc") || script.contains("restore"));
    let scripts: Vec<&String> = scripts
        .filter(|script| !script.contains("check --config") && !script.contains("--from-tier"))
        .collect();
    assert_eq!(scripts.len(), 4, "back up, every night, restore, the rest");
    let mut script = prelude;
    for block in scripts {
        let block = block.replace(" /etc/", &format!(" {root}/etc/"));
        let block = block.replace(" /var/", &format!(" {root}/var/"));
        script += &block.replace("=/var/", &format!("={root}/var/"));
        script += "\n";
    }
    let output = Command::new("bash").args(["-c", &script]).output().expect("bash runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{error}\n{script}");
    for part in ["backed up ", "restored ", "all is well", "compacted ", "needs no repair"] {
        assert!(said.contains(part), "no {part:?} in {said}\n{error}");
    }
    assert_eq!(said.matches("backed up").count(), 2, "{said}");
}

/// A `run` server with a configuration, and the addresses that its log names.
struct Run {
    child: Child,
    /// Of the streams, then of the admin listener where there is one.
    addresses: Vec<String>,
}

impl Run {
    fn start(folder: &Path, config: &str) -> Self {
        fs::write(folder.join("streams.yaml"), config).expect("written");
        let mut child = Command::new(SERVER)
            .args(["run", "--config", "streams.yaml", "--log-format", "json"])
            .current_dir(folder)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
        let addresses = lines.find_map(|line| {
            let line = line.ok()?;
            let found = line.split("127.0.0.1:").skip(1).map(|rest| {
                let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
                format!("127.0.0.1:{port}")
            });
            let found: Vec<String> = found.collect();
            (!found.is_empty()).then_some(found)
        });
        std::thread::spawn(move || lines.for_each(drop));
        Run { child, addresses: addresses.expect("the log names the address") }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a script in a folder, with the server as an installed program; returns what it prints.
fn pasted(folder: &Path, script: &str) -> String {
    let programs = Path::new(SERVER).parent().expect("a folder").display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(folder)
        .env("PATH", path)
        .output()
        .expect("sh runs");
    let seen = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{seen}\n{error}");
    seen
}

/// All shell blocks of docs/access.md in one shell, against a server with its first configuration.
#[test]
fn the_commands_of_the_access_page_work_as_pasted() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = blocks("docs/access.md", "yaml").first().cloned().expect("a configuration");
    let server = Run::start(folder.path(), &config.replace("127.0.0.1:4437", "127.0.0.1:0"));
    let url = format!("http://{}", server.addresses[0]);

    let mut script = String::from("set -e\n");
    for block in blocks("docs/access.md", "sh") {
        for line in block.lines().filter(|line| !line.contains(" run --config")) {
            // A server takes a changed file within two seconds.
            let pause = if line.starts_with("curl") { "sleep 2\n" } else { "" };
            script.push_str(&format!("{pause}{line}\n"));
        }
    }
    let script = script.replace("http://localhost:4437", &url).replace("curl -i", "curl -s -i");
    let seen = pasted(folder.path(), &script);
    let statuses: Vec<&str> = seen.lines().filter(|line| line.starts_with("HTTP/1.1")).collect();
    assert_eq!(
        statuses,
        ["HTTP/1.1 201 Created", "HTTP/1.1 201 Created", "HTTP/1.1 200 OK"],
        "{seen}"
    );
}

/// The shell blocks of docs/admin.md, against a server with access control and one stream.
#[test]
fn the_commands_of_the_admin_page_work_as_pasted() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = "listen: ['127.0.0.1:0']\nadmin: {listen: '127.0.0.1:0'}\nauth: {credentials: credentials.json}\n";
    let server = Run::start(folder.path(), config);
    let [streams, admin] = &server.addresses[..] else { panic!("{:?}", server.addresses) };
    let mut script = format!(
        "set -e\nAPP=$(durable-streams-server key create --config streams.yaml --name app --allow all)\nsleep 2\n\
         curl -fsS -X PUT -H \"Authorization: Bearer $APP\" http://{streams}/v1/stream/chat/42\n"
    );
    for block in blocks("docs/admin.md", "sh") {
        // A server takes a changed file within two seconds.
        let block = block.replace("--allow administer)", "--allow administer)\nsleep 2");
        script.push_str(&format!("{}\n", block.replace("curl ", "curl -fsS ")));
    }
    let seen = pasted(folder.path(), &script.replace("127.0.0.1:4438", admin));
    for said in ["\"ready\":true", "\"path\":\"chat/42\"", "dsk_", "\"name\":\"dashboard\""] {
        assert!(seen.contains(said), "{said}: {seen}");
    }
}

#[test]
fn the_configurations_of_the_access_page_are_valid() {
    let found = blocks("docs/access.md", "yaml");
    assert!(found.len() >= 3, "{found:?}");
    for block in found {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("streams.yaml"), &block).expect("written");
        write_certificates(folder.path());
        let checked = Command::new(SERVER)
            .args(["check", "--config", "streams.yaml"])
            .current_dir(folder.path())
            .output()
            .expect("the command runs");
        assert!(checked.status.success(), "{block}\n{}", String::from_utf8_lossy(&checked.stderr));
    }
}

/// The files that the page's listener with TLS names.
fn write_certificates(folder: &Path) {
    let names = vec!["streams.example.com".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    for name in ["fullchain.pem", "devices-ca.pem"] {
        fs::write(folder.join(name), made.cert.pem()).expect("written");
    }
    let key = folder.join("privkey.pem");
    fs::write(&key, made.signing_key.serialize_pem()).expect("written");
    fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).expect("private");
}

/// config/tiered.yaml with a directory for the object store.
fn tiered(folder: &Path) -> String {
    let root = folder.canonicalize().expect("a path").display().to_string();
    fs::create_dir(folder.join("objects")).expect("made");
    let config =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/tiered.yaml"));
    let mut config = config.expect("the file is there");
    for (from, to) in [
        ("127.0.0.1:4437", "127.0.0.1:0"),
        ("/var/lib/durable-streams", &*format!("{root}/data")),
        ("s3://streams-cold/production", &*format!("file://{root}/objects")),
        ("admin: {}", "admin: {listen: '127.0.0.1:0'}"),
    ] {
        assert!(config.contains(from), "{from}");
        config = config.replace(from, to);
    }
    config
}

/// The commands of the manual on a server whose disk is lost.
#[test]
fn a_lost_disk_is_built_again_as_the_operations_manual_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = tiered(folder.path());
    assert!(config.contains("index_interval: 1h"));
    let config = config.replace("index_interval: 1h", "index_interval: 100ms");
    let server = Run::start(folder.path(), &config);
    let create = format!(
        "curl -sf -X PUT -H content-type:text/plain -d text http://{}/v1/stream/kept",
        server.addresses[0]
    );
    pasted(folder.path(), &create);
    let began = Instant::now();
    let has_it = |path: &Path| {
        // Until an object is whole its file has another name.
        if path.extension().is_none_or(|ending| ending != "json") {
            return false;
        }
        let text = fs::read_to_string(path).unwrap_or_default();
        let copy: Option<serde_json::Value> = serde_json::from_str(&text).ok();
        copy.is_some_and(|copy| copy["event"].as_u64() > Some(0))
    };
    let copies = || fs::read_dir(folder.path().join("objects/index")).into_iter().flatten();
    while !copies().any(|entry| has_it(&entry.expect("an entry").path())) {
        assert!(began.elapsed() < Duration::from_secs(60), "no copy of the index");
        thread::sleep(Duration::from_millis(50));
    }
    drop(server);
    fs::remove_dir_all(folder.path().join("data")).expect("it was there");
    let manual = blocks("docs/operations.md", "sh");
    let script = manual.iter().find(|script| script.contains("--from-tier")).expect("a script");
    let script = script.replace("/etc/durable-streams/", "");
    let stand_ins = "set -e\nsudo() { \"$@\"; }\nsystemctl() { test \"$1\" = start; }\n";
    let said = pasted(folder.path(), &format!("{stand_ins}{script}"));
    assert!(said.contains("restored 1 stream with"), "{said}");
    let server = Run::start(folder.path(), &config);
    let read = format!("curl -sf http://{}/v1/stream/kept", server.addresses[0]);
    assert_eq!(pasted(folder.path(), &read), "text");
}

/// The commands of the manual on a server with object storage.
#[test]
fn segments_are_listed_as_the_operations_manual_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Run::start(folder.path(), &tiered(folder.path()));
    let manual = blocks("docs/operations.md", "sh");
    let script = manual.iter().find(|script| script.contains("segments --totals"));
    let admin = format!("export STREAMS_ADMIN_URL=http://{}\n", server.addresses[1]);
    let seen = pasted(folder.path(), &format!("set -e\n{admin}{}", script.expect("a script")));
    let rows: Vec<serde_json::Value> =
        seen.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let places: Vec<_> = rows.iter().map(|row| row["place"].as_str().expect("a place")).collect();
    assert_eq!(places, ["local", "both", "object"], "{seen}");
    assert!(fs::read_dir(folder.path().join("objects/claim")).expect("a claim").count() == 1);
}

/// The numbers of requests in the manual are those of the defaults.
#[test]
fn the_bill_of_the_operations_manual_is_that_of_the_defaults() {
    use durable_streams_engine::store::file::SegmentOptions;
    use durable_streams_server::tier::TierOptions;

    let manual =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md"));
    let manual = manual.expect("the file is there");
    let bytes = 1_000_000_000_000_u64;
    let segment = SegmentOptions::DEFAULT.size;
    let objects = bytes.div_ceil(segment);
    let read_back = objects * (segment / TierOptions::READ_BACK + 1);
    // What reads.rs of the tier's tests counts for a segment of 256 blocks.
    let replay = objects * (segment / (TierOptions::RUN * TierOptions::CACHE_BLOCK as u64) + 6);
    let thousands = |number: u64| {
        let digits = number.to_string();
        let groups = digits.as_bytes().rchunks(3).rev();
        let groups: Vec<_> = groups.map(|group| String::from_utf8_lossy(group)).collect();
        groups.join(",")
    };
    let (index, part) = (1_u64 << 30, TierOptions::INDEX_PART);
    let (parts, read_back_index) = (index / part, index / TierOptions::READ_BACK);
    for row in [
        format!(
            "PUT and HEAD | *I* / 16 MiB + 1, and *I* / 16 MiB | {} and {parts}, of",
            parts + 1
        ),
        format!("GET | *I* / 8 MiB, and 3 | {}, of 1 GiB |", read_back_index + 3),
        format!("LIST and DELETE | 2, and *I* / 16 MiB + 1 | 2 and {}, of 1 GiB |", parts + 1),
        format!("for {} writes and lists + ", thousands(730 * (parts + 1 + 2))),
        format!("for {} reads |", thousands(730 * (parts + read_back_index + 3))),
        format!("| objects of large streams | *B* / *S* | {} |", thousands(objects)),
        format!("| {} and {} |", thousands(objects), thousands(read_back)),
        format!(
            "| to leave the disk (`tier.local`): GET | 1 for each object | {} |",
            thousands(objects)
        ),
        format!("| *S* / 8 *C* + 6 for each object | {} |", thousands(replay)),
        format!("for {} reads |", thousands(replay)),
        format!("for {} reads |", thousands(objects + read_back)),
        format!(
            "each month: LIST, pages of 1,000 names every six hours | 120 × objects / 1,000 | {} |",
            thousands(120 * objects.div_ceil(1000))
        ),
    ] {
        assert!(manual.contains(&row), "docs/operations.md: {row}");
    }
    // The policy is what a vendor's console takes.
    let policies: Vec<serde_json::Value> = blocks_indented(&manual, "json");
    let allowed: Vec<_> = policies
        .iter()
        .flat_map(|policy| policy["Statement"].as_array().expect("statements"))
        .flat_map(|statement| match &statement["Action"] {
            serde_json::Value::Array(actions) => actions.clone(),
            action => vec![action.clone()],
        })
        .collect();
    assert_eq!(allowed, ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:ListBucket"]);
}

/// The fenced blocks of a language that belong to items of a list, parsed.
fn blocks_indented(text: &str, language: &str) -> Vec<serde_json::Value> {
    let fence = format!("   ```{language}\n");
    let rest = text.split(&fence).skip(1);
    let blocks = rest.filter_map(|rest| rest.split_once("\n   ```").map(|(block, _)| block));
    blocks.map(|block| serde_json::from_str(block).expect("JSON")).collect()
}
