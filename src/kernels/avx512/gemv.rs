//! Weight rows × a few rows of activations.

use core::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::{Format, OCTET, with_format};
use crate::DType;
use crate::kernels::{Acts, BLOCK, Grouping, Rows};

/// Activations of up to an octet in the order that the loops read them.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Arranged {
    /// Of each pair: `h` and then `l` of [A 0..16 | B 0..16] and [A 16..32 | B 16..32].
    planes: [[[u8; 32]; 4]; 4],
    /// By ORDER, over 256.
    scale: [f32; OCTET],
    /// [group][block, by ORDER]
    sum: [[f32; OCTET]; 2],
}

/// Octets of activations held at a time, for one row or for each of several: 64 KB on the stack, for rows of 24576
/// values.
const ROOM: usize = 100;
/// Weight rows whose unfinished sums are kept where rows of activations are longer than that.
const CHUNK: usize = 8;

/// The sums of one output on the way, lane by lane.
#[derive(Clone, Copy)]
struct Sums {
    /// Of products, for even and odd pairs, and with two groups for each.
    dot: [[__m256; 2]; 2],
    /// Of what mins, or else offsets, are to take away.
    minus: __m256,
}

/// See [`crate::kernels::Kernels::gemv`].
///
/// # Safety
/// The processor has the instructions of [`super::TABLE`], and lengths are as `Kernels::gemv` checks them.
pub(super) unsafe fn gemv(rows: Rows<'_>, acts: &Acts<'_>, out: &mut [f32], stride: usize) {
    // SAFETY: the caller's promise.
    unsafe { with_format!(rows.ty, tiles(rows, acts, out, stride)) }
}

/// # Safety
/// As for [`gemv`].
unsafe fn tiles<F: Format>(rows: Rows<'_>, acts: &Acts<'_>, out: &mut [f32], stride: usize) {
    let octets = acts.k.div_ceil(OCTET * BLOCK) + 3;
    let mut room = [const { MaybeUninit::<Arranged>::uninit() }; ROOM];
    let mut t = 0;
    while t < acts.rows {
        let out = &mut out[t * stride..];
        let left = acts.rows - t;
        // SAFETY: the caller's promise, and as many rows of activations are left.
        unsafe {
            if left >= 4 && 4 * octets <= ROOM {
                tile::<F, 4>(rows, acts, t, out, stride, &mut room);
                t += 4;
            } else if left >= 2 && 2 * octets <= ROOM {
                tile::<F, 2>(rows, acts, t, out, stride, &mut room);
                t += 2;
            } else {
                tile::<F, 1>(rows, acts, t, out, stride, &mut room);
                t += 1;
            }
        }
    }
}

/// # Safety
/// As for [`gemv`]; rows `t`..`t` + `T` of activations exist.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn tile<F: Format, const T: usize>(
    rows: Rows<'_>,
    acts: &Acts<'_>,
    t: usize,
    out: &mut [f32],
    stride: usize,
    room: &mut [MaybeUninit<Arranged>; ROOM],
) {
    let blocks = acts.k / BLOCK;
    let zero = Sums { dot: [[_mm256_setzero_ps(); 2]; 2], minus: _mm256_setzero_ps() };
    // All of K at once where there is room, else slabs of whole octets and their sums, for a few rows at a time.
    let slab = (ROOM / T - 3) * OCTET;
    let one = blocks <= slab;
    let mut kept = [[zero; T]; CHUNK];
    for from in (0..rows.len()).step_by(if one { rows.len() } else { CHUNK }) {
        let end = if one { rows.len() } else { rows.len().min(from + CHUNK) };
        for start in (0..blocks).step_by(slab) {
            let n = slab.min(blocks - start);
            if from == 0 || !one {
                for i in 0..T {
                    // SAFETY: blocks `start`..`start` + `n` of row `t + i` exist, and there is room for them.
                    unsafe { arrange::<F, T>(acts, t + i, start, n, i, room) };
                }
            }
            for r in from..end {
                let w = &rows.row(r)[start * BLOCK / F::TYPE.block_len() * F::TYPE.block_bytes()..];
                let mut sums = if start == 0 { [zero; T] } else { kept[r - from] };
                // SAFETY: `n` blocks lie at `w`, and those of activations were arranged.
                unsafe { row::<F, T>(w.as_ptr(), n, room.as_ptr().cast(), &mut sums) };
                if start + n < blocks {
                    kept[r - from] = sums;
                } else {
                    for (i, s) in sums.into_iter().enumerate() {
                        out[i * stride + r] = total::<F>(s);
                    }
                }
            }
        }
    }
}

