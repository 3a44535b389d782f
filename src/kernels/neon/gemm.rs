//! A panel of weights × rows of activations, with nothing but NEON.
//!
//! A register has four values of K of four weight rows, which are multiplied with the same four of an activation row.
//! Products are summed in 16 bits over a whole block, each lane eight of them: at most 8 · 32 · 127, where weights have up
//! to 6 bits and no offset. Weights of 8 bits go to 32 bits after every two.

use core::arch::aarch64::*;
use std::ops::Range;

use crate::kernels::{Acts, BLOCK, PANEL, Panel};

/// Activation rows of the largest tile: its sums of two registers of weights stay in registers.
const TILE: usize = 4;
/// Registers of weights beside each other.
const WIDE: usize = 2;

/// See [`crate::kernels::Kernels::gemm_panel`].
///
/// # Safety
/// The processor has NEON, and lengths are as `Kernels::gemm_panel` checks them.
pub(super) unsafe fn gemm_panel(panel: &Panel, acts: &Acts<'_>, blocks: Range<usize>, acc: &mut [f32]) {
    for t in (0..acts.rows).step_by(TILE) {
        let n = TILE.min(acts.rows - t);
        let part = Part { panel, acts, t, blocks: blocks.clone(), acc: &mut acc[t * PANEL..][..n * PANEL] };
        // SAFETY: the caller's promise; the grouping is the panel's, and rows `t`..`t` + `n` exist.
        unsafe {
            match n {
                1 => by_grouping::<1>(part),
                2 => by_grouping::<2>(part),
                3 => by_grouping::<3>(part),
                _ => by_grouping::<4>(part),
            }
        }
    }
}

/// What one tile computes.
struct Part<'a> {
    panel: &'a Panel,
    acts: &'a Acts<'a>,
    /// The first activation row.
    t: usize,
    blocks: Range<usize>,
    /// [rows of the tile, PANEL]
    acc: &'a mut [f32],
}

/// # Safety
/// As for [`gemm_panel`]; rows `t`..`t` + `T` of activations exist.
unsafe fn by_grouping<const T: usize>(part: Part<'_>) {
    let g = part.panel.grouping;
    // SAFETY: the caller's promise.
    unsafe {
        match (g.per_block(), g.mins, g.max) {
            (_, _, 255) => tile::<T, 1, false, true>(part),
            (1, false, _) => tile::<T, 1, false, false>(part),
            (1, true, _) => tile::<T, 1, true, false>(part),
            (_, false, _) => tile::<T, 2, false, false>(part),
            (_, true, _) => tile::<T, 2, true, false>(part),
        }
    }
}

/// `G` groups in a block, with `MINS` or not; weights of 8 bits where `LARGE`.
///
/// # Safety
/// As for [`by_grouping`]; that is what the panel has.
#[target_feature(enable = "neon")]
#[allow(clippy::needless_range_loop)] // indices belong to several arrays at once
unsafe fn tile<const T: usize, const G: usize, const MINS: bool, const LARGE: bool>(part: Part<'_>) {
    let Part { panel, acts, t, blocks, acc } = part;
    let k = acts.k;
    // SAFETY (of all that follows): the panel has `blocks.len()` blocks of 8 times 4 values, and G scales and mins, of 32
    // rows, 8 of which are looked at a time; rows of activations have K values, of which `block` is one of 32, with its
    // scale and sums; `acc` has T · 32 values.
    for (b, block) in blocks.enumerate() {
        for from in (0..PANEL).step_by(4 * WIDE) {
            for g in 0..G {
                let mut dot = [[vdupq_n_s32(0); WIDE]; T];
                let mut sum = [[[vdupq_n_s16(0); 2]; WIDE]; T];
                let q = panel.q.as_ptr().wrapping_add(b * BLOCK * PANEL + from * 4);
                let h = acts.h.as_ptr().wrapping_add(t * k + block * BLOCK);
                for k4 in g * 8 / G..(g + 1) * 8 / G {
                    let mut w = [vdupq_n_s8(0); WIDE];
                    for (i, w) in w.iter_mut().enumerate() {
                        // SAFETY: see above.
                        *w = unsafe { vld1q_s8(q.add(k4 * PANEL * 4 + i * 16).cast()) };
                    }
                    for i in 0..T {
                        // SAFETY: see above.
                        let x = unsafe { h.add(i * k + k4 * 4).cast::<u32>().read_unaligned() };
                        let x = vreinterpretq_s8_u32(vdupq_n_u32(x));
                        for j in 0..WIDE {
                            let [low, high] = &mut sum[i][j];
                            *low = vmlal_s8(*low, vget_low_s8(w[j]), vget_low_s8(x));
                            *high = vmlal_high_s8(*high, w[j], x);
                            if LARGE && k4 % 2 == 1 {
                                let both = vpaddq_s32(vpaddlq_s16(*low), vpaddlq_s16(*high));
                                dot[i][j] = vaddq_s32(dot[i][j], both);
                                sum[i][j] = [vdupq_n_s16(0); 2];
                            }
                        }
                    }
                }
                let at = (b * G + g) * PANEL + from;
                for i in 0..T {
                    let row = (t + i) * (k / BLOCK) + block;
                    for j in 0..WIDE {
                        let [low, high] = sum[i][j];
                        let dot =
                            if LARGE { dot[i][j] } else { vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)) };
                        // SAFETY: see above.
                        unsafe {
                            let scale =
                                vmulq_n_f32(vld1q_f32(panel.scale.as_ptr().add(at + 4 * j)), acts.scale[row]);
                            let to = acc.as_mut_ptr().add(i * PANEL + from + 4 * j);
                            let mut v = vfmaq_f32(vld1q_f32(to), vcvtq_f32_s32(dot), scale);
                            if MINS {
                                let sum = if G == 1 { acts.sum32[row] } else { acts.sum16[2 * row + g] };
                                v = vfmsq_n_f32(v, vld1q_f32(panel.min.as_ptr().add(at + 4 * j)), sum);
                            }
                            vst1q_f32(to, v);
                        }
                    }
                }
            }
        }
    }
}
