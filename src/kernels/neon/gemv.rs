//! Weight rows × a few rows of activations.
//!
//! A quad of a row gives four integers, one for each block, in the lanes of one register (two registers, where there are
//! two groups in a block). They become floats, and are multiplied by the scales, all four at once: lane i of an output's
//! sums belongs to block i of every quad. The integers are exact, so the bits do not depend on which instructions made
//! them.

use core::arch::aarch64::*;
use core::arch::asm;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::{Dot, Format, Padded, QUAD, Sdot, Widen, smmla};
use crate::kernels::{Acts, BLOCK, Grouping, Rows, with_format};

/// Activations of a quad in the order that the loops read them.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Arranged {
    /// Of each block: `h` and then `l`, or 8 values of `h` and the same 8 of `l` by turns, see [`Engine::BY_TURNS`].
    planes: [[[i8; 16]; 4]; QUAD],
    /// Over 256.
    scale: [f32; QUAD],
    /// [group][block]: where the type has mins the sum, else the sum times −offset.
    sum: [[f32; QUAD]; 2],
}

/// Quads of activations held at a time, for one row or for each of several: 64 KB on the stack, for rows of 27000 values.
const ROOM: usize = 215;
/// Pairs of weight rows whose unfinished sums are kept where rows of activations are longer than that.
const CHUNK: usize = 4;
/// Weight rows beside each other.
const PAIR: usize = 2;
/// How far ahead weights are fetched, in blocks: 9 KB of Q4_0, to the second-level cache.
const AHEAD: usize = 512;

/// How the integers of a quad come about.
trait Engine {
    /// Whether planes lie by turns.
    const BY_TURNS: bool;

    /// Σ q · (256 h + l): [row][activation row][group], a lane for each block.
    ///
    /// # Safety
    /// The processor has the instructions, and quad `Q` lies at each of `w`.
    unsafe fn dots<F: Format, const Q: usize, const T: usize>(
        w: [*const u8; PAIR],
        x: &[Arranged; T],
    ) -> [[[int32x4_t; 2]; T]; PAIR];
}

/// By sums of products along a row.
struct Along<D>(PhantomData<D>);

/// Runs `$body` with the constant `$i` 0, 1, 2 and 3.
macro_rules! for_blocks {
    ($i:ident => $body:block) => {{
        for_blocks!(0 $i $body);
        for_blocks!(1 $i $body);
        for_blocks!(2 $i $body);
        for_blocks!(3 $i $body);
    }};
    ($n:literal $i:ident $body:block) => {{
        const $i: usize = $n;
        $body
    }};
}

impl<D: Dot> Engine for Along<D> {
    const BY_TURNS: bool = false;

    #[inline(always)]
    unsafe fn dots<F: Format, const Q: usize, const T: usize>(
        w: [*const u8; PAIR],
        x: &[Arranged; T],
    ) -> [[[int32x4_t; 2]; T]; PAIR] {
        let two_groups = const { Grouping::of(F::TYPE).per_block() == 2 };
        // SAFETY: the caller's promise.
        unsafe {
            let zero = vdupq_n_s32(0);
            let mut acc = [[[[zero; QUAD]; 2]; T]; PAIR];
            for_blocks!(I => {
                for r in 0..PAIR {
                    let w = F::block::<Q, I>(w[r]);
                    for t in 0..T {
                        let x = x[t].planes[I].map(|x| vld1q_s8(x.as_ptr()));
                        let acc = &mut acc[r][t];
                        if two_groups {
                            for g in 0..2 {
                                let h = sum1::<F, D>(zero, w[g], x[g]);
                                acc[g][I] = sum1::<F, D>(vshlq_n_s32::<8>(h), w[g], x[2 + g]);
                            }
                        } else {
                            let h = sum2::<F, D>(zero, w, [x[0], x[1]]);
                            acc[0][I] = sum2::<F, D>(vshlq_n_s32::<8>(h), w, [x[2], x[3]]);
                        }
                    }
                }
            });
            let mut dots = [[[zero; 2]; T]; PAIR];
            for r in 0..PAIR {
                for t in 0..T {
                    for g in 0..if two_groups { 2 } else { 1 } {
                        let a = acc[r][t][g];
                        dots[r][t][g] = vpaddq_s32(vpaddq_s32(a[0], a[1]), vpaddq_s32(a[2], a[3]));
                    }
                }
            }
            dots
        }
    }
}

