//! The vocabulary of a GGUF file.

use super::vocab::{Builder, Vocabulary};
use super::{PieceKind, SpecialIds};
use crate::gguf::{Array, Gguf};
use crate::{CancelToken, Error, Result};

const MODEL_KEY: &str = "tokenizer.ggml.model";
const TOKENS_KEY: &str = "tokenizer.ggml.tokens";
const SCORES_KEY: &str = "tokenizer.ggml.scores";
const TYPES_KEY: &str = "tokenizer.ggml.token_type";
pub(super) const BOS_KEY: &str = "tokenizer.ggml.bos_token_id";
pub(super) const EOS_KEY: &str = "tokenizer.ggml.eos_token_id";
pub(super) const UNK_KEY: &str = "tokenizer.ggml.unknown_token_id";
pub(super) const PAD_KEY: &str = "tokenizer.ggml.padding_token_id";

/// The kind of vocabulary that Gemma's files name: SentencePiece.
const MODEL: &str = "llama";

/// Pieces taken between two looks at the cancel token: about a tenth of a millisecond.
const PIECES_A_CHECK: usize = 4096;

struct Arrays<'a> {
    tokens: Array<'a>,
    scores: Array<'a>,
    types: Array<'a>,
    /// How many pieces count: the rest have no row in the embedding.
    len: usize,
}

fn arrays(gguf: &Gguf) -> Result<Arrays<'_>> {
    let meta = gguf.metadata();
    let model: &str = meta.require(MODEL_KEY)?;
    if model != MODEL {
        return Err(Error::Unsupported {
            file: gguf.name().to_owned(),
            what: format!("a vocabulary of kind {model:?} ({MODEL_KEY})"),
            supported: format!("{MODEL:?}, which is SentencePiece"),
        });
    }
    let tokens: Array = meta.require(TOKENS_KEY)?;
    let other = |key: &str| {
        let array: Array = meta.require(key)?;
        if array.len() != tokens.len() {
            let expected = format!("{} values, as many as {TOKENS_KEY}", tokens.len());
            return Err(meta.error(key, expected, array.len().to_string()));
        }
        Ok(array)
    };
    let (scores, types) = (other(SCORES_KEY)?, other(TYPES_KEY)?);
    if tokens.is_empty() {
        return Err(meta.error(TOKENS_KEY, "at least one piece", "none"));
    }
    let rows = gguf.tensor("token_embd.weight")?.map_or(usize::MAX, |t| t.rows());
    Ok(Arrays { tokens, scores, types, len: tokens.len().min(rows) })
}

pub(super) fn read(gguf: &Gguf, cancel: &CancelToken) -> Result<Vocabulary> {
    let meta = gguf.metadata();
    let Arrays { tokens, scores, types, len } = arrays(gguf)?;
    let texts = tokens
        .strings()
        .ok_or_else(|| meta.error(TOKENS_KEY, "an array of strings", tokens.element_type().name()))?;
    let mut scores = scores_of(scores);
    let mut types = types_of(types);
    // Each string has its length in 8 bytes before it.
    let mut builder =
        Builder::new(gguf.name(), len, tokens.as_bytes().len().saturating_sub(8 * tokens.len()))?;
    let mut read = 0;
    for text in texts.take(len) {
        if read % PIECES_A_CHECK == 0 {
            cancel.check()?;
        }
        let not = |key, expected: &str| meta.error(key, expected, format!("something else at index {read}"));
        let score = scores.next().flatten().ok_or_else(|| not(SCORES_KEY, "an array of numbers"))?;
        let token_type = types.next().flatten().ok_or_else(|| not(TYPES_KEY, "an array of integers"))?;
        builder.push(text, score, token_type)?;
        read += 1;
    }
    if read < len {
        // The reader measured the array when the file was opened.
        let found = format!("{read}: the file was overwritten since");
        return Err(meta.error(TOKENS_KEY, format!("{len} pieces"), found));
    }
    builder.finish(&SpecialIds {
        bos: meta.get_as(BOS_KEY)?,
        eos: meta.get_as(EOS_KEY)?,
        unk: meta.get_as(UNK_KEY)?,
        pad: meta.get_as(PAD_KEY)?,
    })
}

/// Converters write f32, and decoding any type costs time; but any number will do.
fn scores_of(scores: Array<'_>) -> Box<dyn Iterator<Item = Option<f32>> + '_> {
    match scores.elements::<f32>() {
        Some(scores) => Box::new(scores.map(Some)),
        None => Box::new(scores.values().map(|v| v.as_f64().map(|v| v as f32))),
    }
}

/// Converters write i32; any integer will do.
fn types_of(types: Array<'_>) -> Box<dyn Iterator<Item = Option<i64>> + '_> {
    match types.elements::<i32>() {
        Some(types) => Box::new(types.map(|v| Some(v.into()))),
        None => Box::new(types.values().map(|v| v.as_i64())),
    }
}

/// An upper bound of the bytes that the vocabulary will take.
pub(super) fn heap_bytes_bound(gguf: &Gguf) -> Result<usize> {
    let Arrays { tokens, types, len, .. } = arrays(gguf)?;
    let bytes = tokens.as_bytes().len().saturating_sub(8 * tokens.len());
    let text = [PieceKind::Normal, PieceKind::Unused, PieceKind::Byte].map(|k| k as i64);
    let matched = types_of(types).take(len).filter(|t| !t.is_some_and(|t| text.contains(&t))).count();
    Ok(Vocabulary::heap_bytes_bound(len, bytes, matched))
}
