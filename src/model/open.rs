//! Opening a model.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::weights::Weights;
use super::{Config, Inner, Model, rope_frequencies};
use crate::gguf::{self, Gguf};
use crate::kernels::Kernels;
use crate::parallel::{MAX_THREADS, Team, check_threads};
use crate::storage::Storage;
use crate::tokenizer::TokenizerOptions;
use crate::{CancelToken, Error, Isa, Result};

/// How far a long call has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes done.
    pub done: u64,
    /// Bytes in all.
    pub total: u64,
}

/// Whether a model's file is locked in memory, so that the system cannot take its pages back.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum MemoryLock {
    /// Nobody asked for it: see [`ModelBuilder::lock`].
    NotAsked,
    /// It is, as long as the model lives.
    Locked,
    /// The system refused, for this reason. The model works without.
    Refused(String),
}

/// How much a log message matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum LogLevel {
    /// Something did not go as asked, but on.
    Warn,
    /// What was done.
    Info,
}

/// Where a model's log messages go.
pub(super) type Log = Box<dyn Fn(LogLevel, &str) + Send + Sync>;

/// Options for opening a [`Model`].
#[derive(Default)]
pub struct ModelBuilder<'a> {
    threads: Option<usize>,
    isa: Option<Isa>,
    cancel: Option<CancelToken>,
    progress: Option<Box<dyn FnMut(Progress) + 'a>>,
    private: bool,
    preload: bool,
    lock: bool,
    tokenizer: TokenizerOptions,
    log: Option<Log>,
}

impl<'a> ModelBuilder<'a> {
    /// Threads to compute with, the caller's included. Unless asked: one for each core that the process may use.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// The instruction set to use, instead of the best that there is.
    pub fn isa(mut self, isa: Isa) -> Self {
        self.isa = Some(isa);
        self
    }

    /// Stops opening, and building the tokenizer, when set.
    pub fn cancel(mut self, cancel: &CancelToken) -> Self {
        self.cancel = Some(cancel.clone());
        self
    }

    /// Told how far opening has come: `done` never falls, and ends as the `total`.
    pub fn progress(mut self, progress: impl FnMut(Progress) + 'a) -> Self {
        self.progress = Some(Box::new(progress));
        self
    }

    /// Read the file into memory of our own instead of mapping it: for those who can't trust the file not to shrink
    /// while it is used. Takes as much memory as the file is long.
    pub fn private_copy(mut self, yes: bool) -> Self {
        self.private = yes;
        self
    }

    /// Read the whole file ahead, in order, before returning: the first tokens then come at full speed even when the
    /// file was not in the page cache.
    pub fn preload(mut self, yes: bool) -> Self {
        self.preload = yes;
        self
    }

    /// Lock the mapped file in memory, after reading it ahead: a program that is idle for long then goes on at full
    /// speed. A wish: systems limit what a process may lock (`ulimit -l`), and [`Model::memory_lock`] tells what came of
    /// it. What is not mapped is not locked.
    pub fn lock(mut self, yes: bool) -> Self {
        self.lock = yes;
        self
    }

    /// Options of the tokenizer.
    pub fn tokenizer(mut self, options: TokenizerOptions) -> Self {
        self.tokenizer = options;
        self
    }

    /// Takes the model's log messages, on whatever thread they arise. Without it the library is silent. No message
    /// holds any part of a prompt.
    pub fn log(mut self, log: impl Fn(LogLevel, &str) + Send + Sync + 'static) -> Self {
        self.log = Some(Box::new(log));
        self
    }

    /// Opens a file; of a split model, the first.
    ///
    /// # Errors
    /// Whatever is wrong with the file, by name and place; [`Error::InvalidOption`]; [`Error::Cancelled`].
    pub fn open(mut self, path: impl AsRef<Path>) -> Result<Model> {
        self.check()?;
        let cancel = self.token();
        if !self.private {
            let gguf = Gguf::open_with(path.as_ref(), &cancel, &mut |path| Storage::open(path))?;
            return self.finish(gguf);
        }
        // What is in memory need not be read ahead.
        self.preload = false;
        let total = gguf::parts_len(path.as_ref());
        let mut before = 0;
        let gguf = Gguf::open_with(path.as_ref(), &cancel, &mut |path| {
            let part = Storage::read(path, &cancel, &mut |done, len| {
                self.report(before + done, total.max(before + len));
            })?;
            before += part.as_slice().len() as u64;
            Ok(part)
        })?;
        self.finish(gguf)
    }

