//! Algorithms over rows of f32, generic over the vectors. See the methods of [`super::Kernels`] for what each promises.
//!
//! All are unsafe to call for one reason: the slices must have the lengths that those methods check.

use half::f16;

use super::simd::Simd;
use super::{ActsMut, BLOCK};

/// Coefficients of (eʳ − 1 − r) / r² from r⁰ to r⁵, for |r| ≤ ½ ln 2: interpolated at Chebyshev's nodes, error 3e-8 of
/// eʳ − 1 before rounding.
const EXP: [f32; 6] = [0.5, 0.166_666_67, 0.041_666_463, 0.008_333_31, 0.001_393_368_6, 0.000_198_910_3];
/// ln 2 in two parts, the first of 15 bits: n times it is exact.
const LN_2_HI: f32 = 0.693_145_75;
const LN_2_LO: f32 = 1.428_606_8e-6;

/// Runs the body for each vector of `len` values, with its offset and its number of lanes: fewer than LANES at the end
/// only. A macro and not a function, because a closure that is not inlined would lack the target features, and so
/// would be a series of calls.
macro_rules! each {
    ($s:ident, $len:expr, |$i:ident, $n:ident| $body:block) => {{
        let (len, lanes) = ($len, lanes($s));
        let mut at = 0;
        while at < len {
            let ($i, $n) = (at, lanes.min(len - at));
            $body
            at += lanes;
        }
    }};
}

/// `x = …` for each vector `v` of `x`.
macro_rules! map {
    ($s:ident, $x:ident, |$i:ident, $n:ident, $v:ident| $body:expr) => {{
        let p = $x.as_mut_ptr();
        each!($s, $x.len(), |$i, $n| {
            // SAFETY: each!() stays within x.
            unsafe {
                let $v = get($s, p, $i, $n);
                put($s, p, $i, $body, $n);
            }
        });
    }};
}

#[inline(always)]
fn lanes<S: Simd>(_: S) -> usize {
    S::LANES
}

/// `n` lanes of `x` from `i`.
///
/// # Safety
/// i + n ≤ x.len(), and n ≤ LANES.
#[inline(always)]
unsafe fn get<S: Simd>(s: S, x: *const f32, i: usize, n: usize) -> S::V {
    // SAFETY: the caller's promise.
    unsafe { if n == S::LANES { s.load(x.add(i)) } else { s.load_part(x.add(i), n) } }
}

/// Stores `n` lanes to `x` from `i`.
///
/// # Safety
/// i + n ≤ x.len(), and n ≤ LANES.
#[inline(always)]
unsafe fn put<S: Simd>(s: S, x: *mut f32, i: usize, v: S::V, n: usize) {
    // SAFETY: the caller's promise.
    unsafe { if n == S::LANES { s.store(x.add(i), v) } else { s.store_part(x.add(i), v, n) } }
}

/// eʳ − 1 and n, such that e^(x + lo) = eʳ · 2ⁿ and |r| ≤ ½ ln 2; `lo` is far below `x`'s last bit.
#[inline(always)]
fn exp_parts<S: Simd>(s: S, x: S::V, lo: S::V) -> (S::V, S::I) {
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let nf = s.to_f32(n);
    let r = s.nfma(nf, s.splat(LN_2_HI), x);
    let r = s.add(s.nfma(nf, s.splat(LN_2_LO), r), lo);
    let mut p = s.splat(EXP[5]);
    for c in EXP[..5].iter().rev() {
        p = s.fma(p, r, s.splat(*c));
    }
    (s.fma(s.mul(p, r), r, r), n)
}

/// e^(x + lo), within 1 ulp; 0 from x = −104 down, infinity from 88.8 up. NaN stays NaN.
#[inline(always)]
fn exp<S: Simd>(s: S, x: S::V, lo: S::V) -> S::V {
    // max and min return their second argument where it is NaN.
    let x = s.min(s.splat(89.0), s.max(s.splat(-110.0), x));
    let (em1, n) = exp_parts(s, x, lo);
    s.scale_by_exp2(s.add(em1, s.splat(1.0)), n)
}

