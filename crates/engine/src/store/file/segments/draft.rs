//! Writing a segment file so that it is durable before anything references it.

use std::path::PathBuf;

use durable_streams_protocol::StreamId;

use super::{
    check::check_file,
    files::SegmentFiles,
    format::{HEADER, SegmentWriter, header},
};
use crate::store::{
    MessageForm, StoreError,
    file::{
        disk::DiskFile,
        error::io_error,
        index::extents::{ExtentRecord, NewExtent, NewSegment, SegmentPlace, SegmentRecord},
    },
};

/// Bytes after which the file is synced while it is written, so that the log's syncs do not wait for all of it.
const SYNC_EVERY: u64 = 4 << 20;

/// A segment file that is being written. Dropping it unfinished removes it.
pub(in crate::store::file) struct SegmentDraft<'f> {
    files: &'f SegmentFiles,
    number: u64,
    path: PathBuf,
    file: Box<dyn DiskFile>,
    writer: SegmentWriter,
    extents: Vec<NewExtent>,
    unsynced: u64,
    finished: bool,
}

impl<'f> SegmentDraft<'f> {
    pub(in crate::store::file) fn begin(files: &'f SegmentFiles) -> Result<Self, StoreError> {
        let number = files.next_number();
        let path = files.new_path(number);
        let file = files.disk().open(&path, true).map_err(io_error("create", &path))?;
        let (writer, extents) = (SegmentWriter::new(number), Vec::new());
        let draft = SegmentDraft {
            files,
            number,
            path,
            file,
            writer,
            extents,
            unsynced: 0,
            finished: false,
        };
        draft.put(0, &header(number))?;
        Ok(draft)
    }

    fn put(&self, at: u64, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_at(at, bytes).map_err(io_error("write", &self.path))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.file.sync().map_err(io_error("sync", &self.path))
    }

    /// Whether the file is to be begun again with all of it in the [stored form](MessageForm::Stored).
    pub(in crate::store::file) fn has_tiny_messages(&self) -> bool {
        self.writer.has_tiny_messages()
    }

    /// Bytes of data so far.
    pub(in crate::store::file) fn len(&self) -> u64 {
        self.writer.position() - HEADER as u64
    }

    /// Begins an extent; `replaces` is the extent that has its bytes now.
    pub(in crate::store::file) fn begin_extent(
        &mut self,
        id: StreamId,
        start: u64,
        append_lens: Vec<u8>,
        form: MessageForm,
        replaces: Option<ExtentRecord>,
    ) {
        let offset = self.writer.position();
        self.writer.begin_extent(id.0, start, append_lens, form);
        let extent = ExtentRecord { start, end: start, file: self.number, offset, crc: None };
        self.extents.push(NewExtent { id, extent, replaces });
    }

    /// Writes the next bytes of the last extent.
    pub(in crate::store::file) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let at = self.writer.position();
        let written = self.writer.push(bytes);
        self.put(at, &written)?;
        if let Some(NewExtent { extent, .. }) = self.extents.last_mut() {
            extent.end += bytes.len() as u64;
            extent.crc = Some(self.writer.extent_crc());
        }
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            self.sync()?;
        }
        Ok(())
    }

    /// Writes the footer, syncs the file, reads it back, and puts it durably under its name.
    ///
    /// # Errors
    /// The file is removed then.
    pub(in crate::store::file) fn finish(mut self) -> Result<NewSegment, StoreError> {
        let (at, data) = (self.writer.position(), self.len());
        let writer = std::mem::replace(&mut self.writer, SegmentWriter::new(self.number));
        let (end, footer) = writer.finish();
        self.put(at, &end)?;
        self.sync()?;
        let record = SegmentRecord {
            file_len: footer.file_len(),
            data,
            live: data,
            footer_crc: footer.trailer.footer_crc,
            place: SegmentPlace::Local,
            sealed_at: None,
        };
        let disk = self.files.disk();
        check_file(disk, &self.path, self.number, &record)?;
        let path = self.files.path(self.number);
        disk.rename(&self.path, &path).map_err(io_error("rename", &self.path))?;
        // From here on the name is the final one, and a failure leaves a file that nothing references.
        self.path = path;
        disk.sync_dir(self.files.dir()).map_err(io_error("sync", self.files.dir()))?;
        self.finished = true;
        Ok(NewSegment { number: self.number, record, extents: std::mem::take(&mut self.extents) })
    }
}

impl Drop for SegmentDraft<'_> {
    fn drop(&mut self) {
        if !self.finished {
            // What stays, the next start removes.
            let _ = self.files.disk().remove(&self.path);
        }
    }
}
