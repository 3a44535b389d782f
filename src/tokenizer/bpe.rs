//! The built-in engine: SentencePiece's byte-pair encoding.
//!
//! User-defined pieces are taken first, the longest at each place. What lies between is split into characters, and
//! the best pair of neighbours that together read a normal piece is merged, over and over: the highest score first,
//! of equals the leftmost. A character that is no piece in the end becomes its bytes' pieces.
//!
//! The text is cut wherever no piece holds the two characters on either side next to each other: no merge reaches
//! across such a place, so that the parts can be merged one by one with the same result. Mostly they are words. A
//! part of n characters takes O(n log n).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::table::{out_of_memory, reserve};
use super::vocab::Vocabulary;
use super::{SPACE_SYMBOL, Work};
use crate::Result;

const NONE: u32 = u32::MAX;

/// The longest text, in bytes, so that offsets fit 32 bits with one value to spare.
pub(super) const MAX_TEXT: usize = u32::MAX as usize - 1;

/// A piece in the making: at first a character.
struct Symbol {
    /// Where it lies in the text.
    start: u32,
    end: u32,
    /// Its neighbours.
    prev: u32,
    next: u32,
    /// The piece that it is, once merged.
    id: u32,
    /// The piece that it would be, merged with the next.
    merged: u32,
}

/// What encoding needs besides the vocabulary, kept from part to part.
#[derive(Default)]
pub(super) struct Scratch {
    symbols: Vec<Symbol>,
    /// Possible merges, the best on top: the order of the merged piece, then the index of the left symbol. One that
    /// no longer holds is left in place and passed over when its turn comes.
    agenda: BinaryHeap<Reverse<u64>>,
}

/// Appends the ids of `text`, in which spaces are spaces and not U+2581.
pub(super) fn encode(
    vocab: &Vocabulary,
    text: &str,
    scratch: &mut Scratch,
    out: &mut Vec<u32>,
    work: &mut Work,
) -> Result<()> {
    let bytes = text.as_bytes();
    let mut at = 0;
    let mut before = None;
    scratch.symbols.clear();
    while let Some(c) = text[at..].chars().next() {
        work.step()?;
        if vocab.user.begins_with(bytes[at])
            && let Some((id, piece)) = vocab.user.longest(&vocab.table, &bytes[at..])
        {
            merge(vocab, text, scratch, out, work)?;
            reserve(out, 1, "the token ids")?;
            out.push(id);
            at += piece.len();
            before = None;
            continue;
        }
        if before.is_some_and(|b| !vocab.pairs.contains(b, c)) {
            merge(vocab, text, scratch, out, work)?;
        }
        let end = at + c.len_utf8();
        let i = scratch.symbols.len() as u32;
        reserve(&mut scratch.symbols, 1, "the characters of a text")?;
        scratch.symbols.push(Symbol {
            start: at as u32,
            end: end as u32,
            prev: i.wrapping_sub(1), // NONE for the first
            next: i + 1,
            id: NONE,
            merged: NONE,
        });
        at = end;
        before = Some(c);
    }
    merge(vocab, text, scratch, out, work)
}

/// Merges the symbols, appends what they become, and clears them.
fn merge(
    vocab: &Vocabulary,
    text: &str,
    scratch: &mut Scratch,
    out: &mut Vec<u32>,
    work: &mut Work,
) -> Result<()> {
    let Scratch { symbols, agenda } = scratch;
    let Some(last) = symbols.last_mut() else { return Ok(()) };
    last.next = NONE;
    agenda.clear();
    for i in 0..symbols.len() - 1 {
        work.step()?;
        propose(vocab, text, symbols, agenda, i as u32)?;
    }
    while let Some(Reverse(best)) = agenda.pop() {
        work.step()?;
        let left = best as u32 as usize;
        let id = symbols[left].merged;
        // Two entries of one symbol with equal order are alike: whichever comes first does the merge.
        if id == NONE || vocab.order[id as usize] != (best >> 32) as u32 {
            continue;
        }
        let right = symbols[left].next as usize;
        let Symbol { end, next, .. } = symbols[right];
        symbols[right].merged = NONE;
        symbols[left].end = end;
        symbols[left].next = next;
        symbols[left].id = id;
        if next != NONE {
            symbols[next as usize].prev = left as u32;
        }
        propose(vocab, text, symbols, agenda, left as u32)?;
        let prev = symbols[left].prev;
        if prev != NONE {
            propose(vocab, text, symbols, agenda, prev)?;
        }
    }
    let mut i = 0;
    while i != NONE {
        work.step()?;
        let s = &symbols[i as usize];
        emit(vocab, &text.as_bytes()[s.start as usize..s.end as usize], s.id, out)?;
        i = s.next;
    }
    symbols.clear();
    Ok(())
}

/// Looks up what symbol `left` and the next one read together, and enters it if it is a piece.
#[inline]
fn propose(
    vocab: &Vocabulary,
    text: &str,
    symbols: &mut [Symbol],
    agenda: &mut BinaryHeap<Reverse<u64>>,
    left: u32,
) -> Result<()> {
    let Symbol { start, next, .. } = symbols[left as usize];
    let merged = if next == NONE {
        None
    } else {
        let both = start as usize..symbols[next as usize].end as usize;
        if both.len() > vocab.max_len { None } else { vocab.normal(&text.as_bytes()[both]) }
    };
    symbols[left as usize].merged = merged.unwrap_or(NONE);
    if let Some(id) = merged {
        if agenda.len() == agenda.capacity() {
            let n = agenda.len().max(32);
            agenda.try_reserve(n).map_err(|_| out_of_memory::<u64>(n, n, "the possible merges of a text"))?;
        }
        agenda.push(Reverse(u64::from(vocab.order[id as usize]) << 32 | u64::from(left)));
    }
    Ok(())
}

/// Appends the id of a finished symbol: `merged`, or of a single character its piece, or its bytes' pieces.
fn emit(vocab: &Vocabulary, symbol: &[u8], merged: u32, out: &mut Vec<u32>) -> Result<()> {
    let id = if merged == NONE { vocab.normal(symbol) } else { Some(merged) };
    reserve(out, 4, "the token ids")?;
    match id {
        Some(id) => out.push(id),
        None => {
            // To SentencePiece a space is the symbol that stands for it.
            let mut symbol_bytes = [0; 4];
            let bytes =
                if symbol == b" " { SPACE_SYMBOL.encode_utf8(&mut symbol_bytes).as_bytes() } else { symbol };
            out.extend(bytes.iter().map(|b| vocab.byte_ids[*b as usize]));
        }
    }
    Ok(())
}
