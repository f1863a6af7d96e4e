//! The only file of this room that touches the file system.

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
#[cfg(unix)]
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

/// Most bytes of a file of credentials or of this room's own.
const MOST_TEXT: u64 = 1 << 20;

/// Bytes of one part of a file in memory: many small allocations, since a large one may not be found.
const PART: usize = 1 << 20;

pub(super) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(MOST_TEXT).read_to_string(&mut text)?;
    Ok(text)
}

/// A file in parts; `None` when it has more than `most` bytes.
pub(super) fn read_parts(path: &Path, most: u64) -> io::Result<Option<Vec<Bytes>>> {
    let file = fs::File::open(path)?;
    let len = file.metadata()?.len();
    if len > most { Ok(None) } else { read_range(&file, 0, len).map(Some) }
}

/// A range of a file in parts.
pub(super) fn read_range(mut file: &fs::File, from: u64, len: u64) -> io::Result<Vec<Bytes>> {
    file.seek(SeekFrom::Start(from))?;
    let mut left = len;
    let mut parts = Vec::with_capacity(len.div_ceil(PART as u64) as usize);
    while left > 0 {
        let mut part = vec![0; left.min(PART as u64) as usize];
        file.read_exact(&mut part)?;
        left -= part.len() as u64;
        parts.push(part.into());
    }
    Ok(parts)
}

/// Empties a file that is written again.
pub(super) fn empty(mut file: &fs::File) -> io::Result<()> {
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0)).map(drop)
}

/// How long ago a file was written, by the wall clock; `None` where there is none. Zero when the clock was set back since.
pub(super) fn age(path: &Path) -> Option<Duration> {
    let written = fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?;
    Some(written.elapsed().unwrap_or_default())
}

/// Removes what interrupted writes of the object store's client have left in a directory: files `<name>#<number>`, which it
/// never lists, older than `least`. What cannot be removed stays.
pub(super) fn remove_staged(dir: &Path, least: Duration) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| Some(name.rsplit_once('#')?.1));
        let staged = number.is_some_and(|number| number.parse::<u64>().is_ok());
        if staged && age(&path).is_some_and(|age| age >= least) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Replaces a file, which only the owner may read: whole or not at all, also after a power cut.
pub(super) fn replace(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().unwrap_or_else(|| Path::new("."));
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    builder.mode(0o700);
    builder.recursive(true).create(dir)?;
    let aside = path.with_extension("json.new");
    // A crash may have left one, perhaps with other permissions.
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    #[cfg(unix)]
    options.mode(0o600);
    let mut file = options.write(true).create_new(true).open(&aside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    // Makes the rename durable. Windows cannot sync a directory, and writes names through.
    #[cfg(unix)]
    fs::File::open(dir)?.sync_all()?;
    Ok(())
}
