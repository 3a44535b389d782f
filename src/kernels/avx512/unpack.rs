//! Weight rows to panels.

use core::arch::x86_64::*;
use std::ops::Range;

use super::{Format, OCTET, Padded, lane};
use crate::kernels::{BLOCK, Grouping, PANEL, Panel, Rows, scalar, with_format};

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
    let bytes = F::TYPE.block_bytes();
    let octet_bytes = F::TYPE.block_bytes() * BLOCK * OCTET / F::TYPE.block_len();
    let plain = F::TYPE.block_len() == BLOCK;
    let start = if plain { blocks.start * bytes } else { blocks.start / OCTET * bytes };
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
                octet::<F, 8>(&at, n, panel, b, 8, from);
                b += 8;
                at = at.map(|p| p.wrapping_add(octet_bytes));
            }
            if plain && b + 4 <= len {
                octet::<F, 4>(&at, n, panel, b, 4, from);
                b += 4;
                at = at.map(|p| p.wrapping_add(4 * bytes));
            }
            if plain && b < len {
                let mut padded = [const { Padded([0; 4 * 34]) }; LANES];
                for (padded, p) in padded.iter_mut().zip(at).take(n) {
                    *padded = Padded::new(p, (len - b) * bytes);
                }
                octet::<F, 4>(&std::array::from_fn(|r| padded[r].0.as_ptr()), n, panel, b, len - b, from);
            }
        }
    }
}

/// Unpacks `N` blocks of `n` rows, of which `count` exist, to block `b` of the panel's rows `from`..`from` + 16.
///
/// # Safety
/// As above; the blocks lie at the first `n` of `at`, and `count` fit in the panel.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn octet<F: Format, const N: usize>(
    at: &[*const u8; LANES],
    n: usize,
    panel: &mut Panel,
    b: usize,
    count: usize,
    from: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        scales::<F, N>(at, n, panel, b, count, from);
        quad::<F, 0>(at, n, panel, b, count, from);
        if N > 4 {
            quad::<F, 1>(at, n, panel, b, count, from);
        }
    }
}

/// # Safety
/// As for [`octet`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni,avx2,fma,f16c")]
unsafe fn quad<F: Format, const Q: usize>(
    at: &[*const u8; LANES],
    n: usize,
    panel: &mut Panel,
    b: usize,
    count: usize,
    from: usize,
) {
    let mut first = [_mm512_setzero_si512(); LANES];
    let mut second = first;
    for r in 0..n {
        // SAFETY: the caller's promise: blocks 4 Q..4 Q + 4 lie there.
        [first[r], second[r]] = unsafe { F::quad::<Q>(at[r]) };
    }
    let count = (count - 4 * Q).min(4);
    let q = panel.q[(b + 4 * Q) * BLOCK * PANEL..][..count * BLOCK * PANEL].as_mut_ptr();
    for (register, v) in [&mut first, &mut second].into_iter().enumerate() {
        transpose(v);
        for (i, v) in v.iter().enumerate() {
            // Four times four values of A, B, C and D, or two times of one block's first register and its second.
            let (block, k4) = if const { Grouping::of(F::TYPE).per_block() == 1 } {
                (i / 4, register * 4 + i % 4)
            } else {
                (register * 2 + i / 8, i % 8)
            };
            if block < count {
                // SAFETY: rows `from`..`from` + 16 of four values of K, within the slice above.
                unsafe { _mm512_storeu_si512(q.add(((block * 8 + k4) * PANEL + from) * 4).cast(), *v) };
            }
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
    count: usize,
    from: usize,
) {
    let g = const { Grouping::of(F::TYPE) };
    // With one group, scales and mins of 8 blocks fit in one register.
    let mut first = [_mm512_setzero_ps(); LANES];
    let mut second = first;
    for (r, p) in at.iter().enumerate().take(n) {
        // SAFETY: the caller's promise.
        let s = unsafe { F::scales::<N>(*p) };
        if g.per_block() == 1 {
            first[r] = _mm512_insertf32x8::<1>(s.scale, _mm512_castps512_ps256(s.min));
        } else {
            (first[r], second[r]) = (s.scale, s.min);
        }
    }
    let per_block = g.per_block();
    let place = |to: &mut [f32], v: &[__m512i]| {
        let to = &mut to[b * per_block * PANEL..];
        for block in 0..count {
            for group in 0..per_block {
                let v = v[if per_block == 1 { block } else { lane(block, group) }];
                let to = &mut to[(block * per_block + group) * PANEL + from..][..LANES];
                // SAFETY: 16 numbers, the length of the slice.
                unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), v) };
            }
        }
    };
    let mut first = first.map(|v| _mm512_castps_si512(v));
    transpose(&mut first);
    place(&mut panel.scale, &first);
    if g.mins && per_block == 1 {
        place(&mut panel.min, &first[8..]);
    } else if g.mins {
        let mut second = second.map(|v| _mm512_castps_si512(v));
        transpose(&mut second);
        place(&mut panel.min, &second);
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
        let (x, y) = (a[(i & !3) | ((i % 4) / 2)], a[(i & !3) | 2 | ((i % 4) / 2)]);
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
