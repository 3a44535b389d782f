//! Every float kernel on every instruction set that this machine has, against f64.

use half::{bf16, f16};

use super::random::Random;
use super::{ActsMut, BLOCK, Isa, Kernels, KvRows, Rows};
use crate::DType;

/// Lengths around each vector's width, its multiples, and the unrolled loops'.
const LENGTHS: [usize; 24] =
    [1, 2, 3, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 47, 48, 63, 64, 65, 127, 128, 129, 255, 640, 4097];

fn all() -> impl Iterator<Item = Kernels> {
    Isa::ALL.into_iter().filter_map(Kernels::new)
}

#[track_caller]
fn close(isa: Isa, got: f32, want: f64, relative: f64, absolute: f64) {
    let error = (got as f64 - want).abs();
    assert!(
        error <= want.abs() * relative + absolute || got as f64 == want,
        "{isa}: got {got:e}, expected {want:e}: off by {:.3e} of it",
        error / want.abs()
    );
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// Every 2¹⁰-odd-th finite f32 with |x| ≤ `limit`, of both signs.
fn sweep(limit: f32) -> Vec<f32> {
    (0..limit.to_bits()).step_by(1021).flat_map(|b| [f32::from_bits(b), -f32::from_bits(b)]).collect()
}

#[test]
fn rms_norm() {
    let mut random = Random(1);
    for k in all() {
        for len in LENGTHS {
            let (x, w) = (random.vec(len, 3.0), random.vec(len, 2.0));
            let mean = x.iter().map(|&x| x as f64 * x as f64).sum::<f64>() / len as f64;
            let mut out = vec![0.0; len];
            k.rms_norm(&x, &w, 1e-6, &mut out);
            for i in 0..len {
                close(k.isa(), out[i], x[i] as f64 / (mean + 1e-6).sqrt() * w[i] as f64, 1e-6, 0.0);
            }
            let mut in_place = x.clone();
            k.rms_norm_in_place(&mut in_place, &w, 1e-6);
            assert_eq!(bits(&in_place), bits(&out));
        }
    }
}

#[test]
fn add_scale_and_rope() {
    let mut random = Random(2);
    for k in all() {
        for len in LENGTHS {
            let (x, y) = (random.vec(len, 3.0), random.vec(len, 2.0));
            let mut out = x.clone();
            k.add(&mut out, &y);
            assert!((0..len).all(|i| out[i] == x[i] + y[i]));
            k.scale(&mut out, 0.3);
            assert!((0..len).all(|i| out[i] == (x[i] + y[i]) * 0.3));

            let angles = random.vec(len, 3.0);
            let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
            let mut head = [x.clone(), y.clone()].concat();
            k.rope(&mut head, &cos, &sin);
            for i in 0..len {
                let (x, y, cos, sin) = (x[i] as f64, y[i] as f64, cos[i] as f64, sin[i] as f64);
                close(k.isa(), head[i], x * cos - y * sin, 0.0, 5e-7);
                close(k.isa(), head[len + i], y * cos + x * sin, 0.0, 5e-7);
            }
        }
    }
}

#[test]
fn exp_is_within_an_ulp_and_exact_at_0_and_minus_infinity() {
    for k in all() {
        // Without a sum in the way: one value at a time is slow, so the sum is checked apart.
        let x: Vec<f32> = sweep(110.0);
        let mut got = x.clone();
        k.exp_sub_sum(&mut got, 0.0);
        for (&x, &got) in x.iter().zip(&got) {
            let want = (x as f64).exp();
            if want > f32::MAX as f64 {
                // Between the greatest f32 and the threshold of rounding, either is right.
                assert!(got >= f32::MAX, "{}: exp({x}) = {got}", k.isa());
            } else {
                // One ulp; of the subnormals, half of their spacing more.
                close(k.isa(), got, want, 1.2e-7, 0.75e-45);
            }
        }
        let mut x = [1.5, f32::NEG_INFINITY, -1e30, 1.5 - 104.0, f32::NAN];
        assert!(k.exp_sub_sum(&mut x, 1.5).is_nan());
        assert_eq!(bits(&x[..4]), bits(&[1.0, 0.0, 0.0, 0.0]));
        assert!(x[4].is_nan());
        assert_eq!(k.exp_sub_sum(&mut [1e30, f32::INFINITY], 0.0), f32::INFINITY);
    }
}

#[test]
fn max_and_sums_of_exp() {
    let mut random = Random(3);
    for k in all() {
        for len in LENGTHS.into_iter().chain([262_144]) {
            let mut x = random.vec(len, 20.0);
            let max = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert_eq!(k.max(&x), max);
            let want: f64 = x.iter().map(|&x| ((x - max) as f64).exp()).sum();
            let sum = k.sum_exp(&x, max);
            close(k.isa(), sum, want, 1e-6, 0.0);
            let before = x.clone();
            assert_eq!(k.exp_sub_sum(&mut x, max).to_bits(), sum.to_bits());
            for (&x, &b) in x.iter().zip(&before) {
                close(k.isa(), x, ((b - max) as f64).exp(), 1.2e-7, 0.75e-45);
            }
            // NaN is passed over, wherever it is.
            let mut x = before;
            x[len / 2] = f32::NAN;
            x[len - 1] = 100.0;
            assert_eq!(k.max(&x), 100.0);
        }
        assert_eq!(k.max(&[]), f32::NEG_INFINITY);
        assert_eq!(k.sum_exp(&[], 0.0), 0.0);
    }
}

#[test]
fn gelu_keeps_its_precision_in_the_tail() {
    let gelu = |x: f64| {
        // ½(1 + tanh u), without the cancellation where tanh u is near −1.
        let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
        x / (1.0 + (-2.0 * u).exp())
    };
    let mut random = Random(4);
    for k in all() {
        let x = sweep(30.0);
        let mut got = x.clone();
        k.gelu_mul(&mut got, &vec![1.0; x.len()]);
        for (&x, &got) in x.iter().zip(&got) {
            // Far down, where gelu is below 1e-11, the exponent's own rounding shows.
            let relative = if x > -7.0 { 1e-6 } else { 1e-5 };
            close(k.isa(), got, gelu(x as f64), relative, 1e-37);
        }
        for len in LENGTHS {
            let (gate, up) = (random.vec(len, 6.0), random.vec(len, 2.0));
            let mut got = gate.clone();
            k.gelu_mul(&mut got, &up);
            for i in 0..len {
                close(k.isa(), got[i], gelu(gate[i] as f64) * up[i] as f64, 1.2e-6, 0.0);
            }
        }
        let mut x = [f32::MAX, f32::INFINITY, -f32::MAX, -1e20, f32::NAN];
        k.gelu_mul(&mut x, &[1.0; 5]);
        assert_eq!(x[..4], [f32::MAX, f32::INFINITY, 0.0, 0.0]);
        assert!(x[4].is_nan());
    }
}

#[test]
fn softcap_is_tanh_within_three_ulp() {
    for k in all() {
        let x = sweep(40.0);
        let mut got = x.clone();
        k.softcap(&mut got, 1.0);
        for (&x, &got) in x.iter().zip(&got) {
            close(k.isa(), got, (x as f64).tanh(), 2.4e-7, 1e-45);
        }
        let mut random = Random(5);
        for len in LENGTHS {
            let x = random.vec(len, 200.0);
            let mut got = x.clone();
            k.softcap(&mut got, 50.0);
            for i in 0..len {
                close(k.isa(), got[i], 50.0 * (x[i] as f64 / 50.0).tanh(), 4e-7, 0.0);
            }
        }
        let mut x = [f32::INFINITY, -f32::INFINITY, -0.0, f32::NAN];
        k.softcap(&mut x, 30.0);
        assert_eq!(bits(&x[..3]), bits(&[30.0, -30.0, -0.0]));
        assert!(x[3].is_nan());
    }
}

#[test]
fn half_precision_both_ways_is_exact() {
    let every: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
    for k in all() {
        let mut wide = vec![0.0; every.len()];
        k.f16_to_f32(&every, &mut wide);
        let mut back = vec![f16::ZERO; every.len()];
        k.f32_to_f16(&wide, &mut back);
        for ((&h, &x), &back) in every.iter().zip(&wide).zip(&back) {
            if h.is_nan() {
                assert!(x.is_nan() && back.is_nan());
            } else {
                assert_eq!(x.to_bits(), h.to_f32_const().to_bits(), "{}: {:#x}", k.isa(), h.to_bits());
                assert_eq!(back.to_bits(), h.to_bits());
            }
        }
        // Half way between neighbours, and just beside it.
        let x: Vec<f32> = (0..0x7c00u32)
            .flat_map(|h| {
                let (a, b) = (f16::from_bits(h as u16).to_f32(), f16::from_bits(h as u16 + 1).to_f32());
                let mid = if b.is_finite() { (a + b) / 2.0 } else { 65520.0 };
                [mid, mid.next_up(), mid.next_down(), -mid]
            })
            .collect();
        let mut got = vec![f16::ZERO; x.len()];
        k.f32_to_f16(&x, &mut got);
        for (&x, got) in x.iter().zip(got) {
            assert_eq!(got.to_bits(), f16::from_f32_const(x).to_bits(), "{}: {x:e}", k.isa());
        }
        for len in LENGTHS {
            let x = &every[0x3c00..0x3c00 + len];
            let mut out = vec![0.0; len];
            k.f16_to_f32(x, &mut out);
            assert!((0..len).all(|i| out[i] == x[i].to_f32()));
            let mut back = vec![f16::NAN; len];
            k.f32_to_f16(&out, &mut back);
            assert_eq!(back, x);
            let x: Vec<bf16> = out.iter().map(|&x| bf16::from_f32(x * 1.7)).collect();
            k.bf16_to_f32(&x, &mut out);
            assert!((0..len).all(|i| out[i] == x[i].to_f32()));
        }
    }
}

/// Buffers for quantized rows.
#[derive(Debug, PartialEq, Clone)]
struct Quantized {
    h: Vec<i8>,
    l: Vec<i8>,
    scale: Vec<f32>,
    sum_h: Vec<i16>,
    sum16: Vec<f32>,
    sum32: Vec<f32>,
}

fn quantize(k: Kernels, x: &[f32], two: bool) -> Quantized {
    let n = x.len();
    let mut q = Quantized {
        h: vec![99; n],
        l: vec![99; if two { n } else { 0 }],
        scale: vec![9.0; n / 32],
        sum_h: vec![9; n / 16],
        sum16: vec![9.0; n / 16],
        sum32: vec![9.0; n / 32],
    };
    k.quantize(
        x,
        &mut ActsMut {
            h: &mut q.h,
            l: &mut q.l,
            scale: &mut q.scale,
            sum_h: &mut q.sum_h,
            sum16: &mut q.sum16,
            sum32: &mut q.sum32,
        },
    );
    q
}

#[test]
fn quantize_represents_its_input_and_is_the_same_everywhere() {
    let mut random = Random(6);
    let mut x = Vec::new();
    for by in [1.0, 1e-3, 1e5, 1e-30, 1e30, 1e36, 1e-36, 1e-38, 1e-42] {
        x.extend(random.vec(3 * BLOCK, by));
    }
    // Blocks of one extreme value, of ties, of zeros.
    x.extend((0..32).map(|i| if i == 20 { 3e38 } else { 0.0 }));
    x.extend([-1.0; BLOCK]);
    x.extend((0..32).map(|i| (i as f32 - 15.5) * 127.0 / 15.5));
    x.extend((0..32).map(|i| if i == 0 { 127.0 } else { i as f32 + 0.5 }));
    x.extend([0.0; BLOCK]);
    for two in [false, true] {
        let scalar = quantize(Kernels::new(Isa::Scalar).unwrap(), &x, two);
        for k in all() {
            let q = quantize(k, &x, two);
            assert_eq!(q, scalar, "{}", k.isa());
        }
        let q = scalar;
        for (b, x) in x.chunks_exact(BLOCK).enumerate() {
            let max = x.iter().fold(0f32, |m, x| m.max(x.abs()));
            let mut sums = [0.0; 2];
            let mut sum_h = [0; 2];
            for (i, &x) in x.iter().enumerate() {
                let h = q.h[b * BLOCK + i];
                let l = if two { q.l[b * BLOCK + i] as f64 / 256.0 } else { 0.0 };
                assert!(h != -128);
                let unit = q.scale[b] as f64;
                let got = unit * (h as f64 + l);
                let step = if two { 256.0 } else { 1.0 };
                close(Isa::Scalar, got as f32, x as f64, 1e-5, 0.5001 * unit / step + 1.01e-36);
                sums[i / 16] += got;
                sum_h[i / 16] += h as i16;
            }
            assert_eq!(q.sum_h[2 * b..][..2], sum_h);
            for (half, sum) in sums.into_iter().enumerate() {
                close(Isa::Scalar, q.sum16[2 * b + half], sum, 1e-6, max as f64 * 1e-6);
            }
            close(Isa::Scalar, q.sum32[b], sums[0] + sums[1], 1e-6, max as f64 * 1e-6);
        }
    }
}

#[test]
fn quantize_passes_on_what_is_not_finite() {
    for k in all() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [32, 40, 63] {
                let mut x = vec![1.0; 96];
                x[at] = bad;
                let q = quantize(k, &x, true);
                assert!(q.scale[1].is_nan() && q.sum32[1].is_nan() && q.sum16[2].is_nan());
                assert!(q.h[32..64].iter().chain(&q.l[32..64]).all(|&v| v == 0));
                assert!(q.scale[0] == 1.0 / 127.0 && q.scale[2] == 1.0 / 127.0);
            }
        }
    }
}

