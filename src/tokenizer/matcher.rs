//! The longest of a set of pieces at a place in a text: user-defined pieces, control tokens.

use super::table::{Table, reserve};
use crate::Result;

const NONE: u32 = u32::MAX;

/// A set of pieces, sorted, each knowing the longest other one that it begins with.
pub(super) struct Matcher {
    /// In the order of their bytes.
    ids: Vec<u32>,
    /// For each, where in `ids` the longest other piece lies that it begins with.
    prefix: Vec<u32>,
    /// Those that begin with byte `b` lie from `starts[b]` to `starts[b + 1]`.
    starts: [u32; 257],
}

impl Matcher {
    /// Memory for each piece.
    pub(super) const BYTES_A_PIECE: usize = 2 * size_of::<u32>();

    /// `ids` must be pieces of `table`, none empty and no two alike.
    pub(super) fn new(table: &Table, mut ids: Vec<u32>) -> Result<Matcher> {
        ids.sort_unstable_by(|a, b| table.get(*a).cmp(table.get(*b)));
        let mut prefix = Vec::new();
        reserve(&mut prefix, ids.len(), "the longest-match table")?;
        let mut starts = [0; 257];
        for (i, &id) in ids.iter().enumerate() {
            let piece = table.get(id);
            starts[piece[0] as usize + 1] = i as u32 + 1;
            // What this piece begins with, its predecessor begins with too, or is.
            let mut p = if i == 0 { NONE } else { i as u32 - 1 };
            while p != NONE && !piece.starts_with(table.get(ids[p as usize])) {
                p = prefix[p as usize];
            }
            prefix.push(p);
        }
        for b in 0..256 {
            starts[b + 1] = starts[b + 1].max(starts[b]);
        }
        Ok(Matcher { ids, prefix, starts })
    }

    /// Whether a piece may begin with this byte.
    #[inline]
    pub(super) fn begins_with(&self, byte: u8) -> bool {
        self.starts[byte as usize] != self.starts[byte as usize + 1]
    }

    /// The longest piece that `text` begins with.
    pub(super) fn longest<'t>(&self, table: &'t Table, text: &[u8]) -> Option<(u32, &'t [u8])> {
        let first = *text.first()? as usize;
        let (from, to) = (self.starts[first] as usize, self.starts[first + 1] as usize);
        // The last piece that does not sort after the text begins with every piece that the text begins with.
        let not_after = self.ids[from..to].partition_point(|id| table.get(*id) <= text);
        let last = from + not_after.checked_sub(1)?;
        let piece = table.get(self.ids[last]);
        let common = piece.iter().zip(text).take_while(|(a, b)| a == b).count();
        let mut at = last as u32;
        while at != NONE {
            let piece = table.get(self.ids[at as usize]);
            if piece.len() <= common {
                return Some((self.ids[at as usize], piece));
            }
            at = self.prefix[at as usize];
        }
        None
    }

    /// The first place at or after `from` where a piece lies, and the longest one there. `step` is called for each
    /// byte looked at and may end the search.
    pub(super) fn find<'t>(
        &self,
        table: &'t Table,
        text: &[u8],
        from: usize,
        mut step: impl FnMut() -> Result<()>,
    ) -> Result<Option<(usize, u32, &'t [u8])>> {
        for (i, &b) in text.iter().enumerate().skip(from) {
            step()?;
            if self.begins_with(b)
                && let Some((id, piece)) = self.longest(table, &text[i..])
            {
                return Ok(Some((i, id, piece)));
            }
        }
        Ok(None)
    }

    /// The most pieces of which each begins with the next shorter one.
    #[cfg(any(feature = "sentencepiece", test))]
    pub(super) fn depth(&self) -> Result<usize> {
        let mut depths: Vec<usize> = Vec::new();
        reserve(&mut depths, self.ids.len(), "the longest-match table")?;
        for &p in &self.prefix {
            // A prefix sorts before what begins with it.
            depths.push(1 + if p == NONE { 0 } else { depths[p as usize] });
        }
        Ok(depths.into_iter().max().unwrap_or(0))
    }

    pub(super) fn heap_bytes(&self) -> usize {
        (self.ids.capacity() + self.prefix.capacity()) * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wins_and_shorter_ones_are_fallen_back_to() {
        let pieces = ["ab", "b", "a", "abcd", "abcx", "bé", "b ", "abce"];
        let table = Table::of(&pieces);
        let m = Matcher::new(&table, (0..pieces.len() as u32).collect()).unwrap();
        let longest = |text: &str| m.longest(&table, text.as_bytes()).map(|(id, _)| pieces[id as usize]);
        assert_eq!(longest("abcd!"), Some("abcd"));
        assert_eq!(longest("abcdx"), Some("abcd"));
        assert_eq!(longest("abcq"), Some("ab"));
        assert_eq!(longest("abc"), Some("ab"));
        assert_eq!(longest("ax"), Some("a"));
        assert_eq!(longest("zab"), None);
        assert_eq!(longest("bé"), Some("bé"));
        assert_eq!(longest("bè"), Some("b"));
        assert_eq!(longest("b c"), Some("b "));
        assert_eq!(longest(""), None);
        assert_eq!(m.depth().unwrap(), 3);
        assert!(m.begins_with(b'a') && !m.begins_with(b'z') && !m.begins_with(0) && !m.begins_with(255));

        let found = m.find(&table, "zzé bé".as_bytes(), 0, || Ok(())).unwrap();
        assert_eq!(found.map(|(at, id, _)| (at, pieces[id as usize])), Some((5, "bé")));
        assert!(m.find(&table, b"zz", 0, || Ok(())).unwrap().is_none());
    }

    #[test]
    fn an_empty_set_matches_nothing() {
        let m = Matcher::new(&Table::default(), Vec::new()).unwrap();
        assert_eq!(m.longest(&Table::default(), b"a"), None);
        assert_eq!(m.depth().unwrap(), 0);
    }
}
