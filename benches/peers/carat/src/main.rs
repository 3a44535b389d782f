//! carat, in the protocol of its peers.
//!
//! `limits THREADS` measures the machine instead, and `work MODEL PROMPT GENERATE` counts what a measurement asks of it.

// The counts of `carat bench`.
#[path = "../../../../cli/src/bench/work.rs"]
mod work;

use std::process::ExitCode;

use carat::{EncodeOptions, Isa, Limits, Model, Session, SessionOptions};
use peer_protocol::{CONTEXT, Engine, Options, Result};
use serde_json::{Value, json};
use work::Work;

struct Carat {
    model: Model,
    session: Session,
}

impl Engine for Carat {
    const NAME: &'static str = "carat";

    fn open(options: &Options) -> Result<Self> {
        let model = Model::builder().threads(options.threads as usize).open(&options.model)?;
        let mut session = SessionOptions::default();
        session.context = Some(CONTEXT as usize);
        session.batch = options.setting("batch")? as usize;
        let session = Session::new(&model, session)?;
        Ok(Carat { model, session })
    }

    fn vocab(&self) -> usize {
        self.model.config().vocab
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut options = EncodeOptions::default();
        options.bos = true;
        Ok(self.model.tokenizer()?.encode_with(text, &options)?)
    }

    fn process(&mut self, ids: &[u32]) -> Result<()> {
        match ids {
            &[id] => drop(self.session.step(id)?),
            _ => self.session.prefill(ids)?,
        }
        Ok(())
    }

    fn logits(&self) -> Result<&[f32]> {
        self.session.logits().ok_or("no logits".into())
    }

    fn clear(&mut self) -> Result<()> {
        Ok(self.session.truncate(0)?)
    }

    fn about(&self) -> Value {
        json!({ "isa": self.model.isa().name(), "threads": self.model.threads() })
    }
}

/// What the machine can do at most with a number of threads.
fn limits(threads: usize) -> Result<Value> {
    let isa = Isa::detect();
    let limits = Limits::measure(threads, isa)?;
    Ok(json!({
        "engine": "limits",
        "isa": isa.name(),
        "read_bytes_per_s": limits.read_bytes_per_s,
        "dot_macs_per_s": limits.dot_macs_per_s,
        "fma_macs_per_s": limits.fma_macs_per_s,
    }))
}

/// What a prompt of `prompt` tokens takes, and `generate` tokens after them.
fn work(model: &str, prompt: usize, generate: usize) -> Result<Value> {
    let model = Model::builder().threads(1).open(model)?;
    let session = Session::new(&model, SessionOptions::default())?;
    let p = Work::prefill(&model, &session, prompt);
    let (all, before) =
        (Work::decode(&model, &session, prompt + generate), Work::decode(&model, &session, prompt));
    Ok(json!({
        "engine": "work",
        "file_bytes": model.gguf().file_len(),
        "prompt": { "dots": p.dots, "fmas": p.fmas },
        "generate": { "bytes": all.bytes - before.bytes },
    }))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let number = |text: &str| Ok::<usize, std::num::ParseIntError>(text.parse()?);
    let report = match args[..] {
        ["limits", threads] => number(threads).map_err(Into::into).and_then(limits),
        ["work", model, prompt, generate] => (|| work(model, number(prompt)?, number(generate)?))(),
        _ => return peer_protocol::main::<Carat>(),
    };
    match report {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("carat: {e}");
            ExitCode::FAILURE
        }
    }
}
