//! Reading a saved session: nothing in a file is believed before it is checked.

use std::fmt::Display;
use std::io::{self, Read};

use super::file::Hashed;
use super::{
    Found, HEADER, Header, KINDS, MAGIC, MAX_TRANSCRIPT, NOW, PIECE, VERSION, io_error, kind, rest_len,
};
use crate::model::{MAX_SNAPSHOTS, Model, SessionOptions};
use crate::sampler::Rng;
use crate::session::Session;
use crate::xxh64::Xxh64;
use crate::{CancelToken, Error, Result};

/// A saved session being read.
pub(super) struct Source<'a, R> {
    pub(super) name: &'a str,
    /// Bytes of the file.
    pub(super) len: u64,
    pub(super) cancel: Option<&'a CancelToken>,
    pub(super) bytes: Hashed<R>,
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
    pub(super) fn header(&mut self) -> Result<Header> {
        let mut bytes = [0; NOW];
        let there = self.len.min(12) as usize;
        self.fill(&mut bytes[..there])?;
        if there < 8 || &bytes[..8] != MAGIC {
            let found = bytes[..there.min(8)].escape_ascii();
            return self.wrong("beginning", MAGIC.escape_ascii(), found);
        }
        let version = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
        let header = match version {
            _ if there < 12 => NOW,
            1..=VERSION => HEADER[version as usize - 1],
            _ => return self.wrong("version of the format", format_args!("1 to {VERSION}"), version),
        };
        if self.len < header as u64 + 8 {
            return self.wrong("length in bytes", format_args!("at least {}", header + 8), self.len);
        }
        self.fill(&mut bytes[12..header])?;
        self.check_sum("checksum of the header")?;
        let h = Header::parse(&bytes, header);
        if h.len != self.len {
            return self.wrong("length in bytes", h.len, self.len);
        }
        Ok(h)
    }

    /// Makes a session of the rest. The memory that is taken follows from the options, but for the
    /// transcript, which takes as much as is really there.
    pub(super) fn session(
        &mut self,
        model: &Model,
        options: SessionOptions,
        h: &Header,
        found: Option<&mut Found>,
    ) -> Result<Session> {
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
        if h.snapshots as usize > MAX_SNAPSHOTS || h.transcript_bytes > MAX_TRANSCRIPT as u64 {
            return self.wrong(
                "snapshots and bytes of the conversation's texts",
                format_args!("at most {MAX_SNAPSHOTS} and {MAX_TRANSCRIPT}"),
                format_args!("{} and {}", h.snapshots, h.transcript_bytes),
            );
        }
        let expected = (h.header_len as u64)
            .saturating_add(rest_len(n, h.logits as usize, rows, position_bytes))
            .saturating_add(h.snapshot_bytes)
            .saturating_add(h.transcript_bytes);
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
        for value in session.scratch.logits.overwrite()?.iter_mut().take(h.logits as usize) {
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
        match found {
            Some(found) => self.extras(&session, h, n, found)?,
            // Together they are less than the file.
            None => self.skip((h.snapshot_bytes + h.transcript_bytes) as usize)?,
        }
        self.check_sum("checksum")?;
        session.logits_row = (h.logits != 0).then_some(0);
        session.rng = Rng(h.rng);
        Ok(session)
    }

    /// Reads what a conversation added to a session of `n` tokens.
    fn extras(&mut self, session: &Session, h: &Header, n: usize, found: &mut Found) -> Result<()> {
        let mut left = h.snapshot_bytes;
        for _ in 0..h.snapshots {
            let mut len = [0; 8];
            self.fill(&mut len)?;
            let len = u64::from_le_bytes(len).min(usize::MAX as u64) as usize;
            if !(1..=n).contains(&len) {
                return self.wrong("tokens of a snapshot", format_args!("1 to {n}"), len);
            }
            let bytes = session.cache.snapshot_bytes_at(len);
            match left.checked_sub(8 + bytes as u64) {
                Some(rest) => left = rest,
                None => return self.wrong("bytes of the snapshots", "more", h.snapshot_bytes),
            }
            let room = match found.snapshots.len() < session.options().snapshots {
                true => session.blank_snapshot()?,
                false => None,
            };
            match room {
                Some(mut snapshot) => {
                    self.read(bytes, &mut snapshot.data)?;
                    session.cache.set_snapshot_len(len, &mut snapshot);
                    found.snapshots.push(snapshot);
                }
                None => self.skip(bytes)?,
            }
        }
        if left != 0 {
            return self.wrong("bytes of the snapshots", h.snapshot_bytes - left, h.snapshot_bytes);
        }
        self.read(h.transcript_bytes as usize, &mut found.transcript)
    }

    /// Adds `n` bytes to `to`, which grows only as they come.
    fn read(&mut self, n: usize, to: &mut Vec<u8>) -> Result<()> {
        let end = to.len() + n;
        while to.len() < end {
            if let Some(cancel) = self.cancel {
                cancel.check()?;
            }
            let start = to.len();
            let piece = PIECE.min(end - start);
            let bytes = start + piece;
            to.try_reserve(piece).map_err(|_| Error::OutOfMemory { what: "a saved conversation", bytes })?;
            to.resize(bytes, 0);
            self.fill(&mut to[start..])?;
        }
        Ok(())
    }

    fn skip(&mut self, n: usize) -> Result<()> {
        for at in (0..n).step_by(PIECE) {
            if let Some(cancel) = self.cancel {
                cancel.check()?;
            }
            self.bytes.skip(PIECE.min(n - at)).map_err(|e| self.error(e))?;
        }
        Ok(())
    }
}
