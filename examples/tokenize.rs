//! The tokens of a text, one a line:
//!
//!     cargo run --release --example tokenize -- gemma.gguf "The capital of France is"

use carat::gguf::Gguf;
use carat::{Tokenizer, TokenizerOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(text)) = (args.next(), args.next()) else {
        return Err("usage: tokenize MODEL.gguf TEXT".into());
    };

    // A model has one too (`Model::tokenizer`); without one, the file's vocabulary is enough.
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(path)?, &TokenizerOptions::default())?;
    let ids = tokenizer.encode(&text)?;
    for &id in &ids {
        let piece = tokenizer.piece(id).unwrap_or_default();
        println!("{id:>7}  {:?}", String::from_utf8_lossy(piece));
    }
    assert_eq!(tokenizer.decode(&ids)?, text);
    Ok(())
}