    /// Opens what a [`Storage`] holds: a descriptor with an offset and a length, or bytes. Of a split model, give
    /// all parts in order.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_storage(self, parts: Vec<Storage>) -> Result<Model> {
        self.check()?;
        let gguf = Gguf::from_parts(parts, &self.token())?;
        self.finish(gguf)
    }

    /// Reads the header of a file and checks it as [`Self::open`] does, and no more. The number is that of the
    /// threads asked for.
    pub(crate) fn look_at(&self, path: &Path) -> Result<(Gguf, Config, Weights, usize)> {
        self.check()?;
        let gguf = Gguf::open_with(path, &self.token(), &mut |path| Storage::open(path))?;
        let config = Config::from_gguf(&gguf)?;
        let weights = Weights::find(&gguf, &config)?;
        self.token().check()?;
        Ok((gguf, config, weights, self.threads.unwrap_or_else(default_threads)))
    }

    /// The caller's token, or one that nobody sets.
    fn token(&self) -> CancelToken {
        self.cancel.clone().unwrap_or_default()
    }

    fn report(&mut self, done: u64, total: u64) {
        if let Some(f) = &mut self.progress {
            f(Progress { done, total });
        }
    }

    fn check(&self) -> Result<()> {
        if let Some(cancel) = &self.cancel {
            cancel.check()?;
        }
        self.threads.map_or(Ok(()), check_threads)
    }

    fn finish(mut self, gguf: Gguf) -> Result<Model> {
        let isa = self.isa.unwrap_or_else(Isa::detect);
        let kernels = Kernels::new(isa).ok_or_else(|| Error::InvalidOption {
            option: "isa",
            expected: "an instruction set that this processor has".into(),
            found: isa.to_string(),
        })?;
        let config = Config::from_gguf(&gguf)?;
        let weights = Weights::find(&gguf, &config)?;
        let total = gguf.file_len();
        // Locking reads what is not there, and could not be cancelled.
        if self.preload || (self.lock && !self.private) {
            gguf.read_ahead(&self.token(), &mut |done, total| self.report(done, total))?;
        }
        let memory_lock = if self.lock { lock(&gguf) } else { MemoryLock::NotAsked };
        self.report(total, total);
        self.token().check()?;
        let threads = self.threads.unwrap_or_else(default_threads);
        let team = Team::new(threads);
        let model = Model(Arc::new(Inner {
            rope_frequencies: [
                rope_frequencies(config.head_dim, config.rope_base, config.rope_factor),
                rope_frequencies(config.head_dim, config.rope_base_windowed, config.rope_factor_windowed),
            ],
            gguf,
            config,
            weights,
            kernels,
            team,
            tokenizer_options: self.tokenizer,
            tokenizer: OnceLock::new(),
            fingerprint: OnceLock::new(),
            cancel: self.cancel,
            memory_lock,
            log: self.log,
        }));
        let (m, running) = (&*model.0, model.threads());
        m.log(LogLevel::Info, || {
            let (arch, layers) = (m.config.arch.name(), m.config.n_layers);
            let name = m.gguf.name();
            format!("{name}: {arch}, {layers} layers, {total} bytes; kernels {isa}, {running} threads")
        });
        if let MemoryLock::Refused(why) = &m.memory_lock {
            m.log(LogLevel::Warn, || format!("the file is not locked in memory: {why}"));
        }
        if running < threads {
            m.log(LogLevel::Warn, || format!("the system gave {running} threads of the {threads} asked for"));
        }
        Ok(model)
    }
}

/// Locks all of a model's parts, or none.
fn lock(gguf: &Gguf) -> MemoryLock {
    match gguf.lock() {
        Ok(()) => MemoryLock::Locked,
        Err(e) => {
            for part in gguf.parts() {
                // Those that were not locked have nothing to undo.
                let _ = part.unlock();
            }
            MemoryLock::Refused(e.to_string())
        }
    }
}

/// One for each core within the process's affinity and cgroup quota.
fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get()).min(MAX_THREADS)
}
