//! A panel of weights × rows of activations.
//!
//! A register has four values of K of eight weight rows, which are multiplied with the same four of an activation
//! row. Weights of up to 6 bits are summed in 16 bits over a whole group, two sums for each weight row (of values 0
//! and 1, and of values 2 and 3, of every four). That fits because the sums begin with what the offset takes away:
//! what is left at the end is Σ (q − offset) · h, at most 16 · 16 · 127 for 5 bits in groups of 32 and 32 · 8 · 127 for
//! 6 bits in groups of 16, and what overflows on the way comes back. Weights of 8 bits are widened to 16 and summed
//! in 32 bits.

#![allow(clippy::needless_range_loop)] // indices belong to several arrays at once

use core::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use crate::kernels::{Acts, BLOCK, Grouping, PANEL, Panel, SLAB};

/// Activation rows of the largest tile: its 2 × 5 sums stay in registers.
const TILE: usize = 5;
/// The same for weights of 8 bits, which take more registers themselves.
const WIDE_TILE: usize = 4;

/// See [`crate::kernels::Kernels::gemm_panel`].
///
/// # Safety
/// The processor has the instructions of [`super::TABLE`], and lengths are as `Kernels::gemm_panel` checks them.
pub(super) unsafe fn gemm_panel(panel: &Panel, acts: &Acts<'_>, blocks: Range<usize>, acc: &mut [f32]) {
    let g = panel.grouping;
    let wide = g.max > 63;
    // As few tiles as possible, as equal as possible.
    let count = acts.rows.div_ceil(if wide { WIDE_TILE } else { TILE });
    let mut t = 0;
    for i in 0..count {
        let end = (i + 1) * acts.rows / count;
        let part = Part { panel, acts, t, blocks: blocks.clone(), acc: &mut acc[t * PANEL..end * PANEL] };
        // SAFETY: the caller's promise; the grouping is the panel's, and rows `t`..`end` exist.
        unsafe {
            match (end - t, wide) {
                (1, true) => wide_tile::<1>(part),
                (2, true) => wide_tile::<2>(part),
                (3, true) => wide_tile::<3>(part),
                (_, true) => wide_tile::<4>(part),
                (1, _) => narrow::<1>(part),
                (2, _) => narrow::<2>(part),
                (3, _) => narrow::<3>(part),
                (4, _) => narrow::<4>(part),
                _ => narrow::<5>(part),
            }
        }
        t = end;
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
/// As for [`gemm_panel`]; weights have up to 6 bits and rows `t`..`t` + `T` of activations exist.
unsafe fn narrow<const T: usize>(part: Part<'_>) {
    let g = part.panel.grouping;
    // SAFETY: the caller's promise.
    unsafe {
        match (g.per_block(), g.mins, g.max) {
            (1, false, _) => narrow_tile::<T, 1, false, 0>(part),
            (1, true, ..=15) => narrow_tile::<T, 1, true, 0>(part),
            (1, true, _) => narrow_tile::<T, 1, true, 16>(part),
            (_, false, _) => narrow_tile::<T, 2, false, 0>(part),
            (_, true, _) => narrow_tile::<T, 2, true, 0>(part),
        }
    }
}

/// What a tile needs of the activations of one block besides their values.
#[derive(Clone, Copy)]
#[repr(C)]
struct Factors<const T: usize, const G: usize> {
    /// −offset · Σh of each half of every four, as two numbers of 16 bits, which sums of products begin with.
    start: [[i32; T]; G],
    /// What is to be added to them, where the offset that they begin with is one that the format has not.
    back: [i32; T],
    scale: [f32; T],
    /// The sums that mins multiply.
    sum: [[f32; T]; G],
}

/// `BACK` is an offset that is put on the weights and taken back, so that sums fit.
///
/// # Safety
/// As for [`narrow`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn narrow_tile<const T: usize, const G: usize, const MINS: bool, const BACK: i32>(part: Part<'_>) {
    let Part { panel, acts, t, blocks, acc } = part;
    let (n, k) = (blocks.len(), acts.k);
    let offset = panel.grouping.offset + BACK;
    let mut room = [const { MaybeUninit::<Factors<T, G>>::uninit() }; SLAB];
    for (b, f) in room[..n].iter_mut().enumerate() {
        let mut new = Factors { start: [[0; T]; G], back: [0; T], scale: [0.0; T], sum: [[0.0; T]; G] };
        for i in 0..T {
            let at = (t + i) * (k / BLOCK) + blocks.start + b;
            new.scale[i] = acts.scale[at];
            let halves = lane_sums(&acts.h[at * BLOCK..][..BLOCK]);
            let by = _mm_set1_epi16(-offset as i16);
            if G == 1 {
                let sum = _mm_add_epi16(halves[0], halves[1]);
                new.start[0][i] = _mm_cvtsi128_si32(_mm_mullo_epi16(sum, by));
            } else {
                for g in 0..G {
                    new.start[g][i] = _mm_cvtsi128_si32(_mm_mullo_epi16(halves[g], by));
                }
            }
            if BACK != 0 {
                new.back[i] = BACK * (acts.sum_h[2 * at] as i32 + acts.sum_h[2 * at + 1] as i32);
            }
            if MINS {
                for g in 0..G {
                    new.sum[g][i] = if G == 1 { acts.sum32[at] } else { acts.sum16[2 * at + g] };
                }
            }
        }
        f.write(new);
    }

    let h = acts.h[t * k..(t + T) * k].as_ptr().wrapping_add(blocks.start * BLOCK);
    for rows in [0, 16] {
        let (q, acc) = (panel.q.as_ptr().wrapping_add(rows * 4), acc.as_mut_ptr().wrapping_add(rows));
        let (scale, min) = (panel.scale.as_ptr().wrapping_add(rows), panel.min.as_ptr().wrapping_add(rows));
        for (b, f) in room[..n].iter().enumerate() {
            // SAFETY: written above.
            let f = unsafe { f.assume_init_ref() };
            for g in 0..G {
                let mut dot: [[__m256i; 2]; T] =
                    std::array::from_fn(|i| [_mm256_set1_epi32(f.start[g][i]); 2]);
                for k4 in g * 8 / G..(g + 1) * 8 / G {
                    // SAFETY: the panel has `n` blocks of 8 times 4 values of 32 rows, of which 16 are at `rows`; and
                    // rows of activations have K values, of which block `blocks.start + b` is one of 32.
                    unsafe {
                        let w = q.add((b * 8 + k4) * PANEL * 4);
                        let w = [_mm256_load_si256(w.cast()), _mm256_load_si256(w.add(32).cast())];
                        for (i, dot) in dot.iter_mut().enumerate() {
                            let x = h.add(i * k + b * BLOCK + k4 * 4).cast::<i32>().read_unaligned();
                            let x = _mm256_set1_epi32(x);
                            dot[0] = _mm256_add_epi16(dot[0], _mm256_maddubs_epi16(w[0], x));
                            dot[1] = _mm256_add_epi16(dot[1], _mm256_maddubs_epi16(w[1], x));
                        }
                    }
                }
                for half in 0..2 {
                    // SAFETY: scales and mins of `n` blocks of G groups of 32 rows; acc has T · 32 values.
                    unsafe {
                        let at = (b * G + g) * PANEL + half * 8;
                        let s = _mm256_load_ps(scale.add(at));
                        for i in 0..T {
                            let mut dot = _mm256_madd_epi16(dot[i][half], _mm256_set1_epi16(1));
                            if BACK != 0 {
                                dot = _mm256_add_epi32(dot, _mm256_set1_epi32(f.back[i]));
                            }
                            let s = _mm256_mul_ps(s, _mm256_set1_ps(f.scale[i]));
                            let acc = acc.add(i * PANEL + half * 8);
                            let mut sum = _mm256_loadu_ps(acc);
                            sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), s, sum);
                            if MINS {
                                let m = _mm256_load_ps(min.add(at));
                                sum = _mm256_fnmadd_ps(m, _mm256_set1_ps(f.sum[g][i]), sum);
                            }
                            _mm256_storeu_ps(acc, sum);
                        }
                    }
                }
            }
        }
    }
}

