//! The f32 kernels: [`Kernels`]' methods for norms, activations, softmax, conversions and float matrix products.
//!
//! Each algorithm is written once, over [`Simd`] (in `elementwise.rs` and `matrix.rs`), and instantiated here for
//! each instruction set.

use half::f16;

use super::simd::Portable;
use super::{ActsMut, BLOCK, Kernels, MAX_STEP_ROWS, Plain, Rows, elementwise, matrix};
use crate::DType;

/// Hands the list of the float functions to the macro `$then`, after its arguments.
macro_rules! functions {
    ($then:ident!($($args:tt)*)) => {
        $then! { ($($args)*)
            elementwise::quantize(x: &[f32], out: &mut ActsMut<'_>) -> ();
            elementwise::rms_norm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) -> ();
            elementwise::rms_norm_in_place(x: &mut [f32], w: &[f32], eps: f32) -> ();
            elementwise::add(x: &mut [f32], y: &[f32]) -> ();
            elementwise::scale(x: &mut [f32], by: f32) -> ();
            elementwise::gelu_mul(gate: &mut [f32], up: &[f32]) -> ();
            elementwise::softcap(x: &mut [f32], cap: f32) -> ();
            elementwise::rope(x: &mut [f32], cos: &[f32], sin: &[f32]) -> ();
            elementwise::max(x: &[f32]) -> f32;
            elementwise::exp_sub_sum(x: &mut [f32], max: f32) -> f32;
            elementwise::sum_exp(x: &[f32], max: f32) -> f32;
            elementwise::f32_to_f16(x: &[f32], out: &mut [f16]) -> ();
            elementwise::f32_to_q8_0(x: &[f32], out: &mut [u8]) -> ();
            matrix::to_f32(ty: DType, x: &[u8], out: &mut [f32]) -> ();
            matrix::transpose32(src: &[f32], ld: usize, rows: usize, k: usize, dst: &mut [f32]) -> ();
            matrix::dots(rows: Rows<'_>, x: &[f32], n: usize, out: &mut [f32], stride: usize) -> ();
            matrix::sum_rows(m: usize, p: &[f32], ldp: usize, rows: Rows<'_>, n: usize, c: &mut [f32], ldc: usize, accumulate: bool) -> ();
        }
    };
}

/// The table's type.
macro_rules! declare {
    (() $($module:ident::$name:ident($($arg:ident: $ty:ty),*) -> $ret:ty;)*) => {
        /// The f32 functions of one instruction set: one generic algorithm, instantiated for each.
        ///
        /// As in `Table`, each is unsafe to call: the processor must have the instruction set, and lengths must have
        /// been checked as the methods of [`Kernels`] do.
        pub(super) struct FloatTable {
            $($name: unsafe fn($($arg: $ty),*) -> $ret,)*
        }
    };
}
functions!(declare!());

/// A table of functions that have the attribute `$attr` (target features, if any) and work on the vectors that `$simd` proves.
macro_rules! instantiate {
    (($static:ident, $simd:expr, #[$attr:meta])
     $($module:ident::$name:ident($($arg:ident: $ty:ty),*) -> $ret:ty;)*) => {
        pub(super) static $static: FloatTable = {
            $(
                #[$attr]
                #[allow(clippy::too_many_arguments)]
                unsafe fn $name($($arg: $ty),*) -> $ret {
                    // SAFETY: the caller promises the instruction set and that lengths are right.
                    unsafe { $module::$name($simd, $($arg),*) }
                }
            )*
            FloatTable { $($name,)* }
        };
    };
}

functions!(instantiate!(SCALAR, Portable, #[inline]));
#[cfg(target_arch = "x86_64")]
functions!(instantiate!(AVX2, super::simd_x86::Avx2::new(), #[target_feature(enable = "avx2,fma,f16c")]));
#[cfg(target_arch = "x86_64")]
functions!(instantiate!(
    AVX512,
    super::simd_x86::Avx512::new(),
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
));
#[cfg(target_arch = "aarch64")]
functions!(instantiate!(NEON, super::simd_neon::Neon::new(), #[target_feature(enable = "neon")]));

/// Rows of a KV cache, each `head_dim` values, one after the other.
#[derive(Clone, Copy)]
pub enum KvRows<'a> {
    /// As they are computed.
    F32(&'a [f32]),
    /// Rounded to half precision.
    F16(&'a [f16]),
    /// ggml's blocks of 34 bytes: an f16 scale and 32 i8.
    Q8_0(&'a [u8]),
}

impl<'a> KvRows<'a> {
    /// As rows of `cols` values.
    fn rows(self, cols: usize) -> Rows<'a> {
        let (ty, data) = match self {
            KvRows::F32(x) => (DType::F32, bytes(x)),
            KvRows::F16(x) => (DType::F16, bytes(x)),
            KvRows::Q8_0(x) => (DType::Q8_0, x),
        };
        let row_bytes = ty.row_bytes(cols).expect("head_dim is a whole number of blocks");
        Rows { ty, cols, row_bytes, data }
    }
}

/// The bytes of plain numbers.
fn bytes<T: Plain>(x: &[T]) -> &[u8] {
    // SAFETY: Plain types have no padding, and u8 may be read from anything initialized.
    unsafe { std::slice::from_raw_parts(x.as_ptr().cast(), size_of_val(x)) }
}

/// Length of a strided matrix: the last row may be short.
fn strided(rows: usize, stride: usize, cols: usize) -> usize {
    assert!(cols <= stride || rows <= 1);
    rows.checked_sub(1).map_or(0, |r| r * stride + cols)
}

/// The f32 kernels. NaN and infinity go through all of them as arithmetic has it, unless said otherwise.
impl Kernels {
    /// Quantizes `x` [k] to one row of activations, with plane `l` where `out.l` is not empty.
    ///
    /// A block of 32 with a value that is not finite gets the scale and sums NaN, so that every product with it is
    /// NaN too. One with no value above 1e-36 becomes zeros. The integers are the same on every instruction set.
    pub fn quantize(&self, x: &[f32], out: &mut ActsMut<'_>) {
        let k = x.len();
        assert!(k.is_multiple_of(BLOCK));
        assert!(out.h.len() == k && (out.l.is_empty() || out.l.len() == k));
        assert!(out.scale.len() == k / 32 && out.sum32.len() == k / 32);
        assert!(out.sum_h.len() == k / 16 && out.sum16.len() == k / 16);
        // SAFETY: a value of Kernels exists only where the instruction set does; lengths were checked above.
        unsafe { (self.0.float.quantize)(x, out) }
    }

    /// `out = x / √(mean(x²) + eps) · w`, all of one length.
    pub fn rms_norm(&self, x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
        assert!(w.len() == x.len() && out.len() == x.len());
        // SAFETY: as above.
        unsafe { (self.0.float.rms_norm)(x, w, eps, out) }
    }

    /// [`Self::rms_norm`] with the result in `x`, bit for bit.
    pub fn rms_norm_in_place(&self, x: &mut [f32], w: &[f32], eps: f32) {
        assert_eq!(w.len(), x.len());
        // SAFETY: as above.
        unsafe { (self.0.float.rms_norm_in_place)(x, w, eps) }
    }

    /// `x += y`.
    pub fn add(&self, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len());
        // SAFETY: as above.
        unsafe { (self.0.float.add)(x, y) }
    }

    /// `x *= by`.
    pub fn scale(&self, x: &mut [f32], by: f32) {
        // SAFETY: as above; any length will do.
        unsafe { (self.0.float.scale)(x, by) }
    }

    /// `gate = gelu(gate) · up`, with `gelu(x) = ½x(1 + tanh(√(2/π)(x + 0.044715x³)))`.
    pub fn gelu_mul(&self, gate: &mut [f32], up: &[f32]) {
        assert_eq!(gate.len(), up.len());
        // SAFETY: as above.
        unsafe { (self.0.float.gelu_mul)(gate, up) }
    }

    /// `x = cap · tanh(x / cap)`.
    pub fn softcap(&self, x: &mut [f32], cap: f32) {
        // SAFETY: as above; any length will do.
        unsafe { (self.0.float.softcap)(x, cap) }
    }

    /// Rotates the pairs (i, i + head_dim / 2) of one head `x` [head_dim] by angles whose cosines and sines are `cos`
    /// and `sin` [head_dim / 2].
    pub fn rope(&self, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        assert!(x.len() == 2 * cos.len() && cos.len() == sin.len());
        // SAFETY: as above.
        unsafe { (self.0.float.rope)(x, cos, sin) }
    }

    /// The greatest value; NaN is passed over. Minus infinity when there is none.
    pub fn max(&self, x: &[f32]) -> f32 {
        // SAFETY: as above; any length will do.
        unsafe { (self.0.float.max)(x) }
    }

    /// `x = exp(x − max)`; returns the sum. exp(0) is 1 and exp(−∞) is 0, exactly.
    pub fn exp_sub_sum(&self, x: &mut [f32], max: f32) -> f32 {
        // SAFETY: as above; any length will do.
        unsafe { (self.0.float.exp_sub_sum)(x, max) }
    }

    /// What [`Self::exp_sub_sum`] returns, bit for bit, and `x` is left alone.
    pub fn sum_exp(&self, x: &[f32], max: f32) -> f32 {
        // SAFETY: as above; any length will do.
        unsafe { (self.0.float.sum_exp)(x, max) }
    }

    #[cfg(any(test, feature = "bench"))]
    /// Half precision to single.
    pub fn f16_to_f32(&self, x: &[f16], out: &mut [f32]) {
        assert_eq!(x.len(), out.len());
        // SAFETY: as above.
        unsafe { (self.0.float.to_f32)(DType::F16, bytes(x), out) }
    }

    #[cfg(any(test, feature = "bench"))]
    /// bfloat16 to single precision.
    pub fn bf16_to_f32(&self, x: &[half::bf16], out: &mut [f32]) {
        assert_eq!(x.len(), out.len());
        // SAFETY: as above.
        unsafe { (self.0.float.to_f32)(DType::BF16, bytes(x), out) }
    }

    /// Single precision to half, rounded to the nearest, ties to even.
    pub fn f32_to_f16(&self, x: &[f32], out: &mut [f16]) {
        assert_eq!(x.len(), out.len());
        // SAFETY: as above.
        unsafe { (self.0.float.f32_to_f16)(x, out) }
    }

    #[cfg(any(test, feature = "bench"))]
    /// Rows of F32, F16 or BF16 as they lie in a file, to f32: `out` [rows.len(), rows.cols].
    pub fn rows_to_f32(&self, rows: Rows<'_>, out: &mut [f32]) {
        rows.check();
        assert!(rows.ty.is_float() && out.len() == rows.len() * rows.cols);
        // SAFETY: as above.
        unsafe { (self.0.float.to_f32)(rows.ty, rows.data, out) }
    }

    /// Rows of a KV cache to f32; `out` has as many values as they.
    pub fn kv_row_to_f32(&self, rows: KvRows<'_>, out: &mut [f32]) {
        let rows = rows.rows(out.len());
        assert_eq!(rows.data.len(), rows.row_bytes);
        // SAFETY: as above.
        unsafe { (self.0.float.to_f32)(rows.ty, rows.data, out) }
    }

    /// `x` [k] to k / 32 blocks of Q8_0. Values beyond ±127 · 65504 (the greatest f16 scale) are cut; a block with a
    /// value that is not finite gets the scale NaN.
    pub fn f32_to_q8_0(&self, x: &[f32], out: &mut [u8]) {
        assert_eq!(DType::Q8_0.row_bytes(x.len()), Some(out.len()));
        // SAFETY: as above.
        unsafe { (self.0.float.f32_to_q8_0)(x, out) }
    }

    /// Adds a matrix product to 32 columns: `c[i · ldc + j] = c[i · ldc + j]·[accumulate] + Σ a[i · lda + l] · b[l · ldb + j]`
    /// over l < k, for i < m and j < 32.
    ///
    /// Each output is summed by itself in order of l, starting from 0 or, with `accumulate`, from what `c` holds: its
    /// bits depend neither on `m` nor on how k is split among calls.
    #[allow(clippy::too_many_arguments)] // those of every matrix product
    pub fn gemm_f32(
        &self,
        m: usize,
        k: usize,
        a: &[f32],
        lda: usize,
        b: &[f32],
        ldb: usize,
        c: &mut [f32],
        ldc: usize,
        accumulate: bool,
    ) {
        assert!(a.len() >= strided(m, lda, k) && b.len() >= strided(k, ldb, 32));
        assert!(c.len() >= strided(m, ldc, 32));
        let rows = Rows { ty: DType::F32, cols: 32, row_bytes: ldb * 4, data: bytes(b) };
        // SAFETY: as above.
        unsafe { (self.0.float.sum_rows)(m, a, lda, rows, k, c, ldc, accumulate) }
    }

    /// Transposes `rows` (at most 32) rows of `k` values at stride `ld` to `dst` [k, 32]; missing rows become zeros.
    pub fn transpose32(&self, src: &[f32], ld: usize, rows: usize, k: usize, dst: &mut [f32]) {
        assert!(rows <= 32 && src.len() >= strided(rows, ld, k) && dst.len() == k * 32);
        // SAFETY: as above.
        unsafe { (self.0.float.transpose32)(src, ld, rows, k, dst) }
    }

    /// Products of every row of F32, F16 or BF16 with each of `x` [n, rows.cols], n at most [`MAX_STEP_ROWS`]:
    /// `out[t · stride + r]` is that of weight row `r` with `x`'s row `t`.
    ///
    /// The weights are read once. The bits of an output depend on its weight row and its row of `x` only.
    pub fn gemv_float(&self, rows: Rows<'_>, x: &[f32], n: usize, out: &mut [f32], stride: usize) {
        rows.check();
        assert!(rows.ty.is_float() && (1..=MAX_STEP_ROWS).contains(&n) && x.len() == n * rows.cols);
        assert!(out.len() >= strided(n, stride, rows.len()));
        // SAFETY: as above.
        unsafe { (self.0.float.dots)(rows, x, n, out, stride) }
    }

    /// Scores of `m` query rows `q` [m, head_dim] with `n` rows of keys: `out[i · ldo + j] = q_i · k_j`.
    ///
    /// The keys are read once. The bits of a score depend on its query and its key only.
    pub fn attend_scores(&self, m: usize, q: &[f32], k: KvRows<'_>, n: usize, out: &mut [f32], ldo: usize) {
        assert!((1..=MAX_STEP_ROWS).contains(&m) && q.len().is_multiple_of(m));
        let rows = k.rows(q.len() / m);
        assert_eq!(rows.data.len(), n * rows.row_bytes);
        assert!(out.len() >= strided(m, ldo, n));
        // SAFETY: as above.
        unsafe { (self.0.float.dots)(rows, q, m, out, ldo) }
    }

    /// Adds `n` rows of values, weighted: `acc[i] += Σ p[i · ldp + j] · v_j`, with `acc` [m, head_dim].
    ///
    /// Each output is summed in order of j from what `acc` holds, whatever `m` is and however the rows are split among
    /// calls.
    pub fn attend_values(&self, m: usize, p: &[f32], ldp: usize, v: KvRows<'_>, n: usize, acc: &mut [f32]) {
        assert!((1..=MAX_STEP_ROWS).contains(&m) && acc.len().is_multiple_of(m));
        let rows = v.rows(acc.len() / m);
        assert_eq!(rows.data.len(), n * rows.row_bytes);
        assert!(p.len() >= strided(m, ldp, n));
        // SAFETY: as above.
        unsafe { (self.0.float.sum_rows)(m, p, ldp, rows, n, acc, rows.cols, true) }
    }
}