/// tanh(x), within 2 ulp.
#[inline(always)]
fn tanh<S: Simd>(s: S, x: S::V) -> S::V {
    // With e = e^2|x| − 1: tanh|x| = e / (e + 2), which keeps its precision near 0. From 2|x| = 18 up it rounds to 1.
    let y = s.min(s.splat(20.0), s.abs(s.add(x, x)));
    let (em1, n) = exp_parts(s, y, s.splat(0.0));
    let one = s.splat(1.0);
    let exp2 = s.scale_by_exp2(one, n);
    let e = s.fma(exp2, em1, s.sub(exp2, one));
    s.copysign(s.div(e, s.add(e, s.splat(2.0))), x)
}

/// gelu(x) by tanh, to a few ulp.
#[inline(always)]
fn gelu<S: Simd>(s: S, x: S::V) -> S::V {
    // ½(1 + tanh u) = 1 / (1 + e^−2u). A relative error in 2u is multiplied by 2u in the exponential, so the low part
    // of 2u = x · (C1 + C2 x²) is carried along. Beyond ±20 the result is x, or 0, whatever u is.
    const C1: f32 = 1.595_769_2; // 2 √(2/π)
    const C1_LO: f32 = -4.534_068e-8;
    const C2: f32 = 0.071_354_814; // 0.044715 · 2 √(2/π)
    let (c1, c2) = (s.splat(C1), s.splat(C2));
    let a = s.min(s.splat(20.0), s.max(s.splat(-20.0), x));
    let a2 = s.mul(a, a);
    let a2_lo = s.residue(a, a, a2);
    let q = s.fma(c2, a2, c1);
    let q_lo = s.add(s.residue(c2, a2, s.sub(q, c1)), s.fma(c2, a2_lo, s.splat(C1_LO)));
    let y = s.mul(a, q);
    let y_lo = s.fma(a, q_lo, s.residue(a, q, y));
    let zero = s.splat(0.0);
    let e = exp(s, s.sub(zero, y), s.sub(zero, y_lo));
    s.div(x, s.add(e, s.splat(1.0)))
}

/// 1 / √(mean(x²) + eps).
#[inline(always)]
unsafe fn inverse_rms<S: Simd>(s: S, x: &[f32], eps: f32) -> f32 {
    let mut acc = [s.splat(0.0); 4];
    let p = x.as_ptr();
    let step = 4 * S::LANES;
    let mut i = 0;
    while i + step <= x.len() {
        for (j, acc) in acc.iter_mut().enumerate() {
            // SAFETY: i + step ≤ x.len().
            let v = unsafe { s.load(p.add(i + j * S::LANES)) };
            *acc = s.fma(v, v, *acc);
        }
        i += step;
    }
    each!(s, x.len() - i, |j, n| {
        // SAFETY: within x; lanes beyond it come as zeros.
        let v = unsafe { get(s, p, i + j, n) };
        acc[0] = s.fma(v, v, acc[0]);
    });
    let sum = s.reduce_add(s.add(s.add(acc[0], acc[1]), s.add(acc[2], acc[3])));
    1.0 / (sum / x.len() as f32 + eps).sqrt()
}

/// `out = x · by · w`.
///
/// # Safety
/// All three are valid for `len` values; `out` may be `x`.
#[inline(always)]
unsafe fn scaled_mul<S: Simd>(s: S, x: *const f32, by: f32, w: &[f32], out: *mut f32) {
    let by = s.splat(by);
    each!(s, w.len(), |i, n| {
        // SAFETY: the caller's promise.
        unsafe {
            let v = s.mul(s.mul(get(s, x, i, n), by), get(s, w.as_ptr(), i, n));
            put(s, out, i, v, n);
        }
    });
}

