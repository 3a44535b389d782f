//! Where the bytes of a model live: a mapped file, memory of the caller's, or a private copy.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use memmap2::{Mmap, MmapOptions};

use crate::{CancelToken, Error, Result};

/// Bytes read, copied or touched between two looks at the cancel token: 40 ms at the 50 MB/s of a slow card.
const PIECE: usize = 2 << 20;

/// The smallest page in use anywhere; touching more often than the page size only costs a little.
const PAGE: usize = 4096;

/// A read-only run of bytes that a model is computed from, and the name that messages call it by.
///
/// Clones share the bytes. A mapped file stays mapped until the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Storage {
    name: Arc<str>,
    bytes: Arc<Bytes>,
}

#[derive(Debug)]
enum Bytes {
    /// The file stays open so that its length can be looked at; `file_len` is what it was when mapped.
    Mapped {
        map: Mmap,
        file: File,
        file_len: u64,
    },
    /// A mapping cannot be empty, so an empty range of a file comes here too.
    Shared(Arc<[u8]>),
    Owned(Vec<u8>),
    /// Somebody else's, until `_given_back` is dropped.
    #[cfg(feature = "capi")]
    Lent {
        bytes: &'static [u8],
        _given_back: OnDrop,
    },
}

/// Calls a function once, when dropped.
#[cfg(feature = "capi")]
pub(crate) struct OnDrop(Option<Box<dyn FnOnce() + Send + Sync>>);

#[cfg(feature = "capi")]
impl OnDrop {
    pub(crate) fn new(f: impl FnOnce() + Send + Sync + 'static) -> Self {
        OnDrop(Some(Box::new(f)))
    }
}

#[cfg(feature = "capi")]
impl Drop for OnDrop {
    fn drop(&mut self) {
        if let Some(f) = self.0.take() {
            f();
        }
    }
}

#[cfg(feature = "capi")]
impl std::fmt::Debug for OnDrop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnDrop")
    }
}

/// How the bytes are going to be read, for [`Storage::advise`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Advice {
    /// No special order: the system's default.
    Normal,
    /// From the beginning to the end: read far ahead.
    Sequential,
    /// In no order: do not read ahead.
    Random,
    /// Soon: begin to read now.
    WillNeed,
}

impl Storage {
    /// Maps a whole file.
    ///
    /// The pages are the system's page cache, shared with every other process that maps the file. If another
    /// process shortens the file during a pass the system raises SIGBUS; see [`Storage::check_unchanged`] and,
    /// for files that cannot be trusted, [`Storage::read`].
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the file cannot be opened or mapped, or is a directory.
    pub fn open(path: impl AsRef<Path>) -> Result<Storage> {
        let path = path.as_ref();
        let (file, name) = open_file(path)?;
        Self::map(file, name, 0, None)
    }

    /// Maps `len` bytes (or all that follow) from byte `offset` of an open file, which need not be a multiple of
    /// the page size. Takes a [`File`] or, on Unix, an `OwnedFd`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the file cannot be mapped, [`Error::InvalidOption`] when the range is not within it.
    pub fn from_file(file: impl Into<File>, offset: u64, len: Option<u64>) -> Result<Storage> {
        let file = file.into();
        let name = describe(&file, offset);
        Self::map(file, name, offset, len)
    }

    /// The same for a descriptor that stays the caller's, who may close it when this returns: it is duplicated.
    ///
    /// # Errors
    ///
    /// As [`Storage::from_file`], and [`Error::Io`] when the descriptor cannot be duplicated.
    #[cfg(unix)]
    pub fn from_fd(fd: std::os::fd::BorrowedFd<'_>, offset: u64, len: Option<u64>) -> Result<Storage> {
        use std::os::fd::AsRawFd;
        let name = format!("<descriptor {} from byte {offset}>", fd.as_raw_fd());
        let own = fd.try_clone_to_owned().map_err(|e| io_error(&name, "duplicate", e))?;
        Self::map(own.into(), name, offset, len)
    }

    /// Bytes in memory: a `Vec<u8>`, or an `Arc<[u8]>` that is shared with the caller. Nothing is copied.
    pub fn from_bytes(bytes: impl Into<MemoryBytes>) -> Storage {
        Self::new("<memory>".into(), bytes.into().0)
    }

    /// Bytes that somebody lends until `given_back` is dropped. Nothing is copied.
    ///
    /// # Safety
    /// `bytes` are valid and unchanged until then.
    #[cfg(feature = "capi")]
    pub(crate) unsafe fn lent(bytes: &[u8], given_back: OnDrop) -> Storage {
        // SAFETY: they live as long as `given_back`, which lies beside them and is dropped after the last use.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.as_ptr(), bytes.len()) };
        Self::new("<memory>".into(), Bytes::Lent { bytes, _given_back: given_back })
    }

