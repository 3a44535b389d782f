//! The kernels in plain Rust: the path that every processor has, and the truth that the others are tested against.

use std::ops::Range;

use super::{Acts, ActsMut, BLOCK, FloatTable, Isa, PANEL, Panel, Rows, Table};
use crate::quant;

pub(super) static TABLE: Table = Table { isa: Isa::Scalar, unpack_panel, gemm_panel, gemv, float: &FLOAT };
static FLOAT: FloatTable = FloatTable { quantize };

/// See [`super::Kernels::unpack_panel`].
fn unpack_panel(rows: Rows<'_>, blocks: Range<usize>, panel: &mut Panel) {
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
                    let q = &panel.q[(b * 8 + k4) * PANEL * 4..][..PANEL * 4];
                    let h = &h[k4 * 4..][..4];
                    for (dot, q) in dot.iter_mut().zip(q.chunks_exact(4)) {
                        for i in 0..4 {
                            *dot += q[i] as i32 * h[i] as i32;
                        }
                    }
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

/// See [`super::Kernels::gemv`].
fn gemv(rows: Rows<'_>, acts: &Acts<'_>, out: &mut [f32], stride: usize) {
    let g = super::Grouping::of(rows.ty);
    for r in 0..rows.len() {
        let row = rows.range(r..r + 1).data;
        let mut acc = [0f32; super::MAX_STEP_ROWS];
        for block in 0..acts.k / BLOCK {
            let u = quant::unpack(rows.ty, row, block);
            for (t, acc) in acc[..acts.rows].iter_mut().enumerate() {
                let h = &acts.h[t * acts.k + block * BLOCK..][..BLOCK];
                let l = &acts.l[t * acts.k + block * BLOCK..][..BLOCK];
                let d = acts.scale[t * (acts.k / 32) + block] / 256.0;
                for group in 0..g.per_block() {
                    let mut dot = 0i32;
                    for k in group * g.group..(group + 1) * g.group {
                        dot += (u.q[k] as i32 - g.offset) * (h[k] as i32 * 256 + l[k] as i32);
                    }
                    *acc += u.scale[group] * d * dot as f32;
                    if g.mins {
                        let at16 = t * (acts.k / 16) + block * 2 + group;
                        *acc -= u.min[group]
                            * if g.group == 16 { acts.sum16[at16] } else { acts.sum32[at16 / 2] };
                    }
                }
            }
        }
        for (t, acc) in acc[..acts.rows].iter().enumerate() {
            out[t * stride + r] = *acc;
        }
    }
}

/// See [`super::Kernels::quantize`].
fn quantize(x: &[f32], out: &mut ActsMut<'_>) {
    for (b, x) in x.chunks_exact(BLOCK).enumerate() {
        let max = x.iter().fold(0f32, |m, v| m.max(v.abs()));
        let d = max / 127.0;
        let inv = if max > 0.0 { 127.0 / max } else { 0.0 };
        let two = !out.l.is_empty();
        let mut sums = [[0i32; 2]; 2];
        for (k, &x) in x.iter().enumerate() {
            // a = 256 h + l with both planes balanced; in one plane, h is the nearest integer itself.
            let (h, l) = if two {
                let a = (x * inv * 256.0).round_ties_even() as i32;
                let h = (a + 128) >> 8;
                (h, a - 256 * h)
            } else {
                ((x * inv).round_ties_even() as i32, 0)
            };
            out.h[b * BLOCK + k] = h as i8;
            if two {
                out.l[b * BLOCK + k] = l as i8;
            }
            sums[k / 16][0] += h;
            sums[k / 16][1] += l;
        }
        out.scale[b] = d;
        for (i, [h, l]) in sums.into_iter().enumerate() {
            out.sum_h[b * 2 + i] = h as i16;
            out.sum16[b * 2 + i] = d * ((256 * h + l) as f32 / 256.0);
        }
        out.sum32[b] = out.sum16[b * 2] + out.sum16[b * 2 + 1];
    }
}
