//! The kernels in plain Rust: the path that every processor has, and the truth that the others are tested against.

use std::ops::Range;

use super::{Acts, BLOCK, Isa, PANEL, Panel, Rows, Table, float};
use crate::quant;

pub(super) static TABLE: Table =
    Table { isa: Isa::Scalar, unpack_panel, gemm_panel, gemv, float: &float::SCALAR };

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

/// Adds to each row's sum the products of four of its values. Not inlined for the same reason as [`dot`].
#[inline(never)]
fn add_products(sums: &mut [i32; PANEL], q: &[[u8; 4]], h: &[i8; 4]) {
    let h = h.map(i16::from);
    for (sum, q) in sums.iter_mut().zip(q) {
        // Neighbours are multiplied in 16 bits and added in 32, which is one instruction of even SSE2.
        *sum += (q[0] as i16 as i32 * h[0] as i32 + q[1] as i16 as i32 * h[1] as i32)
            + (q[2] as i16 as i32 * h[2] as i32 + q[3] as i16 as i32 * h[3] as i32);
    }
}

/// See [`super::Kernels::gemm_panel`].
fn gemm_panel(panel: &Panel, acts: &Acts<'_>, blocks: Range<usize>, acc: &mut [f32]) {
    let g = panel.grouping;
    let per_block = g.per_block();
    for (t, acc) in acc.chunks_exact_mut(PANEL).enumerate() {
        for (b, block) in blocks.clone().enumerate() {
            let h = &acts.h[t * acts.k + block * BLOCK..][..BLOCK];
            let d = acts.scale[t * (acts.k / 32) + block];
            for group in 0..per_block {
                let at16 = t * (acts.k / 16) + block * 2 + group * 2 / per_block;
                let sum_h: i32 = acts.sum_h[at16..][..g.group / 16].iter().map(|&s| s as i32).sum();
                let sum: f32 = if g.group == 16 { acts.sum16[at16] } else { acts.sum32[at16 / 2] };
                let mut dot = [-g.offset * sum_h; PANEL];
                for k4 in group * g.group / 4..(group + 1) * g.group / 4 {
                    let q: &[[u8; 4]] = panel.q[(b * 8 + k4) * PANEL * 4..][..PANEL * 4].as_chunks().0;
                    add_products(&mut dot, q, h[k4 * 4..].first_chunk().expect("blocks are whole"));
                }
                let at = (b * per_block + group) * PANEL;
                for (r, acc) in acc.iter_mut().enumerate() {
                    *acc += panel.scale[at + r] * d * dot[r] as f32;
                    if g.mins {
                        *acc -= panel.min[at + r] * sum;
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
