//! Embeddable inference for Google's Gemma models on the CPU.

#![deny(unsafe_code)]

mod cancel;
pub mod chat;
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
#[allow(unsafe_code)]
mod quant;
mod sampler;
mod session;
mod stop;
#[allow(unsafe_code)]
mod storage;
mod tokenizer;

pub use cancel::CancelToken;
pub use dtype::DType;
pub use error::{Error, ErrorKind, Result};
pub use generate::{FinishReason, GenerateOptions, Piece, Summary};
pub use kernels::Isa;
pub use limits::Limits;
pub use model::{Arch, Config, KvType, Model, ModelBuilder, Plan, Progress, SessionOptions};
pub use sampler::{LogitsHook, SamplingOptions, TokenLogProb};
pub use session::{Session, TokenScore};
pub use storage::{Advice, MemoryBytes, Storage};
pub use tokenizer::{
    EncodeOptions, Engine, PieceKind, SpecialIds, StreamDecoder, Tokenizer, TokenizerOptions,
};

/// What `benches/` measure: the kernels, which are private otherwise. No part of the API.
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod internals {
    pub use crate::kernels::{ActsMut, Kernels, KvRows, Rows};
}
