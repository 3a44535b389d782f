//! The kernels in plain Rust: the path that every processor has, and the truth that the others are tested against.

use std::ops::Range;

use super::{Acts, BLOCK, Isa, Layout, PANEL, Panel, Rows, Table, float};
use crate::quant;

pub(super) static TABLE: Table = Table {
    isa: Isa::Scalar,
    layout: Layout::UNSIGNED,
    unpack_panel,
    gemm_panel,
    gemv,
    float: &float::SCALAR,
};

/// See [`super::Kernels::unpack_panel`].
pub(super) fn unpack_panel(rows: Rows<'_>, blocks: Range<usize>, panel: &mut Panel) {
    let per_block = panel.grouping.per_block();
    for (b, block) in blocks.enumerate() {
        for r in 0..PANEL {
            let u = if r < rows.len() {
                quant::unpack(rows.ty, rows.range(r..r + 1).data, block)
            } else {
                super::Unpacked::default()
            };
            for (k, &q) in u.q.iter().enumerate() {
                panel.q[((b * 8 + k / 4) * PANEL + r) * 4 + k % 4] = q;
            }
            for g in 0..per_block {
                panel.scale[(b * per_block + g) * PANEL + r] = u.scale[g];
                panel.min[(b * per_block + g) * PANEL + r] = u.min[g];
            }
        }
    }
}

/// See [`super::Kernels::gemm_panel`].
fn gemm_panel(panel: &Panel, acts: &Acts<'_>, blocks: Range<usize>, acc: &mut [f32]) {
    let g = panel.grouping;
    let per_block = g.per_block();
    for (b, block) in blocks.enumerate() {
        // The block's rows one after the other, for all rows of activations: [PANEL, BLOCK]
        let mut weights = [[0i16; BLOCK]; PANEL];
        let q: &[[[u8; 4]; PANEL]] =
            panel.q[b * BLOCK * PANEL..][..BLOCK * PANEL].as_chunks().0.as_chunks().0;
        for (k4, q) in q.iter().enumerate() {
            for (w, q) in weights.iter_mut().zip(q) {
                w[k4 * 4..][..4].copy_from_slice(&q.map(|q| q as i16 - g.offset as i16));
            }
        }
        for (t, acc) in acc.chunks_exact_mut(PANEL).enumerate() {
            let h: &[i8; BLOCK] =
                acts.h[t * acts.k + block * BLOCK..].first_chunk().expect("k is whole blocks");
            let h = h.map(i16::from);
            let d = acts.scale[t * (acts.k / 32) + block];
            for group in 0..per_block {
                let at16 = t * (acts.k / 16) + block * 2 + group;
                let sum = if g.group == 16 { acts.sum16[at16] } else { acts.sum32[at16 / 2] };
                let k = group * g.group..(group + 1) * g.group;
                let dots: [i32; PANEL] = std::array::from_fn(|r| dot(&weights[r][k.clone()], &h[k.clone()]));
                let at = (b * per_block + group) * PANEL;
                let (scale, min) = (&panel.scale[at..][..PANEL], &panel.min[at..][..PANEL]);
                for (r, acc) in acc.iter_mut().enumerate() {
                    *acc += scale[r] * d * dots[r] as f32;
                    if g.mins {
                        *acc -= min[r] * sum;
                    }
                }
            }
        }
    }
}

/// The sum of the products. Not inlined: as a loop of unknown length it becomes vector instructions even for the
/// oldest processors, unrolled into its caller it does not.
#[inline(never)]
fn dot(a: &[i16], b: &[i16]) -> i32 {
    a.iter().zip(b).map(|(&a, &b)| a as i32 * b as i32).sum()
}

/// See [`super::Kernels::gemv`].
fn gemv(rows: Rows<'_>, acts: &Acts<'_>, out: &mut [f32], stride: usize) {
    let g = super::Grouping::of(rows.ty);
    for r in 0..rows.len() {
        let row = rows.row(r);
        let mut acc = [0f32; super::MAX_STEP_ROWS];
        for block in 0..acts.k / BLOCK {
            let u = quant::unpack(rows.ty, row, block);
            // In 16 bits, where even the oldest instruction sets multiply and add in one.
            let w: [i16; BLOCK] = std::array::from_fn(|k| u.q[k] as i16 - g.offset as i16);
            for (t, acc) in acc[..acts.rows].iter_mut().enumerate() {
                let at = t * acts.k + block * BLOCK;
                let h: &[i8; BLOCK] = acts.h[at..].first_chunk().expect("k is whole blocks");
                let l: &[i8; BLOCK] = acts.l[at..].first_chunk().expect("k is whole blocks");
                let a: [i16; BLOCK] = std::array::from_fn(|k| h[k] as i16 * 256 + l[k] as i16);
                let dots = [dot(&w[..16], &a[..16]), dot(&w[16..], &a[16..])];
                let d = acts.scale[at / BLOCK] / 256.0;
                let sums = &acts.sum16[at / 16..];
                if g.group == 16 {
                    for half in 0..2 {
                        *acc += u.scale[half] * d * dots[half] as f32;
                        *acc -= u.min[half] * sums[half];
                    }
                } else {
                    *acc += u.scale[0] * d * (dots[0] + dots[1]) as f32;
                    *acc -= u.min[0] * acts.sum32[at / BLOCK];
                }
            }
        }
        for (t, acc) in acc[..acts.rows].iter().enumerate() {
            out[t * stride + r] = *acc;
        }
    }
}