#[test]
fn q8_0_is_the_same_everywhere_and_near() {
    let mut random = Random(7);
    let mut x: Vec<f32> =
        [1.0, 1e-3, 1e4, 1e-7, 8e6, 0.0].iter().flat_map(|&by| random.vec(64, by)).collect();
    x[0] = 0.999;
    let bytes = |k: Kernels| {
        let mut out = vec![0; x.len() / 32 * 34];
        k.f32_to_q8_0(&x, &mut out);
        out
    };
    let scalar = bytes(Kernels::new(Isa::Scalar).unwrap());
    for k in all() {
        let q = bytes(k);
        assert_eq!(q, scalar, "{}", k.isa());
        let mut back = vec![0.0; x.len()];
        k.kv_row_to_f32(KvRows::Q8_0(&q), &mut back);
        for (b, (x, back)) in x.chunks(32).zip(back.chunks(32)).enumerate() {
            let d = f16::from_le_bytes([q[b * 34], q[b * 34 + 1]]).to_f32() as f64;
            for (i, (&x, &back)) in x.iter().zip(back).enumerate() {
                assert_eq!(back, q[b * 34 + 2 + i] as i8 as f32 * d as f32);
                // A scale that is rounded down cuts the greatest value; that of 1e-7 is subnormal and coarse.
                let max = x.abs().max(127.0 * d as f32) as f64;
                close(k.isa(), back, x as f64, 0.0, 0.501 * d + max * 5e-4 + 4e-6);
            }
        }
        let mut out = vec![0; 34];
        let mut x = [1.0; 32];
        x[20] = f32::NAN;
        k.f32_to_q8_0(&x, &mut out);
        assert!(f16::from_le_bytes([out[0], out[1]]).is_nan());
    }
}