/// # Safety
/// As for [`Dot::dot`].
#[inline(always)]
unsafe fn sum1<F: Format, D: Dot>(acc: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // SAFETY: the caller's promise.
    unsafe { if F::WIDE { D::dot::<true, 1>(acc, [w], [x]) } else { D::dot::<false, 1>(acc, [w], [x]) } }
}

/// # Safety
/// As for [`Dot::dot`].
#[inline(always)]
unsafe fn sum2<F: Format, D: Dot>(acc: int32x4_t, w: [int8x16_t; 2], x: [int8x16_t; 2]) -> int32x4_t {
    // SAFETY: the caller's promise.
    unsafe { if F::WIDE { D::dot::<true, 2>(acc, w, x) } else { D::dot::<false, 2>(acc, w, x) } }
}

/// By products of two weight rows with planes `h` and `l`.
struct Matrix;

impl Engine for Matrix {
    const BY_TURNS: bool = true;

    #[inline(always)]
    unsafe fn dots<F: Format, const Q: usize, const T: usize>(
        w: [*const u8; PAIR],
        x: &[Arranged; T],
    ) -> [[[int32x4_t; 2]; T]; PAIR] {
        let groups = const { Grouping::of(F::TYPE).per_block() };
        // SAFETY: the caller's promise.
        unsafe {
            let zero = vdupq_n_s32(0);
            // Lanes are row 0 · h, row 0 · l, row 1 · h, row 1 · l.
            let mut acc = [[[zero; QUAD]; 2]; T];
            for_blocks!(I => {
                let w = F::pair::<Q, I>(w);
                for t in 0..T {
                    for k8 in 0..4 {
                        let to = &mut acc[t][k8 * groups / 4][I];
                        *to = smmla(*to, w[k8], vld1q_s8(x[t].planes[I][k8].as_ptr()));
                    }
                }
            });
            let mut dots = [[[zero; 2]; T]; PAIR];
            for t in 0..T {
                for g in 0..groups {
                    let a = acc[t][g];
                    let both = |a, b| vaddq_s32(vshlq_n_s32::<8>(vuzp1q_s32(a, b)), vuzp2q_s32(a, b));
                    let (first, second) = (both(a[0], a[1]), both(a[2], a[3]));
                    dots[0][t][g] = vuzp1q_s32(first, second);
                    dots[1][t][g] = vuzp2q_s32(first, second);
                }
            }
            dots
        }
    }
}

/// The functions of one instruction set: the features that it needs, and its engine.
macro_rules! instantiate {
    ($gemv:ident, $tile:ident, $engine:ty, $feature:literal) => {
        /// See [`crate::kernels::Kernels::gemv`].
        ///
        /// # Safety
        /// The processor has the instructions, and lengths are as `Kernels::gemv` checks them.
        pub(super) unsafe fn $gemv(rows: Rows<'_>, acts: &Acts<'_>, out: &mut [f32], stride: usize) {
            #[target_feature(enable = $feature)]
            unsafe fn one<F: Format, const T: usize>(
                rows: Rows<'_>,
                acts: &Acts<'_>,
                t: usize,
                out: &mut [f32],
                stride: usize,
            ) {
                // SAFETY: the caller's promise.
                unsafe { tile::<$engine, F, T>(rows, acts, t, out, stride) }
            }
            unsafe fn $tile<F: Format>(rows: Rows<'_>, acts: &Acts<'_>, out: &mut [f32], stride: usize) {
                let quads = acts.k.div_ceil(QUAD * BLOCK);
                let mut t = 0;
                while t < acts.rows {
                    let out = &mut out[t * stride..];
                    let left = acts.rows - t;
                    // SAFETY: the caller's promise, and as many rows of activations are left.
                    unsafe {
                        if left >= 2 && 2 * quads <= ROOM {
                            one::<F, 2>(rows, acts, t, out, stride);
                            t += 2;
                        } else {
                            one::<F, 1>(rows, acts, t, out, stride);
                            t += 1;
                        }
                    }
                }
            }
            // SAFETY: the caller's promise.
            unsafe { with_format!(rows.ty, $tile(rows, acts, out, stride)) }
        }
    };
}

