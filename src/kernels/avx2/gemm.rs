//! A panel of weights × rows of activations.
//!
//! A register has four values of K of eight weight rows, which are multiplied with the same four of an activation
//! row. Weights of up to 6 bits are summed in 16 bits over a whole group, two sums for each weight row (of values 0
//! and 1, and of values 2 and 3, of every four). That fits because the sums begin with what the offset takes away:
//! what is left at the end is Σ (q − offset) · h, at most 16 · 16 · 127 for 5 bits in groups of 32 and 32 · 8 · 127 for
//! 6 bits in groups of 16, and what overflows on the way comes back. Weights of 8 bits are widened to 16 and summed
//! in 32 bits.

#![allow(clippy::needless_range_loop)] // indices belong to several arrays at once

use core::arch::asm;
use core::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use crate::kernels::{Acts, BLOCK, Grouping, PANEL, Panel, SLAB};

/// Activation rows of the largest tile: its 2 × 5 sums stay in registers.
const TILE: usize = 5;

/// See [`crate::kernels::Kernels::gemm_panel`].
///
/// # Safety
/// The processor has the instructions of [`super::TABLE`], and lengths are as `Kernels::gemm_panel` checks them.
pub(super) unsafe fn gemm_panel(panel: &Panel, acts: &Acts<'_>, blocks: Range<usize>, acc: &mut [f32]) {
    let g = panel.grouping;
    let wide = g.max > 63;
    // As few tiles as possible, as equal as possible.
    let count = acts.rows.div_ceil(TILE);
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
                (4, true) => wide_tile::<4>(part),
                (_, true) => wide_tile::<5>(part),
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

/// `BACK` is an offset that is put on the weights and taken back, so that sums fit.
///
/// # Safety
/// As for [`narrow`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn narrow_tile<const T: usize, const G: usize, const MINS: bool, const BACK: i32>(part: Part<'_>) {
    let Part { panel, acts, t, blocks, acc } = part;
    let (n, k) = (blocks.len(), acts.k);
    let mut room = [const { MaybeUninit::<[[i32; SLAB]; G]>::uninit() }; T];
    for i in 0..T {
        // SAFETY: `n` blocks of row `t + i`, and room for as many numbers.
        unsafe {
            starts::<G>(acts.h.as_ptr().add((t + i) * k), &blocks, panel.grouping.offset + BACK, &mut room[i])
        };
    }
    let start = room.as_ptr().cast::<i32>();

    // SAFETY (of all that follows): the panel has `n` blocks of 8 times 4 values, and G scales and mins, of 32 rows,
    // 16 of which are looked at a time; rows of activations have K values, of which block `blocks.start + b` is one of
    // 32, with its scale and sums; `acc` has T · 32 values; and starts() wrote G times `n` numbers for each row.
    let at = t * (k / BLOCK) + blocks.start;
    let h = acts.h.as_ptr().wrapping_add(at * BLOCK);
    let d = acts.scale.as_ptr().wrapping_add(at);
    let sum_h = acts.sum_h.as_ptr().wrapping_add(2 * at);
    let (scale, min) = (panel.scale.as_ptr(), panel.min.as_ptr());
    let (sum16, sum32) = (acts.sum16.as_ptr().wrapping_add(2 * at), acts.sum32.as_ptr().wrapping_add(at));
    for b in 0..n {
        for g in 0..G {
            for rows in 0..2 {
                let mut dot = [[_mm256_setzero_si256(); 2]; T];
                for i in 0..T {
                    // SAFETY: see above.
                    dot[i] = [unsafe { _mm256_set1_epi32(*start.add((i * G + g) * SLAB + b)) }; 2];
                }
                let q = panel.q.as_ptr().wrapping_add((b * BLOCK * PANEL) + rows * 64);
                let h = h.wrapping_add(b * BLOCK);
                // SAFETY: see above.
                unsafe {
                    if g == 0 {
                        narrow_dot::<T, 0>(&mut dot, q, h, k);
                        narrow_dot::<T, 1>(&mut dot, q, h, k);
                        narrow_dot::<T, 2>(&mut dot, q, h, k);
                        narrow_dot::<T, 3>(&mut dot, q, h, k);
                    }
                    if G == 1 || g == 1 {
                        narrow_dot::<T, 4>(&mut dot, q, h, k);
                        narrow_dot::<T, 5>(&mut dot, q, h, k);
                        narrow_dot::<T, 6>(&mut dot, q, h, k);
                        narrow_dot::<T, 7>(&mut dot, q, h, k);
                    }
                }
                let at = (b * G + g) * PANEL + rows * 16;
                for i in 0..T {
                    let row = i * (k / BLOCK) + b;
                    // SAFETY: see above.
                    unsafe {
                        let d = _mm256_set1_ps(*d.add(row));
                        let back = if BACK == 0 {
                            _mm256_setzero_si256()
                        } else {
                            let sum = *sum_h.add(2 * row) as i32 + *sum_h.add(2 * row + 1) as i32;
                            _mm256_set1_epi32(BACK * sum)
                        };
                        let minus = match (MINS, G) {
                            (false, _) => _mm256_setzero_ps(),
                            (true, 1) => _mm256_set1_ps(*sum32.add(row)),
                            _ => _mm256_set1_ps(*sum16.add(2 * row + g)),
                        };
                        for half in 0..2 {
                            let mut dot = _mm256_madd_epi16(dot[i][half], _mm256_set1_epi16(1));
                            if BACK != 0 {
                                dot = _mm256_add_epi32(dot, back);
                            }
                            let s = _mm256_mul_ps(_mm256_load_ps(scale.add(at + half * 8)), d);
                            let acc = acc.as_mut_ptr().add(i * PANEL + rows * 16 + half * 8);
                            let mut sum = _mm256_loadu_ps(acc);
                            sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), s, sum);
                            if MINS {
                                sum = _mm256_fnmadd_ps(_mm256_load_ps(min.add(at + half * 8)), minus, sum);
                            }
                            _mm256_storeu_ps(acc, sum);
                        }
                    }
                }
            }
        }
    }
}