/// A row of weights in each float type, and the values that it holds.
fn encode(ty: DType, x: &[f32]) -> (Vec<u8>, Vec<f32>) {
    match ty {
        DType::F32 => (x.iter().flat_map(|x| x.to_le_bytes()).collect(), x.to_vec()),
        DType::F16 => {
            let h = x.iter().map(|&x| f16::from_f32(x));
            (h.clone().flat_map(|x| x.to_le_bytes()).collect(), h.map(f16::to_f32).collect())
        }
        _ => {
            let h = x.iter().map(|&x| bf16::from_f32(x));
            (h.clone().flat_map(|x| x.to_le_bytes()).collect(), h.map(bf16::to_f32).collect())
        }
    }
}

fn dot(a: &[f32], b: &[f32]) -> (f64, f64) {
    let products = a.iter().zip(b).map(|(&a, &b)| a as f64 * b as f64);
    (products.clone().sum(), products.map(f64::abs).sum())
}

#[test]
fn gemv_float_at_any_alignment_and_independent_of_its_batch() {
    let mut random = Random(8);
    for k in all() {
        for ty in [DType::F32, DType::F16, DType::BF16] {
            for (cols, n_rows) in [(1, 1), (7, 3), (16, 4), (33, 5), (64, 9), (255, 6), (640, 7)] {
                let (encoded, w) = encode(ty, &random.vec(cols * n_rows, 1.0));
                // One byte in: files promise no alignment.
                let data = [vec![0], encoded].concat();
                let row_bytes = ty.row_bytes(cols).unwrap();
                let rows = Rows { ty, cols, row_bytes, data: &data[1..] };
                let x = random.vec(16 * cols, 1.0);
                let mut one = vec![[0f32; 9]; 16];
                for t in 0..16 {
                    k.gemv_float(rows, &x[t * cols..][..cols], 1, &mut one[t][..n_rows], n_rows);
                    for r in 0..n_rows {
                        let (want, size) = dot(&w[r * cols..][..cols], &x[t * cols..][..cols]);
                        close(k.isa(), one[t][r], want, 0.0, size * 1e-6);
                    }
                }
                for n in 1..=16 {
                    let stride = n_rows + 2;
                    let mut out = vec![9.0; n * stride];
                    k.gemv_float(rows, &x[..n * cols], n, &mut out, stride);
                    for t in 0..n {
                        assert_eq!(bits(&out[t * stride..][..n_rows]), bits(&one[t][..n_rows]));
                        assert_eq!(out[t * stride + n_rows..][..2], [9.0; 2]);
                    }
                }
                // Nor on which rows it is computed with.
                let mut some = vec![0.0; n_rows - 1];
                k.gemv_float(rows.range(1..n_rows), &x[..cols], 1, &mut some, n_rows.max(2) - 1);
                assert_eq!(bits(&some), bits(&one[0][1..n_rows]));
                let mut all = vec![0.0; cols * n_rows];
                k.rows_to_f32(rows, &mut all);
                assert_eq!(bits(&all), bits(&w));
            }
        }
    }
}

