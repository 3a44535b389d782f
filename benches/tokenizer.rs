//! How long the vocabulary takes to load, and texts to encode and decode.
//!
//! Gemma 1's vocabulary of 256000 pieces, from `tests/data`. With the feature `sentencepiece` both engines.

use std::hint::black_box;
use std::path::Path;

use carat::gguf::Gguf;
use carat::{Engine, Tokenizer, TokenizerOptions};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const MEGABYTE: usize = 1_000_000;

/// A megabyte of `unit` over and over, cut at a character.
fn megabyte(unit: &str) -> String {
    let mut text = unit.repeat(MEGABYTE / unit.len() + 1);
    let mut len = MEGABYTE;
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    text.truncate(len);
    text
}

/// Prose and code that are at hand: the crate's own sources.
fn prose() -> String {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut text = String::new();
    for dir in ["", "gguf", "tokenizer", "kernels"] {
        let mut files: Vec<_> =
            std::fs::read_dir(src.join(dir)).unwrap().map(|f| f.unwrap().path()).collect();
        files.sort();
        for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "rs")) {
            text.push_str(&std::fs::read_to_string(file).unwrap());
        }
    }
    megabyte(&text)
}

fn tokenizer(c: &mut Criterion) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/gemma1-vocab.gguf");
    let gguf = Gguf::open(path).unwrap();
    let engines: &[Engine] = if cfg!(feature = "sentencepiece") {
        &[Engine::Builtin, Engine::SentencePiece]
    } else {
        &[Engine::Builtin]
    };
    let texts = [
        ("prose", prose()),
        ("spaces", megabyte(" ")),
        ("one letter", megabyte("a")),
        ("no spaces", prose().replace([' ', '\n'], "")),
        ("chinese", megabyte("漢字仮名交じり文是中文的一個長句子沒有空格")),
        ("emoji", megabyte("👩‍👩‍👧‍👦🏳️‍🌈🇨🇭🙂")),
        ("bytes", megabyte("\u{e000}\u{10fffd}")),
    ];
    for engine in engines {
        let options = TokenizerOptions::from(*engine);
        let mut group = c.benchmark_group(format!("{engine:?}"));
        group.sample_size(10);
        group.bench_function("load", |b| {
            b.iter_batched(
                || (),
                |()| Tokenizer::from_gguf(&gguf, &options).unwrap(),
                BatchSize::PerIteration,
            );
        });
        let tokenizer = Tokenizer::from_gguf(&gguf, &options).unwrap();
        for (name, text) in &texts {
            group.throughput(Throughput::Bytes(text.len() as u64));
            group.bench_function(format!("encode {name}"), |b| {
                b.iter(|| tokenizer.encode(black_box(text)).unwrap());
            });
        }
        let ids = tokenizer.encode(&texts[0].1).unwrap();
        group.bench_function("decode prose", |b| b.iter(|| tokenizer.decode(black_box(&ids)).unwrap()));
    }
}

criterion_group!(benches, tokenizer);
criterion_main!(benches);