#[inline(always)]
pub(super) unsafe fn rms_norm<S: Simd>(s: S, x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    // SAFETY: lengths are equal.
    unsafe { scaled_mul(s, x.as_ptr(), inverse_rms(s, x, eps), w, out.as_mut_ptr()) }
}

#[inline(always)]
pub(super) unsafe fn rms_norm_in_place<S: Simd>(s: S, x: &mut [f32], w: &[f32], eps: f32) {
    // SAFETY: lengths are equal.
    unsafe {
        let by = inverse_rms(s, x, eps);
        let p = x.as_mut_ptr();
        scaled_mul(s, p, by, w, p)
    }
}

#[inline(always)]
pub(super) unsafe fn add<S: Simd>(s: S, x: &mut [f32], y: &[f32]) {
    // y is as long as x.
    map!(s, x, |i, n, v| s.add(v, get(s, y.as_ptr(), i, n)));
}

#[inline(always)]
pub(super) unsafe fn scale<S: Simd>(s: S, x: &mut [f32], by: f32) {
    let by = s.splat(by);
    map!(s, x, |i, n, v| s.mul(v, by));
}

#[inline(always)]
pub(super) unsafe fn gelu_mul<S: Simd>(s: S, gate: &mut [f32], up: &[f32]) {
    // up is as long as gate.
    map!(s, gate, |i, n, v| s.mul(gelu(s, v), get(s, up.as_ptr(), i, n)));
}

#[inline(always)]
pub(super) unsafe fn softcap<S: Simd>(s: S, x: &mut [f32], cap: f32) {
    let cap = s.splat(cap);
    map!(s, x, |i, n, v| s.mul(cap, tanh(s, s.div(v, cap))));
}

#[inline(always)]
pub(super) unsafe fn rope<S: Simd>(s: S, x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    let (a, b) = x.split_at_mut(half);
    let (a, b) = (a.as_mut_ptr(), b.as_mut_ptr());
    each!(s, half, |i, n| {
        // SAFETY: the two halves, cos and sin have `half` values each.
        unsafe {
            let (cos, sin) = (get(s, cos.as_ptr(), i, n), get(s, sin.as_ptr(), i, n));
            let (u, v) = (get(s, a, i, n), get(s, b, i, n));
            put(s, a, i, s.nfma(v, sin, s.mul(u, cos)), n);
            put(s, b, i, s.fma(u, sin, s.mul(v, cos)), n);
        }
    });
}

#[inline(always)]
pub(super) unsafe fn max<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut acc = [s.splat(f32::NEG_INFINITY); 4];
    let step = 4 * S::LANES;
    let mut chunks = x.chunks_exact(step);
    for x in &mut chunks {
        for (j, acc) in acc.iter_mut().enumerate() {
            // SAFETY: x has `step` values. max() returns its second argument where the first is NaN.
            *acc = s.max(unsafe { s.load(x.as_ptr().add(j * S::LANES)) }, *acc);
        }
    }
    let m = s.reduce_max(s.max(s.max(acc[0], acc[1]), s.max(acc[2], acc[3])));
    chunks.remainder().iter().fold(m, |m, &x| if x > m { x } else { m })
}

/// Σ of `exp(x − max)`, and with STORE the terms to `out`. Chunks are summed in f32, and together in f64.
///
/// # Safety
/// `x`, and with STORE `out`, are valid for `len` values; they may be the same.
#[inline(always)]
unsafe fn sum_of_exp<S: Simd, const STORE: bool>(
    s: S,
    x: *const f32,
    len: usize,
    max: f32,
    out: *mut f32,
) -> f32 {
    const CHUNK: usize = 4096;
    let max = s.splat(max);
    let mut total = 0f64;
    let mut start = 0;
    while start < len {
        let chunk = CHUNK.min(len - start);
        let mut sum = s.splat(0.0);
        each!(s, chunk, |i, n| {
            let i = start + i;
            // SAFETY: within x and out; `last` has at least LANES values.
            unsafe {
                let v = if n == S::LANES {
                    s.load(x.add(i))
                } else {
                    // The lanes beyond x must add nothing.
                    let mut last = [f32::NEG_INFINITY; 16];
                    std::ptr::copy_nonoverlapping(x.add(i), last.as_mut_ptr(), n);
                    s.load(last.as_ptr())
                };
                let e = exp(s, s.sub(v, max), s.splat(0.0));
                sum = s.add(sum, e);
                if STORE {
                    put(s, out, i, e, n);
                }
            }
        });
        total += s.reduce_add(sum) as f64;
        start += chunk;
    }
    total as f32
}

