//! Weight rows to panels.

use core::arch::x86_64::*;
use std::ops::Range;

use super::{Format, OCTET, ORDER, with_format};
use crate::DType;
use crate::kernels::{BLOCK, Grouping, PANEL, Panel, Rows, scalar};

/// Rows that are transposed at a time: the lanes of a register.
const LANES: usize = 16;

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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn unpack<F: Format>(rows: Rows<'_>, blocks: Range<usize>, panel: &mut Panel) {
    let bytes = F::TYPE.block_bytes() * BLOCK / F::TYPE.block_len();
    let plain = F::TYPE.block_len() == BLOCK;
    let start = if plain { blocks.start * bytes } else { blocks.start / OCTET * F::TYPE.block_bytes() };
    for from in (0..PANEL).step_by(LANES) {
        let n = rows.len().saturating_sub(from).min(LANES);
        // Where missing rows would be is never looked at.
        let mut at: [*const u8; LANES] =
            std::array::from_fn(
                |r| {
                    if r < n { rows.row(from + r)[start..].as_ptr() } else { std::ptr::null() }
                },
            );
        let mut b = 0;
        let len = blocks.len();
        // SAFETY: `at` points to block `b` of every row, of which there are as many as each call takes.
        unsafe {
            while b + 8 <= len {
                octet::<F, 8>(&mut at, n, panel, b, from);
                b += 8;
            }
            if plain {
                if b + 4 <= len {
                    octet::<F, 4>(&mut at, n, panel, b, from);
                    b += 4;
                }
                if b + 2 <= len {
                    octet::<F, 2>(&mut at, n, panel, b, from);
                    b += 2;
                }
                if b < len {
                    octet::<F, 1>(&mut at, n, panel, b, from);
                }
            }
        }
    }
}

/// Unpacks `N` blocks of `n` rows to block `b` of the panel's rows `from`..`from` + 16, and moves the pointers on.
///
/// # Safety
/// As above; the blocks lie at the first `n` of `at`, and fit in the panel.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn octet<F: Format, const N: usize>(
    at: &mut [*const u8; LANES],
    n: usize,
    panel: &mut Panel,
    b: usize,
    from: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        scales::<F, N>(at, n, panel, b, from);
        pair::<F, N, 0>(at, n, panel, b, from);
        if N > 2 {
            pair::<F, N, 1>(at, n, panel, b, from);
        }
        if N > 4 {
            pair::<F, N, 2>(at, n, panel, b, from);
            pair::<F, N, 3>(at, n, panel, b, from);
        }
    }
    let bytes = F::TYPE.block_bytes() * BLOCK * N / F::TYPE.block_len();
    for p in at {
        *p = p.wrapping_add(bytes);
    }
}

/// # Safety
/// As for [`octet`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn pair<F: Format, const N: usize, const I: usize>(
    at: &[*const u8; LANES],
    n: usize,
    panel: &mut Panel,
    b: usize,
    from: usize,
) {
    let mut v = [_mm512_setzero_si512(); LANES];
    for (v, p) in v.iter_mut().zip(at).take(n) {
        // SAFETY: the caller's promise: blocks 2 I and, unless N is 1, 2 I + 1 lie there.
        let [low, high] = unsafe { if N == 1 { F::single(*p) } else { F::pair::<I>(*p) } };
        *v = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
    }
    transpose(&mut v);
    let q = panel.q[(b + 2 * I) * BLOCK * PANEL..][..2.min(N) * BLOCK * PANEL].as_mut_ptr();
    for (i, v) in v.into_iter().enumerate() {
        // Four times four values of A, B, A, B.
        let (block, k4) = (i / 4 % 2, i / 8 * 4 + i % 4);
        if block < N {
            // SAFETY: rows `from`..`from` + 16 of four values of K, within the slice above.
            unsafe { _mm512_storeu_si512(q.add(((block * 8 + k4) * PANEL + from) * 4).cast(), v) };
        }
    }
}

/// # Safety
/// As for [`octet`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn scales<F: Format, const N: usize>(
    at: &[*const u8; LANES],
    n: usize,
    panel: &mut Panel,
    b: usize,
    from: usize,
) {
    let g = const { Grouping::of(F::TYPE) };
    let join = |low: __m256, high: __m256| {
        _mm512_castps_si512(_mm512_insertf32x8::<1>(_mm512_castps256_ps512(low), high))
    };
    // One group: scales and mins. Two groups: scales of both, and mins of both.
    let mut first = [_mm512_setzero_si512(); LANES];
    let mut second = first;
    for (r, p) in at.iter().enumerate().take(n) {
        // SAFETY: the caller's promise.
        let s = unsafe { F::scales::<N>(*p) };
        if g.per_block() == 1 {
            first[r] = join(s.scale[0], s.min[0]);
        } else {
            first[r] = join(s.scale[0], s.scale[1]);
            second[r] = join(s.min[0], s.min[1]);
        }
    }
    let place = |to: &mut [f32], group: usize, v: &[__m512i]| {
        let per_block = g.per_block();
        let to = &mut to[b * per_block * PANEL..][..N * per_block * PANEL];
        for (block, v) in ORDER.into_iter().zip(v) {
            if block < N {
                let to = &mut to[(block * per_block + group) * PANEL + from..][..LANES];
                // SAFETY: 16 numbers, the length of the slice.
                unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), *v) };
            }
        }
    };
    transpose(&mut first);
    place(&mut panel.scale, 0, &first[..8]);
    if g.per_block() == 1 {
        if g.mins {
            place(&mut panel.min, 0, &first[8..]);
        }
    } else {
        place(&mut panel.scale, 1, &first[8..]);
        if g.mins {
            transpose(&mut second);
            place(&mut panel.min, 0, &second[..8]);
            place(&mut panel.min, 1, &second[8..]);
        }
    }
}

/// Transposes 16 × 16 numbers of 32 bits.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma,f16c")]
fn transpose(v: &mut [__m512i; LANES]) {
    // Pairs of rows, then fours, within lanes of 128 bits; then the lanes among themselves.
    let a: [__m512i; 16] = std::array::from_fn(|i| {
        let (x, y) = (v[i & !1], v[i | 1]);
        if i % 2 == 0 { _mm512_unpacklo_epi32(x, y) } else { _mm512_unpackhi_epi32(x, y) }
    });
    // Of rows 4 j..4 j + 4, entry 4 j + c is column c of every lane.
    let b: [__m512i; 16] = std::array::from_fn(|i| {
        let (x, y) = (a[i & !3 | (i % 4) / 2], a[i & !3 | 2 | (i % 4) / 2]);
        if i % 2 == 0 { _mm512_unpacklo_epi64(x, y) } else { _mm512_unpackhi_epi64(x, y) }
    });
    for c in 0..4 {
        let (r0, r1, r2, r3) = (b[c], b[4 + c], b[8 + c], b[12 + c]);
        // Lanes 0 and 2, or 1 and 3, of two registers.
        let even01 = _mm512_shuffle_i32x4::<0b10_00_10_00>(r0, r1);
        let odd01 = _mm512_shuffle_i32x4::<0b11_01_11_01>(r0, r1);
        let even23 = _mm512_shuffle_i32x4::<0b10_00_10_00>(r2, r3);
        let odd23 = _mm512_shuffle_i32x4::<0b11_01_11_01>(r2, r3);
        v[c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(even01, even23);
        v[4 + c] = _mm512_shuffle_i32x4::<0b10_00_10_00>(odd01, odd23);
        v[8 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(even01, even23);
        v[12 + c] = _mm512_shuffle_i32x4::<0b11_01_11_01>(odd01, odd23);
    }
}