instantiate!(gemv_neon, tiles, Along<Widen>, "neon");
instantiate!(gemv_dotprod, tiles, Along<Sdot>, "neon,dotprod");
instantiate!(gemv_i8mm, tiles, Matrix, "neon,i8mm");

/// # Safety
/// The processor has the instructions; rows `t`..`t` + `T` of activations exist, and lengths are as `Kernels::gemv` checks
/// them.
#[inline(always)]
unsafe fn tile<E: Engine, F: Format, const T: usize>(
    rows: Rows<'_>,
    acts: &Acts<'_>,
    t: usize,
    out: &mut [f32],
    stride: usize,
) {
    let mut room = [const { MaybeUninit::<Arranged>::uninit() }; ROOM];
    let blocks = acts.k / BLOCK;
    // SAFETY: the processor has NEON.
    let zero = [[unsafe { vdupq_n_f32(0.0) }; T]; PAIR];
    // All of K at once where there is room, else slabs of whole quads and their sums, for a few rows at a time.
    let slab = ROOM / T / 2 * 2 * QUAD;
    let one = blocks <= slab;
    let mut kept = [zero; CHUNK];
    let step = if one { rows.len() } else { CHUNK * PAIR };
    for from in (0..rows.len()).step_by(step) {
        let end = rows.len().min(from + step);
        for start in (0..blocks).step_by(slab) {
            let n = slab.min(blocks - start);
            if from == 0 || !one {
                for i in 0..T {
                    // SAFETY: blocks `start`..`start` + `n` of row `t + i` exist, and there is room for them.
                    unsafe { arrange::<E, F, T>(acts, t + i, start, n, i, &mut room) };
                }
            }
            for r in (from..end).step_by(PAIR) {
                // The last row may be there twice.
                let second = (r + 1).min(end - 1);
                let at = start * BLOCK / F::TYPE.block_len() * F::TYPE.block_bytes();
                let w = [r, second].map(|r| rows.row(r)[at..].as_ptr());
                let mut sums = if start == 0 { zero } else { kept[(r - from) / PAIR % CHUNK] };
                // SAFETY: `n` blocks lie at each of `w`, and those of activations were arranged.
                unsafe { row::<E, F, T>(w, n, room.as_ptr().cast(), &mut sums) };
                if start + n < blocks {
                    kept[(r - from) / PAIR % CHUNK] = sums;
                    continue;
                }
                for i in 0..T {
                    out[i * stride + r] = total(sums[0][i]);
                    out[i * stride + second] = total(sums[second - r][i]);
                }
            }
        }
    }
}

/// Adds `n` blocks of a pair of weight rows.
///
/// # Safety
/// The processor has the instructions, `n` blocks lie at each of `w` (whole blocks of the format), and their activations at
/// `x`.
#[inline(always)]
unsafe fn row<E: Engine, F: Format, const T: usize>(
    mut w: [*const u8; PAIR],
    n: usize,
    mut x: *const [Arranged; T],
    sums: &mut [[float32x4_t; T]; PAIR],
) {
    // SAFETY: the caller's promise: four or eight blocks each time, then those that are left beside zeros.
    unsafe {
        for _ in 0..n / (QUAD * F::QUADS) {
            fetch::<F>(w);
            quad::<E, F, 0, T>(w, &*x, sums);
            x = x.add(1);
            if F::QUADS == 2 {
                quad::<E, F, 1, T>(w, &*x, sums);
                x = x.add(1);
            }
            w = w.map(|w| w.add(F::BYTES));
        }
        let left = n % QUAD;
        if F::QUADS == 1 && left > 0 {
            let padded = w.map(|w| Padded::new(w, left * F::TYPE.block_bytes()));
            quad::<E, F, 0, T>([padded[0].0.as_ptr(), padded[1].0.as_ptr()], &*x, sums);
        }
    }
}