#[inline(always)]
pub(super) unsafe fn exp_sub_sum<S: Simd>(s: S, x: &mut [f32], max: f32) -> f32 {
    let p = x.as_mut_ptr();
    // SAFETY: valid for that length.
    unsafe { sum_of_exp::<S, true>(s, p, x.len(), max, p) }
}

#[inline(always)]
pub(super) unsafe fn sum_exp<S: Simd>(s: S, x: &[f32], max: f32) -> f32 {
    // SAFETY: valid for that length, and nothing is stored.
    unsafe { sum_of_exp::<S, false>(s, x.as_ptr(), x.len(), max, std::ptr::null_mut()) }
}

#[inline(always)]
pub(super) unsafe fn f32_to_f16<S: Simd>(s: S, x: &[f32], out: &mut [f16]) {
    let out = out.as_mut_ptr();
    each!(s, x.len(), |i, n| {
        // SAFETY: out is as long as x, and LANES is at most 16.
        unsafe {
            let v = get(s, x.as_ptr(), i, n);
            if n == S::LANES {
                s.store_f16(out.add(i).cast(), v);
            } else {
                let mut last = [f16::ZERO; 16];
                s.store_f16(last.as_mut_ptr().cast(), v);
                std::ptr::copy_nonoverlapping(last.as_ptr(), out.add(i), n);
            }
        }
    });
}

/// The vectors of a block of 32 at `x`, the first 32 / LANES of eight, and max|x|, NaN where the block holds one.
///
/// # Safety
/// `x` is valid for reads of 32 values.
#[inline(always)]
unsafe fn block<S: Simd>(s: S, x: *const f32) -> ([S::V; 8], f32) {
    let mut v = [s.splat(0.0); 8];
    let mut max = s.splat_i32(0);
    for (i, v) in v[..BLOCK / S::LANES].iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *v = unsafe { s.load(x.add(i * S::LANES)) };
        // As integers, magnitudes are in the same order, and NaN is the greatest.
        max = s.max_i32(max, s.bits(s.abs(*v)));
    }
    (v, f32::from_bits(s.reduce_max_i32(max) as u32))
}

/// Blocks that are quantized side by side: done one after the other, each would wait for its maximum and its sums.
const SIDE: usize = 16;

