//! Saved sessions.
//!
//! A file, all numbers little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `caratKV` and a line feed |
//! | u32 | version of the format: 2 |
//! | u32 | how keys and values are stored: 0 f16, 1 q8_0, 2 f32, 3 f32 of the exact arithmetic |
//! | u64 | the model's fingerprint |
//! | u64 | length of the whole file in bytes |
//! | u64 | tokens |
//! | u64 | the lowest position that the windowed layers hold |
//! | u32 | layers |
//! | u32 | logits: the size of the vocabulary, or 0 for none |
//! | u64 | bytes of a position in a layer |
//! | 4 × u64 | state of the sampler's generator |
//! | u32 | snapshots of a conversation (from version 2 on, as all three) |
//! | u32 | 0 |
//! | u64 | bytes of the snapshots |
//! | u64 | bytes of the transcript of a conversation, 0 for none |
//! | u64 | XXH64 of all before it |
//! | u32 each | the tokens |
//! | f32 each | the logits after the last token |
//! | | for each layer, for each position that it holds: the keys of all heads, the values of all heads |
//! | | for each snapshot: its length in tokens, a u64; for each windowed layer the keys, then the values, of its window |
//! | | the transcript: see `conversation/saved.rs` |
//! | u64 | XXH64 of all after the header |
//!
//! Rows lie by position, so that a session with another context or batch can take what it has room for.

mod file;
mod read;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::Path;

use crate::model::kv_cache::Snapshot;
use crate::model::{KvType, Model, SessionOptions};
use crate::session::Session;
use crate::xxh64::Xxh64;
use crate::{CancelToken, Error, Result};
use file::{Hashed, Sink, Synced, Temporary, behind_links};
use read::Source;

const MAGIC: &[u8; 8] = b"caratKV\n";
const VERSION: u32 = 2;
/// Bytes of the header without its checksum, in each version.
const HEADER: [usize; VERSION as usize] = [96, 120];
/// A conversation's texts and ids are far shorter; a file that says otherwise is not believed.
const MAX_TRANSCRIPT: usize = 1 << 30;
/// Bytes written or read at once.
const PIECE: usize = 64 << 10;

struct Header {
    /// Bytes that it takes in the file, its checksum included.
    header_len: usize,
    kv: u32,
    fingerprint: u64,
    len: u64,
    tokens: u64,
    oldest: u64,
    layers: u32,
    logits: u32,
    position_bytes: u64,
    rng: [u64; 4],
    snapshots: u32,
    snapshot_bytes: u64,
    transcript_bytes: u64,
}

/// The header as it is written.
const NOW: usize = HEADER[VERSION as usize - 1];

