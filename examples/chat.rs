//! Asks an instruction-tuned model one question after the other; what was said before is not processed again:
//!
//!     cargo run --release --example chat -- gemma-it.gguf "Who wrote Faust?" "When?"

use std::io::{Write, stdout};
use std::ops::ControlFlow;

use carat::{Conversation, GenerateOptions, Model, Session, SessionOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(path), questions) = (args.next(), args.collect::<Vec<_>>()) else {
        return Err("usage: chat MODEL.gguf QUESTION...".into());
    };

    let model = Model::open(path)?;
    let session = Session::new(&model, SessionOptions::default())?;
    let mut conversation = Conversation::new(session, Some("Answer in one sentence."))?;
    let mut options = GenerateOptions::default();
    options.max_tokens = 64;
    options.sampling.seed = Some(1); // the same answers each time

    for question in &questions {
        println!("> {question}");
        let reply = conversation.send(question, &options, |piece| {
            print!("{}", piece.text);
            if stdout().flush().is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        println!();
        let s = reply.summary;
        eprintln!(
            "{} tokens processed, {} reused, ended by {:?}",
            s.prompt_tokens, s.reused_tokens, s.reason
        );
    }
    Ok(())
}
