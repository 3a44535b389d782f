//! The second engine: Google's SentencePiece, given the same vocabulary as a model of its own format.
//!
//! Its C++ meets no vocabulary that has not been found sound, since it aborts the process over some that are not.

use sentencepiece::SentencePieceProcessor;

use super::table::reserve;
use super::vocab::{Vocabulary, score_of};
use super::{PieceKind, SPACE_SYMBOL};
use crate::{Error, Result};

/// SentencePiece keeps at most so many user-defined pieces that begin the text at one place, and reads beyond its
/// array when there are more.
const MAX_DEPTH: usize = 64;

/// Bytes of all user-defined pieces; its trie builder throws where offsets outgrow it, far above this.
const MAX_USER_BYTES: usize = 64 << 20;

/// Bytes of a model; protocol buffers end at 2 GiB.
const MAX_MODEL: usize = 1 << 30;

/// Bytes of a text: SentencePiece counts in 32-bit integers and triples spaces.
const MAX_TEXT: usize = 256 << 20;

pub(super) struct Processor(SentencePieceProcessor);

impl Processor {
    pub(super) fn new(file: &str, vocab: &Vocabulary) -> Result<Processor> {
        let unsound =
            |what: String| Error::Vocabulary { file: file.to_owned(), piece: vocab.table.len(), what };
        let depth = vocab.user.depth()?;
        if depth > MAX_DEPTH {
            return Err(unsound(format!(
                "{depth} user-defined pieces each begin with the next; SentencePiece takes {MAX_DEPTH}"
            )));
        }
        let user = (0..vocab.table.len() as u32)
            .filter(|id| vocab.kinds[*id as usize] == PieceKind::UserDefined)
            .map(|id| vocab.table.get(id).len())
            .sum::<usize>();
        if user > MAX_USER_BYTES {
            return Err(unsound(format!(
                "user-defined pieces have {user} bytes; SentencePiece takes {MAX_USER_BYTES}"
            )));
        }
        let model = model(vocab)?;
        if model.len() > MAX_MODEL {
            return Err(unsound(format!(
                "{} bytes as a SentencePiece model, which takes {MAX_MODEL}",
                model.len()
            )));
        }
        SentencePieceProcessor::from_serialized_proto(&model)
            .map(Processor)
            .map_err(|e| unsound(format!("SentencePiece refuses it: {e}")))
    }

    pub(super) fn encode(&self, text: &str, out: &mut Vec<u32>) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        if text.len() > MAX_TEXT {
            return Err(Error::InvalidOption {
                option: "text",
                expected: format!("at most {MAX_TEXT} bytes for SentencePiece"),
                found: text.len().to_string(),
            });
        }
        let pieces = self
            .0
            .encode(text)
            .map_err(|e| Error::Internal { what: format!("SentencePiece cannot encode: {e}") })?;
        reserve(out, pieces.len(), "the token ids")?;
        out.extend(pieces.iter().map(|p| p.id));
        Ok(())
    }
}

/// The vocabulary as SentencePiece's `ModelProto`
/// (<https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto>).
fn model(vocab: &Vocabulary) -> Result<Vec<u8>> {
    let mut model = Vec::new();
    let mut piece = Vec::new();
    for id in 0..vocab.table.len() as u32 {
        let i = id as usize;
        let kind = match vocab.kinds[i] {
            // Left as it is, text would be merged into it and taken apart again.
            PieceKind::Unused => PieceKind::Control,
            kind => kind,
        };
        let text = vocab.table.text(id);
        let name = if kind == PieceKind::Control && text.chars().count() == 1 {
            // The only way for a control token to be met in text: as a single character.
            unreachable_name(vocab, id)
        } else if matches!(kind, PieceKind::Normal | PieceKind::UserDefined) {
            text.replace(' ', SPACE_SYMBOL.encode_utf8(&mut [0; 4]))
        } else {
            text.to_owned()
        };
        piece.clear();
        put_bytes(&mut piece, 1, name.as_bytes());
        put_tag(&mut piece, 2, 5);
        piece.extend_from_slice(&score_of(vocab.order[i]).to_le_bytes());
        put_number(&mut piece, 3, kind as u64);
        reserve(&mut model, piece.len() + 16, "SentencePiece's model")?;
        put_bytes(&mut model, 1, &piece);
    }
    let mut trainer = Vec::new();
    put_number(&mut trainer, 3, 2); // model_type: BPE
    put_number(&mut trainer, 35, 1); // byte_fallback
    put_bytes(&mut model, 2, &trainer);
    let mut normalizer = Vec::new();
    put_bytes(&mut normalizer, 1, b"identity");
    put_number(&mut normalizer, 3, 0); // add_dummy_prefix
    put_number(&mut normalizer, 4, 0); // remove_extra_whitespaces
    put_number(&mut normalizer, 5, 1); // escape_whitespaces
    put_bytes(&mut model, 3, &normalizer);
    Ok(model)
}

/// A name that no piece has and no text is looked up by.
fn unreachable_name(vocab: &Vocabulary, id: u32) -> String {
    (0u32..)
        .map(|n| format!("<control {id} {n}>"))
        .find(|name| vocab.id_of(name).is_none())
        .expect("names go on")
}

fn put_varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn put_tag(out: &mut Vec<u8>, field: u64, wire_type: u64) {
    put_varint(out, field << 3 | wire_type);
}

fn put_number(out: &mut Vec<u8>, field: u64, n: u64) {
    put_tag(out, field, 0);
    put_varint(out, n);
}

fn put_bytes(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    put_tag(out, field, 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}