#[test]
fn gemm_f32_and_how_it_is_cut() {
    let mut random = Random(9);
    for k in all() {
        for depth in [0, 1, 5, 64, 256, 257, 700] {
            let (lda, ldb, ldc) = (depth + 3, 37, 40);
            let most = 29;
            let a = random.vec(most * lda, 1.0);
            let b = random.vec(depth * ldb + 32, 1.0);
            let c0 = random.vec(most * ldc, 1.0);
            let mut fresh = c0.clone();
            k.gemm_f32(most, depth, &a, lda, &b, ldb, &mut fresh, ldc, false);
            let mut added = c0.clone();
            k.gemm_f32(most, depth, &a, lda, &b, ldb, &mut added, ldc, true);
            for i in 0..most {
                for j in 0..ldc {
                    let at = i * ldc + j;
                    if j >= 32 {
                        assert!(fresh[at] == c0[at] && added[at] == c0[at]);
                        continue;
                    }
                    let column: Vec<f32> = (0..depth).map(|l| b[l * ldb + j]).collect();
                    let (want, size) = dot(&a[i * lda..][..depth], &column);
                    close(k.isa(), fresh[at], want, 0.0, size * 2e-6);
                    close(k.isa(), added[at], want + c0[at] as f64, 0.0, (size + 1.0) * 2e-6);
                }
            }
            for m in 1..most {
                let mut c = c0.clone();
                k.gemm_f32(m, depth, &a, lda, &b, ldb, &mut c, ldc, false);
                for i in 0..m {
                    assert_eq!(bits(&c[i * ldc..][..32]), bits(&fresh[i * ldc..][..32]), "{} m {m}", k.isa());
                }
                assert_eq!(bits(&c[m * ldc..]), bits(&c0[m * ldc..]));
            }
            let cut = depth / 3;
            let mut c = c0.clone();
            k.gemm_f32(most, cut, &a, lda, &b, ldb, &mut c, ldc, false);
            k.gemm_f32(most, depth - cut, &a[cut..], lda, &b[cut * ldb..], ldb, &mut c, ldc, true);
            assert_eq!(bits(&c), bits(&fresh), "{} cut", k.isa());
        }
    }
}