impl Header {
    /// With its checksum.
    fn bytes(&self) -> [u8; NOW + 8] {
        let mut out = [0; NOW + 8];
        let mut rest = &mut out[..];
        let mut put = |bytes: &[u8]| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(bytes.len());
            now.copy_from_slice(bytes);
            rest = later;
        };
        put(MAGIC);
        put(&VERSION.to_le_bytes());
        put(&self.kv.to_le_bytes());
        for n in [self.fingerprint, self.len, self.tokens, self.oldest] {
            put(&n.to_le_bytes());
        }
        put(&self.layers.to_le_bytes());
        put(&self.logits.to_le_bytes());
        put(&self.position_bytes.to_le_bytes());
        for n in self.rng {
            put(&n.to_le_bytes());
        }
        put(&self.snapshots.to_le_bytes());
        put(&[0; 4]);
        put(&self.snapshot_bytes.to_le_bytes());
        put(&self.transcript_bytes.to_le_bytes());
        let sum = Xxh64::of(&out[..NOW]);
        out[NOW..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads what `bytes` hold, of which the first `len` were there: an older version ends with zeros.
    fn parse(bytes: &[u8; NOW], len: usize) -> Header {
        let u32 = |at: usize| bytes[at..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
        let u64 = |at: usize| bytes[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        Header {
            header_len: len + 8,
            kv: u32(12),
            fingerprint: u64(16),
            len: u64(24),
            tokens: u64(32),
            oldest: u64(40),
            layers: u32(48),
            logits: u32(52),
            position_bytes: u64(56),
            rng: std::array::from_fn(|i| u64(64 + 8 * i)),
            snapshots: u32(96),
            snapshot_bytes: u64(104),
            transcript_bytes: u64(112),
        }
    }
}

/// How keys and values can be stored, and by which arithmetic they came about: [`Header::kv`] is an index of these.
/// The exact mode's go into exact sessions only, and no others do: what a session computes is all by one arithmetic.
const KINDS: [(KvType, bool, &str); 4] = [
    (KvType::F16, false, "f16"),
    (KvType::Q8_0, false, "q8_0"),
    (KvType::F32, false, "f32"),
    (KvType::F32, true, "f32 of the exact mode"),
];

/// The index in [`KINDS`].
fn kind(ty: KvType, exact: bool) -> usize {
    KINDS.iter().position(|k| (k.0, k.1) == (ty, exact)).expect("the exact mode stores f32")
}

/// What a conversation saves beside its session.
#[derive(Default)]
pub(crate) struct Extras<'a> {
    pub(crate) transcript: &'a [u8],
    /// The longest first.
    pub(crate) snapshots: Vec<&'a Snapshot>,
}

/// What was found beside a session.
#[derive(Default)]
pub(crate) struct Found {
    /// Empty where a session was saved by itself.
    pub(crate) transcript: Vec<u8>,
    /// As many as the session's options ask for.
    pub(crate) snapshots: Vec<Snapshot>,
}

impl Session {
    /// Saves the session: its tokens, keys and values, logits, and where its random numbers go on. Loaded again it
    /// goes on with the same bits.
    ///
    /// A file that is there already is replaced only when the new one is complete and on the disk; until then, and
    /// after an error, it stays as it was. Beside it there is room needed for both. A symbolic link stays one: what it
    /// leads to is replaced. `cancel` stops it within one piece of a few megabytes, except during the last sync.
    ///
    /// # Errors
    /// [`Error::Io`], a full disk among them; [`Error::Cancelled`]; [`Error::FileChanged`] when the model's file did.
    pub fn save(&self, path: impl AsRef<Path>, cancel: Option<&CancelToken>) -> Result<()> {
        self.save_with(path.as_ref(), &Extras::default(), cancel)
    }

    /// As [`Self::save`].
    pub(crate) fn save_with(
        &self,
        path: &Path,
        extras: &Extras<'_>,
        cancel: Option<&CancelToken>,
    ) -> Result<()> {
        self.check_usable()?;
        let name = path.display().to_string();
        let path = &behind_links(path).map_err(io_error(&name, "follow"))?;
        if std::fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir()) {
            // A pipe or a device would be gone.
            return Err(io_error(&name, "replace")(not_regular()));
        }
        let (temporary, file) = Temporary::beside(path).map_err(io_error(&name, "create a file beside"))?;
        let file = self.write(&name, file, extras, cancel)?;
        file.sync_all().map_err(io_error(&name, "write"))?;
        drop(file);
        temporary.become_file(path).map_err(io_error(&name, "replace"))
    }

    fn write<S: Sink>(
        &self,
        name: &str,
        sink: S,
        extras: &Extras<'_>,
        cancel: Option<&CancelToken>,
    ) -> Result<S> {
        let n = self.tokens.len();
        let logits = self.logits().unwrap_or_default();
        let cache = &self.cache;
        let rows: usize = (0..cache.n_layers()).map(|l| cache.held(l, n).len()).sum();
        let snapshot_bytes: usize = extras.snapshots.iter().map(|s| 8 + s.data.len()).sum();
        let transcript = extras.transcript;
        if transcript.len() > MAX_TRANSCRIPT {
            return Err(Error::State {
                file: name.to_string(),
                what: "bytes of the conversation's texts",
                expected: format!("at most {MAX_TRANSCRIPT}"),
                found: transcript.len().to_string(),
            });
        }
        let header = Header {
            header_len: NOW + 8,
            kv: kind(self.shape.ty, self.options().exact) as u32,
            fingerprint: self.model().0.fingerprint()?,
            len: (NOW + 8 + snapshot_bytes + transcript.len()) as u64
                + rest_len(n, logits.len(), rows, cache.position_bytes()),
            tokens: n as u64,
            oldest: cache.oldest() as u64,
            layers: cache.n_layers() as u32,
            logits: logits.len() as u32,
            position_bytes: cache.position_bytes() as u64,
            rng: self.rng.0,
            snapshots: extras.snapshots.len() as u32,
            snapshot_bytes: snapshot_bytes as u64,
            transcript_bytes: transcript.len() as u64,
        };
        let write = || io_error(name, "write");
        let mut buffer = BufWriter::with_capacity(PIECE, Synced::new(sink));
        buffer.write_all(&header.bytes()).map_err(write())?;
        let mut out = Hashed { inner: &mut buffer, hash: Xxh64::new() };
        for id in &self.tokens {
            out.write_all(&id.to_le_bytes()).map_err(write())?;
        }
        for value in logits {
            out.write_all(&value.to_le_bytes()).map_err(write())?;
        }
        for layer in 0..cache.n_layers() {
            for p in cache.held(layer, n) {
                if let Some(cancel) = cancel {
                    cancel.check()?;
                }
                cache.write_rows(layer, p..p + 1, &mut out).map_err(write())?;
            }
        }
        let mut put = |bytes: &[u8]| {
            for piece in bytes.chunks(PIECE) {
                if let Some(cancel) = cancel {
                    cancel.check()?;
                }
                out.write_all(piece).map_err(write())?;
            }
            Ok(())
        };
        for snapshot in &extras.snapshots {
            put(&(snapshot.len as u64).to_le_bytes())?;
            put(&snapshot.data)?;
        }
        put(transcript)?;
        let sum = out.hash.finish();
        buffer.write_all(&sum.to_le_bytes()).map_err(write())?;
        let synced = buffer.into_inner().map_err(|e| write()(e.into_error()))?;
        Ok(synced.sink)
    }

    /// Opens a session that [`Self::save`] wrote, with options of its own: another context or batch is no obstacle
    /// where the text fits, another [`KvType`] is. Nor does an exact session ([`SessionOptions::exact`]) go on with what
    /// another computed, or another with what it did: the logits would be those of neither arithmetic. With another
    /// instruction set, or on another machine, it goes on from the same keys and values.
    ///
    /// The rows that a sliding window had lost stay lost: [`SessionOptions::full_history`] begins where the saved
    /// session did.
    ///
    /// # Errors
    /// [`Error::State`] for a file of another model, KV type or arithmetic, one that is damaged, or a text that does not
    /// fit; [`Error::Io`]; [`Error::Cancelled`]; those of [`Self::new`].
    pub fn load(
        model: &Model,
        options: SessionOptions,
        path: impl AsRef<Path>,
        cancel: Option<&CancelToken>,
    ) -> Result<Session> {
        Self::load_with(model, options, path.as_ref(), None, cancel)
    }

    /// As [`Self::load`], and what a conversation saved beside it goes to `found`.
    pub(crate) fn load_with(
        model: &Model,
        options: SessionOptions,
        path: &Path,
        found: Option<&mut Found>,
        cancel: Option<&CancelToken>,
    ) -> Result<Session> {
        let name = path.display().to_string();
        let look = std::fs::metadata(path).map_err(io_error(&name, "open"))?;
        if look.is_dir() {
            return Err(io_error(&name, "read")(io::ErrorKind::IsADirectory.into()));
        }
        if !look.is_file() {
            // Opening a pipe could wait forever.
            return Err(io_error(&name, "read")(not_regular()));
        }
        let file = File::open(path).map_err(io_error(&name, "open"))?;
        let len = file.metadata().map_err(io_error(&name, "look at"))?.len();
        let mut from = Source {
            name: &name,
            len,
            cancel,
            bytes: Hashed { inner: BufReader::with_capacity(PIECE, file), hash: Xxh64::new() },
        };
        let header = from.header()?;
        from.session(model, options, &header, found)
    }
}

fn io_error(name: &str, action: &'static str) -> impl FnOnce(io::Error) -> Error {
    let path = name.to_string();
    move |source| Error::Io { path, action, source }
}

fn not_regular() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")
}