/// Adds `n` blocks of a weight row.
///
/// # Safety
/// The processor has the instructions, `n` blocks lie at `w` (whole blocks of the format), and their activations at
/// `x`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn row<F: Format, const T: usize>(
    mut w: *const u8,
    n: usize,
    mut x: *const [Arranged; T],
    sums: &mut [Sums; T],
) {
    let bytes = F::TYPE.block_bytes() * BLOCK * OCTET / F::TYPE.block_len();
    // SAFETY: the caller's promise: eight blocks each time, then those that are left.
    unsafe {
        for _ in 0..n / 8 {
            octet::<F, 8, T>(w, &*x, sums);
            w = w.add(bytes);
            x = x.add(1);
        }
        if F::TYPE.block_len() == BLOCK {
            if n % 8 >= 4 {
                octet::<F, 4, T>(w, &*x, sums);
                w = w.add(bytes / 2);
                x = x.add(1);
            }
            if n % 4 >= 2 {
                octet::<F, 2, T>(w, &*x, sums);
                w = w.add(bytes / 4);
                x = x.add(1);
            }
            if !n.is_multiple_of(2) {
                octet::<F, 1, T>(w, &*x, sums);
            }
        }
    }
}

/// Adds `N` blocks.
///
/// # Safety
/// The processor has the instructions, and the blocks lie at `w`.
#[inline(always)]
unsafe fn octet<F: Format, const N: usize, const T: usize>(
    w: *const u8,
    x: &[Arranged; T],
    sums: &mut [Sums; T],
) {
    let g = const { Grouping::of(F::TYPE) };
    // SAFETY: the caller's promise.
    unsafe {
        let s = F::scales::<N>(w);
        let minus = if g.mins { s.min } else { s.scale };
        let mut scale = [s.scale; T];
        for t in 0..T {
            for group in 0..g.per_block() {
                let sum = _mm256_load_ps(x[t].sum[group].as_ptr());
                sums[t].minus = _mm256_fmadd_ps(minus[group], sum, sums[t].minus);
                scale[t][group] = _mm256_mul_ps(s.scale[group], _mm256_load_ps(x[t].scale.as_ptr()));
            }
        }
        pair::<F, N, T, 0>(w, x, &scale, sums);
        if N > 2 {
            pair::<F, N, T, 1>(w, x, &scale, sums);
        }
        if N > 4 {
            pair::<F, N, T, 2>(w, x, &scale, sums);
            pair::<F, N, T, 3>(w, x, &scale, sums);
        }
    }
}

/// Adds pair `I`.
///
/// # Safety
/// As for [`octet`].
#[inline(always)]
unsafe fn pair<F: Format, const N: usize, const T: usize, const I: usize>(
    w: *const u8,
    x: &[Arranged; T],
    scale: &[[__m256; 2]; T],
    sums: &mut [Sums; T],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let w = if N == 1 { F::single(w) } else { F::pair::<I>(w) };
        for t in 0..T {
            let plane = |i: usize| _mm256_load_si256(x[t].planes[I][i].as_ptr().cast());
            let spread = |s: __m256| match I {
                0 => _mm256_permute_ps::<0x00>(s),
                1 => _mm256_permute_ps::<0x55>(s),
                2 => _mm256_permute_ps::<0xaa>(s),
                _ => _mm256_permute_ps::<0xff>(s),
            };
            let zero = _mm256_setzero_si256();
            let sum = &mut sums[t].dot[I % 2];
            if const { Grouping::of(F::TYPE).per_block() == 1 } {
                let h = _mm256_dpbusd_epi32(_mm256_dpbusd_epi32(zero, w[0], plane(0)), w[1], plane(1));
                let a = _mm256_slli_epi32::<8>(h);
                let a = _mm256_dpbusd_epi32(_mm256_dpbusd_epi32(a, w[0], plane(2)), w[1], plane(3));
                sum[0] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(a), spread(scale[t][0]), sum[0]);
            } else {
                for g in 0..2 {
                    let a = _mm256_slli_epi32::<8>(_mm256_dpbusd_epi32(zero, w[g], plane(g)));
                    let a = _mm256_dpbusd_epi32(a, w[g], plane(2 + g));
                    sum[g] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(a), spread(scale[t][g]), sum[g]);
                }
            }
        }
    }
}

