//! Which of several texts a model finds likeliest, by the log-probability of what follows a common beginning:
//!
//!     cargo run --release --example score -- gemma.gguf "The capital of France is" " Paris." " Rome."

use carat::{EncodeOptions, Model, Session, SessionOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(path), Some(beginning)) = (args.next(), args.next()) else {
        return Err("usage: score MODEL.gguf BEGINNING ENDING...".into());
    };

    let model = Model::open(path)?;
    let tokenizer = model.tokenizer()?;
    let mut encode = EncodeOptions::default();
    encode.bos = true;

    // The beginning is processed once; each ending goes its own way from there.
    let mut common = Session::new(&model, SessionOptions::default())?;
    common.prefill(&tokenizer.encode_with(&beginning, &encode)?)?;
    for ending in args {
        let ids = tokenizer.encode(&ending)?;
        let scores = common.fork()?.score(&ids, 0, None)?;
        let total: f32 = scores.iter().map(|s| s.log_prob).sum();
        println!("{total:>9.3}  {ending:?}, {} tokens", ids.len());
    }
    Ok(())
}
