//! How a state gets to the disk: hashed, synced in pieces, and in place of the old one only when it is complete.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::xxh64::Xxh64;

/// Bytes between two syncs: 80 ms at the 50 MB/s of a slow card. Without them the last one would take as long as all
/// of the file, and could not be cancelled.
pub(super) const SYNC: usize = 4 << 20;

/// What hashes all that passes through.
pub(super) struct Hashed<T> {
    pub(super) inner: T,
    pub(super) hash: Xxh64,
}

impl<T: Write> Write for Hashed<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(bytes)?;
        self.hash.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Read> Read for Hashed<T> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(to)?;
        self.hash.update(&to[..n]);
        Ok(n)
    }
}

impl<T: Read> Hashed<T> {
    /// Reads over them.
    pub(super) fn skip(&mut self, bytes: usize) -> io::Result<()> {
        match io::copy(&mut self.take(bytes as u64), &mut io::sink())? {
            n if n == bytes as u64 => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Where a state is written to.
pub(super) trait Sink: Write {
    /// Waits until what was written is on the disk.
    fn sync(&mut self) -> io::Result<()>;
}

impl Sink for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// Syncs every few megabytes.
pub(super) struct Synced<S> {
    pub(super) sink: S,
    unsynced: usize,
}

impl<S> Synced<S> {
    pub(super) fn new(sink: S) -> Self {
        Synced { sink, unsynced: 0 }
    }
}

impl<S: Sink> Write for Synced<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.unsynced >= SYNC {
            self.sink.sync()?;
            self.unsynced = 0;
        }
        let n = self.sink.write(bytes)?;
        self.unsynced += n;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// A file that is removed unless it takes its place.
pub(super) struct Temporary(Option<PathBuf>);

impl Temporary {
    /// A new file in the same directory, so that renaming it is one step of the file system's.
    pub(super) fn beside(path: &Path) -> io::Result<(Temporary, File)> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let Some(name) = path.file_name() else { return Err(io::ErrorKind::IsADirectory.into()) };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{}-{number}.tmp", std::process::id()));
        let temporary = path.with_file_name(temporary);
        let file = File::options().write(true).create_new(true).open(&temporary)?;
        let guard = Temporary(Some(temporary));
        // Who could not read the old file shall not read the new one.
        #[cfg(unix)]
        if let Ok(old) = std::fs::metadata(path) {
            file.set_permissions(old.permissions())?;
        }
        Ok((guard, file))
    }

    /// Takes the place of what is at `path`.
    pub(super) fn become_file(mut self, path: &Path) -> io::Result<()> {
        let Some(temporary) = &self.0 else { return Ok(()) };
        std::fs::rename(temporary, path)?;
        self.0 = None;
        // The name is on the disk when its directory is; where directories cannot be synced the system sees to it.
        #[cfg(unix)]
        if let Some(directory) = path.parent() {
            let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            let _ = File::open(directory).and_then(|d| d.sync_all());
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // There is nobody left to tell.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The file that `path` names: where it is a symbolic link, what that leads to, there or not.
pub(super) fn behind_links(path: &Path) -> io::Result<PathBuf> {
    /// As many as Linux follows.
    const LINKS: usize = 40;
    let mut path = path.to_path_buf();
    for _ in 0..LINKS {
        let Ok(target) = std::fs::read_link(&path) else { return Ok(path) };
        // A target that is not absolute begins where the link is.
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    Err(io::Error::other("too many symbolic links"))
}
