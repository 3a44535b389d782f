//! Saved sessions.
//!
//! A file, all numbers little-endian:
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `caratKV` and a line feed |
//! | u32 | version of the format: 1 |
//! | u32 | how keys and values are stored: 0 f16, 1 q8_0, 2 f32, 3 f32 of the exact arithmetic |
//! | u64 | the model's fingerprint |
//! | u64 | length of the whole file in bytes |
//! | u64 | tokens |
//! | u64 | the lowest position that the windowed layers hold |
//! | u32 | layers |
//! | u32 | logits: the size of the vocabulary, or 0 for none |
//! | u64 | bytes of a position in a layer |
//! | 4 × u64 | state of the sampler's generator |
//! | u64 | XXH64 of all before it |
//! | u32 each | the tokens |
//! | f32 each | the logits after the last token |
//! | | for each layer, for each position that it holds: the keys of all heads, the values of all heads |
//! | u64 | XXH64 of all after the header |
//!
//! Rows lie by position, so that a session with another context or batch can take what it has room for.

mod file;

use std::fmt::Display;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use crate::model::{KvType, Model, SessionOptions};
use crate::sampler::Rng;
use crate::session::Session;
use crate::xxh64::Xxh64;
use crate::{CancelToken, Error, Result};
use file::{Hashed, Sink, Synced, Temporary, behind_links};

const MAGIC: &[u8; 8] = b"caratKV\n";
const VERSION: u32 = 1;
const HEADER: usize = 104;
/// Bytes written or read at once.
const PIECE: usize = 64 << 10;

struct Header {
    kv: u32,
    fingerprint: u64,
    len: u64,
    tokens: u64,
    oldest: u64,
    layers: u32,
    logits: u32,
    position_bytes: u64,
    rng: [u64; 4],
}

