//! Weight rows × a few rows of activations.

use core::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::{Format, OCTET, lane};
use crate::kernels::{Acts, BLOCK, Grouping, Rows, with_format};

/// Activations of up to an octet in the order that the loops read them.
#[derive(Clone, Copy)]
#[repr(C, align(32))]
struct Arranged {
    /// Of each pair: the even and then the odd values 256 h + l of its first register, then those of its second.
    values: [[[u8; 32]; 4]; 4],
    /// By `lane`, over 256.
    scale: [f32; OCTET],
    /// [group][block, by `lane`]
    sum: [[f32; OCTET]; 2],
}

/// Octets of activations held at a time, for one row or for each of several: 64 KB on the stack, for rows of 24576
/// values.
const ROOM: usize = 100;
/// Places of those that the end of a row may take: four blocks, and those after them.
const ENDS: usize = 2;
/// Places taken at a time for several rows where they are longer: what the first-level cache holds.
const HALF: usize = 48;
/// Weight rows whose unfinished sums are kept where rows of activations are longer than that: as many as a worker
/// claims of such rows, so that activations are arranged once for all of them.
const CHUNK: usize = 32;
/// Most activation rows of a tile: their sums stay in registers.
const MAX_TILE: usize = 4;

/// How far ahead weights are fetched, in blocks: 9 KB of Q4_0. The hardware does not look far enough where long rows of
/// activations are read beside them. To the second-level cache: the few lines that the first level can wait for at a
/// time would be the limit.
const AHEAD: usize = 512;

/// The sums of one output on the way, lane by lane.
#[derive(Clone, Copy)]
struct Sums {
    /// Of products, for even and odd pairs, or for the two groups.
    dot: [__m256; 2],
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
    let mut room = [const { MaybeUninit::<Arranged>::uninit() }; ROOM];
    // As few tiles as possible, as equal as possible.
    let count = acts.rows.div_ceil(MAX_TILE);
    let mut t = 0;
    for i in 0..count {
        let end = (i + 1) * acts.rows / count;
        let out = &mut out[t * stride..];
        // SAFETY: the caller's promise, and rows `t`..`end` of activations exist.
        unsafe {
            match end - t {
                1 => tile::<F, 1>(rows, acts, t, out, stride, &mut room),
                2 => tile::<F, 2>(rows, acts, t, out, stride, &mut room),
                3 => tile::<F, 3>(rows, acts, t, out, stride, &mut room),
                _ => tile::<F, MAX_TILE>(rows, acts, t, out, stride, &mut room),
            }
        }
        t = end;
    }
}

