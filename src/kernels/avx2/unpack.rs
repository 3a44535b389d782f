//! Weight rows to panels.

use core::arch::x86_64::*;
use std::ops::Range;

use super::{Format, OCTET, lane, padded};
use crate::kernels::{BLOCK, Grouping, PANEL, Panel, Rows, scalar, with_format};

/// Rows that are transposed at a time: the lanes of a register.
const LANES: usize = 8;

/// See [`crate::kernels::Kernels::unpack_panel`].
///
/// # Safety
/// The processor has the instructions of [`super::TABLE`], and lengths are as `Kernels::unpack_panel` checks them.
pub(super) unsafe fn unpack_panel(rows: Rows<'_>, blocks: Range<usize>, panel: &mut Panel) {
    let per_octet = OCTET * BLOCK;
    if rows.ty.block_len() == per_octet && !(blocks.start.is_multiple_of(8) && blocks.end.is_multiple_of(8)) {
        // Slabs are whole blocks: this is for completeness.
        return scalar::unpack_panel(rows, blocks, panel);
    }
    // SAFETY: the caller's promise; K-quants come in whole blocks.
    unsafe { with_format!(rows.ty, unpack(rows, blocks, panel)) }
}

/// # Safety
/// As for [`unpack_panel`]; where blocks have 256 values, `blocks` are whole ones.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn unpack<F: Format>(rows: Rows<'_>, blocks: Range<usize>, panel: &mut Panel) {
    let bytes = |n: usize| F::TYPE.block_bytes() * BLOCK * n / F::TYPE.block_len();
    for from in (0..PANEL).step_by(LANES) {
        let n = rows.len().saturating_sub(from).min(LANES);
        // Where missing rows would be is never looked at.
        let start: [*const u8; LANES] = std::array::from_fn(|r| {
            if r < n { rows.row(from + r)[bytes(blocks.start)..].as_ptr() } else { std::ptr::null() }
        });
        let at = |b: usize| start.map(|p| p.wrapping_add(bytes(b)));
        let mut b = 0;
        let len = blocks.len();
        // SAFETY: each call is given where block `b` of every row is, of which there are as many as it takes.
        unsafe {
            while b + 8 <= len {
                octet::<F, 8>(&at(b), n, panel, b, from, 8);
                b += 8;
            }
            if F::TYPE.block_len() == BLOCK {
                if b + 4 <= len {
                    octet::<F, 4>(&at(b), n, panel, b, from, 4);
                    b += 4;
                }
                if b < len {
                    let mut four = [[0; 160]; LANES];
                    for (four, p) in four.iter_mut().zip(at(b)).take(n) {
                        *four = padded::<F>(p, len - b);
                    }
                    octet::<F, 4>(&std::array::from_fn(|r| four[r].as_ptr()), n, panel, b, from, len - b);
                }
            }
        }
    }
}

/// Unpacks `N` blocks of `n` rows to block `b` of the panel's rows `from`..`from` + 8, and stores `count` of them.
///
/// # Safety
/// As above; the blocks lie at the first `n` of `at`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn octet<F: Format, const N: usize>(
    at: &[*const u8; LANES],
    n: usize,
    panel: &mut Panel,
    b: usize,
    from: usize,
    count: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        scales::<F, N>(at, n, panel, b, from, count);
        pair::<F, N, 0>(at, n, panel, b, from, count);
        if const { N > 2 } {
            pair::<F, N, 1>(at, n, panel, b, from, count);
        }
        if const { N > 4 } {
            pair::<F, N, 2>(at, n, panel, b, from, count);
            pair::<F, N, 3>(at, n, panel, b, from, count);
        }
    }
}

/// # Safety
/// As for [`octet`].
#[inline(always)]
unsafe fn pair<F: Format, const N: usize, const I: usize>(
    at: &[*const u8; LANES],
    n: usize,
    panel: &mut Panel,
    b: usize,
    from: usize,
    count: usize,
) {
    // SAFETY: the processor has AVX2, and the first `n` of `at` are blocks (the caller's promises).
    unsafe {
        let mut v = [[_mm256_setzero_si256(); LANES]; 2];
        for (r, p) in at.iter().enumerate().take(n) {
            let mut w = F::pair::<N, I>(*p);
            if F::WIDE {
                let flip = _mm256_set1_epi8(-128);
                w = [_mm256_xor_si256(w[0], flip), _mm256_xor_si256(w[1], flip)];
            }
            v[0][r] = w[0];
            v[1][r] = w[1];
        }
        for (half, v) in v.iter().enumerate() {
            let first = if I < count { Some(b + I) } else { None };
            let second = if I + N / 2 < count { Some(b + I + N / 2) } else { None };
            store_values(v, [first, second], half, panel, from);
        }
    }
}

