//! Kernels for quantized weights with AVX-512 and VNNI.
//!
//! One description of each format ([`formats`]) serves both products: how to unpack four blocks of a row into two
//! registers of 64 unsigned bytes, and how to read the scales of eight blocks. Everything else is generic over it.
//!
//! A *quad* is blocks A, B, C and D of a row as two registers. Where a scale belongs to all 32 values they are
//! `[A 0..16 | B 0..16 | C 0..16 | D 0..16]` and the same of values 16..32: one accumulator takes both, which halves
//! the conversions, shifts and multiplications. Where scales belong to 16 values they are `[A | B]` and `[C | D]`,
//! four scales each. An *octet* is two quads.

mod formats;
mod gemm;
mod gemv;
mod unpack;

use core::arch::x86_64::*;

use super::{Isa, Layout, Table, float};
use crate::DType;

pub(super) static TABLE: Table = Table {
    isa: Isa::Avx512Vnni,
    layout: Layout::UNSIGNED,
    unpack_panel: unpack::unpack_panel,
    gemm_panel: gemm::gemm_panel,
    gemv: gemv::gemv,
    float: &float::AVX512,
};

/// Blocks in an octet.
const OCTET: usize = 8;

/// What the values of an octet are multiplied with. With one group in a block, lanes are blocks, and the upper half
/// is not used. With two, see [`lane`].
#[derive(Clone, Copy)]
struct Scales {
    scale: __m512,
    /// As `scale`; not used where the type has no mins.
    min: __m512,
}

/// The lane of the scale of group `group` (of 16 values) of block `block` of an octet: the four of a register are
/// one column of the 4 × 4 lanes, which a shuffle within lanes of 128 bits spreads to where they are needed.
const fn lane(block: usize, group: usize) -> usize {
    let (register, part) = (block / 2, block % 2 * 2 + group);
    4 * part + register
}

/// A quantized format.
///
/// # Safety
/// Its functions read no more than the bytes of the blocks that they are asked for.
unsafe trait Format {
    const TYPE: DType;

    /// Scales of the `N` blocks at `p`: 8, or for formats with blocks of 32 also 4, followed by zeros.
    ///
    /// # Safety
    /// `N` blocks lie at `p`, and the processor has the instructions of [`TABLE`].
    unsafe fn scales<const N: usize>(p: *const u8) -> Scales;

    /// Blocks 4 Q..4 Q + 4 of the octet at `p`.
    ///
    /// # Safety
    /// As above, for 4 Q + 4 blocks.
    unsafe fn quad<const Q: usize>(p: *const u8) -> [__m512i; 2];
}

/// Fewer than four blocks of 32, with zeros behind them.
#[repr(align(64))]
struct Padded([u8; 4 * 34]);

impl Padded {
    /// # Safety
    /// `bytes` (at most those of four blocks) lie at `p`.
    unsafe fn new(p: *const u8, bytes: usize) -> Padded {
        let mut to = Padded([0; 4 * 34]);
        assert!(bytes <= to.0.len());
        // SAFETY: the caller's promise; `to` is another place, and long enough.
        unsafe { p.copy_to_nonoverlapping(to.0.as_mut_ptr(), bytes) };
        to
    }
}
