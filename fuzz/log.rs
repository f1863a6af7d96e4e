//! The store's directory with anything in it: it opens, or it is refused; what was safe before the damage is
//! there; nothing panics. The index is LMDB's own file and stays whole.

use durable_streams_engine::store::Store;
use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    io,
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use durable_streams_engine::store::{
    AnyStore, Commit, CommitSink, EventPlace, FileStore, FileStoreOptions, LoadFor, StoreError,
    file::disk::{Disk, DiskFile},
};
use durable_streams_protocol::{
    Appended, ContentType, Created, Expiry, StreamEvent, StreamPath, StreamState, Timestamp,
};

type Files = BTreeMap<PathBuf, Vec<u8>>;
/// A file's bytes, whatever its name is now.
type File = Arc<Mutex<Vec<u8>>>;

/// Files in memory.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<PathBuf, File>>>);

struct Open(File);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while it is locked")
}

impl Memory {
    fn of(files: Files) -> Self {
        let files = files.into_iter().map(|(path, bytes)| (path, Arc::new(Mutex::new(bytes))));
        Memory(Arc::new(Mutex::new(files.collect())))
    }

    fn files(&self) -> Files {
        self.with(|files| {
            files.iter().map(|(path, file)| (path.clone(), lock(file).clone())).collect()
        })
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<PathBuf, File>) -> T) -> T {
        act(&mut lock(&self.0))
    }
}

impl Disk for Memory {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        // LMDB writes to the real one.
        fs::create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let name = |path: &PathBuf| Some(path.file_name()?.to_string_lossy().into_owned());
        let inside = |path: &&PathBuf| path.parent() == Some(dir);
        Ok(self.with(|files| files.keys().filter(inside).filter_map(name).collect()))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.with(|files| files.get(path).cloned());
        file.map(|file| lock(&file).clone()).ok_or(io::ErrorKind::NotFound.into())
    }

    fn open(&self, path: &Path, create: bool) -> io::Result<Box<dyn DiskFile>> {
        self.with(|files| match files.contains_key(path) {
            false if !create => Err(io::ErrorKind::NotFound.into()),
            _ => Ok(Box::new(Open(files.entry(path.to_owned()).or_default().clone())) as _),
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.with(|files| {
            let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
            files.insert(to.to_owned(), file);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.with(|files| files.remove(path)).map(drop).ok_or(io::ErrorKind::NotFound.into())
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Option<Box<dyn Send + Sync>>> {
        Ok(Some(Box::new(())))
    }
}

impl Open {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        act(&mut lock(&self.0))
    }
}

impl DiskFile for Open {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|file| file.len()) as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        Ok(self.with(|file| {
            let rest = file.get(offset as usize..).unwrap_or(&[]);
            let len = rest.len().min(out.len());
            out[..len].copy_from_slice(&rest[..len]);
            len
        }))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        self.with(|file| {
            file.resize(file.len().max(end), 0);
            file[start..end].copy_from_slice(bytes);
        });
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.with(|file| file.resize(file.len().max(len as usize), 0));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

struct Deaf;

impl CommitSink for Deaf {
    fn committed(&self, _: u64) {}

    fn failed(&self, version: u64, error: StoreError) {
        panic!("event {version}: {error}");
    }
}

/// For what needs no thread to be done.
fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("it waits for something"),
    }
}

fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        // One per process, and found again by none.
        let dir = base.join(format!("ds-fuzz-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    })
}

/// Removes what the checks have put on the disk.
pub(crate) fn clean_up() {
    let _ = fs::remove_dir_all(directory());
}

fn open(disk: &Memory) -> Result<AnyStore, StoreError> {
    let mut options = FileStoreOptions::new(directory());
    (options.wal_segment, options.map_size, options.cache) = (512, 1 << 20, 0);
    FileStore::open_on(Arc::new(disk.clone()), options).map(AnyStore::File)
}

/// The only stream's state and text, if it is there.
fn stream(store: &AnyStore) -> Option<(StreamState, String)> {
    let path = StreamPath::new("s").expect("a path");
    let state = now(store.load(&path, LoadFor::Bytes)).expect("a whole log loads")?.state;
    let mut text = Vec::new();
    let mut at = state.core.own_start();
    while at < state.tail {
        let pieces = now(store.read(state.core.id, at, state.tail, 1 << 16)).expect("it reads");
        let got: usize = pieces.iter().map(Bytes::len).sum();
        assert!(got > 0, "nothing at {at} although the tail is {}", state.tail);
        pieces.iter().for_each(|piece| text.extend_from_slice(piece));
        at = at.advance(got as u64);
    }
    Some((state, String::from_utf8_lossy(&text).into_owned()))
}

/// Commits events in one write. The text of event n is the n-th letter, more than once.
fn batch(store: &AnyStore, numbers: std::ops::Range<usize>) {
    let AnyStore::File(file) = store else { panic!("a file store") };
    let known = stream(store).map(|(state, _)| state);
    let mut id = known.as_ref().map(|state| state.core.id);
    let mut next = known.as_ref().map_or_else(EventPlace::default, EventPlace::behind);
    for number in numbers {
        let data = Bytes::from(letters(number));
        let at = Timestamp::from_millis(1);
        let event = match id {
            Some(_) => StreamEvent::Appended(Appended {
                at,
                data,
                terminators: 0,
                producer: None,
                stream_seq: None,
                close: false,
            }),
            None => StreamEvent::Created(Box::new(Created {
                at,
                path: StreamPath::new("s").expect("a path"),
                content_type: ContentType::default(),
                expiry: Expiry::Never,
                expiry_inherited: false,
                fork: None,
                incarnation: 0,
                closed: false,
                public: false,
                earliest: durable_streams_protocol::Offset::ZERO,
                data,
            })),
        };
        let id = *id.get_or_insert_with(|| store.next_id());
        let (epoch, version, place) = (store.epoch(), number as u64, next);
        next = place.after(&event);
        let commit = Commit { id, event, place, epoch, version, sink: Arc::new(Deaf) };
        store.commit(commit).expect("accepted");
    }
    assert!(file.step());
}

fn letters(number: usize) -> String {
    let letter = char::from(b'a' + number as u8);
    letter.to_string().repeat(1 + number * 37 % 150)
}

/// A good log, where each of its events ends, and how many the last write had.
struct Good {
    files: Files,
    segments: Vec<PathBuf>,
    /// Segment and end, in order.
    events: Vec<(usize, usize)>,
    last_batch: usize,
}

fn good() -> &'static Good {
    static GOOD: OnceLock<Good> = OnceLock::new();
    GOOD.get_or_init(|| {
        let disk = Memory::default();
        let store = open(&disk).expect("an empty directory opens");
        for numbers in [0..1, 1..4, 4..5, 5..9, 9..10, 10..12, 12..15] {
            batch(&store, numbers);
        }
        drop(store);
        let files = disk.files();
        let is_segment = |path: &&PathBuf| path.extension().is_some_and(|ext| ext == "wal");
        let segments: Vec<_> = files.keys().filter(is_segment).cloned().collect();
        assert!(segments.len() >= 3, "{segments:?}");
        let mut events = Vec::new();
        for (segment, path) in segments.iter().enumerate() {
            let bytes = &files[path];
            let mut at = 32;
            while bytes.get(at..at + 4) == Some(b"DSf2") {
                let len = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().expect("four"));
                at += 52 + len as usize;
                events.push((segment, at));
            }
        }
        assert_eq!(events.len(), 15);
        Good { files, segments, events, last_batch: 3 }
    })
}