/// # Safety
/// As for [`gemv`]; rows `t`..`t` + `T` of activations exist.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<F: Format, const T: usize>(
    rows: Rows<'_>,
    acts: &Acts<'_>,
    t: usize,
    out: &mut [f32],
    stride: usize,
    room: &mut [MaybeUninit<Arranged>; ROOM],
) {
    let blocks = acts.k / BLOCK;
    let per_block = const { Grouping::of(F::TYPE).per_block() };
    let zero = Sums { dot: [_mm256_setzero_ps(); 2], minus: _mm256_setzero_ps() };
    // All of K at once where there is room, else slabs of whole octets and their sums, for a few rows at a time.
    let one = T * (blocks.div_ceil(OCTET) + ENDS) <= ROOM;
    let places = if T == 1 { ROOM } else { HALF };
    let slab = if one { blocks } else { (places / T - ENDS) * OCTET };
    let mut kept = [[zero; T]; CHUNK];
    for from in (0..rows.len()).step_by(if one { rows.len() } else { CHUNK }) {
        let end = if one { rows.len() } else { rows.len().min(from + CHUNK) };
        for start in (0..blocks).step_by(slab) {
            let n = slab.min(blocks - start);
            if from == 0 || !one {
                for i in 0..T {
                    // SAFETY: blocks `start`..`start` + `n` of row `t + i` exist, and there is room for them.
                    unsafe { arrange(per_block, acts, t + i, start, n, &mut room[i..], T) };
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
#[target_feature(enable = "avx2,fma,f16c")]
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
            if !n.is_multiple_of(4) {
                let w = super::padded::<F>(w, n % 4);
                octet::<F, 4, T>(w.as_ptr(), &*x, sums);
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
    let bytes = |n: usize| F::TYPE.block_bytes() * BLOCK * n / F::TYPE.block_len();
    // SAFETY: the caller's promise; what is fetched may lie anywhere.
    unsafe {
        for line in (0..bytes(N)).step_by(64) {
            _mm_prefetch::<_MM_HINT_T1>(w.wrapping_add(bytes(AHEAD) + line).cast());
        }
        let s = F::scales::<N>(w);
        let minus = if g.mins { s.min } else { s.scale };
        let mut scale = [s.scale; T];
        for t in 0..T {
            for group in 0..g.per_block() {
                if !F::WIDE {
                    let sum = _mm256_load_ps(x[t].sum[group].as_ptr());
                    sums[t].minus = _mm256_fmadd_ps(minus[group], sum, sums[t].minus);
                }
                scale[t][group] = _mm256_mul_ps(s.scale[group], _mm256_load_ps(x[t].scale.as_ptr()));
            }
        }
        pair::<F, N, T, 0>(w, x, &scale, sums);
        if const { N > 2 } {
            pair::<F, N, T, 1>(w, x, &scale, sums);
        }
        if const { N > 4 } {
            pair::<F, N, T, 2>(w, x, &scale, sums);
            pair::<F, N, T, 3>(w, x, &scale, sums);
        }
    }
}

/// Adds pair `I`, if there is one.
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
        let w = F::pair::<N, I>(w);
        // Bytes as words: the even and the odd ones of either register.
        let [even, odd] = if F::WIDE {
            let up = [_mm256_slli_epi16::<8>(w[0]), _mm256_slli_epi16::<8>(w[1])];
            [
                [_mm256_srai_epi16::<8>(up[0]), _mm256_srai_epi16::<8>(up[1])],
                [_mm256_srai_epi16::<8>(w[0]), _mm256_srai_epi16::<8>(w[1])],
            ]
        } else {
            let low = _mm256_set1_epi16(0xff);
            [
                [_mm256_and_si256(w[0], low), _mm256_and_si256(w[1], low)],
                [_mm256_srli_epi16::<8>(w[0]), _mm256_srli_epi16::<8>(w[1])],
            ]
        };
        for t in 0..T {
            let x = &x[t].values[I];
            let first = products(even[0], odd[0], &x[0], &x[1]);
            let second = products(even[1], odd[1], &x[2], &x[3]);
            if const { Grouping::of(F::TYPE).per_block() == 1 } {
                let a = _mm256_cvtepi32_ps(_mm256_add_epi32(first, second));
                let sum = &mut sums[t].dot[I % 2];
                *sum = _mm256_fmadd_ps(a, spread::<I>(scale[t][0]), *sum);
            } else {
                for ((a, scale), sum) in [first, second].into_iter().zip(scale[t]).zip(&mut sums[t].dot) {
                    *sum = _mm256_fmadd_ps(_mm256_cvtepi32_ps(a), spread::<I>(scale), *sum);
                }
            }
        }
    }
}

/// Products of even and of odd words, sums of four neighbours of the bytes that they were.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn products(even: __m256i, odd: __m256i, by_even: &[u8; 32], by_odd: &[u8; 32]) -> __m256i {
    // SAFETY: the caller's promise; places of activations are aligned.
    unsafe { _mm256_add_epi32(_mm256_madd_epi16(even, load(by_even)), _mm256_madd_epi16(odd, load(by_odd))) }
}

/// # Safety
/// The processor has AVX, and the bytes are aligned to 32.
#[inline(always)]
unsafe fn load(x: &[u8; 32]) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_load_si256(x.as_ptr().cast()) }
}