/// The output that lanes add up to.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn total<F: Format>(s: Sums) -> f32 {
    let g = const { Grouping::of(F::TYPE) };
    let mut dot = _mm256_add_ps(s.dot[0][0], s.dot[1][0]);
    if g.per_block() == 2 {
        dot = _mm256_add_ps(dot, _mm256_add_ps(s.dot[0][1], s.dot[1][1]));
    }
    let by = if g.mins { 1.0 } else { g.offset as f32 };
    let all = _mm256_fnmadd_ps(s.minus, _mm256_set1_ps(by), dot);
    let half = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps::<1>(all));
    let two = _mm_add_ps(half, _mm_movehl_ps(half, half));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// Arranges `n` blocks from `start` of row `t` as row `i` of a tile of `T`, in the steps that [`row`] takes.
///
/// # Safety
/// The processor has the instructions; the blocks exist, and `room` has T · (n / 8 + 3) places.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn arrange<F: Format, const T: usize>(
    acts: &Acts<'_>,
    t: usize,
    start: usize,
    n: usize,
    i: usize,
    room: &mut [MaybeUninit<Arranged>; ROOM],
) {
    let swap = _mm512_setr_epi64(0, 1, 4, 5, 2, 3, 6, 7);
    let order = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
    let order16 = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 1, 5, 9, 13, 3, 7, 11, 15);
    let at = t * (acts.k / BLOCK) + start;
    let mut b = 0;
    for to in room.iter_mut().skip(i).step_by(T) {
        let step = match n - b {
            0 => break,
            1 => 1,
            2..4 => 2,
            4..8 => 4,
            _ => 8,
        };
        let to = to.as_mut_ptr();
        let (h, l) =
            (&acts.h[(at + b) * BLOCK..][..step * BLOCK], &acts.l[(at + b) * BLOCK..][..step * BLOCK]);
        let scale = &acts.scale[at + b..][..step];
        let (sum16, sum32) = (&acts.sum16[2 * (at + b)..][..2 * step], &acts.sum32[at + b..][..step]);
        // SAFETY: reads stay within the slices above, which have `step` blocks, by masks where they are less than a
        // register; `to` is one place of `room`.
        unsafe {
            for pair in 0..step.div_ceil(2) {
                let mask = if step == 1 { 0x0f } else { 0xff };
                for (plane, from) in [h, l].into_iter().enumerate() {
                    let v = _mm512_maskz_loadu_epi64(mask, from.as_ptr().add(pair * 64).cast());
                    let to = (&raw mut (*to).planes[pair][2 * plane]).cast();
                    _mm512_store_si512(to, _mm512_permutexvar_epi64(swap, v));
                }
            }
            let mask = (1u32 << step) - 1;
            let v = _mm256_maskz_loadu_ps(mask as u8, scale.as_ptr());
            let v = _mm256_mul_ps(_mm256_permutexvar_ps(order, v), _mm256_set1_ps(1.0 / 256.0));
            _mm256_store_ps((&raw mut (*to).scale).cast(), v);
            if const { Grouping::of(F::TYPE).per_block() == 1 } {
                let v = _mm256_maskz_loadu_ps(mask as u8, sum32.as_ptr());
                _mm256_store_ps((&raw mut (*to).sum[0]).cast(), _mm256_permutexvar_ps(order, v));
            } else {
                let v = _mm512_maskz_loadu_ps(((1u32 << (2 * step)) - 1) as u16, sum16.as_ptr());
                _mm512_storeu_ps((&raw mut (*to).sum).cast(), _mm512_permutexvar_ps(order16, v));
            }
        }
        b += step;
    }
}
