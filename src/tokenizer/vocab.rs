//! The vocabulary: what each id reads, what kind of piece it is, and which merges come first.

use super::matcher::Matcher;
use super::table::{Index, MAX_PIECES, Table, TableBuilder, reserve};
use super::{PieceKind, SPACE_SYMBOL, SpecialIds};
use crate::{Error, Result};

/// The longest piece there may be, in bytes. Published vocabularies have 48; without a bound, one piece could make
/// every step of the encoders slow, and SentencePiece's trie builder recurses once for each byte.
pub(super) const MAX_PIECE_LEN: usize = 1024;

pub(super) const START_OF_TURN: &str = "<start_of_turn>";
pub(super) const END_OF_TURN: &str = "<end_of_turn>";

/// A sound vocabulary.
pub(super) struct Vocabulary {
    pub(super) table: Table,
    pub(super) index: Index,
    pub(super) kinds: Vec<PieceKind>,
    /// For each piece a number that is lower the higher its score is.
    pub(super) order: Vec<u32>,
    pub(super) pairs: Pairs,
    /// The pieces that stand for the bytes 0 to 255.
    pub(super) byte_ids: [u32; 256],
    /// User-defined pieces: taken whole before anything else.
    pub(super) user: Matcher,
    /// Control tokens and the unknown token: matched only when asked for.
    pub(super) control: Matcher,
    /// Length in bytes of the longest piece.
    pub(super) max_len: usize,
    pub(super) special: Special,
}

/// The ids of the pieces that mean something to the library.
pub(super) struct Special {
    pub(super) bos: u32,
    pub(super) eos: u32,
    pub(super) unk: u32,
    pub(super) pad: Option<u32>,
    pub(super) start_of_turn: u32,
    pub(super) end_of_turn: u32,
}

impl Vocabulary {
    /// The piece that reads `bytes`, if text can become it: only normal pieces are made by merging.
    #[inline]
    pub(super) fn normal(&self, bytes: &[u8]) -> Option<u32> {
        self.index.find(&self.table, bytes).filter(|id| self.kinds[*id as usize] == PieceKind::Normal)
    }

    pub(super) fn id_of(&self, text: &str) -> Option<u32> {
        if text.contains(SPACE_SYMBOL) {
            self.index.find(&self.table, text.replace(SPACE_SYMBOL, " ").as_bytes())
        } else {
            self.index.find(&self.table, text.as_bytes())
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.table.heap_bytes()
            + self.index.heap_bytes()
            + self.kinds.capacity()
            + self.order.capacity() * size_of::<u32>()
            + self.pairs.0.capacity() * size_of::<u64>()
            + self.user.heap_bytes()
            + self.control.heap_bytes()
            + size_of::<Self>()
    }

    /// At most what [`Vocabulary::heap_bytes`] will say of so many pieces with so many bytes in all, of which
    /// `matched` are user-defined or control tokens.
    pub(super) fn heap_bytes_bound(pieces: usize, bytes: usize, matched: usize) -> usize {
        let each = 2 * size_of::<u32>() + size_of::<PieceKind>(); // offset, order, kind
        bytes
            .saturating_add(pieces.saturating_mul(each))
            .saturating_add(Index::slots_for(pieces).saturating_mul(size_of::<u32>()))
            .saturating_add((matched + Special::COUNT).saturating_mul(Matcher::BYTES_A_PIECE))
            .saturating_add(Pairs::WORDS * size_of::<u64>() + size_of::<Self>())
    }
}

/// A number that sorts as `score` does, but the other way round. The score is finite.
fn order_of(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits(); // -0.0 becomes 0.0, which it equals
    let ascending = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    !ascending
}

/// The score of a number made by [`order_of`].
#[cfg(any(feature = "sentencepiece", test))]
pub(super) fn score_of(order: u32) -> f32 {
    let ascending = !order;
    f32::from_bits(if ascending >> 31 == 1 { ascending & !(1 << 31) } else { !ascending })
}

/// Which two characters stand side by side in some normal piece. Where two do not, no merge can ever reach across,
/// and a text may be cut there. A set of hashes: it may say yes wrongly, which costs time only, never no.
pub(super) struct Pairs(Vec<u64>);

impl Pairs {
    const BITS: u32 = 20;
    const WORDS: usize = 1 << (Self::BITS - 6);

    fn new() -> Result<Pairs> {
        Ok(Pairs(crate::error::try_vec(Self::WORDS, 0, "the vocabulary's pairs")?))
    }