/// What sums of products begin with, for G groups of every one of `blocks` of a row of activations: −offset · Σh of
/// values 0 and 1, and of values 2 and 3, of every four, as two numbers of 16 bits.
///
/// # Safety
/// The processor has AVX2; the blocks are in the row at `h`, and there are at most [`SLAB`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn starts<const G: usize>(
    h: *const i8,
    blocks: &Range<usize>,
    offset: i32,
    to: &mut MaybeUninit<[[i32; SLAB]; G]>,
) {
    let to = to.as_mut_ptr().cast::<i32>();
    let n = blocks.len();
    let one = _mm256_set1_epi8(1);
    let by = _mm256_set1_epi16(-offset as i16);
    // The last four blocks may be some that were seen before.
    let step = n.min(4);
    for b in (0..n.div_ceil(4)).map(|b| (4 * b).min(n - step)) {
        let mut v = [_mm256_setzero_si256(); 4];
        for j in 0..step {
            // SAFETY: the caller's promise: b + j is below n.
            unsafe {
                let h = h.add((blocks.start + b + j) * BLOCK);
                v[j] = _mm256_maddubs_epi16(one, _mm256_loadu_si256(h.cast()));
            }
        }
        // In each half, sums of the four pairs of numbers of each block.
        let v01 = _mm256_add_epi16(_mm256_unpacklo_epi64(v[0], v[1]), _mm256_unpackhi_epi64(v[0], v[1]));
        let v23 = _mm256_add_epi16(_mm256_unpacklo_epi64(v[2], v[3]), _mm256_unpackhi_epi64(v[2], v[3]));
        let (x, y) = (_mm256_castsi256_ps(v01), _mm256_castsi256_ps(v23));
        let all = _mm256_add_epi16(
            _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(x, y)),
            _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(x, y)),
        );
        let all = _mm256_mullo_epi16(all, by);
        let (first, second) = (_mm256_castsi256_si128(all), _mm256_extracti128_si256::<1>(all));
        // SAFETY: SLAB is a multiple of 4 and at least 4: there is room for four numbers from b on, all the more where
        // there are fewer than four blocks.
        unsafe {
            if G == 1 {
                _mm_storeu_si128(to.add(b).cast(), _mm_add_epi16(first, second));
            } else {
                _mm_storeu_si128(to.add(b).cast(), first);
                _mm_storeu_si128(to.add(SLAB + b).cast(), second);
            }
        }
    }
}

