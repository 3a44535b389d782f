//! How fast the integer kernels are, beside what a core can do at most, measured in the same run. Not a test:
//!
//! `cargo test --release --lib kernels::speed -- --ignored --nocapture --test-threads 1`
//!
//! `CARAT_SPEED_TYPES` (names, separated by commas) and `CARAT_SPEED_ISA` choose what is measured.

use std::time::{Duration, Instant};

use super::{Acts, BLOCK, Isa, Kernels, PANEL, Panel, Rows, SLAB, probe};
use crate::DType;

/// Bytes of weights that are streamed: more than the caches hold.
const STREAM: usize = 160 << 20;
/// Bytes of weights of one call, as a worker claims them.
const CLAIM: usize = 64 << 10;

fn isas() -> Vec<Isa> {
    let only =
        std::env::var("CARAT_SPEED_ISA").ok().map(|n| Isa::from_name(&n).expect("a known instruction set"));
    Isa::ALL.into_iter().filter(|i| i.is_available() && only.is_none_or(|o| o == *i)).collect()
}

fn types() -> Vec<DType> {
    let only = std::env::var("CARAT_SPEED_TYPES").ok();
    let wanted = |ty: &DType| only.as_ref().is_none_or(|o| o.split(',').any(|n| n == ty.name()));
    DType::ALL.into_iter().filter(|ty| !ty.is_float() && wanted(ty)).collect()
}

/// The shortest time of `f` in many runs: others may be using the machine.
fn fastest(mut f: impl FnMut()) -> f64 {
    let (start, mut best) = (Instant::now(), Duration::MAX);
    let mut runs = 0;
    while runs < 5 || runs < 10_000 && start.elapsed() < Duration::from_millis(400) {
        let now = Instant::now();
        f();
        best = best.min(now.elapsed());
        runs += 1;
    }
    best.as_secs_f64()
}

/// Bytes a second of `f` over stretches of `data`, each read once. That of the best tenth of them: others may be using
/// the machine.
fn streamed(data: &[u8], stretch: usize, mut f: impl FnMut(&[u8])) -> f64 {
    let mut times: Vec<Duration> = data
        .chunks_exact(stretch)
        .map(|s| {
            let now = Instant::now();
            f(s);
            now.elapsed()
        })
        .collect();
    times.sort();
    stretch as f64 / times[times.len() / 10].as_secs_f64()
}

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

    /// Sums are those of nothing in particular.
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

/// Bytes whose scales are ordinary numbers, whatever the type.
fn weights(len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 37) >> 3) as u8 & 0x3f).collect()
}

fn claims(rows: Rows<'_>, mut f: impl FnMut(Rows<'_>)) {
    let n = (CLAIM / rows.row_bytes / PANEL * PANEL).clamp(PANEL, 256);
    for from in (0..rows.len()).step_by(n) {
        f(rows.range(from..rows.len().min(from + n)));
    }
}

#[test]
#[ignore = "measures"]
fn gemv() {
    let data = weights(STREAM);
    for isa in isas() {
        let kernels = Kernels::new(isa).unwrap();
        let read = streamed(&data, 1 << 20, |s| _ = std::hint::black_box(probe::read(isa, s))) / 1e9;
        println!("{isa}: reads {read:.1} GB/s");
        for ty in types() {
            let ks: &[usize] = if ty.block_len() == 32 { &[640, 2048, 16384] } else { &[2048, 16384] };
            for &k in ks {
                let row_bytes = ty.row_bytes(k).unwrap();
                let (x, x4) = (Inputs::new(1, k), Inputs::new(4, k));
                let mut out = vec![0f32; 4 * 256];
                let stretch = (1 << 20) / row_bytes * row_bytes;
                let memory = streamed(&data, stretch, |s| {
                    claims(Rows { ty, cols: k, row_bytes, data: s }, |w| {
                        kernels.gemv(w, &x.acts(), &mut out, w.len())
                    });
                }) / 1e9;
                let w = Rows { ty, cols: k, row_bytes, data: &data[..(256 << 10) / row_bytes * row_bytes] };
                let mut cached = |x: &Inputs| {
                    let s = fastest(|| claims(w, |w| kernels.gemv(w, &x.acts(), &mut out, w.len())));
                    w.data.len() as f64 / s / 1e9
                };
                println!(
                    "{ty:8} k {k:5}   memory {memory:5.1} GB/s ({:3.0}%)   L2 {:5.1} GB/s   4 rows {:5.1} GB/s",
                    100.0 * memory / read,
                    cached(&x),
                    cached(&x4)
                );
            }
        }
    }
}

#[test]
#[ignore = "measures"]
fn gemm() {
    let k = std::env::var("CARAT_SPEED_K").map_or(SLAB * BLOCK, |k| k.parse().unwrap());
    for isa in isas() {
        let kernels = Kernels::new(isa).unwrap();
        let mut n = 0;
        let peak = fastest(|| n = probe::dot(isa));
        let peak = n as f64 / peak / 1e9;
        println!("{isa}: {peak:.0} GMAC/s");
        let mut panel = Panel::new(true).unwrap();
        for ty in types() {
            let row_bytes = ty.row_bytes(k).unwrap();
            let data = weights(PANEL * row_bytes);
            let w = Rows { ty, cols: k, row_bytes, data: &data };
            let unpack = fastest(|| kernels.unpack_panel(w, 0..k / BLOCK, &mut panel));
            print!("{ty:8} unpacking {:5.1} µs;", unpack * 1e6);
            for rows in [512, 64, 16, 1] {
                let x = Inputs::new(rows, k);
                let mut acc = vec![0f32; rows * PANEL];
                let s = fastest(|| kernels.gemm_panel(&panel, &x.acts(), 0..k / BLOCK, &mut acc));
                let macs = (rows * k * PANEL) as f64;
                let share = |s: f64| 100.0 * macs / s / 1e9 / peak;
                print!(
                    "   {rows} rows: {:.0} GMAC/s ({:.0}%, {:.0}% with unpacking)",
                    macs / s / 1e9,
                    share(s),
                    share(s + unpack)
                );
            }
            println!();
        }
    }
}