#[inline(always)]
pub(super) unsafe fn quantize<S: Simd>(s: S, x: &[f32], out: &mut ActsMut<'_>) {
    let two = !out.l.is_empty();
    let vectors = BLOCK / S::LANES;
    let blocks = x.len() / BLOCK;
    for first in (0..blocks).step_by(SIDE) {
        let n = SIDE.min(blocks - first);
        let mut max = [0f32; SIDE];
        for (b, max) in max[..n].iter_mut().enumerate() {
            // SAFETY: within x.
            *max = unsafe { block(s, x.as_ptr().add((first + b) * BLOCK)).1 };
        }
        // Below 4e-37, 127 / max would overflow.
        let (mut d, mut inv) = ([0f32; SIDE], [0f32; SIDE]);
        for (max, (d, inv)) in max.iter().zip(d.iter_mut().zip(&mut inv)) {
            (*d, *inv) = if *max > 1e-36 { (max / 127.0, 127.0 / max) } else { (0.0, 0.0) };
        }
        // Of each block: Σh of either half, and Σ(256 h + l) of either half.
        let mut sums = [[0i32; 4]; SIDE];
        for (b, sums) in sums[..n].iter_mut().enumerate() {
            let at = (first + b) * BLOCK;
            let inv = s.splat(inv[b]);
            let mut acc = [s.splat_i32(0); 4];
            for i in 0..vectors {
                let half = i * 2 / vectors;
                let at = at + i * S::LANES;
                // SAFETY: within x, out.h and, where it is not empty, out.l.
                unsafe {
                    let scaled = s.mul(s.load(x.as_ptr().add(at)), inv);
                    // a = 256 h + l with both planes balanced; in one plane, h is the nearest integer itself.
                    let h = if two {
                        let a = s.round(s.mul(scaled, s.splat(256.0)));
                        let h = s.shr_i32::<8>(s.add_i32(a, s.splat_i32(128)));
                        s.store_i8(out.l.as_mut_ptr().add(at), s.sub_i32(a, s.shl_i32::<8>(h)));
                        acc[2 + half] = s.add_i32(acc[2 + half], a);
                        h
                    } else {
                        s.round(scaled)
                    };
                    s.store_i8(out.h.as_mut_ptr().add(at), h);
                    acc[half] = s.add_i32(acc[half], h);
                }
            }
            *sums = s.reduce_add4_i32(acc);
        }
        out.scale[first..first + n].copy_from_slice(&d[..n]);
        let sum_h = out.sum_h[2 * first..2 * (first + n)].as_chunks_mut::<2>().0;
        let sum16 = out.sum16[2 * first..2 * (first + n)].as_chunks_mut::<2>().0;
        let sum32 = &mut out.sum32[first..first + n];
        for (b, ((sum_h, sum16), sum32)) in sum_h.iter_mut().zip(sum16).zip(sum32).enumerate() {
            let [h0, h1, a0, a1] = sums[b];
            *sum_h = [h0 as i16, h1 as i16];
            let [s0, s1] = if two { [a0 as f32 / 256.0, a1 as f32 / 256.0] } else { [h0 as f32, h1 as f32] };
            *sum16 = [d[b] * s0, d[b] * s1];
            *sum32 = sum16[0] + sum16[1];
        }
        if max.iter().any(|max| !max.is_finite()) {
            for b in (0..n).filter(|&b| !max[b].is_finite()) {
                let b = first + b;
                out.h[b * BLOCK..][..BLOCK].fill(0);
                if two {
                    out.l[b * BLOCK..][..BLOCK].fill(0);
                }
                out.scale[b] = f32::NAN;
                out.sum_h[2 * b..][..2].fill(0);
                out.sum16[2 * b..][..2].fill(f32::NAN);
                out.sum32[b] = f32::NAN;
            }
        }
    }
}

#[inline(always)]
pub(super) unsafe fn f32_to_q8_0<S: Simd>(s: S, x: &[f32], out: &mut [u8]) {
    for (b, out) in out.chunks_exact_mut(34).enumerate() {
        // SAFETY: out has 34 bytes for every 32 values of x.
        let (v, max) = unsafe { block(s, x.as_ptr().add(b * BLOCK)) };
        let d = if max.is_finite() { f16::from_f32((max / 127.0).min(65504.0)) } else { f16::NAN };
        // The scale that is stored is the one to divide by.
        let inv = if d > f16::ZERO { 1.0 / d.to_f32() } else { 0.0 };
        out[..2].copy_from_slice(&d.to_bits().to_le_bytes());
        for (i, v) in v[..BLOCK / S::LANES].iter().enumerate() {
            let q = s.mul(*v, s.splat(inv));
            let q = s.min(s.splat(127.0), s.max(s.splat(-127.0), q));
            // SAFETY: out has 2 + 32 bytes.
            unsafe { s.store_i8(out.as_mut_ptr().add(2 + i * S::LANES).cast(), s.round(q)) };
        }
    }
}
