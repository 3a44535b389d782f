//! Kernels for quantized weights with AVX-512 and VNNI.
//!
//! One description of each format ([`formats`]) serves both products: how to unpack two blocks of a row into two
//! registers of 32 unsigned bytes, and how to read the scales of up to eight blocks. Everything else is generic over
//! it. A step ([`gemv`]) uses 256-bit registers, which split instructions over all pipes of the processors that
//! execute 512-bit ones in halves; the product of a panel ([`gemm`]) uses 512-bit ones, where most instructions are
//! dot products.
//!
//! # Two blocks at a time
//!
//! A *pair* is blocks A and B = A + 1 of a row as two registers, `[A 0..16 | B 0..16]` and `[A 16..32 | B 16..32]`.
//! Where a scale belongs to all 32 values, one accumulator takes both registers: half the conversions, shifts and
//! multiplications of one block at a time. Where scales belong to 16 values, each register has two of them.
//!
//! An *octet* is eight blocks, whose scales fill one register, in the order [`ORDER`]: those of pair `i` are then at
//! place `i` of either half of the register, and spread to their four lanes by a shuffle within halves.

mod formats;
mod gemm;
mod gemv;
mod unpack;

use core::arch::x86_64::*;

use super::{Isa, Table, float};
use crate::DType;

pub(super) static TABLE: Table = Table {
    isa: Isa::Avx512Vnni,
    unpack_panel: unpack::unpack_panel,
    gemm_panel: gemm::gemm_panel,
    gemv: gemv::gemv,
    float: &float::AVX512,
};

/// Blocks in an octet.
const OCTET: usize = 8;

/// The blocks of an octet in the order of their scales in a register.
const ORDER: [usize; OCTET] = [0, 2, 4, 6, 1, 3, 5, 7];

/// What the values of an octet are multiplied with.
#[derive(Clone, Copy)]
struct Scales {
    /// [group: 1 or 2][block, by ORDER]. With one group the second is not used.
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

    /// Scales of the `N` blocks at `p`: 8, or for formats with blocks of 32 also 4, 2 or 1. Those of missing blocks
    /// are 0.
    ///
    /// # Safety
    /// `N` blocks lie at `p`, and the processor has the instructions that this folder is about.
    unsafe fn scales<const N: usize>(p: *const u8) -> Scales;

    /// Pair `I`, blocks 2 I and 2 I + 1, of the octet at `p`.
    ///
    /// # Safety
    /// As above, for 2 I + 2 blocks.
    unsafe fn pair<const I: usize>(p: *const u8) -> [__m256i; 2];

    /// The block at `p` as A of a pair whose B may be anything. Only formats with blocks of 32 have single blocks.
    ///
    /// # Safety
    /// As above, for one block.
    unsafe fn single(_p: *const u8) -> [__m256i; 2] {
        unreachable!("blocks of 256 come in whole octets")
    }
}

/// Calls `$f::<F, ..>($args)` with the format `F` of the quantized type `$ty`.
macro_rules! with_format {
    ($ty:expr, $f:ident ( $($arg:expr),* )) => {{
        use $crate::kernels::avx512::formats as f;
        match $ty {
            DType::Q4_0 => $f::<f::Q4_0>($($arg),*),
            DType::Q4_1 => $f::<f::Q4_1>($($arg),*),
            DType::Q5_0 => $f::<f::Q5_0>($($arg),*),
            DType::Q5_1 => $f::<f::Q5_1>($($arg),*),
            DType::Q8_0 => $f::<f::Q8_0>($($arg),*),
            DType::Q2_K => $f::<f::Q2_K>($($arg),*),
            DType::Q3_K => $f::<f::Q3_K>($($arg),*),
            DType::Q4_K => $f::<f::Q4_K>($($arg),*),
            DType::Q5_K => $f::<f::Q5_K>($($arg),*),
            DType::Q6_K => $f::<f::Q6_K>($($arg),*),
            DType::IQ4_NL => $f::<f::IQ4_NL>($($arg),*),
            DType::IQ4_XS => $f::<f::IQ4_XS>($($arg),*),
            DType::F32 | DType::F16 | DType::BF16 => unreachable!("{} has no blocks", $ty),
        }
    }};
}
use with_format;