    /// Copies a whole file into private memory, which later changes of the file do not reach.
    ///
    /// `progress` is told the bytes read and those there are, every few megabytes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], [`Error::OutOfMemory`], [`Error::Cancelled`], and [`Error::FileChanged`] when the file
    /// shrinks meanwhile.
    pub fn read(
        path: impl AsRef<Path>,
        cancel: &CancelToken,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Storage> {
        let (file, name) = open_file(path.as_ref())?;
        Self::copy(&file, name, 0, None, cancel, progress)
    }

    /// The same for `len` bytes (or all that follow) from byte `offset` of an open file.
    ///
    /// # Errors
    ///
    /// As [`Storage::read`], and [`Error::InvalidOption`] when the range is not within the file.
    pub fn read_file(
        file: &File,
        offset: u64,
        len: Option<u64>,
        cancel: &CancelToken,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Storage> {
        Self::copy(file, describe(file, offset), offset, len, cancel, progress)
    }

    /// The same bytes under another name in messages.
    pub fn with_name(self, name: impl Into<String>) -> Storage {
        Storage { name: name.into().into(), bytes: self.bytes }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match &*self.bytes {
            Bytes::Mapped { map, .. } => map,
            Bytes::Shared(b) => b,
            Bytes::Owned(b) => b,
            #[cfg(feature = "capi")]
            Bytes::Lent { bytes, .. } => bytes,
        }
    }

    /// What messages call it: the path, the descriptor, or `<memory>`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the bytes are pages of a file, shared with other processes, and not memory of this process.
    pub fn is_mapped(&self) -> bool {
        matches!(*self.bytes, Bytes::Mapped { .. })
    }

    /// Whether the mapped file is still as long as it was. Called before each pass: one system call, no
    /// allocation.
    ///
    /// # Errors
    ///
    /// [`Error::FileChanged`] when it is not, [`Error::Io`] when the system does not say.
    pub fn check_unchanged(&self) -> Result<()> {
        let Bytes::Mapped { file, file_len, .. } = &*self.bytes else { return Ok(()) };
        let found = file.metadata().map_err(|e| io_error(&self.name, "look at", e))?.len();
        if found != *file_len {
            return Err(Error::FileChanged { file: self.name.to_string(), expected: *file_len, found });
        }
        Ok(())
    }

    /// Tells the system how the mapped bytes will be read. A hint: memory that is not mapped, and systems without
    /// such hints, have nothing to do.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] with the system's refusal, which callers may ignore.
    pub fn advise(&self, advice: Advice) -> Result<()> {
        #[cfg(unix)]
        if let Bytes::Mapped { map, .. } = &*self.bytes {
            let advice = match advice {
                Advice::Normal => memmap2::Advice::Normal,
                Advice::Sequential => memmap2::Advice::Sequential,
                Advice::Random => memmap2::Advice::Random,
                Advice::WillNeed => memmap2::Advice::WillNeed,
            };
            map.advise(advice).map_err(|e| io_error(&self.name, "advise on", e))?;
        }
        #[cfg(not(unix))]
        let _ = advice;
        Ok(())
    }

    /// Keeps the mapped bytes in memory until the last clone is dropped or [`Storage::unlock`]. Reads what is not
    /// there yet, which cannot be cancelled: call [`Storage::read_ahead`] first.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the system refuses, usually for its limit on locked memory, and for bytes that are not
    /// mapped. All else works without the lock.
    pub fn lock(&self) -> Result<()> {
        #[cfg(unix)]
        if let Bytes::Mapped { map, .. } = &*self.bytes {
            return map.lock().map_err(|e| io_error(&self.name, "lock in memory", e));
        }
        Err(io_error(&self.name, "lock in memory", io::ErrorKind::Unsupported.into()))
    }

    /// Undoes [`Storage::lock`].
    ///
    /// # Errors
    ///
    /// As [`Storage::lock`].
    pub fn unlock(&self) -> Result<()> {
        #[cfg(unix)]
        if let Bytes::Mapped { map, .. } = &*self.bytes {
            return map.unlock().map_err(|e| io_error(&self.name, "unlock", e));
        }
        Err(io_error(&self.name, "unlock", io::ErrorKind::Unsupported.into()))
    }

    /// Reads a mapped file into the page cache, from its beginning to its end, so that the first pass need not
    /// wait for the disk page by page. `progress` is told the bytes done and those there are, every few megabytes.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`], and [`Error::FileChanged`] when the file is no longer as long as it was.
    pub fn read_ahead(&self, cancel: &CancelToken, progress: &mut dyn FnMut(u64, u64)) -> Result<()> {
        let bytes = self.as_slice();
        let total = bytes.len() as u64;
        let mut done = 0;
        for piece in bytes.chunks(PIECE) {
            cancel.check()?;
            if self.is_mapped() {
                self.check_unchanged()?;
                self.fetch(done, piece.len());
                for byte in piece.iter().step_by(PAGE) {
                    std::hint::black_box(*byte);
                }
            }
            done += piece.len();
            progress(done as u64, total);
        }
        Ok(())
    }

    /// Starts to read a piece and the next: one large request each, where touching alone makes many small ones.
    fn fetch(&self, start: usize, len: usize) {
        #[cfg(unix)]
        if let Bytes::Mapped { map, .. } = &*self.bytes {
            let len = (2 * len).min(map.len() - start);
            // A hint: the touching that follows reads the pages either way.
            let _ = map.advise_range(memmap2::Advice::WillNeed, start, len);
        }
        #[cfg(not(unix))]
        let _ = (start, len);
    }

    fn new(name: String, bytes: Bytes) -> Storage {
        Storage { name: name.into(), bytes: Arc::new(bytes) }
    }

    fn map(file: File, name: String, offset: u64, len: Option<u64>) -> Result<Storage> {
        let (file_len, len) = range(&file, &name, offset, len)?;
        if len == 0 {
            return Ok(Self::new(name, Bytes::Owned(Vec::new())));
        }
        // SAFETY: the mapping is read-only and private to this type, which hands out `&[u8]` bound to its own
        // life. What Rust cannot rule out is another process writing to the file meanwhile. Such bytes may change
        // between two reads: every reader here checks what it read, not what it might read again (no `&str` and
        // no length is kept as a reference into the map), and any byte is a valid block to the kernels. A file
        // that shrinks raises SIGBUS on access, which is documented, guarded by `check_unchanged` before each
        // pass, and avoided by `read`.
        let map = unsafe { MmapOptions::new().offset(offset).len(len).map(&file) }
            .map_err(|e| io_error(&name, "map", e))?;
        Ok(Self::new(name, Bytes::Mapped { map, file, file_len }))
    }

    fn copy(
        file: &File,
        name: String,
        offset: u64,
        len: Option<u64>,
        cancel: &CancelToken,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Storage> {
        let (file_len, len) = range(file, &name, offset, len)?;
        let mut bytes = crate::error::try_with_capacity(len, "a private copy of the file")?;
        while bytes.len() < len {
            cancel.check()?;
            let start = bytes.len();
            bytes.resize(len.min(start + PIECE), 0);
            let mut filled = start;
            while filled < bytes.len() {
                match read_at(file, &mut bytes[filled..], offset + filled as u64) {
                    Ok(0) => {
                        let found = offset + filled as u64;
                        return Err(Error::FileChanged { file: name, expected: file_len, found });
                    }
                    Ok(n) => filled += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(io_error(&name, "read", e)),
                }
            }
            progress(filled as u64, len as u64);
        }
        Ok(Self::new(name, Bytes::Owned(bytes)))
    }
}

/// What [`Storage::from_bytes`] takes.
#[derive(Debug)]
pub struct MemoryBytes(Bytes);

impl From<Vec<u8>> for MemoryBytes {
    fn from(bytes: Vec<u8>) -> Self {
        MemoryBytes(Bytes::Owned(bytes))
    }
}

impl From<Arc<[u8]>> for MemoryBytes {
    fn from(bytes: Arc<[u8]>) -> Self {
        MemoryBytes(Bytes::Shared(bytes))
    }
}

fn io_error(name: &str, action: &'static str, source: io::Error) -> Error {
    Error::Io { path: name.to_owned(), action, source }
}

fn open_file(path: &Path) -> Result<(File, String)> {
    let name = path.display().to_string();
    match File::open(path) {
        Ok(file) => Ok((file, name)),
        Err(e) => Err(io_error(&name, "open", e)),
    }
}

/// A name for a file that came without one.
fn describe(file: &File, offset: u64) -> String {
    #[cfg(unix)]
    {
        use std::os::fd::AsRawFd;
        format!("<descriptor {} from byte {offset}>", file.as_raw_fd())
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        format!("<open file from byte {offset}>")
    }
}

/// The length of the file and of the range asked for, once it is known to lie within the file.
fn range(file: &File, name: &str, offset: u64, len: Option<u64>) -> Result<(u64, usize)> {
    let meta = file.metadata().map_err(|e| io_error(name, "look at", e))?;
    if meta.is_dir() {
        return Err(io_error(name, "read", io::ErrorKind::IsADirectory.into()));
    }
    if !meta.is_file() {
        let e = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file (a pipe, socket or device)");
        return Err(io_error(name, "map", e));
    }
    let file_len = meta.len();
    let left = file_len.checked_sub(offset).ok_or_else(|| Error::InvalidOption {
        option: "offset",
        expected: format!("at most the file's {file_len} bytes ({name})"),
        found: offset.to_string(),
    })?;
    let len = len.unwrap_or(left);
    if len > left {
        return Err(Error::InvalidOption {
            option: "length",
            expected: format!("at most the {left} bytes from byte {offset} to the end of the file ({name})"),
            found: len.to_string(),
        });
    }
    match usize::try_from(len) {
        Ok(n) if n <= isize::MAX as usize => Ok((file_len, n)),
        _ => Err(Error::OutOfMemory { what: "the address space of the file", bytes: usize::MAX }),
    }
}

/// Reads from a position without moving the descriptor's own, which the caller may share.
fn read_at(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::read_at(file, buf, offset)
    }
    #[cfg(windows)]
    {
        std::os::windows::fs::FileExt::seek_read(file, buf, offset)
    }
    #[cfg(not(any(unix, windows)))]
    {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = file;
        file.seek(SeekFrom::Start(offset))?;
        file.read(buf)
    }
}
