//! The pieces' bytes, and finding a piece by its bytes.

use crate::error::try_vec;
use crate::{Error, Result};

/// The most pieces: an id has 24 bits in a slot of [`Index`].
pub(super) const MAX_PIECES: usize = (1 << 24) - 1;

const SPACE_SYMBOL_BYTES: &[u8] = "\u{2581}".as_bytes();

/// Makes room for `n` more elements, or says so.
pub(super) fn reserve<T>(v: &mut Vec<T>, n: usize, what: &'static str) -> Result<()> {
    v.try_reserve(n).map_err(|_| out_of_memory::<T>(v.len(), n, what))
}

pub(super) fn out_of_memory<T>(len: usize, more: usize, what: &'static str) -> Error {
    Error::OutOfMemory { what, bytes: len.saturating_add(more).saturating_mul(size_of::<T>()) }
}

/// Every piece's text, one after the other, with U+2581 stored as the space that it stands for.
#[derive(Default)]
pub(super) struct Table {
    text: String,
    ends: Vec<u32>,
}

/// A [`Table`] in the making, of bytes not checked yet.
#[derive(Default)]
pub(super) struct TableBuilder {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl TableBuilder {
    pub(super) fn with_capacity(pieces: usize, bytes: usize) -> Result<TableBuilder> {
        let mut t = TableBuilder::default();
        t.bytes
            .try_reserve_exact(bytes)
            .map_err(|_| out_of_memory::<u8>(0, bytes, "the vocabulary's text"))?;
        t.ends
            .try_reserve_exact(pieces)
            .map_err(|_| out_of_memory::<u32>(0, pieces, "the vocabulary's offsets"))?;
        Ok(t)
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a piece, its U+2581 turned into spaces. The caller has bounded the sum of all by `u32::MAX`.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<()> {
        reserve(&mut self.bytes, piece.len(), "the vocabulary's text")?;
        reserve(&mut self.ends, 1, "the vocabulary's offsets")?;
        let mut rest = piece;
        // Mostly at the beginning, where no search is needed.
        while let Some(tail) = rest.strip_prefix(SPACE_SYMBOL_BYTES) {
            self.bytes.push(b' ');
            rest = tail;
        }
        while let Some(at) = rest.windows(3).position(|w| w == SPACE_SYMBOL_BYTES) {
            self.bytes.extend_from_slice(&rest[..at]);
            self.bytes.push(b' ');
            rest = &rest[at + 3..];
        }
        self.bytes.extend_from_slice(rest);
        self.ends.push(self.bytes.len() as u32);
        Ok(())
    }

    /// The table, or the first piece found that is not sound text, and why.
    ///
    /// Looks at all pieces at once, which is many times faster than one by one.
    pub(super) fn finish(self) -> Result<Table, (usize, String)> {
        let TableBuilder { bytes, ends } = self;
        let piece_at = |offset: usize| ends.partition_point(|end| *end as usize <= offset);
        let unsound = |piece: usize, bytes: &[u8], what: &str| {
            let start = if piece == 0 { 0 } else { ends[piece - 1] as usize };
            let shown = String::from_utf8_lossy(&bytes[start..ends[piece] as usize]);
            (piece, format!("{what}: {shown:?}"))
        };
        // Slices look for a byte faster than iterators do.
        if bytes.contains(&0)
            && let Some(at) = bytes.iter().position(|b| *b == 0)
        {
            return Err(unsound(piece_at(at), &bytes, "holds a NUL"));
        }
        let text = String::from_utf8(bytes)
            .map_err(|e| unsound(piece_at(e.utf8_error().valid_up_to()), e.as_bytes(), "is not UTF-8"))?;
        // Together they may be valid where each is not: a character begun by one and ended by the next.
        if let Some(piece) = ends.iter().position(|end| !text.is_char_boundary(*end as usize)) {
            return Err(unsound(piece, text.as_bytes(), "is not UTF-8"));
        }
        Ok(Table { text, ends })
    }
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    #[inline]
    fn range(&self, id: u32) -> std::ops::Range<usize> {
        let i = id as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        start..self.ends[i] as usize
    }

    /// The bytes of piece `id`, which must be one.
    #[inline]
    pub(super) fn get(&self, id: u32) -> &[u8] {
        &self.text.as_bytes()[self.range(id)]
    }

    /// The same as text.
    #[inline]
    pub(super) fn text(&self, id: u32) -> &str {
        &self.text[self.range(id)]
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * size_of::<u32>()
    }

    #[cfg(test)]
    pub(super) fn of<T: AsRef<[u8]>>(pieces: &[T]) -> Table {
        let mut t = TableBuilder::default();
        pieces.iter().for_each(|p| t.push(p.as_ref()).unwrap());
        t.finish().unwrap()
    }
}

/// The part of an [`Index`]'s slot that comes from the hash.
const TAG: u32 = 0xff00_0000;

/// Finds a piece by its bytes: open addressing, at most half full. A slot holds 8 bits of the hash, which spare
/// most looks at the bytes, above the id plus one; 0 is empty.
pub(super) struct Index {
    slots: Vec<u32>,
    /// Differs from one instance to the next, so that no file can be made to collide.
    seed: u64,
}

impl Index {
    /// The index of every piece, or the first two found that read the same.
    ///
    /// Entering them in the order of their ids would wait for memory at every step. They are first sorted roughly by
    /// the slot that they go to.
    pub(super) fn new(table: &Table) -> Result<Result<Index, [u32; 2]>> {
        const WHAT: &str = "the vocabulary's index";
        let n = table.len();
        let slots = try_vec(Self::slots_for(n), 0, WHAT)?;
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0u8);
        let mut index = Index { slots, seed };
        let mut hashes = try_vec(n, 0u32, WHAT)?;
        // A slot's page of 4 kB is the unit of sorting; the slot is in the low bits of the hash.
        let page = |hash: u32| (hash as usize & (index.slots.len() - 1)) >> 10;
        let mut ends = try_vec((index.slots.len() >> 10) + 1, 0u32, WHAT)?;
        for (id, hash) in (0..).zip(&mut hashes) {
            *hash = self::hash(seed, table.get(id));
            ends[page(*hash)] += 1;
        }
        let mut sum = 0;
        for end in &mut ends {
            sum += *end;
            *end = sum;
        }
        let mut sorted = try_vec(n, (0u32, 0u32), WHAT)?;
        for (id, &hash) in hashes.iter().enumerate().rev() {
            let at = &mut ends[page(hash)];
            *at -= 1;
            sorted[*at as usize] = (hash, id as u32);
        }
        for (hash, id) in sorted {
            match index.probe(hash, |other| table.get(other) == table.get(id)) {
                Ok(same) => return Ok(Err([same, id])),
                Err(slot) => index.slots[slot] = hash & TAG | (id + 1),
            }
        }
        Ok(Ok(index))
    }

