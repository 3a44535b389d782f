//! What every program here does, whichever engine is behind it: one measurement, one process, one line of JSON.
//!
//! ```text
//! PROGRAM speed MODEL --threads T [--prompt P] [--generate N] [--repeat R] [--set KEY=VALUE]...
//! PROGRAM first MODEL --threads T --text TEXT [--set KEY=VALUE]...
//! ```
//!
//! `speed` processes `P` tokens from an empty context, then generates `N` after them, and times the two.
//! `first` writes a line as soon as it has the token that follows the text; who started it looks at the clock.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use serde_json::{Value, json};

/// Errors are only ever shown.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Room for every measurement: a prompt of 4096 and 64 tokens after it, in whole steps of 256.
pub const CONTEXT: u32 = 4352;

/// An engine with a model, and an empty context of [`CONTEXT`] tokens.
pub trait Engine: Sized {
    /// As the results name it.
    const NAME: &'static str;

    /// Opens the model.
    fn open(options: &Options) -> Result<Self>;
    /// Pieces of the vocabulary.
    fn vocab(&self) -> usize;
    /// Ids of a text, after the beginning-of-sequence token.
    fn encode(&self, text: &str) -> Result<Vec<u32>>;
    /// Processes the ids and waits until the logits after the last are there.
    fn process(&mut self, ids: &[u32]) -> Result<()>;
    /// Those logits, `vocab` of them.
    fn logits(&self) -> Result<&[f32]>;
    /// Forgets the text.
    fn clear(&mut self) -> Result<()>;
    /// What the engine says of itself: version, instruction set.
    fn about(&self) -> Value;
}

/// The command line.
pub struct Options {
    pub model: PathBuf,
    pub threads: u32,
    prompt: usize,
    generate: usize,
    repeat: usize,
    text: String,
    settings: BTreeMap<String, String>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<(String, Options)> {
        let command = args.next().ok_or("no command: speed or first")?;
        let mut options = Options {
            model: args.next().ok_or("no model")?.into(),
            threads: 1,
            prompt: 0,
            generate: 0,
            repeat: 1,
            text: String::new(),
            settings: BTreeMap::new(),
        };
        while let Some(name) = args.next() {
            let value = args.next().ok_or_else(|| format!("{name} has no value"))?;
            match name.as_str() {
                "--threads" => options.threads = value.parse()?,
                "--prompt" => options.prompt = value.parse()?,
                "--generate" => options.generate = value.parse()?,
                "--repeat" => options.repeat = value.parse()?,
                "--text" => options.text = value,
                "--set" => {
                    let (key, value) = value.split_once('=').ok_or("--set takes KEY=VALUE")?;
                    options.settings.insert(key.into(), value.into());
                }
                _ => return Err(format!("unknown option {name}").into()),
            }
        }
        if options.prompt + options.generate > CONTEXT as usize {
            return Err(format!("prompt and generated tokens: at most {CONTEXT}").into());
        }
        Ok((command, options))
    }

    /// A setting of the engine, which the caller must give: results list them all.
    pub fn setting(&self, key: &str) -> Result<u32> {
        let value = self.settings.get(key).ok_or_else(|| format!("--set {key}=N is missing"))?;
        Ok(value.parse()?)
    }
}

/// The whole program.
pub fn main<E: Engine>() -> ExitCode {
    match run::<E>() {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("{}: {e}", E::NAME);
            ExitCode::FAILURE
        }
    }
}

fn run<E: Engine>() -> Result<Value> {
    let (command, options) = Options::parse(std::env::args().skip(1))?;
    let mut engine = E::open(&options)?;
    match command.as_str() {
        "speed" => speed(&mut engine, &options),
        "first" => first(&mut engine, &options),
        _ => Err(format!("unknown command {command}").into()),
    }
}

fn speed<E: Engine>(engine: &mut E, options: &Options) -> Result<Value> {
    let all = ids(engine.vocab(), options.prompt + options.generate);
    let (prompt, generate) = all.split_at(options.prompt);
    // Every weight is read once, every thread and buffer is there, before the clock runs.
    engine.process(&all[..all.len().min(64)])?;
    engine.process(&all[..1])?;

    let (mut prompt_s, mut generate_s) = (Vec::new(), Vec::new());
    for _ in 0..options.repeat {
        engine.clear()?;
        let began = Instant::now();
        if !prompt.is_empty() {
            engine.process(prompt)?;
            prompt_s.push(began.elapsed().as_secs_f64());
        }
        let began = Instant::now();
        for &id in generate {
            engine.process(&[id])?;
        }
        if !generate.is_empty() {
            generate_s.push(began.elapsed().as_secs_f64());
        }
    }
    finite(engine.logits()?)?;
    Ok(json!({ "engine": E::NAME, "about": engine.about(), "prompt_s": prompt_s, "generate_s": generate_s }))
}

fn first<E: Engine>(engine: &mut E, options: &Options) -> Result<Value> {
    let ids = engine.encode(&options.text)?;
    engine.process(&ids)?;
    let logits = engine.logits()?;
    finite(logits)?;
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).ok_or("no logits")?.0;
    let mut out = std::io::stdout();
    writeln!(out, "first {best}")?;
    out.flush()?;
    Ok(json!({ "engine": E::NAME, "about": engine.about(), "prompt": ids, "token": best }))
}

/// An engine that computes nonsense quickly has no speed.
fn finite(logits: &[f32]) -> Result<()> {
    if logits.iter().all(|l| l.is_finite()) { Ok(()) } else { Err("a logit is not finite".into()) }
}

/// The same ids for every engine, none of them a control token.
fn ids(vocab: usize, n: usize) -> Vec<u32> {
    let first = vocab.min(1024) / 2;
    (0..n).map(|i| (first + (i * 7919 + 13) % (vocab - first)) as u32).collect()
}
