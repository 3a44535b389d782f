//! Kernels for quantized weights with NEON: plain, with the dot product, and with the matrix product of bytes.
//!
//! One description of each format ([`formats`]) serves all three and both products: how to unpack a block of a row into
//! two registers, and how to read the scales of four blocks, a *quad*. What differs is a [`Dot`] in steps and a tile in
//! prefills. `sdot` and `smmla` are assembly because their intrinsics are not stable.
//!
//! Both instructions multiply signed bytes with signed bytes. Weights of up to 6 bits are the same bytes either way; those
//! of 8 bits come as signed numbers, without their offset of 128 ([`Format::WIDE`]).

mod dot_tile;
mod formats;
mod gemm;
mod gemv;
mod magic;
mod matmul_tile;
mod unpack;

use core::arch::aarch64::*;
use core::arch::asm;

use super::{Grouping, Isa, Layout, Table, float};
use crate::DType;

pub(super) static NEON: Table = Table {
    isa: Isa::Neon,
    layout: Layout { run: 4, signed: true },
    unpack_panel: unpack::unpack_panel::<4>,
    gemm_panel: gemm::gemm_panel,
    gemv: gemv::gemv_neon,
    float: &float::NEON,
};

pub(super) static NEON_DOTPROD: Table =
    Table { isa: Isa::NeonDotprod, gemm_panel: dot_tile::gemm_panel, gemv: gemv::gemv_dotprod, ..NEON };

pub(super) static NEON_I8MM: Table = Table {
    isa: Isa::NeonI8mm,
    layout: Layout { run: 8, signed: true },
    unpack_panel: unpack::unpack_panel::<8>,
    gemm_panel: matmul_tile::gemm_panel,
    gemv: gemv::gemv_i8mm,
    ..NEON
};

/// Blocks in a quad.
const QUAD: usize = 4;

/// What the values of a quad are multiplied with.
#[derive(Clone, Copy)]
struct Scales {
    /// [group: 1 or 2][block]. With one group the second is not used.
    scale: [float32x4_t; 2],
    /// As `scale`; not used where the type has no mins.
    min: [float32x4_t; 2],
}

/// A quantized format. Functions are given where its block of 256 begins, of which `Q` is the quad, or else where the
/// quad begins, and `Q` is 0.
///
/// # Safety
/// Its functions read no more than the bytes of the blocks that they are asked for.
unsafe trait Format {
    const TYPE: DType;

    /// Whether values have 8 bits.
    const WIDE: bool = Grouping::of(Self::TYPE).offset == 128;

    /// Quads that begin at one place.
    const QUADS: usize = Self::TYPE.block_len().div_ceil(QUAD * super::BLOCK);

    /// Bytes of [`Self::QUADS`] quads.
    const BYTES: usize =
        Self::TYPE.block_bytes() * QUAD * super::BLOCK * Self::QUADS / Self::TYPE.block_len();

    /// Scales of a quad.
    ///
    /// # Safety
    /// It lies there, and the processor has NEON.
    unsafe fn scales<const Q: usize>(p: *const u8) -> Scales;

    /// Block `I` of a quad: the signed value of 8 bits, else the value without its offset.
    ///
    /// # Safety
    /// As above; of a quad of blocks of 32 as far as this block is enough.
    unsafe fn block<const Q: usize, const I: usize>(p: *const u8) -> [int8x16_t; 2];

    /// Block `I` of the quads of two rows: 8 values of the one and the same 8 of the other, four times.
    ///
    /// # Safety
    /// As above.
    #[inline(always)]
    unsafe fn pair<const Q: usize, const I: usize>(p: [*const u8; 2]) -> [int8x16_t; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            let (a, b) = (Self::block::<Q, I>(p[0]), Self::block::<Q, I>(p[1]));
            let (first, second) = (by_turns(a[0], b[0]), by_turns(a[1], b[1]));
            [first[0], first[1], second[0], second[1]]
        }
    }
}

