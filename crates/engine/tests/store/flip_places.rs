//! Which bytes of a data directory are of which kind, so that each kind has its share of flipped bits.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::Range,
    path::Path,
};

use crate::workload::Rng;

const PAGE: usize = 4096;

/// Bytes of files, by kind.
pub struct Places(Vec<(&'static str, Vec<FileRange>)>);

type FileRange = (String, Range<usize>);

fn word(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()))
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// Pages in use, each with its kind: LMDB's format, read in the simplest way.
fn pages(file: &[u8]) -> BTreeMap<usize, &'static str> {
    let newest = if number(file, 16 + 128) > number(file, PAGE + 16 + 128) { 0 } else { PAGE };
    let mut pages = BTreeMap::from([(0, "meta page"), (1, "meta page")]);
    let mut left = vec![(number(file, newest + 16 + 24 + 40), "free list")];
    left.push((number(file, newest + 16 + 72 + 40), "list of databases"));
    while let Some((root, kind)) = left.pop() {
        if root == u64::MAX {
            continue;
        }
        let at = root as usize * PAGE;
        let branch = word(file, at + 10) == 1;
        pages.insert(root as usize, if branch { "branch page" } else { kind });
        for pointer in (at + 16..at + word(file, at + 12)).step_by(2) {
            let node = at + word(file, pointer);
            let (low, flags) = (number(file, node) as u32, word(file, node + 4));
            let value = node + 8 + word(file, node + 6);
            if branch {
                left.push((u64::from(low) | (flags as u64) << 32, kind));
            } else if flags & 2 != 0 {
                left.push((number(file, value + 40), "leaf page"));
            } else if flags & 1 != 0 {
                let (first, count) =
                    (number(file, value) as usize, (low as usize + 16).div_ceil(PAGE));
                let kind = if kind == "free list" { kind } else { "overflow page" };
                pages.extend((first..first + count).map(|page| (page, kind)));
            }
        }
    }
    pages
}

impl Places {
    pub fn of(dir: &Path) -> Self {
        let mut places: BTreeMap<&'static str, Vec<FileRange>> = BTreeMap::new();
        let index = "store/data.mdb";
        let file = fs::read(dir.join(index)).unwrap();
        let used = pages(&file);
        for page in 0..file.len() / PAGE {
            let at = page * PAGE;
            let kind = used.get(&page).copied().unwrap_or("free page");
            let mut add = |kind, range| places.entry(kind).or_default().push((index.into(), range));
            match kind {
                "meta page" => add(kind, at..at + 16 + 136),
                "branch page" | "leaf page" => {
                    let (lower, upper) = (word(&file, at + 12), word(&file, at + 14));
                    let header = if kind == "branch page" {
                        "branch page, header"
                    } else {
                        "leaf page, header"
                    };
                    add(header, at..at + lower);
                    add(kind, at + upper..at + PAGE);
                }
                "overflow page"
                    if word(&file, at + 10) == 4 && number(&file, at) == page as u64 =>
                {
                    add("overflow page, header", at..at + 16);
                    add(kind, at + 16..at + PAGE);
                }
                _ => add(kind, at..at + PAGE),
            }
        }
        let segments: BTreeSet<String> = fs::read_dir(dir.join("wal"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let last = segments.iter().rfind(|name| name.ends_with(".wal")).unwrap().clone();
        for name in segments {
            let file = format!("wal/{name}");
            let bytes = fs::read(dir.join(&file)).unwrap();
            let len = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            let kind = match name.as_str() {
                "spare" => "log, spare file",
                "reserve" => "log, reserve",
                "end" => "log, end mark",
                name if *name == last => "log, active segment",
                _ => "log, sealed segment",
            };
            if len > 0 {
                places.entry(kind).or_default().push((file, 0..len));
            }
        }
        let sealed = fs::read_dir(dir.join("segments")).unwrap();
        for name in sealed.map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
            let file = format!("segments/{name}");
            let bytes = fs::read(dir.join(&file)).unwrap();
            let footer = number(&bytes, bytes.len() - 48) as usize;
            let mut add = |kind, range| places.entry(kind).or_default().push((file.clone(), range));
            add("segment, header", 0..32);
            add("segment, data", 32..footer);
            add("segment, footer", footer..bytes.len());
        }
        for name in ["VERSION", "LOCK", "store/lock.mdb"] {
            let len = fs::metadata(dir.join(name)).map_or(0, |file| file.len() as usize);
            if len > 0 {
                places.entry("other files").or_default().push((name.into(), 0..len));
            }
        }
        Places(places.into_iter().collect())
    }

    /// A kind in turn, and a byte and a bit of it by chance.
    pub fn choose(&self, rng: &mut Rng, turn: u64) -> (&'static str, String, usize, u64) {
        let (kind, ranges) = &self.0[turn as usize % self.0.len()];
        let (file, range) = &ranges[rng.below(ranges.len() as u64) as usize];
        let at = range.start + rng.below(range.len() as u64) as usize;
        (kind, file.clone(), at, rng.below(8))
    }
}
