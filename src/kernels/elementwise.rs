//! Algorithms over rows of f32, generic over the vectors. See the methods of [`super::Kernels`] for what each promises.
//!
//! All are unsafe to call for one reason: the slices must have the lengths that those methods check.

use half::f16;

use super::simd::Simd;
use super::{ActsMut, BLOCK};

/// Coefficients of (eʳ − 1 − r) / r² from r⁰ to r⁵, for |r| ≤ ½ ln 2: interpolated at Chebyshev's nodes, error 3e-8 of
/// eʳ − 1 before rounding.
const EXP: [f32; 6] = [0.5, 0.16666667, 0.041666463, 0.00833331, 0.0013933686, 0.00019891030];
/// ln 2 in two parts, the first of 15 bits: n times it is exact.
const LN_2_HI: f32 = 0.693_145_75;
const LN_2_LO: f32 = 1.428_606_8e-6;

/// `Σ over i of f(lanes of x from i)`, with `f` also storing: calls `f(offset, lanes)` for each vector of `len`, the last
/// possibly with fewer lanes. `f` has a single call site, so that it is always inlined.
#[inline(always)]
fn each<S: Simd>(_: S, len: usize, mut f: impl FnMut(usize, usize)) {
    let mut i = 0;
    while i < len {
        f(i, (len - i).min(S::LANES));
        i += S::LANES;
    }
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
    each(s, x.len() - i, |j, n| {
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
    each(s, w.len(), |i, n| {
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

/// `x = f(x)`, lanes at a time.
#[inline(always)]
fn map<S: Simd>(s: S, x: &mut [f32], mut f: impl FnMut(usize, usize, S::V) -> S::V) {
    let p = x.as_mut_ptr();
    each(s, x.len(), |i, n| {
        // SAFETY: each() stays within x.
        unsafe { put(s, p, i, f(i, n, get(s, p, i, n)), n) }
    });
}

#[inline(always)]
pub(super) unsafe fn add<S: Simd>(s: S, x: &mut [f32], y: &[f32]) {
    // SAFETY: y is as long as x.
    map(s, x, |i, n, v| s.add(v, unsafe { get(s, y.as_ptr(), i, n) }));
}

#[inline(always)]
pub(super) unsafe fn scale<S: Simd>(s: S, x: &mut [f32], by: f32) {
    let by = s.splat(by);
    map(s, x, |_, _, v| s.mul(v, by));
}

#[inline(always)]
pub(super) unsafe fn gelu_mul<S: Simd>(s: S, gate: &mut [f32], up: &[f32]) {
    // SAFETY: up is as long as gate.
    map(s, gate, |i, n, v| s.mul(gelu(s, v), unsafe { get(s, up.as_ptr(), i, n) }));
}

#[inline(always)]
pub(super) unsafe fn softcap<S: Simd>(s: S, x: &mut [f32], cap: f32) {
    let cap = s.splat(cap);
    map(s, x, |_, _, v| s.mul(cap, tanh(s, s.div(v, cap))));
}

#[inline(always)]
pub(super) unsafe fn rope<S: Simd>(s: S, x: &mut [f32], cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    let (a, b) = x.split_at_mut(half);
    let (a, b) = (a.as_mut_ptr(), b.as_mut_ptr());
    each(s, half, |i, n| {
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

/// Σ of `exp(x − max)`, given to `store` as they are computed. Chunks are summed in f32, and together in f64.
#[inline(always)]
fn sum_of_exp<S: Simd>(s: S, x: &[f32], max: f32, mut store: impl FnMut(usize, S::V, usize)) -> f32 {
    const CHUNK: usize = 4096;
    let max = s.splat(max);
    let mut total = 0f64;
    let mut start = 0;
    while start < x.len() {
        let len = CHUNK.min(x.len() - start);
        let mut sum = s.splat(0.0);
        each(s, len, |i, n| {
            let i = start + i;
            let v = if n == S::LANES {
                // SAFETY: within x.
                unsafe { s.load(x.as_ptr().add(i)) }
            } else {
                // The lanes beyond x must add nothing.
                let mut last = [f32::NEG_INFINITY; 16];
                last[..n].copy_from_slice(&x[i..]);
                // SAFETY: LANES is at most 16.
                unsafe { s.load(last.as_ptr()) }
            };
            let e = exp(s, s.sub(v, max), s.splat(0.0));
            sum = s.add(sum, e);
            store(i, e, n);
        });
        total += s.reduce_add(sum) as f64;
        start += len;
    }
    total as f32
}

#[inline(always)]
pub(super) unsafe fn exp_sub_sum<S: Simd>(s: S, x: &mut [f32], max: f32) -> f32 {
    let len = x.len();
    let p = x.as_mut_ptr();
    // SAFETY: each vector is read before it is written, through the pointer that both come from.
    unsafe {
        let x = std::slice::from_raw_parts(p, len);
        sum_of_exp(s, x, max, |i, e, n| put(s, p, i, e, n))
    }
}

#[inline(always)]
pub(super) unsafe fn sum_exp<S: Simd>(s: S, x: &[f32], max: f32) -> f32 {
    sum_of_exp(s, x, max, |_, _, _| ())
}

#[inline(always)]
pub(super) unsafe fn f32_to_f16<S: Simd>(s: S, x: &[f32], out: &mut [f16]) {
    let out = out.as_mut_ptr();
    each(s, x.len(), |i, n| {
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

/// The vectors of a block of 32 at `x`, of which 32 / LANES are used, and max|x|, NaN where the block holds one.
///
/// # Safety
/// `x` is valid for reads of 32 values.
#[inline(always)]
unsafe fn block<S: Simd>(s: S, x: *const f32) -> ([S::V; 4], f32) {
    let mut v = [s.splat(0.0); 4];
    let mut max = s.splat_i32(0);
    for (i, v) in v[..BLOCK / S::LANES].iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *v = unsafe { s.load(x.add(i * S::LANES)) };
        // As integers, magnitudes are in the same order, and NaN is the greatest.
        max = s.max_i32(max, s.bits(s.abs(*v)));
    }
    (v, f32::from_bits(s.reduce_max_i32(max) as u32))
}

#[inline(always)]
pub(super) unsafe fn quantize<S: Simd>(s: S, x: &[f32], out: &mut ActsMut<'_>) {
    let two = !out.l.is_empty();
    let vectors = BLOCK / S::LANES;
    for b in 0..x.len() / BLOCK {
        let at = b * BLOCK;
        // SAFETY: within x.
        let (v, max) = unsafe { block(s, x.as_ptr().add(at)) };
        if !max.is_finite() {
            out.h[at..at + BLOCK].fill(0);
            if two {
                out.l[at..at + BLOCK].fill(0);
            }
            out.scale[b] = f32::NAN;
            out.sum_h[b * 2..b * 2 + 2].fill(0);
            out.sum16[b * 2..b * 2 + 2].fill(f32::NAN);
            out.sum32[b] = f32::NAN;
            continue;
        }
        // Below 4e-37, 127 / max would overflow.
        let (d, inv) = if max > 1e-36 { (max / 127.0, 127.0 / max) } else { (0.0, 0.0) };
        // Sums of h, and of the integers represented, over each half.
        let mut sums = [[s.splat_i32(0); 2]; 2];
        for (i, v) in v[..vectors].iter().enumerate() {
            let scaled = s.mul(*v, s.splat(inv));
            let half = i * 2 / vectors;
            let to = at + i * S::LANES;
            // a = 256 h + l with both planes balanced; in one plane, h is the nearest integer itself.
            let h = if two {
                let a = s.round(s.mul(scaled, s.splat(256.0)));
                let h = s.shr_i32::<8>(s.add_i32(a, s.splat_i32(128)));
                let l = s.sub_i32(a, s.shl_i32::<8>(h));
                sums[half][1] = s.add_i32(sums[half][1], a);
                // SAFETY: within out.l, which is as long as x.
                unsafe { s.store_i8(out.l.as_mut_ptr().add(to), l) };
                h
            } else {
                s.round(scaled)
            };
            sums[half][0] = s.add_i32(sums[half][0], h);
            // SAFETY: within out.h, which is as long as x.
            unsafe { s.store_i8(out.h.as_mut_ptr().add(to), h) };
        }
        out.scale[b] = d;
        for (half, [h, a]) in sums.into_iter().enumerate() {
            let sum_h = s.reduce_add_i32(h);
            let sum = if two { s.reduce_add_i32(a) as f32 / 256.0 } else { sum_h as f32 };
            out.sum_h[b * 2 + half] = sum_h as i16;
            out.sum16[b * 2 + half] = d * sum;
        }
        out.sum32[b] = out.sum16[b * 2] + out.sum16[b * 2 + 1];
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
