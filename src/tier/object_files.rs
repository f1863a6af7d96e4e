//! The objects of segments as files, for commands: without a claim, so nothing is changed in the object store.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use durable_streams_engine::store::file::disk::DiskFile;
use durable_streams_engine::store::file::segments::cold::ColdError;
use durable_streams_engine::store::file::segments::format::file_name;
use durable_streams_engine::store::file::segments::object_files::SegmentObjects;
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::time::Instant;

use super::TierOptions;
use super::claim;
use super::connect::{self, TierSetupError};
use super::counters::TierCounters;
use super::identity_file::{IdentityError, TierIdentity};
use super::object_cold_store::ObjectColdStore;

/// Bytes that are read at once; one such piece of each open object is in memory.
const PIECE: u64 = 4 << 20;

/// The objects of a data directory's segments.
pub struct ObjectFiles {
    shared: Arc<ObjectReads>,
    prefix: String,
}

/// The objects cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ObjectFilesError {
    /// The client cannot be made.
    #[error(transparent)]
    Setup(#[from] TierSetupError),
    /// The file of the identity cannot be read.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The directory has never had an object store.
    #[error("{0} has no keys/tier.json: no server has moved its segments to an object store")]
    NoIdentity(String),
    /// Requests cannot be made.
    #[error("cannot start the threads that talk to the object store: {0}")]
    Start(#[from] io::Error),
}

struct ObjectReads {
    store: Arc<ObjectColdStore>,
    runtime: Runtime,
}

impl ObjectFiles {
    /// The objects of the segments of a data directory, or of a backup of one.
    ///
    /// # Errors
    /// [`ObjectFilesError`]; nothing was connected to yet.
    pub fn of_directory(options: TierOptions, data_dir: &Path) -> Result<Self, ObjectFilesError> {
        let identity = TierIdentity::read(&TierIdentity::file(data_dir))?;
        let none = || ObjectFilesError::NoIdentity(data_dir.display().to_string());
        let identity = identity.ok_or_else(none)?;
        let client = connect::connect(&options)?;
        let store =
            Arc::new(ObjectColdStore::new(client, options, Arc::new(TierCounters::default())));
        if identity.epoch > 0 {
            // Where it is not, the place is another one, and no object is missing.
            store.expect(claim::name(identity.epoch));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("tier")
            .enable_all()
            .build()?;
        let shared = Arc::new(ObjectReads { store, runtime });
        Ok(ObjectFiles { shared, prefix: claim::segment_prefix(&identity.identity) })
    }
}

impl SegmentObjects for ObjectFiles {
    fn open(&self, number: u64) -> io::Result<Box<dyn DiskFile>> {
        let name = format!("{}{}", self.prefix, file_name(number));
        let ObjectReads { store, runtime } = &*self.shared;
        let size = runtime.block_on(store.size(&name, Instant::now() + patience(store)));
        let size = size.map_err(io_error)?;
        let (shared, piece) = (self.shared.clone(), Mutex::default());
        Ok(Box::new(ObjectFile { shared, name, size, piece }))
    }
}

/// How long a command waits for one answer: it has time.
fn patience(store: &ObjectColdStore) -> std::time::Duration {
    6 * store.options().read_timeout
}

fn io_error(error: ColdError) -> io::Error {
    match error {
        ColdError::NotFound => io::ErrorKind::NotFound.into(),
        error => io::Error::other(error.to_string()),
    }
}

/// An object that is open for reads.
struct ObjectFile {
    shared: Arc<ObjectReads>,
    name: String,
    size: u64,
    /// The piece that was read last, and where it begins.
    piece: Mutex<(u64, Bytes)>,
}

impl ObjectFile {
    /// Bytes at a place: some, but for the end.
    fn some_at(&self, offset: u64) -> io::Result<Bytes> {
        let mut piece = self.piece.lock();
        let (start, bytes) = &*piece;
        let skip = offset.checked_sub(*start).filter(|skip| *skip < bytes.len() as u64);
        if let Some(skip) = skip {
            return Ok(bytes.slice(skip as usize..));
        }
        let range = offset..self.size.min(offset + PIECE);
        let ObjectReads { store, runtime } = &*self.shared;
        let read = store.range(&self.name, range, Instant::now() + patience(store));
        let bytes = runtime.block_on(read).map_err(io_error)?;
        *piece = (offset, bytes.clone());
        Ok(bytes)
    }
}

fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "an object never changes")
}

impl DiskFile for ObjectFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.size)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = offset + done as u64;
            if at >= self.size {
                break;
            }
            let bytes = self.some_at(at)?;
            let len = bytes.len().min(rest.len());
            rest[..len].copy_from_slice(&bytes[..len]);
            done += len;
        }
        Ok(done)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(refused())
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Err(refused())
    }

    fn sync(&self) -> io::Result<()> {
        Err(refused())
    }
}