/// Asks for weights that will be needed.
#[inline(always)]
fn fetch<F: Format>(w: [*const u8; PAIR]) {
    for w in w {
        for line in (0..F::BYTES).step_by(64) {
            let at = w.wrapping_add(AHEAD * BLOCK / F::TYPE.block_len() * F::TYPE.block_bytes() + line);
            // SAFETY: a hint, whatever the address.
            unsafe { asm!("prfm pldl2keep, [{0}]", in(reg) at, options(readonly, nostack, preserves_flags)) };
        }
    }
}

/// Adds a quad.
///
/// # Safety
/// The processor has the instructions, and the quad lies at each of `w`.
#[inline(always)]
unsafe fn quad<E: Engine, F: Format, const Q: usize, const T: usize>(
    w: [*const u8; PAIR],
    x: &[Arranged; T],
    sums: &mut [[float32x4_t; T]; PAIR],
) {
    let g = const { Grouping::of(F::TYPE) };
    // SAFETY: the caller's promise.
    unsafe {
        let dots = E::dots::<F, Q, T>(w, x);
        for r in 0..PAIR {
            let s = F::scales::<Q>(w[r]);
            for t in 0..T {
                let d = vld1q_f32(x[t].scale.as_ptr());
                for group in 0..g.per_block() {
                    let dot = vcvtq_f32_s32(dots[r][t][group]);
                    let sum = vld1q_f32(x[t].sum[group].as_ptr());
                    let to = &mut sums[r][t];
                    if g.mins {
                        *to = vfmaq_f32(*to, vmulq_f32(dot, d), s.scale[group]);
                        *to = vfmsq_f32(*to, s.min[group], sum);
                    } else if F::WIDE {
                        *to = vfmaq_f32(*to, vmulq_f32(dot, d), s.scale[group]);
                    } else {
                        *to = vfmaq_f32(*to, vfmaq_f32(sum, dot, d), s.scale[group]);
                    }
                }
            }
        }
    }
}

/// The output that lanes add up to.
#[inline(always)]
fn total(s: float32x4_t) -> f32 {
    // SAFETY: the processor has NEON.
    unsafe { vaddvq_f32(s) }
}

/// Arranges `n` blocks from `start` of row `t` as row `i` of a tile of `T`.
///
/// # Safety
/// The blocks exist, and `room` has T · ⌈n / 4⌉ places.
#[inline(always)]
unsafe fn arrange<E: Engine, F: Format, const T: usize>(
    acts: &Acts<'_>,
    t: usize,
    start: usize,
    n: usize,
    i: usize,
    room: &mut [MaybeUninit<Arranged>; ROOM],
) {
    let g = const { Grouping::of(F::TYPE) };
    let by = if g.mins { 1.0 } else { -g.offset as f32 };
    let at = t * (acts.k / BLOCK) + start;
    for (q, to) in room.iter_mut().skip(i).step_by(T).take(n.div_ceil(QUAD)).enumerate() {
        let to =
            to.write(Arranged { planes: [[[0; 16]; 4]; QUAD], scale: [0.0; QUAD], sum: [[0.0; QUAD]; 2] });
        for j in 0..QUAD.min(n - q * QUAD) {
            let b = at + q * QUAD + j;
            let (h, l) = (&acts.h[b * BLOCK..][..BLOCK], &acts.l[b * BLOCK..][..BLOCK]);
            // SAFETY: 32 values each, and 64 bytes to write.
            unsafe {
                let (h, l) = (h.as_ptr(), l.as_ptr());
                let (h0, h1) = (vld1q_s64(h.cast()), vld1q_s64(h.add(16).cast()));
                let (l0, l1) = (vld1q_s64(l.cast()), vld1q_s64(l.add(16).cast()));
                let v = if E::BY_TURNS {
                    [vzip1q_s64(h0, l0), vzip2q_s64(h0, l0), vzip1q_s64(h1, l1), vzip2q_s64(h1, l1)]
                } else {
                    [h0, h1, l0, l1]
                };
                for (to, v) in to.planes[j].iter_mut().zip(v) {
                    vst1q_s64(to.as_mut_ptr().cast(), v);
                }
            }
            to.scale[j] = acts.scale[b] / 256.0;
            if g.per_block() == 1 {
                to.sum[0][j] = by * acts.sum32[b];
            } else {
                to.sum[0][j] = by * acts.sum16[2 * b];
                to.sum[1][j] = by * acts.sum16[2 * b + 1];
            }
        }
    }
}