/// Calls macro `$step` with `T` and, for each row of a tile of `T`, its index, the numbers of its two sums among the
/// operands, and where it begins.
macro_rules! for_tile {
    ($step:ident, $k:ident, $h3:ident) => {
        match T {
            1 => $step!((0 "0" "1" "{h}")),
            2 => $step!((0 "0" "1" "{h}") (1 "2" "3" "{h} + {k}"), $k),
            3 => $step!((0 "0" "1" "{h}") (1 "2" "3" "{h} + {k}") (2 "4" "5" "{h} + 2 * {k}"), $k),
            4 => $step!(
                (0 "0" "1" "{h}") (1 "2" "3" "{h} + {k}") (2 "4" "5" "{h} + 2 * {k}") (3 "6" "7" "{h3}"), $k $h3
            ),
            5 => $step!(
                (0 "0" "1" "{h}") (1 "2" "3" "{h} + {k}") (2 "4" "5" "{h} + 2 * {k}") (3 "6" "7" "{h3}")
                (4 "8" "9" "{h3} + {k}"), $k $h3
            ),
            _ => unreachable!(),
        }
    };
}

/// Adds products of four values, from 4 · `K4` in their block, of 16 weight rows at `q` and T rows of activations at
/// `h`, `k` apart.
///
/// In assembly because the compiler changes the order of the sums, so that products pile up and registers run out,
/// and gathers the broadcast loads into wide ones, which it then takes apart by shuffles.
///
/// # Safety
/// The processor has AVX2, a block of 32 weight rows lies at `q`, aligned to 32 bytes, and 32 activations at `h` and
/// at every further row.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn narrow_dot<const T: usize, const K4: usize>(
    dot: &mut [[__m256i; 2]; T],
    q: *const u8,
    h: *const i8,
    k: usize,
) {
    let h3 = h.wrapping_add(3 * k);
    macro_rules! step {
        ($(($i:literal $a:literal $b:literal $at:literal))* $(, $($reg:ident)*)?) => {
            // SAFETY: the caller's promise; only registers are written.
            unsafe {
                asm!(
                    "vmovdqa {w0}, ymmword ptr [{q} + {qo}]",
                    "vmovdqa {w1}, ymmword ptr [{q} + {qo} + 32]",
                    $(
                        concat!("vpbroadcastd {x}, dword ptr [", $at, " + {ho}]"),
                        "vpmaddubsw {y}, {w0}, {x}",
                        "vpmaddubsw {x}, {w1}, {x}",
                        concat!("vpaddw {", $a, "}, {", $a, "}, {y}"),
                        concat!("vpaddw {", $b, "}, {", $b, "}, {x}"),
                    )*
                    $(inout(ymm_reg) dot[$i][0], inout(ymm_reg) dot[$i][1],)*
                    q = in(reg) q,
                    h = in(reg) h,
                    $($($reg = in(reg) $reg,)*)?
                    qo = const K4 * PANEL * 4,
                    ho = const K4 * 4,
                    w0 = out(ymm_reg) _,
                    w1 = out(ymm_reg) _,
                    x = out(ymm_reg) _,
                    y = out(ymm_reg) _,
                    options(pure, readonly, nostack, preserves_flags),
                )
            }
        };
    }
    for_tile!(step, k, h3)
}