/// The text of the first `count` events.
fn text(count: usize) -> String {
    (0..count).map(letters).collect()
}

/// How many whole events a text is; panics when it is something else.
fn events_in(found: &str) -> usize {
    let count = (0..=15).find(|count| text(*count) == found);
    count.unwrap_or_else(|| panic!("no beginning of what was written: {found:?}"))
}

/// Opens what is on a disk; gives the text that is there. A store that opens also takes an event.
fn reopen(disk: &Memory) -> Option<String> {
    let store = match open(disk) {
        Ok(store) => store,
        Err(StoreError::Corrupt { found, .. }) | Err(StoreError::Format { found, .. }) => {
            assert!(!found.is_empty(), "a refusal says what is wrong");
            return None;
        }
        Err(other) => panic!("neither damage nor a foreign directory: {other}"),
    };
    let found = stream(&store);
    if let Some((state, _)) = &found
        && state.closed.is_none()
    {
        batch(&store, 20..21);
        let after = stream(&store).expect("it was there").1;
        drop(store);
        let again = open(disk).expect("what was opened once opens again");
        assert_eq!(stream(&again).expect("it was there").1, after);
    }
    Some(found.map_or_else(String::new, |(_, text)| text))
}

/// Any bytes as a segment: as all of the file, or behind a good header.
pub(crate) fn segment(input: &[u8]) {
    let Some((kind, bytes)) = input.split_first() else { return };
    let good = good();
    let mut files = good.files.clone();
    files.retain(|path, _| !good.segments[1..].contains(path));
    let first = files.get_mut(&good.segments[0]).expect("the first segment");
    match kind % 3 {
        0 => *first = bytes.to_vec(),
        1 => {
            first.truncate(32);
            first.extend_from_slice(bytes);
        }
        _ => {
            let version = files.keys().find(|path| path.ends_with("VERSION")).cloned();
            files.insert(version.expect("it is there"), bytes.to_vec());
        }
    }
    reopen(&Memory::of(files));
}

/// Changes to a good log, four bytes each: what, which segment, where.
pub(crate) fn recovery(input: &[u8]) {
    let good = good();
    let mut files = good.files.clone();
    // How many events come before the first change, and how many changes there are.
    let (mut safe, mut changes) = (good.events.len(), 0);
    for change in input.chunks_exact(4).take(8) {
        let [what, segment, high, low] = *change else { return };
        let segment = segment as usize % good.segments.len();
        let path = &good.segments[segment];
        let Some(file) = files.get_mut(path) else { continue };
        let at = usize::from(u16::from_be_bytes([high, low])) % good.files[path].len();
        let before = files_differ(file, at, what);
        match what % 4 {
            0 | 1 if at < file.len() => file[at] ^= what | 1,
            2 => file.truncate(at),
            3 if what > 200 => drop(files.remove(path)),
            _ if at < file.len() => file[at..].fill(0),
            _ => {}
        }
        if before {
            let at = if what % 4 == 3 && what > 200 { 0 } else { at };
            let whole =
                |(of, end): &&(usize, usize)| *of < segment || (*of == segment && *end <= at);
            safe = safe.min(good.events.iter().filter(whole).count());
            changes += 1;
        }
    }
    let Some(found) = reopen(&Memory::of(files)) else { return };
    let kept = events_in(&found);
    assert!(kept >= safe, "{kept} events are left, and {safe} were before any damage");
    if changes == 1 {
        let may_go = good.last_batch;
        assert!(
            kept + may_go >= good.events.len(),
            "{} events went without a word, and the last write had {may_go}",
            good.events.len() - kept
        );
    }
}

/// Whether a change at `at` can change anything that counts; bytes that were never written do not.
fn files_differ(file: &[u8], at: usize, what: u8) -> bool {
    what % 4 != 2 || at < file.len()
}
