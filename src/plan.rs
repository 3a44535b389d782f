//! What a model and a session will take, before anything is loaded.
//!
//! Every buffer's size is asked of the module that allocates it. What an allocator and the system add to that is
//! bounded here: whole pages, and the threads' stacks.

mod available;

use std::path::Path;

use crate::gguf::Gguf;
use crate::model::scratch::Scratch;
use crate::model::weights::Weights;
use crate::model::{Config, MAX_LOGIT_ROWS, Model, ModelBuilder, SessionOptions, table_bytes};
use crate::parallel::Team;
use crate::session::TokenScore;
use crate::tokenizer::Tokenizer;
use crate::{Error, Result, conversation, generate};

/// Bytes of memory that a model and one session on it take: an upper bound, and a close one.
///
/// It holds from before the model is opened until the context is full, with the tokenizer made, a conversation and
/// its snapshots kept, and a text being generated with any options. All but the file is memory of the process's own,
/// and all of that but a few percent is in use when the context is full: what is said of options that need more
/// (sampling from the whole vocabulary, hooks, penalties) is the most that any need.
///
/// Not counted is what the caller owns or asks for besides: the program itself, lists and texts given in options, a
/// text while it is encoded, and [`Self::score`]. The tokenizer is the built-in one;
/// [`Engine::SentencePiece`](crate::Engine::SentencePiece) holds some 40 MB more.
///
/// A further session on the same model takes `kv_cache`, `scratch` and `snapshots` again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// The mapped file. Its pages are shared between processes, and the system may take them back at any time. (With
    /// [`ModelBuilder::private_copy`] it is memory of the process's own, as all the rest is.)
    pub file: u64,
    /// Keys and values of a full context.
    pub kv_cache: u64,
    /// Buffers of a forward pass, of its logits and of sampling.
    pub scratch: u64,
    /// Copies of the sliding windows, of which a [`Conversation`](crate::Conversation) keeps
    /// [`SessionOptions::snapshots`].
    pub snapshots: u64,
    /// The tokenizer; 0 for a file without a vocabulary.
    pub tokenizer: u64,
    /// The rest: the file's header as it was read, the tokens, a conversation's ids and texts (at 8 bytes a token),
    /// the stacks of the threads, and the whole pages that buffers are rounded up to.
    pub other: u64,
    /// All of the above.
    pub total: u64,
    /// What [`Session::score`](crate::Session::score) and [`Session::prefill_each`](crate::Session::prefill_each)
    /// take more while they run: 16 rows of logits, and the scores of a full context. Not part of the total.
    pub score: u64,
    /// What could be had now without pushing others out, where the system says so (Linux): of the machine's memory,
    /// and within the limits of the process's control group.
    pub available: Option<u64>,
}

impl Plan {
    /// The total without the file: memory of the process's own.
    pub fn private(&self) -> u64 {
        self.total - self.file
    }

    /// Whether the total is available now; `None` where the system does not say what is.
    ///
    /// Where it is not, but [`Self::private`] is, everything works, only slowly: the file is read from the disk
    /// again and again.
    pub fn fits(&self) -> Option<bool> {
        self.available.map(|available| self.total <= available)
    }

    /// For an opened file, `threads` workers and one session.
    fn new(
        gguf: &Gguf,
        c: &Config,
        weights: &Weights,
        threads: usize,
        options: &SessionOptions,
    ) -> Result<Plan> {
        let shape = options.shape(c, weights)?;
        let needs = weights.needs(options.exact);
        let forward = Scratch::bytes(c, &needs, shape.batch, 1 + shape.draft, threads);
        let tokenizer = match Tokenizer::heap_bytes_bound(gguf) {
            Ok(bytes) => bytes,
            // Computing with ids needs none, and none can be made.
            Err(Error::Metadata { .. } | Error::Unsupported { .. }) => 0,
            Err(e) => return Err(e),
        };
        let buffers = BUFFERS + 2 * c.n_layers + options.snapshots + threads * WORKER_BUFFERS;
        let other = gguf.heap_bytes()
            + weights.heap_bytes()
            + table_bytes(c)
            + size_of::<u32>() * shape.context
            + conversation::most_bytes(shape.context)
            + threads * Team::THREAD_BYTES
            + buffers * PAGE;
        let mut plan = Plan {
            file: gguf.file_len(),
            kv_cache: shape.bytes(c) as u64,
            scratch: (forward + generate::most_bytes(c.vocab, shape.context)) as u64,
            snapshots: (options.snapshots * shape.snapshot_bytes(c)) as u64,
            tokenizer: tokenizer as u64,
            other: other as u64,
            total: 0,
            score: (MAX_LOGIT_ROWS * c.vocab * size_of::<f32>() + shape.context * size_of::<TokenScore>())
                as u64,
            available: available::bytes(),
        };
        plan.total = plan.file + plan.kv_cache + plan.scratch + plan.snapshots + plan.tokenizer + plan.other;
        Ok(plan)
    }
}

impl Model {
    /// The memory that a model and one session on it will take, without loading anything.
    ///
    /// # Errors
    /// As [`Model::open`], and [`Error::InvalidOption`].
    pub fn plan(path: impl AsRef<Path>, threads: usize, options: &SessionOptions) -> Result<Plan> {
        Model::builder().threads(threads).plan(path, options)
    }

    /// As [`Model::plan`], of this model.
    ///
    /// # Errors
    /// [`Error::InvalidOption`].
    pub fn plan_session(&self, options: &SessionOptions) -> Result<Plan> {
        let m = &*self.0;
        Plan::new(&m.gguf, &m.config, &m.weights, self.threads(), options)
    }
}

impl ModelBuilder<'_> {
    /// The memory that a model opened like this and one session on it will take, without loading anything: the file's
    /// header is read and checked.
    ///
    /// # Errors
    /// As [`ModelBuilder::open`], [`Error::Cancelled`] included, and [`Error::InvalidOption`].
    pub fn plan(&self, path: impl AsRef<Path>, options: &SessionOptions) -> Result<Plan> {
        let (gguf, config, weights, threads) = self.look_at(path.as_ref())?;
        Plan::new(&gguf, &config, &weights, threads, options)
    }
}

/// What a large buffer is rounded up to, with the allocator's note of its size: a page.
const PAGE: usize =
    if cfg!(any(target_vendor = "apple", target_os = "android")) { 16 << 10 } else { 4 << 10 };
/// Large buffers of a worker's.
const WORKER_BUFFERS: usize = 14;
/// The other large buffers, without those of the KV cache: of passes, generating, the tokenizer and the tokens. A few
/// more stand for the small pieces between them.
const BUFFERS: usize = 64;