/// Bytes of a file without its header and what a conversation adds.
fn rest_len(tokens: usize, logits: usize, rows: usize, position_bytes: usize) -> u64 {
    (4 * tokens + 4 * logits + rows * position_bytes + 8) as u64
}

#[cfg(test)]
mod tests {
    use super::file::SYNC;
    use super::*;

    fn session(context: usize) -> Session {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/tiny-gemma3.gguf");
        let model = Model::builder().threads(1).open(path).unwrap();
        let options = SessionOptions { context: Some(context), full_history: true, ..Default::default() };
        let mut session = Session::new(&model, options).unwrap();
        let ids: Vec<u32> = (0..context as u32).map(|i| 3 + i % 200).collect();
        session.prefill(&ids).unwrap();
        session
    }

    /// A disk that does something when it has taken so many pieces.
    struct Disk<F> {
        pieces: usize,
        unsynced: usize,
        most_unsynced: usize,
        at_piece: F,
    }

    impl<F: FnMut(usize) -> io::Result<()>> Write for Disk<F> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.pieces += 1;
            (self.at_piece)(self.pieces)?;
            self.unsynced += bytes.len();
            self.most_unsynced = self.most_unsynced.max(self.unsynced);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<F: FnMut(usize) -> io::Result<()>> Sink for Disk<F> {
        fn sync(&mut self) -> io::Result<()> {
            self.unsynced = 0;
            Ok(())
        }
    }

