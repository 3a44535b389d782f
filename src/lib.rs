//! Embeddable inference for Google's Gemma models on the CPU.

#![deny(unsafe_code)]

mod cancel;
mod dtype;
mod error;
mod limits;
#[allow(unsafe_code)]
mod kernels;
#[allow(unsafe_code)]
mod parallel;
#[allow(unsafe_code)]
mod quant;

pub use cancel::CancelToken;
pub use dtype::DType;
pub use error::{Error, ErrorKind, Result};
pub use kernels::Isa;
pub use limits::Limits;