    pub(super) fn slots_for(pieces: usize) -> usize {
        pieces.saturating_mul(2).max(2).next_power_of_two()
    }

    /// The piece that reads `bytes`.
    #[inline]
    pub(super) fn find(&self, table: &Table, bytes: &[u8]) -> Option<u32> {
        self.probe(hash(self.seed, bytes), |id| table.get(id) == bytes).ok()
    }

    /// Of the pieces with a hash the one that is meant, or the empty slot where it would be.
    #[inline]
    fn probe(&self, hash: u32, is_meant: impl Fn(u32) -> bool) -> Result<u32, usize> {
        let mask = self.slots.len() - 1;
        let mut i = hash as usize & mask;
        loop {
            let slot = self.slots[i];
            if slot == 0 {
                return Err(i);
            }
            if (slot ^ hash) & TAG == 0 {
                let id = (slot & !TAG) - 1;
                if is_meant(id) {
                    return Ok(id);
                }
            }
            i = (i + 1) & mask;
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<u32>()
    }
}

/// Multiplies to 128 bits and folds the halves together: every bit of the input reaches every bit of the result.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let p = u128::from(a) * u128::from(b);
    p as u64 ^ (p >> 64) as u64
}

#[inline]
fn hash(seed: u64, bytes: &[u8]) -> u32 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let n = bytes.len();
    let mut h = seed ^ n as u64;
    let last = match (bytes.first_chunk::<8>(), bytes.first_chunk::<4>()) {
        (Some(_), _) => {
            // All whole words but the last, then the last eight bytes, which may overlap them.
            for word in bytes[..n - 1].chunks_exact(8) {
                h = fold(h ^ u64::from_le_bytes(*word.first_chunk().expect("chunks of 8")), K);
            }
            u64::from_le_bytes(*bytes.last_chunk().expect("at least 8"))
        }
        (None, Some(first)) => {
            let last = bytes.last_chunk().expect("at least 4");
            u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32
        }
        (None, None) if n == 0 => 0,
        (None, None) => u64::from(bytes[0]) | u64::from(bytes[n / 2]) << 8 | u64::from(bytes[n - 1]) << 16,
    };
    (fold(fold(h ^ last, K), seed | 1) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_piece_and_nothing_else() {
        let n = 5000u32;
        let name = |id: u32| {
            let (x, y) = ("x".repeat(id as usize % 3), "y".repeat(id as usize % 19));
            format!("{x}é{id}\u{2581}{y}")
        };
        let mut names: Vec<String> = (0..n).map(name).collect();
        let table = Table::of(&names);
        let index = Index::new(&table).unwrap().ok().unwrap();
        for id in 0..n {
            assert_eq!(index.find(&table, table.get(id)), Some(id));
            let mut other = table.get(id).to_vec();
            other.push(b'!');
            assert_eq!(index.find(&table, &other), None);
        }
        assert_eq!(table.text(13), "xé13 yyyyyyyyyyyyy");
        assert_eq!(index.find(&table, b""), None);

        names[4000] = names[17].clone();
        assert_eq!(Index::new(&Table::of(&names)).unwrap().err(), Some([17, 4000]));
    }

    #[test]
    fn each_piece_must_be_text() {
        let refused = |pieces: &[&[u8]]| {
            let mut t = TableBuilder::default();
            pieces.iter().for_each(|p| t.push(p).unwrap());
            t.finish().err().map(|(piece, _)| piece)
        };
        assert_eq!(refused(&[b"a", "é".as_bytes(), "\u{2581}é\u{2581}".as_bytes()]), None);
        assert_eq!(refused(&[b"a", b"b\0", b"c"]), Some(1));
        assert_eq!(refused(&[b"a", b"b", b"\xc3"]), Some(2));
        assert_eq!(refused(&[b"a", b"\xe2\x96", b"\x81", b"b"]), Some(1)); // one character in two pieces
        assert_eq!(refused(&[b"a\xff", b"b"]), Some(0));
        assert_eq!(refused(&[b"a", b"\xe2\x96\x81\x81"]), Some(1));
    }
}