    #[inline]
    fn bit(a: char, b: char) -> (usize, u64) {
        let both = u64::from(u32::from(a)) << 21 | u64::from(u32::from(b));
        let h = both.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - Self::BITS);
        ((h >> 6) as usize, 1 << (h & 63))
    }

    fn insert_all(&mut self, piece: &str) {
        let mut chars = piece.chars();
        let Some(mut a) = chars.next() else { return };
        for b in chars {
            let (word, bit) = Self::bit(a, b);
            self.0[word] |= bit;
            a = b;
        }
    }

    #[inline]
    pub(super) fn contains(&self, a: char, b: char) -> bool {
        let (word, bit) = Self::bit(a, b);
        self.0[word] & bit != 0
    }
}

/// Takes the pieces one by one, then looks at the whole; refuses what is unsound.
pub(super) struct Builder<'f> {
    file: &'f str,
    announced: usize,
    table: TableBuilder,
    kinds: Vec<PieceKind>,
    order: Vec<u32>,
    max_len: usize,
}

impl<'f> Builder<'f> {
    /// `file` is what messages call the source. At most `pieces` may follow; `bytes` is a hint of their length in
    /// all.
    pub(super) fn new(file: &'f str, pieces: usize, bytes: usize) -> Result<Builder<'f>> {
        if pieces == 0 || pieces > MAX_PIECES {
            let what = format!("there are {pieces}, expected 1 to {MAX_PIECES}");
            return Err(Error::Vocabulary { file: file.to_owned(), piece: 0, what });
        }
        let mut kinds = Vec::new();
        let mut order = Vec::new();
        reserve(&mut kinds, pieces, "the vocabulary's kinds")?;
        reserve(&mut order, pieces, "the vocabulary's scores")?;
        Ok(Builder {
            file,
            announced: pieces,
            table: TableBuilder::with_capacity(pieces, bytes)?,
            kinds,
            order,
            max_len: 0,
        })
    }

    fn unsound(&self, piece: usize, what: impl Into<String>) -> Error {
        unsound(self.file, piece, what)
    }

    pub(super) fn push(&mut self, text: &[u8], score: f32, token_type: i64) -> Result<()> {
        let i = self.table.len();
        if i == self.announced {
            return Err(self.unsound(i, "is one more than announced"));
        }
        let kind = PieceKind::from_gguf(token_type)
            .ok_or_else(|| self.unsound(i, format!("has type {token_type}, expected 1 to 6")))?;
        if !score.is_finite() {
            return Err(self.unsound(i, format!("has score {score}, expected a finite number")));
        }
        if text.is_empty() {
            return Err(self.unsound(i, "is empty"));
        }
        if text.len() > MAX_PIECE_LEN {
            let what = format!("has {} bytes, expected at most {MAX_PIECE_LEN}", text.len());
            return Err(self.unsound(i, what));
        }
        if self.table.bytes_len() + text.len() > u32::MAX as usize {
            return Err(self.unsound(i, "ends beyond 4 GiB"));
        }
        self.max_len = self.max_len.max(text.len());
        self.table.push(text)?;
        self.kinds.push(kind);
        self.order.push(order_of(score));
        Ok(())
    }

    pub(super) fn finish(self, ids: &SpecialIds) -> Result<Vocabulary> {
        let Builder { file, table, mut kinds, order, max_len, .. } = self;
        let table = table.finish().map_err(|(piece, what)| unsound(file, piece, what))?;
        if table.len() == 0 {
            return Err(unsound(file, 0, "there is none"));
        }
        let index = Index::new(&table)?.map_err(|[first, second]| {
            let text = table.text(second);
            unsound(file, second as usize, format!("reads the same as piece {first}: {text:?}"))
        })?;
        let special = Special::new(file, &table, &index, ids)?;
        special.settle(&mut kinds);
        let byte_ids = byte_ids(file, &table, &kinds)?;
        let mut pairs = Pairs::new()?;
        for (id, _) in kinds.iter().enumerate().filter(|(_, k)| **k == PieceKind::Normal) {
            pairs.insert_all(table.text(id as u32));
        }
        Ok(Vocabulary {
            user: matcher(&table, &kinds, |k| k == PieceKind::UserDefined)?,
            control: matcher(&table, &kinds, |k| matches!(k, PieceKind::Control | PieceKind::Unknown))?,
            table,
            index,
            kinds,
            order,
            pairs,
            byte_ids,
            max_len,
            special,
        })
    }
}

fn unsound(file: &str, piece: usize, what: impl Into<String>) -> Error {
    Error::Vocabulary { file: file.to_owned(), piece, what: what.into() }
}

impl Special {
    /// How many there are, each made a control token whatever the file says.
    const COUNT: usize = 6;

