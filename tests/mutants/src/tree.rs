//! A copy of the tracked files, in which the sources of one package are rewritten.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::{Options, Result};

pub(crate) struct Tree {
    /// Its root.
    pub(crate) path: PathBuf,
    /// The folder of the package, relative to the root.
    pub(crate) package: String,
    /// The root of the package's library, relative to the root.
    pub(crate) library: String,
    /// The sources of the package as they are in the repository.
    sources: HashMap<String, String>,
}

impl Tree {
    /// Brings the copy up to date. What did not change keeps its time, so that cargo compiles only what did.
    pub(crate) fn copy(options: &Options) -> Result<Self> {
        let path = options.out.join("tree");
        let (package, library) = package(options)?;
        let files = tracked(&options.root)?;
        let below = format!("{package}/src/");
        let mut sources = HashMap::new();
        for file in &files {
            let bytes = fs::read(options.root.join(file))?;
            if file.starts_with(&below) && file.ends_with(".rs") {
                sources.insert(file.clone(), String::from_utf8(bytes)?);
            } else {
                write(&path.join(file), &bytes)?;
            }
        }
        let kept: HashSet<PathBuf> = files.iter().map(|file| path.join(file)).collect();
        remove_others(&path, &kept)?;
        Ok(Tree { path, package, library, sources })
    }

    /// The source of `file` as it is in the repository.
    pub(crate) fn source(&self, file: &str) -> Result<&str> {
        Ok(self.sources.get(file).ok_or_else(|| format!("{file} is no source of the package"))?)
    }

    /// The package's files and what they hold, in the order of their names.
    pub(crate) fn sources(&self) -> Vec<(&str, &str)> {
        let sources = self.sources.iter();
        let mut sources: Vec<_> =
            sources.map(|(file, text)| (file.as_str(), text.as_str())).collect();
        sources.sort_unstable();
        sources
    }

    pub(crate) fn write(&self, file: &str, text: &str) -> Result<()> {
        write(&self.path.join(file), text.as_bytes())
    }
}

/// The folder of the package and the root of its library, relative to the root.
fn package(options: &Options) -> Result<(String, String)> {
    let package = metadata(&options.root, &options.package)?;
    let folder = folder(&options.root, &package)?;
    if folder.is_empty() {
        return Err("the root's package cannot be done".into());
    }
    let targets = package["targets"].as_array().ok_or("a package without targets")?;
    let library = targets
        .iter()
        .find(|target| target["kind"][0] == "lib")
        .ok_or("the package has no library")?;
    Ok((folder, relative(&options.root, &library["src_path"])?))
}

/// The folder of a package, relative to the root.
pub(crate) fn folder_of(root: &Path, package: &str) -> Result<String> {
    folder(root, &metadata(root, package)?)
}

fn folder(root: &Path, package: &Value) -> Result<String> {
    let manifest = relative(root, &package["manifest_path"])?;
    Ok(manifest.trim_end_matches("Cargo.toml").trim_end_matches('/').to_owned())
}

fn relative(root: &Path, path: &Value) -> Result<String> {
    let path = Path::new(path.as_str().ok_or("a package without a path")?);
    Ok(path.strip_prefix(root)?.to_string_lossy().into_owned())
}

/// What cargo says about a package.
fn metadata(root: &Path, package: &str) -> Result<Value> {
    let output = Command::new("cargo")
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked"])
        .current_dir(root)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().ok_or("cargo metadata names no packages")?;
    let found = packages.iter().find(|known| known["name"] == package);
    Ok(found.ok_or_else(|| format!("no package {package}"))?.clone())
}

fn tracked(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(root).output()?;
    let files = String::from_utf8(output.stdout)?;
    let files: Vec<String> =
        files.split('\0').filter(|file| root.join(file).is_file()).map(str::to_owned).collect();
    if files.is_empty() { Err("git lists no files".into()) } else { Ok(files) }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|now| now == bytes) {
        return Ok(());
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    Ok(fs::write(path, bytes)?)
}

/// Removes files that are no longer tracked: a test that is gone would still be compiled.
fn remove_others(folder: &Path, kept: &HashSet<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, kept)?;
        } else if !kept.contains(&path) {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}
