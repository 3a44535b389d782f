//! The two engines against each other, id for id: real vocabularies with adversarial text, and random vocabularies
//! full of ties.

#![cfg(feature = "sentencepiece")]

mod common;

use carat::gguf::Gguf;
use carat::{EncodeOptions, Engine, Error, PieceKind, SpecialIds, StreamDecoder, Tokenizer};
use common::data;

/// Xorshift64*: enough for test data, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

fn both(gguf: &Gguf) -> [Tokenizer; 2] {
    [Engine::Builtin, Engine::SentencePiece].map(|e| Tokenizer::from_gguf(gguf, &e.into()).unwrap())
}

/// Asserts that they agree on a text, as plain text and with control tokens, and that it comes back.
#[track_caller]
fn agree([ours, theirs]: &[Tokenizer; 2], text: &[u8]) {
    for special in [false, true] {
        let mut options = EncodeOptions::default();
        options.special = special;
        let ids = ours.encode_with(text, &options).unwrap();
        let expected = theirs.encode_with(text, &options).unwrap();
        if ids != expected {
            let at = ids.iter().zip(&expected).take_while(|(a, b)| a == b).count();
            let shown = String::from_utf8_lossy(&text[..text.len().min(300)]);
            panic!(
                "special {special}: from id {at}: {:?}, SentencePiece {:?} in {shown:?}",
                &ids[at..ids.len().min(at + 8)],
                &expected[at..expected.len().min(at + 8)]
            );
        }
        let decoded = ours.decode(&ids).unwrap();
        if !special {
            let whole = text.utf8_chunks().fold(String::new(), |mut s, c| {
                s.push_str(c.valid());
                s.extend(c.invalid().iter().map(|_| '\u{fffd}'));
                s
            });
            // Without a piece for it, a space becomes the bytes of U+2581, as in SentencePiece.
            let space = ours.id_of(" ").and_then(|id| ours.kind(id));
            let has_space = matches!(space, Some(PieceKind::Normal | PieceKind::UserDefined));
            let back = if has_space { decoded.clone() } else { decoded.replace('\u{2581}', " ") };
            assert!(back == whole.replace('\u{2581}', " "), "{whole:?} came back as {decoded:?}");
        }
        let mut stream = StreamDecoder::new(ours).unwrap();
        let mut streamed = String::new();
        for id in ids {
            streamed.push_str(stream.push(id).unwrap());
        }
        streamed.push_str(stream.flush());
        assert!(streamed == decoded, "{decoded:?} streamed as {streamed:?}");
    }
}

/// Every character there is, in order and shuffled; runs; sequences of emoji; stray bytes; pieces side by side.
fn adversarial(tokenizers: &[Tokenizer; 2], seed: u64) {
    let mut random = Random(seed);
    let mut all: Vec<char> = ('\0'..=char::MAX).collect();
    let check_all = |all: &[char]| {
        for chunk in all.chunks(20_000) {
            agree(tokenizers, chunk.iter().collect::<String>().as_bytes());
        }
    };
    check_all(&all);
    for i in (1..all.len()).rev() {
        all.swap(i, random.below(i + 1));
    }
    check_all(&all);

    for unit in
        [" ", "\n", "\t", "\r\n", "\u{2581}", "\u{a0}", "\u{3000}", "a", "=", "0", "\u{e000}", "漢", "<"]
    {
        for n in [1, 2, 3, 7, 15, 16, 17, 30, 31, 32, 33, 62, 63, 64, 65, 100, 1000, 4099] {
            agree(tokenizers, unit.repeat(n).as_bytes());
            agree(tokenizers, format!("x{}y", unit.repeat(n)).as_bytes());
        }
    }
    let emoji = [
        "👩",
        "👨",
        "👧",
        "👦",
        "\u{200d}",
        "🏳",
        "\u{fe0f}",
        "🌈",
        "🇨",
        "🇭",
        "🏿",
        "❤",
        "🔥",
        "1\u{20e3}",
        "🏴",
        "\u{e0067}",
    ];
    let blank = [" ", "  ", "\n", "\t", "a", "\u{2581}", "\r", "   ", "\n\n", "é"];
    let pieces = tokenizers[0].vocab_size();
    for round in 0..3000 {
        let mut text = Vec::new();
        for _ in 0..=random.below(40) {
            match round % 6 {
                0 => text.extend_from_slice(random.pick(&emoji).as_bytes()),
                1 => text.extend_from_slice(random.pick(&blank).as_bytes()),
                2 => text.push(random.next() as u8),
                3 => text.push(b' ' + random.below(95) as u8),
                // Pieces of all kinds, control tokens included, whole or cut.
                4 => text.extend_from_slice(tokenizers[0].piece(random.below(pieces) as u32).unwrap()),
                _ => {
                    let piece = tokenizers[0].piece(random.below(pieces) as u32).unwrap();
                    text.extend_from_slice(&piece[..random.below(piece.len() + 1)]);
                }
            }
        }
        agree(tokenizers, &text);
    }
}

