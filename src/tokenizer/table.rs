//! The pieces' bytes, and finding a piece by its bytes.

use crate::{Error, Result};

/// The most pieces: an id has 24 bits in a slot of [`Index`].
pub(super) const MAX_PIECES: usize = (1 << 24) - 1;

/// Makes room for `n` more elements, or says so.
pub(super) fn reserve<T>(v: &mut Vec<T>, n: usize, what: &'static str) -> Result<()> {
    v.try_reserve(n).map_err(|_| out_of_memory::<T>(v.len(), n, what))
}

pub(super) fn out_of_memory<T>(len: usize, more: usize, what: &'static str) -> Error {
    Error::OutOfMemory { what, bytes: len.saturating_add(more).saturating_mul(size_of::<T>()) }
}

/// Every piece's bytes, one after the other, with U+2581 stored as the space that it stands for.
#[derive(Default)]
pub(super) struct Table {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Table {
    pub(super) fn with_capacity(pieces: usize, bytes: usize) -> Result<Table> {
        let mut t = Table::default();
        t.bytes
            .try_reserve_exact(bytes)
            .map_err(|_| out_of_memory::<u8>(0, bytes, "the vocabulary's bytes"))?;
        t.ends
            .try_reserve_exact(pieces)
            .map_err(|_| out_of_memory::<u32>(0, pieces, "the vocabulary's offsets"))?;
        Ok(t)
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Adds a piece, its U+2581 turned into spaces. The caller has bounded the sum of all by `u32::MAX`.
    pub(super) fn push(&mut self, piece: &str) -> Result<()> {
        reserve(&mut self.bytes, piece.len(), "the vocabulary's bytes")?;
        reserve(&mut self.ends, 1, "the vocabulary's offsets")?;
        let mut parts = piece.split(super::SPACE_SYMBOL);
        self.bytes.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
        for part in parts {
            self.bytes.push(b' ');
            self.bytes.extend_from_slice(part.as_bytes());
        }
        self.ends.push(self.bytes.len() as u32);
        Ok(())
    }

    pub(super) fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes of piece `id`, which must be one.
    #[inline]
    pub(super) fn get(&self, id: u32) -> &[u8] {
        let i = id as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        &self.bytes[start..self.ends[i] as usize]
    }

    /// The same as text: only valid UTF-8 is ever pushed, and turning U+2581 into a space keeps it so.
    pub(super) fn text(&self, id: u32) -> &str {
        std::str::from_utf8(self.get(id)).expect("pieces are checked to be UTF-8")
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<u32>()
    }
}

/// Finds a piece by its bytes: open addressing, at most half full. A slot holds 8 bits of the hash, which spare
/// most looks at the bytes, above the id plus one; 0 is empty.
pub(super) struct Index {
    slots: Vec<u32>,
    /// Differs from one instance to the next, so that no file can be made to collide.
    seed: u64,
}

impl Index {
    pub(super) fn with_capacity(pieces: usize) -> Result<Index> {
        let slots = crate::error::try_vec(Self::slots_for(pieces), 0, "the vocabulary's index")?;
        let seed = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0u8);
        Ok(Index { slots, seed })
    }

    pub(super) fn slots_for(pieces: usize) -> usize {
        pieces.saturating_mul(2).max(2).next_power_of_two()
    }

    /// The piece that reads `bytes`.
    #[inline]
    pub(super) fn find(&self, table: &Table, bytes: &[u8]) -> Option<u32> {
        self.probe(table, bytes).ok()
    }

    /// Enters piece `id` of `table`, or gives the piece that reads the same. There must be room.
    pub(super) fn insert(&mut self, table: &Table, id: u32) -> Result<(), u32> {
        match self.probe(table, table.get(id)) {
            Ok(same) => Err(same),
            Err((slot, tag)) => {
                self.slots[slot] = tag | (id + 1);
                Ok(())
            }
        }
    }

    /// The piece, or the empty slot and the tag that it would have.
    #[inline]
    fn probe(&self, table: &Table, bytes: &[u8]) -> Result<u32, (usize, u32)> {
        let h = hash(self.seed, bytes);
        let tag = (h >> 56) as u32 * (1 << 24);
        let mask = self.slots.len() - 1;
        let mut i = h as usize & mask;
        loop {
            let slot = self.slots[i];
            if slot == 0 {
                return Err((i, tag));
            }
            if slot & 0xff00_0000 == tag {
                let id = (slot & 0x00ff_ffff) - 1;
                if table.get(id) == bytes {
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
fn hash(seed: u64, bytes: &[u8]) -> u64 {
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
    fold(fold(h ^ last, K), seed | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_piece_and_nothing_else() {
        let n = 5000u32;
        let mut table = Table::default();
        let mut index = Index::with_capacity(n as usize).unwrap();
        for id in 0..n {
            table.push(&"xyz".repeat(id as usize % 11).replace('z', &format!("é{id}\u{2581}"))).unwrap();
            // Pieces 0, 11, 22... all read "".
            let first_empty = (id > 0 && id % 11 == 0).then_some(0);
            assert_eq!(index.insert(&table, id).err(), first_empty, "piece {id}");
        }
        for id in 0..n {
            let expected = if id % 11 == 0 { 0 } else { id };
            assert_eq!(index.find(&table, table.get(id)), Some(expected));
            let mut other = table.get(id).to_vec();
            other.push(b'!');
            assert_eq!(index.find(&table, &other), None);
        }
        assert_eq!(table.text(12), "xyé12 ");
    }
}
