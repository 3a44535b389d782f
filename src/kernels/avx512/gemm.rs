//! A panel of weights × rows of activations.

use core::arch::x86_64::*;
use std::ops::Range;

use crate::kernels::{Acts, BLOCK, PANEL, Panel, SLAB};

/// Activation rows of the largest tile: 2 × 6 sums of i32 and as many of f32 fit in registers.
const TILE: usize = 6;

/// See [`crate::kernels::Kernels::gemm_panel`].
///
/// # Safety
/// The processor has the instructions of [`super::TABLE`], and lengths are as `Kernels::gemm_panel` checks them.
pub(super) unsafe fn gemm_panel(panel: &Panel, acts: &Acts<'_>, blocks: Range<usize>, acc: &mut [f32]) {
    let g = panel.grouping;
    // SAFETY: the caller's promise, and the grouping is the panel's.
    unsafe {
        match (g.per_block(), g.mins) {
            (1, false) => tiles::<1, false>(panel, acts, blocks, acc),
            (1, true) => tiles::<1, true>(panel, acts, blocks, acc),
            (_, false) => tiles::<2, false>(panel, acts, blocks, acc),
            (_, true) => tiles::<2, true>(panel, acts, blocks, acc),
        }
    }
}

/// # Safety
/// As for [`gemm_panel`]; the panel has `G` groups in a block, and mins if `MINS`.
unsafe fn tiles<const G: usize, const MINS: bool>(
    panel: &Panel,
    acts: &Acts<'_>,
    blocks: Range<usize>,
    acc: &mut [f32],
) {
    // As few tiles as possible, as equal as possible.
    let count = acts.rows.div_ceil(TILE);
    let mut t = 0;
    for i in 0..count {
        let end = (i + 1) * acts.rows / count;
        let acc = &mut acc[t * PANEL..end * PANEL];
        let blocks = blocks.clone();
        // SAFETY: the caller's promise; rows `t`..`end` exist.
        unsafe {
            match end - t {
                1 => tile::<1, G, MINS>(panel, acts, t, blocks, acc),
                2 => tile::<2, G, MINS>(panel, acts, t, blocks, acc),
                3 => tile::<3, G, MINS>(panel, acts, t, blocks, acc),
                4 => tile::<4, G, MINS>(panel, acts, t, blocks, acc),
                5 => tile::<5, G, MINS>(panel, acts, t, blocks, acc),
                _ => tile::<6, G, MINS>(panel, acts, t, blocks, acc),
            }
        }
        t = end;
    }
}

/// What a tile needs of the activations of one block besides their values.
#[derive(Clone, Copy)]
#[repr(C)]
struct Factors<const T: usize, const G: usize> {
    scale: [f32; T],
    /// −offset · Σh, which the sums of products begin with.
    start: [[i32; T]; G],
    /// The sums that mins multiply.
    sum: [[f32; T]; G],
}

/// # Safety
/// As for [`tiles`]; rows `t`..`t` + `T` exist, and `acc` has [T, PANEL] values.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn tile<const T: usize, const G: usize, const MINS: bool>(
    panel: &Panel,
    acts: &Acts<'_>,
    t: usize,
    blocks: Range<usize>,
    acc: &mut [f32],
) {
    let (n, k) = (blocks.len(), acts.k);
    let mut factors = [Factors::<T, G> { scale: [0.0; T], start: [[0; T]; G], sum: [[0.0; T]; G] }; SLAB];
    for i in 0..T {
        let at = (t + i) * (k / BLOCK) + blocks.start;
        let scale = &acts.scale[at..][..n];
        let sum_h = &acts.sum_h[2 * at..][..2 * n];
        for (b, f) in factors[..n].iter_mut().enumerate() {
            f.scale[i] = scale[b];
            let [x, y] = [sum_h[2 * b] as i32, sum_h[2 * b + 1] as i32];
            if G == 1 {
                f.start[0][i] = -panel.grouping.offset * (x + y);
            } else {
                f.start[0][i] = -panel.grouping.offset * x;
                f.start[1][i] = -panel.grouping.offset * y;
            }
            if MINS {
                for g in 0..G {
                    f.sum[g][i] = if G == 1 { acts.sum32[at + b] } else { acts.sum16[2 * (at + b) + g] };
                }
            }
        }
    }

    let h = acts.h[t * k..(t + T) * k].as_ptr();
    let q = panel.q.as_ptr();
    let (scale, min) = (panel.scale.as_ptr(), panel.min.as_ptr());
    // SAFETY: acc has T · 32 values.
    let mut sum: [[__m512; 2]; T] = std::array::from_fn(|i| unsafe {
        [_mm512_loadu_ps(acc.as_ptr().add(i * PANEL)), _mm512_loadu_ps(acc.as_ptr().add(i * PANEL + 16))]
    });
    for (b, f) in factors[..n].iter().enumerate() {
        let mut scaled = [[_mm512_setzero_ps(); 2]; T];
        for g in 0..G {
            let mut dot: [[__m512i; 2]; T] = std::array::from_fn(|i| [_mm512_set1_epi32(f.start[g][i]); 2]);
            for k4 in g * 8 / G..(g + 1) * 8 / G {
                // SAFETY: the panel has `n` blocks of 8 times 4 values of 32 rows, and rows of activations have K
                // values, of which block `blocks.start + b` is one of 32.
                unsafe {
                    let w = q.add((b * 8 + k4) * PANEL * 4);
                    let w = [_mm512_load_si512(w.cast()), _mm512_load_si512(w.add(64).cast())];
                    for (i, dot) in dot.iter_mut().enumerate() {
                        let x =
                            h.add(i * k + (blocks.start + b) * BLOCK + k4 * 4).cast::<i32>().read_unaligned();
                        let x = _mm512_set1_epi32(x);
                        dot[0] = _mm512_dpbusd_epi32(dot[0], w[0], x);
                        dot[1] = _mm512_dpbusd_epi32(dot[1], w[1], x);
                    }
                }
            }
            for half in 0..2 {
                // SAFETY: scales and mins of `n` blocks of G groups of 32 rows.
                let (s, m) = unsafe {
                    let at = (b * G + g) * PANEL + half * 16;
                    (_mm512_load_ps(scale.add(at)), _mm512_load_ps(min.add(at)))
                };
                for i in 0..T {
                    let dot = _mm512_cvtepi32_ps(dot[i][half]);
                    scaled[i][half] =
                        if g == 0 { _mm512_mul_ps(dot, s) } else { _mm512_fmadd_ps(dot, s, scaled[i][half]) };
                    if MINS {
                        sum[i][half] = _mm512_fnmadd_ps(m, _mm512_set1_ps(f.sum[g][i]), sum[i][half]);
                    }
                }
            }
        }
        for i in 0..T {
            let d = _mm512_set1_ps(f.scale[i]);
            for half in 0..2 {
                sum[i][half] = _mm512_fmadd_ps(scaled[i][half], d, sum[i][half]);
            }
        }
    }
    for (i, sum) in sum.into_iter().enumerate() {
        // SAFETY: acc has T · 32 values.
        unsafe {
            _mm512_storeu_ps(acc.as_mut_ptr().add(i * PANEL), sum[0]);
            _mm512_storeu_ps(acc.as_mut_ptr().add(i * PANEL + 16), sum[1]);
        }
    }
}
