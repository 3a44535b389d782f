//! Any pieces are refused as a vocabulary, or encode any text, the same with both engines, and decode any ids.
#![no_main]

use carat::{EncodeOptions, Engine, Error, SpecialIds, StreamDecoder, Tokenizer};
use libfuzzer_sys::fuzz_target;

/// Reads the input from the front.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        head
    }
}

/// Mostly what a vocabulary must have, then pieces as the input says: a byte for type and score, one for the length.
fn pieces<'a>(input: &mut Input<'a>) -> Vec<(std::borrow::Cow<'a, [u8]>, f32, i64)> {
    let flags = input.byte();
    let mut pieces = Vec::new();
    if flags & 1 == 0 {
        for name in ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"] {
            let token_type = if name == "<unk>" && flags & 2 == 0 { 2 } else { 3 };
            pieces.push((name.as_bytes().into(), 0.0, token_type));
        }
    }
    if flags & 4 == 0 {
        pieces.extend((0..=255).map(|b| (format!("<0x{b:02X}>").into_bytes().into(), 0.0, 6)));
    }
    for _ in 0..input.byte() {
        let how = input.byte();
        let token_type = match how & 15 {
            n @ 0..=7 => i64::from(n),
            8..=9 => 4,
            _ => 1,
        };
        let score = match how >> 4 {
            15 => f32::from_le_bytes(input.take(4).try_into().unwrap_or_default()),
            n => -f32::from(n),
        };
        let len = match input.byte() {
            255 => 1030,
            n => usize::from(n % 24),
        };
        pieces.push((input.take(len).into(), score, token_type));
    }
    pieces
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let id = |b: u8| (b < 128).then_some(u32::from(b));
    let ids = SpecialIds { unk: id(input.byte()), pad: id(input.byte()), ..Default::default() };
    let pieces = pieces(&mut input);
    let make = |engine: Engine| Tokenizer::from_pieces("fuzz", &pieces, &ids, &engine.into());
    let ours = match make(Engine::Builtin) {
        Ok(t) => t,
        Err(e) => {
            assert!(matches!(e, Error::Vocabulary { .. } | Error::Metadata { .. }), "{e}");
            assert!(make(Engine::SentencePiece).is_err(), "refused by one engine only");
            return;
        }
    };
    assert!(ours.heap_bytes() < 16_000_000);
    let theirs = match make(Engine::SentencePiece) {
        Ok(t) => Some(t),
        Err(e) => {
            assert!(e.to_string().contains("SentencePiece takes 64"), "{e}");
            None
        }
    };
    let text = input.0;
    for special in [false, true] {
        let mut options = EncodeOptions::default();
        options.special = special;
        options.bos = special;
        let ids = ours.encode_with(text, &options).unwrap();
        if let Some(theirs) = &theirs {
            assert_eq!(ids, theirs.encode_with(text, &options).unwrap());
        }
        stream(&ours, &ids);
    }
    let any: Vec<u32> = text.iter().map(|b| u32::from(*b) * 3 % ours.vocab_size() as u32).collect();
    stream(&ours, &any);
});

/// Decodes at once and one by one.
fn stream(t: &Tokenizer, ids: &[u32]) {
    let mut decoder = StreamDecoder::new(t).unwrap();
    let mut text = String::new();
    for id in ids {
        text.push_str(decoder.push(*id).unwrap());
    }
    text.push_str(decoder.flush());
    assert_eq!(text, t.decode(ids).unwrap());
}
