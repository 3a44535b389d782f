//! The operations of a forward pass, each run by every worker of a team over kernels: an op knows nothing of layers.
//!
//! Buffers that several workers write are [`SharedMut`](crate::parallel::SharedMut). The rule that every `unsafe`
//! here rests on: within a step a part of a buffer is written only by the worker that claimed it, and what a step
//! writes is read only after the next barrier.

pub(crate) mod activations;
pub(crate) mod attention;
pub(crate) mod linear;

/// Which arithmetic a matrix product uses. The call chooses it, never the number of rows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Arithmetic {
    /// 8-bit activations, weights unpacked a panel at a time: prompts.
    Prefill,
    /// 16-bit activations, weights streamed: one token, or a few to verify.
    Step,
    /// f32 activations and weights dequantized on the fly: the oracle.
    Exact,
}
