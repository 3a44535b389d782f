//! The vocabulary of a synthetic file: that of another file, or one made up to be whole and of the right size.

use carat::gguf::{Array, Builder, Gguf};
use carat::{Error, Result};

/// Token types as GGUF numbers them.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// Copies every `tokenizer.` key of `from`, which must have `vocab` pieces.
pub fn copy(builder: &mut Builder, from: &Gguf, vocab: usize) -> Result<()> {
    const TOKENS: &str = "tokenizer.ggml.tokens";
    let metadata = from.metadata();
    let pieces = metadata.require::<Array<'_>>(TOKENS)?.len();
    if pieces != vocab {
        return Err(metadata.error(TOKENS, format!("{vocab} pieces, as the model has"), pieces.to_string()));
    }
    for (key, value) in metadata.iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
        builder.set(key, value)?;
    }
    Ok(())
}

/// A vocabulary of `vocab` pieces with Gemma's control tokens where its generation has them, the 256 bytes, and
/// lower-case words in every spelling, from `a` on, with and without a space before.
pub fn make_up(builder: &mut Builder, arch: &str, vocab: usize) -> Result<()> {
    let start_of_turn = if arch == "gemma3" { 105 } else { 106 };
    let mut pieces: Vec<(String, i32)> = Vec::new();
    for name in ["<pad>", "<eos>", "<bos>"] {
        pieces.push((name.into(), CONTROL));
    }
    pieces.push(("<unk>".into(), UNKNOWN));
    while pieces.len() < start_of_turn {
        pieces.push((format!("<unused{}>", pieces.len() - 4), CONTROL));
    }
    for name in ["<start_of_turn>", "<end_of_turn>"] {
        pieces.push((name.into(), CONTROL));
    }
    for byte in 0..=255u8 {
        pieces.push((format!("<0x{byte:02X}>"), BYTE));
    }
    // Every character of ASCII that can be seen, so that each word is the end of a chain of merges.
    pieces.push(("\u{2581}".into(), NORMAL));
    pieces.push(("\n".into(), NORMAL));
    pieces.extend((b'!'..=b'~').map(|c| ((c as char).to_string(), NORMAL)));
    if pieces.len() > vocab {
        return Err(Error::InvalidOption {
            option: "vocab",
            expected: format!("at least {} pieces", pieces.len()),
            found: vocab.to_string(),
        });
    }
    let words = (0..).map(word).flat_map(|w| {
        let spaced = format!("\u{2581}{w}");
        // The letters alone are there already.
        [(w.len() > 1).then_some(w), Some(spaced)].into_iter().flatten()
    });
    let missing = vocab - pieces.len();
    pieces.extend(words.map(|w| (w, NORMAL)).take(missing));

    let scores: Vec<f32> = (0..vocab).map(|i| -(i as f32)).collect();
    let types: Vec<i32> = pieces.iter().map(|p| p.1).collect();
    builder.set("tokenizer.ggml.model", "llama")?;
    builder.set("tokenizer.ggml.pre", "default")?;
    builder.set_strings("tokenizer.ggml.tokens", pieces.iter().map(|p| &p.0))?;
    builder.set_array("tokenizer.ggml.scores", &scores)?;
    builder.set_array("tokenizer.ggml.token_type", &types)?;
    for (key, id) in
        [("bos", 2), ("eos", 1), ("unknown", 3), ("padding", 0), ("eot", start_of_turn as u32 + 1)]
    {
        builder.set(&format!("tokenizer.ggml.{key}_token_id"), id)?;
    }
    builder.set("tokenizer.ggml.add_bos_token", true)?;
    builder.set("tokenizer.ggml.add_eos_token", false)?;
    builder.set("tokenizer.ggml.add_space_prefix", false)?;
    Ok(())
}

/// Word number `n`: a, b, …, z, aa, ab, …
fn word(mut n: usize) -> String {
    let mut letters = Vec::new();
    loop {
        letters.push(b'a' + (n % 26) as u8);
        n /= 26;
        if n == 0 {
            break;
        }
        n -= 1;
    }
    letters.iter().rev().map(|&b| b as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted_without_gaps() {
        let words: Vec<String> = [0, 25, 26, 51, 52, 701, 702].into_iter().map(word).collect();
        assert_eq!(words, ["a", "z", "aa", "az", "ba", "zz", "aaa"]);
    }
}
