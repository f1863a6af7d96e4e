//! The files of the page: in the binary as they are in the repository, compressed once when the page is switched on.

use std::fmt::Write as _;
use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use ring::digest::{Context, SHA256};

/// What every asset's path begins with.
const ROOT: &str = "/assets/";

/// Where the document has the hash.
const HASH: &str = "{hash}";

/// Bytes of the hash that are in a path.
const HASH_BYTES: usize = 8;

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_bytes!(concat!("assets/", $name)))),*]
    };
}

const DOCUMENT: &str = include_str!("assets/index.html");

const FILES: &[(&str, &[u8])] = files![
    "api.js",
    "base.css",
    "config_card.js",
    "details_tab.js",
    "dialog.js",
    "dom.js",
    "follower.js",
    "format.js",
    "hex.js",
    "icon.svg",
    "inspector.js",
    "job_card.js",
    "jobs_card.js",
    "json_text.js",
    "log_level_card.js",
    "main.js",
    "message_list.js",
    "messages.js",
    "messages_tab.js",
    "overview_view.js",
    "plot.js",
    "prefix_deletion.js",
    "ring.js",
    "route.js",
    "search.js",
    "server.css",
    "server_status.js",
    "server_view.js",
    "session.js",
    "shortcuts.js",
    "sign_in_view.js",
    "sse.js",
    "stream_actions.js",
    "stream_filters.js",
    "stream_view.js",
    "streams_view.js",
    "subscriptions_view.js",
    "tenant_choice.js",
    "text.js",
    "tree_model.js",
    "tree_view.js",
    "upstream_table.js",
    "views.css",
    "virtual_list.js",
];

/// One file, in both codings.
pub(super) struct PageAsset {
    name: &'static str,
    pub(super) media_type: &'static str,
    pub(super) plain: Vec<u8>,
    /// With gzip.
    pub(super) compressed: Vec<u8>,
}

impl PageAsset {
    fn new(name: &'static str, plain: Vec<u8>) -> Self {
        let media_type = match name.rsplit('.').next() {
            Some("html") => "text/html; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => "text/javascript; charset=utf-8",
        };
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        // A vector takes every write.
        let written = encoder.write_all(&plain).and_then(|()| encoder.finish());
        PageAsset { name, media_type, plain, compressed: written.unwrap_or_default() }
    }
}

/// All of them.
pub(super) struct PageAssets {
    hash: String,
    document: PageAsset,
    files: Vec<PageAsset>,
}

impl PageAssets {
    pub(super) fn new() -> Self {
        let hash = hash();
        let document = PageAsset::new("index.html", DOCUMENT.replace(HASH, &hash).into_bytes());
        let files = FILES.iter().map(|(name, bytes)| PageAsset::new(name, bytes.to_vec()));
        PageAssets { document, files: files.collect(), hash }
    }

    pub(super) fn document(&self) -> &PageAsset {
        &self.document
    }

    /// The document's entity tag.
    pub(super) fn tag(&self) -> String {
        format!("\"{}\"", self.hash)
    }

    /// What `/assets/{hash}/{name}` names.
    pub(super) fn find(&self, path: &str) -> Option<&PageAsset> {
        let rest = path.strip_prefix(ROOT)?.strip_prefix(self.hash.as_str())?;
        let name = rest.strip_prefix('/')?;
        self.files.iter().find(|file| file.name == name)
    }
}

/// Of all files with their names, and of the document.
fn hash() -> String {
    let mut context = Context::new(&SHA256);
    context.update(DOCUMENT.as_bytes());
    for (name, bytes) in FILES {
        context.update(name.as_bytes());
        context.update(&(bytes.len() as u64).to_be_bytes());
        context.update(bytes);
    }
    let digest = context.finish();
    digest.as_ref().iter().take(HASH_BYTES).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    fn folder() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/page/assets")
    }

    #[test]
    fn every_file_of_the_folder_is_served() {
        let there = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name());
        let there: BTreeSet<String> = there.map(|name| name.into_string().unwrap()).collect();
        let served = FILES.iter().map(|(name, _)| (*name).to_owned());
        assert_eq!(there, served.chain(["index.html".to_owned()]).collect());
    }

    #[test]
    fn a_file_is_found_under_the_hash_only() {
        let assets = PageAssets::new();
        let hash = &assets.hash;
        assert_eq!(hash.len(), 2 * HASH_BYTES);
        assert!(assets.find(&format!("/assets/{hash}/main.js")).is_some());
        for path in ["/assets/main.js", "/assets//main.js", "/assets/0123456789abcdef/main.js"] {
            assert!(assets.find(path).is_none(), "{path}");
        }
        assert!(assets.find(&format!("/assets/{hash}/../main.js")).is_none());
    }

    /// What a stream holds must stay text: the scripts build elements and text nodes, and never parse markup or code.
    #[test]
    fn no_script_makes_markup_of_text() {
        let forbidden = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "createContextualFragment",
            "DOMParser",
            "setHTML",
            "srcdoc",
            "eval(",
            "new Function",
            "javascript:",
        ];
        for (name, bytes) in FILES {
            let text = std::str::from_utf8(bytes).unwrap();
            for word in forbidden {
                assert!(!text.contains(word), "{name} has {word}");
            }
            // The namespace of SVG is a name, and is never asked.
            let namespaces = text.matches("http://www.w3.org/2000/svg").count();
            assert_eq!(text.matches("://").count(), namespaces, "{name} names another host");
        }
        for word in ["<script>", "<style", " style=", " onclick", "://"] {
            assert!(!DOCUMENT.contains(word), "the document has {word}");
        }
    }

    #[test]
    fn what_a_script_imports_is_there() {
        let names: BTreeSet<&str> = FILES.iter().map(|(name, _)| *name).collect();
        for (name, bytes) in FILES.iter().filter(|(name, _)| name.ends_with(".js")) {
            let text = std::str::from_utf8(bytes).unwrap();
            for import in text.lines().filter(|line| line.contains(" from \"")) {
                let imported =
                    import.split(" from \"./").nth(1).and_then(|rest| rest.split('"').next());
                assert!(imported.is_some_and(|one| names.contains(one)), "{name}: {import}");
            }
        }
    }
}
