//! Kernels for quantized weights with AVX2, FMA and F16C.
//!
//! One description of each format ([`formats`]) serves both products: how to unpack two blocks of a row into two
//! registers of 32 bytes, and how to read the scales of up to eight blocks. Everything else is generic over it.
//!
//! # Two blocks at a time
//!
//! A *pair* is two blocks A and B of a row as two registers, `[A 0..16 | B 0..16]` and `[A 16..32 | B 16..32]`.
//! Where a scale belongs to all 32 values, the products of both registers are added before they become floats: half
//! the conversions and multiplications of one block at a time. Where scales belong to 16 values, each register has
//! two of them.
//!
//! An *octet* is eight blocks, whose scales fill one register in order. Pair `i` of an octet is blocks `i` and
//! `i + 4`, so that its scales are at place `i` of either half of that register, and spread to their four lanes by a
//! shuffle within halves. Rows end in four or two blocks, likewise: pair `i` of N is blocks `i` and `i + N / 2`.
//!
//! # Bytes times bytes
//!
//! AVX2 multiplies unsigned bytes with signed ones and adds neighbours to 16 bits, saturated (`vpmaddubsw`). With
//! weights of up to 6 bits nothing saturates, even at −128. Weights of 8 bits ([`Format::WIDE`]) would.
//!
//! Stepping multiplies with 16-bit activations, as two planes of bytes or as words by `vpmaddwd`. Words take as many
//! multiplications, and none to join the planes afterwards: all weights are widened to 16 bits, once for all rows of
//! activations.

mod formats;
mod gemm;
mod gemv;
mod unpack;

use core::arch::x86_64::*;

use super::{Grouping, Isa, Layout, Table, float};
use crate::DType;

pub(super) static TABLE: Table = Table {
    isa: Isa::Avx2,
    layout: Layout::UNSIGNED,
    unpack_panel: unpack::unpack_panel,
    gemm_panel: gemm::gemm_panel,
    gemv: gemv::gemv,
    float: &float::AVX2,
};

/// Blocks in an octet.
const OCTET: usize = 8;

/// Where in a register the scale of block `j` of `n` is.
const fn lane(j: usize, n: usize) -> usize {
    if j < n / 2 { j } else { 4 + j - n / 2 }
}

/// What the values of an octet are multiplied with.
#[derive(Clone, Copy)]
struct Scales {
    /// [group: 1 or 2][block, by `lane`]. With one group the second is not used.
    scale: [__m256; 2],
    /// As `scale`; not used where the type has no mins.
    min: [__m256; 2],
}

/// A quantized format.
///
/// # Safety
/// Its functions read no more than the bytes of the blocks that they are asked for.
unsafe trait Format {
    const TYPE: DType;

    /// Whether values have 8 bits. Pairs of those are signed bytes, without their offset of 128.
    const WIDE: bool = Grouping::of(Self::TYPE).offset == 128;

    /// Scales of the `N` blocks at `p`: 8, or for formats with blocks of 32 also 4 or 2. Those of missing blocks are 0.
    ///
    /// # Safety
    /// `N` blocks lie at `p`, and the processor has the instructions that this folder is about.
    unsafe fn scales<const N: usize>(p: *const u8) -> Scales;

    /// Pair `I` of the `N` blocks at `p`.
    ///
    /// # Safety
    /// As above.
    unsafe fn pair<const N: usize, const I: usize>(p: *const u8) -> [__m256i; 2];
}

/// `n` blocks of 32, less than four, with zeros for the others behind them.
///
/// # Safety
/// The blocks lie at `p`.
#[inline(always)]
unsafe fn padded<F: Format>(p: *const u8, n: usize) -> [u8; 160] {
    let bytes = F::TYPE.block_bytes();
    let mut four = [0; 160];
    assert!(F::TYPE.block_len() == super::BLOCK && n < 4 && 4 * bytes <= four.len());
    // SAFETY: the caller's promise.
    four[..n * bytes].copy_from_slice(unsafe { std::slice::from_raw_parts(p, n * bytes) });
    four
}
