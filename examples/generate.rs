//! Goes on with a text:
//!
//!     cargo run --release --example generate -- gemma.gguf "The capital of France is"

use std::io::{Write, stdout};
use std::ops::ControlFlow;

use carat::{EncodeOptions, GenerateOptions, Model, Session, SessionOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(prompt)) = (args.next(), args.next()) else {
        return Err("usage: generate MODEL.gguf PROMPT".into());
    };

    let model = Model::open(path)?;
    let mut encode = EncodeOptions::default();
    encode.bos = true; // a text begins with the beginning-of-sequence token
    let ids = model.tokenizer()?.encode_with(&prompt, &encode)?;

    let mut options = GenerateOptions::default();
    options.max_tokens = 64;
    options.sampling.seed = Some(1); // the same text each time

    let mut session = Session::new(&model, SessionOptions::default())?;
    let summary = session.generate(&ids, &options, |piece| {
        print!("{}", piece.text);
        // Breaking off here ends the generation.
        if stdout().flush().is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    println!();
    eprintln!(
        "{} tokens in {:?}, ended by {:?}",
        summary.generated_tokens, summary.generate_time, summary.reason
    );
    Ok(())
}
