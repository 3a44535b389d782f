//! The f32 kernels on each instruction set that this machine has:
//! `cargo bench --features bench --bench float -- gemm_f32`.
//!
//! Throughput is in multiply-adds (matrix products) or bytes read and written (the rest): compare with
//! `carat::Limits`. The kernels are private to the library: feature `bench` opens them.

#![allow(missing_docs)] // of what criterion's macros make

use std::hint::black_box;

use carat::internals::{ActsMut, Kernels, KvRows, Rows};
use carat::{DType, Isa};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use half::f16;

/// Numbers in −1..1.
fn numbers(len: usize) -> Vec<f32> {
    let mut x = 1u32;
    (0..len)
        .map(|_| {
            x = x.wrapping_mul(1664525).wrapping_add(1013904223);
            (x >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Runs `f`, which does `work`, for each instruction set.
fn each(c: &mut Criterion, group: &str, work: Throughput, mut f: impl FnMut(Kernels)) {
    let mut group = c.benchmark_group(group);
    group.throughput(work);
    for kernels in Isa::ALL.into_iter().filter_map(Kernels::new) {
        group.bench_function(kernels.isa().name(), |b| b.iter(|| f(kernels)));
    }
}

fn gemm(c: &mut Criterion) {
    for (m, k) in [(4, 256), (12, 128), (48, 256), (512, 2048)] {
        let (a, b) = (numbers(m * k), numbers(k * 32));
        let mut out = vec![0.0; m * 32];
        let work = Throughput::Elements((m * k * 32) as u64);
        each(c, &format!("gemm_f32/m{m} k{k}"), work, |kernels| {
            kernels.gemm_f32(m, k, &a, k, &b, 32, &mut out, 32, false)
        });
    }
    // Scores times values: 32 of 256 columns.
    let (m, k) = (48, 64);
    let (a, b) = (numbers(m * k), numbers(k * 256));
    let mut out = vec![0.0; m * 256];
    let work = Throughput::Elements((m * k * 256) as u64);
    each(c, "gemm_f32/m48 k64 ldb256", work, |kernels| {
        for j in (0..256).step_by(32) {
            kernels.gemm_f32(m, k, &a, k, &b[j..], 256, &mut out[j..], 256, true)
        }
    });
    let mut out = vec![0.0; 256 * 32];
    each(c, "transpose32", Throughput::Bytes(256 * 32 * 8), |kernels| {
        kernels.transpose32(&b, 256, 32, 256, &mut out)
    });
}

fn gemv(c: &mut Criterion) {
    // Row after row of more than the caches hold, a MB a call.
    let data = vec![0x3cu8; 160 << 20];
    let mut out = vec![0.0; 16 * 1024];
    let mut at = 0;
    for cols in [640, 2048] {
        let x = numbers(16 * cols);
        for ty in [DType::F32, DType::F16, DType::BF16] {
            let row_bytes = ty.row_bytes(cols).unwrap();
            let len = (1 << 20) / row_bytes * row_bytes;
            for n in [1, 4, 16] {
                let name = format!("gemv_float/{ty} cols{cols} n{n}");
                each(c, &name, Throughput::Bytes(len as u64), |kernels| {
                    at = if at + 2 * len > data.len() { 0 } else { at + len };
                    let rows = Rows { ty, cols, row_bytes, data: &data[at..at + len] };
                    kernels.gemv_float(rows, &x[..n * cols], n, &mut out, rows.len())
                });
            }
        }
    }
}

fn attention(c: &mut Criterion) {
    // A window's worth of one KV head.
    let (hd, n) = (256, 512);
    let x = numbers(hd * n);
    let half: Vec<f16> = x.iter().map(|&x| f16::from_f32(x)).collect();
    let mut blocks = vec![0; n * hd / 32 * 34];
    Kernels::new(Isa::Scalar).unwrap().f32_to_q8_0(&x, &mut blocks);
    let (q, p) = (numbers(16 * hd), numbers(16 * n));
    let (mut scores, mut acc) = (vec![0.0; 16 * n], vec![0.0; 16 * hd]);
    for (name, rows) in
        [("f32", KvRows::F32(&x)), ("f16", KvRows::F16(&half)), ("q8_0", KvRows::Q8_0(&blocks))]
    {
        for m in [1, 4, 8, 16] {
            let work = Throughput::Elements((m * n * hd) as u64);
            each(c, &format!("attend_scores/{name} m{m}"), work, |kernels| {
                kernels.attend_scores(m, &q[..m * hd], rows, n, &mut scores, n)
            });
            let work = Throughput::Elements((m * n * hd) as u64);
            each(c, &format!("attend_values/{name} m{m}"), work, |kernels| {
                kernels.attend_values(m, &p, n, rows, n, &mut acc[..m * hd])
            });
        }
    }
}

fn elementwise(c: &mut Criterion) {
    let n = 16384;
    let (x, y) = (numbers(n), numbers(n));
    let mut out = numbers(n);
    let values = |bytes: usize| Throughput::Bytes((n * bytes) as u64);
    each(c, "rms_norm", values(12), |k| k.rms_norm(&x, &y, 1e-6, &mut out));
    each(c, "add", values(12), |k| k.add(&mut out, &y));
    // So that the results stay what real ones look like, each starts from a copy.
    each(c, "gelu_mul", values(12), |k| {
        out.copy_from_slice(&x);
        k.gelu_mul(&mut out, &y)
    });
    each(c, "softcap", values(8), |k| {
        out.copy_from_slice(&x);
        k.softcap(&mut out, 30.0)
    });
    each(c, "exp_sub_sum", values(8), |k| {
        out.copy_from_slice(&x);
        black_box(k.exp_sub_sum(&mut out, 1.0));
    });
    each(c, "sum_exp", values(4), |k| {
        black_box(k.sum_exp(&x, 1.0));
    });
    each(c, "max", values(4), |k| {
        black_box(k.max(&x));
    });
    each(c, "rope", Throughput::Bytes(256 * 12), |k| k.rope(&mut out[..256], &x[..128], &y[..128]));
    let mut half = vec![f16::ZERO; n];
    each(c, "f32_to_f16", values(6), |k| k.f32_to_f16(&x, &mut half));
    each(c, "f16_to_f32", values(6), |k| k.f16_to_f32(&half, &mut out));
    let mut blocks = vec![0; n / 32 * 34];
    each(c, "f32_to_q8_0", values(5), |k| k.f32_to_q8_0(&x, &mut blocks));
    let (mut h, mut l, mut sum_h) = (vec![0; n], vec![0; n], vec![0; n / 16]);
    let (mut scale, mut sum16, mut sum32) = (vec![0.0; n / 32], vec![0.0; n / 16], vec![0.0; n / 32]);
    each(c, "quantize", values(6), |k| {
        let (h, l, scale, sum_h) = (&mut h[..], &mut l[..], &mut scale[..], &mut sum_h[..]);
        let (sum16, sum32) = (&mut sum16[..], &mut sum32[..]);
        k.quantize(&x, &mut ActsMut { h, l, scale, sum_h, sum16, sum32 })
    });
}

criterion_group!(benches, gemm, gemv, attention, elementwise);
criterion_main!(benches);