impl Header {
    fn bytes(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
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
        let sum = Xxh64::of(&out[..HEADER - 8]);
        out[HEADER - 8..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    /// Reads what `bytes`, after magic number and version, hold.
    fn parse(bytes: &[u8; HEADER - 8]) -> Header {
        let u32 = |at: usize| bytes[at..].first_chunk().map_or(0, |b| u32::from_le_bytes(*b));
        let u64 = |at: usize| bytes[at..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        Header {
            kv: u32(12),
            fingerprint: u64(16),
            len: u64(24),
            tokens: u64(32),
            oldest: u64(40),
            layers: u32(48),
            logits: u32(52),
            position_bytes: u64(56),
            rng: std::array::from_fn(|i| u64(64 + 8 * i)),
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

impl Session {
    /// Saves the session: its tokens, keys and values, logits, and where its random numbers go on. Loaded again it
    /// goes on with the same bits.
    ///
    /// A file that is there already is replaced only when the new one is complete and on the disk; until then, and
    /// after an error, it stays as it was. Beside it there is room needed for both. A symbolic link stays one: what it
    /// leads to is replaced. `cancel` stops it within one
    /// piece of a few megabytes, except during the last sync.
    ///
    /// # Errors
    /// [`Error::Io`], a full disk among them; [`Error::Cancelled`]; [`Error::FileChanged`] when the model's file did.
    pub fn save(&self, path: impl AsRef<Path>, cancel: Option<&CancelToken>) -> Result<()> {
        self.check_usable()?;
        let name = path.as_ref().display().to_string();
        let path = &behind_links(path.as_ref()).map_err(io_error(&name, "follow"))?;
        if std::fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir()) {
            // A pipe or a device would be gone.
            let e = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
            return Err(io_error(&name, "replace")(e));
        }
        let (temporary, file) = Temporary::beside(path).map_err(io_error(&name, "create a file beside"))?;
        let file = self.write(&name, file, cancel)?;
        file.sync_all().map_err(io_error(&name, "write"))?;
        drop(file);
        temporary.become_file(path).map_err(io_error(&name, "replace"))
    }

    fn write<S: Sink>(&self, name: &str, sink: S, cancel: Option<&CancelToken>) -> Result<S> {
        let n = self.tokens.len();
        let logits = self.logits().unwrap_or_default();
        let cache = &self.cache;
        let rows: usize = (0..cache.n_layers()).map(|l| cache.held(l, n).len()).sum();
        let header = Header {
            kv: kind(self.shape.ty, self.options().exact) as u32,
            fingerprint: self.model().0.fingerprint()?,
            len: file_len(n, logits.len(), rows, cache.position_bytes()),
            tokens: n as u64,
            oldest: cache.oldest() as u64,
            layers: cache.n_layers() as u32,
            logits: logits.len() as u32,
            position_bytes: cache.position_bytes() as u64,
            rng: self.rng.0,
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
        let path = path.as_ref();
        let name = path.display().to_string();
        let look = std::fs::metadata(path).map_err(io_error(&name, "open"))?;
        if look.is_dir() {
            return Err(io_error(&name, "read")(io::ErrorKind::IsADirectory.into()));
        }
        if !look.is_file() {
            // Opening a pipe could wait forever.
            let e = io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
            return Err(io_error(&name, "read")(e));
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
        from.session(model, options, &header)
    }
}

fn io_error(name: &str, action: &'static str) -> impl FnOnce(io::Error) -> Error {
    let path = name.to_string();
    move |source| Error::Io { path, action, source }
}

fn file_len(tokens: usize, logits: usize, rows: usize, position_bytes: usize) -> u64 {
    (HEADER + 4 * tokens + 4 * logits + rows * position_bytes + 8) as u64
}

/// A saved session being read.
struct Source<'a, R> {
    name: &'a str,
    /// Bytes of the file.
    len: u64,
    cancel: Option<&'a CancelToken>,
    bytes: Hashed<R>,
}

impl<R: Read> Source<'_, R> {
    fn wrong<T>(&self, what: &'static str, expected: impl Display, found: impl Display) -> Result<T> {
        Err(Error::State {
            file: self.name.to_string(),
            what,
            expected: expected.to_string(),
            found: found.to_string(),
        })
    }

    fn error(&self, e: io::Error) -> Error {
        io_error(self.name, "read")(e)
    }

    fn fill(&mut self, to: &mut [u8]) -> Result<()> {
        self.bytes.read_exact(to).map_err(|e| self.error(e))
    }

    fn check_sum(&mut self, what: &'static str) -> Result<()> {
        let expected = self.bytes.hash.finish();
        let mut found = [0; 8];
        self.fill(&mut found)?;
        let found = u64::from_le_bytes(found);
        // A fuzzer could not get past it.
        if cfg!(fuzzing) || found == expected {
            return Ok(());
        }
        self.wrong(what, format_args!("{expected:016x}, that of its bytes"), format_args!("{found:016x}"))
    }

    /// Reads the header. Nothing in it is believed before it is known to be whole.
    fn header(&mut self) -> Result<Header> {
        let mut bytes = [0; HEADER - 8];
        let there = self.len.min(bytes.len() as u64) as usize;
        self.fill(&mut bytes[..there])?;
        if there < 8 || &bytes[..8] != MAGIC {
            let found = bytes[..there.min(8)].escape_ascii();
            return self.wrong("beginning", MAGIC.escape_ascii(), found);
        }
        if self.len < HEADER as u64 {
            return self.wrong("length in bytes", format_args!("at least {HEADER}"), self.len);
        }
        let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        if version != VERSION {
            return self.wrong("version of the format", VERSION, version);
        }
        self.check_sum("checksum of the header")?;
        let h = Header::parse(&bytes);
        if h.len != self.len {
            return self.wrong("length in bytes", h.len, self.len);
        }
        Ok(h)
    }

    /// Makes a session of the rest. All memory that is taken follows from the options, none from the file.
    fn session(&mut self, model: &Model, options: SessionOptions, h: &Header) -> Result<Session> {
        let m = &*model.0;
        let fingerprint = m.fingerprint()?;
        if h.fingerprint != fingerprint {
            let expected = format!("one with fingerprint {fingerprint:016x}");
            return self.wrong("model", expected, format_args!("{:016x}", h.fingerprint));
        }
        let shape = options.shape(&m.config, &m.weights)?;
        let expected = kind(shape.ty, options.exact);
        if h.kv as usize != expected {
            let found = KINDS.get(h.kv as usize).map_or("unknown", |k| k.2);
            return self.wrong("type of keys and values", KINDS[expected].2, found);
        }
        if h.tokens > shape.context as u64 {
            let context = shape.context;
            let expected = format!("at most {context}, the context that is asked for");
            return self.wrong("number of tokens", expected, h.tokens);
        }
        let n = h.tokens as usize;
        if h.logits != 0 && (h.logits as usize != m.config.vocab || n == 0) {
            let expected = format!("0, or {} after a token", m.config.vocab);
            return self.wrong("number of logits", expected, h.logits);
        }
        let mut session = Session::new(model, options)?;
        let cache = &mut session.cache;
        let (layers, position_bytes) = (cache.n_layers(), cache.position_bytes());
        if (h.layers as usize, h.position_bytes) != (layers, position_bytes as u64) {
            return self.wrong(
                "layers and bytes of a position",
                format_args!("{layers} and {position_bytes}"),
                format_args!("{} and {}", h.layers, h.position_bytes),
            );
        }
        let oldest = h.oldest.min(usize::MAX as u64) as usize;
        cache.will_read(oldest.min(n), n);
        if oldest > n || !cache.can_resume_at(n) {
            let expected = format!("all that follows position {n} sees");
            return self.wrong("lowest position of the windows", expected, oldest);
        }
        let in_file = |layer: usize| if m.config.windowed[layer] { oldest..n } else { 0..n };
        let rows = (0..layers).map(|l| in_file(l).len()).sum();
        let expected = file_len(n, h.logits as usize, rows, position_bytes);
        if expected != self.len {
            return self.wrong("length in bytes", expected, self.len);
        }
        self.bytes.hash = Xxh64::new();
        let mut four = [0; 4];
        for i in 0..n {
            self.fill(&mut four)?;
            let id = u32::from_le_bytes(four);
            if id as usize >= m.config.vocab {
                let expected = format!("an id below {}", m.config.vocab);
                return self.wrong("token", expected, format_args!("{id} at position {i}"));
            }
            session.tokens.push(id);
        }
        for value in session.scratch.logits.iter_mut().take(h.logits as usize) {
            self.fill(&mut four)?;
            *value = f32::from_le_bytes(four);
        }
        for layer in 0..layers {
            let wanted = cache.held(layer, n);
            for p in in_file(layer) {
                if let Some(cancel) = self.cancel {
                    cancel.check()?;
                }
                let read = match wanted.contains(&p) {
                    true => cache.read_rows(layer, p..p + 1, &mut self.bytes),
                    false => self.bytes.skip(position_bytes),
                };
                read.map_err(|e| self.error(e))?;
            }
        }
        self.check_sum("checksum")?;
        session.has_logits = h.logits != 0;
        session.rng = Rng(h.rng);
        Ok(session)
    }
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
        let disk = session.write("test", disk(|_| Ok(())), None).unwrap();
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
        let all = session.write("test", disk(|_| Ok(())), None).unwrap().pieces;
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
        let all = session.write("test", disk(|_| Ok(())), None).unwrap().pieces;
        for full_at in 1..=all {
            let full = |piece| match piece {
                p if p >= full_at => Err(io::ErrorKind::StorageFull.into()),
                _ => Ok(()),
            };
            let e = session.write("test", disk(full), None).map(|_| ()).unwrap_err();
            assert!(matches!(e, Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull));
        }
    }
}
