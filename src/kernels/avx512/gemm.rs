//! A panel of weights × rows of activations.

use core::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::ops::Range;

use crate::kernels::{Acts, BLOCK, PANEL, Panel, SLAB};

/// Activation rows of the largest tile, by groups in a block: 2 × 6 sums of i32 and as many of f32 fit in registers;
/// with two groups there are sums within the block, too.
const TILE: [usize; 2] = [6, 4];

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
    let count = acts.rows.div_ceil(TILE[G - 1]);
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

/// What a tile needs of its activations besides their values.
#[repr(C, align(64))]
struct Factors<const T: usize, const G: usize> {
    scale: [[f32; SLAB]; T],
    /// [group]: −offset · Σh, which the sums of products begin with.
    start: [[[i32; SLAB]; G]; T],
    /// [group]: the sums that mins multiply.
    sum: [[[f32; SLAB]; G]; T],
}

/// Those of row `i` of a tile, which is row `t` of the activations.
///
/// # Safety
/// The processor has the instructions, and `to` has room.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn factors<const T: usize, const G: usize, const MINS: bool>(
    offset: i32,
    acts: &Acts<'_>,
    t: usize,
    blocks: Range<usize>,
    i: usize,
    to: *mut Factors<T, G>,
) {
    let at = t * (acts.k / BLOCK) + blocks.start;
    let n = blocks.len();
    let scale = &acts.scale[at..][..n];
    let sum_h = &acts.sum_h[2 * at..][..2 * n];
    let (sum16, sum32) = (&acts.sum16[2 * at..][..2 * n], &acts.sum32[at..][..n]);
    for b in (0..n).step_by(16) {
        let left = (n - b).min(16) as u32;
        let mask = (1u32 << left) - 1;
        let twice = ((1u64 << (2 * left)) - 1) as u32;
        // SAFETY: masks keep reads to what is left of the slices; stores are of 16 places of 64, from a multiple.
        unsafe {
            let v = _mm512_maskz_loadu_ps(mask as u16, scale.as_ptr().add(b));
            _mm512_storeu_ps((&raw mut (*to).scale[i]).cast::<f32>().add(b), v);
            let sums = _mm512_maskz_loadu_epi16(twice, sum_h.as_ptr().add(2 * b));
            let by = _mm512_set1_epi32(-offset);
            for g in 0..G {
                // Both sums, or one of them and 0.
                let by = match (G, g) {
                    (1, _) => _mm512_or_si512(
                        _mm512_and_si512(by, _mm512_set1_epi32(0xffff)),
                        _mm512_slli_epi32::<16>(by),
                    ),
                    (_, 0) => _mm512_and_si512(by, _mm512_set1_epi32(0xffff)),
                    _ => _mm512_slli_epi32::<16>(by),
                };
                let to = (&raw mut (*to).start[i][g]).cast::<i32>().add(b);
                _mm512_storeu_si512(to.cast(), _mm512_madd_epi16(sums, by));
            }
            if MINS && G == 1 {
                let v = _mm512_maskz_loadu_ps(mask as u16, sum32.as_ptr().add(b));
                _mm512_storeu_ps((&raw mut (*to).sum[i][0]).cast::<f32>().add(b), v);
            } else if MINS {
                let x = _mm512_maskz_loadu_ps(twice as u16, sum16.as_ptr().add(2 * b));
                let y = _mm512_maskz_loadu_ps((twice >> 16) as u16, sum16.as_ptr().wrapping_add(2 * b + 16));
                let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
                for g in 0..G {
                    let index = _mm512_add_epi32(even, _mm512_set1_epi32(g as i32));
                    let to = (&raw mut (*to).sum[i][g]).cast::<f32>().add(b);
                    _mm512_storeu_ps(to, _mm512_permutex2var_ps(x, index, y));
                }
            }
        }
    }
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
    let mut room = MaybeUninit::<Factors<T, G>>::uninit();
    for i in 0..T {
        // SAFETY: the caller's promise; a slab is at most 64 blocks.
        unsafe {
            factors::<T, G, MINS>(panel.grouping.offset, acts, t + i, blocks.clone(), i, room.as_mut_ptr());
        }
    }
    let f = room.as_ptr();

    let h = acts.h[t * k..(t + T) * k].as_ptr();
    let q = panel.q.as_ptr();
    let (scale, min) = (panel.scale.as_ptr(), panel.min.as_ptr());
    // SAFETY: acc has T · 32 values.
    let mut sum: [[__m512; 2]; T] = std::array::from_fn(|i| unsafe {
        [_mm512_loadu_ps(acc.as_ptr().add(i * PANEL)), _mm512_loadu_ps(acc.as_ptr().add(i * PANEL + 16))]
    });
    for b in 0..n {
        let mut scaled = [[_mm512_setzero_ps(); 2]; T];
        for g in 0..G {
            let mut dot: [[__m512i; 2]; T] = [[_mm512_setzero_si512(); 2]; T];
            for (i, dot) in dot.iter_mut().enumerate() {
                // SAFETY: written above for `n` blocks.
                *dot = [_mm512_set1_epi32(unsafe { (*f).start[i][g][b] }); 2];
            }
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
                        // SAFETY: the caller's promise: `f` holds the factors of the tile's rows and blocks.
                        let of_row = unsafe { (*f).sum[i][g][b] };
                        sum[i][half] = _mm512_fnmadd_ps(m, _mm512_set1_ps(of_row), sum[i][half]);
                    }
                }
            }
        }
        for i in 0..T {
            // SAFETY: as above.
            let d = _mm512_set1_ps(unsafe { (*f).scale[i][b] });
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
