//! Embeddable inference for Google's Gemma models on the CPU: one memory-mapped GGUF file in, text out.
//!
//! carat runs every text model of Gemma, Gemma 2 and Gemma 3 inside your own program, with no service and no network.
//! It computes on the file's weights in place: nothing is copied, repacked or dequantized into memory that lasts, and
//! several processes share one copy through the page cache.
//!
//! ```
//! use std::ops::ControlFlow;
//! use carat::{GenerateOptions, Model, Session, SessionOptions};
//!
//! # fn main() -> carat::Result<()> {
//! # let path = "tests/data/tiny-gemma3.gguf";
//! let model = Model::open(path)?;
//! let ids = model.tokenizer()?.encode("The capital of France is")?;
//!
//! let mut session = Session::new(&model, SessionOptions::default())?;
//! let mut options = GenerateOptions::default();
//! options.max_tokens = 32;
//! let summary = session.generate(&ids, &options, |piece| {
//!     print!("{}", piece.text);
//!     ControlFlow::Continue(())
//! })?;
//! println!("\n{} tokens in {:?}", summary.generated_tokens, summary.generate_time);
//! # Ok(())
//! # }
//! ```
//!
//! # The pieces
//!
//! * [`Model`] is an opened file: immutable, cheap to clone, usable from many threads. [`Model::builder`] has the
//!   options, [`Model::plan`] says what it will take before anything is loaded.
//! * [`Session`] is one text: its tokens, their keys and values, and the buffers to add more. Low level:
//!   [`Session::prefill`], [`Session::step`], [`Session::logits`], [`Session::score`]; above them
//!   [`Session::generate`].
//! * [`Conversation`] is a session that takes turns with a user, in Gemma's template.
//! * [`Tokenizer`] turns text into ids and back; [`chat`] has Gemma's turns.
//! * [`CancelToken`] stops any long call from any thread.
//! * [`gguf`] reads and writes the files; [`Limits`] measures what the machine could do at most.
//!
//! # Promises
//!
//! * **The host survives.** Bad files, full disks, failed allocations and bad arguments are values of [`Error`] that say
//!   what and where. The one limit: a mapped file that shrinks while a pass reads it raises a signal; before each pass
//!   its length is checked, and [`ModelBuilder::private_copy`] is there for files that cannot be trusted.
//! * **One binary, every processor.** Kernels are chosen at run time ([`Isa`]); plain Rust is always there.
//! * **The same bits.** The same file, options and instruction set give bit-identical logits for any number of threads
//!   and any split of a prompt into calls.
//! * **Steady state allocates nothing.** After a session is made, a step takes no heap allocation.
//! * **Quiet.** Nothing is printed, and idle threads sleep.

#![deny(unsafe_code)]

mod cancel;
#[cfg(feature = "capi")]
#[allow(unsafe_code)]
#[doc(hidden)] // its documentation is the header, which knows no links
#[allow(rustdoc::broken_intra_doc_links, rustdoc::private_intra_doc_links)]
pub mod capi;
pub mod chat;
mod conversation;
mod draft;
mod dtype;
mod error;
mod generate;
pub mod gguf;
#[allow(unsafe_code)]
mod kernels;
mod limits;
mod model;
#[allow(unsafe_code)]
mod ops;
#[allow(unsafe_code)]
mod parallel;
mod plan;
#[allow(unsafe_code)]
mod quant;
mod sampler;
mod session;
mod state;
mod stop;
#[allow(unsafe_code)]
mod storage;
mod tokenizer;
mod xxh64;

pub use cancel::CancelToken;
pub use conversation::{ContextPolicy, Conversation, ConversationTurn, DroppedTurn, Reply};
pub use dtype::DType;
pub use error::{Error, ErrorKind, Result};
pub use generate::{FinishReason, GenerateOptions, Piece, Summary};
pub use kernels::Isa;
pub use limits::Limits;
pub use model::{Arch, Config, KvType, LogLevel, MemoryLock, Model, ModelBuilder, Progress, SessionOptions};
pub use plan::Plan;
pub use sampler::{LogitsHook, SamplingOptions, TokenLogProb};
pub use session::{Logits, Session, TokenScore};
pub use storage::{Advice, MemoryBytes, Storage};
pub use tokenizer::{
    EncodeOptions, Engine, PieceKind, SpecialIds, StreamDecoder, Tokenizer, TokenizerOptions,
};

/// What `benches/` measure: the kernels, which are private otherwise. No part of the API.
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod internals {
    pub use crate::kernels::{Acts, ActsMut, BLOCK, Kernels, KvRows, PANEL, Panel, Rows, SLAB, probe};
}

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
