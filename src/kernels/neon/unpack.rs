//! Weight rows to panels.

use core::arch::aarch64::*;
use std::ops::Range;

use super::{Format, Padded, QUAD};
use crate::kernels::{BLOCK, Grouping, PANEL, Panel, Rows, with_format};

/// Rows that are arranged at a time.
const LANES: usize = 4;

/// See [`crate::kernels::Kernels::unpack_panel`]. `RUN` values of a row lie together.
///
/// # Safety
/// The processor has NEON, and lengths are as `Kernels::unpack_panel` checks them.
pub(super) unsafe fn unpack_panel<const RUN: usize>(rows: Rows<'_>, blocks: Range<usize>, panel: &mut Panel) {
    // SAFETY: the caller's promise.
    unsafe {
        if RUN == 4 {
            with_format!(rows.ty, unpack4(rows, blocks, panel))
        } else {
            with_format!(rows.ty, unpack8(rows, blocks, panel))
        }
    }
}

/// # Safety
/// As for [`unpack_panel`].
unsafe fn unpack4<F: Format>(rows: Rows<'_>, blocks: Range<usize>, panel: &mut Panel) {
    // SAFETY: the caller's promise.
    unsafe { unpack::<F, 4>(rows, blocks, panel) }
}

/// # Safety
/// As for [`unpack_panel`].
unsafe fn unpack8<F: Format>(rows: Rows<'_>, blocks: Range<usize>, panel: &mut Panel) {
    // SAFETY: the caller's promise.
    unsafe { unpack::<F, 8>(rows, blocks, panel) }
}

/// # Safety
/// As for [`unpack_panel`].
#[inline(always)]
unsafe fn unpack<F: Format, const RUN: usize>(rows: Rows<'_>, blocks: Range<usize>, panel: &mut Panel) {
    for from in (0..PANEL).step_by(LANES) {
        let n = rows.len().saturating_sub(from).min(LANES);
        for quad in blocks.start / QUAD..blocks.end.div_ceil(QUAD) {
            let at = quad / F::QUADS * F::BYTES;
            let mut padded = [const { Padded([0; QUAD * 34]) }; LANES];
            let mut p = [padded[0].0.as_ptr(); LANES];
            for r in 0..n {
                let row = &rows.row(from + r)[at..];
                p[r] = row.as_ptr();
                if row.len() < F::BYTES {
                    // SAFETY: the bytes of the slice.
                    padded[r] = unsafe { Padded::new(row.as_ptr(), row.len()) };
                    p[r] = padded[r].0.as_ptr();
                }
            }
            let to = To { panel, blocks: blocks.clone(), first: quad * QUAD, from };
            // SAFETY: a quad lies at each of the first `n` of `p`, in the block of 256 that begins there if there is one.
            unsafe {
                if quad % F::QUADS == 0 {
                    one::<F, 0, RUN>(p, n, to);
                } else {
                    one::<F, 1, RUN>(p, n, to);
                }
            }
        }
    }
}

/// Where a quad of four rows goes.
struct To<'a> {
    panel: &'a mut Panel,
    /// Blocks that are wanted.
    blocks: Range<usize>,
    /// The number of the quad's first block.
    first: usize,
    /// The panel's first row.
    from: usize,
}

/// # Safety
/// A quad lies at the first `n` of `p`, and the processor has NEON.
unsafe fn one<F: Format, const Q: usize, const RUN: usize>(p: [*const u8; LANES], n: usize, to: To<'_>) {
    let g = const { Grouping::of(F::TYPE) };
    // SAFETY: the caller's promise.
    unsafe {
        let mut scale = [[vdupq_n_f32(0.0); LANES]; 2];
        let mut min = scale;
        for r in 0..n {
            let s = F::scales::<Q>(p[r]);
            for group in 0..g.per_block() {
                (scale[group][r], min[group][r]) = (s.scale[group], s.min[group]);
            }
        }
        let wanted = |i: usize| (to.first + i).checked_sub(to.blocks.start).filter(|b| *b < to.blocks.len());
        for group in 0..g.per_block() {
            for (to_scales, v, wanted_at_all) in
                [(&mut to.panel.scale, scale[group], true), (&mut to.panel.min, min[group], g.mins)]
            {
                let v = transpose(v);
                for (i, v) in v.into_iter().enumerate() {
                    if let Some(b) = wanted(i)
                        && wanted_at_all
                    {
                        let at = (b * g.per_block() + group) * PANEL + to.from;
                        vst1q_f32(to_scales[at..][..LANES].as_mut_ptr(), v);
                    }
                }
            }
        }
        for i in 0..QUAD {
            let Some(b) = wanted(i) else { continue };
            let mut v = [[vdupq_n_s8(0); LANES]; 2];
            for r in 0..n {
                let mut w = match i {
                    0 => F::block::<Q, 0>(p[r]),
                    1 => F::block::<Q, 1>(p[r]),
                    2 => F::block::<Q, 2>(p[r]),
                    _ => F::block::<Q, 3>(p[r]),
                };
                if !F::WIDE && g.offset != 0 {
                    let offset = vdupq_n_s8(g.offset as i8);
                    w = [vsubq_s8(w[0], offset), vsubq_s8(w[1], offset)];
                }
                (v[0][r], v[1][r]) = (w[0], w[1]);
            }
            let q = &mut to.panel.q[b * BLOCK * PANEL..][..BLOCK * PANEL];
            for (half, v) in v.into_iter().enumerate() {
                if RUN == 4 {
                    let v = transpose(v.map(|v| vreinterpretq_f32_s8(v)));
                    for (k4, v) in v.into_iter().enumerate() {
                        let q = &mut q[((half * 4 + k4) * PANEL + to.from) * 4..][..16];
                        vst1q_u8(q.as_mut_ptr(), vreinterpretq_u8_f32(v));
                    }
                } else {
                    for pair in 0..2 {
                        let a = vreinterpretq_u64_s8(v[2 * pair]);
                        let b = vreinterpretq_u64_s8(v[2 * pair + 1]);
                        for (k8, v) in [vzip1q_u64(a, b), vzip2q_u64(a, b)].into_iter().enumerate() {
                            let q = &mut q[((half * 2 + k8) * PANEL + to.from + 2 * pair) * 8..][..16];
                            vst1q_u8(q.as_mut_ptr(), vreinterpretq_u8_u64(v));
                        }
                    }
                }
            }
        }
    }
}

/// Transposes 4 × 4 numbers of 32 bits.
///
/// # Safety
/// The processor has NEON.
#[inline(always)]
unsafe fn transpose(v: [float32x4_t; LANES]) -> [float32x4_t; LANES] {
    // SAFETY: the caller's promise.
    unsafe {
        // Pairs of rows, then the halves among themselves.
        let pairs = |a, b| [vtrn1q_f32(a, b), vtrn2q_f32(a, b)].map(|v| vreinterpretq_f64_f32(v));
        let (a, b) = (pairs(v[0], v[1]), pairs(v[2], v[3]));
        [
            vreinterpretq_f32_f64(vzip1q_f64(a[0], b[0])),
            vreinterpretq_f32_f64(vzip1q_f64(a[1], b[1])),
            vreinterpretq_f32_f64(vzip2q_f64(a[0], b[0])),
            vreinterpretq_f32_f64(vzip2q_f64(a[1], b[1])),
        ]
    }
}
