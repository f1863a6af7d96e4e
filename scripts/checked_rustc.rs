//! Compiles a crate of this workspace with clippy's lints, and documents it. A warning of either is an error.
//!
//! scripts/test names it in `RUSTC_WORKSPACE_WRAPPER`: cargo runs it with the path of rustc and rustc's arguments.
//! `cargo clippy` and `cargo doc` find the same. They also check every dependency, which is compiled for the tests anyway.
//! No shell script, since dash does not hand on `CARGO_BIN_EXE_durable-streams-server`.

use std::env;
use std::path::Path;
use std::process::{Command, exit};

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    run(Command::new("clippy-driver").args(&arguments).args(["-D", "warnings"]));
    if let Some((rustc, arguments)) = arguments.split_first()
        && is_documented(arguments)
    {
        run(&mut documentation(rustc, arguments));
    }
}

/// Libraries and binaries have documentation. Tests, examples, build scripts and what cargo asks rustc have none.
fn is_documented(arguments: &[String]) -> bool {
    let has = |wanted: &dyn Fn(&str) -> bool| arguments.iter().any(|argument| wanted(argument));
    has(&|a| a.starts_with("--emit=") && a.contains("link"))
        && !has(&|a| a == "--test" || a == "build_script_build")
        && !has(&|a| Path::new(a).parent().is_some_and(|folder| folder.ends_with("examples")))
}

/// rustdoc for the same crate with the same dependencies.
fn documentation(rustc: &str, arguments: &[String]) -> Command {
    let mut rustdoc = Command::new(Path::new(rustc).with_file_name("rustdoc"));
    let mut option = "";
    for argument in arguments.iter().filter(|argument| !argument.starts_with("--emit=")) {
        if option == "--out-dir" {
            rustdoc.arg(Path::new(argument).with_file_name("documented"));
        } else {
            rustdoc.arg(argument);
        }
        if option == "--crate-type" && argument == "bin" {
            // All of a binary is private.
            rustdoc.arg("--document-private-items");
        }
        option = argument;
    }
    rustdoc.args(["-D", "warnings"]);
    rustdoc
}

/// Ends this process where the command fails.
fn run(command: &mut Command) {
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => exit(status.code().unwrap_or(1)),
        Err(error) => {
            eprintln!("{}: {error}", command.get_program().display());
            exit(1)
        }
    }
}