/// Adds products of 32 values of 16 weight rows at `q` and T rows of activations at `x`, [T, 2, 8] pairs of 16 bits.
///
/// # Safety
/// As for [`narrow_dot`], and T times 64 bytes of activations lie at `x`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn wide_dot<const T: usize>(dot: &mut [[__m256i; 2]; T], q: *const u8, h: *const u8) {
    let low = _mm256_set1_epi16(0xff);
    for k4 in 0..8 {
        let (q, h) = (q.wrapping_add(k4 * PANEL * 4), h.wrapping_add(k4 * 4));
        macro_rules! step {
            ($(($i:literal $a:literal $b:literal $at:literal))* $(, $($reg:ident)*)?) => {
                // SAFETY: the caller's promise; only registers are written.
                unsafe {
                    asm!(
                        "vpand {w0}, {low}, ymmword ptr [{q}]",
                        "vpand {w1}, {low}, ymmword ptr [{q} + 32]",
                        $(
                            concat!("vpbroadcastd {x}, dword ptr [{h} + ", $i, " * 64]"),
                            "vpmaddwd {y}, {w0}, {x}",
                            "vpmaddwd {x}, {w1}, {x}",
                            concat!("vpaddd {", $a, "}, {", $a, "}, {y}"),
                            concat!("vpaddd {", $b, "}, {", $b, "}, {x}"),
                        )*
                        "vmovdqa {w0}, ymmword ptr [{q}]",
                        "vmovdqa {w1}, ymmword ptr [{q} + 32]",
                        "vpsrlw {w0}, {w0}, 8",
                        "vpsrlw {w1}, {w1}, 8",
                        $(
                            concat!("vpbroadcastd {x}, dword ptr [{h} + ", $i, " * 64 + 32]"),
                            "vpmaddwd {y}, {w0}, {x}",
                            "vpmaddwd {x}, {w1}, {x}",
                            concat!("vpaddd {", $a, "}, {", $a, "}, {y}"),
                            concat!("vpaddd {", $b, "}, {", $b, "}, {x}"),
                        )*
                        $(inout(ymm_reg) dot[$i][0], inout(ymm_reg) dot[$i][1],)*
                        q = in(reg) q,
                        h = in(reg) h,
                        low = in(ymm_reg) low,
                        w0 = out(ymm_reg) _,
                        w1 = out(ymm_reg) _,
                        x = out(ymm_reg) _,
                        y = out(ymm_reg) _,
                        options(pure, readonly, nostack, preserves_flags),
                    )
                }
            };
        }
        for_tile!(step, k, h3)
    }
}

/// The same as [`narrow_tile`] for weights of 8 bits in groups of 32, without mins.
///
/// # Safety
/// As for [`gemm_panel`]; that is what the weights are, and rows `t`..`t` + `T` of activations exist.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn wide_tile<const T: usize>(part: Part<'_>) {
    let Part { panel, acts, t, blocks, acc } = part;
    debug_assert!(panel.grouping == Grouping { group: 32, offset: 128, mins: false, max: 255 });
    let (n, k) = (blocks.len(), acts.k);
    let at = t * (k / BLOCK) + blocks.start;
    // Values 0 and 2, and values 1 and 3, of every four, in 16 bits: [block][row][2][8 pairs].
    let mut room = [const { MaybeUninit::<[[[i32; 8]; 2]; T]>::uninit() }; SLAB];
    let x = room.as_mut_ptr().cast::<u8>();
    for i in 0..T {
        for b in 0..n {
            // SAFETY: block `b` of row `t + i`, to its 64 bytes of the room, which has `n` blocks of T of them.
            unsafe {
                let h = acts.h.as_ptr().add((at + i * (k / BLOCK) + b) * BLOCK);
                let v = _mm256_loadu_si256(h.cast());
                let x = x.add((b * T + i) * 64);
                let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(v));
                _mm256_storeu_si256(x.cast(), even);
                _mm256_storeu_si256(x.add(32).cast(), _mm256_srai_epi16::<8>(v));
            }
        }
    }

    let d = acts.scale.as_ptr().wrapping_add(at);
    let sum_h = acts.sum_h.as_ptr().wrapping_add(2 * at);
    for rows in 0..2 {
        let (q, acc) = (panel.q.as_ptr().wrapping_add(rows * 64), acc.as_mut_ptr().wrapping_add(rows * 16));
        let scale = panel.scale.as_ptr().wrapping_add(rows * 16);
        for b in 0..n {
            let mut dot = [[_mm256_setzero_si256(); 2]; T];
            for i in 0..T {
                let at = 2 * (i * (k / BLOCK) + b);
                // SAFETY: as in narrow_tile(), here and below.
                let sum = unsafe { *sum_h.add(at) as i32 + *sum_h.add(at + 1) as i32 };
                dot[i] = [_mm256_set1_epi32(-128 * sum); 2];
            }
            // SAFETY: as above; activations were widened.
            unsafe { wide_dot::<T>(&mut dot, q.add(b * BLOCK * PANEL), x.add(b * T * 64)) };
            for i in 0..T {
                // SAFETY: as above.
                unsafe {
                    let d = _mm256_set1_ps(*d.add(i * (k / BLOCK) + b));
                    for half in 0..2 {
                        let s = _mm256_mul_ps(_mm256_load_ps(scale.add(b * PANEL + half * 8)), d);
                        let acc = acc.add(i * PANEL + half * 8);
                        let sum = _mm256_loadu_ps(acc);
                        _mm256_storeu_ps(acc, _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot[i][half]), s, sum));
                    }
                }
            }
        }
    }
}