#[test]
fn transpose32() {
    let mut random = Random(10);
    for kernels in all() {
        for rows in [0, 1, 7, 8, 15, 16, 17, 24, 31, 32] {
            for k in [1, 8, 15, 16, 33, 64] {
                let ld = k + 3;
                let src = random.vec(rows * ld, 1.0);
                let mut dst = vec![9.0; k * 32];
                kernels.transpose32(&src, ld, rows, k, &mut dst);
                for j in 0..k {
                    for i in 0..32 {
                        assert_eq!(dst[j * 32 + i], if i < rows { src[i * ld + j] } else { 0.0 });
                    }
                }
            }
        }
    }
}

#[test]
fn attention_over_every_kind_of_row() {
    let mut random = Random(11);
    for k in all() {
        for (hd, n) in [(32, 1), (64, 5), (128, 33), (256, 300), (96, 17), (20, 6)] {
            let q = random.vec(16 * hd, 1.0);
            let x = random.vec(n * hd, 1.0);
            let half: Vec<f16> = x.iter().map(|&x| f16::from_f32(x)).collect();
            let mut blocks = vec![0; n * hd / 32 * 34];
            let mut kinds = vec![KvRows::F32(&x), KvRows::F16(&half)];
            if hd % 32 == 0 {
                k.f32_to_q8_0(&x, &mut blocks);
                kinds.push(KvRows::Q8_0(&blocks));
            }
            for kind in kinds {
                let mut rows = vec![0.0; n * hd];
                k.kv_row_to_f32(kind, &mut rows);
                let (ldp, ldo) = (n + 1, n + 2);
                let p = random.vec(16 * ldp, 1.0);
                let start = random.vec(16 * hd, 1.0);
                let mut scores = vec![9.0; 16 * ldo];
                k.attend_scores(16, &q, kind, n, &mut scores, ldo);
                let mut acc = start.clone();
                k.attend_values(16, &p, ldp, kind, n, &mut acc);
                for i in 0..16 {
                    for j in 0..n {
                        let (want, size) = dot(&q[i * hd..][..hd], &rows[j * hd..][..hd]);
                        close(k.isa(), scores[i * ldo + j], want, 0.0, size * 1e-6);
                    }
                    assert_eq!(scores[i * ldo + n..][..2], [9.0; 2]);
                    for d in 0..hd {
                        let column: Vec<f32> = (0..n).map(|j| rows[j * hd + d]).collect();
                        let (want, size) = dot(&p[i * ldp..][..n], &column);
                        let start = start[i * hd + d] as f64;
                        close(k.isa(), acc[i * hd + d], want + start, 0.0, (size + 1.0) * 1e-6);
                    }
                }
                for m in 1..16 {
                    let mut some = vec![0.0; m * ldo];
                    k.attend_scores(m, &q[..m * hd], kind, n, &mut some, ldo);
                    let mut sums = start[..m * hd].to_vec();
                    k.attend_values(m, &p, ldp, kind, n, &mut sums);
                    for i in 0..m {
                        assert_eq!(bits(&some[i * ldo..][..n]), bits(&scores[i * ldo..][..n]));
                    }
                    assert_eq!(bits(&sums), bits(&acc[..m * hd]), "{} m {m} hd {hd}", k.isa());
                }
            }
        }
    }
}

/// Where the float cache and the exact mode meet: the same numbers by either shape of product, to rounding.
#[test]
fn scores_agree_with_the_matrix_product() {
    let mut random = Random(12);
    for k in all() {
        let (m, hd, n) = (12, 256, 32);
        let (q, keys) = (random.vec(m * hd, 1.0), random.vec(n * hd, 1.0));
        let mut scores = vec![0.0; m * n];
        k.attend_scores(m, &q, KvRows::F32(&keys), n, &mut scores, n);
        let mut transposed = vec![0.0; hd * 32];
        k.transpose32(&keys, hd, n, hd, &mut transposed);
        let mut product = vec![0.0; m * 32];
        k.gemm_f32(m, hd, &q, hd, &transposed, 32, &mut product, 32, false);
        for (&a, &b) in scores.iter().zip(&product) {
            close(k.isa(), a, b as f64, 0.0, 1e-4);
        }
    }
}
