//! The kernels for quantized weights on each instruction set that this machine has, and what one core and two can do at
//! most: `cargo bench --features bench --bench kernels -- 'gemm/.*avx2'`.
//!
//! Rates are in bytes of weights (`gemv`, `unpack`, `limit/read`) or in multiply-adds (`gemm`, `limit/dot`,
//! `limit/fma`). They are of one core, where nothing else is said. The kernels are private to the library: feature
//! `bench` opens them.

#![allow(missing_docs)] // of what criterion's macros make

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use carat::internals::{Acts, BLOCK, Kernels, PANEL, Panel, Rows, SLAB, probe};
use carat::{DType, Isa};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Bytes of weights that are streamed: more than the caches hold.
const STREAM: usize = 160 << 20;
/// Bytes of weights of one call, as a worker claims them when it steps.
const CLAIM: usize = 256 << 10;
/// The most rows of one.
const CLAIM_ROWS: usize = 256;

fn kernels() -> impl Iterator<Item = Kernels> {
    Isa::ALL.into_iter().filter_map(Kernels::new)
}

fn quantized() -> impl Iterator<Item = DType> {
    DType::ALL.into_iter().filter(|ty| !ty.is_float())
}

/// Bytes whose scales are ordinary numbers, whatever the type.
fn weights(len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 37) >> 3) as u8 & 0x3f).collect()
}

/// Activations [rows, k], whose scales and sums are those of nothing in particular.
struct Inputs {
    rows: usize,
    k: usize,
    h: Vec<i8>,
    l: Vec<i8>,
    scale: Vec<f32>,
    sum_h: Vec<i16>,
}

impl Inputs {
    fn new(rows: usize, k: usize) -> Inputs {
        let n = rows * k;
        let plane = |by: usize| (0..n).map(|i| (i * by % 255) as u8 as i8).collect();
        Inputs { rows, k, h: plane(7), l: plane(11), scale: vec![0.01; n / 16], sum_h: vec![3; n / 16] }
    }

    fn acts(&self) -> Acts<'_> {
        let n = self.rows * self.k;
        Acts {
            rows: self.rows,
            k: self.k,
            h: &self.h,
            l: &self.l,
            scale: &self.scale[..n / 32],
            sum_h: &self.sum_h,
            sum16: &self.scale,
            sum32: &self.scale[..n / 32],
        }
    }
}

/// Time of `f`, called so often by each of so many threads at once; it returns the work done.
fn together(threads: usize, times: u64, f: impl Fn(usize) -> u64 + Sync) -> Duration {
    let barrier = Barrier::new(threads);
    let spans: Vec<(Instant, Instant)> = std::thread::scope(|s| {
        let run = |index| {
            let (barrier, f) = (&barrier, &f);
            s.spawn(move || {
                barrier.wait();
                let began = Instant::now();
                (0..times).for_each(|_| _ = black_box(f(index)));
                (began, Instant::now())
            })
        };
        let threads: Vec<_> = (0..threads).map(run).collect();
        threads.into_iter().map(|t| t.join().expect("no panics")).collect()
    });
    let first = spans.iter().map(|s| s.0).min().expect("a thread");
    spans.iter().map(|s| s.1).max().expect("a thread") - first
}

fn limits(c: &mut Criterion) {
    let data = vec![1u8; STREAM];
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut group = c.benchmark_group("limit");
    for isa in Isa::ALL.into_iter().filter(|i| i.is_available()) {
        for threads in [1, 2].into_iter().filter(|&n| n <= cores) {
            let part = STREAM / threads;
            let reads = |i: usize| probe::read(isa, &data[i * part..(i + 1) * part]);
            let mut bench = |name: &str, work: Throughput, f: &(dyn Fn(usize) -> u64 + Sync)| {
                group.throughput(work);
                let id = BenchmarkId::new(format!("{name} {threads} cores"), isa);
                group.bench_function(id, |b| b.iter_custom(|n| together(threads, n, f)));
            };
            bench("read", Throughput::Bytes((part * threads) as u64), &reads);
            let macs = |one: u64| Throughput::Elements(one * threads as u64);
            bench("dot", macs(probe::dot(isa)), &|_| probe::dot(isa));
            bench("fma", macs(probe::fma(isa)), &|_| probe::fma(isa));
        }
    }
}

/// Steps: weights from memory with one row of activations, and from the second-level cache with one and more.
fn gemv(c: &mut Criterion) {
    let data = weights(STREAM);
    let mut out = vec![0f32; 16 * CLAIM_ROWS];
    let mut group = c.benchmark_group("gemv");
    for ty in quantized() {
        for k in if ty.block_len() == 32 { [640, 2048] } else { [2048, 16384] } {
            let row_bytes = ty.row_bytes(k).expect("whole blocks");
            let len = (CLAIM / row_bytes).min(CLAIM_ROWS) * row_bytes;
            group.throughput(Throughput::Bytes(len as u64));
            for kernels in kernels() {
                let x = Inputs::new(1, k);
                let mut at = 0;
                group.bench_function(BenchmarkId::new(format!("{ty} k{k} memory"), kernels.isa()), |b| {
                    b.iter(|| {
                        at = if at + 2 * len > data.len() { 0 } else { at + len };
                        let w = Rows { ty, cols: k, row_bytes, data: &data[at..at + len] };
                        kernels.gemv(w, &x.acts(), &mut out, CLAIM_ROWS)
                    })
                });
                for rows in [1, 4, 16] {
                    let x = Inputs::new(rows, k);
                    let w = Rows { ty, cols: k, row_bytes, data: &data[..len] };
                    let id = BenchmarkId::new(format!("{ty} k{k} cached, {rows} rows"), kernels.isa());
                    group.bench_function(id, |b| b.iter(|| kernels.gemv(w, &x.acts(), &mut out, CLAIM_ROWS)));
                }
            }
        }
    }
}

/// Prefill: a panel unpacked, and multiplied with few rows and many.
fn gemm(c: &mut Criterion) {
    let k = SLAB * BLOCK;
    let mut panel = Panel::new(true).expect("memory");
    for ty in quantized() {
        let row_bytes = ty.row_bytes(k).expect("whole blocks");
        let data = weights(PANEL * row_bytes);
        let w = Rows { ty, cols: k, row_bytes, data: &data };
        for kernels in kernels() {
            let mut group = c.benchmark_group("unpack");
            group.throughput(Throughput::Bytes(data.len() as u64));
            group.bench_function(BenchmarkId::new(ty.name(), kernels.isa()), |b| {
                b.iter(|| kernels.unpack_panel(w, 0..SLAB, &mut panel))
            });
            group.finish();
            let mut group = c.benchmark_group("gemm");
            for rows in [1, 16, 512] {
                let x = Inputs::new(rows, k);
                let mut acc = vec![0f32; rows * PANEL];
                group.throughput(Throughput::Elements((rows * k * PANEL) as u64));
                let id = BenchmarkId::new(format!("{ty} {rows} rows"), kernels.isa());
                group.bench_function(id, |b| {
                    b.iter(|| kernels.gemm_panel(&panel, &x.acts(), 0..SLAB, &mut acc))
                });
            }
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = limits, gemv, gemm
}
criterion_main!(benches);