/// Stores half of two blocks of eight rows: in each register of `v` are 16 bytes of the first block and 16 of the second
/// of one row.
///
/// Not inlined: it is the same for every format, and would be most of the code of each.
///
/// # Safety
/// The processor has AVX2.
#[inline(never)]
#[target_feature(enable = "avx2")]
unsafe fn store_values(
    v: &[__m256i; LANES],
    blocks: [Option<usize>; 2],
    half: usize,
    panel: &mut Panel,
    from: usize,
) {
    // SAFETY: the processor has AVX2 (the caller's promise), and each slice has the 32 bytes that are stored.
    unsafe {
        let v = transpose(*v);
        for (block, v) in blocks.into_iter().zip(v.chunks_exact(4)) {
            let Some(block) = block else { continue };
            let q = &mut panel.q[(block * 8 + half * 4) * PANEL * 4..][..4 * PANEL * 4];
            for (k4, v) in v.iter().enumerate() {
                let q = &mut q[(k4 * PANEL + from) * 4..][..32];
                _mm256_storeu_si256(q.as_mut_ptr().cast(), *v);
            }
        }
    }
}

/// # Safety
/// As for [`octet`].
#[inline(always)]
unsafe fn scales<F: Format, const N: usize>(
    at: &[*const u8; LANES],
    n: usize,
    panel: &mut Panel,
    b: usize,
    from: usize,
    count: usize,
) {
    let g = const { Grouping::of(F::TYPE) };
    let per_block = g.per_block();
    // SAFETY: the processor has AVX2 and F16C, and the first `n` of `at` are blocks (the caller's promises).
    unsafe {
        let zero = [_mm256_setzero_si256(); LANES];
        let (mut scale, mut min) = ([zero; 2], [zero; 2]);
        for (r, p) in at.iter().enumerate().take(n) {
            let s = F::scales::<N>(*p);
            for group in 0..per_block {
                scale[group][r] = _mm256_castps_si256(s.scale[group]);
                min[group][r] = _mm256_castps_si256(s.min[group]);
            }
        }
        for group in 0..per_block {
            let at = PlaceOfScales { b, count, n: N, per_block, group, from };
            store_scales(&scale[group], &mut panel.scale, at);
            if g.mins {
                store_scales(&min[group], &mut panel.min, at);
            }
        }
    }
}

/// Where scales go: those of group `group` of the blocks `b`..`b` + `count` (of the `n` that `lane` places in registers),
/// rows `from`..`from` + 8.
#[derive(Clone, Copy)]
struct PlaceOfScales {
    b: usize,
    count: usize,
    n: usize,
    per_block: usize,
    group: usize,
    from: usize,
}

/// Stores the scales, or mins, of eight rows. Not inlined, as [`store_values`] is not.
///
/// # Safety
/// The processor has AVX2.
#[inline(never)]
#[target_feature(enable = "avx2")]
unsafe fn store_scales(v: &[__m256i; LANES], to: &mut [f32], at: PlaceOfScales) {
    // SAFETY: the processor has AVX2 (the caller's promise), and each slice has the eight numbers that are stored.
    unsafe {
        let v = transpose(*v);
        for block in 0..at.count {
            let to = &mut to[((at.b + block) * at.per_block + at.group) * PANEL + at.from..][..LANES];
            _mm256_storeu_si256(to.as_mut_ptr().cast(), v[lane(block, at.n)]);
        }
    }
}

/// Transposes 8 × 8 numbers of 32 bits.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn transpose(v: [__m256i; LANES]) -> [__m256i; LANES] {
    // SAFETY: the caller's promise.
    unsafe {
        // Pairs of rows, then fours, within lanes of 128 bits; then the lanes among themselves.
        let (mut a, mut b, mut c) = (v, v, v);
        for i in 0..4 {
            a[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
            a[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
        }
        // Of rows 4 j..4 j + 4, entry 4 j + i is column i of either lane.
        for j in [0, 4] {
            for i in 0..2 {
                b[j + 2 * i] = _mm256_unpacklo_epi64(a[j + i], a[j + 2 + i]);
                b[j + 2 * i + 1] = _mm256_unpackhi_epi64(a[j + i], a[j + 2 + i]);
            }
        }
        for i in 0..4 {
            c[i] = _mm256_permute2x128_si256::<0x20>(b[i], b[4 + i]);
            c[4 + i] = _mm256_permute2x128_si256::<0x31>(b[i], b[4 + i]);
        }
        c
    }
}