/// The lower halves of both, and the upper halves.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn by_turns(a: int8x16_t, b: int8x16_t) -> [int8x16_t; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let (a, b) = (vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b));
        [vreinterpretq_s8_s64(vzip1q_s64(a, b)), vreinterpretq_s8_s64(vzip2q_s64(a, b))]
    }
}

/// Fewer than four blocks of 32, with zeros behind them.
struct Padded([u8; QUAD * 34]);

impl Padded {
    /// # Safety
    /// `bytes` (at most those of four blocks) lie at `p`.
    unsafe fn new(p: *const u8, bytes: usize) -> Padded {
        let mut to = Padded([0; QUAD * 34]);
        assert!(bytes <= to.0.len());
        // SAFETY: the caller's promise; `to` is another place, and long enough.
        unsafe { p.copy_to_nonoverlapping(to.0.as_mut_ptr(), bytes) };
        to
    }
}

/// Sums of products of bytes.
trait Dot {
    /// Adds to the lanes of `acc` the products of 16 bytes with 16 others, `N` times: to which lane is the
    /// implementation's choice.
    ///
    /// # Safety
    /// The processor has the instructions. Where not `WIDE`, `w` is in 0..=63, or 0..=31 for N = 2.
    unsafe fn dot<const WIDE: bool, const N: usize>(
        acc: int32x4_t,
        w: [int8x16_t; N],
        x: [int8x16_t; N],
    ) -> int32x4_t;
}

/// Plain NEON.
struct Widen;

impl Dot for Widen {
    #[inline(always)]
    unsafe fn dot<const WIDE: bool, const N: usize>(
        mut acc: int32x4_t,
        w: [int8x16_t; N],
        x: [int8x16_t; N],
    ) -> int32x4_t {
        // SAFETY: the caller's promise.
        unsafe {
            if WIDE {
                // −128 · −128 twice would be more than 16 bits hold.
                for i in 0..N {
                    acc = vpadalq_s16(acc, vmull_s8(vget_low_s8(w[i]), vget_low_s8(x[i])));
                    acc = vpadalq_s16(acc, vmull_high_s8(w[i], x[i]));
                }
            } else {
                // At most 2 · 63 · 128, or 4 · 31 · 128.
                const { assert!(WIDE || N <= 2) };
                let mut sum = vmull_s8(vget_low_s8(w[0]), vget_low_s8(x[0]));
                sum = vmlal_high_s8(sum, w[0], x[0]);
                for i in 1..N {
                    sum = vmlal_s8(sum, vget_low_s8(w[i]), vget_low_s8(x[i]));
                    sum = vmlal_high_s8(sum, w[i], x[i]);
                }
                acc = vpadalq_s16(acc, sum);
            }
            acc
        }
    }
}

/// `sdot`.
struct Sdot;

impl Dot for Sdot {
    #[inline]
    #[target_feature(enable = "dotprod")]
    unsafe fn dot<const WIDE: bool, const N: usize>(
        mut acc: int32x4_t,
        w: [int8x16_t; N],
        x: [int8x16_t; N],
    ) -> int32x4_t {
        for i in 0..N {
            // SAFETY: register arithmetic of an instruction set that the caller has.
            unsafe {
                asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) acc, in(vreg) w[i], in(vreg) x[i],
                    options(pure, nomem, nostack, preserves_flags));
            }
        }
        acc
    }
}

/// Adds a 2 × 8 matrix of bytes times the transpose of another: lane 2 i + j is row i of `a` times row j of `b`.
///
/// # Safety
/// The processor has the instruction.
#[inline]
#[target_feature(enable = "i8mm")]
unsafe fn smmla(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: register arithmetic of an instruction set that the caller has.
    unsafe {
        asm!("smmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) acc, in(vreg) a, in(vreg) b,
            options(pure, nomem, nostack, preserves_flags));
    }
    acc
}