    /// By the ids given, otherwise by what the pieces read.
    fn new(file: &str, table: &Table, index: &Index, ids: &SpecialIds) -> Result<Special> {
        let n = table.len();
        let optional = |given: Option<u32>, key: &'static str, text: &str| match given {
            Some(id) if (id as usize) < n => Ok(Some(id)),
            Some(id) => Err(Error::Metadata {
                file: file.to_owned(),
                key: key.to_owned(),
                expected: format!("the id of one of the {n} pieces"),
                found: id.to_string(),
            }),
            None => Ok(index.find(table, text.as_bytes())),
        };
        let required = |given, key, text: &str| {
            let missing = || unsound(file, n, format!("the control token {text} is missing"));
            optional(given, key, text)?.ok_or_else(missing)
        };
        Ok(Special {
            bos: required(ids.bos, super::source::BOS_KEY, "<bos>")?,
            eos: required(ids.eos, super::source::EOS_KEY, "<eos>")?,
            unk: required(ids.unk, super::source::UNK_KEY, "<unk>")?,
            pad: optional(ids.pad, super::source::PAD_KEY, "<pad>")?,
            start_of_turn: required(None, "", START_OF_TURN)?,
            end_of_turn: required(None, "", END_OF_TURN)?,
        })
    }

    /// What a piece means goes before what the file says of it: some mark the turns' tokens as normal text, and
    /// some no piece as the unknown one.
    fn settle(&self, kinds: &mut [PieceKind]) {
        for kind in kinds.iter_mut().filter(|k| **k == PieceKind::Unknown) {
            *kind = PieceKind::Control;
        }
        let control = [self.bos, self.eos, self.start_of_turn, self.end_of_turn];
        for id in control.into_iter().chain(self.pad) {
            kinds[id as usize] = PieceKind::Control;
        }
        kinds[self.unk as usize] = PieceKind::Unknown;
    }
}

/// A matcher of the pieces of wanted kinds.
fn matcher(table: &Table, kinds: &[PieceKind], wanted: impl Fn(PieceKind) -> bool) -> Result<Matcher> {
    let mut ids = Vec::new();
    reserve(&mut ids, kinds.iter().filter(|k| wanted(**k)).count(), "the longest-match table")?;
    ids.extend((0..).zip(kinds).filter(|(_, k)| wanted(**k)).map(|(id, _)| id));
    Matcher::new(table, ids)
}

fn byte_ids(file: &str, table: &Table, kinds: &[PieceKind]) -> Result<[u32; 256]> {
    let mut ids = [None; 256];
    for (id, _) in (0..).zip(kinds).filter(|(_, k)| **k == PieceKind::Byte) {
        let text = table.text(id);
        let byte = byte_of(text).ok_or_else(|| {
            let what = format!("stands for a byte but reads {text:?}, expected <0x00> to <0xFF>");
            unsound(file, id as usize, what)
        })?;
        ids[byte as usize] = Some(id);
    }
    let mut found = [0; 256];
    for (byte, id) in ids.into_iter().enumerate() {
        let missing = || {
            let name = byte_name(byte as u8);
            unsound(file, table.len(), format!("the byte piece {name} is missing"))
        };
        found[byte] = id.ok_or_else(missing)?;
    }
    Ok(found)
}

/// What the piece that stands for a byte reads.
fn byte_name(byte: u8) -> String {
    format!("<0x{byte:02X}>")
}

/// The byte that a piece of this name stands for.
fn byte_of(name: &str) -> Option<u8> {
    let byte = u8::from_str_radix(name.get(3..5)?, 16).ok()?;
    (name == byte_name(byte)).then_some(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_is_the_score_upside_down() {
        let scores = [f32::MAX, 1000.0, 0.5, f32::MIN_POSITIVE, 0.0, -1e-40, -0.5, -255_526.0, f32::MIN];
        for (i, a) in scores.iter().enumerate() {
            assert_eq!(score_of(order_of(*a)), *a);
            for b in &scores[i + 1..] {
                assert!(order_of(*a) < order_of(*b), "{a} before {b}");
            }
        }
        assert_eq!(order_of(-0.0), order_of(0.0));
    }
}