    fn disk<F: FnMut(usize) -> io::Result<()>>(at_piece: F) -> Disk<F> {
        Disk { pieces: 0, unsynced: 0, most_unsynced: 0, at_piece }
    }

    #[test]
    fn what_is_written_is_synced_in_pieces() {
        let session = session(256);
        let disk = session.write("test", disk(|_| Ok(())), &Extras::default(), None).unwrap();
        assert!(disk.pieces > 4, "{}", disk.pieces);
        let mut many = Synced::new(super::tests::disk(|_| Ok(())));
        for _ in 0..1000 {
            many.write_all(&[0; PIECE]).unwrap();
        }
        assert!(many.sink.most_unsynced <= SYNC);
    }

    #[test]
    fn cancelling_stops_it_within_a_piece() {
        let session = session(256);
        let all = session.write("test", disk(|_| Ok(())), &Extras::default(), None).unwrap().pieces;
        for stop_at in 1..all {
            let token = CancelToken::new();
            let mut after = 0;
            let result = session.write(
                "test",
                disk(|piece| {
                    after += token.is_cancelled() as usize;
                    if piece == stop_at {
                        token.cancel();
                    }
                    Ok(())
                }),
                &Extras::default(),
                Some(&token),
            );
            // The last piece is written with all that follows it.
            assert!(matches!(result, Err(Error::Cancelled)) || stop_at + 1 >= all, "{stop_at} of {all}");
            assert!(after <= 1, "{after} pieces after piece {stop_at} of {all}");
        }
    }

    #[test]
    fn a_full_disk_is_an_error_wherever_it_happens() {
        let session = session(256);
        let all = session.write("test", disk(|_| Ok(())), &Extras::default(), None).unwrap().pieces;
        for full_at in 1..=all {
            let full = |piece| match piece {
                p if p >= full_at => Err(io::ErrorKind::StorageFull.into()),
                _ => Ok(()),
            };
            let e = session.write("test", disk(full), &Extras::default(), None).map(|_| ()).unwrap_err();
            assert!(matches!(e, Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull));
        }
    }
}
