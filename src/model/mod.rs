//! A model: its file, its shape, its team of threads. It never changes after it is opened.

mod config;
mod fingerprint;
#[allow(unsafe_code)]
pub(crate) mod forward;
#[allow(unsafe_code)]
pub(crate) mod kv_cache;
mod metadata;
mod open;
mod options;
pub(crate) mod scratch;
pub(crate) mod weights;

#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;
use std::sync::{Arc, OnceLock};

pub use config::{Arch, Config};
pub use kv_cache::KvType;
pub use open::{LogLevel, MemoryLock, ModelBuilder, Progress};
pub use options::SessionOptions;
pub(crate) use options::{MAX_DRAFT, MAX_SNAPSHOTS};

use crate::gguf::Gguf;
use crate::kernels::Kernels;
use crate::parallel::Team;
use crate::tokenizer::{Tokenizer, TokenizerOptions};
use crate::{CancelToken, Isa, Result};
use weights::Weights;

/// Most rows of logits that are computed at a time.
pub(crate) const MAX_LOGIT_ROWS: usize = 16;

/// An opened model.
///
/// Cloning is cheap and shares everything. It can be used from many threads; passes of its sessions take turns.
#[derive(Clone)]
pub struct Model(pub(crate) Arc<Inner>);

/// What the clones of a [`Model`] share.
pub(crate) struct Inner {
    pub(crate) gguf: Gguf,
    pub(crate) config: Config,
    pub(crate) weights: Weights,
    pub(crate) kernels: Kernels,
    pub(crate) team: Team,
    /// For full and windowed layers: [head_dim / 2] angles of position 1.
    pub(crate) rope_frequencies: [Vec<f64>; 2],
    tokenizer_options: TokenizerOptions,
    tokenizer: OnceLock<Tokenizer>,
    fingerprint: OnceLock<u64>,
    cancel: Option<CancelToken>,
    memory_lock: MemoryLock,
    log: Option<open::Log>,
}

impl Inner {
    /// Hands a message to whoever wants it; it is not even made where nobody does.
    fn log(&self, level: LogLevel, message: impl FnOnce() -> String) {
        if let Some(log) = &self.log {
            log(level, &message());
        }
    }
}

impl Model {
    /// Opens a GGUF file with the default options: see [`Model::builder`].
    ///
    /// Of a model that was split into several files, give the first.
    ///
    /// # Errors
    /// Whatever is wrong with the file, by name and place.
    pub fn open(path: impl AsRef<Path>) -> Result<Model> {
        Self::builder().open(path)
    }

    /// Options for opening.
    pub fn builder<'a>() -> ModelBuilder<'a> {
        ModelBuilder::default()
    }

    /// The tokenizer, built when first asked for.
    ///
    /// # Errors
    /// [`Error::Vocabulary`](crate::Error::Vocabulary) for a vocabulary that is not sound.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        let m = &*self.0;
        if let Some(t) = m.tokenizer.get() {
            return Ok(t);
        }
        if let Some(cancel) = &m.cancel {
            cancel.check()?;
        }
        let built = Tokenizer::from_gguf(&m.gguf, &m.tokenizer_options)?;
        m.log(LogLevel::Info, || format!("the tokenizer of {} pieces is ready", built.vocab_size()));
        // Another thread may have been faster: either is as good.
        Ok(m.tokenizer.get_or_init(|| built))
    }

    /// Its shape.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The file: metadata and tensors.
    pub fn gguf(&self) -> &Gguf {
        &self.0.gguf
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.0.kernels.isa()
    }

    /// Threads in use, the caller's included: never more than asked, fewer where the system refused.
    pub fn threads(&self) -> usize {
        self.0.team.threads()
    }

    /// Whether the file is locked in memory, as [`ModelBuilder::lock`] asks.
    pub fn memory_lock(&self) -> &MemoryLock {
        &self.0.memory_lock
    }

    /// For tests of what happens then: makes worker `index` panic in the next pass.
    #[doc(hidden)]
    pub fn inject_panic(&self, index: usize) {
        self.0.team.inject_panic(index);
    }
}

/// Bytes of an opened model's own tables, without those of the file's header.
pub(crate) fn table_bytes(c: &Config) -> usize {
    size_of::<Inner>() + c.windowed.capacity() + 2 * size_of::<f64>() * (c.head_dim / 2)
}

/// The angle by which position 1 rotates each pair of a head's values.
fn rope_frequencies(head_dim: usize, base: f32, factor: f32) -> Vec<f64> {
    let pairs = head_dim / 2;
    (0..pairs).map(|i| (base as f64).powf(-2.0 * i as f64 / head_dim as f64) / factor as f64).collect()
}