/// Place `I` of either half in all places of that half.
///
/// # Safety
/// The processor has AVX.
#[inline(always)]
unsafe fn spread<const I: usize>(s: __m256) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe {
        match I {
            0 => _mm256_permute_ps::<0x00>(s),
            1 => _mm256_permute_ps::<0x55>(s),
            2 => _mm256_permute_ps::<0xaa>(s),
            _ => _mm256_permute_ps::<0xff>(s),
        }
    }
}

/// The output that lanes add up to.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn total<F: Format>(s: Sums) -> f32 {
    let g = const { Grouping::of(F::TYPE) };
    let mut all = _mm256_add_ps(s.dot[0], s.dot[1]);
    if !F::WIDE {
        let by = if g.mins { 1.0 } else { g.offset as f32 };
        all = _mm256_fnmadd_ps(s.minus, _mm256_set1_ps(by), all);
    }
    let half = _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps::<1>(all));
    let two = _mm_add_ps(half, _mm_movehl_ps(half, half));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

/// Arranges `n` blocks from `start` of row `t` in every `tile`th place of `room`, in the steps that [`row`] takes, for a
/// format of `per_block` groups in a block.
///
/// Not inlined: it would be a good part of the code of each format.
///
/// # Safety
/// The processor has the instructions; the blocks exist, and there are n / 8 + 3 such places.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn arrange(
    per_block: usize,
    acts: &Acts<'_>,
    t: usize,
    start: usize,
    n: usize,
    room: &mut [MaybeUninit<Arranged>],
    tile: usize,
) {
    let at = t * (acts.k / BLOCK) + start;
    let mut b = 0;
    for to in room.iter_mut().step_by(tile) {
        let step = match n - b {
            0 => break,
            few @ 1..4 => few,
            4..8 => 4,
            _ => 8,
        };
        // Beside fewer than four blocks are zeros.
        let places = step.max(4);
        let block = |plane: &[i8], j: usize| -> [__m128i; 2] {
            if j >= step {
                return [_mm_setzero_si128(); 2];
            }
            let plane = &plane[(at + b + j) * BLOCK..][..BLOCK];
            // SAFETY: 32 bytes, the length of the slice.
            unsafe {
                [_mm_loadu_si128(plane.as_ptr().cast()), _mm_loadu_si128(plane.as_ptr().add(16).cast())]
            }
        };
        let pair = |plane: &[i8], p: usize| -> [__m256i; 2] {
            let (a, b) = (block(plane, p), block(plane, p + places / 2));
            [_mm256_set_m128i(b[0], a[0]), _mm256_set_m128i(b[1], a[1])]
        };
        let to =
            to.write(Arranged { values: [[[0; 32]; 4]; 4], scale: [0.0; OCTET], sum: [[0.0; OCTET]; 2] });
        for p in 0..places / 2 {
            let (h, l) = (pair(acts.h, p), pair(acts.l, p));
            let low = |v: __m256i| _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(v));
            let even = |i: usize| _mm256_add_epi16(_mm256_slli_epi16::<8>(h[i]), low(l[i]));
            let odd = |i: usize| {
                let h = _mm256_andnot_si256(_mm256_set1_epi16(0xff), h[i]);
                _mm256_add_epi16(h, _mm256_srai_epi16::<8>(l[i]))
            };
            let values = [even(0), odd(0), even(1), odd(1)];
            for (to, v) in to.values[p].iter_mut().zip(values) {
                // SAFETY: 32 bytes, aligned as the whole is.
                unsafe { _mm256_store_si256(to.as_mut_ptr().cast(), v) };
            }
        }
        for j in 0..step {
            let to_lane = lane(j, places);
            to.scale[to_lane] = acts.scale[at + b + j] / 256.0;
            if per_block == 1 {
                to.sum[0][to_lane] = acts.sum32[at + b + j];
            } else {
                to.sum[0][to_lane] = acts.sum16[2 * (at + b + j)];
                to.sum[1][to_lane] = acts.sum16[2 * (at + b + j) + 1];
            }
        }
        b += step;
    }
}