/// Of either half of 32 values, sums of those at places 0 and 1 and of those at places 2 and 3 of every four, as the
/// lowest two numbers of 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn lane_sums(h: &[i8]) -> [__m128i; 2] {
    let h: &[i8; BLOCK] = h.try_into().expect("a block");
    // SAFETY: 32 bytes, the length of the array.
    let v = unsafe { _mm256_loadu_si256(h.as_ptr().cast()) };
    let v = _mm256_maddubs_epi16(_mm256_set1_epi8(1), v);
    let v = _mm256_add_epi16(v, _mm256_shuffle_epi32::<0b01_00_11_10>(v));
    let v = _mm256_add_epi16(v, _mm256_shuffle_epi32::<0b10_11_00_01>(v));
    [_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v)]
}

/// The same for weights of 8 bits in groups of 32, without mins.
///
/// # Safety
/// As for [`gemm_panel`]; that is what the weights are, and rows `t`..`t` + `T` of activations exist.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn wide_tile<const T: usize>(part: Part<'_>) {
    let Part { panel, acts, t, blocks, acc } = part;
    debug_assert!(panel.grouping == Grouping { group: 32, offset: 128, mins: false, max: 255 });
    let (n, k) = (blocks.len(), acts.k);
    // Values 0 and 2, and values 1 and 3, of every four, in 16 bits.
    let mut room = [const { MaybeUninit::<[[[i32; 8]; 2]; T]>::uninit() }; SLAB];
    for (b, to) in room[..n].iter_mut().enumerate() {
        for i in 0..T {
            let h = &acts.h[(t + i) * k + (blocks.start + b) * BLOCK..][..BLOCK];
            // SAFETY: 32 bytes, the length of the slice, to two times 32 bytes of the room.
            unsafe {
                let v = _mm256_loadu_si256(h.as_ptr().cast());
                let to = to.as_mut_ptr().cast::<[[__m256i; 2]; T]>();
                let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(v));
                _mm256_storeu_si256(&raw mut (*to)[i][0], even);
                _mm256_storeu_si256(&raw mut (*to)[i][1], _mm256_srai_epi16::<8>(v));
            }
        }
    }

    let at = t * (k / BLOCK) + blocks.start;
    let (d, sum_h) = (&acts.scale[at..], &acts.sum_h[2 * at..]);
    for rows in [0, 16] {
        let (q, acc) = (panel.q.as_ptr().wrapping_add(rows * 4), acc.as_mut_ptr().wrapping_add(rows));
        let scale = panel.scale.as_ptr().wrapping_add(rows);
        for (b, x) in room[..n].iter().enumerate() {
            // SAFETY: written above.
            let x = unsafe { x.assume_init_ref() };
            let mut dot: [[__m256i; 2]; T] = std::array::from_fn(|i| {
                let s = &sum_h[i * (k / 16) + 2 * b..][..2];
                [_mm256_set1_epi32(-128 * (s[0] as i32 + s[1] as i32)); 2]
            });
            for k4 in 0..8 {
                // SAFETY: as in narrow_tile().
                unsafe {
                    let w = q.add((b * 8 + k4) * PANEL * 4);
                    let w = [_mm256_load_si256(w.cast()), _mm256_load_si256(w.add(32).cast())];
                    let even = w.map(|w| _mm256_and_si256(w, _mm256_set1_epi16(0xff)));
                    let odd = w.map(|w| _mm256_srli_epi16::<8>(w));
                    for (i, dot) in dot.iter_mut().enumerate() {
                        let y = _mm256_set1_epi32(x[i][0][k4]);
                        dot[0] = _mm256_add_epi32(dot[0], _mm256_madd_epi16(even[0], y));
                        dot[1] = _mm256_add_epi32(dot[1], _mm256_madd_epi16(even[1], y));
                        let y = _mm256_set1_epi32(x[i][1][k4]);
                        dot[0] = _mm256_add_epi32(dot[0], _mm256_madd_epi16(odd[0], y));
                        dot[1] = _mm256_add_epi32(dot[1], _mm256_madd_epi16(odd[1], y));
                    }
                }
            }
            for half in 0..2 {
                // SAFETY: as in narrow_tile().
                unsafe {
                    let s = _mm256_load_ps(scale.add(b * PANEL + half * 8));
                    for i in 0..T {
                        let s = _mm256_mul_ps(s, _mm256_set1_ps(d[i * (k / BLOCK) + b]));
                        let acc = acc.add(i * PANEL + half * 8);
                        let sum = _mm256_loadu_ps(acc);
                        _mm256_storeu_ps(acc, _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[i][half]), s, sum));
                    }
                }
            }
        }
    }
}