#[test]
fn gemma1() {
    adversarial(&both(&Gguf::open(data("gemma1-vocab.gguf")).unwrap()), 0x9e37_79b9_7f4a_7c15);
}

#[test]
fn a_small_vocabulary() {
    adversarial(&both(&Gguf::open(data("tiny-gemma3.gguf")).unwrap()), 0xdead_beef_cafe_f00d);
}

#[test]
fn gemma3() {
    if let Some(path) = common::real_model() {
        adversarial(&both(&Gguf::open(path).unwrap()), 0x0123_4567_89ab_cdef);
    }
}

/// A vocabulary over few characters with pieces of every kind, and scores of which many are equal.
fn random_vocabulary(random: &mut Random) -> Vec<(String, f32, i64)> {
    let mut pieces: Vec<(String, f32, i64)> = Vec::new();
    for name in ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"] {
        pieces.push((name.into(), 0.0, 3));
    }
    pieces.push(("<unk>".into(), 0.0, 2));
    pieces.extend((0..=255).map(|b| (format!("<0x{b:02X}>"), 0.0, 6)));
    let alphabet = ["a", "b", "c", "\u{2581}", "é", "漢", "🙂", "\u{fffd}", "<"];
    let letters = 2 + random.below(alphabet.len() - 1);
    let scores = [0.0, -0.0, -1.0, -2.0, -3.5, 7.25, 1e30, -1e-40];
    let distinct = 1 + random.below(scores.len());
    for _ in 0..random.below(120) {
        let text: String = (0..=random.below(6)).map(|_| *random.pick(&alphabet[..letters])).collect();
        if pieces.iter().all(|p| p.0 != text) {
            let kind = *random.pick(&[1, 1, 1, 1, 1, 1, 1, 1, 4, 4, 3, 5]);
            pieces.push((text, *random.pick(&scores[..distinct]), kind));
        }
    }
    pieces
}

#[test]
fn random_vocabularies() {
    let mut random = Random(0x5bd1_e995_1234_5678);
    let (mut merged, mut user, mut fallback) = (0, 0, 0);
    for _ in 0..400 {
        let pieces = random_vocabulary(&mut random);
        let tokenizers = [Engine::Builtin, Engine::SentencePiece].map(|engine| {
            Tokenizer::from_pieces("random", &pieces, &SpecialIds::default(), &engine.into()).unwrap()
        });
        for _ in 0..60 {
            let alphabet = ["a", "b", "c", " ", "é", "漢", "🙂", "\u{fffd}", "<", "\u{2581}", "d", "<bos>"];
            let letters = 1 + random.below(alphabet.len());
            let text: String = (0..random.below(80)).map(|_| *random.pick(&alphabet[..letters])).collect();
            agree(&tokenizers, text.as_bytes());
            for id in tokenizers[0].encode(&text).unwrap() {
                match tokenizers[0].kind(id).unwrap() {
                    PieceKind::Normal => merged += 1,
                    PieceKind::UserDefined => user += 1,
                    PieceKind::Byte => fallback += 1,
                    kind => panic!("{kind:?} came from plain text"),
                }
            }
        }
    }
    // The vocabularies were not so odd that nothing happened.
    assert!(merged > 100_000 && user > 10_000 && fallback > 10_000, "{merged} {user} {fallback}");
}

/// SentencePiece reads beyond an array when more than 64 user-defined pieces begin a text; ours does not mind.
#[test]
fn what_sentencepiece_cannot_take_is_refused_before() {
    let vocabulary = |depth: usize| {
        let mut pieces = random_vocabulary(&mut Random(1));
        pieces.truncate(262);
        pieces.extend((1..=depth).map(|n| ("x".repeat(n), 0.0, 4)));
        pieces
    };
    let make = |depth, engine: Engine| {
        Tokenizer::from_pieces("deep", &vocabulary(depth), &SpecialIds::default(), &engine.into())
    };
    let deepest = [Engine::Builtin, Engine::SentencePiece].map(|e| make(64, e).unwrap());
    for n in [1, 63, 64, 65, 200] {
        agree(&deepest, "x".repeat(n).as_bytes());
    }
    let error = make(65, Engine::SentencePiece).unwrap_err();
    assert!(matches!(error, Error::Vocabulary { .. }), "{error}");
    assert!(error.to_string().contains("65 user-defined pieces"), "{error}");
    let ours = make(65, Engine::Builtin).unwrap();
    assert_eq!(ours.encode(&"x".repeat(65)).unwrap(), [262 + 64]);
}
