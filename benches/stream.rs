//! What a token takes that is streamed through a callback: the yardstick of scripts/streaming.py for other languages.
//! usage: cargo bench --bench stream -- MODEL

use std::ops::ControlFlow;
use std::time::Instant;

use carat::{GenerateOptions, Model, SamplingOptions, Session, SessionOptions};

const TOKENS: usize = 200;
const ROUNDS: usize = 25;

fn main() -> carat::Result<()> {
    // Cargo adds `--bench`.
    let Some(path) = std::env::args().skip(1).find(|a| !a.starts_with("--")) else { return Ok(()) };
    let model = Model::builder().threads(1).open(path)?;
    let mut options = GenerateOptions::default();
    options.sampling = SamplingOptions::greedy();
    (options.max_tokens, options.ignore_end) = (TOKENS, true);
    let mut session_options = SessionOptions::default();
    session_options.context = Some(256);
    let mut took = Vec::new();
    let mut bytes = 0;
    for _ in 0..ROUNDS {
        let mut session = Session::new(&model, session_options.clone())?;
        session.prefill(&[2, 300, 301])?;
        let began = Instant::now();
        let summary = session.generate(&[], &options, |piece| {
            bytes += piece.text.len();
            ControlFlow::Continue(())
        })?;
        took.push(began.elapsed().as_secs_f64() * 1e6 / TOKENS as f64);
        assert_eq!(summary.generated_tokens, TOKENS);
    }
    assert!(bytes > 0);
    took.sort_by(f64::total_cmp);
    println!("Rust: callback: {:.2}", took[ROUNDS / 2]);
    Ok(())
}
