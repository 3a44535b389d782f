//! Options that several commands share.

use std::path::PathBuf;

use carat::{CancelToken, GenerateOptions, Isa, KvType, MemoryLock, Model, ModelBuilder, SessionOptions};

use crate::failure::Result;
use crate::{output, pull};

/// Which model, and how to compute.
#[derive(Clone, Debug, clap::Args)]
pub struct ModelArgs {
    /// The model: a GGUF file, of a split model the first. Without it: Gemma 3 270M, which is fetched when absent
    #[arg(short, long, value_name = "GGUF")]
    pub model: Option<PathBuf>,
    /// Threads to compute with [default: one a core]
    #[arg(short, long, value_name = "N", value_parser = at_least_one)]
    pub threads: Option<usize>,
    /// The instruction set to use, instead of the best there is: scalar, avx2, avx512_vnni, neon, neon_dotprod, neon_i8mm
    #[arg(long, value_name = "NAME", env = "CARAT_ISA", value_parser = isa, hide_env_values = true)]
    pub isa: Option<Isa>,
    /// Lock the file in memory, where the system allows it
    #[arg(long)]
    pub lock: bool,
    /// Say more, on standard error
    #[arg(short, long)]
    pub verbose: bool,
}

impl ModelArgs {
    /// The file that is meant; fetches the default one when absent.
    pub fn path(&self, cancel: &CancelToken) -> Result<PathBuf> {
        match &self.model {
            Some(path) => Ok(path.clone()),
            None => pull::default_model(cancel),
        }
    }

    /// As these options say.
    pub fn builder(&self) -> ModelBuilder<'_> {
        let mut builder = Model::builder().lock(self.lock);
        if let Some(threads) = self.threads {
            builder = builder.threads(threads);
        }
        if let Some(isa) = self.isa {
            builder = builder.isa(isa);
        }
        builder
    }

    /// Opens it.
    pub fn open(&self, cancel: &CancelToken) -> Result<Model> {
        let path = self.path(cancel)?;
        let began = std::time::Instant::now();
        let model = self.builder().cancel(cancel).open(&path)?;
        if let MemoryLock::Refused(why) = model.memory_lock() {
            eprintln!("carat: not locked in memory: {why}");
        }
        if self.verbose {
            let locked = if *model.memory_lock() == MemoryLock::Locked { ", locked in memory" } else { "" };
            eprintln!(
                "carat: {}: {}, {}, {} threads, {}, opened in {:.0} ms{locked}",
                path.display(),
                model.config().arch.name(),
                output::human_bytes(model.gguf().file_len()),
                model.threads(),
                model.isa(),
                began.elapsed().as_secs_f64() * 1e3
            );
        }
        Ok(model)
    }
}

/// The layout of a session.
#[derive(Clone, Debug, clap::Args)]
pub struct SessionArgs {
    /// Tokens that the context holds [default: the model's, at most 4096]
    #[arg(short, long, value_name = "N", value_parser = at_least_one)]
    pub context: Option<usize>,
    /// Most tokens that are processed at once
    #[arg(short, long, value_name = "N", value_parser = at_least_one)]
    pub batch: Option<usize>,
    /// How keys and values are stored
    #[arg(long, value_name = "TYPE", value_parser = kv)]
    pub kv: Option<KvType>,
}

impl SessionArgs {
    /// As the library takes them.
    pub fn options(&self) -> SessionOptions {
        let mut options = SessionOptions::default();
        options.context = self.context;
        options.batch = self.batch.unwrap_or(options.batch);
        options.kv = self.kv;
        options
    }
}

/// Guessing ahead.
#[derive(Clone, Debug, clap::Args)]
pub struct DraftArgs {
    /// Guess up to this many tokens ahead where the text repeats itself, at most 15: the same text, sooner where it
    /// quotes; 0 for none
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub draft: usize,
}

fn isa(name: &str) -> Result<Isa, String> {
    let isa =
        Isa::from_name(name).ok_or_else(|| format!("expected {}", Isa::ALL.map(|i| i.name()).join(", ")))?;
    match isa.is_available() {
        true => Ok(isa),
        false => Err("this processor does not have it".into()),
    }
}

fn kv(name: &str) -> Result<KvType, String> {
    KvType::from_name(name).ok_or_else(|| "expected f16 or q8_0".into())
}

/// A number of things.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("expected 1 or more".into()),
        Ok(n) => Ok(n),
        Err(_) => Err("expected a whole number, 1 or more".into()),
    }
}

/// How to choose tokens, and when to end.
#[derive(Clone, Debug, clap::Args)]
pub struct SamplingArgs {
    /// Temperature; 0 always takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 1.0, allow_negative_numbers = true)]
    pub temp: f32,
    /// Draw from this many of the likeliest tokens only; 0 for all
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub top_k: usize,
    /// Draw from the likeliest tokens that together have this probability only
    #[arg(long, value_name = "P", default_value_t = 0.95, allow_negative_numbers = true)]
    pub top_p: f32,
    /// Draw only from tokens with at least this share of the likeliest one's probability
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_negative_numbers = true)]
    pub min_p: f32,
    /// Divide the logits of tokens that occurred by this; 1 for no penalty
    #[arg(long, value_name = "R", default_value_t = 1.0, allow_negative_numbers = true)]
    pub repeat_penalty: f32,
    /// The same seed gives the same text [default: another each time]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Most tokens to generate
    #[arg(short = 'n', long, value_name = "N", value_parser = at_least_one)]
    pub max_tokens: Option<usize>,
    /// End where this text would come; can be given several times
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
}

impl SamplingArgs {
    /// As the library takes them; `default_tokens` where no number of tokens was given.
    pub fn options(&self, default_tokens: usize, cancel: &CancelToken) -> GenerateOptions {
        let mut options = GenerateOptions::default();
        options.max_tokens = self.max_tokens.unwrap_or(default_tokens);
        options.sampling.temperature = self.temp;
        options.sampling.top_k = self.top_k;
        options.sampling.top_p = self.top_p;
        options.sampling.min_p = self.min_p;
        options.sampling.repetition_penalty = self.repeat_penalty;
        options.sampling.seed = self.seed;
        options.stop = self.stop.clone();
        options.cancel = Some(cancel.clone());
        options
    }
}
